//! What the parser says to good, bad and arbitrary files.

mod checks;
mod edits;
mod policies;

use std::{net::IpAddr, sync::Arc, time::Duration};

use lb_common::abi::Admission;
use proptest::prelude::*;

use super::{ConfigErrors, duration_text, example, files_named, keys, parse as parse_with};
use crate::model::{
    check::{Check, CheckKind, Pace, ProbeTo},
    limit::{Allowance, Frequency, Period, SourceLimit},
    quic::QuicIds,
    service::{
        AdminState, DEFAULT_SLOTS, DEFAULT_WEIGHT, Desired, MAX_WEIGHT, SLOTS_RANGE, Settings, Via, XdpMode,
    },
    source::Files,
};

/// With every file that is named there, and one prefix in each.
fn files_for(text: &str) -> Files {
    files_named(text).into_iter().map(|name| (name, Ok("203.0.113.0/24\n".into()))).collect()
}

fn parse(text: &str) -> Result<Desired, ConfigErrors> {
    parse_with(text, &files_for(text))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_example_is_valid_and_means_what_it_says() {
    let desired = parse(example()).unwrap();
    let Settings {
        interfaces,
        xdp,
        seed,
        tunnel_source_v4,
        tunnel_source_v6,
        gue_port,
        transition_max,
        drop_events,
        flow_events,
        drop_alarm,
    } = &desired.settings;
    assert_eq!((*drop_events, *flow_events, *drop_alarm), (10, 0, 1000));
    assert_eq!(*transition_max, Duration::from_secs(3600));
    assert_eq!(interfaces, &["eth0"]);
    assert_eq!((*xdp, *seed), (XdpMode::Auto, 0x5e_ed0f_1ee7));
    assert_eq!(tunnel_source_v4.1, 16);
    assert_eq!(tunnel_source_v6.1, 64);
    assert_eq!(*gue_port, 6080);

    let web = &desired.pools[0];
    assert_eq!((web.name.as_str(), web.slots), ("web", DEFAULT_SLOTS));
    let http = CheckKind::Http {
        path: "/healthz".into(),
        host: Some("www.example.com".into()),
        expect: 200,
        tls: None,
    };
    let pace = Pace {
        interval: Duration::from_secs(2),
        fast: Duration::from_millis(500),
        jitter: 10,
        rise: 2,
        fall: 3,
    };
    let check = Check {
        kind: Arc::new(http),
        to: ProbeTo::Vip,
        port: None,
        pace,
        timeout: Duration::from_secs(1),
        damping: Duration::from_secs(600),
    };
    assert_eq!(web.check, Some(check));
    let backends: Vec<_> =
        web.backends.iter().map(|b| (b.name.as_str(), b.address, b.via, b.weight, b.state)).collect();
    let expected = [
        ("w1", address("10.1.0.11"), Via::L2, 100, AdminState::Ready),
        ("w2", address("10.9.0.12"), Via::Ipip, 50, AdminState::Ready),
        ("w3", address("10.1.0.13"), Via::L2, 100, AdminState::Drain),
    ];
    assert_eq!(backends, expected);
    assert_eq!(desired.pools[1].backends[1].state, AdminState::Maint);

    let services: Vec<String> = desired
        .services
        .iter()
        .map(|s| {
            format!(
                "{} {} {} -> {}",
                s.name,
                s.vip,
                s.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                s.pool
            )
        })
        .collect();
    let expected = [
        "www 192.0.2.10 tcp/80,tcp/443 -> web",
        "www6 2001:db8::10 tcp/80,tcp/443 -> web",
        "sip 192.0.2.11 udp/5060,udp/6970-6999 -> voice",
        "h3 192.0.2.12 udp/443 -> h3",
        "rtsp 192.0.2.12 tcp/554,udp/6970-6999 -> web",
        "rest 192.0.2.0/28 tcp/*,udp/* -> web",
    ];
    assert_eq!(services, expected);
    assert_eq!(web.backends.iter().map(|b| b.vlan).collect::<Vec<_>>(), [None, None, Some(100)]);
    let ids: Vec<_> = desired.pools[2].backends.iter().map(|b| b.server_id.unwrap().to_string()).collect();
    assert_eq!(ids, ["0x2a01", "0x2a02"]);
    let [.., h3, rtsp, rest] = &desired.services[..] else { panic!("six services") };
    assert_eq!(h3.quic, Some(QuicIds { server_id_length: 2, config_bits: 3, config: 0 }));
    assert_eq!((rtsp.affinity, rest.affinity), (Some(24), None));
    let per_second = |count, burst| Allowance { rate: Frequency { count, per: Period::Second }, burst };
    let limit = SourceLimit {
        prefix: 24,
        packets: Some(per_second(10_000, 20_000)),
        connections: Some(per_second(100, 200)),
    };
    assert_eq!((rest.acl.as_ref().unwrap().as_str(), rest.limit), ("friends", Some(limit)));
    let friends = desired.acl(rest.acl.as_ref().unwrap()).unwrap();
    assert_eq!((friends.others, friends.table.entries.len()), (Admission::Deny, 3));
}

#[test]
fn the_example_shows_every_key() {
    for table in keys::ALL {
        for key in table.names() {
            assert!(example().contains(key), "{key} of {} is not in the example", table.name);
        }
    }
}

#[test]
fn nothing_is_a_valid_configuration() {
    for text in ["", "\n", "# later\n", "\u{feff}", "[lb]\n", "pool = []\nservice = []\n"] {
        assert_eq!(parse(text), Ok(Desired::default()), "{text:?}");
    }
}

#[test]
fn a_table_may_be_written_in_any_of_tomls_ways() {
    let sections = "[[pool]]\nname = 'a'\n[pool.check]\ntype = 'tcp'\nport = 80\n[[pool.backend]]\nname = 'b'\naddress = '10.0.0.1'\n";
    let dotted = "[[pool]]\nname = 'a'\ncheck.type = 'tcp'\ncheck.port = 80\nbackend = [{ name = 'b', address = '10.0.0.1' }]\n";
    let inline = "pool = [{ name = 'a', check.type = 'tcp', check.port = 80, backend = [{ name = 'b', address = '10.0.0.1' }] }]\n";
    let expected = parse(sections).unwrap();
    assert_eq!(expected.pools[0].backends.len(), 1);
    assert_eq!(parse(dotted), Ok(expected.clone()));
    assert_eq!(parse(inline), Ok(expected));
}

const POOL: &str = "[[pool]]\nname = \"web\"\n";

/// Text, and the errors it must give: all of them, in order.
#[test]
fn every_error_has_its_place_and_its_words() {
    let backend = |rest: &str| format!("{POOL}[[pool.backend]]\nname = \"w1\"\n{rest}\n");
    let service = |rest: &str| format!("{POOL}[[service]]\nname = \"www\"\npool = \"web\"\n{rest}\n");
    let ports = |ports: &str| service(&format!("vip = \"192.0.2.1\"\nports = {ports}"));
    let vip = |vip: &str| service(&format!("vip = \"{vip}\"\nports = [\"tcp/80\"]"));
    let cases: Vec<(String, Vec<&str>)> = vec![
        ("x = ".into(), vec!["1:5: not TOML: "]),
        ("[lb]\nxdp = \"auto\"\nxdp = \"auto\"\n".into(), vec!["3:1: not TOML: duplicate key"]),
        (
            "[lb]\ninterface = [\"eth0\"]\n".into(),
            vec!["2:1: lb: unknown key \"interface\" (did you mean \"interfaces\"?)"],
        ),
        ("[backend]\n".into(), vec!["1:2: unknown key \"backend\" (known here: lb, pool, service, acl)"]),
        ("lb = 3\n".into(), vec!["1:6: lb: expected a table, found an integer"]),
        (
            "[pool]\nname = \"web\"\n".into(),
            vec!["1:1: pool: expected tables, found a table: write [[pool]], with two brackets"],
        ),
        ("pool = [1]\n".into(), vec!["1:9: pool[0]: expected a table, found an integer"]),
        (
            "[lb]\ninterfaces = [\"eth0\", 7, \"a/b\", \"eth0\"]\nxdp = \"nativ\"\n".into(),
            vec![
                "2:23: lb, interfaces[1]: expected a string, found an integer",
                "2:26: lb, interfaces[2]: \"a/b\" is not an interface name",
                "2:33: lb, interfaces: \"eth0\" is named twice (line 2)",
                "3:7: lb, xdp: \"nativ\" is not one of \"auto\", \"native\", \"generic\" (did you mean \"native\"?)",
            ],
        ),
        ("[lb]\nseed = -1\n".into(), vec!["2:8: lb, seed: \"-1\" is not a seed"]),
        ("[lb]\nseed = \"0x\"\n".into(), vec!["2:8: lb, seed: \"0x\" is not a seed"]),
        ("[lb]\nseed = \"0x12345678901234567\"\n".into(), vec!["2:8: lb, seed: "]),
        (
            "[lb]\ntunnel_source = \"172.16.1.0/16\"\n".into(),
            vec!["2:17: lb, tunnel_source: 172.16.1.0/16 has host bits: write 172.16.0.0/16"],
        ),
        (
            "[lb]\ntunnel_source6 = \"100::/16\"\n".into(),
            vec!["2:18: lb, tunnel_source6: 16 is not within 32 to 128"],
        ),
        (
            "[[pool]]\nslots = 16384\n".into(),
            vec![
                "1:1: pool[0]: name is missing: add name = \"web\"",
                "2:9: pool[0], slots: 16384 is not a prime, which a lookup table's size must be: the nearest is 16381",
            ],
        ),
        (format!("{POOL}slots = 7\n"), vec!["3:9: pool \"web\", slots: 7 is not within 11 to 1048573"]),
        ("[[pool]]\nname = \"-x\"\n".into(), vec!["2:8: pool \"-x\", name: \"-x\" is not a name"]),
        (format!("{POOL}{POOL}"), vec!["4:8: pool \"web\": there is already a pool \"web\" (line 2)"]),
        (
            backend("adress = \"10.0.0.1\""),
            vec![
                "3:1: pool \"web\", backend \"w1\": address is missing",
                "5:1: pool \"web\", backend \"w1\": unknown key \"adress\" (did you mean \"address\"?)",
            ],
        ),
        (
            backend("address = \"10.0.0\""),
            vec![
                "5:11: pool \"web\", backend \"w1\", address: \"10.0.0\" is not an IP address: names are not",
            ],
        ),
        (
            backend("address = \"10.0.0.1:80\""),
            vec![
                "5:11: pool \"web\", backend \"w1\", address: \"10.0.0.1:80\" is not an IP address: leave the port away",
            ],
        ),
        (
            backend("address = \"10.0.0.1/24\""),
            vec![
                "5:11: pool \"web\", backend \"w1\", address: \"10.0.0.1/24\" is not an IP address: leave the prefix length away",
            ],
        ),
        (
            backend("address = \"::ffff:10.0.0.1\""),
            vec![
                "5:11: pool \"web\", backend \"w1\", address: ::ffff:10.0.0.1 is IPv4 written as IPv6: write 10.0.0.1",
            ],
        ),
        (
            backend("address = \"0.0.0.0\""),
            vec!["5:11: pool \"web\", backend \"w1\", address: 0.0.0.0 is no address of a host"],
        ),
        (
            backend("address = \"127.0.0.1\""),
            vec!["5:11: pool \"web\", backend \"w1\", address: 127.0.0.1 is a loopback"],
        ),
        (
            backend("address = \"ff02::1\""),
            vec!["5:11: pool \"web\", backend \"w1\", address: ff02::1 is a multicast"],
        ),
        (
            backend("address = \"255.255.255.255\""),
            vec!["5:11: pool \"web\", backend \"w1\", address: 255.255.255.255 is the broadcast"],
        ),
        (
            backend("address = \"fe80::1\""),
            vec!["5:11: pool \"web\", backend \"w1\", address: fe80::1 is link-local"],
        ),
        (
            backend("address = 10"),
            vec!["5:11: pool \"web\", backend \"w1\", address: expected a string, found an integer"],
        ),
        (
            backend("address = \"10.0.0.1\"\nvia = \"gre\"\nweight = 10001\nstate = \"drian\""),
            vec![
                "6:7: pool \"web\", backend \"w1\", via: \"gre\" is not one of \"l2\", \"ipip\"",
                "7:10: pool \"web\", backend \"w1\", weight: 10001 is not within 0 to 10000",
                "8:9: pool \"web\", backend \"w1\", state: \"drian\" is not one of \"ready\", \"drain\", \"maint\" (did you mean \"drain\"?)",
            ],
        ),
        (
            backend("address = \"10.0.0.1\"\n[[pool.backend]]\nname = \"w1\"\naddress = \"10.0.0.1\""),
            vec![
                "7:8: pool \"web\", backend \"w1\": there is already a backend \"w1\" (line 4)",
                "8:11: pool \"web\", backend \"w1\", address: 10.0.0.1 is already the address of \"w1\": one backend, one address (line 5)",
            ],
        ),
        (
            "[[service]]\nname = \"www\"\n".into(),
            vec![
                "1:1: service \"www\": ports is missing",
                "1:1: service \"www\": vip is missing",
                "1:1: service \"www\": pool is missing",
            ],
        ),
        (
            format!(
                "{POOL}[[service]]\nname = \"www\"\nvip = \"192.0.2.1\"\nports = [\"tcp/80\"]\npool = \"wbe\"\n"
            ),
            vec!["7:8: service \"www\": pool \"wbe\" does not exist (did you mean \"web\"?)"],
        ),
        (ports("[]"), vec!["7:9: service \"www\", ports: a service needs at least one port"]),
        (
            ports("\"tcp/80\""),
            vec!["7:9: service \"www\", ports: expected an array of strings, found a string"],
        ),
        (
            ports("[\"tcp/0\", \"80\", \"tcp/9-8\", \"icmp/1\", \"tcp/65536\", \"tcp/+1\"]"),
            vec![
                "7:10: ",
                "7:19: ",
                "7:25: service \"www\", ports[2]: the range 9-8 ends before it begins: write 8-9",
                "7:36: ",
                "7:46: ",
                "7:59: ",
            ],
        ),
        (
            ports("[\"tcp/80-90\", \"tcp/85\"]"),
            vec!["7:23: service \"www\": tcp/80-90 of 192.0.2.1 already belongs to \"www\" (line 7)"],
        ),
        (
            ports(
                "[\"tcp/80\"]\n[[service]]\nname = \"other\"\nvip = \"192.0.2.1\"\nports = [\"udp/80\", \"tcp/1-100\"]\npool = \"web\"",
            ),
            vec!["11:20: service \"other\": tcp/80 of 192.0.2.1 already belongs to \"www\" (line 7)"],
        ),
        (
            format!(
                "{POOL}check = {{ type = \"tcp\" }}\n[[service]]\nname = \"dns\"\nvip = \"192.0.2.1\"\nports = [\"udp/53\"]\npool = \"web\"\n"
            ),
            vec!["3:1: pool \"web\", check: no service of this pool has a TCP port to probe: add port"],
        ),
        (
            format!(
                "{POOL}check = {{ type = \"tcp\" }}\n[[service]]\nname = \"all\"\nvip = \"192.0.2.1\"\nports = [\"tcp/*\", \"sctp/80\"]\npool = \"web\"\n"
            ),
            vec!["3:1: pool \"web\", check: no service of this pool has a TCP port to probe: add port"],
        ),
        (
            ports("[\"tcp/*\", \"tcp/80-90\", \"udp/*\", \"udp/*\", \"gre/*\", \"tcp/*-9\"]"),
            vec![
                "7:19: service \"www\", ports: tcp/80-90 is among tcp/* of the same service: leave one of them away",
                "7:41: service \"www\": udp/* of 192.0.2.1 already belongs to \"www\" (line 7)",
                "7:50: service \"www\", ports[4]: \"gre/*\" is not a port: write \"tcp/80\", \"udp/6970-6999\" or \"sctp/*\", ports 1 to 65535",
                "7:59: service \"www\", ports[5]: \"tcp/*-9\" is not a port",
            ],
        ),
        (
            ports(
                "[\"tcp/80\"]\n[[service]]\nname = \"rest\"\nvip = \"192.0.2.1\"\nports = [\"tcp/*\"]\npool = \"web\"\n[[service]]\nname = \"other\"\nvip = \"192.0.2.1/32\"\nports = [\"tcp/*\"]\npool = \"web\"",
            ),
            vec!["16:10: service \"other\": tcp/* of 192.0.2.1 already belongs to \"rest\" (line 11)"],
        ),
        (
            vip("192.0.2.8/28"),
            vec!["6:7: service \"www\", vip: 192.0.2.8/28 has host bits: write 192.0.2.0/28"],
        ),
        (vip("10.0.0.0/7"), vec!["6:7: service \"www\", vip: 7 is not within 8 to 32"]),
        (vip("10.0.0.0/33"), vec!["6:7: service \"www\", vip: 33 is not within 8 to 32"]),
        (vip("2001:d00::/24"), vec!["6:7: service \"www\", vip: 24 is not within 32 to 128"]),
        (
            vip("192.0.2/28"),
            vec!["6:7: service \"www\", vip: \"192.0.2/28\" is not a prefix: write it like \"192.0.2.0/28\""],
        ),
        (vip("224.0.0.0/24"), vec!["6:7: service \"www\", vip: 224.0.0.0 is a multicast"]),
        (
            vip("192.0.2.0/28")
                + "[[service]]\nname = \"v\"\npool = \"web\"\nvip = \"192.0.2.0/28\"\nports = [\"tcp/70-80\"]\n",
            vec!["12:10: service \"v\": tcp/80 of 192.0.2.0/28 already belongs to \"www\" (line 7)"],
        ),
        (
            backend(
                "address = \"192.0.2.1\"\n[[service]]\nname = \"www\"\nvip = \"192.0.2.0/28\"\nports = [\"tcp/80\"]\npool = \"web\"",
            ),
            vec![
                "5:11: pool \"web\", backend \"w1\", address: 192.0.2.1 is within 192.0.2.0/28, the VIPs of \"www\": give the backend's own address (line 8)",
            ],
        ),
        (
            backend(
                "address = \"192.0.2.1\"\n[[service]]\nname = \"www\"\nvip = \"192.0.2.1\"\nports = [\"tcp/80\"]\npool = \"web\"",
            ),
            vec![
                "5:11: pool \"web\", backend \"w1\", address: 192.0.2.1 is the VIP of \"www\": give the backend's own address (line 8)",
            ],
        ),
    ];
    assert_errors(cases);
}

/// Each text has just these errors, in this order; of each, how it begins.
fn assert_errors(cases: Vec<(String, Vec<&str>)>) {
    for (text, expected) in cases {
        let errors = parse(&text).expect_err(&text).0;
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let matches =
            found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| a.starts_with(b));
        assert!(matches, "{text}\ngave\n{}\nnot\n{}", found.join("\n"), expected.join("\n"));
    }
}

