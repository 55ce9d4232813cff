//! IPv4 and IPv6 behind one trait: where the families differ, and nowhere else.

use network_types::ip::Ipv6Hdr;

use super::{
    pod::{Longs, Pod},
    protocol,
};
use crate::{abi::PassReason, addr::Addr, opaque::rarely, parse::Frame};

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
    /// TTL or hop limit.
    pub ttl: u8,
    /// Where the next header starts, from the start of this one; bytes.
    pub header_len: u16,
    /// Length of the packet, this header included; bytes.
    pub total_len: u16,
    /// Whether it is a fragment.
    pub part: Part,
    /// What all fragments of the packet share; 0 if it is whole.
    pub fragment: u32,
}

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole.
    Whole,
    /// The first part: transport ports are in it.
    First,
    /// Any other.
    Later,
}

impl Part {
    /// From the more-fragments flag and the offset, in any unit.
    #[inline(always)]
    const fn new(more: bool, offset: u16) -> Self {
        match (more, offset) {
            (false, 0) => Self::Whole,
            (true, 0) => Self::First,
            _ => Self::Later,
        }
    }
}

/// The third word of an IPv4 header (TTL, protocol, checksum; bytes in the order of memory) with the TTL one less and
/// the checksum to match (RFC 1624). The TTL must not be 0.
#[inline(always)]
pub const fn hop_v4(word: u32) -> u32 {
    // The TTL is the lowest byte, the checksum the upper half. One's complement addition does not mind the order of bytes
    // (RFC 1071 section 2): what the TTL loses in its place the checksum gains in its.
    let sum = word as u64 - 1 + (1 << 16);
    // As the sum over the whole header has it: never minus zero (RFC 1624 section 3).
    (if sum >= 0xffff_0000 { sum + (1 << 16) } else { sum }) as u32
}

/// An IP version.
pub trait Family {
    /// Its header without options.
    type Header: Pod;
    /// Which it is.
    const IS_V4: bool;
    /// `IPIP` or `IPV6`: the protocol number of this family inside another IP header.
    const INNER_PROTOCOL: u8;
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// ICMP type of an echo request.
    const ECHO_REQUEST: u8;
    /// ICMP type of an echo reply.
    const ECHO_REPLY: u8;

    /// Reads a header.
    ///
    /// # Errors
    /// The reason to leave the packet to the kernel: the header contradicts itself.
    fn header(header: &Self::Header) -> Result<IpHeader, PassReason>;

    /// Steps over what stands between the header, which begins at `offset`, and the transport's.
    ///
    /// # Errors
    /// The reason to leave the packet to the kernel: more of it than anyone sends, or it contradicts itself.
    fn skip_extensions<F: Frame + ?Sized>(
        frame: &F,
        offset: usize,
        header: IpHeader,
    ) -> Result<IpHeader, PassReason>;

    /// Whether an ICMP type is an error that quotes the packet it is about.
    fn is_error(icmp_type: u8) -> bool;
}

/// IPv4 (RFC 791).
pub struct V4;

/// IPv6 (RFC 8200).
pub struct V6;

impl Family for V4 {
    /// Its five words, in the order of memory: the compiler would move the bytes of a struct one by one, or put what
    /// does not belong together in one word.
    type Header = [u32; 5];
    const IS_V4: bool = true;
    const INNER_PROTOCOL: u8 = protocol::IPV4;
    const ICMP: u8 = protocol::ICMP;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn header(header: &[u32; 5]) -> Result<IpHeader, PassReason> {
        let [first, second, third, source, destination] = *header;
        let [vihl, traffic_class, ..] = first.to_ne_bytes();
        let total_len = u32::from_be(first) as u16;
        let header_len = u16::from(vihl & 0x0f) * 4;
        if vihl >> 4 != 4 || header_len < 20 || total_len < header_len {
            return Err(rarely(PassReason::BadHeader));
        }
        let id = second as u16;
        let fragment = u32::from_be(second) as u16;
        let [ttl, protocol, ..] = third.to_ne_bytes();
        Ok(IpHeader {
            source: Addr::v4_word(source),
            destination: Addr::v4_word(destination),
            protocol,
            traffic_class,
            ttl,
            header_len,
            total_len,
            part: Part::new(fragment & 0x2000 != 0, fragment & 0x1fff),
            fragment: if fragment & 0x3fff != 0 { u32::from(id) } else { 0 },
        })
    }

    #[inline(always)]
    fn skip_extensions<F: Frame + ?Sized>(_: &F, _: usize, header: IpHeader) -> Result<IpHeader, PassReason> {
        // Options are part of the header.
        Ok(header)
    }

