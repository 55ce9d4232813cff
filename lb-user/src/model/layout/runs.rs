//! Runs of elements in one table, and whose they are to give and to take back.

use std::collections::{BTreeMap, BTreeSet};

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

/// Who owns which part of one table: runs of elements.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    pub(super) what: &'static str,
    capacity: u32,
    /// Start and length of every run that is taken or retired.
    taken: BTreeMap<u32, u32>,
    /// Everything below this is taken or retired.
    full_below: u32,
    /// One above the highest element that was ever taken.
    pub(super) peak: u32,
    /// Starts of runs given up since the last plan was carried out.
    retired: BTreeSet<u32>,
}

impl Runs {
    /// An empty table of this size.
    pub(super) fn new(what: &'static str, capacity: u32) -> Self {
        Self { what, capacity, taken: BTreeMap::new(), full_below: 0, peak: 0, retired: BTreeSet::new() }
    }

    /// The first run of this length that is free.
    pub(super) fn take(&mut self, length: u32) -> Result<u32, Full> {
        let mut start = self.full_below;
        for (&next, &taken) in self.taken.range(start..) {
            if next - start >= length {
                break;
            }
            start = next + taken;
        }
        if self.capacity.checked_sub(start).is_none_or(|room| room < length) {
            return Err(Full { what: self.what, needed: length, capacity: self.capacity });
        }
        self.insert(start, length);
        Ok(start)
    }

    /// A run of this length with as much room behind it as possible, and behind the run before it: in the middle of the
    /// largest gap.
    pub(super) fn take_apart(&mut self, length: u32) -> Result<u32, Full> {
        let ends = self.taken.iter().map(|(start, length)| start + length);
        let starts = self.taken.keys().copied().chain([self.capacity]);
        let gaps = [0].into_iter().chain(ends).zip(starts);
        let (start, end) =
            gaps.max_by_key(|(start, end)| (end - start, std::cmp::Reverse(*start))).unwrap_or_default();
        let Some(room) = (end - start).checked_sub(length) else {
            return Err(Full { what: self.what, needed: length, capacity: self.capacity });
        };
        // In front of the first gap nobody wants to grow.
        let start = if start == 0 { 0 } else { start + room / 2 };
        self.insert(start, length);
        Ok(start)
    }

    /// Makes a run longer, if the room behind it is free.
    pub(super) fn extend(&mut self, start: u32, length: u32) -> bool {
        let next = self.taken.range(start + 1..).next().map_or(self.capacity, |(&next, _)| next);
        let fits = self.taken.contains_key(&start) && next - start >= length;
        if fits {
            self.full_below = self.full_below.min(start);
            self.insert(start, length);
        }
        fits
    }

    fn insert(&mut self, start: u32, length: u32) {
        self.taken.insert(start, length);
        while let Some(&length) = self.taken.get(&self.full_below) {
            self.full_below += length;
        }
        self.peak = self.peak.max(start + length);
    }

    /// Gives up a run; it stays taken until [`Self::release`].
    pub(super) fn retire(&mut self, start: u32) {
        self.retired.insert(start);
    }

    /// A run that was found: it is retired unless somebody keeps it. An error if it is not within the table, or part of
    /// it is taken.
    pub(super) fn claim(&mut self, start: u32, length: u32) -> Result<(), ()> {
        let end = start.checked_add(length).filter(|end| *end <= self.capacity).ok_or(())?;
        let before = self.taken.range(..end).next_back();
        if before.is_some_and(|(before, taken)| before + taken > start) {
            return Err(());
        }
        self.insert(start, length);
        self.retire(start);
        Ok(())
    }

    /// The run that starts here is not given up after all.
    pub(super) fn keep(&mut self, start: u32) {
        self.retired.remove(&start);
    }

    /// What was given up is free.
    pub(super) fn release(&mut self) {
        for start in std::mem::take(&mut self.retired) {
            self.taken.remove(&start);
            self.full_below = self.full_below.min(start);
        }
    }
}
