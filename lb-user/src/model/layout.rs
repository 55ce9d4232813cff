//! Where things stand in the tables: which runs of slots, backends and counters belong to whom.
//!
//! Nothing that a packet may still be reading is given to another owner: what is given up is only retired, and
//! becomes free again when a plan has been carried out whole ([`Layout::release`]).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use lb_common::{
    abi::{Encap, Limits, MAX_PORTS, Service, ServiceKey, Slot},
    addr::Addr,
};

use super::{
    plan::{Outer, PoolTarget, Target},
    service::Name,
};

/// A table is full: what was needed, and how large it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room for {needed} more {what}: the tables were made for {capacity}; restart lb to make larger ones"
)]
pub struct Full {
    /// The table, in the plural.
    pub what: &'static str,
    /// Elements in a row.
    pub needed: u32,
    /// Its size.
    pub capacity: u32,
}

/// Who owns which part of one table: runs of elements, first fit.
#[derive(Clone, Debug)]
struct Runs {
    what: &'static str,
    capacity: u32,
    /// Start and length of every run that is taken or retired.
    taken: BTreeMap<u32, u32>,
    /// Starts of runs given up since the last plan was carried out.
    retired: Vec<u32>,
}

impl Runs {
    fn new(what: &'static str, capacity: u32) -> Self {
        Self { what, capacity, taken: BTreeMap::new(), retired: Vec::new() }
    }

    fn take(&mut self, length: u32) -> Result<u32, Full> {
        let mut start = 0;
        for (&next, &taken) in &self.taken {
            if next - start >= length {
                break;
            }
            start = next + taken;
        }
        if self.capacity.checked_sub(start).is_none_or(|room| room < length) {
            return Err(Full { what: self.what, needed: length, capacity: self.capacity });
        }
        self.taken.insert(start, length);
        Ok(start)
    }

    /// One above the highest element taken.
    fn end(&self) -> u32 {
        self.taken.last_key_value().map_or(0, |(&start, &length)| start + length)
    }

    fn retire(&mut self, start: u32) {
        self.retired.push(start);
    }

    fn release(&mut self) {
        for start in self.retired.drain(..) {
            self.taken.remove(&start);
        }
    }
}

/// What a backend number stands for. A backend that changes any of it gets another number, because packets read
/// these parts of a record without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The backend's own address.
    pub address: IpAddr,
    /// How packets get there; an [`Encap`].
    pub encap: u8,
    /// Source of outer headers.
    pub outer_source: Addr,
    /// Its low bits that carry the flow's hash.
    pub spread_bits: u8,
}

impl Identity {
    /// The identity of a backend under these tunnel sources.
    pub fn new(address: IpAddr, tunnelled: bool, outer: &Outer) -> Self {
        let (encap, (source, prefix), bits) = match (tunnelled, address) {
            (false, _) => (Encap::L2, (Addr::NONE, 0), 0),
            (true, IpAddr::V4(_)) => (Encap::Ip4, (Addr::from(IpAddr::V4(outer.v4.0)), outer.v4.1), 32),
            (true, IpAddr::V6(_)) => (Encap::Ip6, (Addr::from(IpAddr::V6(outer.v6.0)), outer.v6.1), 128),
        };
        // At most 32 bits of hash go into an address.
        let spread_bits = u8::min(bits - u8::min(prefix, bits), 32);
        Self { address, encap: encap as u8, outer_source: source, spread_bits }
    }
}

/// Where a pool stands.
#[derive(Clone, Debug)]
pub struct PoolPlace {
    /// First slot.
    pub slot_base: u32,
    /// Number of slots.
    pub slots: u32,
    /// Index of backend number 0.
    pub backend_base: u32,
    /// Backend numbers are below this.
    pub capacity: u32,
    /// Numbers of the pool's backends.
    pub numbers: BTreeMap<Name, (u16, Identity)>,
    /// Numbers not in use, the one given up longest ago first: a number must not soon mean another backend.
    free: VecDeque<u16>,
    retired: Vec<u16>,
}

impl PoolPlace {
    /// Index of a backend in the table of all backends.
    pub fn index_of(&self, backend: &Name) -> Option<u32> {
        self.numbers.get(backend).map(|&(number, _)| self.backend_base + u32::from(number))
    }
}