    /// Unreachable, source quench, time exceeded, parameter problem (RFC 792); redirects are for routers.
    #[inline(always)]
    fn is_error(icmp_type: u8) -> bool {
        matches!(icmp_type, 3 | 4 | 11 | 12)
    }
}

/// What IPv6 extension headers begin with, the fragment header among them (RFC 8200 sections 4.2 to 4.6); numbers as
/// they stand in memory.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Extension {
    next: u8,
    /// In units of 8 bytes, the first not counted; in a fragment header 0.
    length: u8,
    /// In a fragment header: offset and more-fragments flag.
    offset: u16,
    /// In a fragment header.
    id: u32,
}

// SAFETY: numbers without padding.
unsafe impl Pod for Extension {}

/// Headers behind the IPv6 header that are looked at, the transport's among them: so five extension headers are stepped
/// over. RFC 8200 section 4.1 has an order of at most six kinds, which nobody sends all at once.
const MAX_EXTENSIONS: usize = 6;

/// Bytes that an IPv6 header and its extension headers may take. More is not sent in earnest, and the verifier wants to
/// see where it ends.
const MAX_HEADERS: u16 = 1024;

impl Family for V6 {
    type Header = Longs<Ipv6Hdr>;
    const IS_V4: bool = false;
    const INNER_PROTOCOL: u8 = protocol::IPV6;
    const ICMP: u8 = protocol::ICMPV6;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn header(Longs(header): &Longs<Ipv6Hdr>) -> Result<IpHeader, PassReason> {
        let [version, class, _, _] = header.vcf;
        let Some(total_len) = u16::from_be_bytes(header.payload_len).checked_add(40) else {
            return Err(rarely(PassReason::BadHeader));
        };
        let destination = Addr::v6(header.dst_addr);
        // No IPv6 packet may carry a v4-mapped address (RFC 6890 section 2.2.3), and this one would find the services
        // of the IPv4 address.
        if version >> 4 != 6 || destination.is_v4() {
            return Err(rarely(PassReason::BadHeader));
        }
        Ok(IpHeader {
            source: Addr::v6(header.src_addr),
            destination,
            protocol: header.next_hdr,
            traffic_class: version << 4 | class >> 4,
            ttl: header.hop_limit,
            header_len: 40,
            total_len,
            part: Part::Whole,
            fragment: 0,
        })
    }

    #[inline(always)]
    fn skip_extensions<F: Frame + ?Sized>(
        frame: &F,
        offset: usize,
        mut header: IpHeader,
    ) -> Result<IpHeader, PassReason> {
        for _ in 0..MAX_EXTENSIONS {
            let is_fragment = header.protocol == protocol::FRAGMENT;
            if !is_fragment
                && !matches!(
                    header.protocol,
                    protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
                )
            {
                return Ok(header);
            }
            let part: Extension =
                frame.read(offset + usize::from(header.header_len)).ok_or(PassReason::Truncated)?;
            header.protocol = part.next;
            header.header_len += (u16::from(part.length) + 1) * 8;
            if header.header_len > header.total_len || header.header_len > MAX_HEADERS {
                return Err(PassReason::BadHeader);
            }
            if is_fragment {
                let offset = u16::from_be(part.offset);
                if part.length != 0 || header.part != Part::Whole {
                    return Err(PassReason::BadHeader);
                }
                header.part = Part::new(offset & 1 != 0, offset >> 3);
                header.fragment = if header.part == Part::Whole { 0 } else { part.id };
                // What follows the fragment header of a later fragment is payload.
                if header.part == Part::Later {
                    return Ok(header);
                }
            }
        }
        Err(PassReason::Extension)
    }

    /// Errors have types below 128 (RFC 4443 section 2.1).
    #[inline(always)]
    fn is_error(icmp_type: u8) -> bool {
        matches!(icmp_type, 1..=4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum;

    #[test]
    fn a_hop_keeps_the_checksum_right() {
        for seed in 0..0x1_0000u32 {
            let [high, low] = (seed as u16).to_be_bytes();
            let mut header = [
                0x45,
                0,
                high,
                low,
                low,
                high,
                0x40,
                0,
                1 + (low % 255),
                6,
                0,
                0,
                10,
                0,
                high,
                low,
                192,
                0,
                2,
                1,
            ];
            let check = checksum::finish(checksum::add(0, &header)).to_be_bytes();
            header[10..12].copy_from_slice(&check);
            let word = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            let ttl = header[8];
            header[8..12].copy_from_slice(&hop_v4(word).to_ne_bytes());
            assert_eq!(header[8], ttl - 1);
            assert_eq!(checksum::fold(checksum::add(0, &header)), 0xffff, "{header:x?}");
        }
    }
}
