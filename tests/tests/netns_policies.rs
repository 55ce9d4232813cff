//! What services ask for beyond a VIP's port, with real clients and servers: port groups, QUIC connection IDs, any port,
//! prefixes of VIPs, access lists and limits.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab, Stream, Tally,
    addresses::{VIP4, VIP6, VIPS},
    client::{self, Ask},
    config::Member,
    root, stream, wait,
};
use lb_user::api::Stats;

const CHECK: &str =
    "type = \"tcp\", port = 80, interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

const SETTLE: Duration = Duration::from_secs(15);

const BOTH: [IpAddr; 2] = [VIP4, VIP6];

/// Every server of a backend: a port group.
const GROUP: [&str; 3] = ["tcp/80", "tcp/7000", "udp/7000"];

fn lab() -> Result<Lab> {
    Lab::builder().l2_backends(2).tunnel_backends(1).build()
}

fn members(lab: &Lab) -> Vec<Member> {
    lab.backends.iter().map(Backend::member).collect()
}

/// Gives the client more addresses, and the numbers of them that it has now.
fn more_addresses(lab: &Lab, numbers: std::ops::RangeInclusive<u8>) -> Result<()> {
    for number in numbers {
        lab.client.ip(&["addr", "add", &format!("10.0.0.{number}/24"), "dev", "eth0"])?;
        lab.client.ip(&["addr", "add", &format!("fd00::{number}/64"), "dev", "eth0", "nodad"])?;
    }
    Ok(())
}

/// The client's address with this number, of the VIP's family.
fn source(vip: IpAddr, number: u8) -> Result<SocketAddr> {
    let text = if vip.is_ipv4() { format!("10.0.0.{number}") } else { format!("fd00::{number}") };
    Ok(SocketAddr::new(text.parse()?, 0))
}

fn ask(lab: &Lab, how: Ask, vip: IpAddr, from: u8, count: usize) -> Result<Tally> {
    client::ask_as(&lab.client, how, vip, std::iter::repeat_n(source(vip, from)?, count), count.min(20))
}

/// How often a service counted a reason.
fn counted(daemon: &Daemon, service: &str, reason: &str) -> Result<u64> {
    let stats: Stats = serde_json::from_str(&daemon.lb(&["stats", "-j"])?)?;
    let found = stats.services.iter().find(|known| known.service == service);
    let reasons = &found.with_context(|| format!("no service {service} in `lb stats`"))?.reasons;
    Ok(reasons.iter().find(|known| known.reason == reason).map_or(0, |known| known.traffic.packets))
}

/// Waits until the daemon has read that a service counted a reason so often.
fn wait_counted(daemon: &Daemon, service: &str, reason: &str, least: u64) -> Result<u64> {
    wait::until(format_args!("{least} {reason} of {service}"), SETTLE, || {
        let count = counted(daemon, service, reason)?;
        ensure!(count >= least, "{count}");
        Ok(count)
    })
}

#[test]
fn a_port_group_keeps_each_client_on_one_backend() {
    root::required(|| {
        let lab = lab()?;
        let config = Config::new().pool("all", CHECK, &members(&lab));
        let config = config.service("group", VIP4, &GROUP, "all").lines("affinity = \"source\"");
        let config = config.service("group6", VIP6, &GROUP, "all").lines("affinity = \"source/128\"");
        let daemon = Daemon::start(&lab, &config)?;
        more_addresses(&lab, 20..=35)?;
        daemon.wait_up(SETTLE)?;
        for vip in BOTH {
            let mut used = BTreeSet::new();
            for number in 20..=35 {
                let mut servers = BTreeSet::new();
                for how in [Ask::Http, Ask::Tcp, Ask::Udp] {
                    let tally = ask(&lab, how, vip, number, 8)?;
                    ensure!(tally.failed() == 0, "{vip} {number} {how:?}: {tally}");
                    servers.extend(tally.answers.into_keys());
                }
                ensure!(servers.len() == 1, "client {number} of {vip} was on {servers:?}");
                used.extend(servers);
            }
            ensure!(used.len() == 3, "16 clients of {vip} were all on {used:?}");
        }
        let shown = daemon.lb(&["service", "show", "group6"])?;
        ensure!(shown.contains("affinity source/128"), "{shown}");
        Ok(())
    });
}

/// A short header, a connection ID with this server ID, and some more.
fn quic(server: u8, number: u8) -> Vec<u8> {
    let mut payload = vec![0x40 | number & 0x3f, number & 0x1f, 0x2a, server, number, 1, 2, 3];
    payload.extend([number; 24]);
    payload
}

