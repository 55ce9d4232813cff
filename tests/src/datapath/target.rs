//! Targets in few words: pools, backends and services as a test's table names them. A backend is called by its address.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::{
    abi::{Features, Port, Quic, Rate, ServiceKey, Tracking},
    addr::Addr,
};
use lb_user::model::{
    plan::{HopTarget, MemberTarget, PoolTarget, ServiceTarget, Target},
    service::{Name, Via},
};

use crate::packets::{outer::Macs, protocol};

/// So many ticks that no test sees them pass.
pub const LONG: u32 = 1 << 24;

/// Nothing yet, for a program that can do everything.
pub fn blank() -> Target {
    Target { features: Features::ALL, ..Target::default() }
}

/// A name.
///
/// # Panics
/// If it is none: tests name them as literals.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A next hop with an MTU of 1500. Its MACs say which it is.
pub fn hop(ifindex: u32, number: u8) -> HopTarget {
    HopTarget {
        port: Port { ifindex, vlan: 0 },
        source: [0x02, 0, 0, 0, 1, ifindex as u8],
        destination: [0x02, 0, 0, 0, 2, number],
        mtu: 1500,
    }
}

/// The Ethernet addresses that a hop gives a frame.
pub fn macs(hop: &HopTarget) -> Macs {
    Macs { destination: hop.destination, source: hop.source }
}

/// A backend on the same L2, of weight 100.
///
/// # Panics
/// If the address is none.
pub fn l2(address: &str, hop: HopTarget) -> MemberTarget {
    let address: IpAddr = address.parse().expect("an address");
    MemberTarget { address, via: Via::L2, hop: Some(hop), weight: 100, keeps: true, server_id: None }
}

/// A backend of weight 100 that packets get to in this way.
///
/// # Panics
/// If the address is none.
pub fn behind(via: Via, address: &str, hop: HopTarget) -> MemberTarget {
    MemberTarget { via, ..l2(address, hop) }
}

/// A backend behind a tunnel, of weight 100.
///
/// # Panics
/// As [`l2`].
pub fn ipip(address: &str, hop: HopTarget) -> MemberTarget {
    MemberTarget { via: Via::Ipip, ..l2(address, hop) }
}

/// A pool whose slots remember nobody.
pub fn pool(pool: &str, slots: u32, members: Vec<MemberTarget>) -> PoolTarget {
    PoolTarget { name: name(pool), slots, is_tracked: false, members }
}

/// A pool whose slots remember their previous owners.
pub fn tracked(name: &str, slots: u32, members: Vec<MemberTarget>) -> PoolTarget {
    PoolTarget { is_tracked: true, ..pool(name, slots, members) }
}

/// A service on ports such as `tcp/80` and `udp/1000-1003`. Its TCP flows are remembered in transitions and for an
/// hour or more, UDP is not remembered.
///
/// # Panics
/// If the address or a port is none.
pub fn service(service: &str, vip: &str, ports: &[&str], pool: &str) -> ServiceTarget {
    let vip: IpAddr = vip.parse().expect("an address");
    let keys = ports.iter().flat_map(|text| {
        let (protocol, range) = text.split_once('/').expect("protocol/port");
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = match protocol {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "sctp" => protocol::SCTP,
            other => panic!("{other} is no protocol"),
        };
        let [first, last] = [first, last].map(|port| port.parse::<u16>().expect("a port"));
        (first..=last).map(move |port| ServiceKey::new(Addr::from(vip), number, port))
    });
    ServiceTarget {
        name: name(service),
        keys: keys.collect(),
        pool: name(pool),
        flags: Tracking::bits(Tracking::Transition, Tracking::Never),
        tcp_idle: LONG,
        udp_idle: LONG,
        affinity: 0,
        quic: Quic::default(),
        list: None,
        limited: 0,
        packets: Rate::default(),
        flows: Rate::default(),
    }
}

/// Gives the first service of every VIP, or prefix of them, the key of the VIP, as the controller does.
pub fn name_vips(target: &mut Target) {
    let of_vip = |key: &ServiceKey| ServiceKey { protocol: 0, port: 0, ..*key };
    let mut named = BTreeSet::new();
    for service in &mut target.services {
        service.keys.retain(|key| *key != of_vip(key));
        let vips: BTreeSet<ServiceKey> = service.keys.iter().map(of_vip).collect();
        service.keys.extend(vips.into_iter().filter(|vip| named.insert(*vip)));
    }
}

/// The backend of a service that has this address.
///
/// # Panics
/// If there is none.
pub fn member<'t>(target: &'t Target, service: &str, backend: &str) -> &'t MemberTarget {
    let service = target.services.iter().find(|known| known.name.as_str() == service).expect("a service");
    let pool = target.pools.iter().find(|known| known.name == service.pool).expect("a pool");
    let address: IpAddr = backend.parse().expect("an address");
    pool.members.iter().find(|known| known.address == address).expect("a backend")
}
