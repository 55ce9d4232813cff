//! IPv4 and IPv6 behind one trait: where the families differ, and nowhere else.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{pod::Pod, protocol};
use crate::{abi::PassReason, addr::Addr};

/// What a header says, in the terms both families share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Protocol of what follows the header.
    pub protocol: u8,
    /// DSCP and ECN (RFC 2474, RFC 3168).
    pub traffic_class: u8,
    /// Where the next header starts, from the start of this one; bytes.
    pub header_len: u16,
    /// Length of the packet, this header included; bytes.
    pub total_len: u16,
}

/// An IP version.
pub trait Family {
    /// Its header without options.
    type Header: Pod;
    /// `IPIP` or `IPV6`: the protocol number of this family inside another IP header.
    const INNER_PROTOCOL: u8;

    /// Reads a header.
    ///
    /// # Errors
    /// The reason to leave the packet to the kernel: the header contradicts itself, or what follows it
    /// does not carry ports.
    fn header(header: &Self::Header) -> Result<IpHeader, PassReason>;
}

/// IPv4 (RFC 791).
pub struct V4;

/// IPv6 (RFC 8200).
pub struct V6;

impl Family for V4 {
    type Header = Ipv4Hdr;
    const INNER_PROTOCOL: u8 = protocol::IPV4;

    #[inline(always)]
    fn header(header: &Ipv4Hdr) -> Result<IpHeader, PassReason> {
        let header_len = u16::from(header.vihl & 0x0f) * 4;
        let total_len = u16::from_be_bytes(header.tot_len);
        if header.vihl >> 4 != 4 || header_len < 20 || total_len < header_len {
            return Err(PassReason::BadHeader);
        }
        // More-fragments flag and offset: everything but reserved and DF.
        if u16::from_be_bytes(header.frags) & 0x3fff != 0 {
            return Err(PassReason::Fragment);
        }
        Ok(IpHeader {
            source: Addr::v4_word(u32::from_ne_bytes(header.src_addr)),
            destination: Addr::v4_word(u32::from_ne_bytes(header.dst_addr)),
            protocol: header.proto,
            traffic_class: header.tos,
            header_len,
            total_len,
        })
    }
}

impl Family for V6 {
    type Header = Ipv6Hdr;
    const INNER_PROTOCOL: u8 = protocol::IPV6;

    #[inline(always)]
    fn header(header: &Ipv6Hdr) -> Result<IpHeader, PassReason> {
        let [version, class, _, _] = header.vcf;
        let Some(total_len) = u16::from_be_bytes(header.payload_len).checked_add(40) else {
            return Err(PassReason::BadHeader);
        };
        if version >> 4 != 6 {
            return Err(PassReason::BadHeader);
        }
        let destination = Addr::v6(header.dst_addr);
        // No IPv6 packet may carry a v4-mapped address (RFC 6890 section 2.2.3), and this one would find the services
        // of the IPv4 address.
        if destination.is_v4() {
            return Err(PassReason::BadHeader);
        }
        match header.next_hdr {
            44 => return Err(PassReason::Fragment),
            // Hop-by-hop, routing, ESP, authentication, destination options, mobility (RFC 8200 section 4).
            0 | 43 | 50 | 51 | 60 | 135 => return Err(PassReason::Extension),
            _ => {}
        }
        Ok(IpHeader {
            source: Addr::v6(header.src_addr),
            destination,
            protocol: header.next_hdr,
            traffic_class: version << 4 | class >> 4,
            header_len: 40,
            total_len,
        })
    }
}
