//! Everything a decision may read or write: the seam between the pure decision and where its tables are kept.

use crate::{
    abi::{Backend, Config, Features, Flow, IndexEntry, Note, Service, ServiceKey, Slot, Ticks, Window},
    addr::Addr,
    admit, find,
    track::{self, PacketTraits, Question},
};

/// The tables of a balancer. The kernel program has them in BPF maps, the model in ordinary memory.
///
/// A number outside a table is a defect of whoever filled the tables, never a crash: it may lead to another element or to
/// `None`.
pub trait Tables {
    /// A bucket of the flow table.
    type Bucket<'t>: FlowBucket
    where
        Self: 't;

    /// What holds for every packet. A copy, because the selector may change at any time.
    fn config(&self) -> Config;

    /// What the configuration uses. In the kernel program a constant, by which the rest falls away.
    fn features(&self) -> Features;

    /// UDP port of GUE packets, host byte order.
    fn gue_port(&self) -> u16;

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

    /// The bucket for sources with this hash: whose flows have a limit, and when they may go on.
    fn limiter(&self, hash: u32) -> Option<Self::Bucket<'_>>;

    /// What a list of prefixes has for the longest that holds the address: see [`crate::abi::PrefixKey`].
    fn prefix(&self, list: u32, address: Addr) -> Option<u32>;

    /// Whether this may be done once more now; asking counts it.
    fn may(&self, what: Window) -> bool;

    /// The service of a key that no service has as it is: [`find::wider`]. The kernel program makes a call of it.
    #[inline(always)]
    fn wider(&self, selector: u64, key: ServiceKey) -> u32
    where
        Self: Sized,
    {
        find::wider(self, selector, key)
    }

    /// The backend that a QUIC connection ID names: [`find::named`]. The kernel program makes a call of it.
    #[inline(always)]
    fn named(&self, selector: u64, service: u32, head: u16, id: u64) -> u32
    where
        Self: Sized,
    {
        self.service(service).map_or(track::NOBODY, |service| find::named(self, selector, service, head, id))
    }

    /// Whether a source may use a service: [`admit::refusal`]. The kernel program makes a call of it.
    #[inline(always)]
    fn refusal(&self, service: u32, source: Addr, packet: PacketTraits, now: Ticks) -> u32
    where
        Self: Sized,
    {
        admit::refusal(self, service, source, packet, now)
    }

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
