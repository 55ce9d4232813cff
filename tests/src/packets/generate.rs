//! Random frames: mostly for the services at hand, and broken in the ways that frames from the internet are.

mod hostile;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use self::hostile::{extended, mutate};
use super::{Packet, ether, flag, protocol, random::Random, rare::icmp};

/// Where packets may go: VIP, protocol and port of every service.
pub type Destination = (SocketAddr, u8);

/// What a QUIC packet says about its connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Where its service is.
    pub to: SocketAddr,
    /// First octet of the connection ID.
    pub octet: u8,
    /// The eight behind it, as they lie in memory.
    pub id: u64,
}

/// What packets may have to do with.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where services are.
    pub services: Vec<Destination>,
    /// Clients that are known.
    pub sources: Vec<IpAddr>,
    /// Where our tunnels begin.
    pub tunnels: Vec<IpAddr>,
    /// UDP port of GUE packets.
    pub gue_port: u16,
    /// Connections whose ID names a backend.
    pub connections: Vec<Connection>,
}

/// A random frame.
pub fn frame(random: &mut Random, around: &Surroundings) -> Vec<u8> {
    // What may be around any packet.
    let wrapped_up = |random: &mut Random, make: fn(&mut Random, &Surroundings) -> Packet| {
        let mut packet = make(random, around);
        if random.once_in(6) {
            for _ in 0..=random.below(3) {
                let ether_type = random.pick(&[ether::VLAN, ether::VLAN, ether::SERVICE_VLAN, 0x9100]);
                packet = packet.tag(ether_type, random.half());
            }
        }
        packet.frame()
    };
    let mut frame = match random.below(32) {
        0..=1 => hostile::noise(random),
        2..=5 => wrapped_up(random, error),
        6..=10 => wrapped_up(random, fragment),
        11 => wrapped_up(random, message),
        12..=13 => wrapped_up(random, tunnel::packet),
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
fn packet(random: &mut Random, around: &Surroundings) -> Packet {
    let packet = plain(random, around);
    let packet = match random.below(5) {
        0 => packet,
        2 => return connection(random, packet, &around.connections),
        // Around the MTUs of the hops, less an outer header or not.
        1 => {
            let mtu = random.pick(&[160, 576, 1280, 1300, 1400, 1480, 1500]);
            let outer = random.pick(&[0, 20, 36, 40, 56]);
            let more = random.pick(&[3, 3, 300]);
            let length = mtu - outer - 1 + random.below(more);
            if packet.ip_packet().len() < length { packet.ip_length(length) } else { packet }
        }
        _ => {
            let length = random.below(64);
            packet.payload(random.bytes(length))
        }
    };
    if random.once_in(4) { packet.padding(random.below(20)) } else { packet }
}

/// The packet with what may be a QUIC header behind its UDP header (RFC 9000 section 17.3).
fn connection(random: &mut Random, packet: Packet, connections: &[Connection]) -> Packet {
    let any = Connection { to: packet.destination, octet: random.byte(), id: random.next() };
    let known = connections.get(random.below(connections.len().max(1))).copied();
    let Connection { to, octet, mut id } = if random.once_in(5) { any } else { known.unwrap_or(any) };
    let packet = if random.once_in(5) { packet } else { Packet::udp(client(random, to.is_ipv4()), to) };
    if random.once_in(2) {
        // The ID is shorter than it might be: noise follows.
        id |= random.next() << (8 * (1 + random.below(7)));
    }
    // Mostly a short header.
    let first = if random.once_in(4) { random.byte() } else { 0x40 | random.byte() & 0x3f };
    let mut payload = [&[first, octet], &id.to_le_bytes()[..], &random.bytes(20)].concat();
    if random.once_in(5) {
        payload.truncate(random.below(payload.len() + 1));
    }
    packet.payload(payload)
}

/// The same without payload.
fn plain(random: &mut Random, around: &Surroundings) -> Packet {
    let (destination, number) = match &around.services[..] {
        services @ [_, ..] if !random.once_in(8) => random.pick(services),
        services => {
            let address = nearby(random, services);
            let port = random.pick(&[0, 1, 80, 443, 8081, 65535, around.gue_port]);
            (SocketAddr::new(address, port), random.pick(&[protocol::TCP, protocol::UDP, protocol::SCTP]))
        }
    };
    let mut source = client(random, destination.is_ipv4());
    let others = if random.once_in(30) { &around.tunnels } else { &around.sources };
    let others: Vec<IpAddr> =
        others.iter().filter(|a| a.is_ipv4() == destination.is_ipv4()).copied().collect();
    if !others.is_empty() && random.once_in(4) {
        source.set_ip(random.pick(&others));
    }
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

/// One fragment of a packet: few packets, so that fragments meet others of theirs.
fn fragment(random: &mut Random, around: &Surroundings) -> Packet {
    let length = random.below(200);
    let whole = plain(random, around).fragment(0).payload(random.bytes(length));
    let parts = whole.fragments(random.below(3) as u32, 8 * (1 + random.below(8)));
    let at = if random.once_in(2) { 0 } else { random.below(parts.len()) };
    let part = parts[at].clone();
    // What overlaps the others, begins anew, or has no end.
    if part.is_v4() && random.once_in(6) { part.fragment(random.half() & 0x201f) } else { part }
}

/// An ICMP error about a packet that a service sent, or about any other.
fn error(random: &mut Random, around: &Surroundings) -> Packet {
    let about = plain(random, around);
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
    let error = match nearby(random, &around.services) {
        other if other.is_ipv4() == is_v4 && random.once_in(6) => error.to(other),
        _ => error,
    };
    let error = if !is_v4 && random.once_in(6) { extended(random, error) } else { error };
    error.ttl(random.pick(&[1, 2, 64, 255])).traffic_class(random.byte())
}

/// An echo request to a VIP, and ICMP messages that are none.
fn message(random: &mut Random, around: &Surroundings) -> Packet {
    let destination = nearby(random, &around.services);
    let source = client(random, destination.is_ipv4()).ip();
    let kind = random.pick(&[8, 8, 128, 128, 0, 13, 133, 135]);
    let code = if random.once_in(4) { random.byte() } else { 0 };
    let length = random.below(80);
    let payload = random.bytes(length);
    icmp(source, destination, (kind, code), random.next() as u32, &payload)
}

/// One of a few clients, or anyone.
pub fn client(random: &mut Random, v4: bool) -> SocketAddr {
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
