//! What should be: the tables that follow from the configuration, health and next hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{self, Admission, Features, Port, Rate, ServiceKey, Window};

use super::{
    Controller,
    leaving::serves,
    standing::{state_of, usable},
};
use crate::{
    api::State,
    model::{
        keys::Keys,
        layout,
        limit::Allowance,
        next_hop::NextHop,
        plan::{HopTarget, MemberTarget, Outer, PoolTarget, ServiceTarget, Target},
        probe::BackendId,
        quic::{QuicIds, ServerId},
        service::{AdminState, Backend, Desired, Name, Pool, Ports, Service, Settings, Tracking},
        shortage::Takers,
        transition::{idle_ticks, ticks},
    },
};

/// How long the fragments of a packet are waited for. Hosts wait up to 30 s (RFC 791 section 3.2), but on their way
/// fragments are not far apart.
const FRAGMENT_IDLE: Duration = Duration::from_secs(5);

impl Controller {
    /// What the tables are to say, from a configuration, those that leave its pools, health and next hops.
    pub(super) fn target(&self, desired: &Desired, leaving: &BTreeMap<&Name, Vec<&Backend>>) -> Target {
        let settings = &desired.settings;
        let Keys { prefixes, services: keys } = Keys::of(desired);
        let services = desired.services.iter().zip(keys);
        let waiting = self.waiting(desired);
        let serving = |service: &'_ Service| {
            waiting.iter().find(|(waits, _)| waits.name == service.name).map(|(_, serving)| *serving)
        };
        Target {
            seed: settings.seed,
            outer: outer(settings),
            pools: desired
                .pools
                .iter()
                .map(|pool| {
                    let leaving = leaving.get(&pool.name).map_or(&[][..], |leaving| leaving);
                    self.pool_target(desired, (pool, &waiting), leaving)
                })
                .collect(),
            services: services
                .map(|(service, keys)| {
                    let pool = serving(service).unwrap_or(&service.pool);
                    self.service_target(desired, (service, pool), keys)
                })
                .collect(),
            settled: self.settled.clone(),
            fragment_idle: ticks(FRAGMENT_IDLE, self.identity.ticks_per_second),
            prefixes,
            lists: desired.acls.iter().map(|acl| Arc::clone(&acl.table)).collect(),
            features: features(desired).with(if self.capture.is_some() {
                Features::CAPTURE
            } else {
                Features::NONE
            }),
            drop_events: self.per_window(settings.drop_events),
            flow_events: self.per_window(settings.flow_events),
            capture: self.capture.as_ref().map(|capture| capture.filter.clone()),
        }
    }

    fn service_target(
        &self,
        desired: &Desired,
        (service, pool): (&Service, &Name),
        keys: Vec<ServiceKey>,
    ) -> ServiceTarget {
        let mut of_vip = desired.services.iter().filter(|other| other.vip == service.vip);
        let is_first = of_vip.next().is_some_and(|first| first.name == service.name);
        let echo = service.echo || is_first && of_vip.any(|other| other.echo);
        let tracking = abi::Tracking::bits(service.flows.tcp.into(), service.flows.udp.into());
        let acl = service.acl.as_ref().and_then(|name| desired.acl(name));
        let denies_others = acl.is_some_and(|acl| acl.others == Admission::Deny);
        // The tables count the bits of both families in the same 128.
        let prefix = |length: u8| length + if service.vip.address().is_ipv4() { 96 } else { 0 };
        let rate = |allowed: Option<Allowance>| {
            allowed.map_or(Rate::default(), |allowed| allowed.to_rate(self.identity.ticks_per_second))
        };
        let limit = service.limit.as_ref();
        ServiceTarget {
            name: service.name.clone(),
            keys,
            pool: pool.clone(),
            flags: tracking
                | if echo { abi::Service::ECHO } else { 0 }
                | if denies_others { abi::Service::DENY_OTHERS } else { 0 },
            tcp_idle: idle_ticks(service.flows.idle, self.identity.ticks_per_second),
            udp_idle: idle_ticks(service.flows.udp_idle, self.identity.ticks_per_second),
            affinity: service.affinity.map_or(0, prefix),
            quic: service.quic.map_or(abi::Quic::default(), QuicIds::to_abi),
            list: service.acl.clone(),
            limited: limit.map_or(0, |limit| prefix(limit.prefix)),
            packets: rate(limit.and_then(|limit| limit.packets)),
            flows: rate(limit.and_then(|limit| limit.connections)),
        }
    }

    fn pool_target(
        &self,
        desired: &Desired,
        (pool, waiting): (&Pool, &[(&Service, &Name)]),
        leaving: &[&Backend],
    ) -> PoolTarget {
        let takers = self.takers(desired, pool);
        let last = self.supplies.get(&pool.name).map(|supply| &supply.last);
        let member = |backend: &Backend| {
            let next_hop = self.next_hops.get(&backend.address);
            let known = self.members.get(&BackendId::new(pool, backend));
            let state = known.map(|member| state_of(backend, member, next_hop));
            let hop = usable(backend, next_hop).ok().map(|hop| hop_target(backend, hop));
            let keeps = known.is_some_and(|member| serves(pool, backend, member));
            let is_ready = known.is_some_and(|member| member.word(backend) == AdminState::Ready);
            let takes = match takers {
                Takers::Up => state == Some(State::Up),
                Takers::Fallback => false,
                Takers::Last => {
                    let was_up = last.is_some_and(|last| last.contains(&self.identity_of(backend)));
                    state == Some(State::Up) || is_ready && was_up && hop.is_some()
                }
                Takers::All => is_ready && hop.is_some(),
            };
            MemberTarget {
                address: backend.address,
                via: backend.via,
                weight: if takes { self.table_weight(pool, backend) } else { 0 },
                keeps: keeps && hop.is_some(),
                server_id: backend.server_id.map(ServerId::key),
                hop,
            }
        };
        // Who has a server ID now comes before who had it.
        let mut taken: BTreeSet<ServerId> =
            pool.backends.iter().filter_map(|backend| backend.server_id).collect();
        let leaving = leaving.iter().map(|backend| {
            let hop = usable(backend, self.next_hops.get(&backend.address)).ok();
            let hop = hop.map(|hop| hop_target(backend, hop));
            MemberTarget {
                address: backend.address,
                via: backend.via,
                weight: 0,
                keeps: hop.is_some(),
                server_id: backend.server_id.filter(|id| taken.insert(*id)).map(ServerId::key),
                hop,
            }
        });
        // They have their places before they are needed, so that nothing moves then.
        let helpers = self.helpers(desired, pool).map(|(other, backend)| {
            let member = self.members.get(&BackendId::new(other, backend));
            let hop = usable(backend, self.next_hops.get(&backend.address)).ok();
            let hop = hop.map(|hop| hop_target(backend, hop));
            let takes = takers == Takers::Fallback && self.is_up(other, backend);
            MemberTarget {
                address: backend.address,
                via: backend.via,
                weight: if takes { self.table_weight(other, backend) } else { 0 },
                keeps: hop.is_some() && member.is_some_and(|member| serves(other, backend, member)),
                server_id: None,
                hop,
            }
        });
        PoolTarget {
            name: pool.name.clone(),
            slots: pool.slots,
            is_tracked: !self.aside
                && desired
                    .services_of(&pool.name)
                    .chain(
                        waiting
                            .iter()
                            .filter(|(_, serving)| **serving == pool.name)
                            .map(|(service, _)| *service),
                    )
                    .any(|service| service.flows.tcp != Tracking::Never),
            members: pool.backends.iter().map(member).chain(leaving).chain(helpers).collect(),
        }
    }

    /// The weight that a backend has when it takes flows.
    pub(super) fn table_weight(&self, pool: &Pool, backend: &Backend) -> u32 {
        let member = self.members.get(&BackendId::new(pool, backend));
        pool.table_weight(backend.weight, member.map_or(&[], |member| member.following.percents()))
    }

    /// How many events of a second belong to one window of the programs; at least one, if any are wanted.
    fn per_window(&self, each_second: u32) -> u32 {
        let ticks = u64::from(each_second) << Window::DropEvents.bits();
        let in_window = ticks.div_ceil(u64::from(self.identity.ticks_per_second.max(1)));
        u32::try_from(in_window).unwrap_or(u32::MAX)
    }

    /// What stands for a backend in the tables.
    pub(super) fn identity_of(&self, backend: &Backend) -> layout::Identity {
        let outer = outer(&self.desired.settings);
        layout::Identity::new(backend.address, backend.via, &outer)
    }
}

