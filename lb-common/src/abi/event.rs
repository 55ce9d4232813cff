//! What the program tells of single packets: sampled events and captured frames.

use crate::addr::Addr;

/// What became of one packet. Its numbers mean what they meant at that moment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
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
    /// Length of the frame; bytes.
    pub length: u32,
    /// 0 for an event, 1 for a frame as it came, 2 for a frame as it left.
    pub stage: u32,
}

impl Event {
    /// No reason, service or backend.
    pub const NONE: u32 = u32::MAX;
}

const _: () = assert!(size_of::<Event>() == 64);
