//! Outer headers as byte arrays, made from a backend's template.

use crate::{
    abi::{Backend, Encap, Standing},
    addr::Addr,
    packet::Packet,
    select,
    wire::{
        checksum,
        ip::{Family, V4, V6},
        protocol,
    },
};

/// TTL and hop limit of outer headers (RFC 2003 section 3.1 wants a value large enough to reach the end).
pub const OUTER_TTL: u8 = 64;

/// Don't-fragment, in an IPv4 header's flags field.
const DF: [u8; 2] = [0x40, 0];

/// The bits of a VLAN tag's control information that name the VLAN (IEEE 802.1Q).
pub const VLAN_ID: u16 = 0x0fff;

/// Where the IP header begins in a frame with one VLAN tag; bytes.
pub const TAGGED_OFFSET: u8 = 18;

/// What [`Standing::sum`](crate::abi::Standing::sum) is for these outer addresses: the sum of all that every packet shares.
/// Left out are the traffic class, the length, TTL and protocol, and the flow's bits of the source.
pub const fn constant_sum(source: Addr, destination: Addr) -> u16 {
    let sum = checksum::add(0, &[0x45, 0]);
    let sum = checksum::add(sum, &DF);
    let sum = checksum::add(sum, &source.v4_octets());
    checksum::fold(checksum::add(sum, &destination.v4_octets()))
}

#[inline(always)]
const fn inner_protocol(packet: &Packet) -> u8 {
    if packet.is_v4 { V4::INNER_PROTOCOL } else { V6::INNER_PROTOCOL }
}

/// The flow's bits of the outer source address: they let the backend's NIC spread tunnelled flows over
/// its queues, although receive-side scaling looks no further than the outer addresses.
#[inline(always)]
const fn spread(standing: Standing, hash: u64) -> u32 {
    let mask = ((1u64 << (standing.spread_bits() & 63)) - 1) as u32;
    select::spread_of(hash) & mask
}

/// An outer IPv4 header as words that have its bytes' order in memory: DF set, identification 0 (RFC 6864 section 4.1),
/// DSCP and ECN of the inner packet (RFC 6040).
#[inline(always)]
const fn outer4(backend: &Backend, standing: Standing, packet: &Packet, hash: u64, protocol: u8) -> [u32; 5] {
    let length = packet.length as u32 + standing.overhead();
    let class = packet.traffic_class as u32;
    let ttl_protocol = (OUTER_TTL as u32) << 8 | protocol as u32;
    let spread = spread(standing, hash);
    let sum = standing.sum() as u32 + class + length + ttl_protocol + (spread >> 16) + (spread & 0xffff);
    let check = checksum::finish(sum) as u32;
    [
        (0x4500_0000 | class << 16 | length & 0xffff).to_be(),
        u32::from_be_bytes([0, 0, DF[0], DF[1]]).to_be(),
        (ttl_protocol << 16 | check).to_be(),
        backend.outer_source.last_word() | spread.to_be(),
        backend.address.last_word(),
    ]
}

/// An outer IPv6 header as words that have its bytes' order in memory: the flow label from the flow's hash (RFC 6438)
/// and the traffic class of the inner packet (RFC 6040).
#[inline(always)]
const fn outer6(backend: &Backend, standing: Standing, packet: &Packet, hash: u64, protocol: u8) -> [u64; 5] {
    let label = (hash >> 12) as u32 & 0xf_ffff;
    let first = 6 << 28 | (packet.traffic_class as u32) << 20 | label;
    let length = (packet.length as u32 + standing.overhead()).wrapping_sub(40);
    let second = length << 16 | (protocol as u32) << 8 | OUTER_TTL as u32;
    let [source_high, source_low] = backend.outer_source.words();
    let [destination_high, destination_low] = backend.address.words();
    [
        ((first as u64) << 32 | second as u64).to_be(),
        source_high,
        // The template's own low bits are zero where the flow's go.
        source_low | (spread(standing, hash) as u64).to_be(),
        destination_high,
        destination_low,
    ]
}

