//! The tables in ordinary memory: what the daemon believes to be installed, and what the simulator runs on.

use std::{cell::Cell, collections::BTreeMap};

use lb_common::{
    abi::{
        Backend, Config, Features, Flow, IndexEntry, Limits, MAX_PORTS, Note, Port, PrefixKey, Reason,
        Service, Slot, WAYS, Window,
    },
    addr::Addr,
    tables::{FlowBucket, Tables},
};

use super::plan::Change;

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
    /// Sources with a limit. They are the packets' doing, like flows.
    pub limiters: Flows,
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
            limiters: Flows::new(limits.limiters),
        }
    }

    /// Carries out one change.
    ///
    /// # Panics
    /// If the change is outside the tables: plans are made for these limits.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Features(features) => self.features = *features,
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

/// The flow table. A packet remembers flows although it may only read the tables.
#[derive(Clone, Debug)]
pub struct Flows {
    places: Vec<Cell<Flow>>,
    /// How often each note was made, by its counter.
    notes: [Cell<u64>; Reason::COUNT as usize],
}

impl Flows {
    /// An empty table.
    pub fn new(buckets: u32) -> Self {
        Self::of(vec![Flow::default(); buckets as usize * WAYS])
    }

    /// A table read from elsewhere, place by place.
    pub fn of(flows: impl IntoIterator<Item = Flow>) -> Self {
        Self {
            places: flows.into_iter().map(Cell::new).collect(),
            notes: [const { Cell::new(0) }; Reason::COUNT as usize],
        }
    }

    /// Every remembered flow.
    pub fn iter(&self) -> impl Iterator<Item = Flow> {
        self.places.iter().map(Cell::get).filter(|flow| flow.id != 0)
    }

    /// The bucket of a hash.
    fn bucket(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        let buckets = self.places.len() / WAYS;
        let start = (hash as usize & buckets.checked_sub(1)?) * WAYS;
        self.places.get(start..start + WAYS).map(MemoryBucket)
    }

    /// How often a note was made.
    pub fn noted(&self, note: Note) -> u64 {
        self.notes[note.counter() as usize].get()
    }
}

impl PartialEq for Flows {
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places
    }
}

impl Eq for Flows {}

/// A bucket of [`Flows`].
#[derive(Debug)]
pub struct MemoryBucket<'t>(&'t [Cell<Flow>]);

impl FlowBucket for MemoryBucket<'_> {
    fn load(&self, way: usize) -> Flow {
        self.0[way].get()
    }

    fn replace(&self, way: usize, flow: Flow) {
        self.0[way].set(flow);
    }

    fn update(&self, way: usize, flow: Flow) {
        self.0[way].set(flow);
    }
}

impl Tables for Memory {
    type Bucket<'t> = MemoryBucket<'t>;

    fn previous(&self, place: u32) -> Option<Slot> {
        self.previous.get(place as usize).copied()
    }

    fn bucket(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        self.flows.bucket(hash)
    }

    fn limiter(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        self.limiters.bucket(hash)
    }

    fn prefix(&self, list: u32, address: Addr) -> Option<u32> {
        (0..=128).rev().find_map(|bits| self.prefixes.get(&PrefixKey::new(list, address, bits)).copied())
    }

    fn may(&self, _: Window) -> bool {
        // The limit is on packets per moment; here there are no moments.
        true
    }

    fn features(&self) -> Features {
        self.features
    }

    fn gue_port(&self) -> u16 {
        self.config.gue_port as u16
    }

    fn note(&self, note: Note) {
        let noted = &self.flows.notes[note.counter() as usize];
        noted.set(noted.get() + 1);
    }

    fn config(&self) -> Config {
        self.config
    }

    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry> {
        self.index.get((copy * self.limits.index).checked_add(position)? as usize)
    }

    fn service(&self, number: u32) -> Option<&Service> {
        self.services.get(number as usize)
    }

    fn slot(&self, place: u32) -> Option<Slot> {
        self.slots.get(place as usize).copied()
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }
}

#[cfg(test)]
pub(crate) mod audit;
