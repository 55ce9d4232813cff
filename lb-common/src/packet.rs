//! What parsing learned about a packet. No pointers, no bytes of it.

use crate::{
    addr::Addr,
    wire::{protocol, tcp_flag},
};

/// A packet that may be for a service.
///
/// Addresses, ports and protocol are those that find the service and the flow. For an ICMP error they are those of
/// the packet that it quotes, turned round: the direction from the client to the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The client.
    pub source: Addr,
    /// The VIP, if it is one.
    pub destination: Addr,
    /// Host byte order; 0 where there is none.
    pub source_port: u16,
    /// Host byte order; 0 where there is none.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags, see [`crate::wire::tcp_flag`]; 0 for others.
    pub tcp_flags: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet as its header says; bytes.
    pub length: u16,
    /// Where the IP header begins: 14, or behind one or two VLAN tags 18 or 22; bytes.
    pub offset: u8,
    /// Whether the IP header is IPv4.
    pub is_v4: bool,
    /// What it is beside a packet of a flow.
    pub kind: Kind,
    /// The first two bytes behind a UDP header, in the order of memory; 0 where they are not read. In a QUIC packet with
    /// a short header: its first byte, and the first of the connection ID.
    pub quic_head: u16,
    /// The eight bytes behind those.
    pub quic_id: u64,
    /// What the fragments of a packet have in common, beside addresses and protocol (RFC 791, RFC 8200 section 4.5);
    /// 0 if it is no fragment.
    pub fragment: u32,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A whole packet of a flow.
    Whole,
    /// The first fragment of one, which carries the ports.
    FirstFragment,
    /// Any other fragment: its ports are not known.
    LaterFragment,
    /// An ICMP error about a packet of a flow.
    IcmpError,
    /// An ICMP echo request. Ports are 0.
    EchoRequest,
    /// An IP packet in an IP packet. Ports are 0.
    Tunnel,
}

impl Kind {
    /// From its number.
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Whole,
            1 => Self::FirstFragment,
            2 => Self::LaterFragment,
            3 => Self::IcmpError,
            4 => Self::EchoRequest,
            _ => Self::Tunnel,
        }
    }
}

impl Packet {
    /// A frame that nothing is known of.
    pub const UNKNOWN: Self = Self {
        source: Addr::NONE,
        destination: Addr::NONE,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        tcp_flags: 0,
        traffic_class: 0,
        ttl: 0,
        length: 0,
        offset: 0,
        is_v4: false,
        kind: Kind::Whole,
        quic_head: 0,
        quic_id: 0,
        fragment: 0,
    };

    /// The same packet, of which the verifier no longer knows by which way it was parsed: `zero` is a zero that it does
    /// not know. What follows is then verified once, and not for every family and protocol.
    #[inline(always)]
    #[must_use]
    pub const fn blurred(self, zero: u32) -> Self {
        let blur = zero as u8;
        Self {
            protocol: self.protocol | blur,
            tcp_flags: self.tcp_flags | blur,
            offset: (self.offset | blur) & 31,
            is_v4: (self.is_v4 as u8 | blur) & 1 != 0,
            kind: Kind::from_byte(self.kind as u8 | blur),
            quic_head: self.quic_head | zero as u16,
            quic_id: self.quic_id | zero as u64,
            ..self
        }
    }

    /// Whether it is TCP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Whether it opens a flow as far as anyone can tell: a TCP SYN without ACK (RFC 9293 section 3.5). UDP has no
    /// such mark.
    #[inline(always)]
    pub const fn opens_flow(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}
