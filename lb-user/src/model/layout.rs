//! Where things stand in the tables: which runs of slots, backends and counters belong to whom.
//!
//! Nothing that a packet may still be reading is given to another owner: what is given up is only retired, and
//! becomes free again when a plan has been carried out whole ([`Layout::release`]). A layout that turns out too small
//! is no layout: [`Layout::placed`] makes a new one and leaves the old one as it is.

mod found;
mod runs;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    abi::{Encap, Limits, MAX_PORTS, Port, PrefixKey, Service, ServiceKey, Slot},
    addr::Addr,
};

use self::runs::Runs;
pub use self::{found::Incoherent, runs::Full};
use super::{
    plan::{ListTarget, Outer, PoolTarget, Target},
    service::{Name, Via},
};

/// What a backend number stands for. A backend that changes any of it gets another number, because packets read
/// these parts of a record without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The backend's own address.
    pub address: IpAddr,
    /// How packets get there.
    pub encap: Encap,
    /// Source of outer headers.
    pub outer_source: Addr,
    /// Its low bits that carry the flow's hash.
    pub spread_bits: u8,
    /// UDP port of GUE packets; 0 for others.
    pub gue_port: u16,
}

impl Identity {
    /// The identity of a backend under these tunnel sources.
    pub fn new(address: IpAddr, via: Via, outer: &Outer) -> Self {
        let encap = via.encap(&address);
        let (source, prefix, bits) = match (encap, address) {
            (Encap::L2, _) => (Addr::NONE, 0, 0),
            (_, IpAddr::V4(_)) => (Addr::from(IpAddr::V4(outer.v4.0)), outer.v4.1, 32),
            (_, IpAddr::V6(_)) => (Addr::from(IpAddr::V6(outer.v6.0)), outer.v6.1, 128),
        };
        // At most 32 bits of hash go into an address.
        let spread_bits = u8::min(bits - u8::min(prefix, bits), 32);
        let gue_port = if encap.is_gue() { outer.gue_port } else { 0 };
        Self { address, encap, outer_source: source, spread_bits, gue_port }
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
    /// Backend numbers are below this. It grows as long as there is room behind it.
    pub capacity: u32,
    /// Numbers of the pool's backends.
    pub numbers: BTreeMap<Identity, u16>,
    /// Whether the run of slots was another pool's or nobody's: what stands in it says nothing about this pool.
    pub is_fresh: bool,
    /// Numbers not in use, the one given up longest ago first: a number must not soon mean another backend.
    free: VecDeque<u16>,
    retired: Vec<u16>,
}

impl PoolPlace {
    /// Index of a backend in the table of all backends.
    pub fn index_of(&self, backend: &Identity) -> Option<u32> {
        self.numbers.get(backend).map(|&number| self.backend_base + u32::from(number))
    }

    /// How many numbers must come to those there are for every backend to have one.
    fn missing(&self, wanted: &BTreeSet<Identity>) -> u32 {
        let new = wanted.iter().filter(|identity| !self.numbers.contains_key(identity)).count();
        u32::try_from(new.saturating_sub(self.free.len())).unwrap_or(u32::MAX)
    }

    /// Takes more numbers, up to `capacity`, whose places nobody has.
    fn grow(&mut self, capacity: u32) {
        let end = u16::try_from(capacity).unwrap_or(Slot::MAX_BACKENDS);
        self.free.extend(u16::try_from(self.capacity).unwrap_or(end)..end);
        self.capacity = capacity;
    }

