//! What the kernel's and the daemon's side agree on: map names and sizes, keys and values, reasons.
//!
//! Everything here is plain data with a fixed layout. A layout that changes gets a new
//! [`ABI_VERSION`]; the asserts at the end hold the sizes.

pub mod backend;
pub mod bench;
pub mod event;
pub mod feature;
pub mod flow;
pub mod prefix;
pub mod reason;
pub mod service;
pub mod slot;

pub use backend::{Backend, Encap, Hop, Standing};
pub use event::{CAPTURE_BYTES, CaptureFilter, Event};
pub use feature::Features;
pub use flow::{Bucket, Flow, Ticks, WAYS};
pub use prefix::{Admission, PrefixKey};
pub use reason::{DropReason, Note, PassReason, Reason};
pub use service::{IndexEntry, Quic, Rate, Service, ServiceKey, Tracking};
pub use slot::{SLOTS_PER_LINE, Slot, SlotLine};

/// The version of every layout in this module. It is part of the pin path, so that two versions
/// can stand beside each other during an upgrade.
pub const ABI_VERSION: u32 = 3;

/// Names: programs and maps, as they stand in the object and under the pin path.
pub mod name {
    /// The XDP program that balances.
    pub const PROGRAM: &str = "lb";
    /// The XDP program that balances what is rare: [`PROGRAM`] hands over to it.
    pub const RARE: &str = "lb_rare";
    /// The XDP program that balances what [`RARE`] has read.
    pub const PARSED: &str = "lb_parsed";
    /// The XDP program that answers what the balancer answers itself.
    pub const ANSWER: &str = "lb_answer";
    /// The tc egress program that steers health probes to one backend.
    pub const PROBE: &str = "lb_probe";
    /// The XDP program for a backend: strips the outer header.
    pub const DECAP: &str = "lb_decap";
    /// An XDP program that passes everything: what a veth peer needs to receive native `XDP_TX`.
    pub const NOOP: &str = "lb_pass";

    /// An XDP program that returns the clock flows are remembered by; only run by the daemon, never attached.
    pub const CLOCK: &str = "lb_clock";

    /// One [`super::Config`].
    pub const CONFIG: &str = "lb_config";
    /// Two copies of the service index, [`super::IndexEntry`] each.
    pub const INDEX: &str = "lb_index";
    /// [`super::Service`] by service number.
    pub const SERVICES: &str = "lb_services";
    /// [`super::SlotLine`]s.
    pub const SLOTS: &str = "lb_slots";
    /// [`super::SlotLine`]s: the previous owners of slots in transition, each at its slot's place.
    pub const PREVIOUS: &str = "lb_previous";
    /// [`super::Bucket`]s of remembered flows.
    pub const FLOWS: &str = "lb_flows";
    /// [`super::Backend`] by backend index.
    pub const BACKENDS: &str = "lb_backends";
    /// [`super::Port`] by port number.
    pub const PORTS: &str = "lb_ports";
    /// Device map by port number, for `XDP_REDIRECT`.
    pub const DEVICES: &str = "lb_devices";
    /// [`super::Counter`]s: one run of [`super::Limits::counters`] for each CPU.
    pub const COUNTERS: &str = "lb_counters";
    /// [`super::Counter`]s: one run of [`super::Reason::COUNT`] for each CPU.
    pub const REASONS: &str = "lb_reasons";

    /// Prefixes: `u32` by [`super::PrefixKey`].
    pub const PREFIXES: &str = "lb_prefixes";
    /// [`super::Bucket`]s of sources and when they may go on, by what is limited.
    pub const LIMITERS: &str = "lb_limiters";
    /// Ring buffer of [`super::Event`]s; captured frames stand behind theirs.
    pub const EVENTS: &str = "lb_events";
    /// One [`super::CaptureFilter`].
    pub const CAPTURE: &str = "lb_capture";
    /// Where each CPU keeps the frame that is captured.
    pub const KEPT: &str = "lb_kept";

    /// The tables: shared memory with the daemon. Each is one value of an array map (`BPF_F_MMAPABLE`), which has as
    /// many elements as the daemon made room for.
    pub const TABLES: [&str; 12] = [
        CONFIG, INDEX, SERVICES, SLOTS, PREVIOUS, FLOWS, BACKENDS, PORTS, COUNTERS, REASONS, LIMITERS,
        CAPTURE,
    ];
    /// What stands before the name of a table in the object: there it is a section of its own.
    pub const TABLE_SECTION: &str = ".bss.";

