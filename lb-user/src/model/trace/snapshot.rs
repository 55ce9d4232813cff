//! The tables as one packet would meet them: read where and when the decision looks, each element once. What a packet
//! writes goes into the copy and is lost with it.

use std::cell::{Cell, OnceCell, RefCell};

use lb_common::{
    abi::{
        Backend, Bucket, Config, Features, Flow, IndexEntry, Limits, Note, Port, Service, Slot, WAYS, Window,
    },
    addr::Addr,
    tables::Tables,
};

use crate::model::memory::MemoryBucket;

/// Tables that are read one element at a time: the kernel's, or those in memory.
pub trait View {
    /// Their sizes.
    fn limits(&self) -> Limits;
    /// What the program was loaded for.
    fn features(&self) -> Features;
    /// See [`Tables::config`].
    fn config(&self) -> Config;
    /// An entry of a copy of the index.
    fn index_entry(&self, copy: u32, position: u32) -> Option<IndexEntry>;
    /// The service of that number.
    fn service(&self, number: u32) -> Option<Service>;
    /// One slot of all pools' slots.
    fn slot(&self, place: u32) -> Option<Slot>;
    /// Who owned a slot in transition before.
    fn previous(&self, place: u32) -> Option<Slot>;
    /// The backend of that index.
    fn backend(&self, index: u32) -> Option<Backend>;
    /// A bucket of the flow table.
    fn flows(&self, bucket: u32) -> Option<Bucket>;
    /// A bucket of limited sources.
    fn limiters(&self, bucket: u32) -> Option<Bucket>;
    /// See [`Tables::prefix`].
    fn prefix(&self, list: u32, address: Addr) -> Option<u32>;
    /// A port that packets leave by.
    fn port(&self, number: u16) -> Port;
}

/// A copy of what was read so far.
pub struct Snapshot<'s> {
    view: &'s dyn View,
    limits: Limits,
    features: Features,
    config: Config,
    index: Kept<(u32, u32), IndexEntry>,
    services: Kept<u32, Service>,
    slots: Kept<u32, Slot>,
    previous: Kept<u32, Slot>,
    backends: Kept<u32, Backend>,
    flows: Kept<u32, Written>,
    limiters: Kept<u32, Written>,
    prefixes: Kept<(u32, Addr), u32>,
    notes: RefCell<Vec<Note>>,
}

/// A bucket as it was, and as the packet left it.
struct Written {
    before: Bucket,
    after: [Cell<Flow>; WAYS],
}

impl Written {
    fn new(before: Bucket) -> Self {
        Self { before, after: before.0.map(Cell::new) }
    }

    fn changes(&self) -> impl Iterator<Item = Flow> {
        let pairs = self.before.0.iter().zip(&self.after);
        pairs.filter(|(before, after)| **before != after.get()).map(|(_, after)| after.get())
    }
}

impl<'s> Snapshot<'s> {
    /// A snapshot of which nothing was looked at yet.
    pub fn new(view: &'s dyn View) -> Self {
        Self {
            view,
            limits: view.limits(),
            features: view.features(),
            config: view.config(),
            index: Kept::default(),
            services: Kept::default(),
            slots: Kept::default(),
            previous: Kept::default(),
            backends: Kept::default(),
            flows: Kept::default(),
            limiters: Kept::default(),
            prefixes: Kept::default(),
            notes: RefCell::default(),
        }
    }

    /// A port that packets leave by.
    pub fn port(&self, number: u16) -> Port {
        self.view.port(number)
    }

    /// Flows that were remembered, or remembered differently.
    pub fn remembered(&self) -> Vec<Flow> {
        self.flows.iter().flat_map(Written::changes).collect()
    }

    /// What happened beside the verdict.
    pub fn notes(&self) -> Vec<Note> {
        self.notes.borrow().clone()
    }
}

impl Tables for Snapshot<'_> {
    type Bucket<'t>
        = MemoryBucket<'t>
    where
        Self: 't;

    fn config(&self) -> Config {
        self.config
    }

    fn features(&self) -> Features {
        self.features
    }

    fn gue_port(&self) -> u16 {
        self.config.gue_port as u16
    }

    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry> {
        self.index.get((copy, position), || self.view.index_entry(copy, position))
    }

    fn service(&self, number: u32) -> Option<&Service> {
        self.services.get(number, || self.view.service(number))
    }

    fn slot(&self, place: u32) -> Option<Slot> {
        self.slots.get(place, || self.view.slot(place)).copied()
    }

    fn previous(&self, place: u32) -> Option<Slot> {
        self.previous.get(place, || self.view.previous(place)).copied()
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index, || self.view.backend(index))
    }

    fn bucket(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        let bucket = hash & self.limits.flow_buckets.checked_sub(1)?;
        let kept = self.flows.get(bucket, || self.view.flows(bucket).map(Written::new))?;
        Some(MemoryBucket::new(&kept.after))
    }

    fn limiter(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        let bucket = hash & self.limits.limiters.checked_sub(1)?;
        let kept = self.limiters.get(bucket, || self.view.limiters(bucket).map(Written::new))?;
        Some(MemoryBucket::new(&kept.after))
    }

    fn prefix(&self, list: u32, address: Addr) -> Option<u32> {
        self.prefixes.get((list, address), || self.view.prefix(list, address)).copied()
    }

    fn may(&self, _: Window) -> bool {
        // What a CPU may not do at any rate it did long ago.
        true
    }

    fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }
}

/// What was read, by key. It only grows, so what is in it can be lent out while it does.
struct Kept<K, V>(OnceCell<Box<Node<K, V>>>);

struct Node<K, V> {
    key: K,
    value: Option<V>,
    next: Kept<K, V>,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}

impl<K: PartialEq, V> Kept<K, V> {
    /// What is kept for a key, or else is read now.
    fn get(&self, key: K, read: impl FnOnce() -> Option<V>) -> Option<&V> {
        let mut place = &self.0;
        while let Some(node) = place.get() {
            if node.key == key {
                return node.value.as_ref();
            }
            place = &node.next.0;
        }
        let value = read();
        place.get_or_init(|| Box::new(Node { key, value, next: Self::default() })).value.as_ref()
    }

    fn iter(&self) -> impl Iterator<Item = &V> {
        let first = self.0.get();
        std::iter::successors(first, |node| node.next.0.get()).filter_map(|node| node.value.as_ref())
    }
}
