//! What services are found by: the keys of every service, and the numbers of the prefixes that some of them name.
//!
//! The packet path asks in this order: the address, then the longest prefix that holds it; of each the exact port, then
//! any port. It asks for one prefix only, so a service of a wider prefix has keys of the narrower ones within it, too,
//! where those leave a port free.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{abi::ServiceKey, addr::Addr};

use super::{
    prefix::Prefix,
    service::{Desired, Ports, Protocol, Service, ServicePort},
};

/// Port of a key for any port.
const ANY: u16 = 0;

/// What all services are found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Prefixes of virtual addresses, by the number that keys name them by; their bits in the 128 of an [`Addr`].
    pub prefixes: Vec<(Addr, u32)>,
    /// By service, in the order of the file.
    pub services: Vec<Vec<ServiceKey>>,
}

impl Keys {
    /// The keys of these services.
    pub fn of(desired: &Desired) -> Self {
        let services = &desired.services;
        let vips: BTreeSet<Prefix> = services.iter().map(|service| service.vip).collect();
        let prefixes: Vec<Prefix> = vips.into_iter().filter(|vip| !vip.is_host()).collect();
        let numbers: BTreeMap<Prefix, u32> = prefixes.iter().copied().zip(0..).collect();
        let mut keys: Vec<Vec<ServiceKey>> =
            services.iter().map(|service| own_keys(services, service, &numbers)).collect();
        for (&narrow, &number) in &numbers {
            for (at, protocol, port) in inherited(services, narrow) {
                keys[at].push(ServiceKey::of_prefix(number, protocol.number(), port));
            }
        }
        Self { prefixes: prefixes.iter().map(Prefix::bits).collect(), services: keys }
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.services.iter().map(Vec::len).sum()
    }
}

/// The keys of a service by its own VIP: one for each port, and that of the VIP itself for the first service that has it.
fn own_keys(services: &[Service], service: &Service, numbers: &BTreeMap<Prefix, u32>) -> Vec<ServiceKey> {
    let key = |protocol, port| match numbers.get(&service.vip) {
        Some(&number) => ServiceKey::of_prefix(number, protocol, port),
        None => ServiceKey::new(Addr::from(service.vip.address()), protocol, port),
    };
    let ports = service
        .ports
        .iter()
        .flat_map(|port| each(*port))
        .map(|(protocol, port)| key(protocol.number(), port));
    let first = services.iter().find(|other| other.vip == service.vip);
    let is_first = first.is_some_and(|first| first.name == service.name);
    ports.chain(is_first.then(|| key(0, 0))).collect()
}

/// Ports of wider prefixes' services that hold for a narrower prefix, by the service's place.
fn inherited(services: &[Service], narrow: Prefix) -> Vec<(usize, Protocol, u16)> {
    let mut around: Vec<Prefix> =
        services.iter().map(|service| service.vip).filter(|vip| vip.covers(&narrow)).collect();
    around.sort_unstable_by_key(|vip| std::cmp::Reverse(vip.length()));
    around.dedup();
    if around.len() < 2 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut taken = BTreeSet::new();
    for level in around {
        let here = services.iter().enumerate().filter(|(_, service)| service.vip == level);
        let ports: Vec<(usize, Protocol, u16)> = here
            .flat_map(|(at, service)| service.ports.iter().map(move |port| (at, *port)))
            .flat_map(|(at, port)| each(port).map(move |(protocol, port)| (at, protocol, port)))
            // Any port of a narrower one comes before every port of a wider one.
            .filter(|&(_, protocol, port)| {
                !taken.contains(&(protocol, port)) && !taken.contains(&(protocol, ANY))
            })
            .collect();
        taken.extend(ports.iter().map(|&(_, protocol, port)| (protocol, port)));
        if level != narrow {
            found.extend(ports);
        }
    }
    found
}