    /// Read-only global: entries of one copy of the service index, [`super::Limits::index`].
    pub const INDEX_ENTRIES: &str = "INDEX_ENTRIES";
    /// Read-only global: how many counters one CPU owns, [`super::Limits::counters`].
    pub const COUNTERS_PER_CPU: &str = "COUNTERS_PER_CPU";
    /// Read-only globals: the number of elements less one of each table that has a number of them, which is a power of two.
    pub const INDEX_MASK: &str = "INDEX_MASK";
    /// See [`INDEX_MASK`].
    pub const SERVICE_MASK: &str = "SERVICE_MASK";
    /// See [`INDEX_MASK`]; for both tables of slots.
    pub const SLOT_LINE_MASK: &str = "SLOT_LINE_MASK";
    /// See [`INDEX_MASK`].
    pub const FLOW_MASK: &str = "FLOW_MASK";
    /// See [`INDEX_MASK`].
    pub const BACKEND_MASK: &str = "BACKEND_MASK";
    /// See [`INDEX_MASK`]; counters of all CPUs.
    pub const COUNTER_MASK: &str = "COUNTER_MASK";
    /// See [`INDEX_MASK`]; counters of all CPUs.
    pub const REASON_MASK: &str = "REASON_MASK";
    /// See [`INDEX_MASK`].
    pub const LIMITER_MASK: &str = "LIMITER_MASK";
    /// Read-only global: how many flows a CPU may remember in one tick.
    pub const FLOWS_PER_TICK: &str = "FLOWS_PER_TICK";
    /// Read-only global: [`super::Features`].
    pub const FEATURES: &str = "FEATURES";
    /// Read-only global of [`DECAP`]: the UDP port whose packets are taken for GUE, host byte order.
    pub const GUE_PORT: &str = "GUE_PORT";
    /// The programs that others hand packets over to, by [`super::Stage`].
    pub const PROGRAMS: &str = "lb_programs";
    /// What each CPU has done of what it may not do at any rate.
    pub const BUDGETS: &str = "lb_budgets";
}

/// How many elements the maps hold. Fixed when the maps are made. Each is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one copy of the service index.
    pub index: u32,
    /// Services.
    pub services: u32,
    /// Slots, over all pools; at least [`SLOTS_PER_LINE`].
    pub slots: u32,
    /// Backends, over all pools.
    pub backends: u32,
    /// Counters of one CPU: one for each pair of service and backend place.
    pub counters: u32,
    /// Buckets of the flow table, of [`WAYS`] flows each.
    pub flow_buckets: u32,
    /// Buckets of limited sources, of [`WAYS`] each.
    pub limiters: u32,
    /// Prefixes. They take memory as they come.
    pub prefixes: u32,
}

impl Limits {
    /// What the object file is compiled with; the loader sets others by the map's name.
    pub const DEFAULT: Self = Self {
        index: 1 << 16,
        services: 1 << 12,
        slots: 1 << 22,
        backends: 1 << 16,
        counters: 1 << 16,
        flow_buckets: 1 << 18,
        limiters: 1 << 14,
        prefixes: 1 << 20,
    };
}

/// The UDP port of GUE (IANA, Service Name and Transport Protocol Port Number Registry).
pub const GUE_DEFAULT_PORT: u16 = 6080;

/// Interfaces that backends may be reached through.
pub const MAX_PORTS: u32 = 64;

/// Where packets leave.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Index of the interface; 0 for none.
    pub ifindex: u32,
    /// The VLAN there, with [`Self::TAGGED`]; 0 where tags stay as they come.
    pub vlan: u32,
}

impl Port {
    /// In [`Self::vlan`]: packets leave with one tag, this one.
    pub const TAGGED: u32 = 1 << 16;
}

/// What the program reads first.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// A [`Selector`]: which copy of the index is live. Written as one word.
    pub selector: u64,
    /// Key of the flow hash; the same on every balancer of a fleet.
    pub seed: u64,
    /// After this many ticks the fragments of a packet are not waited for any more (RFC 791 section 3.2).
    pub fragment_idle: u32,
    /// Zero.
    pub pad: u32,
    /// UDP port of GUE packets, host byte order.
    pub gue_port: u64,
    /// How many dropped packets a CPU tells of in one [`Window`].
    pub drop_events: u32,
    /// How many packets that were sent on a CPU tells of in one [`Window`].
    pub flow_events: u32,
    /// What the programs that use these tables were loaded for, for who finds the tables. More than they can only for a
    /// moment, less never while the tables need it.
    pub features: Features,
    /// Zero.
    pub reserved: u32,
}

impl Config {
    /// Which word of the record `features` is, and nothing else.
    pub const FEATURES_WORD: usize = core::mem::offset_of!(Self, features) / 8;
}

/// Programs that packets are handed over to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// [`name::RARE`].
    Rare = 0,
    /// [`name::PARSED`].
    Parsed = 1,
    /// [`name::ANSWER`].
    Answer = 2,
}

