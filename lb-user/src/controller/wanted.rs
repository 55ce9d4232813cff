//! What should be: the tables and the probes that follow from the configuration, health and next hops.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    abi::{PROBE_MARK, ServiceKey},
    addr::Addr,
};

use super::{
    Controller,
    standing::{state_of, usable},
};
use crate::{
    api::State,
    model::{
        next_hop::NextHop,
        plan::{HopTarget, MemberTarget, Outer, PoolTarget, ServiceTarget, Target},
        probe::{BackendId, ProbeSpec},
        service::{AdminState, Backend, Desired, Pool, Protocol, Service, Via},
    },
};

impl Controller {
    /// What the tables are to say, from a configuration, health and next hops.
    pub(super) fn target(&self, desired: &Desired) -> Target {
        let settings = &desired.settings;
        Target {
            seed: settings.seed,
            outer: Outer { v4: settings.tunnel_source_v4, v6: settings.tunnel_source_v6 },
            pools: desired.pools.iter().map(|pool| self.pool_target(pool)).collect(),
            services: desired.services.iter().map(service_target).collect(),
        }
    }

    fn pool_target(&self, pool: &Pool) -> PoolTarget {
        let member = |backend: &Backend| {
            let next_hop = self.next_hops.get(&backend.address);
            let up = self
                .members
                .get(&BackendId::new(pool, backend))
                .is_some_and(|member| state_of(backend, &member.health, next_hop) == State::Up);
            MemberTarget {
                name: backend.name.clone(),
                address: backend.address,
                tunnelled: backend.via == Via::Ipip,
                hop: usable(backend, next_hop).ok().map(|hop| HopTarget {
                    ifindex: hop.interface,
                    source: hop.source,
                    destination: hop.destination,
                    mtu: hop.mtu,
                }),
                weight: if up { u32::from(backend.weight) } else { 0 },
            }
        };
        PoolTarget {
            name: pool.name.clone(),
            slots: pool.slots,
            members: pool.backends.iter().map(member).collect(),
        }
    }

    /// The probes that should be running: every backend of a checked pool that has a place in the tables, unless an
    /// operator took it out. A pool that no service points at has no VIP to be probed through.
    pub(super) fn probes(&self) -> BTreeMap<BackendId, ProbeSpec> {
        let mut probes = BTreeMap::new();
        for pool in &self.desired.pools {
            let (Some(check), Some(place)) = (&pool.check, self.layout.pool(&pool.name)) else { continue };
            let Some(target) = self.probe_target(pool) else { continue };
            for backend in &pool.backends {
                let Some(index) = place.index_of(&backend.name) else { continue };
                let Ok(hop) = usable(backend, self.next_hops.get(&backend.address)) else { continue };
                if backend.state == AdminState::Maint {
                    continue;
                }
                let spec = ProbeSpec {
                    target,
                    mark: PROBE_MARK | index,
                    kind: check.kind.clone(),
                    interval: check.interval,
                    timeout: check.timeout,
                    max_segment: max_segment(backend, hop, target),
                };
                probes.insert(BackendId::new(pool, backend), spec);
            }
        }
        probes
    }

    pub(super) fn probe_target(&self, pool: &Pool) -> Option<SocketAddr> {
        let service = self.desired.services_of(&pool.name).next()?;
        let port = pool.check.as_ref().and_then(|check| check.port).or_else(|| first_tcp_port(service))?;
        Some(SocketAddr::new(service.vip, port))
    }
}

fn service_target(service: &Service) -> ServiceTarget {
    let vip = Addr::from(service.vip);
    let keys = service.ports.iter().flat_map(|ports| {
        (ports.first..=ports.last).map(move |port| ServiceKey::new(vip, ports.protocol.number(), port))
    });
    ServiceTarget { name: service.name.clone(), keys: keys.collect(), pool: service.pool.clone() }
}

fn first_tcp_port(service: &Service) -> Option<u16> {
    service.ports.iter().find(|ports| ports.protocol == Protocol::Tcp).map(|ports| ports.first)
}

/// The largest TCP segment that fits with IP and TCP headers into the next hop's MTU after the outer header took its
/// room; only where there is one.
fn max_segment(backend: &Backend, hop: &NextHop, target: SocketAddr) -> Option<u16> {
    if backend.via == Via::L2 {
        return None;
    }
    let outer = if backend.address.is_ipv4() { 20 } else { 40 };
    let inner = if target.is_ipv4() { 40 } else { 60 };
    let room = hop.mtu.saturating_sub(outer + inner);
    // Below this the kernel refuses (TCP_MIN_MSS).
    u16::try_from(room).ok().filter(|&segment| segment >= 88)
}