fn each(port: ServicePort) -> impl Iterator<Item = (Protocol, u16)> {
    let range = match port.ports {
        Ports::Any => ANY..=ANY,
        Ports::Range { first, last } => first..=last,
    };
    range.map(move |number| (port.protocol, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::{FlowPolicy, Name};

    /// `vip ports`
    fn desired(services: &[&str]) -> Desired {
        let service = |(number, text): (usize, &&str)| {
            let (vip, ports) = text.split_once(' ').unwrap();
            let port = |text: &str| {
                let (protocol, ports) = text.split_once('/').unwrap();
                let protocol = match protocol {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    _ => Protocol::Sctp,
                };
                let ports = match ports.split_once('-') {
                    None if ports == "*" => Ports::Any,
                    range => {
                        let (first, last) = range.unwrap_or((ports, ports));
                        Ports::Range { first: first.parse().unwrap(), last: last.parse().unwrap() }
                    }
                };
                ServicePort { protocol, ports }
            };
            Service {
                name: Name::new(&format!("s{number}")).unwrap(),
                vip: vip.parse().unwrap(),
                ports: ports.split(',').map(port).collect(),
                pool: Name::new("p").unwrap(),
                flows: FlowPolicy::default(),
                echo: true,
                affinity: None,
                quic: None,
                acl: None,
                limit: None,
            }
        };
        Desired { services: services.iter().enumerate().map(service).collect(), ..Desired::default() }
    }

    const VIP: Addr = Addr::v4([192, 0, 2, 1]);

    #[test]
    fn a_service_has_a_key_for_each_port_and_the_first_of_a_vip_its_own() {
        let keys = Keys::of(&desired(&["192.0.2.1 tcp/80-81,sctp/9", "192.0.2.1 udp/*"]));
        assert_eq!(keys.prefixes, []);
        let expected = [
            vec![
                ServiceKey::new(VIP, 6, 80),
                ServiceKey::new(VIP, 6, 81),
                ServiceKey::new(VIP, 132, 9),
                ServiceKey::vip(VIP),
            ],
            vec![ServiceKey::new(VIP, 17, 0)],
        ];
        assert_eq!((keys.count(), &keys.services[..]), (5, &expected[..]));
    }

    #[test]
    fn a_prefix_is_named_by_its_number() {
        let keys =
            Keys::of(&desired(&["2001:db8::/64 tcp/80", "192.0.2.0/28 tcp/80", "192.0.2.0/28 udp/53"]));
        let v6 = Addr::from(std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]));
        assert_eq!(keys.prefixes, [(Addr::v4([192, 0, 2, 0]), 124), (v6, 64)]);
        let expected = [
            vec![ServiceKey::of_prefix(1, 6, 80), ServiceKey::of_prefix(1, 0, 0)],
            vec![ServiceKey::of_prefix(0, 6, 80), ServiceKey::of_prefix(0, 0, 0)],
            vec![ServiceKey::of_prefix(0, 17, 53)],
        ];
        assert_eq!(keys.services, expected);
    }

    #[test]
    fn a_narrower_prefix_has_what_the_wider_ones_have_beside_its_own() {
        let keys = Keys::of(&desired(&[
            "192.0.2.0/24 tcp/80,tcp/443,udp/*",
            "192.0.2.0/25 tcp/443,udp/53",
            "192.0.2.0/28 tcp/80,udp/*",
            "192.0.2.3 tcp/22",
        ]));
        let own = |number, keys: &[(u8, u16)]| -> Vec<ServiceKey> {
            keys.iter().map(|&(protocol, port)| ServiceKey::of_prefix(number, protocol, port)).collect()
        };
        // Numbers: /24 is 0, /25 is 1, /28 is 2.
        let widest = [own(0, &[(6, 80), (6, 443), (17, 0), (0, 0)]), own(1, &[(6, 80), (17, 0)])].concat();
        let middle = [own(1, &[(6, 443), (17, 53), (0, 0)]), own(2, &[(6, 443)])].concat();
        assert_eq!(keys.services[0], widest, "the /25 has its tcp/443, the /28 all of its ports");
        assert_eq!(keys.services[1], middle, "any UDP port of the /28 comes before udp/53 of the /25");
        assert_eq!(keys.services[2], own(2, &[(6, 80), (17, 0), (0, 0)]));
        assert_eq!(keys.services[3][0].used, 1);
    }
}
