//! The answer to a packet that does not fit its backend's tunnel: what does fit (RFC 1191, RFC 8201).
//!
//! It comes from the VIP, so that it takes the way back that the backends' packets take, and quotes the packet as it
//! came. An IPv4 packet that may be fragmented is answered like one that must not be: fragments would each need a
//! tunnel of their own, and hosts that do not set DF heed the answer just as well.

use crate::{
    encap::OUTER_TTL,
    packet::{Kind, Packet},
    wire::{checksum, protocol},
};

/// Bytes that are quoted of an IPv4 packet: with both headers still below the 576 that RFC 1812 section 4.3.2.3 sets.
pub const QUOTED_V4: usize = 512;

/// Bytes that are quoted of an IPv6 packet: as many as fit the least MTU (RFC 4443 section 3.2).
pub const QUOTED_V6: usize = 1280 - 48;

/// No IPv4 link is narrower (RFC 791 section 3.1).
const LEAST_V4: u16 = 68;

/// No IPv6 link is narrower (RFC 8200 section 5).
const LEAST_V6: u16 = 1280;

/// Whether the sender is told: never about ICMP or a later fragment (RFC 1122 section 3.2.2), nor of less than any link
/// must carry.
#[inline(always)]
pub const fn is_answered(packet: &Packet, room: u16) -> bool {
    let (quoted, least) = if packet.is_v4 { (QUOTED_V4, LEAST_V4) } else { (QUOTED_V6, LEAST_V6) };
    matches!(packet.kind, Kind::Whole | Kind::FirstFragment)
        && packet.length as usize >= quoted
        && room >= least
}

/// IP and ICMP header of an answer, words in the order of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<H>(pub H);

/// ICMP destination unreachable, fragmentation needed (RFC 792, RFC 1191 section 4). `quoted` is the sum of the quoted
/// bytes in the order of memory.
#[inline(always)]
pub const fn notice_v4(packet: &Packet, room: u16, quoted: u32) -> Notice<[u32; 7]> {
    const LENGTH: u32 = 20 + 8 + QUOTED_V4 as u32;
    const KIND: u32 = 0x0304;
    const TTL_PROTOCOL: u32 = (OUTER_TTL as u32) << 8 | protocol::ICMP as u32;
    let source = packet.destination.last_word();
    let destination = packet.source.last_word();
    let addresses = words(source) + words(destination);
    let check = checksum::finish(0x4500 + LENGTH + TTL_PROTOCOL + addresses) as u32;
    let icmp = checksum::finish(KIND + room as u32 + in_network_order(quoted)) as u32;
    Notice([
        (0x4500_0000 | LENGTH).to_be(),
        0,
        (TTL_PROTOCOL << 16 | check).to_be(),
        source,
        destination,
        (KIND << 16 | icmp).to_be(),
        (room as u32).to_be(),
    ])
}

/// ICMPv6 packet too big (RFC 4443 section 3.2). `quoted` is as for IPv4.
#[inline(always)]
pub const fn notice_v6(packet: &Packet, room: u16, quoted: u32) -> Notice<[u64; 6]> {
    const PAYLOAD: u32 = 8 + QUOTED_V6 as u32;
    const KIND: u32 = 0x0200;
    let [source_high, source_low] = packet.destination.words();
    let [destination_high, destination_low] = packet.source.words();
    let addresses =
        halves(source_high) + halves(source_low) + halves(destination_high) + halves(destination_low);
    // The pseudo-header (RFC 8200 section 8.1): addresses, length, next header.
    let sum = addresses + PAYLOAD + protocol::ICMPV6 as u32 + KIND + room as u32 + in_network_order(quoted);
    let icmp = checksum::finish(sum) as u64;
    let second = PAYLOAD << 16 | (protocol::ICMPV6 as u32) << 8 | OUTER_TTL as u32;
    Notice([
        (6 << 60 | second as u64).to_be(),
        source_high,
        source_low,
        destination_high,
        destination_low,
        ((KIND as u64) << 48 | icmp << 32 | room as u64).to_be(),
    ])
}

/// The two 16-bit words of a word that has its bytes' order in memory, added up.
#[inline(always)]
const fn words(word: u32) -> u32 {
    let host = u32::from_be(word);
    (host >> 16) + (host & 0xffff)
}

#[inline(always)]
const fn halves(word: u64) -> u32 {
    words(word as u32) + words((word >> 32) as u32)
}

/// A sum of words as they lie in memory, as the sum of the numbers they stand for: the one's complement sum does not
/// depend on the byte order but for its own (RFC 1071 section 2 (B)).
#[inline(always)]
const fn in_network_order(sum: u32) -> u32 {
    u16::from_be(checksum::fold(sum)) as u32
}
