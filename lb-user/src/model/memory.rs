//! The tables in ordinary memory: what the daemon believes to be installed, and what the simulator runs on.

use std::{cell::Cell, collections::BTreeMap};

use lb_common::{
    abi::{
        Backend, CaptureFilter, Config, Features, IndexEntry, Limits, MAX_PORTS, Note, Port, PrefixKey,
        Selector, Service, Slot, Window,
    },
    addr::Addr,
    tables::Tables,
};

pub use self::flows::{Flows, MemoryBucket};
use super::{
    layout::Full,
    plan::{Change, Entries, Target},
};

mod flows;
mod view;

/// A copy of every table. Applying the same changes to it and to the kernel keeps the two equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Sizes of the tables.
    pub limits: Limits,
    /// What the program was loaded for.
    pub features: Features,
    /// See [`Tables::config`].
    pub config: Config,
    /// Both copies of the service index, one after the other.
    pub index: Vec<IndexEntry>,
    /// By service number.
    pub services: Vec<Service>,
    /// All pools' slots.
    pub slots: Vec<Slot>,
    /// Previous owners of slots in transition, each at its slot's place.
    pub previous: Vec<Slot>,
    /// Remembered flows. They are the packets' doing, not the plans'.
    pub flows: Flows,
    /// By backend index.
    pub backends: Vec<Backend>,
    /// By port number.
    pub ports: Vec<Port>,
    /// Lists of prefixes.
    pub prefixes: BTreeMap<PrefixKey, u32>,
    /// Which packets are captured by a program that can.
    pub capture: CaptureFilter,
    /// Sources with a limit. They are the packets' doing, like flows.
    pub limiters: Flows,
    /// How often each [`Window`]'s may still be done. Here there are no moments: who wants a limit sets it anew at each.
    pub allowances: [Cell<u32>; Window::COUNT as usize],
}

impl Memory {
    /// Tables as they are when made: zero bytes, which mean no service and empty slots.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            features: Features::NONE,
            config: Config::default(),
            index: vec![IndexEntry::default(); 2 * limits.index as usize],
            services: vec![Service::default(); limits.services as usize],
            slots: vec![Slot::EMPTY; limits.slots as usize],
            previous: vec![Slot::EMPTY; limits.slots as usize],
            flows: Flows::new(limits.flow_buckets),
            backends: vec![Backend::default(); limits.backends as usize],
            ports: vec![Port::default(); MAX_PORTS as usize],
            prefixes: BTreeMap::new(),
            capture: CaptureFilter::default(),
            limiters: Flows::new(limits.limiters),
            allowances: Self::unlimited(),
        }
    }

    /// The copy of the index that packets are looked up in.
    pub fn live_index(&self) -> impl Iterator<Item = &IndexEntry> {
        let selector = Selector::from_word(self.config.selector);
        let capacity = self.limits.index as usize;
        let length = capacity.min(selector.entries() as usize);
        self.index.iter().skip(selector.copy as usize * capacity).take(length).filter(|entry| entry.tail != 0)
    }

    /// What the table of prefixes has of one list.
    pub fn list(&self, list: u32) -> impl Iterator<Item = (PrefixKey, u32)> {
        // Keys are ordered by their bits first.
        self.prefixes.iter().filter(move |(key, _)| key.list == list).map(|(key, value)| (*key, *value))
    }

    /// Everything may be done at any rate.
    pub const fn unlimited() -> [Cell<u32>; Window::COUNT as usize] {
        [const { Cell::new(u32::MAX) }; Window::COUNT as usize]
    }

    /// Whether there is room for a target's prefixes beside those that are there: a list that changed replaces the old
    /// one only when it stands whole.
    ///
    /// # Errors
    /// [`Full`]
    pub fn room_for_prefixes(&self, target: &Target) -> Result<(), Full> {
        let needed =
            target.lists.iter().map(|list| list.entries.len()).sum::<usize>() + target.prefixes.len();
        let capacity = self.limits.prefixes;
        if needed + self.prefixes.len() <= capacity as usize {
            return Ok(());
        }
        Err(Full { what: "prefixes", needed: u32::try_from(needed).unwrap_or(u32::MAX), capacity })
    }

    /// Carries out one change.
    ///
    /// # Panics
    /// If the change is outside the tables: plans are made for these limits.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Features(features) => {
                self.features = *features;
                self.config.features = *features;
            }
            Change::Capture(filter) => self.capture = **filter,
            Change::Port { number, port } => self.ports[*number as usize] = *port,
            Change::Backend { index, backend } => self.backends[*index as usize] = **backend,
            Change::Hop { index, hop } => self.backends[*index as usize].hop = hop.to_words(),
            Change::Standing { index, standing } => {
                self.backends[*index as usize].standing = standing.to_word();
            }
            Change::Previous(slots) => {
                for &(place, slot) in slots {
                    self.previous[place as usize] = slot;
                }
            }
            Change::Slots(slots) => {
                for &(place, slot) in slots {
                    self.slots[place as usize] = slot;
                }
            }
            Change::Service { number, service } => self.services[*number as usize] = *service,
            Change::Index { copy, entries } => {
                let base = copy * self.limits.index;
                for &(position, entry) in entries {
                    self.index[(base + position) as usize] = entry;
                }
            }
            Change::Prefixes { set, remove } => {
                self.prefixes.extend(set.iter().copied());
                for key in remove {
                    self.prefixes.remove(key);
                }
            }
            Change::Config(config) => self.config = *config,
            Change::Settle => {}
        }
    }
}

