//! Targets for tests: small worlds in which a MAC tells which pool's which backend it is, whatever the names are.

use std::collections::BTreeMap;

use lb_common::abi::{Backend, Limits};
use proptest::{
    collection::{btree_map, btree_set},
    option,
    prelude::*,
};

use super::super::*;
use crate::model::{
    maglev,
    memory::audit::{audit, slots},
};

/// Tables so small that a test may look at all of it after each step.
pub(super) const SMALL: Limits = Limits {
    index: 128,
    services: 64,
    slots: 2048,
    backends: 2048,
    counters: 8192,
    flow_buckets: 16,
    limiters: 16,
    prefixes: 1024,
};

/// Address of backend `k` of pool `pool`.
pub(super) fn address(pool: u8, k: u8) -> IpAddr {
    if k % 3 == 2 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, u16::from(pool), u16::from(k)).into()
    } else {
        Ipv4Addr::new(10, pool, 0, k).into()
    }
}

/// Its MAC, of which it may have several in its life.
pub(super) fn mac(pool: u8, k: u8, version: u8) -> [u8; 6] {
    [2, pool, k, version, 0, 0]
}

pub(super) fn name(kind: char, number: u8) -> Name {
    Name::new(&format!("{kind}{number}")).unwrap()
}

pub(super) fn key(vip: u8, port: u16) -> ServiceKey {
    ServiceKey::new(Addr::v4([192, 0, 2, vip]), 6, port)
}

pub(super) fn hop(pool: u8, k: u8, ifindex: u32, version: u8) -> HopTarget {
    HopTarget {
        port: Port { ifindex, vlan: 0 },
        source: [6; 6],
        destination: mac(pool, k, version),
        mtu: 1500,
    }
}

/// Backend `k` of pool `pool`, next door. It can serve the flows it has.
pub(super) fn member(pool: u8, k: u8, weight: u32) -> MemberTarget {
    let hop = Some(hop(pool, k, 3, 0));
    MemberTarget { address: address(pool, k), via: Via::L2, hop, weight, keeps: true, server_id: None }
}

pub(super) fn pool(number: u8, slots: u32, members: Vec<MemberTarget>) -> PoolTarget {
    PoolTarget { name: name('p', number), slots, is_tracked: true, members }
}

pub(super) fn service(number: u8, pool: u8, keys: Vec<ServiceKey>) -> ServiceTarget {
    ServiceTarget {
        name: name('s', number),
        keys,
        pool: name('p', pool),
        flags: 0,
        tcp_idle: 1000,
        udp_idle: 100,
        affinity: 0,
        quic: Quic::default(),
        list: None,
        limited: 0,
        packets: Rate::default(),
        flows: Rate::default(),
    }
}

/// Any target: addresses, tunnels, ports and pools come together as they like.
pub(super) fn targets() -> impl Strategy<Value = Target> {
    let way = option::weighted(0.85, (1u32..5, 0u8..3));
    let weight = prop_oneof![Just(0u32), Just(1), Just(2), Just(100)];
    let member = (0u8..8, 0u8..4, way, weight, prop::bool::weighted(0.8));
    let members = btree_map(0u8..8, member, 0..8);
    let size = prop_oneof![3 => Just(31u32), 1 => Just(13)];
    let pools = btree_map(0u8..4, (size, prop::bool::weighted(0.8), members), 0..4);
    let settled = btree_set(0u32..128, 0..40);
    let keys = btree_map((0u8..3, 0u16..8), 0u8..5, 0..20);
    let service_pools = prop::array::uniform5(0u8..4);
    (any::<bool>(), any::<bool>(), pools, keys, service_pools, settled).prop_map(
        |(seed, wide, pools, keys, service_pools, settled)| {
            let mut services: BTreeMap<u8, Vec<ServiceKey>> = BTreeMap::new();
            for ((vip, port), service) in keys {
                if pools.contains_key(&service_pools[usize::from(service)]) {
                    services.entry(service).or_default().push(key(vip, port));
                }
            }
            let outer = Outer::default();
            Target {
                seed: u64::from(seed),
                outer: Outer { v4: (outer.v4.0, if wide { 16 } else { 24 }), ..outer },
                pools: pools
                    .into_iter()
                    .map(|(n, (slots, is_tracked, members))| PoolTarget {
                        is_tracked,
                        ..any_pool(n, slots, members)
                    })
                    .collect(),
                services: services
                    .into_iter()
                    .map(|(n, keys)| service(n, service_pools[usize::from(n)], keys))
                    .collect(),
                settled,
                fragment_idle: 5,
                ..Target::default()
            }
        },
    )
}

