//! Tables that an earlier daemon left: a controller that goes on where that one stopped.
//!
//! Everything is as if the present configuration had been in force already: who takes flows in the tables was up, who
//! only keeps some and is not in the configuration was leaving. The configuration then comes into force as any does, and
//! one that did not change plans nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::abi::{self, Port, Standing};

use super::{
    Controller, Identity,
    leaving::Leaving,
    standing::{Known, Server, carried_over, state_of},
};
use crate::model::{
    agent::Agent,
    health::Health,
    layout::{self, Incoherent, Layout},
    memory::{Flows, Memory},
    next_hop::NextHop,
    probe::BackendId,
    quic::ServerId,
    service::{AdminState, Backend, DEFAULT_WEIGHT, Desired, Name, OnDown, Pool, Via},
    traffic::Counters,
    transition::Watch,
};

/// What an earlier daemon left.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The tables, read back.
    pub memory: Memory,
    /// Every counter.
    pub counters: Counters,
}

impl Controller {
    /// A controller over tables that an earlier one filled. `desired` is what is wanted now; tell it next.
    ///
    /// # Errors
    /// [`Incoherent`]: these tables cannot be gone on with.
    pub fn found(
        now: Duration,
        tables: Tables,
        identity: Identity,
        desired: Desired,
    ) -> Result<Self, Incoherent> {
        let Tables { memory, counters } = tables;
        let mut controller = Self::new(now, memory.limits, identity);
        let target = controller.target(&desired, &BTreeMap::new());
        controller.layout = Layout::found(&memory, &target, &counters)?;
        controller.watch = Watch::found(now, &memory);
        controller.desired = desired;
        // These are the packets' doing.
        let (flows, limiters) = (memory.limits.flow_buckets, memory.limits.limiters);
        controller.installed = Memory { flows: Flows::new(flows), limiters: Flows::new(limiters), ..memory };
        controller.recognise(now);
        controller.take_counters(now, counters);
        Ok(controller)
    }

    /// Finds those who stand in the tables among those who are wanted.
    fn recognise(&mut self, now: Duration) {
        let desired = self.desired.clone();
        for pool in &desired.pools {
            let records = self.records(pool);
            // A pool without services has no table that could be found, but stands in those of the pools it helps out.
            let helped =
                desired.pools.iter().filter(|other| other.shortage.fallback.as_ref() == Some(&pool.name));
            let elsewhere: BTreeMap<_, _> = helped.flat_map(|other| self.records(other)).collect();
            for backend in &pool.backends {
                let mut member = carried_over(now, None, (pool, backend));
                let identity = self.identity_of(backend);
                if let Some(&(index, standing)) = records.get(&identity).or_else(|| elsewhere.get(&identity))
                {
                    self.recall_way(backend.address, index);
                    member.health = health(now, pool, backend, standing);
                    if records.contains_key(&identity) && takes_no_new_flows(pool, backend, standing) {
                        member.following.agent = Agent::draining();
                    }
                    let next_hop = self.next_hops.get(&backend.address);
                    member.state = state_of(backend, &member, next_hop);
                }
                self.members.insert(BackendId::new(pool, backend), member);
            }
            let helpers = desired.fallback_of(pool).map_or(&[][..], |other| &other.backends);
            let present: BTreeSet<layout::Identity> =
                pool.backends.iter().chain(helpers).map(|backend| self.identity_of(backend)).collect();
            for (identity, (index, standing)) in records {
                if !present.contains(&identity) && standing.takes(false) {
                    self.recall_way(identity.address, index);
                    let backend = self.backend_of(pool, &identity, index);
                    let mut member = carried_over(now, None, (pool, &backend));
                    member.health = health(now, pool, &backend, standing);
                    let known = Known { backend, checked: pool.check.is_some(), member };
                    let server = Server::of(pool, &known.backend);
                    self.leaving.push(Leaving::new(server, known));
                }
            }
        }
    }

    /// Who stands in the table of backends for a pool: place and standing.
    fn records(&self, pool: &Pool) -> BTreeMap<layout::Identity, (u32, Standing)> {
        let Some(place) = self.layout.pool(&pool.name) else { return BTreeMap::new() };
        let record = |(&identity, &number): (&layout::Identity, &u16)| {
            let index = place.backend_base + u32::from(number);
            (identity, (index, self.installed.backends[index as usize].standing()))
        };
        place.numbers.iter().map(record).collect()
    }

    /// The way to a backend, as the table has it. Until the kernel tells it anew.
    fn recall_way(&mut self, address: IpAddr, index: u32) {
        let hop = self.installed.backends[index as usize].hop();
        let Some(&port) = self.installed.ports.get(usize::from(hop.port())) else { return };
        if port.ifindex == 0 {
            return;
        }
        let way = NextHop {
            // Which gateway a tunnel goes by, the table does not tell, and nobody asks.
            via: address,
            interface: port.ifindex,
            interface_name: format!("interface {}", port.ifindex),
            source: hop.source(),
            destination: hop.destination(),
            mtu: u32::from(hop.mtu()),
            local: None,
        };
        self.next_hops.insert(address, Ok(way));
    }

    /// A backend that is not in the configuration, as far as the tables tell.
    fn backend_of(&self, pool: &Pool, identity: &layout::Identity, index: u32) -> Backend {
        let via = Via::of(identity.encap);
        let hop = self.installed.backends[index as usize].hop();
        let port = self.installed.ports.get(usize::from(hop.port())).copied().unwrap_or_default();
        let tagged = port.vlan & Port::TAGGED != 0;
        Backend {
            name: Name::of_server(identity.address, via),
            address: identity.address,
            via,
            weight: DEFAULT_WEIGHT,
            state: AdminState::Ready,
            drain_until: None,
            vlan: tagged.then_some((port.vlan & 0xfff) as u16),
            server_id: self.server_id_of(pool, index),
        }
    }

    /// What QUIC connection IDs name the backend at this place by.
    fn server_id_of(&self, pool: &Pool, index: u32) -> Option<ServerId> {
        let slot_base = u64::from(self.layout.pool(&pool.name)?.slot_base);
        let mut services = self.layout.services().map(|(_, place)| &place.record);
        let length = services.find_map(|record| {
            let is_of_pool = u64::from(record.slot_base) == slot_base && record.quic != abi::Quic::default();
            is_of_pool.then(|| record.quic.length())
        })?;
        let mark = abi::ServiceKey::server(0, 0).tail();
        let named = self.installed.live_index().find(|entry| {
            let [_, base] = entry.vip.words();
            entry.tail == mark && base == slot_base && entry.service == index
        })?;
        let [id, _] = named.vip.words();
        ServerId::of_key(id, length)
    }
}

/// Whether its agent has it take no new flows, as far as the table shows it.
fn takes_no_new_flows(pool: &Pool, backend: &Backend, standing: Standing) -> bool {
    pool.shares.agent.is_some()
        && pool.on_down == OnDown::Reset
        && backend.state == AdminState::Ready
        && backend.weight > 0
        && standing.takes(false)
        && !standing.takes(true)
}

/// What its checks said last, as far as the table shows it.
fn health(now: Duration, pool: &Pool, backend: &Backend, standing: Standing) -> Health {
    let no_new_flows_anyway = backend.state == AdminState::Drain || backend.weight == 0;
    let was_up = standing.takes(true)
        // With "keep" one that is down keeps its flows as well.
        || standing.takes(false) && (pool.on_down == OnDown::Reset || no_new_flows_anyway);
    match &pool.check {
        None => Health::unchecked(now),
        Some(_) if was_up => Health::adopted(now),
        Some(_) => Health::new(now),
    }
}