impl Entries for Memory {
    fn config(&self) -> Config {
        self.config
    }

    fn capture(&self) -> CaptureFilter {
        self.capture
    }

    fn port(&self, number: u32) -> Port {
        self.ports[number as usize]
    }

    fn backend(&self, index: u32) -> Backend {
        self.backends[index as usize]
    }

    fn service(&self, number: u32) -> Service {
        self.services[number as usize]
    }

    fn index_entry(&self, copy: u32, position: u32) -> IndexEntry {
        self.index[(copy * self.limits.index + position) as usize]
    }

    fn slot(&self, place: u32) -> Slot {
        self.slots[place as usize]
    }

    fn previous(&self, place: u32) -> Slot {
        self.previous[place as usize]
    }

    fn prefix_value(&self, key: &PrefixKey) -> Option<u32> {
        self.prefixes.get(key).copied()
    }
}

impl Tables for Memory {
    type Bucket<'t> = MemoryBucket<'t>;

    fn previous(&self, place: u32) -> Option<Slot> {
        at(&self.previous, place).copied()
    }

    fn bucket(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        self.flows.bucket(hash)
    }

    fn limiter(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        self.limiters.bucket(hash)
    }

    fn prefix(&self, list: u32, address: Addr) -> Option<u32> {
        // Keys are ordered by length, then by list and address: what comes before the one that would match tells the
        // greatest length that is left.
        let mut bits = 128;
        loop {
            let wanted = PrefixKey::new(list, address, bits);
            let (found, value) = self.prefixes.range(..=wanted).next_back()?;
            if *found == wanted {
                return Some(*value);
            }
            bits = found.length().min(bits.checked_sub(1)?);
        }
    }

    fn may(&self, what: Window) -> bool {
        let left = &self.allowances[what as usize];
        let may = left.get() > 0;
        if may && left.get() < u32::MAX {
            left.set(left.get() - 1);
        }
        may
    }

    fn features(&self) -> Features {
        self.features
    }

    fn gue_port(&self) -> u16 {
        self.config.gue_port as u16
    }

    fn note(&self, note: Note) {
        self.flows.note(note);
    }

    fn config(&self) -> Config {
        self.config
    }

    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry> {
        at(&self.index, (copy * self.limits.index).wrapping_add(position))
    }

    fn service(&self, number: u32) -> Option<&Service> {
        at(&self.services, number)
    }

    fn slot(&self, place: u32) -> Option<Slot> {
        at(&self.slots, place).copied()
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        at(&self.backends, index)
    }
}

/// The element of a number, by its low bits, as the kernel program has it: tables have powers of two of them.
fn at<T>(table: &[T], number: u32) -> Option<&T> {
    table.get(number as usize & table.len().next_power_of_two().wrapping_sub(1))
}

#[cfg(test)]
pub(crate) mod audit;
#[cfg(test)]
mod tests;
