//! The controller: a state machine that owns all state of the daemon and awaits nothing.
//!
//! Events come in, actions go out. What is wanted (the configuration), what is known (health, next hops) and what is
//! installed meet here; how the one becomes the other is the model's business. No I/O, no clock, no async.

mod apply;
mod capture;
mod checking;
mod draining;
mod drops;
mod event;
mod found;
mod interfaces;
mod journal;
mod leaving;
mod moving;
mod requests;
mod shares;
mod shortage;
mod standing;
#[cfg(test)]
mod tests;
mod trace;
mod verify;
mod view;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{Counter, Limits, Reason};

use self::apply::{Terms, Trial};
use self::capture::Capture;
use self::journal::Journal;
use self::leaving::Leaving;
use self::shortage::Supply;
use self::standing::{Member, Server, carried_over, reason_of, state_of};
pub use self::{
    event::{Action, Applied, Event, Identity, Level, Token, Unwritten},
    found::Tables,
    wanted::features,
};
use crate::{
    api::{ConfigView, InterfaceView, Request, Response, State, StateView},
    config,
    model::{
        history::History,
        layout::Layout,
        memory::Memory,
        next_hop::{NextHop, Unreachable},
        plan::{self, Change, TableCache},
        probe::{BackendId, ProbeId, ProbeSpec},
        service::{Desired, Name},
        source::Source,
        traffic::{Counters, Meter},
        transition::{Summary, Watch},
    },
};

/// How long a failed plan waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Who owns a counter: a service, and what it counts there.
type CounterOwner = (Name, Counted);

/// What a service counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Counted {
    /// What it sends to a backend of its pool.
    Backend(Name),
    /// What it sends to one of the pool that helps out.
    Helper(BackendId),
    /// What it sends to one that left the configuration and still has flows.
    Leaving(IpAddr),
    /// What it does not, by [`Reason::counter`].
    Reason(u32),
}

/// What outlives those that it is the sum of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Sum {
    /// What a service sends to all its backends, those that are gone as well.
    Service(Name),
    /// What is counted for a reason, by [`Reason::counter`], of services that are gone as well.
    Reason(u32),
}

/// All state of the daemon.
pub struct Controller {
    identity: Identity,
    interfaces: Vec<InterfaceView>,
    /// Why the balancer is attached no more where it was, by interface.
    lost: BTreeMap<String, String>,
    started: Duration,
    /// The time of the events that are being taken in.
    now: Duration,
    source: Source,
    config: ConfigView,
    desired: Desired,
    members: BTreeMap<BackendId, Member>,
    next_hops: BTreeMap<IpAddr, Result<NextHop, Unreachable>>,
    layout: Layout,
    installed: Memory,
    tables: TableCache,
    /// The plan that is being carried out.
    pending: Vec<Change>,
    retry_at: Option<Duration>,
    /// The pool whose entries are looked at next.
    looked_at: usize,
    failure: Option<String>,
    traffic: Meter<CounterOwner>,
    sums: Meter<Sum>,
    /// Reasons for which so much is dropped that it was told, by [`Reason::counter`].
    alarms: BTreeSet<u32>,
    /// What was last ordered of the edges: orders are only repeated if they differ.
    resolving: BTreeSet<IpAddr>,
    probing: BTreeMap<ProbeId, Arc<ProbeSpec>>,
    /// The edit that waits for the file to be written.
    writing: Option<Writing>,
    /// Configurations as a whole that wait for the files that they name.
    proposed: BTreeMap<Token, Request>,
    /// The configuration in force goes unless it is confirmed.
    trial: Option<Trial>,
    history: History,
    /// Backends that left the configuration and still serve the flows they have.
    leaving: Vec<Leaving>,
    watch: Watch,
    /// Slots that were in transition long enough.
    settled: BTreeSet<u32>,
    /// What is remembered, by pool, as it was last seen.
    transitions: BTreeMap<Name, Summary>,
    flows_read_at: Duration,
    /// Questions that wait for the flow table to be read.
    asking: Vec<(Token, Request)>,
    /// Who takes the new flows of each pool.
    supplies: BTreeMap<Name, Supply>,
    /// When backends were last compared by how fast they answer.
    speed_seen_at: Duration,
    journal: Journal,
    capture: Option<Capture>,
    /// Something changed since the last plan was made.
    dirty: bool,
    /// The tables arrived where they should be: the probes may follow.
    probes_follow: bool,
    /// No packet meets the tables yet: nobody has flows by them that a change could hurt.
    aside: bool,
}

/// An edit on its way into the file.
struct Writing {
    token: Token,
    source: Source,
    desired: Desired,
    /// What it does, one sentence.
    said: String,
    /// It is on trial.
    terms: Option<Terms>,
}

