//! From the configuration to tables: what services ask of the packet path beyond a VIP's port.

use lb_common::abi::Features;

use super::{
    BOTH, CONFIG, VIP, with,
    world::{World, id, target},
};

#[test]
fn the_program_has_what_the_configuration_uses() {
    let any_port = with("\"tcp/443\"", "\"udp/*\"");
    let prefix = with(VIP, "192.0.2.0/28");
    let mut world = World::serving(CONFIG, &BOTH);
    assert_eq!(world.memory.features, Features::NONE);
    for (text, features) in [
        (&any_port[..], Features::ANY_PORT),
        (&prefix, Features::PREFIX_VIP),
        (&any_port.replace(VIP, "192.0.2.0/28"), Features::ANY_PORT.with(Features::PREFIX_VIP)),
        (CONFIG, Features::NONE),
    ] {
        world.configure(text);
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
        assert_eq!(world.probes[&id("web", "w1")].target, target(probed), "{vip}");
        assert_eq!(world.servers(&target(probed).ip().to_string(), 80), [11, 12]);
    }
}

#[test]
fn a_pool_is_probed_at_the_first_service_that_names_a_tcp_port() {
    let first = "[[service]]\nname = \"first\"\nvip = \"192.0.2.9\"\nports = [\"udp/80\", \"tcp/*\"]\npool = \"web\"\n";
    let text = CONFIG.replacen("[[service]]", &format!("{first}[[service]]"), 1);
    let world = World::serving(&text, &BOTH);
    assert_eq!(world.probes[&id("web", "w1")].target, target("192.0.2.10:80"));
    let with_port = text.replacen("type = \"tcp\"", "type = \"tcp\", port = 7", 1);
    let world = World::serving(&with_port, &BOTH);
    assert_eq!(world.probes[&id("web", "w1")].target, target("192.0.2.9:7"));
}
