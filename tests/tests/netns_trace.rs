//! `lb trace`: it names the server that real clients then meet, and answers at once.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Config, Daemon, Lab,
    addresses::{VIP4, VIP6},
    client::{self, Ask},
    root,
};
use lb_user::api::TraceView;

/// Time for probes and neighbours.
const SETTLE: Duration = Duration::from_secs(15);

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// The client's own addresses.
const CLIENTS: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// Source ports: each is a flow.
const PORTS: std::ops::Range<u16> = 31_000..31_024;

fn trace(
    daemon: &Daemon,
    protocol: &str,
    client: SocketAddr,
    vip: SocketAddr,
    more: &[&str],
) -> Result<TraceView> {
    let (client, vip) = (client.to_string(), vip.to_string());
    let json = daemon.lb(&[&["trace", protocol, &client, &vip, "-j"], more].concat())?;
    serde_json::from_str(&json).with_context(|| format!("no trace: {json}"))
}

#[test]
fn a_trace_names_the_server_that_a_client_then_meets() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(2).tunnel_backends(2).build()?;
        let members: Vec<_> = lab.backends.iter().map(lb_tests::lab::Backend::member).collect();
        let ports = ["tcp/7000", "udp/7000"];
        let config = Config::new()
            .pool("web", CHECK, &members)
            .service("four", VIP4, &ports, "web")
            .service("six", VIP6, &ports, "web");
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        for (client, vip) in CLIENTS.into_iter().zip([VIP4, VIP6]) {
            let client: IpAddr = client.parse()?;
            for port in PORTS {
                let (from, to) = (SocketAddr::new(client, port), SocketAddr::new(vip, 7000));
                for (how, protocol, more) in [(Ask::Tcp, "tcp", &["--syn"][..]), (Ask::Udp, "udp", &[])] {
                    let told = trace(&daemon, protocol, from, to, more)?;
                    let told = told.backend.with_context(|| format!("no backend for {from}"))?.name;
                    let tally = client::ask_from(&lab.client, how, vip, std::iter::once(port), 1)?;
                    ensure!(tally.of(&told) == 1, "{protocol} from {from}: told {told}, met {tally:?}");
                }
            }
        }
        // What people see.
        let text = daemon.lb(&["trace", "udp", "10.0.0.2:31000", "192.0.2.10:7000"])?;
        println!("{text}");
        ensure!(text.contains("flow     remembered on b"), "the datagram was not remembered:\n{text}");
        ensure!(text.lines().last().is_some_and(|line| line.starts_with("verdict  XDP_TX: ")), "{text}");

        // Nobody to ask is no answer.
        let mut daemon = daemon;
        daemon.stop()?;
        let output = daemon.try_lb(&["trace", "tcp", "10.0.0.2:1", "192.0.2.10:7000"])?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(69) && words.contains("no daemon listens"), "{words}");
        Ok(())
    });
}

#[test]
fn among_a_thousand_services_it_answers_at_once() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(1).build()?;
        let members: Vec<_> = lab.backends.iter().map(lb_tests::lab::Backend::member).collect();
        let vip = |number: u16| IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + u32::from(number)));
        let mut config =
            Config::new().pool("web", CHECK, &members).service("first", VIP4, &["tcp/7000"], "web");
        for number in 1..1000 {
            config = config.service(&format!("s{number}"), vip(number), &["tcp/80"], "web");
        }
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        let mut took = Vec::new();
        for number in 980..1000 {
            let start = Instant::now();
            let told = trace(&daemon, "tcp", "10.0.0.2:1".parse()?, SocketAddr::new(vip(number), 80), &[])?;
            took.push(start.elapsed());
            let service = told.service.and_then(|service| service.name);
            ensure!(service == Some(format!("s{number}")), "{service:?} instead of s{number}");
        }
        took.sort_unstable();
        println!("lb trace among 1000 services: {:?} at least, {:?} half of the time", took[0], took[10]);
        ensure!(took[10] < Duration::from_millis(500), "too slow: {took:?}");
        Ok(())
    });
}
