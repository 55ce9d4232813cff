//! The steps of plans.

use lb_common::abi::{
    Backend, CaptureFilter, Config, Features, Hop, IndexEntry, Port, PrefixKey, Service, Slot, Standing,
};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replaces the program by one that has these features: more than the tables use, or no less.
    Features(Features),
    /// Says which packets a program that captures is to capture.
    Capture(Box<CaptureFilter>),
    /// Port `number`, which no live backend leaves by, is this interface.
    Port {
        /// Below [`lb_common::abi::MAX_PORTS`].
        number: u32,
        /// The interface.
        port: Port,
    },
    /// Writes a backend that no live slot points at: a new one that takes nothing yet, or all zero.
    Backend {
        /// Place in the table.
        index: u32,
        /// The record.
        backend: Box<Backend>,
    },
    /// Moves a backend to another next hop; packets may be reading it.
    Hop {
        /// Place in the table.
        index: u32,
        /// The new next hop.
        hop: Hop,
    },
    /// Changes what a backend takes; packets may be reading it.
    Standing {
        /// Place in the table.
        index: u32,
        /// The same backend, taking something else.
        standing: Standing,
    },
    /// Writes previous owners of slots that are not in transition yet, or whose previous owner is gone.
    Previous(Vec<(u32, Slot)>),
    /// Writes slots one by one; packets may be reading them.
    Slots(Vec<(u32, Slot)>),
    /// Writes a service that the live index does not lead to: a new one, or all zero.
    Service {
        /// Its number.
        number: u32,
        /// The record.
        service: Service,
    },
    /// Writes entries of the copy of the index that is not live.
    Index {
        /// 0 or 1.
        copy: u32,
        /// Position within the copy, and the entry.
        entries: Vec<(u32, IndexEntry)>,
    },
    /// Writes and removes entries of lists of prefixes that nothing leads to, or that say the same of every address.
    Prefixes {
        /// Entries and what they say.
        set: Vec<(PrefixKey, u32)>,
        /// Entries.
        remove: Vec<PrefixKey>,
    },
    /// Switches to the other copy of the index, or to another seed.
    Config(Config),
    /// Waits until no packet is left that began before this step.
    Settle,
}

impl Change {
    /// Entries of tables that it writes.
    pub fn writes(&self) -> usize {
        match self {
            Self::Previous(slots) | Self::Slots(slots) => slots.len(),
            Self::Index { entries, .. } => entries.len(),
            Self::Prefixes { set, remove } => set.len() + remove.len(),
            Self::Capture(_)
            | Self::Port { .. }
            | Self::Backend { .. }
            | Self::Hop { .. }
            | Self::Standing { .. }
            | Self::Service { .. }
            | Self::Config(_) => 1,
            Self::Features(_) | Self::Settle => 0,
        }
    }

    /// The table that it writes, in a word.
    pub fn table(&self) -> &'static str {
        match self {
            Self::Previous(_) => "previous owners",
            Self::Slots(_) => "slots",
            Self::Index { .. } => "index",
            Self::Prefixes { .. } => "prefixes",
            Self::Capture(_) => "capture",
            Self::Port { .. } => "ports",
            Self::Backend { .. } | Self::Hop { .. } | Self::Standing { .. } => "backends",
            Self::Service { .. } => "services",
            Self::Config(_) => "config",
            Self::Features(_) | Self::Settle => "programs",
        }
    }

    /// The entries that it names as somebody else has them: the change that would make them so. Entries of a list of prefixes
    /// that are not there are to be removed; what is no entry (features, settling) gives nothing.
    pub fn read(&self, from: &impl Entries) -> Option<Self> {
        Some(match self {
            Self::Features(_) | Self::Settle => return None,
            Self::Capture(_) => Self::Capture(Box::new(from.capture())),
            &Self::Port { number, .. } => Self::Port { number, port: from.port(number) },
            &(Self::Backend { index, .. } | Self::Hop { index, .. } | Self::Standing { index, .. }) => {
                Self::Backend { index, backend: Box::new(from.backend(index)) }
            }
            Self::Previous(slots) => {
                Self::Previous(slots.iter().map(|&(at, _)| (at, from.previous(at))).collect())
            }
            Self::Slots(slots) => Self::Slots(slots.iter().map(|&(at, _)| (at, from.slot(at))).collect()),
            &Self::Service { number, .. } => Self::Service { number, service: from.service(number) },
            Self::Index { copy, entries } => {
                let read = entries.iter().map(|&(at, _)| (at, from.index_entry(*copy, at)));
                Self::Index { copy: *copy, entries: read.collect() }
            }
            Self::Prefixes { set, remove } => {
                let keys = set.iter().map(|(key, _)| key).chain(remove);
                let (mut set, mut remove) = (Vec::new(), Vec::new());
                for &key in keys {
                    match from.prefix_value(&key) {
                        Some(value) => set.push((key, value)),
                        None => remove.push(key),
                    }
                }
                Self::Prefixes { set, remove }
            }
            Self::Config(_) => Self::Config(from.config()),
        })
    }
}

/// The tables that plans write, entry by entry, each within the table.
pub trait Entries {
    /// See [`Change::Config`].
    fn config(&self) -> Config;
    /// See [`Change::Capture`].
    fn capture(&self) -> CaptureFilter;
    /// A port.
    fn port(&self, number: u32) -> Port;
    /// A backend.
    fn backend(&self, index: u32) -> Backend;
    /// A service.
    fn service(&self, number: u32) -> Service;
    /// An entry of a copy of the index.
    fn index_entry(&self, copy: u32, position: u32) -> IndexEntry;
    /// A slot.
    fn slot(&self, place: u32) -> Slot;
    /// Its previous owner.
    fn previous(&self, place: u32) -> Slot;
    /// The value of a prefix; in the kernel, if it is not there, perhaps that of one that contains it.
    fn prefix_value(&self, key: &PrefixKey) -> Option<u32>;
}