impl Stage {
    /// How many there are.
    pub const COUNT: u32 = 3;

    /// Each with its program.
    pub const ALL: [(Self, &str); 3] =
        [(Self::Rare, name::RARE), (Self::Parsed, name::PARSED), (Self::Answer, name::ANSWER)];
}

/// What a CPU may not do at any rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Window {
    /// Remembering flows.
    Remember = 0,
    /// Answering packets that are too big.
    Answer = 1,
    /// Telling of dropped packets.
    DropEvents = 2,
    /// Telling of packets that were sent on.
    FlowEvents = 3,
    /// Capturing.
    Capture = 4,
}

impl Window {
    /// How many there are.
    pub const COUNT: u32 = 5;

    /// How long it lasts: 2 to this power; ticks.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Remember => 0,
            Self::Answer | Self::DropEvents | Self::FlowEvents | Self::Capture => 6,
        }
    }
}

/// Size of the ring buffer of events; bytes, a power of two and whole pages. Full frames in a burst need most of it.
pub const EVENT_BYTES: u32 = 1 << 20;

/// How many packets a CPU captures in one [`Window::Capture`]: the rest of the machine has to go on.
pub const CAPTURES: u32 = 1 << 11;

/// How many packets that are too big a CPU answers in one [`Window::Answer`].
pub const ANSWERS: u32 = 64;

/// Which copy of the service index is live, how large it is, and its hash's salt: one word, so
/// that a switch is one aligned store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// 0 or 1.
    pub copy: u32,
    /// The number of entries, a power of two, less one.
    pub mask: u32,
    /// Mixed into the hash of the key; below 2^31.
    pub salt: u32,
}

impl Selector {
    /// The number of entries is 2 to the power of `bits`, at most 31.
    pub const fn new(copy: u32, bits: u32, salt: u32) -> Self {
        Self { copy: copy & 1, mask: (1 << (bits & 31)) - 1, salt: salt & 0x7fff_ffff }
    }

    /// Number of entries.
    pub const fn entries(self) -> u32 {
        self.mask + 1
    }

    /// The word: `mask` in the low half, then `copy`, then `salt`.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.salt as u64) << 33 | ((self.copy & 1) as u64) << 32 | self.mask as u64
    }

    /// Reads the word. Every word is a selector.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { copy: (word >> 32) as u32 & 1, mask: word as u32, salt: (word >> 33) as u32 }
    }
}

/// Packets and bytes. Bytes are those of the IP packet as the client sent it; of packets that were passed on, those of
/// the frame.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl core::ops::Add for Counter {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

/// The mark (`SO_MARK`) that sends a probe to one backend: this byte on top, the backend's index
/// in the low 24 bits.
pub const PROBE_MARK: u32 = 0x1b00_0000;

/// The bits of a mark that hold [`PROBE_MARK`].
pub const PROBE_MARK_MASK: u32 = 0xff00_0000;

const _: () = {
    assert!(size_of::<Config>() == 48);
    assert!(core::mem::offset_of!(Config, features) == 8 * Config::FEATURES_WORD);
    assert!(size_of::<ServiceKey>() == 24);
    assert!(size_of::<IndexEntry>() == 32);
    assert!(size_of::<Service>() == 64);
    assert!(size_of::<Port>() == 8);
    assert!(size_of::<PrefixKey>() == 24);
    assert!(size_of::<SlotLine>() == 64);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Bucket>() == 64);
    assert!(size_of::<CaptureFilter>() == 80);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        let hop = Hop::new([1, 2, 3, 4, 5, 6], 7, [8, 9, 10, 11, 12, 13], 1480);
        assert_eq!((hop.destination(), hop.port()), ([1, 2, 3, 4, 5, 6], 7));
        assert_eq!((hop.source(), hop.mtu()), ([8, 9, 10, 11, 12, 13], 1480));
        let (first, second, third) = hop.ethernet(0x0800u16.to_be());
        let bytes = [&first.to_ne_bytes()[..], &second.to_ne_bytes(), &third.to_ne_bytes()].concat();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 8, 0]);
        let selector = Selector::new(1, 17, 0x5ead_beef);
        assert_eq!(Selector::from_word(selector.to_word()), selector);
    }

    #[test]
    fn a_slot_is_owned_empty_or_in_transition() {
        assert_eq!(Slot::default(), Slot::EMPTY);
        assert_eq!(Slot::EMPTY.owner(), None);
        for number in [0, 5, Slot::MAX_BACKENDS - 1] {
            let slot = Slot::of(number);
            assert_eq!(slot.owner(), Some(number));
            assert!(!slot.in_transition());
            let moving = Slot(slot.0 | Slot::TRANSITION);
            assert!(moving.in_transition());
            assert_eq!(moving.owner(), Some(number));
        }
    }
}
