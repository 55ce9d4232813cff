//! What parsing learned about a packet. No pointers, no bytes of it.

use crate::addr::Addr;

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