#[test]
fn a_byte_order_mark_takes_no_column() {
    let errors = parse("\u{feff}lb = 3\n").unwrap_err().to_string();
    assert!(errors.starts_with("1:6: "), "{errors}");
}

#[test]
fn more_backends_than_slots_are_refused() {
    let backends: Vec<String> =
        (1..=12).map(|n| format!("{{ name = \"b{n}\", address = \"10.0.0.{n}\" }}")).collect();
    let text = format!("[[pool]]\nname = \"p\"\nslots = 11\nbackend = [{}]\n", backends.join(", "));
    let errors = parse(&text).unwrap_err().to_string();
    assert!(errors.ends_with("pool \"p\": 12 backends, but 11 slots hold at most 11"), "{errors}");
}

#[test]
fn neighbouring_families_and_checks_without_services_are_fine() {
    let text = "[[pool]]\nname = 'a'\ncheck = { type = 'tcp', interval = '100ms' }\n\
                backend = [{ name = 'b', address = '10.0.0.1' }]\n\
                [[pool]]\nname = 'c'\n\
                [[service]]\nname = 's'\nvip = '2001:db8::1'\nports = ['tcp/1-65535', 'udp/1-65535']\npool = 'c'\n";
    let desired = parse(text).unwrap();
    assert_eq!(desired.pools[0].check.as_ref().unwrap().timeout, Duration::from_millis(100));
}

