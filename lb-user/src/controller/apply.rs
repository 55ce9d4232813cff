//! Configurations as a whole: what one would change, bringing one into force on trial, and going back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::abi::Port;

use super::{
    Action, Controller, Level, Token, Writing,
    requests::{failed, refusal},
};
use crate::{
    api::{
        ApplySpec, ChangeKind, ChangeView, Done, PastView, PlanView, PoolPlanView, Proposal, Refusal,
        RefusalKind, Request, Response, State,
    },
    model::{
        difference::{self, Difference, Kind},
        history::Past,
        layout::Layout,
        plan::{self, Change, HopTarget, PoolTarget, TableCache, Target},
        probe::BackendId,
        service::{AdminState, Desired, Name},
        source::Source,
        timestamp::rfc3339,
    },
};

/// Whoever asked for what nobody asked for.
pub(super) const NOBODY: Token = Token::MAX;

/// What errors call a text that stands in no file of the daemon's.
const PROPOSAL: &str = "proposal";

/// The longest trial.
const LONGEST_TRIAL: Duration = Duration::from_secs(24 * 3600);

/// A configuration that is in force until its time is over, unless it is confirmed.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) ends: Duration,
    /// What comes back.
    before: Source,
    /// Who was up.
    up: BTreeSet<BackendId>,
    /// More of them must not go down.
    max_down_percent: u8,
}

/// What is to become a trial once it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    lasts: Duration,
    max_down_percent: u8,
}

