//! What the kernel's and the daemon's side agree on: map names and sizes, keys and values, reasons.
//!
//! Everything here is plain data with a fixed layout. A layout that changes gets a new
//! [`ABI_VERSION`]; the asserts at the end hold the sizes.

pub mod reason;

pub use reason::{DropReason, PassReason, Reason};

use crate::addr::Addr;

/// The version of every layout in this module. It is part of the pin path, so that two versions
/// can stand beside each other during an upgrade.
pub const ABI_VERSION: u32 = 1;

/// Names: programs and maps, as they stand in the object and under the pin path.
pub mod name {
    /// The XDP program that balances.
    pub const PROGRAM: &str = "lb";
    /// The tc egress program that steers health probes to one backend.
    pub const PROBE: &str = "lb_probe";
    /// The XDP program for a backend: strips the outer header.
    pub const DECAP: &str = "lb_decap";
    /// An XDP program that passes everything: what a veth peer needs to receive native `XDP_TX`.
    pub const NOOP: &str = "lb_pass";

    /// One [`super::Config`].
    pub const CONFIG: &str = "lb_config";
    /// Two copies of the service index, [`super::IndexEntry`] each.
    pub const INDEX: &str = "lb_index";
    /// [`super::Service`] by service number.
    pub const SERVICES: &str = "lb_services";
    /// [`super::SlotLine`]s.
    pub const SLOTS: &str = "lb_slots";
    /// [`super::Backend`] by backend index.
    pub const BACKENDS: &str = "lb_backends";
    /// Interface index (`u32`) by port number.
    pub const PORTS: &str = "lb_ports";
    /// Device map by port number, for `XDP_REDIRECT`.
    pub const DEVICES: &str = "lb_devices";
    /// [`super::Counter`]s: one run of [`super::Limits::counters`] for each CPU.
    pub const COUNTERS: &str = "lb_counters";
    /// [`super::Counter`]s: one run of [`super::Reason::COUNT`] for each CPU.
    pub const REASONS: &str = "lb_reasons";

    /// Every data map that is shared memory with the daemon (`BPF_F_MMAPABLE`).
    pub const MAPPED: [&str; 8] = [CONFIG, INDEX, SERVICES, SLOTS, BACKENDS, PORTS, COUNTERS, REASONS];

    /// Read-only global: entries of one copy of the service index, [`super::Limits::index`].
    pub const INDEX_ENTRIES: &str = "INDEX_ENTRIES";
    /// Read-only global: how many counters one CPU owns, [`super::Limits::counters`].
    pub const COUNTERS_PER_CPU: &str = "COUNTERS_PER_CPU";
}

/// How many elements the maps hold. Fixed when the maps are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one copy of the service index; a power of two.
    pub index: u32,
    /// Services.
    pub services: u32,
    /// Slots, over all pools; a multiple of [`SLOTS_PER_LINE`].
    pub slots: u32,
    /// Backends, over all pools.
    pub backends: u32,
    /// Counters of one CPU: one for each pair of service and backend place.
    pub counters: u32,
}

impl Limits {
    /// What the object file is compiled with; the loader sets others by the map's name.
    pub const DEFAULT: Self =
        Self { index: 1 << 16, services: 1 << 12, slots: 1 << 22, backends: 1 << 16, counters: 1 << 16 };
}

/// Interfaces that backends may be reached through.
pub const MAX_PORTS: u32 = 64;

/// What the program reads first.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// A [`Selector`]: which copy of the index is live. Written as one word.
    pub selector: u64,
    /// Key of the flow hash; the same on every balancer of a fleet.
    pub seed: u64,
}

/// Which copy of the service index is live, how large it is, and its hash's salt: one word, so
/// that a switch is one aligned store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// 0 or 1.
    pub copy: u32,
    /// The number of entries is 2 to this power; at most 31.
    pub bits: u32,
    /// Mixed into the hash of the key.
    pub salt: u32,
}

impl Selector {
    /// The word: salt in the high half, then `bits`, then `copy`.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.salt as u64) << 32 | ((self.bits & 31) as u64) << 8 | (self.copy & 1) as u64
    }

    /// Reads the word. Every word is a selector.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { copy: (word & 1) as u32, bits: ((word >> 8) & 31) as u32, salt: (word >> 32) as u32 }
    }
}