#[test]
fn a_prefix_and_addresses_within_it_are_each_a_vip_of_its_own() {
    let service = |name: &str, vip: &str, ports: &str| {
        format!("[[service]]\nname = '{name}'\nvip = '{vip}'\nports = {ports}\npool = 'p'\n")
    };
    let text = ["[[pool]]\nname = 'p'\n".to_owned()]
        .into_iter()
        .chain([
            service("a", "192.0.2.0/28", "['tcp/*', 'sctp/9-10']"),
            service("b", "192.0.2.1", "['tcp/*']"),
            service("c", "192.0.2.0/27", "['tcp/80', 'udp/*']"),
            service("d", "2001:db8::/64", "['tcp/80']"),
        ])
        .collect::<String>();
    let desired = parse(&text).unwrap();
    let shown = |service: &crate::model::service::Service| {
        let ports: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
        format!("{} {}", service.vip, ports.join(","))
    };
    let shown: Vec<String> = desired.services.iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            "192.0.2.0/28 tcp/*,sctp/9-10",
            "192.0.2.1 tcp/*",
            "192.0.2.0/27 tcp/80,udp/*",
            "2001:db8::/64 tcp/80"
        ]
    );
}

#[test]
fn a_report_reads_like_a_compilers_and_the_api_gets_its_parts() {
    let errors = parse("[lb]\nxdp = 1\nseeed = 2\n").unwrap_err();
    let expected = "lb.toml:2:7: lb, xdp: expected a string, found an integer\n\
                    lb.toml:3:1: lb: unknown key \"seeed\" (did you mean \"seed\"?)\n";
    assert_eq!(errors.report("lb.toml"), expected);
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json[0]["line"], 2);
    assert_eq!(json[0]["message"], "expected a string, found an integer");
}

