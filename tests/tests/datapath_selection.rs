//! Which service a packet is for, and which backend it goes to where not the whole flow decides: keys that are wider
//! than one port of one address, affinity, QUIC connection IDs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::ensure;
use lb_common::{
    abi::{PassReason, Quic, Service, ServiceKey, Tracking},
    addr::Addr,
};
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, Rig, Verdict,
        fixture::{Expect, Fixture, check_all},
        target::{LONG, blank, hop, ipip, l2, name_vips, pool, service, tracked},
        ways::{CLIENTS, VIPS, endpoint, to},
        with_rig,
    },
    packets::{
        Packet, flag, protocol,
        rare::{
            icmp,
            icmp::{ECHO, TIME_EXCEEDED},
        },
    },
};
use lb_user::model::plan::{MemberTarget, ServiceTarget, Target};

/// Numbers of the prefixes of VIPs here.
const PREFIXES: [(&str, u32); 5] = [
    ("192.0.2.0", 96 + 24),
    ("192.0.2.64", 96 + 26),
    ("2001:db8::", 64),
    ("2001:db8::ff00", 120),
    ("203.0.113.7", 128),
];

/// A service of a prefix of VIPs.
fn of_prefix(name: &str, number: u32, ports: &[(u8, u16)], pool: &str) -> ServiceTarget {
    let keys = ports.iter().map(|&(protocol, port)| ServiceKey::of_prefix(number, protocol, port));
    ServiceTarget { keys: keys.collect(), ..service(name, "0.0.0.0", &[], pool) }
}

/// Services on exact ports and any, on addresses and prefixes of them, on a pool of one backend each.
fn keys() -> Target {
    let pools =
        (1..=9).map(|n| pool(&format!("p{n}"), 11, vec![l2(&format!("10.0.0.{n}"), hop(INGRESS, n))]));
    let prefix =
        |(address, bits): (&str, u32)| (Addr::from(address.parse::<IpAddr>().expect("an address")), bits);
    let mut target = Target {
        fragment_idle: LONG,
        pools: pools.collect(),
        prefixes: PREFIXES.map(prefix).to_vec(),
        services: vec![
            service("exact4", VIPS[0], &["tcp/80"], "p1"),
            service("exact6", VIPS[1], &["tcp/80"], "p1"),
            service("any4", VIPS[0], &["tcp/0"], "p2"),
            service("any6", VIPS[1], &["tcp/0"], "p2"),
            service("any-udp4", VIPS[0], &["udp/0", "sctp/0"], "p3"),
            service("any-udp6", VIPS[1], &["udp/0", "sctp/0"], "p3"),
            of_prefix("wide4", 0, &[(protocol::TCP, 80), (protocol::TCP, 81)], "p4"),
            of_prefix("long4", 1, &[(protocol::TCP, 81)], "p5"),
            of_prefix("wide6", 2, &[(protocol::TCP, 80), (protocol::TCP, 81)], "p4"),
            of_prefix("long6", 3, &[(protocol::TCP, 81)], "p5"),
            of_prefix("wide-any4", 0, &[(protocol::UDP, 0)], "p6"),
            of_prefix("wide-any6", 2, &[(protocol::UDP, 0)], "p6"),
            of_prefix("single", 4, &[(protocol::TCP, 443)], "p7"),
        ],
        ..blank()
    };
    name_vips(&mut target);
    target
}

