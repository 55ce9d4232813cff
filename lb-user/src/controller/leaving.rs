//! Transitions: who may still have flows where the table says otherwise, and when that is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Action, Controller};
use crate::{
    api::{BackendFlows, FlowsView},
    model::{
        service::{Backend, Desired, Name, Pool},
        transition::{FlowReading, Patience},
    },
};

/// How often the flow table is looked at while anything depends on it.
const LOOK: Duration = Duration::from_secs(2);

/// A backend that left the configuration and still serves the flows it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Its pool.
    pub(super) pool: Name,
    /// As it last was.
    pub(super) backend: Backend,
    /// Whether the flow table was looked at since: before that nothing is known of its flows.
    seen: bool,
}

impl Controller {
    /// A configuration is in force that may lack backends of the one before: those that serve go on serving the flows
    /// they have.
    pub(super) fn see_off(&mut self, before: &Desired) {
        let desired = &self.desired;
        let still_there = |pool: &Name, backend: &Backend| {
            desired.pool(pool).is_some_and(|pool| {
                pool.backends.iter().any(|other| other.address == backend.address && other.via == backend.via)
            })
        };
        for (id, (pool, backend)) in before.backends() {
            let served = self.members.get(&id).is_some_and(|member| member.health.is_up());
            let has_place = self.layout.pool(&pool.name).is_some() && desired.pool(&pool.name).is_some();
            if served && has_place && !still_there(&pool.name, backend) {
                self.leaving.push(Leaving { pool: pool.name.clone(), backend: backend.clone(), seen: false });
            }
        }
        // A pool that is gone takes its flows along, and a backend that is back is no longer leaving.
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|gone| desired.pool(&gone.pool).is_some() && !still_there(&gone.pool, &gone.backend));
        self.leaving = leaving;
    }

    pub(super) fn leaving_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.leaving.iter().map(|leaving| leaving.backend.address)
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
        for pool in &self.desired.pools {
            let Some(place) = self.layout.pool(&pool.name) else { continue };
            let services = self.desired.services_of(&pool.name);
            let idle = services
                .map(|service| service.flows.idle.max(service.flows.udp_idle))
                .max()
                .unwrap_or_default();
            let patience = Patience { idle, longest: self.desired.settings.transition_max };
            let hz = self.identity.ticks_per_second;
            let summary = self.watch.look(now, &self.installed, place, reading, hz, patience);
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

    /// Whether a leaving backend is still the previous owner of a slot, or a remembered flow is on it.
    fn has_flows(&self, leaving: &Leaving) -> bool {
        let number = self
            .layout
            .pool(&leaving.pool)
            .and_then(|place| place.numbers.get(&self.identity_of(&leaving.backend)).copied());
        let (Some(number), Some(summary)) = (number, self.transitions.get(&leaving.pool)) else {
            return false;
        };
        summary.leaving.contains_key(&number) || summary.by_number.contains_key(&number)
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
        let gone = self.leaving.iter().filter(|gone| gone.pool == pool.name);
        let gone = gone.filter_map(|gone| view(&gone.backend, gone.backend.address.to_string(), true));
        FlowsView {
            pool: pool.name.to_string(),
            slots_in_transition: summary.in_transition,
            remembered: summary.remembered,
            ends_in_seconds: summary.ends_in.map(|left| left.as_secs()),
            backends: present.chain(gone).collect(),
        }
    }
}