/// The rows of the reference about one table: key, and the whole row.
fn reference_rows(table: &keys::TableKeys) -> Vec<(&'static str, &'static str)> {
    let reference = include_str!("../../../docs/config.md");
    let heading = format!("<a id=\"{}\"></a>", table.name);
    let (_, section) = reference.split_once(&heading).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("<a id=").next().unwrap_or(section);
    let row = |line: &'static str| Some((line.strip_prefix("| `")?.split('`').next()?, line));
    section.lines().filter_map(row).collect()
}

#[test]
fn the_reference_and_the_parser_know_the_same_keys() {
    for table in keys::ALL.iter().filter(|table| table.name != keys::FILE.name) {
        let documented: Vec<&str> = reference_rows(table).into_iter().map(|(key, _)| key).collect();
        assert_eq!(documented, table.names().collect::<Vec<_>>(), "rows of {}", table.name);
    }
}

#[test]
fn the_reference_names_the_defaults_and_ranges_that_hold() {
    let Settings { tunnel_source_v4: (v4, v4_length), tunnel_source_v6: (v6, v6_length), seed, .. } =
        Settings::default();
    let most_backends = super::parse::MAX_BACKENDS;
    let cases = [
        (&keys::LB, "seed", format!("| {seed} |")),
        (&keys::LB, "tunnel_source", format!("| `{v4}/{v4_length}` |")),
        (&keys::LB, "tunnel_source6", format!("| `{v6}/{v6_length}` |")),
        (&keys::LB, "gue_port", format!("| {} |", Settings::default().gue_port)),
        (
            &keys::LB,
            "drop_events",
            format!("| 0 to {} | {} |", super::parse::EVENTS.end(), Settings::DROP_EVENTS),
        ),
        (&keys::LB, "flow_events", format!("| 0 to {} | 0 |", super::parse::EVENTS.end())),
        (
            &keys::LB,
            "drop_alarm",
            format!("| 0 to {} | {} |", super::parse::ALARM.end(), Settings::DROP_ALARM),
        ),
        (&keys::POOL, "slots", format!("| {DEFAULT_SLOTS} |")),
        (&keys::POOL, "slots", format!("from {} to {}", SLOTS_RANGE.start(), SLOTS_RANGE.end())),
        (&keys::POOL, "backend", format!("at most {most_backends}")),
        (&keys::BACKEND, "via", format!("| `{}` |", Via::default())),
        (&keys::BACKEND, "weight", format!("| 0 to {MAX_WEIGHT} | {DEFAULT_WEIGHT} |")),
        (&keys::CHECK, "path", format!("| `{}` |", super::parse::check::DEFAULT_PATH)),
        (&keys::CHECK, "expect", format!("| {} for `http`", super::parse::check::DEFAULT_EXPECT)),
        (&keys::CHECK, "jitter", format!("| 0 to {} | {} |", super::parse::check::MAX_JITTER, Pace::JITTER)),
        (&keys::CHECK, "interval", format!("| `{}` |", duration_text(Pace::INTERVAL))),
        (&keys::CHECK, "timeout", format!("| `{}`,", duration_text(Check::TIMEOUT))),
        (&keys::CHECK, "rise", format!("| {} |", Pace::RISE)),
        (&keys::CHECK, "fall", format!("| {} |", Pace::FALL)),
    ];
    for (table, key, text) in cases {
        let rows = reference_rows(table);
        let (_, row) = rows.iter().find(|(name, _)| *name == key).unwrap();
        assert!(row.contains(&text), "{row}\nsays nothing of {text}");
    }
}

/// The examples of the reference are TOML code blocks, each a valid file.
#[test]
fn the_examples_of_the_reference_are_valid() {
    let reference = include_str!("../../../docs/config.md");
    let blocks: Vec<&str> =
        reference.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        parse(block).unwrap_or_else(|errors| panic!("{}", errors.report(block)));
    }
}

fn assert_errors_have_a_place(text: &str) {
    if let Err(errors) = parse(text) {
        assert!(!errors.0.is_empty());
        let lines: Vec<&str> = text.lines().collect();
        for error in &errors.0 {
            let line = lines.get(error.line as usize - 1).copied().unwrap_or("");
            assert!(error.line as usize <= lines.len().max(1), "{error} in {text:?}");
            assert!(error.column as usize <= line.chars().count() + 1, "{error} in {text:?}");
            assert!(!error.to_string().is_empty());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_has_an_answer(text in "\\PC*") {
        assert_errors_have_a_place(&text);
    }

    #[test]
    fn arbitrary_words_of_the_language_have_an_answer(words in proptest::collection::vec(
        prop::sample::select(vec![
            "[lb]", "[[pool]]", "[pool]", "[[pool.backend]]", "[pool.check]", "[[service]]", "name", "address", "check", "pool",
            "backend", ".", " = ", "\"a\"", "'10.0.0.1'", "[", "]", "{", "}", ",", "\n", "\r\n", "# c", "1", "-1.5", "type", "'tcp'", "\u{feff}", "ü",
        ]), 0..40))
    {
        assert_errors_have_a_place(&words.concat());
    }

    #[test]
    fn a_damaged_example_has_an_answer(at in 0..example().len(), cut in 0..20usize, new in "[a-z0-9\\[\\]{}=\"#\\n,. -]{0,6}") {
        let mut text = example().to_owned();
        let start = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let end = (start + cut..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        text.replace_range(start..end, &new);
        assert_errors_have_a_place(&text);
    }
}