#[test]
fn the_narrowest_key_has_the_packet() {
    with_rig(|rig| {
        let target = keys();
        rig.install(&target)?;
        let mut fixtures = Vec::new();
        let mut goes = |packet: Packet, to: Option<(&'static str, &'static str)>| {
            let about = format!("{packet:?}");
            fixtures.push(match to {
                Some((service, backend)) => Fixture::forwarded(&about, &packet, service, backend),
                None => Fixture::passed(&about, packet.frame(), PassReason::NotForService),
            });
        };
        for family in 0..2 {
            let at = |make: fn(SocketAddr, SocketAddr) -> Packet, address: &str, port| {
                make(endpoint(CLIENTS[family], 4000), endpoint(address, port))
            };
            let vip = VIPS[family];
            let services = |v4, v6| [v4, v6][family];
            // An exact port before any port.
            goes(at(Packet::tcp, vip, 80), Some((services("exact4", "exact6"), "10.0.0.1")));
            for port in [1, 79, 81, 443, 65535] {
                goes(at(Packet::tcp, vip, port), Some((services("any4", "any6"), "10.0.0.2")));
                goes(at(Packet::udp, vip, port), Some((services("any-udp4", "any-udp6"), "10.0.0.3")));
                goes(at(Packet::sctp, vip, port), Some((services("any-udp4", "any-udp6"), "10.0.0.3")));
            }
            // Other addresses of the prefixes: the longest that holds the address, whatever it has.
            let [wide, long, outside] = [
                ["192.0.2.200", "192.0.2.65", "192.0.3.1"],
                ["2001:db8::1:1", "2001:db8::ff01", "2001:db8:0:1::1"],
            ][family];
            goes(at(Packet::tcp, wide, 80), Some((services("wide4", "wide6"), "10.0.0.4")));
            goes(at(Packet::tcp, wide, 81), Some((services("wide4", "wide6"), "10.0.0.4")));
            goes(at(Packet::tcp, wide, 82), None);
            goes(at(Packet::udp, wide, 9), Some((services("wide-any4", "wide-any6"), "10.0.0.6")));
            goes(at(Packet::sctp, wide, 9), None);
            goes(at(Packet::tcp, long, 81), Some((services("long4", "long6"), "10.0.0.5")));
            goes(at(Packet::tcp, long, 80), None);
            goes(at(Packet::udp, long, 9), None);
            goes(at(Packet::tcp, outside, 80), None);
            goes(at(Packet::udp, outside, 9), None);
        }
        let single = |address| Packet::tcp(endpoint(CLIENTS[0], 1), endpoint(address, 443));
        goes(single("203.0.113.7"), Some(("single", "10.0.0.7")));
        goes(single("203.0.113.6"), None);
        check_all(rig, &target, INGRESS, &fixtures)
    });
}

/// Fragments, echo requests and ICMP errors find services of prefixes and of any port as other packets do.
#[test]
fn what_is_rare_finds_wide_keys() {
    with_rig(|rig| {
        let mut target = keys();
        for service in &mut target.services {
            service.flags |= Service::ECHO;
        }
        rig.install(&target)?;
        for family in 0..2 {
            let (client, wide) = (CLIENTS[family], ["192.0.2.200", "2001:db8::1:1"][family]);
            let services = [["wide4", "any4", "wide-any4"], ["wide6", "any6", "wide-any6"]][family];
            let ways = [
                (wide, 80, services[0], "10.0.0.4", Packet::tcp as fn(_, _) -> Packet),
                (VIPS[family], 7000, services[1], "10.0.0.2", Packet::tcp),
                (wide, 7000, services[2], "10.0.0.6", Packet::udp),
            ];
            for (number, (vip, port, service, backend, make)) in (0..).zip(ways) {
                let whole = make(endpoint(client, 4000), endpoint(vip, port)).payload([7; 100]);
                let router: IpAddr = ["203.0.113.1", "2001:db8:f::1"][family].parse()?;
                let error = whole.clone().reply().error(router, (TIME_EXCEEDED[family], 0), 0, 80);
                let about = format!("{vip} port {port}");
                Fixture::forwarded(&format!("an error about {about}"), &error, service, backend)
                    .check(rig, &target, INGRESS)?;
                let parts = whole.fragments(number, 48);
                Fixture::forwarded(&format!("a fragment to {about}"), &parts[0], service, backend)
                    .check(rig, &target, INGRESS)?;
                let later = Fixture {
                    about: format!("a later fragment to {about}"),
                    frame: parts[1].frame(),
                    expect: Expect::Followed { service, backend },
                };
                later.check(rig, &target, INGRESS)?;
                let ping = ping(client.parse()?, vip.parse()?);
                ensure!(rig.run(&ping.frame())?.verdict == Verdict::Transmit, "ping to {vip}");
            }
            let outside: IpAddr = ["192.0.3.1", "2001:db8:0:1::1"][family].parse()?;
            let ping = ping(client.parse()?, outside);
            Fixture::passed("a ping beside the prefix", ping.frame(), PassReason::NotForService)
                .check(rig, &target, INGRESS)?;
        }
        Ok(())
    });
}