    /// Gives every backend its number, and retires the numbers of others. `None`, and nothing is changed, if more are
    /// needed than are free. `epochs` are those of all places in the table of backends.
    fn number(&mut self, wanted: &BTreeSet<Identity>, epochs: &mut [u8]) -> Option<()> {
        if self.missing(wanted) > 0 {
            return None;
        }
        let Self { numbers, retired, free, backend_base, .. } = self;
        numbers.retain(|identity, number| {
            let stays = wanted.contains(identity);
            if !stays {
                retired.push(*number);
            }
            stays
        });
        for &identity in wanted {
            if let Entry::Vacant(place) = numbers.entry(identity) {
                let number = free.pop_front()?;
                let epoch = epochs.get_mut(*backend_base as usize + usize::from(number))?;
                *epoch = epoch.wrapping_add(1);
                place.insert(number);
            }
        }
        Some(())
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
    /// By place in the table of backends: tells a backend from who had the place before, so that no flow of the one is
    /// taken for the other's.
    epochs: Vec<u8>,
    port_numbers: Runs,
    /// Port numbers.
    ports: BTreeMap<Port, u32>,
    list_numbers: Runs,
    /// Lists of sources and their numbers.
    lists: BTreeMap<Name, (u32, Arc<ListTarget>)>,
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
            epochs: vec![0; limits.backends as usize],
            port_numbers: Runs::new("interfaces", MAX_PORTS),
            ports: BTreeMap::new(),
            list_numbers: Runs::new("lists of sources", limits.prefixes),
            lists: BTreeMap::new(),
        }
    }

    /// Lists of sources by number.
    pub fn lists(&self) -> impl Iterator<Item = (u32, &ListTarget)> {
        self.lists.values().map(|(number, list)| (*number, &**list))
    }

    /// Where a pool stands.
    pub fn pool(&self, name: &Name) -> Option<&PoolPlace> {
        self.pools.get(name)
    }

    /// Every pool.
    pub fn pools(&self) -> impl Iterator<Item = (&Name, &PoolPlace)> {
        self.pools.iter()
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &ServicePlace)> {
        self.services.iter()
    }

    /// Where a service stands.
    pub fn service(&self, name: &Name) -> Option<&ServicePlace> {
        self.services.get(name)
    }

    /// One above the highest counter that was ever in use. Those given up are among them: what they counted for an
    /// earlier owner must be known, or it would seem to be the next one's.
    pub fn counters_end(&self) -> u32 {
        self.counters.peak
    }

    /// The epoch of who has a place in the table of backends.
    pub fn epoch(&self, index: u32) -> u8 {
        self.epochs.get(index as usize).copied().unwrap_or(0)
    }

    /// Number and interface of every port that backends are reached through.
    pub fn ports(&self) -> impl Iterator<Item = (u32, Port)> {
        self.ports.iter().map(|(&port, &number)| (number, port))
    }

    /// Number of a port that backends are reached through.
    pub fn port_of(&self, port: Port) -> Option<u16> {
        self.ports.get(&port).and_then(|&number| u16::try_from(number).ok())
    }

    /// The layout with a place for everything a target names, where it is now if it can stay there. The places of what
    /// the target no longer names are retired.
    ///
    /// # Errors
    /// [`Full`] if a table is too small.
    pub fn placed(&self, target: &Target) -> Result<Self, Full> {
        let mut next = self.clone();
        next.place_ports(target)?;
        for pool in &target.pools {
            next.place_pool(pool, &target.outer)?;
        }
        next.place_lists(target)?;
        next.place_services(target)?;

        let wanted: BTreeSet<&Name> = target.pools.iter().map(|pool| &pool.name).collect();
        let pools = std::mem::take(&mut next.pools);
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            pools.into_iter().partition(|(name, _)| wanted.contains(name));
        next.pools = kept;
        for place in gone.into_values() {
            next.retire_pool(&place);
        }
        Ok(next)
    }

    /// Frees what was retired. Call it when a plan has been carried out whole: from then on no packet reads it.
    pub fn release(&mut self) {
        let Self { slots, backends, counters, service_numbers, port_numbers, list_numbers, .. } = self;
        for runs in [slots, backends, counters, service_numbers, port_numbers, list_numbers] {
            runs.release();
        }
        for pool in self.pools.values_mut() {
            pool.free.extend(pool.retired.drain(..));
            pool.is_fresh = false;
        }
    }

