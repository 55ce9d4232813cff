//! What moves the weights of backends: slow starts, their agents, how fast they answer.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Controller,
    standing::{Member, usable},
};
use crate::{
    api::State,
    model::{
        agent::Agent,
        check::Pace,
        probe::{BackendId, ProbeId, ProbeKind, ProbeOutcome, ProbeSpec, Purpose},
        service::{AdminState, Pool},
        share::{self, Latency, Shares, Weights},
    },
};

/// Time between two looks at how fast backends answer: a level at a time, and not too often.
const LOOK: Duration = Duration::from_secs(10);

/// All of the weight, percent.
const ALL: u16 = 100;

/// What moves the weight of one backend.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) agent: Agent,
    /// The question that its agent is asked; an answer to another one says nothing.
    pub(super) asking: Option<Arc<ProbeSpec>>,
    pub(super) latency: Latency,
    /// When it came up, if it starts slowly since.
    grows_since: Option<Duration>,
    /// Percent of its weight that it has: by its start, its agent, and its speed.
    percents: [u16; 3],
}

impl Default for Following {
    fn default() -> Self {
        Self {
            agent: Agent::default(),
            asking: None,
            latency: Latency::default(),
            grows_since: None,
            percents: [ALL; 3],
        }
    }
}

impl Following {
    /// Forgets what the pool does no longer follow.
    pub(super) fn carry_over(&mut self, shares: &Shares) {
        if shares.agent.is_none() {
            self.agent = Agent::default();
        }
        if shares.weights == Weights::Fixed {
            self.latency = Latency::default();
        }
        if shares.slow_start.is_zero() {
            self.grows_since = None;
        }
    }

    pub(super) const fn percents(&self) -> &[u16; 3] {
        &self.percents
    }

    /// Percent of its weight that it has.
    pub(super) fn percent(&self) -> u16 {
        let whole = u32::from(ALL);
        let part = self.percents.iter().fold(whole, |part, &percent| part * u32::from(percent) / whole);
        u16::try_from(part).unwrap_or(u16::MAX)
    }

    /// Why it has not just the weight of the file, in words.
    pub(super) fn why_not_all(&self) -> Option<String> {
        let [start, agent, speed] = self.percents;
        let why = [
            (start, "it starts slowly".to_owned()),
            (agent, self.agent.to_string()),
            (speed, "it answers more slowly than others".to_owned()),
        ];
        let why: Vec<String> =
            why.into_iter().filter(|(percent, _)| *percent != ALL).map(|(_, why)| why).collect();
        (!why.is_empty()).then(|| format!("{}% of its weight: {}", self.percent(), why.join(", ")))
    }

    fn follow(&mut self, now: Duration, shares: &Shares) -> bool {
        let start = match self.grows_since {
            Some(since) => share::ramp(now.saturating_sub(since), shares.slow_start),
            None => ALL,
        };
        if start == ALL {
            self.grows_since = None;
        }
        let percents = [start, self.agent.percent(), self.latency.percent()];
        std::mem::replace(&mut self.percents, percents) != percents
    }
}

impl Member {
    /// It comes up. One of which it only shows now that it has been up all the time has its weight already.
    pub(super) fn start_slowly(&mut self, now: Duration, pool: &Pool) {
        let is_shown = pool.check.is_none() || self.health.streak() > 0;
        if !pool.shares.slow_start.is_zero() && is_shown {
            self.following.grows_since = Some(now);
        }
    }
}

impl Controller {
    /// The questions to agents that should be asked, again and again.
    pub(super) fn questions(&self) -> BTreeMap<ProbeId, Arc<ProbeSpec>> {
        let mut questions = BTreeMap::new();
        for (id, (pool, backend)) in self.desired.backends() {
            let Some(agent) = pool.shares.agent else { continue };
            if backend.state == AdminState::Maint
                || usable(backend, self.next_hops.get(&backend.address)).is_err()
            {
                continue;
            }
            let pace = Pace {
                interval: agent.interval,
                fast: agent.interval,
                jitter: Pace::JITTER,
                rise: 1,
                fall: 1,
            };
            let spec = ProbeSpec {
                target: SocketAddr::new(backend.address, agent.port),
                backend: backend.address,
                mark: None,
                kind: ProbeKind::Agent,
                pace,
                timeout: agent.timeout,
                max_segment: None,
            };
            questions.insert(ProbeId { backend: id, purpose: Purpose::Agent }, Arc::new(spec));
        }
        questions
    }

    /// What an agent said.
    pub(super) fn take_agent(&mut self, outcome: &ProbeOutcome) {
        let Some(member) = self.members.get_mut(&outcome.id.backend) else { return };
        if member.following.asking.as_ref() != Some(&outcome.spec) {
            return;
        }
        let before = member.following.agent.clone();
        member.following.agent.take(&outcome.result);
        self.dirty |= !member.following.agent.asks_the_same(&before);
    }

    /// Brings the shares to what they are due now. Whether one changed.
    pub(super) fn follow_shares(&mut self, now: Duration) -> bool {
        let mut changed = false;
        for (id, (pool, _)) in self.desired.backends() {
            if pool.shares != Shares::default()
                && let Some(member) = self.members.get_mut(&id)
            {
                changed |= member.following.follow(now, &pool.shares);
            }
        }
        changed
    }

    /// Sees whether weights are to move as time goes by.
    pub(super) fn watch_shares(&mut self, now: Duration) {
        if now.saturating_sub(self.speed_seen_at) >= LOOK {
            self.speed_seen_at = now;
            for pool in self.desired.pools.iter().filter(|pool| pool.shares.weights == Weights::Latency) {
                compare_speed(pool, &mut self.members);
            }
        }
        if self.follow_shares(now) {
            self.dirty = true;
        }
    }
}

/// Compares the backends of a pool that are up with each other.
fn compare_speed(pool: &Pool, members: &mut BTreeMap<BackendId, Member>) {
    let ids: Vec<BackendId> = pool.backends.iter().map(|backend| BackendId::new(pool, backend)).collect();
    let is_up = |member: &&Member| member.state == State::Up;
    let up = ids.iter().filter_map(|id| members.get(id)).filter(is_up);
    let median = share::median(up.filter_map(|member| member.following.latency.mean()).collect());
    for id in ids {
        if let Some(member) = members.get_mut(&id).filter(|member| member.state == State::Up) {
            member.following.latency.follow(median);
        }
    }
}
