//! What a frame must look like when it has left the balancer, worked out from the frame that came in.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{checksum, ether, ip_offset, protocol};

/// The Ethernet addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs {
    /// Whom it goes to.
    pub destination: [u8; 6],
    /// Whom it comes from.
    pub source: [u8; 6],
}

/// An outer header, as far as it is not the inner packet that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Whom it comes from.
    pub source: IpAddr,
    /// The backend; of the same family.
    pub destination: IpAddr,
    /// Of an IPv6 header, 20 bits.
    pub flow_label: u32,
    /// What stands between the two IP headers.
    pub gue: Option<Gue>,
}

/// Generic UDP encapsulation (draft-ietf-intarea-gue).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gue {
    /// The flow's.
    pub source_port: u16,
    /// The tunnel's.
    pub port: u16,
    /// Whether it is variant 0, which has a header of its own.
    pub header: bool,
}

/// TTL of outer headers.
const TTL: u8 = 64;

/// The frame with the TTL or hop limit of its IP packet one less, and the checksum of an IPv4 header worked out anew.
///
/// # Panics
/// If there is no IP packet in it, or one that has come to its end.
pub fn one_hop_on(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let offset = ip_offset(&frame);
    let packet = &mut frame[offset..];
    if packet[0] >> 4 == 4 {
        let length = 4 * usize::from(packet[0] & 0x0f);
        let header = &mut packet[..length];
        header[8] -= 1;
        header[10..12].fill(0);
        let sum = checksum(&[header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[7] -= 1;
    }
    frame
}

/// The frame with other Ethernet addresses and all else as it was.
pub fn rewritten(frame: &[u8], macs: Macs) -> Vec<u8> {
    [&macs.destination, &macs.source, &frame[12..]].concat()
}

/// The frame with an outer header before its IP packet (RFC 2003, RFC 2473, RFC 4213). VLAN tags stay before
/// the outer header; Ethernet padding stays behind the packet and is not part of it.
pub fn wrapped(frame: &[u8], macs: Macs, outer: Outer) -> Vec<u8> {
    let (head, packet) = frame.split_at(ip_offset(frame));
    let word = |at: usize| u16::from(packet[at]) << 8 | u16::from(packet[at + 1]);
    // RFC 6040: DSCP and ECN are the inner packet's.
    let (inner, length, class) = match packet[0] >> 4 {
        4 => (protocol::IPIP, word(2), packet[1]),
        6 => (protocol::IPV6, word(4) + 40, (word(0) >> 4) as u8),
        version => panic!("IP version {version} cannot have been forwarded"),
    };
    let mut between = BytesMut::new();
    let mut inner = inner;
    if let Some(Gue { source_port, port, header }) = outer.gue {
        between.put_u16(source_port);
        between.put_u16(port);
        between.put_u16(length + if header { 12 } else { 8 });
        between.put_u16(0);
        if header {
            between.put_slice(&[0, inner, 0, 0]);
        }
        inner = protocol::UDP;
    }
    let length = length + between.len() as u16;
    let mut header = BytesMut::new();
    let ether_type = match (outer.source, outer.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.put_slice(&[0x45, class]);
            header.put_u16(length + 20);
            // Identification 0, don't fragment.
            header.put_slice(&[0, 0, 0x40, 0, TTL, inner, 0, 0]);
            header.put_slice(&source.octets());
            header.put_slice(&destination.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            ether::IPV4
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.put_u32(6 << 28 | u32::from(class) << 20 | outer.flow_label);
            header.put_u16(length);
            header.put_slice(&[inner, TTL]);
            header.put_slice(&source.octets());
            header.put_slice(&destination.octets());
            ether::IPV6
        }
        (source, destination) => panic!("an outer header from {source} to {destination}"),
    };
    header.put_slice(&between);
    header.put_slice(packet);
    let tags = &head[12..head.len() - 2];
    [&macs.destination, &macs.source, tags, &ether_type.to_be_bytes(), &header].concat()
}

/// The outer source address and flow label that stand in a frame: the two things the flow's hash decides.
///
/// # Panics
/// If the frame has no whole IP header.
pub fn spread_in(frame: &[u8]) -> (IpAddr, u32) {
    let packet = &frame[ip_offset(frame)..];
    if packet[0] >> 4 == 4 {
        let source: [u8; 4] = packet[12..16].try_into().expect("four bytes");
        (IpAddr::from(source), 0)
    } else {
        let source: [u8; 16] = packet[8..24].try_into().expect("sixteen bytes");
        let [_, high, middle, low] = packet[..4].try_into().expect("four bytes");
        (IpAddr::from(source), u32::from_be_bytes([0, high & 0x0f, middle, low]))
    }
}

/// The source port of the UDP header behind the outer IP header of a frame.
///
/// # Panics
/// If the frame has none.
pub fn source_port_in(frame: &[u8]) -> u16 {
    let packet = &frame[ip_offset(frame)..];
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Whether an address lies in a prefix of its family.
pub fn is_in(address: IpAddr, (prefix, length): (IpAddr, u8)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((address, width), (prefix, prefix_width)) = (bits(address), bits(prefix));
    width == prefix_width && (length == 0 || (address ^ prefix) >> (128 - u32::from(length)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{hex, udp};

    #[test]
    fn a_wrapped_frame_is_the_one_worked_out_elsewhere() {
        let frame = udp("10.0.0.1:1024", "192.0.2.53:53").payload(*b"hello").identification(7).frame();
        let macs = Macs { destination: [2, 0, 0, 0, 0, 5], source: [2, 0, 0, 0, 0, 6] };
        let v4 = Outer {
            source: "172.16.0.0".parse().unwrap(),
            destination: "10.9.0.12".parse().unwrap(),
            flow_label: 0,
            gue: None,
        };
        assert_eq!(
            hex::encode(&wrapped(&frame, macs, v4)[..34]),
            "02000000000502000000000608004500003500004000400484a0ac1000000a09000c"
        );
        assert_eq!(wrapped(&frame, macs, v4)[34..], frame[14..]);
        assert_eq!(spread_in(&wrapped(&frame, macs, v4)), (v4.source, 0));

        let gue = Outer { gue: Some(Gue { source_port: 0xc123, port: 6080, header: true }), ..v4 };
        assert_eq!(
            hex::encode(&wrapped(&frame, macs, gue)[14..46]),
            "450000410000400040118487ac1000000a09000cc12317c0002d000000040000"
        );
    }

    #[test]
    fn prefixes_hold_their_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (address, prefix, length, inside) in [
            ("172.16.3.4", "172.16.0.0", 16, true),
            ("172.17.3.4", "172.16.0.0", 16, false),
            ("9.9.9.9", "0.0.0.0", 0, true),
            ("100::1", "100::", 64, true),
            ("100:0:0:1::1", "100::", 64, false),
            ("100::1", "0.0.0.0", 0, false),
        ] {
            assert_eq!(is_in(ip(address), (ip(prefix), length)), inside, "{address} in {prefix}/{length}");
        }
    }
}