/// What the program must be able to do for a configuration.
pub fn features(desired: &Desired) -> Features {
    let settings = &desired.settings;
    let events = [
        (Features::DROP_EVENTS, settings.drop_events > 0),
        (Features::FLOW_EVENTS, settings.flow_events > 0),
    ];
    let of_services = desired.services.iter().map(needs);
    let of_backends = desired.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.via.needs());
    of_services.chain(of_backends).fold(used(events), Features::with)
}

fn needs(service: &Service) -> Features {
    let any_port = service.ports.iter().any(|port| port.ports == Ports::Any);
    used([
        (Features::ANY_PORT, any_port),
        (Features::PREFIX_VIP, !service.vip.is_host()),
        (Features::AFFINITY, service.affinity.is_some()),
        (Features::QUIC, service.quic.is_some()),
        (Features::ACL, service.acl.is_some()),
        (Features::LIMITS, service.limit.is_some()),
    ])
}

fn used(features: impl IntoIterator<Item = (Features, bool)>) -> Features {
    features.into_iter().filter(|(_, used)| *used).fold(Features::NONE, |all, (feature, _)| all.with(feature))
}

fn outer(settings: &Settings) -> Outer {
    Outer { v4: settings.tunnel_source_v4, v6: settings.tunnel_source_v6, gue_port: settings.gue_port }
}

fn hop_target(backend: &Backend, hop: &NextHop) -> HopTarget {
    let vlan = backend.vlan.map_or(0, |vlan| Port::TAGGED | u32::from(vlan));
    let port = Port { ifindex: hop.interface, vlan };
    HopTarget { port, source: hop.source, destination: hop.destination, mtu: hop.mtu }
}

impl From<Tracking> for abi::Tracking {
    fn from(tracking: Tracking) -> Self {
        match tracking {
            Tracking::Transition => Self::Transition,
            Tracking::Always => Self::Always,
            Tracking::Never => Self::Never,
        }
    }
}
