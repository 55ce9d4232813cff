//! Backends: how packets get there and what they may take.

use crate::addr::Addr;

/// How a packet gets to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Encap {
    /// Only the Ethernet addresses are rewritten; the backend is on the same L2.
    L2 = 1,
    /// IP-in-IP with an IPv4 outer header (RFC 2003, RFC 4213).
    Ip4 = 2,
    /// IP-in-IP with an IPv6 outer header (RFC 2473).
    Ip6 = 3,
    /// GUE variant 1 (draft-ietf-intarea-gue): the packet right behind an outer IPv4 and UDP header.
    Gue4 = 4,
    /// The same with an IPv6 outer header.
    Gue6 = 5,
    /// GUE variant 0: with a GUE header of four bytes between UDP header and packet. The outer one is IPv4.
    GueHeader4 = 6,
    /// The same with an IPv6 outer header.
    GueHeader6 = 7,
}

impl Encap {
    /// Reads the low byte of a [`Standing`]; `None` for an absent backend and for unknown values.
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::L2),
            2 => Some(Self::Ip4),
            3 => Some(Self::Ip6),
            4 => Some(Self::Gue4),
            5 => Some(Self::Gue6),
            6 => Some(Self::GueHeader4),
            7 => Some(Self::GueHeader6),
            _ => None,
        }
    }

    /// Bytes that it adds to a packet.
    pub const fn overhead(self) -> u8 {
        match self {
            Self::L2 => 0,
            Self::Ip4 => 20,
            Self::Ip6 => 40,
            Self::Gue4 => 20 + 8,
            Self::Gue6 => 40 + 8,
            Self::GueHeader4 => 20 + 8 + 4,
            Self::GueHeader6 => 40 + 8 + 4,
        }
    }

    /// Whether the outer header is IPv4.
    pub const fn is_outer_v4(self) -> bool {
        matches!(self, Self::Ip4 | Self::Gue4 | Self::GueHeader4)
    }

    /// Whether there is a UDP header.
    pub const fn is_gue(self) -> bool {
        matches!(self, Self::Gue4 | Self::Gue6 | Self::GueHeader4 | Self::GueHeader6)
    }
}

/// A backend: one cache line.
///
/// What may change while packets read it stands in words of its own, read and written whole: the two of `hop`, and
/// `standing`. Everything else is written before a slot points here and never after: a backend with another address or
/// encap gets another number.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The next hop: see [`Hop`].
    pub hop: [u64; 2],
    /// What it is and may take: see [`Standing`]. 0 is an absent backend.
    pub standing: u64,
    /// Source of the outer header; its [`Standing::spread_bits`] low bits are zero.
    pub outer_source: Addr,
    /// The backend's own address: the destination of the outer header. Packets to one without do not need it; who finds
    /// the tables does, to tell whose record it is.
    pub address: Addr,
    /// UDP port that GUE packets go to, host byte order; 0 for others.
    pub gue_port: u64,
}

impl Backend {
    /// Which word of the record `standing` is.
    pub const STANDING_WORD: usize = core::mem::offset_of!(Self, standing) / 8;

    /// What it is and may take at this moment.
    #[inline(always)]
    pub fn standing(&self) -> Standing {
        // SAFETY: the pointer comes from a reference. Volatile, because the daemon may store a new word at any time.
        Standing(unsafe { (&raw const self.standing).read_volatile() })
    }

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

/// What a backend is and may take, in one word.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing(u64);

impl Standing {
    /// It can serve: remembered flows go on there.
    const USABLE: u64 = 1 << 32;
    /// It takes no new flow.
    const CLOSED: u64 = 1 << 33;

    /// What a backend is: `spread_bits` low bits of its outer source address carry the flow's hash (0 to 32), `sum` is
    /// the one's complement sum (not complemented, host byte order) of the IPv4 outer header's constant part, `epoch`
    /// tells it from who had its number before. It takes nothing yet.
    #[inline(always)]
    pub const fn new(encap: Encap, spread_bits: u8, sum: u16, epoch: u8) -> Self {
        let overhead = encap.overhead() as u64;
        Self(
            encap as u64
                | (spread_bits as u64) << 8
                | (sum as u64) << 16
                | (epoch as u64) << 40
                | overhead << 48,
        )
    }

    /// The same backend, taking what is said here.
    #[inline(always)]
    #[must_use]
    pub const fn taking(self, remembered: bool, new: bool) -> Self {
        let base = self.0 & !(Self::USABLE | Self::CLOSED);
        Self(base | if remembered { Self::USABLE } else { 0 } | if new { 0 } else { Self::CLOSED })
    }

    /// From [`Backend::standing`].
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word of [`Backend::standing`].
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// How packets get there; `None` if there is no backend.
    #[inline(always)]
    pub const fn encap(self) -> Option<Encap> {
        Encap::from_byte(self.0 as u8)
    }

    /// Low bits of the outer source address that carry the flow's hash.
    #[inline(always)]
    pub const fn spread_bits(self) -> u32 {
        (self.0 >> 8) as u8 as u32
    }

    /// Sum of the IPv4 outer header's constant part.
    #[inline(always)]
    pub const fn sum(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Tells the backend from who had its number before.
    #[inline(always)]
    pub const fn epoch(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Bytes that outer headers add to a packet.
    #[inline(always)]
    pub const fn overhead(self) -> u32 {
        (self.0 >> 48) as u8 as u32
    }

    /// Whether a remembered flow may go on there; with `opens`, whether a packet that opens a flow may.
    #[inline(always)]
    pub const fn takes(self, opens: bool) -> bool {
        self.0 & Self::USABLE != 0 && !(opens && self.0 & Self::CLOSED != 0)
    }

    /// Whether it is the same backend, whatever it takes.
    #[inline(always)]
    pub const fn is_same(self, other: Self) -> bool {
        self.taking(false, false).0 == other.taking(false, false).0
    }
}

impl core::fmt::Debug for Standing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.encap() {
            None => f.write_str("absent"),
            Some(encap) => write!(
                f,
                "{encap:?} epoch {} taking {}",
                self.epoch(),
                match (self.takes(false), self.takes(true)) {
                    (_, true) => "all",
                    (true, false) => "known flows",
                    (false, false) => "nothing",
                }
            ),
        }
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
    /// (an index of [`super::name::PORTS`]), `mtu` the largest IP packet, outer header included, that may go there; bytes.
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
