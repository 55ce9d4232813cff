//! Services and the index they are found in.

use super::{Features, Reason};
use crate::addr::Addr;

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
    /// What kind of key it is: 1 a virtual address', 2 a prefix of them, 3 a backend's server ID; 0 marks an empty entry.
    pub used: u8,
    /// Zero.
    pub pad: u32,
}

impl ServiceKey {
    /// The key that every VIP has beside those of its ports: it finds one of the VIP's services.
    #[inline(always)]
    pub const fn vip(vip: Addr) -> Self {
        Self::new(vip, 0, 0)
    }

    /// The key of a (VIP, protocol, port).
    #[inline(always)]
    pub const fn new(vip: Addr, protocol: u8, port: u16) -> Self {
        Self { vip, port, protocol, used: 1, pad: 0 }
    }

    /// The key of a (protocol, port) of a prefix of virtual addresses, which has this number.
    #[inline(always)]
    pub const fn of_prefix(number: u32, protocol: u8, port: u16) -> Self {
        Self { vip: Addr::from_words([0, number as u64]), port, protocol, used: 2, pad: 0 }
    }

    /// The number of the prefix, of a key [`Self::of_prefix`].
    pub const fn prefix_number(&self) -> Option<u32> {
        let [_, number] = self.vip.words();
        if self.used == Self::of_prefix(0, 0, 0).used { Some(number as u32) } else { None }
    }

    /// The key that a pool's backend has by its QUIC server ID: `id` as [`Quic::server_id`] reads it. The pool is named
    /// by its first slot. Its entry of the index has the backend's index in place of a service's number.
    #[inline(always)]
    pub const fn server(slot_base: u32, id: u64) -> Self {
        Self { vip: Addr::from_words([id, slot_base as u64]), port: 0, protocol: 0, used: 3, pad: 0 }
    }

    /// From the address and [`Self::tail`].
    #[inline(always)]
    pub const fn from_parts(vip: Addr, tail: u32) -> Self {
        Self { vip, port: tail as u16, protocol: (tail >> 16) as u8, used: (tail >> 24) as u8, pad: 0 }
    }

    /// The same with another port.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
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

/// A service: where its pool's slots and backends stand, where it counts, and its policy. One cache line.
///
/// Never changed while the index points at it: a service that changes gets a new number.
#[repr(C, align(64))]
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
    /// Counter of this service's backend number 0. Behind those of the backends stand its reasons'.
    pub counter_base: u32,
    /// What its TCP flows need remembered, in bits 0-1; its other flows, in bits 2-3: see [`Tracking`]. The rest: see
    /// [`Self::ECHO`] and those behind it.
    pub flags: u32,
    /// After this long without a packet a remembered TCP flow is over; [`super::Ticks`].
    pub tcp_idle: u32,
    /// The same for UDP.
    pub udp_idle: u32,
    /// Affinity: bits of the client's address that choose the slot, counted in the 128 of an [`Addr`]; 0 where the
    /// whole flow does.
    pub affinity: u8,
    /// Bits of the client's address, counted alike, that share a limit.
    pub limited: u8,
    /// Zero.
    pub reserved: u16,
    /// Number of the list of prefixes that sources are held against, see [`super::PrefixKey`]; 0 for none.
    pub acl: u32,
    /// Where in a QUIC connection ID the backend is written.
    pub quic: Quic,
    /// Zero.
    pub pad: u32,
    /// How many packets may come from one source.
    pub packets: Rate,
    /// How many TCP connections it may open.
    pub flows: Rate,
}

impl Service {
    /// In [`Self::flags`]: echo requests to its VIP are answered.
    pub const ECHO: u32 = 1 << 4;
    /// In [`Self::flags`]: a source that its list does not name is denied.
    pub const DENY_OTHERS: u32 = 1 << 5;

    /// Counters that a service has for reasons: all but those to pass, which it has no part in.
    pub const REASONS: u32 = Reason::COUNT - Reason::FIRST_OF_SERVICE;

    /// What flows of this kind need remembered.
    #[inline(always)]
    pub const fn tracking(&self, tcp: bool) -> Tracking {
        match (if tcp { self.flags } else { self.flags >> 2 }) & 3 {
            0 => Tracking::Transition,
            1 => Tracking::Always,
            _ => Tracking::Never,
        }
    }