fn ping(client: IpAddr, vip: IpAddr) -> Packet {
    icmp(client, vip, (ECHO[usize::from(vip.is_ipv6())], 0), 7, b"who is there")
}

/// Backends by number, one of three ways each.
fn members() -> Vec<MemberTarget> {
    (1..=6)
        .map(|n| match n % 3 {
            0 => ipip(&format!("10.9.0.{n}"), hop(INGRESS, n)),
            1 => l2(&format!("10.0.0.{n}"), hop(EGRESS, n)),
            _ => l2(&format!("10.0.0.{n}"), hop(INGRESS, n)),
        })
        .collect()
}

/// The number of the backend that a packet goes to, which its MAC tells.
fn backend_of(rig: &mut Rig, packet: &Packet) -> anyhow::Result<u8> {
    let answer = rig.run(&packet.frame())?;
    match (answer.verdict, &answer.frame[..]) {
        (Verdict::Transmit | Verdict::Redirect, [2, 0, 0, 0, 2, number, ..]) => Ok(*number),
        _ => anyhow::bail!("{packet:?} went nowhere: {:?}", answer.verdict),
    }
}

/// An RTSP-like group of ports in each family whose flows stay together by so many bits of the client's address.
fn group(bits: [u8; 2], tracking: Tracking) -> Target {
    let services = [("rtsp4", VIPS[0]), ("rtsp6", VIPS[1])].into_iter().zip(bits);
    let service = |((name, vip), affinity)| ServiceTarget {
        affinity,
        flags: Tracking::bits(tracking, tracking),
        ..service(name, vip, &["tcp/554", "udp/6970-6999", "sctp/554"], "p")
    };
    let mut target = Target {
        seed: 17,
        fragment_idle: LONG,
        pools: vec![tracked("p", 251, members())],
        services: services.map(service).collect(),
        ..blank()
    };
    name_vips(&mut target);
    target
}

/// Packets of all kinds from one client to the group.
fn session(family: usize, client: IpAddr) -> Vec<Packet> {
    let vip = |port| endpoint(VIPS[family], port);
    let from = |port| SocketAddr::new(client, port);
    let mut packets = vec![
        Packet::tcp(from(40_000), vip(554)).flags(flag::SYN),
        Packet::tcp(from(40_000), vip(554)),
        Packet::tcp(from(40_001), vip(554)).flags(flag::SYN),
        Packet::sctp(from(1), vip(554)),
        Packet::udp(from(5000), vip(6975)).payload([1; 200]).fragments(3, 64)[0].clone(),
    ];
    packets.extend((6970..=6999).map(|port| Packet::udp(from(port + 1000), vip(port))));
    packets
}

/// A client of a family: the second number tells clients of one prefix (24 and 64 bits) apart.
fn client(family: usize, network: u16, host: u8) -> IpAddr {
    let [high, low] = network.to_be_bytes();
    match family {
        0 => [100, high, low, host].into(),
        _ => [0x2001, 0xdb8, 0xc, network, 0xabcd, 0, 0, host.into()].into(),
    }
}