impl Controller {
    /// A controller that wants nothing yet, over empty tables.
    pub fn new(now: Duration, limits: Limits, identity: Identity) -> Self {
        Self {
            config: ConfigView { path: identity.config_path.clone(), ..ConfigView::default() },
            identity,
            interfaces: Vec::new(),
            lost: BTreeMap::new(),
            started: now,
            now,
            source: Source::default(),
            desired: Desired::default(),
            members: BTreeMap::new(),
            next_hops: BTreeMap::new(),
            layout: Layout::new(&limits),
            installed: Memory::new(limits),
            tables: TableCache::default(),
            pending: Vec::new(),
            retry_at: None,
            looked_at: 0,
            failure: None,
            traffic: Meter::default(),
            sums: Meter::default(),
            alarms: BTreeSet::new(),
            resolving: BTreeSet::new(),
            probing: BTreeMap::new(),
            writing: None,
            proposed: BTreeMap::new(),
            trial: None,
            history: History::default(),
            leaving: Vec::new(),
            watch: Watch::default(),
            settled: BTreeSet::new(),
            transitions: BTreeMap::new(),
            flows_read_at: now,
            asking: Vec::new(),
            supplies: BTreeMap::new(),
            speed_seen_at: now,
            journal: Journal::default(),
            capture: None,
            dirty: true,
            probes_follow: false,
            aside: false,
        }
    }

    /// The tables as they are believed to be.
    pub fn installed(&self) -> &Memory {
        &self.installed
    }

    /// Why the file as it stands is not in force; empty if it is.
    pub fn config_errors(&self) -> &[String] {
        &self.config.errors
    }

    /// What the configuration in force asks for.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Takes in a batch of events that happened together, and says what is to be done about them.
    pub fn handle(&mut self, now: Duration, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.now = now;
        for event in events {
            self.take(now, event, &mut actions);
        }
        if self.dirty && self.pending.is_empty() {
            self.dirty = false;
            self.dismiss_the_dead(&mut actions);
            self.report_states(now, &mut actions);
            self.follow_shares(now);
            self.watch_supply(&mut actions);
            self.watch_trial(now, &mut actions);
            self.follow_addresses(&mut actions);
            self.change_tables(now, &mut actions);
        }
        self.follow_backends(&mut actions);
        self.follow_capture(&mut actions);
        self.keep_journal(now, &mut actions);
        actions
    }

    /// What the wall clock says at a time of the daemon's own.
    fn wall_clock(&self, at: Duration) -> Duration {
        self.identity.epoch.saturating_add(at)
    }