    /// After how many ticks without a packet a remembered flow of this kind is over.
    #[inline(always)]
    pub const fn idle(&self, tcp: bool) -> u32 {
        if tcp { self.tcp_idle } else { self.udp_idle }
    }

    /// What a program must be able to do to serve it.
    pub const fn needs(&self) -> Features {
        let mut needs = Features::NONE;
        if self.affinity != 0 {
            needs = needs.with(Features::AFFINITY);
        }
        if self.quic.0 != 0 {
            needs = needs.with(Features::QUIC);
        }
        if self.acl != 0 {
            needs = needs.with(Features::ACL);
        }
        if self.limited != 0 {
            needs = needs.with(Features::LIMITS);
        }
        needs
    }

    /// Counter of this service's first reason: see [`Reason::of_service`].
    #[inline(always)]
    pub const fn reason_base(&self) -> u32 {
        self.counter_base.wrapping_add(self.backend_count)
    }

    /// Counters that a service of a pool with so many backend numbers has.
    pub const fn counters(backend_count: u32) -> u32 {
        backend_count + Self::REASONS
    }
}

/// How often something may happen, by the generic cell rate algorithm (ITU-T I.371, annex A): see
/// [`crate::admit`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// From one to the next; 2^-20 ticks. 0 is no limit.
    pub interval: u32,
    /// How far ahead of that they may come; ticks.
    pub tolerance: u32,
}

impl Rate {
    /// Binary digits of [`Self::interval`] behind the point.
    pub const FRACTION: u32 = 20;
}

/// Where the backend is written in the connection IDs of a service's QUIC packets (draft-ietf-quic-load-balancers,
/// plaintext algorithm): length of a server ID in bytes (1 to 8; 0 for a service without), bits of the first octet
/// that tell the configuration, and the configuration they must tell; from the low byte up.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quic(pub u32);

impl Quic {
    /// Server IDs of `length` bytes, 1 to 8, in connection IDs whose first `rotation_bits` bits are `config`.
    pub const fn new(length: u8, rotation_bits: u8, config: u8) -> Self {
        Self(length as u32 | (rotation_bits as u32) << 8 | (config as u32) << 16)
    }

    /// Length of a server ID in bytes; 0 for a service without.
    pub const fn length(self) -> u8 {
        self.0 as u8
    }

    /// The server ID of a packet's connection ID, if it has one of this kind: `head` and `id` as a
    /// [`crate::packet::Packet`] has them. Only packets with a short header have a connection ID that the server chose
    /// and whose length both sides know (RFC 8999 section 5.2).
    #[inline(always)]
    pub const fn server_id(self, head: u16, id: u64) -> Option<u64> {
        let [first, octet] = head.to_le_bytes();
        let length = self.0 & 0xff;
        let rotation = (self.0 >> 8) & 7;
        let config = (self.0 >> 16) & 0xff;
        let short = first & 0xc0 == 0x40;
        if length == 0 || !short || (octet as u32) >> ((8 - rotation) & 31) != config {
            return None;
        }
        // The first bytes in memory are the low ones.
        Some(id & (u64::MAX >> (64u32.wrapping_sub(8 * length) & 63)))
    }
}

/// When the flows of a service are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Tracking {
    /// Only while their slot is in transition.
    #[default]
    Transition = 0,
    /// From their first packet on.
    Always = 1,
    /// Not at all: every packet goes to its slot's owner.
    Never = 2,
}

impl Tracking {
    /// The bits of [`Service::flags`] for these two.
    pub const fn bits(tcp: Self, udp: Self) -> u32 {
        tcp as u32 | (udp as u32) << 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_has_its_length() {
        let id = 0x8877_6655_4433_2211;
        // A short header, and configuration 5 of three bits.
        let head = u16::from_le_bytes([0x40, 0xbf]);
        for (length, expected) in [(1, 0x11), (2, 0x2211), (7, 0x77_6655_4433_2211), (8, id)] {
            assert_eq!(Quic::new(length, 3, 5).server_id(head, id), Some(expected));
            assert_eq!(Quic::new(length, 3, 4).server_id(head, id), None);
        }
        assert_eq!(Quic::new(0, 3, 5).server_id(head, id), None);
        assert_eq!(Quic::new(1, 3, 5).server_id(head | 0x80, id), None, "a long header");
        // Nonsense in the table is no reason to stop.
        for word in (0..=u16::MAX).map(|word| u32::from(word) << 8 | 0xff) {
            Quic(word).server_id(head, id);
        }
    }
}
