//! What parsing learned about a packet. No pointers, no bytes of it.

use crate::{
    addr::Addr,
    wire::{protocol, tcp_flag},
};

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The client.
    pub source: Addr,
    /// The VIP, if it is one.
    pub destination: Addr,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags, see [`crate::wire::tcp_flag`]; 0 for UDP.
    pub tcp_flags: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Length of the IP packet as its header says; bytes.
    pub length: u16,
    /// Whether the IP header is IPv4.
    pub is_v4: bool,
}

impl Packet {
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
