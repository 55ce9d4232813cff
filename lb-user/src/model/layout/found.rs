//! The layout of tables that were found: what stands where, from the tables themselves.
//!
//! Names do not stand in the tables. What is wanted now tells them: a service is the one that its keys lead to, a pool
//! the one of its services. What nothing wanted claims is retired: packets may be reading it until the first plan has
//! been carried out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use lb_common::abi::{Backend, Counter, PrefixKey, Selector, Service, ServiceKey};

use super::{Identity, Layout, PoolPlace, Runs, ServicePlace};
use crate::model::{
    memory::Memory,
    plan::{ServiceTarget, Target},
    traffic::Counters,
};

/// Tables that contradict themselves: no `lb` wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incoherent {
    /// A service names places outside the tables.
    #[error("service {number} names {what} outside the table")]
    Outside {
        /// The service's number.
        number: u32,
        /// What, in the plural.
        what: &'static str,
    },
    /// Two owners have the same place.
    #[error("two owners share {what} from number {start} on")]
    Shared {
        /// What, in the plural.
        what: &'static str,
        /// Where.
        start: u32,
    },
    /// The index leads nowhere.
    #[error("the index names service {number}, which is not there")]
    NoService {
        /// The service's number.
        number: u32,
    },
}

/// Where a pool that was found stands.
struct FoundPool {
    slots: u32,
    backend_base: u32,
    capacity: u32,
}

impl Identity {
    /// Whom a record is of; `None` if of nobody.
    fn of_record(backend: &Backend) -> Option<Self> {
        let standing = backend.standing();
        Some(Self {
            address: IpAddr::from(backend.address),
            encap: standing.encap()?,
            outer_source: backend.outer_source,
            spread_bits: u8::try_from(standing.spread_bits()).ok()?,
            gue_port: u16::try_from(backend.gue_port).ok()?,
        })
    }
}

impl Layout {
    /// The layout of tables that an earlier daemon left, by the names of what is wanted now. `counters` are the
    /// forwarding counters, all of them.
    ///
    /// # Errors
    /// [`Incoherent`]: these tables cannot be gone on with.
    pub fn found(memory: &Memory, target: &Target, counters: &Counters) -> Result<Self, Incoherent> {
        let mut layout = Self::new(&memory.limits);
        layout.epochs = epochs(memory);
        let used = |counter: &Counter| counter.packets > 0;
        layout.counters.peak =
            counters.forwarded.iter().rposition(used).map_or(0, |last| u32::try_from(last + 1).unwrap_or(0));
        layout.claim_ports(memory)?;
        layout.claim_lists(memory)?;
        let pools = layout.claim_services(memory)?;
        let named = name_services(memory, target)?;
        for (service, &number) in target.services.iter().zip(&named) {
            let Some(number) = number else { continue };
            let record = memory.services[number as usize];
            if let Some(found) = pools.get(&record.slot_base) {
                layout.name_pool(memory, service, &record, found);
            }
            layout.name_list(memory, target, service, &record);
            layout.service_numbers.keep(number);
            layout.counters.keep(record.counter_base);
            let place =
                ServicePlace { number, pool: service.pool.clone(), record, keys: service.keys.clone() };
            layout.services.insert(service.name.clone(), place);
        }
        Ok(layout)
    }

    fn claim_ports(&mut self, memory: &Memory) -> Result<(), Incoherent> {
        for (number, &port) in (0u32..).zip(&memory.ports) {
            if port.ifindex != 0 {
                claim(&mut self.port_numbers, number, 1)?;
                // A plan that stopped half-way may have left an interface under two numbers: one is given up.
                if let Entry::Vacant(place) = self.ports.entry(port) {
                    place.insert(number);
                    self.port_numbers.keep(number);
                }
            }
        }
        Ok(())
    }

    fn claim_lists(&mut self, memory: &Memory) -> Result<(), Incoherent> {
        let named = memory.services.iter().map(|service| service.acl);
        let lists: BTreeSet<u32> = memory.prefixes.keys().map(|key| key.list).chain(named).collect();
        for list in lists {
            if let Some(number) = list.checked_sub(PrefixKey::FIRST_ACL) {
                claim(&mut self.list_numbers, number, 1)?;
            }
        }
        Ok(())
    }

    /// Claims what every service has; gives the pools by their first slot.
    fn claim_services(&mut self, memory: &Memory) -> Result<BTreeMap<u32, FoundPool>, Incoherent> {
        let mut pools: BTreeMap<u32, FoundPool> = BTreeMap::new();
        for (number, service) in (0u32..).zip(&memory.services) {
            if service.slot_count == 0 {
                continue;
            }
            let outside = |what| Incoherent::Outside { number, what };
            claim(&mut self.service_numbers, number, 1)?;
            let length = service.backend_count.checked_add(Service::REASONS).ok_or(outside("counters"))?;
            claim(&mut self.counters, service.counter_base, length)?;
            let found = pools.entry(service.slot_base).or_insert(FoundPool {
                slots: service.slot_count,
                backend_base: service.backend_base,
                capacity: service.backend_count,
            });
            if (found.slots, found.backend_base) != (service.slot_count, service.backend_base) {
                return Err(Incoherent::Shared { what: "slots", start: service.slot_base });
            }
            // A pool that has just grown: not every service knows.
            found.capacity = found.capacity.max(service.backend_count);
        }
        for (&slot_base, found) in &pools {
            claim(&mut self.slots, slot_base, found.slots)?;
            claim(&mut self.backends, found.backend_base, found.capacity)?;
        }
        // What no service leads to, a plan that stopped half-way has left: nobody gets its place before it is cleared.
        for (index, backend) in (0u32..).zip(&memory.backends) {
            if backend.standing != 0 {
                // Not if it is a pool's.
                self.backends.claim(index, 1).ok();
            }
        }
        Ok(pools)
    }

