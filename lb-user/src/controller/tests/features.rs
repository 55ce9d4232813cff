//! From the configuration to tables: what services ask of the packet path beyond a VIP's port.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::{
    abi::{DropReason, Features, Port, Ticks},
    addr::Addr,
    decide::{Decision, decide},
    packet::{Kind, Packet},
    wire::tcp_flag,
};

use super::{
    BOTH, CONFIG, VIP, with,
    world::{World, check, target},
};
use crate::{
    api::{BackendPatch, Edit},
    model::service::AdminState,
};

/// A packet of a client to a port of a VIP. It opens a flow if it is TCP.
fn packet(client: &str, vip: &str, protocol: u8, ports: (u16, u16)) -> Packet {
    let address = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    let destination = address(vip);
    Packet {
        source: address(client),
        destination,
        source_port: ports.0,
        destination_port: ports.1,
        protocol,
        tcp_flags: if protocol == 6 { tcp_flag::SYN } else { 0 },
        traffic_class: 0,
        ttl: 64,
        length: 100,
        offset: 14,
        is_v4: destination.is_v4(),
        kind: Kind::Whole,
        quic_head: 0,
        quic_id: 0,
        fragment: 0,
    }
}

/// The last byte of the server's address that a packet goes to, or why it is dropped.
fn sent(world: &World, packet: &Packet, now: Ticks) -> Result<u8, DropReason> {
    match decide(&world.memory, packet, || now).decision {
        Decision::Forward(forward) => Ok(forward.hop.destination()[5]),
        Decision::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

/// `CONFIG` with another line in its service.
fn service_with(line: &str) -> String {
    with("pool = \"web\"\n", &format!("pool = \"web\"\n{line}\n"))
}

#[test]
fn the_program_has_what_the_configuration_uses() {
    let any_port = with("\"tcp/443\"", "\"udp/*\"");
    let prefix = with(VIP, "192.0.2.0/28");
    let mut world = World::serving(CONFIG, &BOTH);
    // What a configuration has that says nothing about it.
    let usual = Features::DROP_EVENTS;
    assert_eq!(world.memory.features, usual);
    let events =
        |drops: u32, flows: u32| format!("[lb]\ndrop_events = {drops}\nflow_events = {flows}\n{CONFIG}");
    for (text, features, in_window) in [
        (events(0, 0), Features::NONE, (0, 0)),
        (events(0, 1), Features::FLOW_EVENTS, (0, 1)),
        (events(10, 1000), Features::DROP_EVENTS.with(Features::FLOW_EVENTS), (3, 256)),
        (CONFIG.to_owned(), usual, (3, 0)),
    ] {
        world.configure(&text);
        assert_eq!(world.memory.features, features, "{text}");
        assert_eq!((world.memory.config.drop_events, world.memory.config.flow_events), in_window, "{text}");
    }
    let acl = service_with("acl = \"l\"") + "[[acl]]\nname = \"l\"\ndeny = []\n";
    for (text, features) in [
        (&any_port[..], Features::ANY_PORT),
        (&prefix, Features::PREFIX_VIP),
        (&service_with("affinity = \"source\""), Features::AFFINITY),
        (&acl, Features::ACL),
        (&service_with("limit = { packets = \"20/m\" }"), Features::LIMITS),
        (&any_port.replace(VIP, "192.0.2.0/28"), Features::ANY_PORT.with(Features::PREFIX_VIP)),
        (CONFIG, Features::NONE),
    ] {
        world.configure(text);
        let features = features.with(usual);
        assert_eq!(world.memory.features, features, "{text}");
        assert_eq!(super::super::features(world.controller.desired()), features);
    }
}

#[test]
fn an_exact_port_comes_before_any_and_an_address_before_a_prefix() {
    let service = |name: &str, vip: &str, ports: &str, pool: &str| {
        format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [{ports}]\npool = \"{pool}\"\n")
    };
    let pool = |name: &str, last: u8| {
        format!(
            "[[pool]]\nname = \"{name}\"\nslots = 31\nbackend = [{{ name = \"b\", address = \"10.1.0.{last}\" }}]\n"
        )
    };
    let text = [
        pool("exact", 1),
        pool("any", 2),
        pool("wide", 3),
        pool("rest", 4),
        service("exact", VIP, "\"tcp/80\"", "exact"),
        service("any", VIP, "\"tcp/*\"", "any"),
        service("wide", "192.0.2.0/28", "\"tcp/80\", \"tcp/443\"", "wide"),
        service("rest", "192.0.2.0/28", "\"tcp/*\"", "rest"),
        service("six", "2001:db8::/64", "\"tcp/80\"", "wide"),
    ]
    .concat();
    let world = World::serving(&text, &["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"]);
    for (vip, port, server) in [
        (VIP, 80, 1),
        (VIP, 443, 2),
        ("192.0.2.1", 80, 3),
        ("192.0.2.15", 443, 3),
        ("192.0.2.0", 22, 4),
        ("192.0.2.16", 80, 0),
        ("2001:db8::ffff:1", 80, 3),
        ("2001:db8::ffff:1", 81, 0),
        ("2001:db8:0:1::1", 80, 0),
    ] {
        assert_eq!(world.servers(vip, port), [server], "{vip} {port}");
    }
}

#[test]
fn a_pool_is_probed_at_the_first_address_of_a_prefix() {
    for (vip, probed) in [
        ("192.0.2.0/28", "192.0.2.1:80"),
        ("192.0.2.10/31", "192.0.2.10:80"),
        ("2001:db8::/64", "[2001:db8::1]:80"),
    ] {
        let world = World::serving(&with(VIP, vip), &BOTH);
        assert_eq!(world.probes[&check("web", "w1")].target, target(probed), "{vip}");
        assert_eq!(world.servers(&target(probed).ip().to_string(), 80), [11, 12]);
    }
}

#[test]
fn a_pool_is_probed_at_the_first_service_that_names_a_tcp_port() {
    let first = "[[service]]\nname = \"first\"\nvip = \"192.0.2.9\"\nports = [\"udp/80\", \"tcp/*\"]\npool = \"web\"\n";
    let text = CONFIG.replacen("[[service]]", &format!("{first}[[service]]"), 1);
    let world = World::serving(&text, &BOTH);
    assert_eq!(world.probes[&check("web", "w1")].target, target("192.0.2.10:80"));
    let with_port = text.replacen("type = \"tcp\"", "type = \"tcp\", port = 7", 1);
    let world = World::serving(&with_port, &BOTH);
    assert_eq!(world.probes[&check("web", "w1")].target, target("192.0.2.9:7"));
}

#[test]
fn a_client_stays_on_one_backend_for_all_ports_of_a_service() {
    let now = Ticks::default();
    let ports = with("\"tcp/443\"", "\"udp/6970-6979\"");
    let affine = |line: &str| ports.replacen("pool = \"web\"\n", &format!("pool = \"web\"\n{line}\n"), 1);
    let servers = |world: &World, client: &str| -> BTreeSet<u8> {
        let tcp = (1000..1040).map(|port| packet(client, VIP, 6, (port, 80)));
        let udp = (6970..6980).map(|port| packet(client, VIP, 17, (port, port)));
        tcp.chain(udp).map(|packet| sent(world, &packet, now).unwrap()).collect()
    };
    let world = World::serving(&ports, &BOTH);
    assert_eq!(servers(&world, "198.51.100.7").len(), 2, "each flow its own way");

    let world = World::serving(&affine("affinity = \"source\""), &BOTH);
    let of_client: Vec<_> = (0..32).map(|n| servers(&world, &format!("198.51.100.{n}"))).collect();
    assert!(of_client.iter().all(|servers| servers.len() == 1), "{of_client:?}");
    assert_eq!(of_client.iter().flatten().collect::<BTreeSet<_>>().len(), 2, "clients are spread");

    let world = World::serving(&affine("affinity = \"source/24\""), &BOTH);
    let of_network = |third: u8| -> BTreeSet<u8> {
        (0..32).flat_map(|n| servers(&world, &format!("198.51.{third}.{n}"))).collect()
    };
    assert!((0..16).all(|third| of_network(third).len() == 1));
    assert_eq!((0..16).flat_map(of_network).collect::<BTreeSet<_>>().len(), 2);
    let six = affine("affinity = \"source/56\"").replace(VIP, "2001:db8::10");
    let world = World::serving(&six, &BOTH);
    let site = |n: u8| packet(&format!("2001:db8:1:{n:x}::1"), "2001:db8::10", 6, (u16::from(n) + 1000, 80));
    let found: BTreeSet<u8> = (0..32).map(|n| sent(&world, &site(n), now).unwrap()).collect();
    assert_eq!(found.len(), 1);
}

/// A short header, a connection ID of configuration 0, this server ID and a nonce.
fn named(server: u16, port: u16) -> Packet {
    let [high, low] = server.to_be_bytes();
    Packet {
        quic_head: u16::from_le_bytes([0x40, 0x1f]),
        quic_id: u64::from_le_bytes([high, low, 1, 2, 3, 4, 5, 6]),
        ..packet("198.51.100.7", VIP, 17, (port, 443))
    }
}

#[test]
fn a_connection_id_names_its_backend_as_long_as_that_serves() {
    let servers = with("\"10.1.0.11\"", "\"10.1.0.11\"\nserver_id = \"0x2a01\"").replacen(
        "\"10.1.0.12\"",
        "\"10.1.0.12\"\nserver_id = \"0x2a02\"",
        1,
    );
    let text = servers.replacen("\"tcp/443\"]", "\"udp/443\"]\nquic = { server_id_length = 2 }", 1);
    let mut world = World::serving(&text, &BOTH);
    let now = Ticks::default();
    let found = |world: &World, id: u16| -> BTreeSet<u8> {
        (1000..1032).map(|port| sent(world, &named(id, port), now).unwrap()).collect()
    };
    let only = |server: u8| BTreeSet::from([server]);
    assert_eq!((found(&world, 0x2a01), found(&world, 0x2a02)), (only(11), only(12)));
    assert_eq!(found(&world, 0x2a03).len(), 2, "nobody has it: the hash decides");
    let handshake = |port| Packet { quic_head: u16::from_le_bytes([0xc0, 0x1f]), ..named(0x2a01, port) };
    let of_handshakes: BTreeSet<u8> =
        (2000..2032).map(|port| sent(&world, &handshake(port), now).unwrap()).collect();
    assert_eq!(of_handshakes.len(), 2, "a long header names nobody");

    let state = |world: &mut World, state| {
        let patch = BackendPatch { state: Some(state), ..BackendPatch::default() };
        world.edit(Edit::SetBackend { pool: "web".to_owned(), name: "w1".to_owned(), patch });
    };
    state(&mut world, AdminState::Drain);
    assert_eq!(found(&world, 0x2a01), only(11), "it keeps what it has");
    state(&mut world, AdminState::Maint);
    assert_eq!(found(&world, 0x2a01), only(12));
    state(&mut world, AdminState::Ready);
    world.probe();

    // It leaves, and another one gets its server ID at once.
    world.edit(Edit::DeleteBackend { pool: "web".to_owned(), name: "w1".to_owned() });
    assert_eq!(found(&world, 0x2a01), only(11), "it serves what it has");
    let file = world.file.replacen("\"0x2a02\"", "\"0x2a01\"", 1);
    world.configure(&file);
    assert_eq!(world.status().config.errors, [""; 0]);
    assert_eq!(found(&world, 0x2a01), only(12));
}

#[test]
fn a_list_says_who_may_and_its_file_is_read_again() {
    let now = Ticks::default();
    let text = service_with("acl = \"l\"")
        + "[[acl]]\nname = \"l\"\nallow = [\"198.51.100.0/24\"]\ndeny_file = \"bad\"\ndefault = \"deny\"\n";
    let mut world = World::new();
    world.files.insert("bad".to_owned(), Ok("198.51.100.128/25\n".into()));
    world.configure(&text);
    for server in BOTH {
        world.way(server, super::world::on_link(server, 0));
        world.alive.insert(server.parse().unwrap());
    }
    world.probe();
    let admitted = |world: &World| -> Vec<bool> {
        ["198.51.100.7", "198.51.100.200", "203.0.113.1"]
            .map(|client| match sent(world, &packet(client, VIP, 6, (1000, 80)), now) {
                Ok(_) => true,
                Err(DropReason::Denied) => false,
                Err(other) => panic!("{other:?}"),
            })
            .to_vec()
    };
    assert_eq!(admitted(&world), [true, false, false]);
    let generation = world.status().config.generation;

    world.files.insert("bad".to_owned(), Ok("198.51.100.0/29\n".into()));
    world.configure(&text);
    assert_eq!(admitted(&world), [false, true, false]);
    assert_eq!(world.status().config.generation, generation + 1);

    for broken in [Ok("nonsense".into()), Err("Permission denied".to_owned())] {
        world.files.insert("bad".to_owned(), broken);
        world.configure(&text);
        assert_eq!(world.status().config.errors.len(), 1);
        assert_eq!(admitted(&world), [false, true, false], "a bad file changes nothing");
    }
    world.files.insert("bad".to_owned(), Ok("".into()));
    world.configure(&text);
    assert_eq!(admitted(&world), [true, true, false]);

    let steps = world.steps;
    world.configure(&text.replacen("default = \"deny\"", "default = \"allow\"", 1));
    assert_eq!(admitted(&world), [true, true, true]);
    assert!(world.steps > steps);
    world.configure(CONFIG);
    assert_eq!(admitted(&world), [true, true, true]);
    assert!(world.memory.prefixes.keys().all(|key| key.list < lb_common::abi::PrefixKey::FIRST_ACL));
}

#[test]
fn a_list_that_does_not_fit_is_refused_as_a_whole() {
    let mut world = World::serving(CONFIG, &BOTH);
    let text = service_with("acl = \"l\"") + "[[acl]]\nname = \"l\"\ndeny_file = \"many\"\n";
    let many: String = (0..2000).map(|n| format!("10.{}.{}.0/24\n", n >> 8, n & 255)).collect();
    world.files.insert("many".to_owned(), Ok(many.into()));
    world.configure(&text);
    let errors = world.status().config.errors;
    assert!(
        errors[0].starts_with("no room for 2000 more prefixes: the tables were made for 1024"),
        "{errors:?}"
    );
    assert_eq!(world.servers(VIP, 80), [11, 12]);
}

#[test]
fn a_source_may_send_its_burst_and_then_its_rate() {
    let limit = "limit = { packets = \"25/s\", packets_burst = 5, connections = \"20/m\", connections_burst = 2, prefix = 24 }";
    let world = World::serving(&service_with(limit), &BOTH);
    let at = |tick: u64| Ticks::new(1_000_000 + tick);
    let syn = |client: &str| packet(client, VIP, 6, (1000, 80));
    let data = |client: &str| Packet { tcp_flags: 0, ..syn(client) };
    // The clock of this world has 250 ticks a second: a packet each 10 ticks.
    for _ in 0..5 {
        assert!(sent(&world, &data("198.51.100.7"), at(0)).is_ok());
    }
    assert_eq!(sent(&world, &data("198.51.100.8"), at(0)), Err(DropReason::PacketLimit), "the same /24");
    assert!(sent(&world, &data("198.51.101.7"), at(0)).is_ok(), "another one");
    assert_eq!(sent(&world, &data("198.51.100.7"), at(8)), Err(DropReason::PacketLimit));
    assert!(sent(&world, &data("198.51.100.7"), at(10)).is_ok());
    assert_eq!(sent(&world, &data("198.51.100.7"), at(10)), Err(DropReason::PacketLimit));

    // One in 750 ticks.
    let opened = |tick| sent(&world, &syn("203.0.113.1"), at(tick));
    assert!(opened(0).is_ok() && opened(1).is_ok());
    assert_eq!(opened(20), Err(DropReason::FlowLimit));
    assert!(sent(&world, &data("203.0.113.1"), at(21)).is_ok(), "what is open goes on");
    assert_eq!(opened(748), Err(DropReason::FlowLimit));
    assert!(opened(750).is_ok());
}

#[test]
fn a_backend_in_a_vlan_leaves_by_a_port_of_its_own() {
    let vlan = |vlan: &str| with("\"10.1.0.12\"", &format!("\"10.1.0.12\"\n{vlan}"));
    let mut world = World::serving(&vlan("vlan = 100"), &BOTH);
    let port_of = |world: &World, backend: &str| {
        let mark = world.probes[&check("web", backend)].mark.unwrap();
        let record = world.memory.backends[(mark & 0xff_ffff) as usize];
        world.memory.ports[usize::from(record.hop().port())]
    };
    assert_eq!(port_of(&world, "w1"), Port { ifindex: 3, vlan: 0 });
    assert_eq!(port_of(&world, "w2"), Port { ifindex: 3, vlan: Port::TAGGED | 100 });
    world.configure(&vlan("vlan = 4094"));
    assert_eq!(port_of(&world, "w2"), Port { ifindex: 3, vlan: Port::TAGGED | 4094 });
    assert_eq!(world.servers(VIP, 80), [11, 12], "no probe was needed for that");
    world.configure(&vlan(""));
    assert_eq!(port_of(&world, "w2"), Port { ifindex: 3, vlan: 0 });
}