    fn take(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::ConfigText(source) => self.take_config(now, source, actions),
            Event::ConfigUnreadable(why) => {
                let said =
                    format!("cannot read {}: {why}; the configuration in force stays", self.config.path);
                actions.push(Action::Log(Level::Error, said));
                self.config.errors = vec![why];
            }
            Event::ConfigWritten { token, result } => self.take_written(now, token, result, actions),
            Event::NextHop { target, state } => self.take_next_hop(now, target, state),
            Event::Probe(outcome) => self.take_outcome(now, &outcome),
            Event::Applied(applied) => self.take_applied(now, applied, actions),
            Event::ReadBack(read) => self.take_read_back(now, &read, actions),
            Event::Counters(counters) => {
                self.take_counters(now, counters);
                self.watch_drops(actions);
            }
            Event::Flows(reading) => {
                self.take_flows(now, &reading);
                self.answer_waiting(now, actions);
            }
            Event::Interface { name, state } => self.take_interface(name, state, actions),
            Event::FlowsUnreadable => self.answer_waiting(now, actions),
            Event::Traced { token, sample, trace } => {
                let response = match trace {
                    Ok(trace) => Response::Trace(Box::new(self.trace_view(&sample, &trace))),
                    Err(why) => requests::failed(why),
                };
                actions.push(Action::Reply { token, response });
            }
            Event::Packets(packets) => self.take_packets(packets, actions),
            Event::StreamFull { token } => self.lose(token, actions),
            Event::StreamEnded { token } => self.take_stream_ended(now, token, actions),
            Event::Request { token, request } => self.take_request(now, token, request, actions),
            Event::NamedRead { token, source } => self.take_files(now, token, source, actions),
            Event::Tick => {
                self.watch_trial(now, actions);
                self.watch_drains(actions);
                self.watch_shares(now);
                self.watch_moves();
                self.watch_tables(actions);
                if self.retry_at.is_some_and(|at| at <= now) {
                    self.retry_at = None;
                    self.dirty = true;
                }
                self.watch_flows(now, actions);
                self.watch_capture(now, actions);
            }
        }
    }

    /// A new text of the configuration file, or of one that it names. A bad one changes nothing but what is said about it.
    fn take_config(&mut self, now: Duration, source: Source, actions: &mut Vec<Action>) {
        if self.config.generation > 0 && source == self.source {
            self.config.errors.clear();
            return;
        }
        match self.accept(&source, &self.config.path) {
            Ok(desired) => {
                if self.trial.take().is_some() {
                    let said = "the file was changed during the trial: what it says now stays".to_owned();
                    actions.push(Action::Log(Level::Warn, said));
                }
                self.adopt(now, source, desired, actions);
                let said =
                    if self.config.generation == 1 { "lb was started" } else { "the file was changed" };
                self.keep(now, said.to_owned(), actions);
                let Desired { pools, services, .. } = &self.desired;
                let backends: usize = pools.iter().map(|pool| pool.backends.len()).sum();
                let said = format!(
                    "configuration {} in force: {} services, {} pools, {backends} backends",
                    self.config.generation,
                    services.len(),
                    pools.len()
                );
                actions.push(Action::Log(Level::Info, said));
            }
            Err(errors) => {
                let report = errors.join("\n");
                let said = format!("the configuration was refused, the one in force stays:\n{report}");
                actions.push(Action::Log(Level::Error, said));
                self.config.errors = errors;
            }
        }
    }

    /// Reads a configuration, which errors call `shown`, and sees whether the tables are large enough for it. Once it is in force it must stay
    /// possible to act on health and next hops, so one that does not fit is refused as a whole.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn accept(&self, source: &Source, shown: &str) -> Result<Desired, Vec<String>> {
        let mut desired = config::parse(&source.text, &source.files)
            .map_err(|errors| errors.report(shown).lines().map(str::to_owned).collect::<Vec<_>>())?;
        desired.end_drains(self.wall_clock(self.now));
        let target = self.target(&desired, &self.leaving_under(&desired));
        let layout = self.layout.placed(&target).map_err(|full| vec![full.to_string()])?;
        plan::index(&layout, &target, self.installed.limits.index)
            .map_err(|error| vec![error.to_string()])?;
        self.installed.room_for_prefixes(&target).map_err(|full| vec![full.to_string()])?;
        Ok(desired)
    }

    fn adopt(&mut self, now: Duration, source: Source, desired: Desired, actions: &mut Vec<Action>) {
        self.source = source;
        self.config.generation += 1;
        self.config.errors.clear();
        if self.config.generation > 1
            && (desired.settings.interfaces != self.desired.settings.interfaces
                || desired.settings.xdp != self.desired.settings.xdp)
        {
            let said = "changes of [lb] interfaces and xdp take effect when lb is restarted".to_owned();
            actions.push(Action::Log(Level::Warn, said));
        }
        let before = std::mem::replace(&mut self.desired, desired);
        let mut known = self.known_servers(&before);
        let mut twins = self.twins(&before, &known);
        for (id, (pool, backend)) in self.desired.backends() {
            let known = known.remove(&Server::of(pool, backend)).or_else(|| twins.remove(&id));
            self.members.insert(id, carried_over(now, known, (pool, backend)));
        }
        self.see_off(now, known);
        self.dirty = true;
    }

    fn take_next_hop(&mut self, now: Duration, target: IpAddr, state: Result<NextHop, Unreachable>) {
        let known = self.next_hops.get(&target);
        // One that is no longer asked for would never be told again.
        if !self.resolving.contains(&target) || known == Some(&state) {
            return;
        }
        // As long as a way is being looked for anew the known one is as good as any.
        if matches!((known, &state), (Some(Ok(_)), Err(Unreachable::Resolving { .. }))) {
            return;
        }
        // A backend that does not even answer ARP is down or starting anew. Other reasons are not its own.
        if matches!(state, Err(Unreachable::NoMac { via, .. }) if via == target) {
            for (id, (_, backend)) in self.desired.backends() {
                if backend.address == target
                    && let Some(member) = self.members.get_mut(&id)
                {
                    member.health.forget(now);
                }
            }
            for leaving in &mut self.leaving {
                if leaving.known.backend.address == target {
                    leaving.known.member.health.forget(now);
                }
            }
        }
        self.next_hops.insert(target, state);
        self.dirty = true;
    }

    fn take_applied(&mut self, now: Duration, applied: Applied, actions: &mut Vec<Action>) {
        let pending = std::mem::take(&mut self.pending);
        for change in pending.iter().take(applied.done) {
            self.installed.apply(change);
            self.watch.follow(now, change);
        }
        // What had settled may be in another transition by now: the next look tells.
        self.settled.clear();
        match applied.error {
            None if pending.is_empty() => {}
            None => self.arrived(),
            Some(error) => {
                let step = format!("step {} of {} failed: {error}", applied.done + 1, pending.len());
                self.fail(now, step, actions);
            }
        }
        self.read_back(pending, actions);
    }

    /// The tables are as the layout has them.
    fn arrived(&mut self) {
        self.layout.release();
        self.failure = None;
        self.retry_at = None;
        self.probes_follow = true;
    }

    /// The tables are not as they should be: says so, once, and tries again soon.
    fn fail(&mut self, now: Duration, error: String, actions: &mut Vec<Action>) {
        if self.failure.as_ref() != Some(&error) {
            let said = format!("cannot carry out the configuration: {error}; trying again each second");
            actions.push(Action::Log(Level::Error, said));
        }
        self.give_up_capture(now, &error, actions);
        self.failure = Some(error);
        self.retry_at = Some(now + RETRY);
    }

    /// Tells of every backend whose state is no longer what was last told.
    fn report_states(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (id, (pool, backend)) in self.desired.backends() {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let next_hop = self.next_hops.get(&backend.address);
            let state = state_of(backend, member, next_hop);
            if state != member.state {
                actions.push(Action::State(StateView {
                    pool: id.pool.to_string(),
                    backend: id.backend.to_string(),
                    was: member.state,
                    state,
                    reason: reason_of(backend, member, next_hop),
                }));
                member.state = state;
                member.since = now;
                if state == State::Up {
                    member.start_slowly(now, pool);
                }
            }
        }
    }

    /// Asks for the ways to the backends.
    fn follow_addresses(&mut self, actions: &mut Vec<Action>) {
        let wanted: BTreeSet<IpAddr> = self
            .desired
            .backends()
            .map(|(_, (_, backend))| backend.address)
            .chain(self.leaving_addresses())
            .collect();
        if wanted != self.resolving {
            self.next_hops.retain(|address, _| wanted.contains(address));
            self.resolving.clone_from(&wanted);
            actions.push(Action::Resolve(wanted));
        }
    }

    /// Brings the tables to what is wanted now.
    fn change_tables(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let target = self.target(&self.desired, &self.leaving_under(&self.desired));
        let placed = self.layout.placed(&target).map_err(|full| full.to_string());
        let planned = placed.and_then(|layout| {
            let changes = plan::plan(&self.installed, &layout, &target, &mut self.tables);
            changes.map(|changes| (layout, changes)).map_err(|error| error.to_string())
        });
        match planned {
            Ok((layout, changes)) => {
                self.layout = layout;
                if changes.is_empty() {
                    self.arrived();
                } else {
                    self.pending.clone_from(&changes);
                    actions.push(Action::Apply(changes));
                }
            }
            Err(error) => self.fail(now, error, actions),
        }
    }

    fn take_counters(&mut self, now: Duration, counters: Counters) {
        let Counters { forwarded, mut reasons } = counters;
        let owners = self.counter_owners();
        self.traffic.read(now, &forwarded, |place| owners.get(&place).cloned());
        // In front, because there are ever as many of them.
        reasons.resize(Reason::COUNT as usize, Counter::default());
        reasons.extend(forwarded);
        self.sums.read(now, &reasons, |place| match place.checked_sub(Reason::COUNT as usize) {
            None => u32::try_from(place).ok().map(Sum::Reason),
            Some(place) => owners.get(&place).map(|(service, counted)| match counted {
                Counted::Backend(_) | Counted::Helper(_) | Counted::Leaving(_) => {
                    Sum::Service(service.clone())
                }
                Counted::Reason(reason) => Sum::Reason(*reason),
            }),
        });
    }

    fn counter_owners(&self) -> BTreeMap<usize, CounterOwner> {
        let mut owners = BTreeMap::new();
        for (name, service) in self.layout.services() {
            let Some(pool) = self.layout.pool(&service.pool) else { continue };
            let Some(wanted) = self.desired.pool(&service.pool) else { continue };
            let helpers = self.helpers(&self.desired, wanted);
            let helpers =
                helpers.map(|(pool, backend)| (backend, Counted::Helper(BackendId::new(pool, backend))));
            let leaving = self.leaving_from(&service.pool);
            let leaving = leaving.map(|backend| (backend, Counted::Leaving(backend.address)));
            let present =
                wanted.backends.iter().map(|backend| (backend, Counted::Backend(backend.name.clone())));
            for (backend, counted) in helpers.chain(leaving).chain(present) {
                let Some(&number) = pool.numbers.get(&self.identity_of(backend)) else { continue };
                let place = service.record.counter_base as usize + usize::from(number);
                owners.insert(place, (name.clone(), counted));
            }
            for reason in Reason::all() {
                let Some(number) = reason.of_service() else { continue };
                let place = (service.record.reason_base() + number) as usize;
                owners.insert(place, (name.clone(), Counted::Reason(reason.counter())));
            }
        }
        owners
    }

    /// One above the highest counter in use: how many are worth reading.
    pub fn counters_in_use(&self) -> u32 {
        self.layout.counters_end()
    }
}
