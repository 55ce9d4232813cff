//! Checks: which probes should be running, and what their outcomes mean for the backends.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use lb_common::abi::PROBE_MARK;

use super::{Action, Controller, standing::usable};
use crate::model::{
    check::{CheckKind, ProbeTo},
    health::{Damping, Transition},
    next_hop::{NextHop, Unreachable},
    probe::{BackendId, ProbeId, ProbeKind, ProbeOutcome, ProbeSpec, Purpose},
    service::{AdminState, Backend, Pool, Via},
};

/// What it takes to change the state of a pool's backends.
pub(super) fn damping(pool: &Pool) -> Damping {
    let check = pool.check.as_ref();
    Damping {
        rise: check.map_or(1, |check| check.pace.rise),
        fall: check.map_or(1, |check| check.pace.fall),
        window: check.map_or(Duration::ZERO, |check| check.damping),
    }
}

impl Controller {
    pub(super) fn take_outcome(&mut self, now: Duration, outcome: &ProbeOutcome) {
        if outcome.id.purpose == Purpose::Agent {
            return self.take_agent(outcome);
        }
        let Some(member) = self.probed(&outcome.id.backend) else { return };
        // An outcome of an earlier probe says nothing about the backend as it is now.
        if member.probe.as_ref() != Some(&outcome.spec) {
            return;
        }
        let transition = member.health.observe(&outcome.result, outcome.took, &member.damping, now);
        if outcome.result.is_ok() {
            member.following.latency.observe(outcome.took);
        }
        if let Some(Transition::Up | Transition::Down) = transition {
            self.dirty = true;
        }
    }

    /// Orders the probes of what stands in the tables. A plan that failed half-way leaves them as they are: their
    /// marks name places that are still, or already, what they were ordered for.
    pub(super) fn follow_backends(&mut self, actions: &mut Vec<Action>) {
        if !std::mem::take(&mut self.probes_follow) {
            return;
        }
        let probes = self.probes();
        let of = |backend: BackendId, purpose| probes.get(&ProbeId { backend, purpose }).cloned();
        for (id, member) in &mut self.members {
            member.probe = of(id.clone(), Purpose::Check);
            member.following.asking = of(id.clone(), Purpose::Agent);
        }
        for leaving in &mut self.leaving {
            leaving.known.member.probe = of(leaving.id(), Purpose::Check);
        }
        if probes != self.probing {
            self.probing.clone_from(&probes);
            actions.push(Action::Probe(probes));
        }
    }

    /// The probes that should be running: every backend of a checked pool that has a place in the tables, those that are
    /// leaving as well, unless an operator took it out. A pool that no service points at has no VIP to be probed through.
    fn probes(&self) -> BTreeMap<ProbeId, Arc<ProbeSpec>> {
        let mut probes = BTreeMap::new();
        for pool in &self.desired.pools {
            let (Some(check), Some(place)) = (&pool.check, self.layout.pool(&pool.name)) else { continue };
            let Some(vip) = self.probe_target(pool) else { continue };
            let present = pool.backends.iter().map(|backend| (BackendId::new(pool, backend), backend));
            let leaving = self.leaving.iter().filter(|leaving| leaving.server.pool == pool.name);
            let leaving = leaving.map(|leaving| (leaving.id(), &leaving.known.backend));
            for (id, backend) in present.chain(leaving) {
                let Some(index) = place.index_of(&self.identity_of(backend)) else { continue };
                let Ok(hop) = usable(backend, self.next_hops.get(&backend.address)) else { continue };
                if backend.state == AdminState::Maint {
                    continue;
                }
                let through_vip = check.to == ProbeTo::Vip && !matches!(*check.kind, CheckKind::Exec { .. });
                let own = SocketAddr::new(backend.address, vip.port());
                let spec = ProbeSpec {
                    target: if check.to == ProbeTo::Vip { vip } else { own },
                    backend: backend.address,
                    mark: through_vip.then_some(PROBE_MARK | index),
                    kind: ProbeKind::Check(Arc::clone(&check.kind)),
                    pace: check.pace,
                    timeout: check.timeout,
                    max_segment: if through_vip { max_segment(backend, hop, vip) } else { None },
                };
                probes.insert(ProbeId { backend: id, purpose: Purpose::Check }, Arc::new(spec));
            }
        }
        probes.extend(self.questions());
        probes
    }

    /// Backends of which it is not known yet whether they serve: the way there is being looked for, or their checks have
    /// not said it.
    pub fn undecided(&self) -> usize {
        self.desired.backends().filter(|(_, (pool, backend))| self.is_undecided(pool, backend)).count()
    }

    pub(super) fn is_undecided(&self, pool: &Pool, backend: &Backend) -> bool {
        let is_checked = pool.check.is_some() && self.probe_target(pool).is_some();
        let known = self.members.get(&BackendId::new(pool, backend));
        match self.next_hops.get(&backend.address) {
            _ if backend.state == AdminState::Maint => false,
            None | Some(Err(Unreachable::Resolving { .. })) => true,
            Some(Err(_)) => false,
            Some(Ok(_)) => is_checked && known.is_some_and(|known| known.health.is_new()),
        }
    }

    /// Where a pool is probed: at the VIP of its first service that has the port; of a prefix, at its first address. A
    /// pool without services that helps others out is probed at theirs.
    fn probe_target(&self, pool: &Pool) -> Option<SocketAddr> {
        let check = pool.check.as_ref()?;
        let own = match *check.kind {
            CheckKind::Icmp => Some(0),
            _ => check.port,
        };
        self.desired.users_of(&pool.name).find_map(|service| {
            let port = own.or_else(|| check.kind.default_port(service))?;
            Some(SocketAddr::new(service.vip.first_host(), port))
        })
    }

    /// A pool's check in one line.
    pub(super) fn check_line(&self, pool: &Pool) -> Option<String> {
        let check = pool.check.as_ref()?;
        let word = check.kind.word();
        let place = match (self.probe_target(pool), check.to) {
            (None, _) => "no service yet".to_owned(),
            (Some(vip), ProbeTo::Vip) if vip.port() == 0 => vip.ip().to_string(),
            (Some(vip), ProbeTo::Vip) => vip.to_string(),
            (Some(vip), ProbeTo::Backend) if vip.port() == 0 => "backend".to_owned(),
            (Some(vip), ProbeTo::Backend) => format!("backend:{}", vip.port()),
        };
        Some(match &*check.kind {
            CheckKind::Tcp | CheckKind::Icmp | CheckKind::Udp { .. } => format!("{word} {place}"),
            CheckKind::Http { path, expect, .. } => format!("{word} {place} GET {path} -> {expect}"),
            CheckKind::Dns { query, expect, .. } => format!("{word} {place} {query} -> {expect}"),
            CheckKind::Exec { command } => {
                format!("{word} {}", command.first().map(String::as_str).unwrap_or_default())
            }
        })
    }
}

/// The largest TCP segment that fits with IP and TCP headers into the next hop's MTU after the outer header took its
/// room; only where there is one.
fn max_segment(backend: &Backend, hop: &NextHop, target: SocketAddr) -> Option<u16> {
    if backend.via == Via::L2 {
        return None;
    }
    let outer = u32::from(backend.via.encap(&backend.address).overhead());
    let inner = if target.is_ipv4() { 40 } else { 60 };
    let room = hop.mtu.saturating_sub(outer + inner);
    // Below this the kernel refuses (TCP_MIN_MSS).
    u16::try_from(room).ok().filter(|&segment| segment >= 88)
}
