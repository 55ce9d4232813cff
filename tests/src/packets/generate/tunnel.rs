//! Packets in packets: to a balancer, and from one.

use std::net::SocketAddr;

use super::{
    super::{Packet, Transport, protocol, random::Random},
    Surroundings, nearby, plain,
};

/// An IP packet in another one, or in a UDP datagram (GUE, draft-ietf-intarea-gue): from anyone, or from where our own
/// tunnels begin; to a service's address, or to another.
pub(super) fn packet(random: &mut Random, around: &Surroundings) -> Packet {
    let mut inner = plain(random, around).ip_packet();
    let inner_protocol = if inner[0] >> 4 == 4 { protocol::IPIP } else { protocol::IPV6 };
    if random.once_in(8) {
        inner.truncate(random.below(inner.len() + 1));
    }
    // The addresses, and all that may be odd about a packet.
    let outer = plain(random, around);
    let address = nearby_of_family(random, around, outer.is_v4());
    let outer = if random.once_in(3) { outer.to(address) } else { outer };
    let sources = around.tunnels.iter().filter(|source| source.is_ipv4() == outer.is_v4());
    let outer = match sources.copied().next() {
        Some(source) if !random.once_in(3) => outer.from(SocketAddr::new(source, random.half())),
        _ => outer,
    };
    if random.once_in(2) {
        let number = if random.once_in(6) { random.pick(&[4, 41, 47, 94, 137]) } else { inner_protocol };
        return Packet { transport: Transport::Raw, ..outer }.payload(inner).protocol(number);
    }
    let header = match random.below(3) {
        // Version 1: the packet itself. Version 0: a header that says what follows. Or anything.
        0 => Vec::new(),
        1 => vec![0, inner_protocol, 0, 0],
        _ => random.bytes(4),
    };
    let mut destination = outer.destination;
    if !random.once_in(4) {
        destination.set_port(around.gue_port);
    }
    Packet { destination, transport: Transport::Udp, ..outer }.payload([header, inner].concat())
}

fn nearby_of_family(random: &mut Random, around: &Surroundings, v4: bool) -> std::net::IpAddr {
    let services: Vec<_> = around.services.iter().filter(|(to, _)| to.is_ipv4() == v4).copied().collect();
    match nearby(random, &services) {
        address if address.is_ipv4() == v4 => address,
        _ => super::client(random, v4).ip(),
    }
}
