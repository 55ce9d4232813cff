//! Tables that packets write: remembered flows, limited sources.

use std::cell::{Cell, RefCell};

use lb_common::{
    abi::{Bucket, Flow, Note, Reason, WAYS},
    tables::FlowBucket,
};

/// The flow table. A packet remembers flows although it may only read the tables.
#[derive(Clone, Debug)]
pub struct Flows {
    places: Vec<Cell<Flow>>,
    /// How often each note was made, by its counter.
    notes: [Cell<u64>; Reason::COUNT as usize],
    /// If that is of interest: buckets that were looked up, and what stood there before.
    watched: Option<RefCell<Vec<(u32, Bucket)>>>,
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
            watched: None,
        }
    }

    /// Every remembered flow.
    pub fn iter(&self) -> impl Iterator<Item = Flow> {
        self.places.iter().map(Cell::get).filter(|flow| flow.id != 0)
    }

    /// From now on notes which buckets are looked up, until [`Self::forget`] or [`Self::rewind`] begins a new list.
    pub fn watch(&mut self) {
        self.watched = Some(RefCell::default());
    }

    /// The numbers of the buckets that were looked up, each with what it holds now. A bucket may come up twice.
    pub fn looked_up(&self) -> Vec<(u32, Bucket)> {
        let Some(watched) = &self.watched else { return Vec::new() };
        watched.borrow().iter().map(|&(number, _)| (number, Bucket(self.ways(number)))).collect()
    }

    /// Begins a new list of buckets that are looked up.
    pub fn forget(&self) {
        if let Some(watched) = &self.watched {
            watched.borrow_mut().clear();
        }
    }

    /// Puts back what stood in the buckets that were looked up, and begins a new list.
    pub fn rewind(&self) {
        if let Some(watched) = &self.watched {
            // What was there first is put back last.
            watched.borrow_mut().drain(..).rev().for_each(|(number, before)| self.put(number, before));
        }
    }

    /// Writes a whole bucket.
    pub fn put(&self, number: u32, Bucket(flows): Bucket) {
        let start = number as usize * WAYS;
        self.places[start..start + WAYS].iter().zip(flows).for_each(|(place, flow)| place.set(flow));
    }

    /// A bucket as it is.
    pub(super) fn read(&self, bucket: u32) -> Option<Bucket> {
        ((bucket as usize) < self.places.len() / WAYS).then(|| Bucket(self.ways(bucket)))
    }

    fn ways(&self, bucket: u32) -> [Flow; WAYS] {
        std::array::from_fn(|way| self.places[bucket as usize * WAYS + way].get())
    }

    /// The bucket of a hash.
    pub(super) fn bucket(&self, hash: u32) -> Option<MemoryBucket<'_>> {
        let buckets = u32::try_from(self.places.len() / WAYS).ok()?;
        let number = hash & buckets.checked_sub(1)?;
        if let Some(watched) = &self.watched {
            watched.borrow_mut().push((number, Bucket(self.ways(number))));
        }
        let start = number as usize * WAYS;
        self.places.get(start..start + WAYS).map(MemoryBucket)
    }

    /// Counts a note.
    pub(super) fn note(&self, note: Note) {
        let noted = &self.notes[note.counter() as usize];
        noted.set(noted.get() + 1);
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

impl<'t> MemoryBucket<'t> {
    /// The bucket of these places.
    pub fn new(places: &'t [Cell<Flow>; WAYS]) -> Self {
        Self(places)
    }
}

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
