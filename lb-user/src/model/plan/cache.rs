//! Lookup tables, and those that were computed before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::abi::Slot;

use super::{Outer, PoolTarget, Target};
use crate::model::{
    layout::{Identity, PoolPlace},
    maglev,
    service::Name,
};

/// Lookup tables already computed, by pool: a reload of one pool does not compute the others' again.
#[derive(Clone, Debug, Default)]
pub struct TableCache(BTreeMap<Name, CachedTable>);

#[derive(Clone, Debug)]
struct CachedTable {
    members: Vec<(IpAddr, u16, u32)>,
    slots: u32,
    table: Vec<Slot>,
}

impl TableCache {
    /// The table of a pool.
    pub fn table(&mut self, pool: &PoolTarget, place: &PoolPlace, outer: &Outer) -> &[Slot] {
        let members: Vec<(IpAddr, u16, u32)> = pool
            .members
            .iter()
            .filter(|member| member.hop.is_some() && member.weight > 0)
            .filter_map(|member| {
                let identity = Identity::new(member.address, member.via, outer);
                Some((member.address, *place.numbers.get(&identity)?, member.weight))
            })
            .collect();
        let fresh = |known: &CachedTable| known.members == members && known.slots == pool.slots;
        if !self.0.get(&pool.name).is_some_and(fresh) {
            let table = build(&members, pool.slots);
            self.0.insert(pool.name.clone(), CachedTable { members, slots: pool.slots, table });
        }
        self.0.get(&pool.name).map_or(&[], |known| &known.table)
    }

    /// Forgets the tables of other pools than these.
    pub(super) fn keep(&mut self, target: &Target) {
        let wanted: BTreeSet<&Name> = target.pools.iter().map(|pool| &pool.name).collect();
        self.0.retain(|name, _| wanted.contains(name));
    }
}

/// A backend is known by its address: it keeps its slots when it is renamed, and balancers that name it differently
/// agree.
fn build(members: &[(IpAddr, u16, u32)], slots: u32) -> Vec<Slot> {
    let identities: Vec<String> = members.iter().map(|(address, ..)| address.to_string()).collect();
    let members: Vec<maglev::Member<'_>> = members
        .iter()
        .zip(&identities)
        .map(|(&(_, number, weight), identity)| maglev::Member { identity, number, weight })
        .collect();
    maglev::build(&members, slots).into_iter().map(|owner| owner.map_or(Slot::EMPTY, Slot::of)).collect()
}
