//! A balancer with every way to a backend, and every way to none.

use std::net::SocketAddr;

use lb_common::abi::Service;
use lb_user::model::{
    plan::{MemberTarget, Target},
    service::Via,
};

use super::{
    EGRESS, INGRESS, Rig, THIRD,
    target::{LONG, behind, blank, hop, ipip, l2, name_vips, pool, service},
    with_rig,
};
use crate::packets::Packet;

/// The VIPs: IPv4, IPv6.
pub const VIPS: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// One client of each family.
pub const CLIENTS: [&str; 2] = ["198.51.100.7", "2001:db8:c::7"];

/// Services of one backend each, by port: every way to a backend, and every way to none.
pub fn balancer() -> Target {
    let none = MemberTarget { weight: 0, ..l2("10.0.0.8", hop(INGRESS, 8)) };
    let unreachable = MemberTarget { hop: None, ..l2("10.0.0.9", hop(INGRESS, 9)) };
    let mut target = Target {
        seed: 0x1234_5678_9abc_def0,
        fragment_idle: LONG,
        pools: vec![
            pool("here", 11, vec![l2("10.0.0.1", hop(INGRESS, 1))]),
            pool("there", 11, vec![l2("10.0.0.2", hop(EGRESS, 2))]),
            pool("here-in-4", 11, vec![ipip("10.9.0.3", hop(INGRESS, 3))]),
            pool("there-in-4", 11, vec![ipip("10.9.0.4", hop(EGRESS, 4))]),
            pool("here-in-6", 11, vec![ipip("2001:db8:9::5", hop(INGRESS, 5))]),
            pool("there-in-6", 11, vec![ipip("2001:db8:9::6", hop(THIRD, 6))]),
            pool("gue-4", 11, vec![behind(Via::Gue, "10.9.0.90", hop(INGRESS, 90))]),
            pool("gue-6", 11, vec![behind(Via::Gue, "2001:db8:9::91", hop(EGRESS, 91))]),
            pool("gue0-4", 11, vec![behind(Via::Gue0, "10.9.0.92", hop(THIRD, 92))]),
            pool("gue0-6", 11, vec![behind(Via::Gue0, "2001:db8:9::93", hop(INGRESS, 93))]),
            pool("empty", 11, vec![]),
            pool("weightless", 11, vec![none.clone()]),
            pool("unreachable", 11, vec![unreachable.clone()]),
            pool("one-of-three", 11, vec![none, l2("10.0.0.7", hop(INGRESS, 7)), unreachable]),
        ],
        ..blank()
    };
    for (vip, family) in VIPS.iter().zip(["v4", "v6"]) {
        let mut add = |what: &str, ports: &[&str], pool: &str| {
            target.services.push(service(&format!("{what}.{family}"), vip, ports, pool));
        };
        add("here", &["tcp/80", "udp/80", "sctp/80", "tcp/1000-1003"], "here");
        add("there", &["tcp/81", "udp/81", "sctp/81"], "there");
        add("here-in-4", &["tcp/82", "udp/82", "sctp/82"], "here-in-4");
        add("there-in-4", &["tcp/83", "udp/83", "sctp/83"], "there-in-4");
        add("here-in-6", &["tcp/84", "udp/84", "sctp/84"], "here-in-6");
        add("there-in-6", &["tcp/85", "udp/85", "sctp/85"], "there-in-6");
        add("gue-4", &["tcp/90", "udp/90", "sctp/90"], "gue-4");
        add("gue-6", &["tcp/91", "udp/91", "sctp/91"], "gue-6");
        add("gue0-4", &["tcp/92", "udp/92", "sctp/92"], "gue0-4");
        add("gue0-6", &["tcp/93", "udp/93", "sctp/93"], "gue0-6");
        add("empty", &["tcp/86"], "empty");
        add("weightless", &["tcp/87"], "weightless");
        add("unreachable", &["tcp/88"], "unreachable");
        add("one-of-three", &["tcp/89"], "one-of-three");
        // One port, two protocols, two pools.
        add("web", &["tcp/443"], "here");
        add("quic", &["udp/443"], "there");
        // The ends of the port range.
        add("ends", &["tcp/1", "tcp/65535"], "here");
    }
    name_vips(&mut target);
    // Who has the VIP's key speaks for the whole VIP.
    for service in &mut target.services {
        service.flags |= Service::ECHO;
    }
    target
}

/// Ports with the service and backend behind them, family left out of the service's name.
pub const WAYS: [(u16, [&str; 2], &str); 10] = [
    (80, ["here.v4", "here.v6"], "10.0.0.1"),
    (81, ["there.v4", "there.v6"], "10.0.0.2"),
    (82, ["here-in-4.v4", "here-in-4.v6"], "10.9.0.3"),
    (83, ["there-in-4.v4", "there-in-4.v6"], "10.9.0.4"),
    (84, ["here-in-6.v4", "here-in-6.v6"], "2001:db8:9::5"),
    (85, ["there-in-6.v4", "there-in-6.v6"], "2001:db8:9::6"),
    (90, ["gue-4.v4", "gue-4.v6"], "10.9.0.90"),
    (91, ["gue-6.v4", "gue-6.v6"], "2001:db8:9::91"),
    (92, ["gue0-4.v4", "gue0-4.v6"], "10.9.0.92"),
    (93, ["gue0-6.v4", "gue0-6.v6"], "2001:db8:9::93"),
];

/// An address and a port.
///
/// # Panics
/// If the address is none.
pub fn endpoint(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// A packet of the first client of a family (0: IPv4, 1: IPv6) to a port of its VIP.
pub fn to(make: fn(SocketAddr, SocketAddr) -> Packet, family: usize, port: u16) -> Packet {
    make(endpoint(CLIENTS[family], 40000), endpoint(VIPS[family], port))
}

/// Runs a test with this balancer installed.
///
/// # Panics
/// If the test does, or if the rig cannot be set up.
pub fn with_balancer(test: impl FnOnce(&mut Rig, &Target) -> anyhow::Result<()> + Send + 'static) {
    with_rig(|rig| {
        let target = balancer();
        rig.install(&target)?;
        test(rig, &target)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{tcp, udp};

    #[test]
    fn packets_are_those_that_text_makes() {
        assert_eq!(tcp("198.51.100.7:40000", "192.0.2.10:80"), to(Packet::tcp, 0, 80));
        assert_eq!(udp("[2001:db8:c::7]:40000", "[2001:db8::10]:80"), to(Packet::udp, 1, 80));
    }
}
