//! Transitions: who may still have flows where the table says otherwise, and when that is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    Action, Controller, Level,
    standing::{Known, Member, Server, carried_over},
};
use crate::{
    api::{BackendFlows, FlowsView},
    model::{
        probe::BackendId,
        service::{AdminState, Backend, Desired, Name, OnDown, Pool, Protocol, Service, ServicePort},
        transition::{FlowReading, Patience},
    },
};

/// How often the flow table is looked at while anything depends on it.
const LOOK: Duration = Duration::from_secs(2);

/// A backend that left the configuration and still serves the flows it has.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    /// Which.
    pub(super) server: Server,
    /// As it last was.
    pub(super) known: Known,
    /// Whether the flow table was looked at since: before that nothing is known of its flows.
    seen: bool,
}

impl Leaving {
    pub(super) fn new(server: Server, known: Known) -> Self {
        Self { server, known, seen: false }
    }

    /// What its probes are called: its name may be another's by now.
    pub(super) fn id(&self) -> BackendId {
        let Backend { address, via, .. } = &self.known.backend;
        BackendId { pool: self.server.pool.clone(), backend: Name::of_server(*address, *via) }
    }
}

/// The longest that a flow of a service may be silent.
fn longest_idle(service: &Service) -> Duration {
    let idle = |port: &ServicePort| match port.protocol {
        Protocol::Tcp => service.flows.idle,
        Protocol::Udp | Protocol::Sctp => service.flows.udp_idle,
    };
    service.ports.iter().map(idle).max().unwrap_or_default()
}

/// Whether flows that are on a backend may stay there. An operator's word says nothing about health: what its checks
/// said last holds for one that is drained or leaves as well.
pub(super) fn serves(pool: &Pool, backend: &Backend, member: &Member) -> bool {
    member.word(backend) != AdminState::Maint && (member.runs() || pool.on_down == OnDown::Keep)
}

impl Controller {
    /// What is known of every server, of those that are leaving as well: one that comes back goes on as it was, and so
    /// does one under another name.
    pub(super) fn known_servers(&mut self, before: &Desired) -> BTreeMap<Server, Known> {
        let mut members = std::mem::take(&mut self.members);
        let present = before.backends().filter_map(|(id, (pool, backend))| {
            let member = members.remove(&id)?;
            let known = Known { backend: backend.clone(), checked: pool.check.is_some(), member };
            Some((Server::of(pool, backend), known))
        });
        let leaving = std::mem::take(&mut self.leaving).into_iter().map(|gone| (gone.server, gone.known));
        present.chain(leaving).collect()
    }

    /// These are not in the configuration, or no longer: those that serve go on serving the flows they have, and their
    /// checks go on. A pool that is gone takes its flows along.
    pub(super) fn see_off(&mut self, now: Duration, gone: BTreeMap<Server, Known>) {
        for (server, known) in gone {
            let Some(pool) = self.desired.pool(&server.pool) else { continue };
            if serves(pool, &known.backend, &known.member) {
                let backend = known.backend.clone();
                let checked = pool.check.is_some();
                let member = carried_over(now, Some(known), (pool, &backend));
                self.leaving.push(Leaving::new(server, Known { backend, checked, member }));
            }
        }
    }