type AnyMember = (u8, u8, Option<(u32, u8)>, u32, bool);

fn any_pool(number: u8, slots: u32, members: BTreeMap<u8, AnyMember>) -> PoolTarget {
    let mut addresses = BTreeSet::new();
    let members =
        members.into_values().filter(|(k, ..)| addresses.insert(*k)).map(|(k, via, way, weight, keeps)| {
            MemberTarget {
                address: address(number, k),
                via: Via::ALL[usize::from(via)].1,
                hop: way.map(|(ifindex, version)| hop(number, k, ifindex, version)),
                weight,
                keeps: keeps && way.is_some(),
                server_id: None,
            }
        });
    pool(number, slots, members.collect())
}

/// Which pool, by its number, a target's keys lead to.
pub(super) fn pools_by_key(target: &Target) -> BTreeMap<ServiceKey, u8> {
    let number = |name: &Name| name.as_str()[1..].parse().unwrap();
    let keys = |service: &ServiceTarget| {
        let pool = number(&service.pool);
        service.keys.iter().map(move |&key| (key, pool)).collect::<Vec<_>>()
    };
    target.services.iter().flat_map(keys).collect()
}

/// Asserts that the tables, in which a plan may have stopped anywhere, answer exactly these keys, each from its pool.
pub(super) fn assert_serving(memory: &Memory, pools: &BTreeMap<ServiceKey, u8>) {
    let found = audit(memory);
    assert!(found.keys().eq(pools.keys()), "{found:?} instead of {pools:?}");
    for (key, service) in &found {
        for number in slots(memory, service).iter().filter_map(|slot| slot.owner()) {
            let mac = backend(memory, service, number).hop().destination();
            assert_eq!(mac[1], pools[key], "{key:?} leads into another pool");
        }
    }
}

fn backend<'m>(memory: &'m Memory, service: &Service, number: u16) -> &'m Backend {
    &memory.backends[service.backend_base as usize + usize::from(number)]
}

/// Asserts that tables are all that a target wants, and nothing else.
pub(super) fn assert_arrived(memory: &Memory, target: &Target) {
    let found = audit(memory);
    for service in &target.services {
        let pool = target.pools.iter().find(|pool| pool.name == service.pool).unwrap();
        let identities: Vec<String> = pool.members.iter().map(|m| m.address.to_string()).collect();
        let members: Vec<maglev::Member<'_>> = (0u16..)
            .zip(pool.members.iter().zip(&identities))
            .filter(|(_, (member, _))| member.hop.is_some())
            .map(|(number, (member, identity))| maglev::Member { identity, number, weight: member.weight })
            .collect();
        let wanted: Vec<Option<HopTarget>> = maglev::build(&members, pool.slots)
            .into_iter()
            .map(|owner| pool.members[usize::from(owner?)].hop)
            .collect();
        for key in &service.keys {
            let service = &found[key];
            let owner = |slot: &Slot| slot.owner().map(|number| backend(memory, service, number).hop());
            let got: Vec<_> = slots(memory, service).iter().map(owner).collect();
            let got: Vec<_> = got
                .into_iter()
                .map(|hop| hop.map(|hop| (hop.destination(), memory.ports[usize::from(hop.port())])))
                .collect();
            let wanted: Vec<_> =
                wanted.iter().map(|hop| hop.map(|hop| (hop.destination, hop.port))).collect();
            assert_eq!(got, wanted, "slots of {key:?}");
        }
    }
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), {
        let mut keys: Vec<_> = target.services.iter().flat_map(|service| service.keys.clone()).collect();
        keys.sort_unstable();
        keys
    });
    assert_eq!(memory.config.seed, target.seed);

    let mut records: Vec<Addr> = Vec::new();
    for member in target.pools.iter().flat_map(|pool| &pool.members).filter(|member| member.hop.is_some()) {
        records.push(Addr::from(member.address));
    }
    records.sort_unstable();
    let mut present: Vec<Addr> =
        memory.backends.iter().filter(|b| b.standing != 0).map(|b| b.address).collect();
    present.sort_unstable();
    assert_eq!(present, records, "backends");
    let services = memory.services.iter().filter(|service| service.slot_count != 0).count();
    assert_eq!(services, target.services.len(), "services");
    let mut interfaces: Vec<Port> = target.hops().map(|hop| hop.port).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    let mut ports: Vec<Port> = memory.ports.iter().copied().filter(|&port| port != Port::default()).collect();
    ports.sort_unstable();
    assert_eq!(ports, interfaces, "ports");
}