/// Where a service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlace {
    /// Its number.
    pub number: u32,
    /// Its pool, whose backends' numbers say where it counts.
    pub pool: Name,
    /// Its record.
    pub record: Service,
    /// What it is found by.
    pub keys: Vec<ServiceKey>,
}

/// Where everything stands.
#[derive(Clone, Debug)]
pub struct Layout {
    slots: Runs,
    backends: Runs,
    counters: Runs,
    service_numbers: Runs,
    pools: BTreeMap<Name, PoolPlace>,
    services: BTreeMap<Name, ServicePlace>,
    /// Interface indexes by port number; 0 is free. Ports are few and stay.
    ports: Vec<u32>,
}

impl Layout {
    /// An empty layout of tables of this size.
    pub fn new(limits: &Limits) -> Self {
        Self {
            slots: Runs::new("slots", limits.slots),
            backends: Runs::new("backends", limits.backends),
            counters: Runs::new("counters", limits.counters),
            service_numbers: Runs::new("services", limits.services),
            pools: BTreeMap::new(),
            services: BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    /// Where a pool stands.
    pub fn pool(&self, name: &Name) -> Option<&PoolPlace> {
        self.pools.get(name)
    }

    /// Where a service stands.
    pub fn service(&self, name: &Name) -> Option<&ServicePlace> {
        self.services.get(name)
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &ServicePlace)> {
        self.services.iter()
    }

    /// One above the highest counter in use.
    pub fn counters_end(&self) -> u32 {
        self.counters.end()
    }

    /// Interface index of each port, by port number.
    pub fn ports(&self) -> &[u32] {
        &self.ports
    }

    /// Port number of an interface that backends are reached through.
    pub fn port_of(&self, ifindex: u32) -> Option<u16> {
        self.ports.iter().position(|&port| port == ifindex).and_then(|number| u16::try_from(number).ok())
    }

    /// Finds a place for everything a target names, and retires the places of what it no longer names.
    ///
    /// # Errors
    /// [`Full`] if a table is too small. What has been placed by then keeps its place.
    pub fn place(&mut self, target: &Target) -> Result<(), Full> {
        self.place_ports(target)?;
        for pool in &target.pools {
            self.place_pool(pool, &target.outer)?;
        }
        self.place_services(target)?;

        let wanted: BTreeSet<&Name> = target.pools.iter().map(|pool| &pool.name).collect();
        let gone: Vec<Name> = self.pools.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for place in gone.iter().filter_map(|name| self.pools.remove(name)).collect::<Vec<_>>() {
            self.retire_pool(&place);
        }
        Ok(())
    }

    /// Frees what was retired. Call it when a plan has been carried out whole: from then on no packet reads it.
    pub fn release(&mut self) {
        for runs in [&mut self.slots, &mut self.backends, &mut self.counters, &mut self.service_numbers] {
            runs.release();
        }
        for pool in self.pools.values_mut() {
            pool.free.extend(pool.retired.drain(..));
        }
    }

    fn place_ports(&mut self, target: &Target) -> Result<(), Full> {
        let used: BTreeSet<u32> = target.hops().map(|hop| hop.ifindex).collect();
        for &ifindex in &used {
            if self.port_of(ifindex).is_some() {
                continue;
            }
            if self.ports.len() < MAX_PORTS as usize {
                self.ports.push(ifindex);
            } else if let Some(stale) = self.ports.iter_mut().find(|port| !used.contains(port)) {
                *stale = ifindex;
            } else {
                return Err(Full { what: "interfaces", needed: 1, capacity: MAX_PORTS });
            }
        }
        Ok(())
    }

    fn place_pool(&mut self, target: &PoolTarget, outer: &Outer) -> Result<(), Full> {
        let needed = u32::try_from(target.members.len()).unwrap_or(u32::MAX);
        let fits = |place: &PoolPlace| place.slots == target.slots && place.capacity >= needed;
        match self.pools.remove(&target.name) {
            Some(place) if fits(&place) => {
                self.pools.insert(target.name.clone(), place);
            }
            other => {
                // Room to grow: a backend more must not move the pool.
                let capacity = (needed * 2).next_power_of_two().clamp(16, u32::from(Slot::MAX_BACKENDS));
                let place = PoolPlace {
                    slot_base: self.slots.take(target.slots)?,
                    slots: target.slots,
                    backend_base: self.backends.take(capacity)?,
                    capacity,
                    numbers: BTreeMap::new(),
                    free: (0..u16::try_from(capacity).unwrap_or(Slot::MAX_BACKENDS)).collect(),
                    retired: Vec::new(),
                };
                if let Some(old) = other {
                    self.retire_pool(&old);
                }
                self.pools.insert(target.name.clone(), place);
            }
        }
        let Some(place) = self.pools.get_mut(&target.name) else { unreachable!("just inserted") };
        place_members(place, target, outer)
    }

    fn retire_pool(&mut self, place: &PoolPlace) {
        self.slots.retire(place.slot_base);
        self.backends.retire(place.backend_base);
    }

    fn place_services(&mut self, target: &Target) -> Result<(), Full> {
        let mut placed = BTreeMap::new();
        for service in &target.services {
            let Some(pool) = self.pools.get(&service.pool) else { continue };
            let old = self.services.remove(&service.name);
            let record = Service {
                slot_base: pool.slot_base,
                slot_count: pool.slots,
                backend_base: pool.backend_base,
                backend_count: pool.capacity,
                ..Service::default()
            };
            let place = match old {
                Some(old) if old.record == (Service { counter_base: old.record.counter_base, ..record }) => {
                    ServicePlace { keys: service.keys.clone(), pool: service.pool.clone(), ..old }
                }
                other => {
                    let number = self.service_numbers.take(1)?;
                    let counter_base = self.counters.take(pool.capacity)?;
                    if let Some(old) = other {
                        self.service_numbers.retire(old.number);
                        self.counters.retire(old.record.counter_base);
                    }
                    ServicePlace {
                        number,
                        pool: service.pool.clone(),
                        record: Service { counter_base, ..record },
                        keys: service.keys.clone(),
                    }
                }
            };
            placed.insert(service.name.clone(), place);
        }
        for old in std::mem::replace(&mut self.services, placed).into_values() {
            self.service_numbers.retire(old.number);
            self.counters.retire(old.record.counter_base);
        }
        Ok(())
    }
}

fn place_members(place: &mut PoolPlace, target: &PoolTarget, outer: &Outer) -> Result<(), Full> {
    let wanted: BTreeMap<&Name, Identity> = target
        .members
        .iter()
        .map(|member| (&member.name, Identity::new(member.address, member.tunnelled, outer)))
        .collect();
    let PoolPlace { numbers, retired, free, capacity, .. } = place;
    numbers.retain(|name, (number, identity)| {
        let stays = wanted.get(name) == Some(identity);
        if !stays {
            retired.push(*number);
        }
        stays
    });
    for (name, identity) in wanted {
        if numbers.contains_key(name) {
            continue;
        }
        let number = free.pop_front().ok_or(Full {
            what: "backends in this pool until its last change has taken effect",
            needed: 1,
            capacity: *capacity,
        })?;
        numbers.insert(name.clone(), (number, identity));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_reused_only_after_release() {
        let mut runs = Runs::new("slots", 100);
        let first = runs.take(60).unwrap();
        assert_eq!(runs.take(40), Ok(60));
        assert!(runs.take(1).is_err());
        runs.retire(first);
        assert!(runs.take(1).is_err(), "a retired run may still be read");
        runs.release();
        assert_eq!(runs.take(10), Ok(0));
        assert_eq!(runs.take(50), Ok(10));
        let full = runs.take(7).unwrap_err();
        assert_eq!((full.needed, full.capacity), (7, 100));
    }

    #[test]
    fn tunnel_sources_spread_by_their_host_bits() {
        let outer = Outer::default();
        let v4 = Identity::new("10.0.0.1".parse().unwrap(), true, &outer);
        assert_eq!((v4.encap, v4.spread_bits), (Encap::Ip4 as u8, 16));
        let v6 = Identity::new("2001:db8::1".parse().unwrap(), true, &outer);
        assert_eq!((v6.encap, v6.spread_bits), (Encap::Ip6 as u8, 32));
        let l2 = Identity::new("10.0.0.1".parse().unwrap(), false, &outer);
        assert_eq!((l2.encap, l2.spread_bits, l2.outer_source), (Encap::L2 as u8, 0, Addr::NONE));
    }
}