impl Controller {
    /// The files that a proposed text names were read: its request goes on.
    pub(super) fn take_files(
        &mut self,
        now: Duration,
        token: Token,
        source: Source,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut request) = self.proposed.remove(&token) else { return };
        if let Request::OnlyIf { etags, request: guarded } = request {
            if let Err(refused) = self.check_tag(&etags) {
                return actions.push(Action::Reply { token, response: Response::Refused(refused) });
            }
            request = *guarded;
        }
        let response = match request {
            Request::Plan(_) => match self.plan_view(&source) {
                Ok(view) => Response::Plan(Box::new(view)),
                Err(errors) => Response::Refused(Refusal { kind: RefusalKind::Invalid, errors }),
            },
            Request::Apply(spec) => match self.apply(now, token, source, &spec, actions) {
                Ok(None) => return,
                Ok(Some(done)) => Response::Done(done),
                Err(refused) => Response::Refused(refused),
            },
            Request::Rollback(number) => match self.roll_back(token, source, number, actions) {
                Ok(()) => return,
                Err(refused) => Response::Refused(refused),
            },
            _ => failed("not a proposal".to_owned()),
        };
        actions.push(Action::Reply { token, response });
    }

    /// A whole configuration is proposed: first the files that it names.
    pub(super) fn propose(&mut self, token: Token, request: Request, actions: &mut Vec<Action>) {
        let proposal = match &request {
            Request::OnlyIf { request, .. } => request,
            request => request,
        };
        let text = match proposal {
            Request::Plan(Proposal { text }) | Request::Apply(ApplySpec { text, .. }) => text.clone(),
            Request::Rollback(number) => {
                let Some(past) = self.history.get(*number) else {
                    let error = match number {
                        Some(number) => format!("the history has no configuration {number}"),
                        None => "the history has no configuration before this one".to_owned(),
                    };
                    let response = Response::Refused(refusal(RefusalKind::NotFound, error));
                    return actions.push(Action::Reply { token, response });
                };
                past.text.clone()
            }
            _ => return,
        };
        self.proposed.insert(token, request);
        actions.push(Action::ReadNamed { token, text });
    }

    /// What a configuration would change.
    fn plan_view(&self, source: &Source) -> Result<PlanView, Vec<String>> {
        let desired = self.accept(source, PROPOSAL)?;
        let target = self.target(&desired, &self.leaving_under(&desired));
        let layout = self.layout.placed(&target).map_err(|full| vec![full.to_string()])?;
        let changes = plan::plan(&self.installed, &layout, &target, &mut self.tables.clone());
        let changes = changes.map_err(|error| vec![error.to_string()])?;
        let outlook = self.outlook(&desired);
        let pools = difference::of_pools(&self.desired, &desired).into_iter().map(|difference| {
            let name = &difference.pool.name;
            let (slots, slots_moved) = outlook.as_ref().map_or((0, 0), |outlook| self.moved(outlook, name));
            let summary = self.transitions.get(name).cloned().unwrap_or_default();
            let leaving = self.numbers_without(name, &desired);
            PoolPlanView {
                change: kind(difference.pool.kind),
                what: difference.pool.what,
                backends: difference.backends.into_iter().map(view).collect(),
                slots,
                slots_moved,
                percent_moved: if slots == 0 {
                    0.0
                } else {
                    100.0 * f64::from(slots_moved) / f64::from(slots)
                },
                remembered: summary.remembered,
                remembered_on_leaving: leaving
                    .iter()
                    .filter_map(|number| summary.by_number.get(number))
                    .sum(),
                name: difference.pool.name.to_string(),
            }
        });
        Ok(PlanView {
            generation: self.config.generation,
            etag: self.etag(),
            settings: difference::of_settings(&self.desired.settings, &desired.settings),
            services: difference::of_services(&self.desired, &desired).into_iter().map(view).collect(),
            pools: pools.collect(),
            acls: difference::of_lists(&self.desired, &desired).into_iter().map(view).collect(),
            steps: changes.len(),
            writes: changes.iter().map(Change::writes).sum(),
        })
    }

    /// The layout and the targets of a configuration whose new backends are up.
    fn outlook(&self, desired: &Desired) -> Option<(Layout, Target)> {
        let mut target = self.target(desired, &self.leaving_under(desired));
        let somewhere =
            HopTarget { port: Port { ifindex: 1, vlan: 0 }, source: [0; 6], destination: [0; 6], mtu: 1500 };
        for (pool, wanted) in target.pools.iter_mut().zip(&desired.pools) {
            for (member, backend) in pool.members.iter_mut().zip(&wanted.backends) {
                let place = self.layout.pool(&wanted.name);
                let identity = self.identity_of(backend);
                let is_new = place.is_none_or(|place| !place.numbers.contains_key(&identity));
                if is_new && backend.state == AdminState::Ready {
                    member.hop = Some(somewhere);
                    member.weight = self.table_weight(wanted, backend);
                } else if backend.state == AdminState::Ready && member.weight > 0 {
                    member.weight = self.table_weight(wanted, backend);
                }
            }
        }
        let layout = self.layout.placed(&target).ok()?;
        Some((layout, target))
    }

    /// How many slots a pool has, and how many of them get another owner.
    fn moved(&self, (layout, target): &(Layout, Target), name: &Name) -> (u32, u32) {
        let pool = target.pools.iter().find(|pool| pool.name == *name);
        let (Some(pool), Some(place)) = (pool, layout.pool(name)) else {
            let slots = self.layout.pool(name).map_or(0, |place| place.slots);
            return (slots, slots);
        };
        let Some(before) = self.layout.pool(name).filter(|before| before.slots == place.slots) else {
            // Nobody has flows in a new pool. One of another size moves as a whole.
            return (pool.slots, if self.layout.pool(name).is_some() { pool.slots } else { 0 });
        };
        let addresses = |layout: &Layout| -> BTreeMap<u16, IpAddr> {
            let numbers = layout.pool(name).map(|place| &place.numbers);
            numbers.into_iter().flatten().map(|(identity, &number)| (number, identity.address)).collect()
        };
        let (old, new) = (addresses(&self.layout), addresses(layout));
        let mut cache = TableCache::default();
        let PoolTarget { slots, .. } = pool;
        let table = cache.table(pool, place, &target.outer);
        let moved = (before.slot_base..).zip(table).filter(|(at, next)| {
            let present = self.installed.slots[*at as usize].owner();
            let owner = present.and_then(|number| old.get(&number));
            owner.is_some() && owner != next.owner().and_then(|number| new.get(&number))
        });
        (*slots, u32::try_from(moved.count()).unwrap_or(u32::MAX))
    }

    /// Numbers of a pool's backends that another configuration does not have.
    fn numbers_without(&self, name: &Name, desired: &Desired) -> Vec<u16> {
        let Some(place) = self.layout.pool(name) else { return Vec::new() };
        let stays: BTreeSet<IpAddr> = desired
            .pool(name)
            .into_iter()
            .flat_map(|pool| &pool.backends)
            .map(|backend| backend.address)
            .collect();
        let numbers = place.numbers.iter().filter(|(identity, _)| !stays.contains(&identity.address));
        numbers.map(|(_, &number)| number).collect()
    }

    /// Brings a configuration into force by way of the file. Done at once if it is the one in force.
    fn apply(
        &mut self,
        now: Duration,
        token: Token,
        source: Source,
        spec: &ApplySpec,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Done>, Refusal> {
        if let Some(trial) = &self.trial {
            let left = trial.ends.saturating_sub(now).as_secs();
            let error = format!(
                "another configuration is on trial for {left} s more: lb confirm or lb rollback first"
            );
            return Err(refusal(RefusalKind::Conflict, error));
        }
        let lasts = spec.confirm_seconds.map(Duration::from_secs);
        if lasts.is_some_and(|lasts| lasts.is_zero() || lasts > LONGEST_TRIAL) {
            let error = format!("a trial lasts from 1 s to {} s", LONGEST_TRIAL.as_secs());
            return Err(refusal(RefusalKind::Invalid, error));
        }
        let max_down_percent = spec.max_down_percent.unwrap_or(ApplySpec::MAX_DOWN_PERCENT);
        if max_down_percent > 100 {
            return Err(refusal(RefusalKind::Invalid, "max_down_percent is at most 100".to_owned()));
        }
        self.check_writable()?;
        let desired = self
            .accept(&source, PROPOSAL)
            .map_err(|errors| Refusal { kind: RefusalKind::Invalid, errors })?;
        if source == self.source {
            return Ok(Some(self.done("this configuration is in force already")));
        }
        let terms = lasts.map(|lasts| Terms { lasts, max_down_percent });
        let said = match terms {
            None => "a configuration was applied".to_owned(),
            Some(Terms { lasts, .. }) => format!(
                "a configuration was applied on trial: the one before comes back in {} s unless this one is confirmed (lb confirm)",
                lasts.as_secs()
            ),
        };
        self.write(Writing { token, source, desired, said, terms }, actions);
        Ok(None)
    }

    /// Hands an edit over to the file.
    pub(super) fn write(&mut self, writing: Writing, actions: &mut Vec<Action>) {
        let (before, after) = (self.source.text.clone(), writing.source.text.clone());
        let token = writing.token;
        self.writing = Some(writing);
        actions.push(Action::WriteConfig { token, before, after });
    }

    /// Whether an edit of the file could take effect now.
    pub(super) fn check_writable(&self) -> Result<(), Refusal> {
        if self.writing.is_some() {
            let error = "another edit is being written; try again".to_owned();
            return Err(refusal(RefusalKind::Conflict, error));
        }
        if self.config.errors.is_empty() {
            return Ok(());
        }
        let mut errors = vec![format!(
            "{} has errors; an edit now would be lost or would overwrite it: mend it first",
            self.config.path
        )];
        errors.extend(self.config.errors.iter().cloned());
        Err(Refusal { kind: RefusalKind::Conflict, errors })
    }

    /// An edit stands in the file and is in force: its trial begins, if it has one.
    pub(super) fn begin_trial(
        &mut self,
        now: Duration,
        before: Source,
        up: BTreeSet<BackendId>,
        terms: Option<Terms>,
    ) {
        self.trial = terms.map(|Terms { lasts, max_down_percent }| Trial {
            ends: now + lasts,
            before,
            up,
            max_down_percent,
        });
    }

    /// Who is up.
    pub(super) fn up(&self) -> BTreeSet<BackendId> {
        self.members
            .iter()
            .filter(|(_, member)| member.state == State::Up)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Ends a trial whose time is over, or that takes too many backends down.
    pub(super) fn watch_trial(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(trial) = &self.trial else { return };
        if self.writing.is_some() {
            return;
        }
        let down = |id: &&BackendId| self.members.get(id).is_some_and(|member| member.state == State::Down);
        let (lost, were) = (trial.up.iter().filter(down).count(), trial.up.len());
        let why = if lost * 100 > were * usize::from(trial.max_down_percent) {
            format!("{lost} of {were} backends that were UP went DOWN")
        } else if now >= trial.ends {
            "it was not confirmed in time".to_owned()
        } else {
            return;
        };
        let source = trial.before.clone();
        let desired = match self.accept(&source, PROPOSAL) {
            Ok(desired) => desired,
            Err(errors) => {
                let said = format!("cannot go back to the configuration before: {}", errors.join("; "));
                actions.push(Action::Log(Level::Error, said));
                self.trial = None;
                return;
            }
        };
        // The trial goes on until the file is written: should the disk be full, the next tick tries again.
        actions.push(Action::Log(Level::Warn, format!("the configuration on trial is rolled back: {why}")));
        let said = format!("rolled back: {why}");
        self.write(Writing { token: NOBODY, source, desired, said, terms: None }, actions);
    }

    /// The configuration on trial stays.
    pub(super) fn confirm(&mut self) -> Response {
        match self.trial.take() {
            Some(_) => Response::Done(self.done("the configuration is confirmed")),
            None => {
                Response::Refused(refusal(RefusalKind::Conflict, "no configuration is on trial".to_owned()))
            }
        }
    }

    /// Goes back to a configuration of the history, which ends a trial.
    fn roll_back(
        &mut self,
        token: Token,
        source: Source,
        number: Option<u64>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.check_writable()?;
        let desired = self
            .accept(&source, PROPOSAL)
            .map_err(|errors| Refusal { kind: RefusalKind::Invalid, errors })?;
        let said = match number.or_else(|| self.history.get(None).map(|past| past.number)) {
            Some(number) => format!("rolled back to configuration {number} of the history"),
            None => "rolled back".to_owned(),
        };
        self.write(Writing { token, source, desired, said, terms: None }, actions);
        Ok(())
    }

    /// Configurations that an earlier daemon kept.
    pub fn recall(&mut self, past: Vec<Past>) {
        self.history = crate::model::history::History::of(past);
    }

    /// The configuration in force goes into the history.
    pub(super) fn keep(&mut self, now: Duration, said: String, actions: &mut Vec<Action>) {
        let time = rfc3339(self.wall_clock(now));
        if let Some(past) = self.history.add(time, said, &self.source) {
            actions.push(Action::Keep(past.clone()));
        }
    }

    pub(super) fn history_views(&self) -> Vec<PastView> {
        let last = self.history.iter().next_back().map(|past| past.number);
        self.history.iter().map(|past| self.past_view(past, last, false)).collect()
    }

    pub(super) fn past(&self, number: u64) -> Response {
        match self.history.get(Some(number)) {
            Some(past) => {
                let last = self.history.iter().next_back().map(|past| past.number);
                Response::History(vec![self.past_view(past, last, true)])
            }
            None => Response::Refused(refusal(
                RefusalKind::NotFound,
                format!("the history has no configuration {number}"),
            )),
        }
    }

    fn past_view(&self, past: &Past, last: Option<u64>, with_text: bool) -> PastView {
        PastView {
            number: past.number,
            time: past.time.clone(),
            said: past.said.clone(),
            in_force: last == Some(past.number) && past.text == self.source.text,
            text: with_text.then(|| past.text.clone()),
        }
    }
}

fn view(difference: Difference) -> ChangeView {
    ChangeView { name: difference.name.to_string(), change: kind(difference.kind), what: difference.what }
}

fn kind(kind: Kind) -> ChangeKind {
    match kind {
        Kind::Added => ChangeKind::Added,
        Kind::Removed => ChangeKind::Removed,
        Kind::Changed => ChangeKind::Changed,
    }
}
