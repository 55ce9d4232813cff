//! Everything a decision may read or write: the seam between the pure decision and where its tables are kept.

use crate::{
    abi::{Backend, Config, Flow, IndexEntry, Note, Service, Slot},
    track::{self, Question},
};

/// The tables of a balancer. The kernel program has them in BPF maps, the model in ordinary memory.
///
/// `None` means that the number is outside the table: a defect of whoever filled it, never a crash.
pub trait Tables {
    /// A bucket of the flow table.
    type Bucket<'t>: FlowBucket
    where
        Self: 't;

    /// What holds for every packet. A copy, because the selector may change at any time.
    fn config(&self) -> Config;

    /// Entry `position` of copy `copy` of the service index.
    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry>;

    /// The service of that number.
    fn service(&self, number: u32) -> Option<&Service>;

    /// One slot of all pools' slots.
    fn slot(&self, place: u32) -> Option<Slot>;

    /// Who owned a slot in transition before.
    fn previous(&self, place: u32) -> Option<Slot>;

    /// The backend of that index.
    fn backend(&self, index: u32) -> Option<&Backend>;

    /// The bucket for flows with this hash.
    fn bucket(&self, hash: u32) -> Option<Self::Bucket<'_>>;

    /// Whether one more flow may be remembered now; asking counts it.
    fn may_remember(&self) -> bool;

    /// Where a flow goes that is remembered or is to be: [`track::remembered`]. The kernel program makes a call of it.
    #[inline(always)]
    fn remembered(&self, question: Question) -> u32
    where
        Self: Sized,
    {
        track::remembered(self, question)
    }

    /// Counts something that happened beside the verdict.
    fn note(&self, note: Note);
}

/// A bucket of the flow table, which others read and write at the same time.
pub trait FlowBucket {
    /// The flow at place `way`, below [`crate::abi::WAYS`].
    fn load(&self, way: usize) -> Flow;

    /// Puts another flow at place `way`.
    fn replace(&self, way: usize, flow: Flow);

    /// Writes what is known of the flow that is at place `way` already.
    fn update(&self, way: usize, flow: Flow);
}