    /// Those that would serve nothing but the flows they have if `desired` came into force now.
    pub(super) fn leaving_under<'a>(&'a self, desired: &'a Desired) -> BTreeMap<&'a Name, Vec<&'a Backend>> {
        let stays = |(_, (pool, backend)): (_, (&Pool, &Backend))| Server::of(pool, backend);
        let staying: BTreeSet<Server> = desired.backends().map(stays).collect();
        let present = self.desired.backends().filter_map(|(id, (pool, backend))| {
            let serves = serves(desired.pool(&pool.name)?, backend, self.members.get(&id)?);
            serves.then(|| (Server::of(pool, backend), &pool.name, backend))
        });
        let leaving = self.leaving.iter().map(|leaving| {
            let Leaving { server, known, .. } = leaving;
            (server.clone(), &server.pool, &known.backend)
        });
        let mut left: BTreeMap<&Name, Vec<&Backend>> = BTreeMap::new();
        for (server, pool, backend) in leaving.chain(present) {
            if !staying.contains(&server) {
                left.entry(pool).or_default().push(backend);
            }
        }
        left
    }

    /// Those that do no longer serve are done with: their flows are to be reset, not to be lost.
    pub(super) fn dismiss_the_dead(&mut self, actions: &mut Vec<Action>) {
        let desired = &self.desired;
        self.leaving.retain(|leaving| {
            let Leaving { server, known: Known { backend, member, .. }, .. } = leaving;
            let serves = desired.pool(&server.pool).is_some_and(|pool| serves(pool, backend, member));
            if !serves {
                let said = format!(
                    "{}, which left the configuration, {}: its flows go to others",
                    leaving.id(),
                    member.health
                );
                actions.push(Action::Log(Level::Warn, said));
            }
            serves
        });
    }

    /// Servers whose checks say that they run.
    #[cfg(test)]
    pub(super) fn serving(&self) -> BTreeSet<IpAddr> {
        let present = self
            .desired
            .backends()
            .filter_map(|(id, (_, backend))| self.members.get(&id)?.runs().then_some(backend.address));
        let leaving = self.leaving.iter().map(|leaving| &leaving.known);
        let leaving = leaving.filter(|known| known.member.runs()).map(|known| known.backend.address);
        present.chain(leaving).collect()
    }

    /// Whoever a probe was for.
    pub(super) fn probed(&mut self, id: &BackendId) -> Option<&mut Member> {
        if let Some(member) = self.members.get_mut(id) {
            return Some(member);
        }
        let leaving = self.leaving.iter_mut().find(|leaving| leaving.id() == *id)?;
        Some(&mut leaving.known.member)
    }

    pub(super) fn leaving_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.leaving.iter().map(|leaving| leaving.known.backend.address)
    }

    /// Backends that left a pool and still serve the flows they have.
    pub(super) fn leaving_from(&self, pool: &Name) -> impl Iterator<Item = &Backend> {
        let leaving = self.leaving.iter().filter(move |leaving| leaving.server.pool == *pool);
        leaving.map(|leaving| &leaving.known.backend)
    }

    /// Asks for the flow table while slots are in transition or backends leave.
    pub(super) fn watch_flows(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now.saturating_sub(self.flows_read_at) >= LOOK {
            self.flows_read_at = now;
            actions.push(Action::ReadFlows);
        }
    }

    /// Sees which transitions are over and which leaving backends have no flow left.
    pub(super) fn take_flows(&mut self, now: Duration, reading: &FlowReading) {
        let mut settled = BTreeSet::new();
        self.transitions.clear();
        let waiting = self.waiting(&self.desired);
        for pool in &self.desired.pools {
            let Some(place) = self.layout.pool(&pool.name) else { continue };
            let waiting = waiting.iter().filter(|(_, serving)| **serving == pool.name);
            let services = self.desired.services_of(&pool.name).chain(waiting.map(|(service, _)| *service));
            let idle = services.map(longest_idle).max().unwrap_or_default();
            let patience = Patience { idle, longest: self.desired.settings.transition_max };
            let hz = self.identity.ticks_per_second;
            let summary = self.watch.look(now, &self.installed, (&self.layout, place), reading, hz, patience);
            settled.extend(&summary.settled);
            self.transitions.insert(pool.name.clone(), summary);
        }
        self.dirty |= !settled.is_empty();
        self.settled = settled;

        let before = self.leaving.len();
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain_mut(|gone| {
            let first = !std::mem::replace(&mut gone.seen, true);
            first || self.has_flows(gone)
        });
        self.dirty |= leaving.len() != before;
        self.leaving = leaving;
    }

    /// Whether a leaving backend is still the previous owner of a slot, or a remembered flow is on it; or the plan that
    /// takes its slots from it has yet to be carried out.
    fn has_flows(&self, leaving: &Leaving) -> bool {
        let pool = &leaving.server.pool;
        let (Some(place), Some(summary)) = (self.layout.pool(pool), self.transitions.get(pool)) else {
            return false;
        };
        let Some(&number) = place.numbers.get(&self.identity_of(&leaving.known.backend)) else {
            return false;
        };
        let slots = place.slot_base as usize..(place.slot_base + place.slots) as usize;
        summary.leaving.contains_key(&number)
            || summary.by_number.contains_key(&number)
            || self.installed.slots[slots].iter().any(|slot| slot.owner() == Some(number))
    }

    /// What is remembered of a pool, by the names people know.
    pub(super) fn flows_view(&self, pool: &Pool) -> FlowsView {
        let summary = self.transitions.get(&pool.name).cloned().unwrap_or_default();
        let number_of = |backend: &Backend| {
            self.layout
                .pool(&pool.name)
                .and_then(|place| place.numbers.get(&self.identity_of(backend)).copied())
        };
        let view = |backend: &Backend, name: String, is_leaving| {
            let number = number_of(backend)?;
            let count = |of: &BTreeMap<u16, u32>| of.get(&number).copied().unwrap_or(0);
            let (remembered, slots) = (count(&summary.by_number), count(&summary.leaving));
            let shown = remembered > 0 || slots > 0 || is_leaving;
            shown.then_some(BackendFlows { backend: name, is_leaving, remembered, slots })
        };
        let present =
            pool.backends.iter().filter_map(|backend| view(backend, backend.name.to_string(), false));
        let helpers = self
            .helpers(&self.desired, pool)
            .filter_map(|(other, helper)| view(helper, BackendId::new(other, helper).to_string(), false));
        let gone = self.leaving_from(&pool.name);
        let gone = gone.filter_map(|gone| view(gone, gone.address.to_string(), true));
        FlowsView {
            pool: pool.name.to_string(),
            slots_in_transition: summary.in_transition,
            remembered: summary.remembered,
            ends_in_seconds: summary.ends_in.map(|left| left.as_secs()),
            backends: present.chain(helpers).chain(gone).collect(),
        }
    }
}
