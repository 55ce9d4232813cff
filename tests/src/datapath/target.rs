//! Targets in few words: pools, backends and services as a test's table names them.

use std::net::IpAddr;

use lb_common::{abi::ServiceKey, addr::Addr};
use lb_user::model::{
    plan::{HopTarget, MemberTarget, PoolTarget, ServiceTarget, Target},
    service::Name,
};

use crate::packets::{outer::Macs, protocol};

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
        ifindex,
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
pub fn l2(backend: &str, address: &str, hop: HopTarget) -> MemberTarget {
    let address: IpAddr = address.parse().expect("an address");
    MemberTarget { name: name(backend), address, tunnelled: false, hop: Some(hop), weight: 100 }
}

/// A backend behind a tunnel, of weight 100.
///
/// # Panics
/// As [`l2`].
pub fn ipip(backend: &str, address: &str, hop: HopTarget) -> MemberTarget {
    MemberTarget { tunnelled: true, ..l2(backend, address, hop) }
}

/// A pool.
pub fn pool(pool: &str, slots: u32, members: Vec<MemberTarget>) -> PoolTarget {
    PoolTarget { name: name(pool), slots, members }
}

/// A service on ports such as `tcp/80` and `udp/1000-1003`.
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
            other => panic!("{other} is no protocol"),
        };
        let [first, last] = [first, last].map(|port| port.parse::<u16>().expect("a port"));
        (first..=last).map(move |port| ServiceKey::new(Addr::from(vip), number, port))
    });
    ServiceTarget { name: name(service), keys: keys.collect(), pool: name(pool) }
}

/// The backend that a target has under these names.
///
/// # Panics
/// If there is none.
pub fn member<'t>(target: &'t Target, service: &str, backend: &str) -> &'t MemberTarget {
    let service = target.services.iter().find(|known| known.name.as_str() == service).expect("a service");
    let pool = target.pools.iter().find(|known| known.name == service.pool).expect("a pool");
    pool.members.iter().find(|known| known.name.as_str() == backend).expect("a backend")
}