/// What a service is found by.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The virtual address.
    pub vip: Addr,
    /// Destination port, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 in every key of a service; 0 marks an empty entry.
    pub used: u8,
    /// Zero.
    pub pad: u32,
}

impl ServiceKey {
    /// The key of a (VIP, protocol, port).
    #[inline(always)]
    pub const fn new(vip: Addr, protocol: u8, port: u16) -> Self {
        Self { vip, port, protocol, used: 1, pad: 0 }
    }

    /// Port, protocol and the used mark as one word.
    #[inline(always)]
    pub const fn tail(&self) -> u32 {
        self.port as u32 | (self.protocol as u32) << 16 | (self.used as u32) << 24
    }
}

/// One entry of the service index: a key in full and the service it means.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// The virtual address.
    pub vip: Addr,
    /// [`ServiceKey::tail`]; 0 marks an empty entry.
    pub tail: u32,
    /// Service number.
    pub service: u32,
    /// Zero: room, and two entries to a cache line.
    pub reserved: u64,
}

impl IndexEntry {
    /// Whether this entry answers for `key`.
    #[inline(always)]
    pub fn matches(&self, key: &ServiceKey) -> bool {
        self.tail == key.tail() && self.vip.words() == key.vip.words()
    }
}

/// A service: where its pool's slots and backends stand, and where it counts.
///
/// Never changed while the index points at it: a service that changes gets a new number.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// First slot of the pool.
    pub slot_base: u32,
    /// Number of slots of the pool; 0 marks an unused service.
    pub slot_count: u32,
    /// Index of the pool's backend number 0.
    pub backend_base: u32,
    /// Backend numbers of the pool are below this.
    pub backend_count: u32,
    /// Counter of this service's backend number 0.
    pub counter_base: u32,
    /// Zero: room for tracking, affinity and limits.
    pub flags: u32,
    /// Zero.
    pub reserved: u64,
}

/// One slot of a lookup table: a backend's number within its pool, and the transition flag.
///
/// The low 15 bits are the number plus one, so that zeroed memory is a table of empty slots. The previous owner of
/// a slot in transition stands at the same place of a second array.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot(pub u16);

impl Slot {
    /// The flag: this slot has a previous owner that may still serve.
    pub const TRANSITION: u16 = 0x8000;
    /// No backend.
    pub const EMPTY: Self = Self(0);
    /// Backend numbers of a pool are below this.
    pub const MAX_BACKENDS: u16 = 0x7fff;

    /// A slot that belongs to this backend number.
    #[inline(always)]
    pub const fn of(number: u16) -> Self {
        Self((number + 1) & 0x7fff)
    }

    /// The owner's number, if there is one.
    #[inline(always)]
    pub const fn owner(self) -> Option<u16> {
        (self.0 & 0x7fff).checked_sub(1)
    }

    /// Whether the slot is in transition.
    #[inline(always)]
    pub const fn in_transition(self) -> bool {
        self.0 & Self::TRANSITION != 0
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mark = if self.in_transition() { "~" } else { "" };
        match self.owner() {
            Some(number) => write!(f, "{number}{mark}"),
            None => write!(f, "-{mark}"),
        }
    }
}

/// Slots of one map element. An array map rounds every element up to 8 bytes, so slots are packed
/// to a cache line.
pub const SLOTS_PER_LINE: u32 = 32;

/// One map element of slots.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotLine(pub [Slot; SLOTS_PER_LINE as usize]);

/// How a packet gets to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encap {
    /// Only the Ethernet addresses are rewritten; the backend is on the same L2.
    L2 = 1,
    /// IP-in-IP with an IPv4 outer header (RFC 2003, RFC 4213).
    Ip4 = 2,
    /// IP-in-IP with an IPv6 outer header (RFC 2473).
    Ip6 = 3,
}

impl Encap {
    /// Reads the byte in [`Backend::encap`]; `None` for an absent backend and for unknown values.
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::L2),
            2 => Some(Self::Ip4),
            3 => Some(Self::Ip6),
            _ => None,
        }
    }
}

