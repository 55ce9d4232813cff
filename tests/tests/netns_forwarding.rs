//! Forwarding with real clients and servers: every encap and family, byte by byte, and each backend's share.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Config, Daemon, Lab,
    addresses::VIPS,
    client::{self, Ask},
    counters::Counters,
    namespace, root,
    server::{self, BLOB, IPERF3_PORT},
    topology::CLIENT_MTU,
};

const CHECK: &str =
    "type = \"http\", path = \"/healthz\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// For the pool whose VIP has HTTP in another pool.
const TCP_CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// Time for the first probes and neighbours.
const SETTLE: Duration = Duration::from_secs(15);

/// What is sent by TCP, each way.
const TEN_MIB: usize = 10 << 20;

/// The largest payload whose answer, with the backend's name before it, still fits the client's link by IPv6.
const LARGEST_DATAGRAM: usize = CLIENT_MTU as usize - 40 - 8 - "b1 ".len();

/// One combination: the VIP's family is the inner one, the pool's the outer one.
struct Case {
    what: &'static str,
    vip: IpAddr,
    pool: &'static str,
    backends: &'static [&'static str],
}

const CASES: [Case; 6] = [
    Case { what: "l2, IPv4", vip: VIPS[0], pool: "l2", backends: &["b1", "b2"] },
    Case { what: "l2, IPv6", vip: VIPS[3], pool: "l2-six", backends: &["b1", "b2"] },
    Case { what: "IPv4 in IPv4", vip: VIPS[1], pool: "tunnel", backends: &["b3"] },
    Case { what: "IPv6 in IPv4", vip: VIPS[4], pool: "tunnel", backends: &["b3"] },
    Case { what: "IPv4 in IPv6", vip: VIPS[2], pool: "tunnel-six", backends: &["b3"] },
    Case { what: "IPv6 in IPv6", vip: VIPS[5], pool: "tunnel-six", backends: &["b3"] },
];

/// Pools by encap and outer family; `all` has every backend, for the shares.
fn config(lab: &Lab) -> Config {
    let [b1, b2, b3] = &lab.backends[..] else { panic!("a lab has three backends unless told otherwise") };
    let config = Config::new()
        .pool("all", CHECK, &[b1.member(), b2.member(), b3.member()])
        .pool("l2", TCP_CHECK, &[b1.member(), b2.member()])
        .pool("l2-six", CHECK, &[b1.member6(), b2.member6()])
        .pool("tunnel", CHECK, &[b3.member()])
        .pool("tunnel-six", CHECK, &[b3.member6()])
        .service("shares", VIPS[0], &["tcp/80"], "all");
    let names = ["l2-4", "l2-6", "4in4", "6in4", "4in6", "6in6"];
    CASES.iter().zip(names).fold(config, |config, (case, name)| {
        let ports: &[&str] =
            if case.pool == "l2" { &["tcp/7000", "udp/7000"] } else { &["tcp/80", "tcp/7000", "udp/7000"] };
        config.service(name, case.vip, ports, case.pool)
    })
}

#[test]
fn every_encap_and_family_carries_every_byte_and_shares_are_fair() {
    root::required(|| {
        let lab = Lab::builder().build()?;
        let daemon = Daemon::start(&lab, &config(&lab))?;
        daemon.wait_up(SETTLE)?;
        for case in &CASES {
            carries(&lab, case).map_err(|error| error.context(case.what))?;
        }
        shares(&lab)?;
        answers_pass_by(&lab)
    });
}

fn carries(lab: &Lab, case: &Case) -> Result<()> {
    let expected = |name: &str| case.backends.contains(&name);
    let name = client::echo_bytes(&lab.client, case.vip, TEN_MIB)?;
    ensure!(expected(&name), "{name} echoed");
    client::download(&lab.client, case.vip)?;
    for how in [Ask::Tcp, Ask::Udp] {
        let tally = lab.ask(how, case.vip, 100)?;
        ensure!(tally.failed() == 0, "{how:?}: {tally}");
        ensure!(tally.answers.keys().all(|name| expected(name)), "{how:?}: {tally}");
        ensure!(tally.answers.len() == case.backends.len(), "{how:?}: {tally}");
    }
    for length in [1, 1000, LARGEST_DATAGRAM] {
        let name = client::echo_datagram(&lab.client, case.vip, length)?;
        ensure!(expected(&name), "{name} echoed {length} bytes");
    }
    Ok(())
}