#[test]
fn a_clients_flows_stay_together() {
    for tracking in [Tracking::Never, Tracking::Transition, Tracking::Always] {
        with_rig(move |rig| {
            for (bits, by_prefix) in [([128, 128], false), ([96 + 24, 64], true)] {
                rig.install(&group(bits, tracking))?;
                for family in 0..2 {
                    let mut all = BTreeSet::new();
                    let mut split = 0;
                    for network in 0..60 {
                        let mut of_network = BTreeSet::new();
                        for host in [1, 2, 77] {
                            let mut backends = BTreeSet::new();
                            for packet in session(family, client(family, network, host)) {
                                backends.insert(backend_of(rig, &packet)?);
                            }
                            ensure!(backends.len() == 1, "client {network}.{host} is on {backends:?}");
                            of_network.extend(backends);
                        }
                        split += usize::from(of_network.len() > 1);
                        all.extend(of_network);
                    }
                    ensure!(all.len() == 6, "family {family} is on {all:?} only");
                    let about = format!("{split} of 60 networks of family {family} on several backends");
                    ensure!(if by_prefix { split == 0 } else { split > 30 }, "{about}, {bits:?}");
                }
            }
            Ok(())
        });
    }
}

/// While backends come and go, a client that is known stays where it is with all that it opens, and without affinity
/// its flows part.
#[test]
fn a_clients_new_flows_go_where_its_old_ones_are() {
    with_rig(|rig| {
        let full = group([128; 2], Tracking::Always);
        let mut fewer = full.clone();
        fewer.pools[0].members.truncate(2);
        rig.install(&fewer)?;
        let clients: Vec<(usize, IpAddr)> =
            (0..40).map(|n| (n as usize % 2, client(n as usize % 2, n, 9))).collect();
        let mut known = BTreeMap::new();
        for &(family, client) in &clients {
            for packet in &session(family, client)[..2] {
                known.insert(client, backend_of(rig, packet)?);
            }
        }
        rig.install(&full)?;
        for &(family, client) in &clients {
            for packet in session(family, client) {
                let backend = backend_of(rig, &packet)?;
                ensure!(backend == known[&client], "{client} moved to {backend} with {packet:?}");
            }
        }
        let mut new = BTreeSet::new();
        for number in 100..160 {
            new.insert(backend_of(rig, &session(0, client(0, number, 1))[0])?);
        }
        ensure!(new.len() == 6, "new clients are on {new:?} only");
        Ok(())
    });
}

/// A QUIC packet with a short header: the connection ID begins behind its first byte.
fn short(client: SocketAddr, family: usize, id: &[u8]) -> Packet {
    let payload = [&[0x4b], id, &[0x5a; 24]].concat();
    Packet::udp(client, endpoint(VIPS[family], 443)).payload(payload)
}

/// Backends with server IDs of so many bytes, in connection IDs whose first three bits say 2.
fn quic(length: u8) -> Target {
    let mut target = Target {
        seed: 23,
        pools: vec![tracked("p", 251, members())],
        services: [("quic4", VIPS[0]), ("quic6", VIPS[1])]
            .into_iter()
            .map(|(name, vip)| ServiceTarget {
                quic: Quic::new(length, 3, 2),
                ..service(name, vip, &["udp/443", "tcp/443"], "p")
            })
            .collect(),
        ..blank()
    };
    for (number, member) in (1..).zip(&mut target.pools[0].members) {
        member.server_id = Some(server_id(length, number));
    }
    name_vips(&mut target);
    target
}

/// The server ID of a backend, its first byte lowest: every byte counts.
fn server_id(length: u8, number: u64) -> u64 {
    let all = number | 0xa1a2_a3a4_a5a6_a700;
    let id = all.rotate_left(u32::from(length) * 8 - 8);
    if length == 8 { id } else { id & ((1 << (8 * length)) - 1) }
}

/// A connection ID that names a server: first octet, server ID, and the rest of it.
fn connection(length: u8, server: u64) -> Vec<u8> {
    let octet = 2 << 5 | 0x1f;
    [&[octet], &server.to_le_bytes()[..usize::from(length)], &[0xee; 8]].concat()
}