    fn place_ports(&mut self, target: &Target) -> Result<(), Full> {
        let used: BTreeSet<Port> = target.hops().map(|hop| hop.port).collect();
        for &port in &used {
            if let Entry::Vacant(place) = self.ports.entry(port) {
                place.insert(self.port_numbers.take(1)?);
            }
        }
        let Self { ports, port_numbers, .. } = self;
        ports.retain(|port, number| {
            let stays = used.contains(port);
            if !stays {
                port_numbers.retire(*number);
            }
            stays
        });
        Ok(())
    }

    /// A list that says something else gets another number: the old one stands until no service names it.
    fn place_lists(&mut self, target: &Target) -> Result<(), Full> {
        let mut placed = BTreeMap::new();
        for list in &target.lists {
            let known = self.lists.remove(&list.name);
            let same = known.as_ref().is_some_and(|(_, old)| Arc::ptr_eq(old, list) || old == list);
            let number = match known {
                Some((number, _)) if same => number,
                other => {
                    let number = self.list_numbers.take(1)? + PrefixKey::FIRST_ACL;
                    if let Some((old, _)) = other {
                        self.list_numbers.retire(old - PrefixKey::FIRST_ACL);
                    }
                    number
                }
            };
            placed.insert(list.name.clone(), (number, Arc::clone(list)));
        }
        for (number, _) in std::mem::replace(&mut self.lists, placed).into_values() {
            self.list_numbers.retire(number - PrefixKey::FIRST_ACL);
        }
        Ok(())
    }

    fn place_pool(&mut self, target: &PoolTarget, outer: &Outer) -> Result<(), Full> {
        let wanted: BTreeSet<Identity> =
            target.members.iter().map(|member| Identity::new(member.address, member.via, outer)).collect();
        if let Some(place) = self.pools.get_mut(&target.name)
            && place.slots == target.slots
        {
            let missing = place.missing(&wanted);
            if missing > 0 {
                let least = (place.capacity + missing).next_power_of_two().min(u32::from(Slot::MAX_BACKENDS));
                let capacity = capacity_for(wanted.len()).max(least);
                if self.backends.extend(place.backend_base, capacity) {
                    place.grow(capacity);
                }
            }
            if place.number(&wanted, &mut self.epochs).is_some() {
                return Ok(());
            }
        }
        let capacity = capacity_for(target.members.len());
        let mut place = PoolPlace {
            slot_base: self.slots.take(target.slots)?,
            slots: target.slots,
            backend_base: self.backends.take_apart(capacity)?,
            capacity,
            numbers: BTreeMap::new(),
            is_fresh: true,
            free: (0..u16::try_from(capacity).unwrap_or(Slot::MAX_BACKENDS)).collect(),
            retired: Vec::new(),
        };
        let needed = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        place.number(&wanted, &mut self.epochs).ok_or(Full {
            what: "backends in one pool",
            needed,
            capacity,
        })?;
        if let Some(old) = self.pools.insert(target.name.clone(), place) {
            self.retire_pool(&old);
        }
        Ok(())
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
                flags: service.flags,
                tcp_idle: service.tcp_idle,
                udp_idle: service.udp_idle,
                affinity: service.affinity,
                limited: service.limited,
                acl: service.list.as_ref().and_then(|name| self.lists.get(name)).map_or(0, |list| list.0),
                quic: service.quic,
                packets: service.packets,
                flows: service.flows,
                ..Service::default()
            };
            let place = match old {
                Some(old) if old.record == (Service { counter_base: old.record.counter_base, ..record }) => {
                    ServicePlace { keys: service.keys.clone(), pool: service.pool.clone(), ..old }
                }
                other => {
                    let number = self.service_numbers.take(1)?;
                    let counter_base = self.counters.take(Service::counters(pool.capacity))?;
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

/// Backend numbers that a pool of this many backends gets: room to grow four times, because a number given up must not
/// soon mean another backend.
pub fn capacity_for(backends: usize) -> u32 {
    let needed = u32::try_from(backends).unwrap_or(u32::MAX);
    needed.saturating_mul(4).clamp(64, 1 << 16).next_power_of_two().min(u32::from(Slot::MAX_BACKENDS))
}

#[cfg(test)]
mod tests;
