//! How a backend stands: what is known of it, whether it serves, and why not.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{checking::damping, shares::Following};
use crate::{
    api::State,
    model::{
        health::{Damping, Health},
        next_hop::{NextHop, Unreachable},
        probe::ProbeSpec,
        service::{AdminState, Backend, Name, Pool, Via},
        timestamp,
    },
};

/// What is known about one backend beside its configuration.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) health: Health,
    /// What its health is damped by.
    pub(super) damping: Damping,
    /// Its probe, if it has one: what others found says nothing about it.
    pub(super) probe: Option<Arc<ProbeSpec>>,
    /// What moves its weight, beside the file.
    pub(super) following: Following,
    /// What was last told about it.
    pub(super) state: State,
    pub(super) since: Duration,
}

impl Member {
    /// Whether its checks and its agent say that it runs.
    pub(super) fn runs(&self) -> bool {
        self.health.is_up() && self.following.agent.down().is_none()
    }

    /// Whether it may take flows: the operator's word comes before that of its agent.
    pub(super) fn word(&self, backend: &Backend) -> AdminState {
        match backend.state {
            AdminState::Ready => self.following.agent.word(),
            word => word,
        }
    }
}

/// What a backend is, whatever it is called: a server of a pool, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Server {
    pub(super) pool: Name,
    address: IpAddr,
    via: Via,
}

impl Server {
    pub(super) fn of(pool: &Pool, backend: &Backend) -> Self {
        Self { pool: pool.name.clone(), address: backend.address, via: backend.via }
    }

    /// The same for all pools that have it.
    pub(super) const fn place(&self) -> (IpAddr, Via) {
        (self.address, self.via)
    }
}

/// A backend as it last was.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) backend: Backend,
    /// Whether it was checked.
    pub(super) checked: bool,
    pub(super) member: Member,
}

/// What is known of a backend under a new configuration, and whether its pool is checked. `known` is the same server
/// as it was.
pub(super) fn carried_over(
    now: Duration,
    known: Option<Known>,
    (pool, backend): (&Pool, &Backend),
) -> Member {
    let checked = pool.check.is_some();
    let damping = damping(pool);
    let Some(Known { backend: old, checked: was_checked, mut member }) = known else {
        let health = if checked { Health::new(now) } else { Health::unchecked(now) };
        let following = Following::default();
        return Member { health, damping, probe: None, following, state: State::Down, since: now };
    };
    member.damping = damping;
    member.following.carry_over(&pool.shares);
    match (was_checked, checked) {
        // A check that is new on a backend that serves: it goes on serving until the check says otherwise.
        (false, true) => member.health = Health::adopted(now),
        (true, false) => member.health = Health::unchecked(now),
        (true, true) | (false, false) => {}
    }
    // Nobody probed it meanwhile.
    if old.state == AdminState::Maint && backend.state != AdminState::Maint {
        member.health.forget(now);
    }
    member
}

/// State of a backend: the operator's word first, then the way there, then health.
pub(super) fn state_of(
    backend: &Backend,
    member: &Member,
    next_hop: Option<&Result<NextHop, Unreachable>>,
) -> State {
    match member.word(backend) {
        AdminState::Maint => State::Maint,
        AdminState::Drain => State::Drain,
        AdminState::Ready if usable(backend, next_hop).is_ok() && member.runs() => State::Up,
        AdminState::Ready => State::Down,
    }
}

/// Why it is in that state, in words.
pub(super) fn reason_of(
    backend: &Backend,
    member: &Member,
    next_hop: Option<&Result<NextHop, Unreachable>>,
) -> String {
    let agent = &member.following.agent;
    if backend.state == AdminState::Ready && (agent.word() != AdminState::Ready || agent.down().is_some()) {
        return agent.to_string();
    }
    match (backend.state, usable(backend, next_hop)) {
        (AdminState::Maint, _) => match backend.drain_until {
            Some(until) => format!("taken out by an operator: drained until {}", timestamp::rfc3339(until)),
            None => "taken out by an operator".to_owned(),
        },
        (AdminState::Drain, _) => match backend.drain_until {
            Some(until) => format!("no new flows, by an operator; out at {}", timestamp::rfc3339(until)),
            None => "no new flows, by an operator".to_owned(),
        },
        (AdminState::Ready, Err(why)) => why.to_string(),
        (AdminState::Ready, Ok(_)) => {
            let less = if member.runs() { member.following.why_not_all() } else { None };
            let health = member.health.to_string();
            less.map_or_else(|| health.clone(), |less| format!("{health}; {less}"))
        }
    }
}

/// Why a backend cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable<'a> {
    #[error("looking for the way to {0}")]
    Unknown(IpAddr),
    #[error(transparent)]
    Unreachable(&'a Unreachable),
    #[error(
        "{address} is not on a subnet of this machine (its gateway is {gateway}): it needs via = \"ipip\""
    )]
    OffLink { address: IpAddr, gateway: IpAddr },
}

/// The next hop, if packets can be sent by it the way the backend wants.
pub(super) fn usable<'h>(
    backend: &Backend,
    next_hop: Option<&'h Result<NextHop, Unreachable>>,
) -> Result<&'h NextHop, Unusable<'h>> {
    let address = backend.address;
    match next_hop {
        None => Err(Unusable::Unknown(address)),
        Some(Err(why)) => Err(Unusable::Unreachable(why)),
        Some(Ok(hop)) if backend.via == Via::L2 && !hop.is_on_link(address) => {
            Err(Unusable::OffLink { address, gateway: hop.via })
        }
        Some(Ok(hop)) => Ok(hop),
    }
}
