//! Random frames: mostly for the services at hand, and broken in the ways that frames from the internet are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ETHERNET_LEN, Packet, ether, ethernet, flag, protocol, random::Random, rare::icmp};

/// Where packets may go: VIP, protocol and port of every service.
pub type Destination = (SocketAddr, u8);

/// A random frame.
pub fn frame(random: &mut Random, services: &[Destination]) -> Vec<u8> {
    // What may be around any packet.
    let wrapped_up = |random: &mut Random, make: fn(&mut Random, &[Destination]) -> Packet| {
        let mut packet = make(random, services);
        if random.once_in(6) {
            for _ in 0..=random.below(3) {
                let ether_type = random.pick(&[ether::VLAN, ether::VLAN, ether::SERVICE_VLAN, 0x9100]);
                packet = packet.tag(ether_type, random.half());
            }
        }
        packet.frame()
    };
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
        2..=5 => wrapped_up(random, error),
        6..=10 => wrapped_up(random, fragment),
        11 => wrapped_up(random, message),
        _ => wrapped_up(random, packet),
    };
    if random.once_in(4) {
        for _ in 0..=random.below(3) {
            mutate(random, &mut frame);
        }
    }
    frame
}

/// A random packet of a flow without contradictions, but for a service only mostly.
fn packet(random: &mut Random, services: &[Destination]) -> Packet {
    let packet = plain(random, services);
    let packet = match random.below(4) {
        0 => packet,
        // Around the MTUs of the hops, less an outer header or not.
        1 => {
            let mtu = random.pick(&[160, 576, 1280, 1480, 1500]);
            let outer = random.pick(&[0, 20, 40]);
            let length = mtu - outer - 1 + random.below(3);
            if packet.ip_packet().len() < length { packet.ip_length(length) } else { packet }
        }
        _ => {
            let length = random.below(64);
            packet.payload(random.bytes(length))
        }
    };
    if random.once_in(4) { packet.padding(random.below(20)) } else { packet }
}

/// The same without payload.
fn plain(random: &mut Random, services: &[Destination]) -> Packet {
    let (destination, number) = match services {
        [_, ..] if !random.once_in(8) => random.pick(services),
        _ => {
            let address = nearby(random, services);
            let port = random.pick(&[0, 1, 80, 443, 8081, 65535]);
            (SocketAddr::new(address, port), random.pick(&[protocol::TCP, protocol::UDP, protocol::SCTP]))
        }
    };
    let source = client(random, destination.is_ipv4());
    let mut packet = match number {
        protocol::UDP => Packet::udp(source, destination),
        protocol::SCTP => Packet::sctp(source, destination),
        // SYN, SYN and ACK, ACK, anything.
        _ => Packet::tcp(source, destination).flags(match random.below(4) {
            0 => flag::SYN,
            1 => flag::SYN | flag::ACK,
            2 => flag::ACK,
            _ => random.byte(),
        }),
    };
    packet = packet.ttl(match random.below(12) {
        0 => random.below(3) as u8,
        _ => random.byte(),
    });
    packet = packet.traffic_class(random.byte()).flow_label(random.next() as u32 & 0xf_ffff);
    packet = packet.identification(random.half()).fragment(random.pick(&[0, 0x4000, 0x8000, 0xc000]));
    if destination.is_ipv4() && random.once_in(6) {
        let words = random.below(11);
        packet = packet.options(&random.bytes(4 * words));
    }
    if destination.is_ipv6() && random.once_in(5) {
        packet = extended(random, packet);
    }
    if random.once_in(30) {
        packet = packet.fragment(random.half());
    }
    packet
}

/// The packet with a chain of extension headers, which seldom is longer than anyone sends or lies.
fn extended(random: &mut Random, mut packet: Packet) -> Packet {
    for _ in 0..=random.pick(&[0, 0, 1, 2, 4, 5, 6, 7]) {
        let number = random.pick(&[0, 43, 44, 50, 51, 60, 135]);
        // The authentication header counts words of 4 bytes, less 2 (RFC 4302 section 2.2).
        let (units, length) = if number == 51 {
            let words = random.below(6);
            (words, 4 * (words + 2))
        } else {
            let words = random.below(3);
            (words, 8 * (words + 1))
        };
        let mut rest = random.bytes(length - 1);
        if number == 44 {
            rest.truncate(7);
            // Whole, the first or any.
            rest[0] &= if random.once_in(20) { 0xff } else { 0 };
            rest[1] &= random.pick(&[0, 0, 0xff]);
            rest[2] &= random.pick(&[0, 1, 0xff]);
        } else {
            rest[0] = if random.once_in(20) { random.byte() } else { units as u8 };
        }
        packet = packet.extension(number, &rest);
    }
    packet
}

/// One fragment of a packet: few packets, so that fragments meet others of theirs.
fn fragment(random: &mut Random, services: &[Destination]) -> Packet {
    let length = random.below(200);
    let whole = plain(random, services).fragment(0).payload(random.bytes(length));
    let parts = whole.fragments(random.below(3) as u32, 8 * (1 + random.below(8)));
    let at = if random.once_in(2) { 0 } else { random.below(parts.len()) };
    parts[at].clone()
}

/// An ICMP error about a packet that a service sent, or about any other.
fn error(random: &mut Random, services: &[Destination]) -> Packet {
    let about = plain(random, services);
    let about = if random.once_in(6) { about } else { about.reply() };
    let about = if random.once_in(8) {
        let parts = about.fragment(0).payload([0; 40]).fragments(random.below(3) as u32, 32);
        random.pick(&parts)
    } else {
        about
    };
    let is_v4 = about.is_v4();
    let router = client(random, is_v4).ip();
    let kind =
        if is_v4 { random.pick(&[3, 3, 4, 5, 11, 12, 0]) } else { random.pick(&[1, 2, 2, 3, 4, 100, 129]) };
    let quoted = match random.below(3) {
        0 => random.below(60),
        1 => 28,
        _ => 1000,
    };
    let error = about.error(router, (kind, random.below(6) as u8), random.next() as u32, quoted);
    let error = match nearby(random, services) {
        other if other.is_ipv4() == is_v4 && random.once_in(6) => error.to(other),
        _ => error,
    };
    let error = if !is_v4 && random.once_in(6) { extended(random, error) } else { error };
    error.ttl(random.pick(&[1, 2, 64, 255])).traffic_class(random.byte())
}

/// An echo request to a VIP, and ICMP messages that are none.
fn message(random: &mut Random, services: &[Destination]) -> Packet {
    let destination = nearby(random, services);
    let source = client(random, destination.is_ipv4()).ip();
    let kind = random.pick(&[8, 8, 128, 128, 0, 13, 133, 135]);
    let code = if random.once_in(4) { random.byte() } else { 0 };
    let length = random.below(80);
    let payload = random.bytes(length);
    icmp(source, destination, (kind, code), random.next() as u32, &payload)
}

/// One of a few clients, or anyone.
fn client(random: &mut Random, v4: bool) -> SocketAddr {
    let is_known = !random.once_in(3);
    let [high, low] = if is_known { [0, random.below(4) as u64] } else { [random.next(), random.next()] };
    let address = if v4 {
        IpAddr::V4(Ipv4Addr::from(low as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)))
    };
    SocketAddr::new(address, if is_known { 1000 + random.below(4) as u16 } else { random.half() })
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
