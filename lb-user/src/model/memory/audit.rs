//! What must hold of the tables at any moment, for tests that change them step by step.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    abi::{IndexEntry, Port, PrefixKey, Selector, Service, ServiceKey, Slot, Ticks},
    addr::Addr,
    decide::{Decision, decide},
    packet::{Kind, Packet},
    select::index_positions,
    wire::tcp_flag,
};

use super::{Change, Flows, Memory};

/// Every key that the live copy of the index answers, and its service.
///
/// # Panics
/// If a key cannot be found where it is looked for, or a slot of its service names a backend that is not there, or two
/// services share what is not theirs.
pub(crate) fn audit(memory: &Memory) -> BTreeMap<ServiceKey, Service> {
    let selector = Selector::from_word(memory.config.selector);
    let base = (selector.copy * memory.limits.index) as usize;
    let mut found = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for (position, entry) in (0u32..).zip(&memory.index[base..base + selector.entries() as usize]) {
        if entry.tail == 0 {
            continue;
        }
        let [port, protocol] = [entry.tail as u16, (entry.tail >> 16) as u16];
        let key = ServiceKey {
            vip: entry.vip,
            port,
            protocol: protocol as u8,
            used: (entry.tail >> 24) as u8,
            pad: 0,
        };
        assert!(
            entry.matches(&key) && index_positions(&key, selector).contains(&position),
            "{key:?} is lost"
        );
        if key.used == SERVER {
            continue;
        }
        let service = memory.services[entry.service as usize];
        assert_ne!(service.slot_count, 0, "{key:?} leads to service {}, which is not there", entry.service);
        assert_eq!(found.insert(key, service), None, "{key:?} stands in the index twice");
        numbers.insert(entry.service);
    }
    let services: Vec<Service> = numbers.iter().map(|&number| memory.services[number as usize]).collect();
    for (place, service) in services.iter().enumerate() {
        assert_slots(memory, service);
        for other in &services[..place] {
            assert_apart(service, other);
        }
    }
    found
}

/// [`ServiceKey::used`] of the keys that lead to a backend.
const SERVER: u8 = ServiceKey::server(0, 0).used;

fn leads_to_service(entry: &IndexEntry) -> bool {
    entry.tail != 0 && (entry.tail >> 24) as u8 != SERVER
}

/// The slots of a service.
pub(crate) fn slots<'m>(memory: &'m Memory, service: &Service) -> &'m [Slot] {
    &memory.slots[service.slot_base as usize..(service.slot_base + service.slot_count) as usize]
}

/// The previous owner of a slot in transition, if the decision would send packets there.
pub(crate) fn previous_in_use(memory: &Memory, service: &Service, place: u32) -> Option<u16> {
    if !memory.slots[place as usize].in_transition() {
        return None;
    }
    let number = memory.previous[place as usize].owner()?;
    let backend = memory.backends.get((service.backend_base + u32::from(number)) as usize)?;
    backend.standing().takes(false).then_some(number)
}

/// Whether a slot in transition that packets can reach has the backend of this index as its previous owner.
fn is_previous(memory: &Memory, index: u32) -> bool {
    audit(memory).values().any(|service| {
        (service.slot_base..service.slot_base + service.slot_count).any(|place| {
            let previous = memory.previous[place as usize].owner();
            memory.slots[place as usize].in_transition()
                && previous.is_some_and(|number| service.backend_base + u32::from(number) == index)
        })
    })
}

/// Asserts that whoever gets packets by a slot is there: its owner, and its previous owner if that takes any.
fn assert_slots(memory: &Memory, service: &Service) {
    for place in service.slot_base..service.slot_base + service.slot_count {
        let slot = memory.slots[place as usize];
        assert_present(memory, service, slot);
        if let Some(number) = previous_in_use(memory, service, place) {
            assert_present(memory, service, Slot::of(number));
        }
    }
}

fn assert_present(memory: &Memory, service: &Service, slot: Slot) {
    let Some(number) = slot.owner() else { return };
    assert!(u32::from(number) < service.backend_count, "{slot:?} is not within {service:?}");
    let backend = memory.backends[service.backend_base as usize + usize::from(number)];
    assert!(backend.standing().encap().is_some(), "{slot:?} of {service:?} names an absent backend");
    assert_ne!(
        memory.ports[usize::from(backend.hop().port())],
        Port::default(),
        "{slot:?} of {service:?} leaves by no port"
    );
}

/// Two services share a pool as a whole, or nothing; and never a counter.
fn assert_apart(a: &Service, b: &Service) {
    let apart = |(a, a_length): (u32, u32), (b, b_length): (u32, u32)| a + a_length <= b || b + b_length <= a;
    // A pool that has just grown: one of them knows and the other does not.
    let pool = |service: &Service| (service.slot_base, service.slot_count, service.backend_base);
    assert!(
        pool(a) == pool(b)
            || apart((a.slot_base, a.slot_count), (b.slot_base, b.slot_count))
                && apart((a.backend_base, a.backend_count), (b.backend_base, b.backend_count)),
        "{a:?} and {b:?} overlap"
    );
    assert!(apart((a.counter_base, a.backend_count), (b.counter_base, b.backend_count)), "{a:?}, {b:?}");
}

