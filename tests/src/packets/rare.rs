//! Packets that are not one packet of a flow: fragments, and ICMP messages about others.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, BytesMut};

use super::{Packet, Transport, checksum, protocol};

/// ICMP types, IPv4 and IPv6 (RFC 792, RFC 4443).
pub mod icmp {
    /// Echo request.
    pub const ECHO: [u8; 2] = [8, 128];
    /// Echo reply.
    pub const ECHO_REPLY: [u8; 2] = [0, 129];
    /// Destination unreachable.
    pub const UNREACHABLE: [u8; 2] = [3, 1];
    /// Fragmentation needed: type and code of IPv4; packet too big: type and code of IPv6.
    pub const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];
    /// Time exceeded.
    pub const TIME_EXCEEDED: [u8; 2] = [11, 3];
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: [u8; 2] = [12, 4];
}

/// An ICMP message: `rest` is its second word, `quoted` what follows.
pub fn icmp(source: IpAddr, destination: IpAddr, (kind, code): (u8, u8), rest: u32, quoted: &[u8]) -> Packet {
    let mut message = BytesMut::new();
    message.put_slice(&[kind, code, 0, 0]);
    message.put_u32(rest);
    message.put_slice(quoted);
    let (number, pseudo) = match (source, destination) {
        // RFC 792: over the message alone.
        (IpAddr::V4(_), IpAddr::V4(_)) => (protocol::ICMP, BytesMut::new()),
        // RFC 4443 section 2.3: with the pseudo-header.
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut pseudo = BytesMut::new();
            pseudo.put_slice(&source.octets());
            pseudo.put_slice(&destination.octets());
            pseudo.put_u32(message.len() as u32);
            pseudo.put_u32(u32::from(protocol::ICMPV6));
            (protocol::ICMPV6, pseudo)
        }
        other => panic!("one family: {other:?}"),
    };
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let at = |address| SocketAddr::new(address, 0);
    Packet::new(at(source), at(destination), Transport::Raw).payload(message).protocol(number)
}

impl Packet {
    /// An ICMP error about this packet, from a router on its way to its source. `quoted` bytes of it are in it.
    pub fn error(&self, router: IpAddr, what: (u8, u8), rest: u32, quoted: usize) -> Self {
        let mut packet = self.ip_packet();
        packet.truncate(quoted);
        icmp(router, self.source.ip(), what, rest, &packet)
    }

    /// The answer to this packet from where it went: no more than `room` bytes fit there. Of IPv4 it quotes 512 bytes, of
    /// IPv6 as many as fit the least MTU.
    pub fn too_big(&self, room: u32) -> Self {
        let family = usize::from(self.source.is_ipv6());
        let quoted = [512, 1280 - 48][family];
        Self {
            tags: self.tags.clone(),
            ..self.error(self.destination.ip(), icmp::TOO_BIG[family], room, quoted)
        }
    }

    /// The same packet in the other direction.
    pub fn reply(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    /// The packet in fragments that carry `size` bytes each, a multiple of 8, and the last one the rest. What stands
    /// before the transport header stands in each.
    pub fn fragments(&self, id: u32, size: usize) -> Vec<Self> {
        assert!(size > 0 && size.is_multiple_of(8));
        let segment = self.segment();
        let count = segment.len().div_ceil(size);
        let part = |(number, bytes): (usize, &[u8])| {
            let units = (number * size / 8) as u16;
            let more = number + 1 < count;
            let whole = Self {
                transport: Transport::Raw,
                payload: bytes.to_vec(),
                protocol: Some(self.number()),
                ..self.clone()
            };
            if self.source.is_ipv4() {
                whole.identification(id as u16).fragment(u16::from(more) << 13 | units)
            } else {
                let mut rest = BytesMut::new();
                rest.put_u8(0);
                rest.put_u16(units << 3 | u16::from(more));
                rest.put_u32(id);
                whole.extension(protocol::FRAGMENT, &rest)
            }
        };
        segment.chunks(size).enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{hex, udp};

    #[test]
    fn fragments_of_both_families() {
        let whole = udp("10.0.0.1:1024", "192.0.2.53:53").payload([0x5a; 20]);
        let parts: Vec<Vec<u8>> = whole.fragments(7, 16).iter().map(Packet::ip_packet).collect();
        assert_eq!(hex::encode(&parts[0][..10]), "45000024000720004011");
        assert_eq!(hex::encode(&parts[1][..10]), "45000020000700024011");
        assert_eq!([&parts[0][20..], &parts[1][20..]].concat(), whole.ip_packet()[20..]);

        let whole = udp("[::1]:1024", "[::2]:53").payload([0x5a; 20]);
        let parts: Vec<Vec<u8>> = whole.fragments(7, 16).iter().map(Packet::ip_packet).collect();
        assert_eq!(parts[0][6], protocol::FRAGMENT);
        assert_eq!(hex::encode(&parts[0][40..48]), "1100000100000007");
        assert_eq!(hex::encode(&parts[1][40..48]), "1100001000000007");
    }

    #[test]
    fn an_echo_request_of_the_textbook() {
        let source = "10.0.0.1".parse().unwrap();
        let echo = icmp(source, "10.0.0.2".parse().unwrap(), (8, 0), 0x0001_0002, b"ab");
        // 0x0800 + 0x0001 + 0x0002 + 0x6162 = 0x6965, complemented.
        assert_eq!(hex::encode(&echo.ip_packet()[20..]), "0800969a000100026162");
    }
}