#[test]
fn a_quic_client_that_changes_its_port_stays_on_its_backend() {
    root::required(|| {
        let lab = lab()?;
        let members: Vec<_> = members(&lab)
            .into_iter()
            .zip(1..)
            .map(|(member, number)| member.server_id(&format!("0x2a{number:02x}")))
            .collect();
        let quic_line = "quic = { server_id_length = 2 }";
        let config = Config::new().pool("all", CHECK, &members);
        let config = config.service("h3", VIP4, &["udp/7000"], "all").lines(quic_line);
        let config = config.service("h3-6", VIP6, &["udp/7000"], "all").lines(quic_line);
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        let send = |port: u16, vip, payload: &[u8]| client::send_datagram(&lab.client, port, vip, payload);
        for vip in BOTH {
            for (server, backend) in (1..).zip(&lab.backends) {
                for number in 0..20 {
                    let name = send(20_000 + u16::from(number), vip, &quic(server, number))?;
                    ensure!(name == backend.name, "{vip}: a packet for {} went to {name}", backend.name);
                }
            }
            let unknown: BTreeSet<String> = (0..40)
                .map(|number| send(21_000 + u16::from(number), vip, &quic(99, number)))
                .collect::<Result<_>>()?;
            ensure!(unknown.len() == 3, "a server ID that nobody has went to {unknown:?} only");
        }
        daemon.lb(&["backend", "drain", "all", "b1"])?;
        ensure!(send(22_000, VIP4, &quic(1, 1))? == "b1", "a connection left a backend that is drained");
        Ok(())
    });
}