/// Whether two tables are the same, whatever flows packets left in them.
pub(crate) fn same_tables(a: &Memory, b: &Memory) -> bool {
    let without =
        |memory: &Memory| Memory { flows: Flows::new(0), limiters: Flows::new(0), ..memory.clone() };
    without(a) == without(b)
}

/// To which MAC new flows of a few clients go, or none, for a (VIP, protocol, port). They leave no trace.
pub(crate) fn destinations(memory: &Memory, key: &ServiceKey) -> Vec<Option<[u8; 6]>> {
    let packet = |source_port| Packet {
        source: Addr::v4([198, 51, 100, 7]),
        destination: key.vip,
        source_port,
        destination_port: key.port,
        protocol: key.protocol,
        tcp_flags: tcp_flag::SYN,
        traffic_class: 0,
        ttl: 64,
        length: 100,
        offset: 14,
        is_v4: key.vip.is_v4(),
        kind: Kind::Whole,
        quic_head: 0,
        quic_id: 0,
        fragment: 0,
    };
    let memory = &memory.clone();
    (1024..1024 + 64)
        .map(|port| match decide(memory, &packet(port), Ticks::default).decision {
            Decision::Forward(forward) => Some(forward.hop.destination()),
            Decision::Echo | Decision::TooBig { .. } | Decision::Pass(_) | Decision::Drop(_) => None,
        })
        .collect()
}

/// Everything that a packet may be reading that began at any moment since the last [`Change::Settle`].
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    copies: BTreeSet<u32>,
    services: BTreeSet<u32>,
    records: Vec<Service>,
    backends: BTreeSet<u32>,
    ports: BTreeSet<u32>,
    /// Who had each number last, whenever that was.
    epochs: BTreeMap<u32, u8>,
}

impl InFlight {
    /// Carries out a change.
    ///
    /// # Panics
    /// If it writes anew what a packet may be reading.
    pub(crate) fn apply(&mut self, memory: &mut Memory, change: &Change) {
        match change {
            Change::Port { number, .. } => assert!(!self.ports.contains(number), "{change:?}"),
            Change::Backend { index, backend } => {
                assert!(!self.backends.contains(index), "{change:?}");
                assert!(!backend.standing().takes(false), "{change:?} takes packets while it is written");
                let epoch = backend.standing().epoch();
                let is_new = backend.standing != 0 && self.epochs.insert(*index, epoch) != Some(epoch);
                assert!(!is_new || !is_previous(memory, *index), "{change:?}: a slot still means another");
            }
            Change::Service { number, .. } => assert!(!self.services.contains(number), "{change:?}"),
            Change::Index { copy, .. } => assert!(!self.copies.contains(copy), "{change:?}"),
            Change::Settle => *self = Self { epochs: std::mem::take(&mut self.epochs), ..Self::default() },
            Change::Prefixes { set, remove } => {
                let written = set.iter().map(|(key, _)| key).chain(remove);
                for PrefixKey { list, .. } in written {
                    // Whose tunnels they are may change at any time; what a packet is looking through may not.
                    let in_use = self.copies.contains(list)
                        || self.records.iter().any(|service| service.acl != 0 && service.acl == *list);
                    assert!(!in_use, "{change:?}");
                }
            }
            Change::Features(_)
            | Change::Capture(_)
            | Change::Hop { .. }
            | Change::Standing { .. }
            | Change::Slots(_)
            | Change::Config(_) => {}
            Change::Previous(slots) => {
                // A packet in transition may be about to look: it may find nobody, but not somebody else.
                for (place, next) in slots {
                    let moving = memory.slots[*place as usize].in_transition();
                    assert!(!moving || next.owner().is_none(), "{change:?} while {place} is in transition");
                }
            }
        }
        memory.apply(change);
        self.see(memory);
        // Slots may change at any time, but must lead to backends whatever service a packet came by.
        for service in &self.records {
            assert_slots(memory, service);
            let needs = service.needs();
            assert!(memory.features.has(needs), "{service:?} needs {needs:?}, not {:?}", memory.features);
        }
    }

    /// Adds what packets can reach from now on.
    fn see(&mut self, memory: &Memory) {
        let selector = Selector::from_word(memory.config.selector);
        let base = (selector.copy * memory.limits.index) as usize;
        self.copies.insert(selector.copy);
        for entry in memory.index[base..base + selector.entries() as usize]
            .iter()
            .filter(|entry| leads_to_service(entry))
        {
            let service = &memory.services[entry.service as usize];
            if self.services.insert(entry.service) {
                self.records.push(*service);
            }
            let owners = slots(memory, service).iter().filter_map(|slot| slot.owner());
            let places = service.slot_base..service.slot_base + service.slot_count;
            let previous = places.filter_map(|place| previous_in_use(memory, service, place));
            // Any backend may have remembered flows.
            let remembered = (service.backend_base..service.backend_base + service.backend_count)
                .filter(|&index| memory.backends[index as usize].standing().takes(false));
            let named = owners.chain(previous).map(|number| service.backend_base + u32::from(number));
            for index in named.chain(remembered) {
                self.backends.insert(index);
                self.ports.insert(u32::from(memory.backends[index as usize].hop().port()));
            }
        }
    }
}
