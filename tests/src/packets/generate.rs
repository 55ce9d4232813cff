//! Random frames: mostly for the services at hand, and broken in the ways that frames from the internet are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ETHERNET_LEN, Packet, ether, ethernet, protocol, random::Random};

/// Where packets may go: VIP, protocol and port of every service.
pub type Destination = (SocketAddr, u8);

/// A random frame.
pub fn frame(random: &mut Random, services: &[Destination]) -> Vec<u8> {
    let mut frame = match random.below(30) {
        0 => {
            let length = ETHERNET_LEN + random.below(120);
            let mut frame = random.bytes(length);
            let ether_type = random.pick(&[ether::IPV4, ether::IPV6, ether::ARP, ether::VLAN]);
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            frame
        }
        1 => {
            let length = random.below(60);
            let payload = random.bytes(length);
            ethernet(random.array(), random.array(), random.half(), &payload)
        }
        _ => packet(random, services).frame(),
    };
    if random.once_in(4) {
        for _ in 0..=random.below(3) {
            mutate(random, &mut frame);
        }
    }
    frame
}

/// A random TCP or UDP packet without contradictions, but for a service only mostly.
fn packet(random: &mut Random, services: &[Destination]) -> Packet {
    let (destination, number) = match services {
        [_, ..] if !random.once_in(8) => random.pick(services),
        _ => {
            let address = nearby(random, services);
            let port = random.pick(&[0, 1, 80, 443, 8081, 65535]);
            (SocketAddr::new(address, port), random.pick(&[protocol::TCP, protocol::UDP]))
        }
    };
    let source = client(random, destination.is_ipv4());
    let mut packet = match number {
        protocol::UDP => Packet::udp(source, destination),
        _ => Packet::tcp(source, destination).flags(random.byte()),
    };
    packet =
        packet.ttl(random.byte()).traffic_class(random.byte()).flow_label(random.next() as u32 & 0xf_ffff);
    packet = packet.identification(random.half()).fragment(random.pick(&[0, 0x4000, 0x8000, 0xc000]));
    if destination.is_ipv4() && random.once_in(6) {
        let words = random.below(11);
        packet = packet.options(&random.bytes(4 * words));
    }
    if destination.is_ipv6() && random.once_in(12) {
        let number = random.pick(&[0, 43, 44, 50, 51, 60, 135]);
        let rest = random.bytes(7);
        packet = packet.extension(number, &rest);
    }
    if random.once_in(30) {
        packet = packet.fragment(random.half());
    }
    packet = match random.below(4) {
        0 => packet,
        // Around the MTUs of the hops, less an outer header or not.
        1 => {
            let mtu = random.pick(&[128, 576, 1280, 1480, 1500]);
            let outer = random.pick(&[0, 20, 40]);
            packet.ip_length(mtu - outer - 1 + random.below(3))
        }
        _ => {
            let length = random.below(64);
            packet.payload(random.bytes(length))
        }
    };
    if random.once_in(4) { packet.padding(random.below(20)) } else { packet }
}

fn client(random: &mut Random, v4: bool) -> SocketAddr {
    let address = if v4 {
        IpAddr::V4(Ipv4Addr::from(random.next() as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from(u128::from(random.next()) << 64 | u128::from(random.next())))
    };
    SocketAddr::new(address, random.half())
}

/// An address that is a service's or differs from one in its last bits.
fn nearby(random: &mut Random, services: &[Destination]) -> IpAddr {
    let unused: SocketAddr = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 0).into(), 0);
    let known = services.get(random.below(services.len().max(1))).map_or(unused, |&(address, _)| address);
    let low = random.below(8) as u8;
    match known.ip() {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address) ^ u32::from(low))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) ^ u128::from(low))),
    }
}

/// Breaks something, preferably in the headers.
fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    if frame.len() <= ETHERNET_LEN {
        return;
    }
    let headers = frame.len().min(ETHERNET_LEN + 80);
    let within = |random: &mut Random, end: usize| ETHERNET_LEN + random.below(end - ETHERNET_LEN);
    match random.below(8) {
        0..=1 => {
            let at = random.below(headers);
            frame[at] ^= 1 << random.below(8);
        }
        2 => {
            let at = within(random, headers);
            frame[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff, 4, 6, 17, 41, 0x45, 0x60]);
        }
        3 => frame.truncate(random.below(frame.len() + 1)),
        4 => {
            let length = random.below(40);
            frame.extend(random.bytes(length));
        }
        // The length field of either family, to something near the truth or anything.
        5..=6 => {
            let at = ETHERNET_LEN + random.pick(&[2, 4]);
            let Some(field) = frame.get(at..at + 2) else { return };
            let known = u16::from_be_bytes([field[0], field[1]]);
            let length = match random.below(3) {
                0 => random.half(),
                1 => known.wrapping_add(random.below(5) as u16).wrapping_sub(2),
                _ => random.pick(&[0, 19, 20, 27, 28, 39, 40, 65495, 65496, 65535]),
            };
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        _ => {
            let at = within(random, headers);
            let end = (at + 1 + random.below(8)).min(frame.len());
            let noise = random.bytes(end - at);
            frame[at..end].copy_from_slice(&noise);
        }
    }
}