#[test]
fn any_port_is_served_beside_exact_ones() {
    root::required(|| {
        let lab = lab()?;
        let [b1, b2, _] = &lab.backends[..] else { unreachable!() };
        let mut config =
            Config::new().pool("any", CHECK, &[b1.member()]).pool("exact", CHECK, &[b2.member()]);
        for (name, vip) in [("4", VIP4), ("6", VIP6)] {
            config = config.service(&format!("any{name}"), vip, &["tcp/*", "udp/*"], "any").service(
                &format!("exact{name}"),
                vip,
                &["tcp/80"],
                "exact",
            );
        }
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        for vip in BOTH {
            for (how, server) in [(Ask::Http, "b2"), (Ask::Tcp, "b1"), (Ask::Udp, "b1")] {
                let tally = lab.ask(how, vip, 20)?;
                ensure!(tally.of(server) == 20, "{vip} {how:?}: {tally}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_prefix_of_vips_is_served_and_no_address_beyond_it() {
    root::required(|| {
        let lab = lab()?;
        let [b1, b2, b3] = &lab.backends[..] else { unreachable!() };
        let config = Config::new()
            .pool("all", CHECK, &[b1.member(), b3.member()])
            .pool("one", CHECK, &[b2.member()])
            .service("net", "192.0.2.10/31", &GROUP, "all")
            .service("net6", "2001:db8::10/127", &GROUP, "all")
            .service("host", VIPS[1], &["tcp/80"], "one");
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        for vip in [VIPS[0], VIPS[1], VIPS[3], VIPS[4]] {
            for how in [Ask::Http, Ask::Tcp, Ask::Udp] {
                let tally = lab.ask(how, vip, 30)?;
                ensure!(tally.failed() == 0, "{vip} {how:?}: {tally}");
                // The address' own service comes before that of the prefix.
                let servers: &[&str] =
                    if vip == VIPS[1] && how == Ask::Http { &["b2"] } else { &["b1", "b3"] };
                ensure!(tally.answers.keys().eq(servers), "{vip} {how:?}: {tally}");
            }
            client::ping(&lab.client, vip)?;
        }
        for vip in [VIPS[2], VIPS[5]] {
            let tally = lab.ask(Ask::Udp, vip, 3)?;
            ensure!(tally.answered() == 0, "{vip} is in no prefix: {tally}");
            ensure!(client::ping(&lab.client, vip).is_err(), "{vip} is nobody's, and answers a ping");
        }
        // A datagram in fragments, which the prefix's own key finds.
        client::echo_datagram(&lab.client, VIPS[0], 4000)?;
        Ok(())
    });
}

#[test]
fn who_is_denied_gets_nothing_and_is_counted_and_a_saved_list_takes_effect() {
    root::required(|| {
        let lab = lab()?;
        let list = lab.directory().join("denied.txt");
        std::fs::write(&list, "10.0.0.20 ; for now\nfd00::20\n")?;
        let acl = "[[acl]]\nname = \"guests\"\nallow = [\"10.0.0.0/24\", \"fd00::/64\"]\ndeny_file = \"denied.txt\"\ndefault = \"deny\"";
        let config = Config::new().pool("all", CHECK, &members(&lab));
        let config = config.service("www", VIP4, &GROUP, "all").lines("acl = \"guests\"");
        let config = config.service("www6", VIP6, &GROUP, "all").lines("acl = \"guests\"").lines(acl);
        let daemon = Daemon::start(&lab, &config)?;
        more_addresses(&lab, 20..=21)?;
        daemon.wait_up(SETTLE)?;
        for (vip, service) in [(VIP4, "www"), (VIP6, "www6")] {
            for how in [Ask::Http, Ask::Udp] {
                let tally = ask(&lab, how, vip, 21, 10)?;
                ensure!(tally.failed() == 0, "{vip} {how:?}: {tally}");
            }
            ensure!(counted(&daemon, service, "denied")? == 0);
            for how in [Ask::Tcp, Ask::Udp] {
                let tally = ask(&lab, how, vip, 20, 5)?;
                ensure!(tally.answered() == 0, "{vip} {how:?}: {tally}");
            }
            wait_counted(&daemon, service, "denied", 10)?;
        }

        let generation = daemon.status()?.config.generation;
        std::fs::write(&list, "10.0.0.21\nfd00::21\nnonsense\n")?;
        wait::until("the refusal of a bad list", SETTLE, || {
            let errors = daemon.status()?.config.errors;
            ensure!(errors.iter().any(|error| error.contains("denied.txt line 3")), "{errors:?}");
            Ok(())
        })?;
        ensure!(ask(&lab, Ask::Http, VIP4, 21, 5)?.failed() == 0, "a bad list took effect");
        std::fs::write(&list, "10.0.0.21\nfd00::21\n")?;
        wait::until("the new list to be in force", SETTLE, || {
            let config = daemon.status()?.config;
            ensure!(config.generation > generation && config.errors.is_empty(), "{config:?}");
            Ok(())
        })?;
        for vip in BOTH {
            let tally = ask(&lab, Ask::Http, vip, 20, 10)?;
            ensure!(tally.failed() == 0, "{vip}: {tally}");
            let tally = ask(&lab, Ask::Udp, vip, 21, 5)?;
            ensure!(tally.answered() == 0, "{vip}: {tally}");
        }
        Ok(())
    });
}

#[test]
fn a_source_beyond_its_limit_is_refused_and_counted_and_others_are_not() {
    root::required(|| {
        let lab = lab()?;
        let limit = "limit = { packets = \"20/m\", packets_burst = 10 }";
        let opening = "limit = { connections = \"20/m\", connections_burst = 5, prefix = 128 }";
        let config = Config::new().pool("all", CHECK, &members(&lab));
        let config = config.service("udp", VIP4, &["udp/7000"], "all").lines(limit);
        let config = config.service("tcp6", VIP6, &["tcp/80"], "all").lines(opening);
        let daemon = Daemon::start(&lab, &config)?;
        more_addresses(&lab, 20..=21)?;
        daemon.wait_up(SETTLE)?;
        for (how, vip, burst, (service, reason)) in
            [(Ask::Udp, VIP4, 10, ("udp", "packet_limit")), (Ask::Http, VIP6, 5, ("tcp6", "flow_limit"))]
        {
            for number in [20, 21] {
                let before = counted(&daemon, service, reason)?;
                let tally = ask(&lab, how, vip, number, 20)?;
                // One more every three seconds, for which the clients wait.
                ensure!((burst..=burst + 2).contains(&tally.answered()), "{service} {number}: {tally}");
                wait_counted(&daemon, service, reason, before + 20 - burst - 2)?;
            }
        }
        Ok(())
    });
}

/// What the program could not do at its start, it can after a reload; and no request is lost meanwhile.
#[test]
fn a_reload_brings_affinity_and_a_list_of_fifty_thousand_without_a_gap() {
    root::required(|| {
        let lab = lab()?;
        let plain = Config::new().pool("all", CHECK, &members(&lab)).service("www", VIP4, &GROUP, "all");
        let daemon = Daemon::start(&lab, &plain)?;
        daemon.wait_up(SETTLE)?;
        let servers = || -> Result<usize> {
            let tally = lab.ask(Ask::Udp, VIP4, 40)?;
            ensure!(tally.failed() == 0, "{tally}");
            Ok(tally.answers.len())
        };
        ensure!(servers()? == 3, "each flow its own way");

        let list = lab.directory().join("denied.txt");
        let prefixes = |second: u32| -> String {
            (0..50_000u32).map(|n| format!("10.{}.{}.0/24\n", second + (n >> 8), n & 255)).collect()
        };
        std::fs::write(&list, prefixes(50))?;
        let stream = Stream::start(&lab.client, Ask::Http, VIP4, 2, Duration::from_millis(5))?;
        let acl = "affinity = \"source\"\nacl = \"bad\"\n[[acl]]\nname = \"bad\"\ndeny_file = \"denied.txt\"";
        daemon.write_config(plain.lines(acl).text())?;
        wait_generation(&daemon, 2)?;
        ensure!(servers()? == 1, "affinity is in force");
        // Saved again, with others in it.
        std::fs::write(&list, prefixes(60))?;
        wait_generation(&daemon, 3)?;
        let records = stream.stop()?;
        let tally = stream::tally(&records);
        ensure!(tally.failed() == 0 && tally.answered() > 100, "{tally}");
        // The client's own network is denied at last.
        std::fs::write(&list, prefixes(60) + "10.0.0.0/24\n")?;
        wait_generation(&daemon, 4)?;
        let tally = lab.ask(Ask::Udp, VIP4, 5)?;
        ensure!(tally.answered() == 0, "{tally}");
        Ok(())
    });
}

fn wait_generation(daemon: &Daemon, least: u64) -> Result<()> {
    wait::until(format_args!("configuration {least}"), SETTLE, || {
        let status = daemon.status()?;
        ensure!(status.config.generation >= least && status.config.errors.is_empty(), "{:?}", status.config);
        ensure!(status.warnings.is_empty(), "{:?}", status.warnings);
        Ok(())
    })
}
