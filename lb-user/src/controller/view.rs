//! What the controller shows: its state in the API's terms.

use std::{collections::BTreeMap, time::Duration};

use lb_common::abi::Reason;

use super::{
    Controller, Counted, Sum,
    standing::{reason_of, state_of, usable},
};
use crate::{
    api::{
        AllowanceView, BackendStats, BackendView, HealthView, LimitView, PolicyView, PoolView, QuicView,
        ReasonStats, ServiceStats, ServiceView, State, Stats, Status, Traffic, metrics::Metrics,
    },
    model::{
        layout,
        limit::{Allowance, SourceLimit},
        probe::BackendId,
        quic::QuicIds,
        service::{Backend, Name, Pool, Service},
        traffic,
    },
};

impl Controller {
    pub(super) fn status(&self, now: Duration) -> Status {
        Status {
            version: self.identity.version.clone(),
            pid: self.identity.pid,
            uptime_seconds: now.saturating_sub(self.started).as_secs(),
            config: self.config.clone(),
            interfaces: self.interfaces.clone(),
            services: self.service_views(now),
            warnings: self
                .failure
                .iter()
                .map(|error| format!("the tables are not as wanted: {error}"))
                .chain(
                    self.desired
                        .pools
                        .iter()
                        .filter(|pool| self.needs_help(pool))
                        .filter_map(|pool| self.shortage_line(pool)),
                )
                .chain(self.moves())
                .chain(self.lost.iter().map(|(name, why)| format!("{name}: {why}")))
                .collect(),
        }
    }

    pub(super) fn service_views(&self, now: Duration) -> Vec<ServiceView> {
        self.desired.services.iter().filter_map(|service| self.service_view(now, service)).collect()
    }

    fn service_view(&self, now: Duration, service: &Service) -> Option<ServiceView> {
        let pool = self.desired.pool(&service.pool)?;
        let backends = self.backend_views(now, pool, &[&service.name]);
        // While it waits to move to another pool, the one before serves.
        let serving = self.layout.service(&service.name).and_then(|place| self.desired.pool(&place.pool));
        let up = self.owners(serving.unwrap_or(pool)).values().any(|&slots| slots > 0);
        Some(ServiceView {
            name: service.name.to_string(),
            vip: service.vip.to_string(),
            ports: service.ports.iter().map(ToString::to_string).collect(),
            pool: service.pool.to_string(),
            policy: policy(service),
            state: if up { State::Up } else { State::Down },
            traffic: shown(self.sums.of(&Sum::Service(service.name.clone()))),
            backends,
            reasons: self.refusals(service),
        })
    }

    pub(super) fn pool_views(&self, now: Duration) -> Vec<PoolView> {
        let view = |pool: &Pool| {
            let services: Vec<&Name> =
                self.desired.services_of(&pool.name).map(|service| &service.name).collect();
            PoolView {
                name: pool.name.to_string(),
                slots: pool.slots,
                flows: self.flows_view(pool),
                check: self.check_line(pool),
                shortage: self.shortage_line(pool),
                backends: self.backend_views(now, pool, &services),
                services: services.into_iter().map(ToString::to_string).collect(),
            }
        };
        self.desired.pools.iter().map(view).collect()
    }

    fn backend_views(&self, now: Duration, pool: &Pool, services: &[&Name]) -> Vec<BackendView> {
        let owners = self.owners(pool);
        let table: u32 = owners.values().sum();
        let view = |backend: &Backend| {
            let member = self.members.get(&BackendId::new(pool, backend))?;
            let next_hop = self.next_hops.get(&backend.address);
            let hop = usable(backend, next_hop).ok();
            let slots = owners.get(&self.identity_of(backend)).copied().unwrap_or(0);
            let traffic = services.iter().map(|service| self.counted(service, backend)).sum();
            Some(BackendView {
                name: backend.name.to_string(),
                address: backend.address,
                via: backend.via,
                weight: backend.weight,
                weight_percent: member.following.percent(),
                state: state_of(backend, member, next_hop),
                reason: reason_of(backend, member, next_hop),
                since_seconds: now.saturating_sub(member.since).as_secs(),
                slots,
                share_percent: if table == 0 { 0.0 } else { 100.0 * f64::from(slots) / f64::from(table) },
                drain_ends_in_seconds: self.drain_left(backend, now).map(|left| left.as_secs()),
                mac: hop.map(|hop| mac_text(hop.destination)),
                interface: hop.map(|hop| hop.interface_name.clone()),
                vlan: backend.vlan,
                server_id: backend.server_id.map(|id| id.to_string()),
                traffic: shown(traffic),
            })
        };
        pool.backends.iter().filter_map(view).collect()
    }

    /// How many slots each backend owns in the table as it is installed, those of a pool that helps out as well.
    fn owners(&self, pool: &Pool) -> BTreeMap<layout::Identity, u32> {
        let Some(place) = self.layout.pool(&pool.name) else { return BTreeMap::new() };
        let mut by_number = vec![0u32; place.capacity as usize];
        let slots = place.slot_base as usize..(place.slot_base + place.slots) as usize;
        for owner in self.installed.slots[slots].iter().filter_map(|slot| slot.owner()) {
            if let Some(count) = by_number.get_mut(usize::from(owner)) {
                *count += 1;
            }
        }
        let owned =
            |(&identity, &number): (&layout::Identity, &u16)| (identity, by_number[usize::from(number)]);
        place.numbers.iter().map(owned).collect()
    }

