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
}