/// 2,000 connections from fixed ports, so that the outcome is the same in every run.
fn shares(lab: &Lab) -> Result<()> {
    let tally = client::ask_from(&lab.client, Ask::Http, VIPS[0], 20_000..22_000, 16)?;
    ensure!(tally.answered() == 2000 && tally.failed() == 0, "{tally}");
    for backend in &lab.backends {
        let share = tally.of(&backend.name);
        ensure!((600..=733).contains(&share), "a third of 2,000, within 10%, is 600 to 733: {tally}");
    }
    Ok(())
}

/// The balancer receives what clients send (mostly acknowledgements here), and none of the 12 MiB answered.
fn answers_pass_by(lab: &Lab) -> Result<()> {
    let before = Counters::read(&lab.balancer, "eth0")?;
    client::download(&lab.client, VIPS[0])?;
    let moved = Counters::read(&lab.balancer, "eth0")? - before;
    ensure!(moved.rx_packets > 0, "the request did not come by: {moved:?}");
    ensure!(moved.rx_bytes < (BLOB / 20) as u64, "{BLOB} bytes were answered; the balancer saw {moved:?}");
    Ok(())
}

#[test]
fn iperf3_runs_both_ways_and_only_the_clients_packets_come_by() {
    root::required(|| {
        // One backend: the connection that iperf3 measures must reach the server that its control connection did.
        let lab = Lab::builder().l2_backends(1).tunnel_backends(0).build()?;
        let port = format!("tcp/{IPERF3_PORT}");
        // No check: iperf3 would take a probe for a client.
        let config = Config::new().pool("one", "", &[lab.backends[0].member()]);
        let config = config.service("iperf3", VIPS[0], &[&port], "one");
        let _server = server::iperf3(&lab.backends[0].namespace, lab.directory())?;
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        for (what, arguments, data_comes_by) in
            [("upload", [].as_slice(), true), ("download", &["--reverse"], false)]
        {
            measure(&lab, arguments, data_comes_by).context(what)?;
        }
        Ok(())
    });
}

/// Two seconds of iperf3 from the client, and what the balancer saw of them.
fn measure(lab: &Lab, arguments: &[&str], data_comes_by: bool) -> Result<()> {
    /// Room for probes and neighbour discovery; answers would be thousands.
    const FEW: u64 = 200;

    let client = Counters::read(&lab.client, "eth0")?;
    let balancer = Counters::read(&lab.balancer, "eth0")?;
    let vip = VIPS[0].to_string();
    let mut iperf3 = lab.client.command("iperf3");
    iperf3
        .args(["--client", &vip, "--port", &IPERF3_PORT.to_string(), "--time", "2", "--json"])
        .args(arguments);
    let report: serde_json::Value = serde_json::from_str(&namespace::run(&mut iperf3)?)?;
    let sent = Counters::read(&lab.client, "eth0")? - client;
    let came = Counters::read(&lab.balancer, "eth0")? - balancer;

    let moved = report["end"]["sum_received"]["bytes"].as_u64();
    let moved = moved.with_context(|| format!("iperf3 tells of no bytes received: {report}"))?;
    ensure!(moved > TEN_MIB as u64, "only {moved} bytes in two seconds");
    // Some of what the client sent may be lost on the way; more than it sent would be answers.
    ensure!(
        (sent.tx_packets / 2..sent.tx_packets + FEW).contains(&came.rx_packets)
            && came.tx_packets < came.rx_packets + FEW,
        "the client sent {sent:?}, the balancer saw {came:?}"
    );
    ensure!((came.rx_bytes > moved) == data_comes_by, "{moved} bytes of payload, the balancer saw {came:?}");
    ensure!(data_comes_by || came.rx_bytes < moved / 10, "{moved} bytes answered, the balancer saw {came:?}");
    Ok(())
}
