//! Outer headers as byte arrays, made from a backend's template.

use crate::{
    abi::{Backend, Encap},
    addr::Addr,
    packet::Packet,
    select,
    wire::{
        checksum,
        ip::{Family, V4, V6},
    },
};

/// TTL and hop limit of outer headers (RFC 2003 section 3.1 wants a value large enough to reach the end).
pub const OUTER_TTL: u8 = 64;

/// Don't-fragment, in an IPv4 header's flags field.
const DF: [u8; 2] = [0x40, 0];

/// Bytes that an encap adds to a packet.
#[inline(always)]
pub const fn overhead(encap: Encap) -> u32 {
    match encap {
        Encap::L2 => 0,
        Encap::Ip4 => 20,
        Encap::Ip6 => 40,
    }
}

/// What [`Backend::sum`] holds for these outer addresses: the sum of all that every packet shares.
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
const fn spread(backend: &Backend, hash: u64) -> u32 {
    let mask = ((1u64 << (backend.spread_bits & 63)) - 1) as u32;
    select::spread_of(hash) & mask
}

/// The outer IPv4 header (RFC 2003): DF set, identification 0 (RFC 6864 section 4.1), DSCP and ECN of the
/// inner packet (RFC 6040).
#[inline(always)]
pub const fn ip4(backend: &Backend, packet: &Packet, hash: u64) -> [u8; 20] {
    let length = packet.length.wrapping_add(20);
    let protocol = inner_protocol(packet);
    let spread = spread(backend, hash);
    let sum = backend.sum as u32
        + packet.traffic_class as u32
        + length as u32
        + ((OUTER_TTL as u32) << 8 | protocol as u32)
        + (spread >> 16)
        + (spread & 0xffff);
    let [check_high, check_low] = checksum::finish(sum).to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    let [s0, s1, s2, s3] = (u32::from_be_bytes(backend.outer_source.v4_octets()) | spread).to_be_bytes();
    let [d0, d1, d2, d3] = backend.outer_destination.v4_octets();
    let [f0, f1] = DF;
    let class = packet.traffic_class;
    [
        0x45,
        class,
        length_high,
        length_low,
        0,
        0,
        f0,
        f1,
        OUTER_TTL,
        protocol,
        check_high,
        check_low,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ]
}

/// The outer IPv6 header (RFC 2473), the flow label from the flow's hash (RFC 6438) and the traffic class of the
/// inner packet (RFC 6040).
#[inline(always)]
pub fn ip6(backend: &Backend, packet: &Packet, hash: u64) -> [u8; 40] {
    let mut header = [0; 40];
    let first = 6 << 28 | u32::from(packet.traffic_class) << 20 | (hash >> 12) as u32 & 0xf_ffff;
    header[..4].copy_from_slice(&first.to_be_bytes());
    header[4..6].copy_from_slice(&packet.length.to_be_bytes());
    header[6] = inner_protocol(packet);
    header[7] = OUTER_TTL;
    header[8..24].copy_from_slice(&backend.outer_source.octets());
    header[24..].copy_from_slice(&backend.outer_destination.octets());
    // The template's own low bits are zero where the flow's go.
    let low = u32::from_be_bytes([header[20], header[21], header[22], header[23]]) | spread(backend, hash);
    header[20..24].copy_from_slice(&low.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: u16, traffic_class: u8) -> Packet {
        Packet {
            source: Addr::v4([10, 0, 0, 1]),
            destination: Addr::v4([192, 0, 2, 1]),
            source_port: 1000,
            destination_port: 80,
            protocol: 6,
            tcp_flags: 0,
            traffic_class,
            length,
            is_v4: true,
        }
    }

    #[test]
    fn the_checksum_is_right_for_every_flow_and_length() {
        let source = Addr::v4([172, 16, 0, 0]);
        let destination = Addr::v4([10, 9, 0, 12]);
        let backend = Backend {
            encap: Encap::Ip4 as u8,
            spread_bits: 16,
            sum: constant_sum(source, destination),
            outer_source: source,
            outer_destination: destination,
            ..Backend::default()
        };
        for hash in (0..200_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let header = ip4(&backend, &packet((hash >> 40) as u16 & 0x3fff, hash as u8), hash);
            assert_eq!(checksum::fold(checksum::add(0, &header)), 0xffff, "{header:x?}");
            assert_eq!(header[12..14], [172, 16]);
        }
    }
}
