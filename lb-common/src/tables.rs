//! Everything a decision may read: the seam between the pure decision and where its tables are kept.

use crate::abi::{Backend, Config, IndexEntry, Service, Slot};

/// The tables of a balancer. The kernel program has them in BPF maps, the model in ordinary memory.
///
/// `None` means that the number is outside the table: a defect of whoever filled it, never a crash.
pub trait Tables {
    /// What holds for every packet. A copy, because the selector may change at any time.
    fn config(&self) -> Config;

    /// Entry `position` of copy `copy` of the service index.
    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry>;

    /// The service of that number.
    fn service(&self, number: u32) -> Option<&Service>;

    /// One slot of all pools' slots.
    fn slot(&self, place: u32) -> Option<Slot>;

    /// The backend of that index.
    fn backend(&self, index: u32) -> Option<&Backend>;
}
