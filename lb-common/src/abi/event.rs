//! What the program tells of single packets: sampled events and captured frames.

use crate::addr::Addr;

/// What became of one packet. Its numbers mean what they meant at that moment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When: nanoseconds of the kernel's monotonic clock.
    pub time: u64,
    /// The client; for an ICMP error that of the packet it quotes.
    pub source: Addr,
    /// The VIP.
    pub destination: Addr,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// [`crate::packet::Kind`] as a number.
    pub kind: u8,
    /// The XDP verdict: 1 drop, 2 pass, 3 out of the interface it came by, 4 out of another.
    pub verdict: u8,
    /// [`super::Reason::counter`]; [`Self::NONE`] for a packet that was simply forwarded.
    pub reason: u32,
    /// Number of the service; [`Self::NONE`] if there is none.
    pub service: u32,
    /// Index of the backend; [`Self::NONE`] if there is none.
    pub backend: u32,
    /// Index of the interface it came by.
    pub ingress: u32,
    /// Length of the IP packet; of a captured frame that of the whole frame; bytes.
    pub length: u32,
    /// [`Self::TOLD`], [`Self::CAME`] or [`Self::LEFT`].
    pub stage: u32,
}

impl Event {
    /// No reason, service or backend.
    pub const NONE: u32 = u32::MAX;
    /// Stage: no frame stands behind it.
    pub const TOLD: u32 = 0;
    /// Stage: the frame stands behind it as it came.
    pub const CAME: u32 = 1;
    /// Stage: the frame stands behind it as it left.
    pub const LEFT: u32 = 2;
}

/// Most bytes of a frame that are captured: a jumbo frame of 9000, with its Ethernet header and tags.
pub const CAPTURE_BYTES: u32 = 9024;

/// Which packets are captured: those that are like it in everything it names.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureFilter {
    /// The client, where its mask says.
    pub source: Addr,
    /// Which bits of the client are compared.
    pub source_mask: Addr,
    /// The VIP, where its mask says.
    pub destination: Addr,
    /// Which bits of the VIP are compared.
    pub destination_mask: Addr,
    /// Number of the service; [`Event::NONE`] for any packet.
    pub service: u32,
    /// Its reason's [`super::Reason::counter`]; [`Event::NONE`] for any packet.
    pub reason: u32,
    /// The port at the VIP, host byte order; 0 for any.
    pub port: u16,
    /// IP protocol number; 0 for any.
    pub protocol: u8,
    /// XDP verdicts: one bit for each, by its number.
    pub verdicts: u8,
    /// Most bytes of a frame; at most [`CAPTURE_BYTES`].
    pub bytes: u32,
}

impl CaptureFilter {
    /// Every verdict.
    pub const ANY_VERDICT: u8 = u8::MAX;
    /// Those of dropped packets.
    pub const DROPPED: u8 = 1 << 1;

    /// Whole frames of every packet.
    pub const ALL: Self = Self {
        source: Addr::NONE,
        source_mask: Addr::NONE,
        destination: Addr::NONE,
        destination_mask: Addr::NONE,
        service: Event::NONE,
        reason: Event::NONE,
        port: 0,
        protocol: 0,
        verdicts: Self::ANY_VERDICT,
        bytes: CAPTURE_BYTES,
    };

    /// Whether a packet is wanted.
    #[inline(always)]
    pub fn wants(&self, event: &Event) -> bool {
        let differ = |address: &Addr, wanted: &Addr, mask: &Addr| {
            let ([a, b], [c, d], [e, f]) = (address.words(), wanted.words(), mask.words());
            ((a ^ c) & e) | ((b ^ d) & f)
        };
        let addresses = differ(&event.source, &self.source, &self.source_mask)
            | differ(&event.destination, &self.destination, &self.destination_mask);
        addresses == 0
            && (self.port == 0 || self.port == event.destination_port)
            && (self.protocol == 0 || self.protocol == event.protocol)
            && (self.service == Event::NONE || self.service == event.service)
            && (self.verdicts >> (event.verdict & 7)) & 1 != 0
            && (self.reason == Event::NONE || self.reason == event.reason)
    }
}

const _: () = assert!(size_of::<Event>() == 72);