/// A backend: one cache line.
///
/// `hop` may change while packets read it, so each half is one aligned word and is read and
/// written as such. Everything else is written before a slot points here and never after: a
/// backend with another address or encap gets another number.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The next hop: see [`Hop`].
    pub hop: [u64; 2],
    /// An [`Encap`]; 0 marks an absent backend.
    pub encap: u8,
    /// Low bits of the outer source address that carry the flow hash: 0 to 32.
    pub spread_bits: u8,
    /// One's complement sum (not complemented) of the IPv4 outer header's constant part, see
    /// `encap`; host byte order. 0 for other encaps.
    pub sum: u16,
    /// Zero.
    pub reserved: u32,
    /// Source of the outer header; its [`Self::spread_bits`] low bits are zero.
    pub outer_source: Addr,
    /// Destination of the outer header: the backend's own address.
    pub outer_destination: Addr,
    /// Zero.
    pub reserved2: u64,
}

impl Backend {
    /// The next hop as it is at this moment, each half read as one word.
    #[inline(always)]
    pub fn hop(&self) -> Hop {
        let words = &raw const self.hop;
        // SAFETY: the pointer comes from a reference. Volatile, because the daemon may store a new word at
        // any time and the compiler must not read one twice or in pieces.
        Hop::from_words(unsafe {
            [(&raw const (*words)[0]).read_volatile(), (&raw const (*words)[1]).read_volatile()]
        })
    }
}

/// The Ethernet side of a backend: where its packets leave and to whom. Two words, each a MAC in memory order and
/// then a number, as packets need them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop([u64; 2]);

impl Hop {
    /// A next hop.
    ///
    /// `destination` is the backend's or the gateway's MAC, `source` that of the interface with port number `port`
    /// (an index of [`name::PORTS`]), `mtu` the largest IP packet, outer header included, that may go there; bytes.
    #[inline(always)]
    pub const fn new(destination: [u8; 6], port: u16, source: [u8; 6], mtu: u16) -> Self {
        Self([pack(destination, port), pack(source, mtu)])
    }

    /// From the two words of [`Backend::hop`].
    #[inline(always)]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The two words of [`Backend::hop`].
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 2] {
        self.0
    }

    /// Number of the interface that packets leave by.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        (self.0[0] >> 48) as u16
    }

    /// Largest IP packet, outer header included; bytes.
    #[inline(always)]
    pub const fn mtu(self) -> u16 {
        (self.0[1] >> 48) as u16
    }

    /// The Ethernet header of a packet that goes there, as three numbers that have its bytes' order in memory:
    /// bytes 0-1, 2-5 and 6-13. `ether_type` is as it stands in memory.
    #[inline(always)]
    pub const fn ethernet(self, ether_type: u16) -> (u16, u32, u64) {
        let [destination, source] = self.0;
        let low = (1 << 48) - 1;
        (destination as u16, (destination >> 16) as u32, source & low | (ether_type as u64) << 48)
    }

    /// The MAC that packets are sent to.
    pub const fn destination(self) -> [u8; 6] {
        mac(self.0[0])
    }

    /// The MAC that packets are sent from.
    pub const fn source(self) -> [u8; 6] {
        mac(self.0[1])
    }
}

#[inline(always)]
const fn pack(mac: [u8; 6], number: u16) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | (number as u64) << 48
}

const fn mac(word: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = word.to_le_bytes();
    [a, b, c, d, e, f]
}

// The words' halves are addressed by shifts: every machine that eBPF runs well on is little-endian.
const _: () = assert!(cfg!(target_endian = "little"));

/// Packets and bytes. Bytes are those of the IP packet as the client sent it.
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
    assert!(size_of::<Config>() == 16);
    assert!(size_of::<ServiceKey>() == 24);
    assert!(size_of::<IndexEntry>() == 32);
    assert!(size_of::<Service>() == 32);
    assert!(size_of::<SlotLine>() == 64);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<Counter>() == 16);
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
        let selector = Selector { copy: 1, bits: 17, salt: 0xdead_beef };
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