    pub(super) fn health_views(&self, now: Duration) -> Vec<HealthView> {
        let view = |(id, (pool, backend)): (BackendId, (&Pool, &Backend))| {
            let member = self.members.get(&id)?;
            let next_hop = self.next_hops.get(&backend.address);
            Some(HealthView {
                pool: pool.name.to_string(),
                backend: backend.name.to_string(),
                address: backend.address,
                state: state_of(backend, member, next_hop),
                reason: reason_of(backend, member, next_hop),
                since_seconds: now.saturating_sub(member.since).as_secs(),
                check: self.check_line(pool),
                streak: member.health.streak(),
                agent: pool.shares.agent.map(|_| member.following.agent.to_string()),
                last_ms: member.health.took().map(|took| took.as_secs_f64() * 1000.0),
            })
        };
        self.desired.backends().filter_map(view).collect()
    }

    pub(super) fn stats(&self) -> Stats {
        let service_stats = |service: &Service| {
            let pool = self.desired.pool(&service.pool)?;
            let stats =
                |backend, traffic, is_leaving| BackendStats { backend, is_leaving, traffic: shown(traffic) };
            let present = pool
                .backends
                .iter()
                .map(|backend| stats(backend.name.to_string(), self.counted(&service.name, backend), false));
            let leaving = self.leaving_from(&pool.name).map(|backend| {
                let owner = (service.name.clone(), Counted::Leaving(backend.address));
                stats(backend.address.to_string(), self.traffic.of(&owner), true)
            });
            let helpers = self.helpers(&self.desired, pool).map(|(other, helper)| {
                let id = BackendId::new(other, helper);
                let traffic = self.traffic.of(&(service.name.clone(), Counted::Helper(id.clone())));
                stats(id.to_string(), traffic, false)
            });
            Some(ServiceStats {
                service: service.name.to_string(),
                traffic: shown(self.sums.of(&Sum::Service(service.name.clone()))),
                backends: present.chain(helpers).chain(leaving).collect(),
                reasons: self.refusals(service),
            })
        };
        let reasons = Reason::all().map(|reason| {
            let sum = self.sums.of(&Sum::Reason(reason.counter()));
            reason_stats(reason, sum)
        });
        Stats {
            services: self.desired.services.iter().filter_map(service_stats).collect(),
            reasons: reasons.collect(),
        }
    }

    /// All of it at one moment. The flow table is not read for it: whoever asks often must not make the daemon busy.
    pub(super) fn metrics(&self, now: Duration) -> Metrics {
        Metrics {
            status: self.status(now),
            health: self.health_views(now),
            stats: self.stats(),
            flows: self.desired.pools.iter().map(|pool| self.flows_view(pool)).collect(),
            pools: self.desired.pools.iter().map(|pool| (pool.name.to_string(), pool.slots)).collect(),
        }
    }

    /// What a service did not send to a backend, by reason.
    fn refusals(&self, service: &Service) -> Vec<ReasonStats> {
        let stats = |reason: Reason| {
            let owner = (service.name.clone(), Counted::Reason(reason.counter()));
            reason_stats(reason, self.traffic.of(&owner))
        };
        let reasons = Reason::all().filter(|reason| reason.of_service().is_some());
        reasons.map(stats).filter(|reason| reason.traffic.packets > 0).collect()
    }

    fn counted(&self, service: &Name, backend: &Backend) -> traffic::Traffic {
        self.traffic.of(&(service.clone(), Counted::Backend(backend.name.clone())))
    }
}

fn policy(service: &Service) -> PolicyView {
    let allowance =
        |allowed: Allowance| AllowanceView { rate: allowed.rate.to_string(), burst: allowed.burst };
    PolicyView {
        tracking_tcp: service.flows.tcp,
        tracking_other: service.flows.udp,
        echo: service.echo,
        affinity: service.affinity.map(|bits| format!("source/{bits}")),
        quic: service.quic.map(|QuicIds { server_id_length, config_bits, config }| QuicView {
            server_id_length,
            config_bits,
            config,
        }),
        acl: service.acl.as_ref().map(ToString::to_string),
        limit: service.limit.map(|SourceLimit { prefix, packets, connections }| LimitView {
            prefix,
            packets: packets.map(allowance),
            connections: connections.map(allowance),
        }),
    }
}

fn reason_stats(reason: Reason, traffic: traffic::Traffic) -> ReasonStats {
    let verdict = match reason {
        Reason::Pass(_) => "pass",
        Reason::Drop(_) => "drop",
        Reason::Note(_) => "note",
    };
    ReasonStats {
        reason: reason.name().to_owned(),
        verdict: verdict.to_owned(),
        text: reason.text().to_owned(),
        traffic: shown(traffic),
    }
}

pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn shown(traffic: traffic::Traffic) -> Traffic {
    Traffic {
        packets: traffic.total.packets,
        bytes: traffic.total.bytes,
        packets_per_second: traffic.packets_per_second,
        bytes_per_second: traffic.bytes_per_second,
    }
}
