//! Services and the index they are found in.

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
    /// 1 in every key of a service; 0 marks an empty entry.
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
    /// What its TCP flows need remembered, in bits 0-1; its other flows, in bits 2-3: see [`Tracking`]. Bit 4: echo
    /// requests to its VIP are answered.
    pub flags: u32,
    /// After this long without a packet a remembered TCP flow is over; [`super::Ticks`].
    pub tcp_idle: u32,
    /// The same for UDP.
    pub udp_idle: u32,
}

impl Service {
    /// In [`Self::flags`]: echo requests to its VIP are answered.
    pub const ECHO: u32 = 1 << 4;

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
