//! Pools with too few backends that are up: who takes their new flows, and what is said about it.

use std::collections::BTreeSet;

use super::{Action, Controller, Level, standing::state_of};
use crate::{
    api::State,
    model::{
        layout,
        probe::BackendId,
        service::{Backend, Desired, Pool},
        shortage::{OnAllDown, Shortage, Takers},
    },
};

/// Who takes the flows of a pool, as was last told, and who did when there last were enough.
#[derive(Clone, Debug)]
pub(super) struct Supply {
    takers: Takers,
    is_short: bool,
    pub(super) last: BTreeSet<layout::Identity>,
}

impl Controller {
    /// Whether a backend takes new flows of its own pool.
    pub(super) fn is_up(&self, pool: &Pool, backend: &Backend) -> bool {
        let member = self.members.get(&BackendId::new(pool, backend));
        let next_hop = self.next_hops.get(&backend.address);
        backend.weight > 0 && member.is_some_and(|member| state_of(backend, member, next_hop) == State::Up)
    }

    pub(super) fn up_of(&self, pool: &Pool) -> usize {
        pool.backends.iter().filter(|backend| self.is_up(pool, backend)).count()
    }

    /// Who takes the new flows of a pool.
    pub(super) fn takers(&self, desired: &Desired, pool: &Pool) -> Takers {
        let of_fallback = desired.fallback_of(pool).map_or(0, |fallback| self.up_of(fallback));
        pool.shortage.takers(self.up_of(pool), of_fallback)
    }

    /// Backends of the pool that helps another one out. Those that are in both have a place already.
    pub(super) fn helpers<'a>(
        &'a self,
        desired: &'a Desired,
        pool: &'a Pool,
    ) -> impl Iterator<Item = (&'a Pool, &'a Backend)> {
        let own: BTreeSet<layout::Identity> = pool
            .backends
            .iter()
            .chain(self.leaving_from(&pool.name))
            .map(|backend| self.identity_of(backend))
            .collect();
        let helpers = desired.fallback_of(pool).into_iter();
        let helpers = helpers.flat_map(|other| other.backends.iter().map(move |backend| (other, backend)));
        helpers.filter(move |(_, backend)| !own.contains(&self.identity_of(backend)))
    }

    /// Whether there is more to a shortage than services that are down, which they show themselves.
    pub(super) fn needs_help(&self, pool: &Pool) -> bool {
        pool.shortage.min_up > Shortage::MIN_UP || self.takers(&self.desired, pool) != Takers::Up
    }

    /// Remembers who takes the flows where there are enough, and tells where there are no longer, or are again.
    pub(super) fn watch_supply(&mut self, actions: &mut Vec<Action>) {
        let mut supplies = std::mem::take(&mut self.supplies);
        supplies.retain(|name, _| self.desired.pool(name).is_some());
        for pool in &self.desired.pools {
            let up = self.up_of(pool);
            let takers = self.takers(&self.desired, pool);
            let is_short = pool.shortage.is_short(up) && !pool.backends.is_empty();
            let supply = supplies.entry(pool.name.clone()).or_insert_with(|| Supply {
                takers: Takers::Up,
                // Nobody is up at the beginning, which is nothing to tell of.
                is_short,
                last: BTreeSet::new(),
            });
            if !is_short && pool.shortage.then == OnAllDown::KeepLast {
                let up = pool.backends.iter().filter(|backend| self.is_up(pool, backend));
                supply.last = up.map(|backend| self.identity_of(backend)).collect();
            }
            if (supply.takers, supply.is_short) != (takers, is_short) {
                (supply.takers, supply.is_short) = (takers, is_short);
                actions.push(match self.shortage_line(pool) {
                    Some(line) => Action::Log(Level::Warn, line),
                    None => {
                        let said = format!("pool {}: {up} backends are up, which is enough again", pool.name);
                        Action::Log(Level::Info, said)
                    }
                });
            }
        }
        self.supplies = supplies;
    }

    /// What is said of a pool with too few backends that are up.
    pub(super) fn shortage_line(&self, pool: &Pool) -> Option<String> {
        let (up, all) = (self.up_of(pool), pool.backends.len());
        if all == 0 || !pool.shortage.is_short(up) {
            return None;
        }
        let doing = match (self.takers(&self.desired, pool), &pool.shortage.fallback) {
            (Takers::Fallback, Some(name)) => format!("those of pool {name} take its new flows"),
            (Takers::Last, _) => "those that were up last take its new flows".to_owned(),
            (Takers::All, _) => "all that can be reached take its new flows".to_owned(),
            _ if up > 0 => {
                format!("{} its new flows", if up == 1 { "it takes all" } else { "they take all" })
            }
            _ => "its packets are dropped".to_owned(),
        };
        let helpless = match (self.takers(&self.desired, pool), &pool.shortage.fallback) {
            (Takers::Fallback, _) | (_, None) => String::new(),
            (_, Some(name)) => format!(", pool {name} has none either"),
        };
        let wanted = match pool.shortage.min_up {
            1 => String::new(),
            min_up => format!(" (min_up = {min_up})"),
        };
        Some(format!("pool {}: {up} of {all} backends are up{wanted}{helpless}: {doing}", pool.name))
    }
}