#[test]
fn a_connection_id_names_the_backend() {
    with_rig(|rig| {
        for length in 1..=8 {
            let target = quic(length);
            rig.install(&target)?;
            for family in 0..2 {
                for number in 1..=6 {
                    // Wherever the client has moved to.
                    for host in 0..20 {
                        let from = SocketAddr::new(client(family, 5, host), 1000 + u16::from(host));
                        let id = connection(length, server_id(length, number));
                        let backend = backend_of(rig, &short(from, family, &id))?;
                        ensure!(u64::from(backend) == number, "{length} bytes: {number} is {backend}");
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn what_names_no_backend_goes_by_its_hash() {
    with_rig(|rig| {
        const LENGTH: u8 = 4;
        let target = quic(LENGTH);
        rig.install(&target)?;
        let known = connection(LENGTH, server_id(LENGTH, 1));
        let with = |at: usize, change: u8| {
            let mut id = known.clone();
            id[at] ^= change;
            id
        };
        let mut named = 0;
        for (family, vip) in VIPS.into_iter().enumerate() {
            for host in 0..40 {
                let from = SocketAddr::new(client(family, 6, host), 999);
                // What has no payload can only go by its hash.
                let by_hash = backend_of(rig, &Packet::udp(from, endpoint(vip, 443)))?;
                named += usize::from(backend_of(rig, &short(from, family, &known))? != by_hash);
                let long = Packet::udp(from, endpoint(vip, 443));
                let of = |first: u8| [&[first], &known[..], &[0; 20]].concat();
                let others = [
                    ("another configuration", short(from, family, &with(0, 0x20))),
                    ("an unknown server", short(from, family, &with(1, 0xff))),
                    ("an unknown server, by its last byte", short(from, family, &with(4, 1))),
                    ("a long header", long.clone().payload(of(0xcb))),
                    ("no QUIC at all", long.clone().payload(of(0x0b))),
                    ("too short for an ID", long.clone().payload(of(0x4b)[..9].to_vec())),
                ];
                for (about, packet) in others {
                    let backend = backend_of(rig, &packet)?;
                    ensure!(backend == by_hash, "{about}: {backend}, not {by_hash}");
                }
            }
        }
        ensure!(named > 40, "only {named} packets went elsewhere for their ID");
        Ok(())
    });
}

/// A backend that drains has its connections still; one that is down or gone has not.
#[test]
fn connections_stay_on_a_backend_that_drains() {
    with_rig(|rig| {
        const LENGTH: u8 = 2;
        let target = quic(LENGTH);
        let on_it = |rig: &mut Rig| -> anyhow::Result<usize> {
            let mut count = 0;
            for family in 0..2 {
                for host in 0..30 {
                    let from = SocketAddr::new(client(family, 7, host), 77);
                    let id = connection(LENGTH, server_id(LENGTH, 1));
                    count += usize::from(backend_of(rig, &short(from, family, &id))? == 1);
                }
            }
            Ok(count)
        };
        rig.install(&target)?;
        ensure!(on_it(rig)? == 60, "up");
        let mut changed = target.clone();
        changed.pools[0].members[0].weight = 0;
        rig.install(&changed)?;
        ensure!(on_it(rig)? == 60, "draining");
        changed.pools[0].members[0].keeps = false;
        rig.install(&changed)?;
        ensure!(on_it(rig)? == 0, "down");
        changed.pools[0].members.remove(0);
        rig.install(&changed)?;
        ensure!(on_it(rig)? == 0, "gone");
        rig.install(&target)?;
        ensure!(on_it(rig)? == 60, "back again");
        // Services that do not ask for it look at no ID.
        let mut without = target.clone();
        without.services.iter_mut().for_each(|service| service.quic = Quic::default());
        rig.install(&without)?;
        let count = on_it(rig)?;
        ensure!(count < 40, "{count} of 60 by ID, which no service asks for");
        let tcp = to(Packet::tcp, 0, 443).payload(connection(LENGTH, server_id(LENGTH, 1)));
        backend_of(rig, &tcp).map(drop)
    });
}