    /// A service's pool is the one of that name, unless another service's was that first.
    fn name_pool(&mut self, memory: &Memory, service: &ServiceTarget, record: &Service, found: &FoundPool) {
        let is_taken = self.pools.values().any(|place| place.slot_base == record.slot_base);
        if is_taken || self.pools.contains_key(&service.pool) {
            return;
        }
        self.slots.keep(record.slot_base);
        self.backends.keep(found.backend_base);
        let mut place = PoolPlace {
            slot_base: record.slot_base,
            slots: found.slots,
            backend_base: found.backend_base,
            capacity: found.capacity,
            numbers: BTreeMap::new(),
            is_fresh: false,
            free: VecDeque::new(),
            retired: Vec::new(),
        };
        let end = u16::try_from(found.capacity).unwrap_or(u16::MAX);
        let record_of = |number: u16| memory.backends[found.backend_base as usize + usize::from(number)];
        // Those that serve first: one that moved to another number may still stand at its old one.
        let mut numbers: Vec<u16> = (0..end).collect();
        numbers.sort_by_key(|&number| !record_of(number).standing().takes(false));
        for number in numbers {
            let record = record_of(number);
            match Identity::of_record(&record) {
                Some(identity) if !place.numbers.contains_key(&identity) => {
                    place.numbers.insert(identity, number);
                }
                None if record.standing == 0 => place.free.push_back(number),
                _ => place.retired.push(number),
            }
        }
        self.pools.insert(service.pool.clone(), place);
    }

    /// A service's list is the one of that name, if it says the same.
    fn name_list(&mut self, memory: &Memory, target: &Target, service: &ServiceTarget, record: &Service) {
        let Some(name) = &service.list else { return };
        let Some(wanted) = target.lists.iter().find(|list| list.name == *name) else { return };
        let is_taken =
            self.lists.contains_key(name) || self.lists.values().any(|(number, _)| *number == record.acl);
        let Some(number) = record.acl.checked_sub(PrefixKey::FIRST_ACL).filter(|_| !is_taken) else { return };
        let found: BTreeMap<PrefixKey, u32> = memory.list(record.acl).collect();
        let same = wanted.keys(record.acl).collect::<BTreeMap<_, _>>() == found;
        if same {
            self.list_numbers.keep(number);
            self.lists.insert(name.clone(), (record.acl, Arc::clone(wanted)));
        }
    }
}

/// Claims a run for somebody who is not named yet.
fn claim(runs: &mut Runs, start: u32, length: u32) -> Result<(), Incoherent> {
    let what = runs.what;
    runs.claim(start, length).map_err(|()| Incoherent::Shared { what, start })
}

/// By wanted service: the number of the one that its keys lead to, each for one of them.
fn name_services(memory: &Memory, target: &Target) -> Result<Vec<Option<u32>>, Incoherent> {
    let Selector { copy, .. } = Selector::from_word(memory.config.selector);
    let prefixes: BTreeMap<PrefixKey, u32> = memory.list(copy).collect();
    let mut leads = BTreeMap::new();
    for entry in memory.live_index() {
        let key = ServiceKey::from_parts(entry.vip, entry.tail);
        if key.used == ServiceKey::server(0, 0).used {
            continue;
        }
        let is_there = memory.services.get(entry.service as usize).is_some_and(|found| found.slot_count > 0);
        if !is_there {
            return Err(Incoherent::NoService { number: entry.service });
        }
        leads.insert(key, entry.service);
    }
    // Prefixes have the numbers of their places among those wanted: then others, now these.
    let as_it_was = |key: &ServiceKey| {
        let Some(number) = key.prefix_number() else { return Some(*key) };
        let &(address, bits) = target.prefixes.get(number as usize)?;
        let old = prefixes.get(&PrefixKey::new(copy, address, bits))?;
        Some(ServiceKey::of_prefix(*old, key.protocol, key.port))
    };
    let mut taken = BTreeSet::new();
    let number_of = |service: &ServiceTarget| {
        // The key of the VIP itself finds any of the VIP's services.
        let mut keys = service.keys.iter().filter(|key| key.protocol != 0);
        keys.find_map(|key| leads.get(&as_it_was(key)?).copied().filter(|number| taken.insert(*number)))
    };
    Ok(target.services.iter().map(number_of).collect())
}

/// By place in the table of backends: the epoch of who is there; where nobody is, one whose successor no remembered flow
/// has.
fn epochs(memory: &Memory) -> Vec<u8> {
    let mut remembered: BTreeMap<u32, [bool; 256]> = BTreeMap::new();
    for flow in memory.flows.iter() {
        remembered.entry(flow.backend()).or_insert([false; 256])[usize::from(flow.epoch())] = true;
    }
    let epoch = |(index, backend): (u32, &Backend)| {
        if backend.standing != 0 {
            return backend.standing().epoch();
        }
        let seen = remembered.get(&index);
        (0..=u8::MAX)
            .find(|epoch| seen.is_none_or(|seen| !seen[usize::from(epoch.wrapping_add(1))]))
            .unwrap_or(0)
    };
    (0..).zip(&memory.backends).map(epoch).collect()
}