/// The UDP header of a GUE packet, as two words in the order of memory. The source port is the flow's, from the dynamic
/// ports (RFC 6335), for receive-side scaling that looks at ports. The checksum is 0: the inner packet has its own, and
/// a tunnel may do without (RFC 768; for IPv6 RFC 6935 and RFC 6936).
#[inline(always)]
const fn udp(backend: &Backend, hash: u64, length: u32) -> [u32; 2] {
    let source = 0xc000 | select::spread_of(hash) & 0x3fff;
    [(source << 16 | backend.gue_port as u32 & 0xffff).to_be(), (length << 16).to_be()]
}

/// The header of GUE variant 0: version 0, no control message, no optional fields, and what follows.
#[inline(always)]
const fn gue_header(packet: &Packet) -> u32 {
    ((inner_protocol(packet) as u32) << 16).to_be()
}

/// The outer header of [`Encap::Ip4`] (RFC 2003, RFC 4213).
#[inline(always)]
pub const fn ip4(backend: &Backend, standing: Standing, packet: &Packet, hash: u64) -> [u32; 5] {
    outer4(backend, standing, packet, hash, inner_protocol(packet))
}

/// The outer header of [`Encap::Ip6`] (RFC 2473).
#[inline(always)]
pub const fn ip6(backend: &Backend, standing: Standing, packet: &Packet, hash: u64) -> [u64; 5] {
    outer6(backend, standing, packet, hash, inner_protocol(packet))
}

/// Outer headers of GUE, of which [`Standing::overhead`] bytes are used. With room for every length that
/// [`gue_length`] may give.
pub type Gue = [u32; 16];

/// How many bytes of [`Gue`] are used: 1 to 64, so that the verifier sees that they are there.
#[inline(always)]
pub const fn gue_length(standing: Standing) -> u32 {
    (standing.overhead().wrapping_sub(1) & 63) + 1
}

/// The outer headers of GUE in all four kinds: one array and one length, because the verifier walks every way to write a
/// header on its own. Variant 1 ends before the GUE header.
#[inline(always)]
pub const fn gue(backend: &Backend, standing: Standing, encap: Encap, packet: &Packet, hash: u64) -> Gue {
    let header = gue_header(packet);
    let length = packet.length as u32 + standing.overhead();
    if encap.is_outer_v4() {
        let [a, b, c, d, e] = outer4(backend, standing, packet, hash, protocol::UDP);
        let [f, g] = udp(backend, hash, length.wrapping_sub(20));
        [a, b, c, d, e, f, g, header, 0, 0, 0, 0, 0, 0, 0, 0]
    } else {
        let [a, b, c, d, e] = outer6(backend, standing, packet, hash, protocol::UDP);
        let [k, l] = udp(backend, hash, length.wrapping_sub(40));
        let ([a, b], [c, d], [e, f], [g, h], [i, j]) =
            (parted(a), parted(b), parted(c), parted(d), parted(e));
        [a, b, c, d, e, f, g, h, i, j, k, l, header, 0, 0, 0]
    }
}

/// A word as two, in the order of memory.
#[inline(always)]
const fn parted(word: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [word as u32, (word >> 32) as u32]
    } else {
        [(word >> 32) as u32, word as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet::Kind, wire::pod};

    fn packet(length: u16, traffic_class: u8) -> Packet {
        Packet {
            source: Addr::v4([10, 0, 0, 1]),
            destination: Addr::v4([192, 0, 2, 1]),
            source_port: 1000,
            destination_port: 80,
            protocol: 6,
            tcp_flags: 0,
            traffic_class,
            ttl: 60,
            length,
            offset: 14,
            is_v4: true,
            kind: Kind::Whole,
            quic_head: 0,
            quic_id: 0,
            fragment: 0,
        }
    }

    #[test]
    fn the_checksum_is_right_for_every_flow_and_length() {
        let source = Addr::v4([172, 16, 0, 0]);
        let destination = Addr::v4([10, 9, 0, 12]);
        let backend = Backend { outer_source: source, address: destination, ..Backend::default() };
        let standing = Standing::new(Encap::Ip4, 16, constant_sum(source, destination), 0);
        for hash in (0..200_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let header = ip4(&backend, standing, &packet((hash >> 40) as u16 & 0x3fff, hash as u8), hash);
            let header = pod::bytes(&header);
            assert_eq!(checksum::fold(checksum::add(0, header)), 0xffff, "{header:x?}");
            assert_eq!(header[12..14], [172, 16]);
        }
    }
}
