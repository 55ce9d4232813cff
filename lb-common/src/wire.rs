//! Header layouts and arithmetic: what is on the wire, not what is done about it.
//!
//! The layouts themselves come from `network-types`; this module adds what they lack.

pub mod checksum;
pub mod ip;
pub mod pod;

/// `EtherType` of IPv4, as it stands in memory.
pub const ETHER_IPV4: u16 = 0x0800u16.to_be();
/// `EtherType` of IPv6, as it stands in memory.
pub const ETHER_IPV6: u16 = 0x86ddu16.to_be();

/// `EtherType` of a VLAN tag (IEEE 802.1Q), as it stands in memory.
pub const ETHER_VLAN: u16 = 0x8100u16.to_be();
/// `EtherType` of a service VLAN tag (IEEE 802.1ad, QinQ), as it stands in memory.
pub const ETHER_SERVICE_VLAN: u16 = 0x88a8u16.to_be();

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: u8 = 4;
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213, RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bits of the TCP flags byte (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}
