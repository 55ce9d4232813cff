//! A balancer with two arms: what comes in by one interface leaves by another, by `XDP_REDIRECT`, every byte of it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::lab::{
    Config, Daemon, Lab,
    addresses::VIPS,
    client::{self, Ask},
    counters::Counters,
    root,
};
use lb_user::model::service::XdpMode;

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// Time for the first probes and neighbours.
const SETTLE: Duration = Duration::from_secs(15);

/// What is sent by TCP, each way.
const TEN_MIB: usize = 10 << 20;

/// Room in a packet count for neighbour discovery and probes.
const FEW: u64 = 200;

/// The pool's family is that of the outer header, if it is a tunnel's.
struct Case {
    what: &'static str,
    vip: IpAddr,
    pool: &'static str,
    backends: &'static [&'static str],
}

const CASES: [Case; 4] = [
    Case { what: "l2, IPv4", vip: VIPS[0], pool: "l2", backends: &["b1", "b2"] },
    Case { what: "l2, IPv6", vip: VIPS[3], pool: "l2-six", backends: &["b1", "b2"] },
    Case { what: "IPv4 in IPv4", vip: VIPS[1], pool: "tunnel", backends: &["b3"] },
    Case { what: "IPv6 in IPv6", vip: VIPS[4], pool: "tunnel-six", backends: &["b3"] },
];

fn config(lab: &Lab) -> Config {
    let [b1, b2, b3] = &lab.backends[..] else { panic!("a lab has three backends unless told otherwise") };
    let config = Config::on(&["eth0", "eth1"])
        .pool("l2", CHECK, &[b1.member(), b2.member()])
        .pool("l2-six", CHECK, &[b1.member6(), b2.member6()])
        .pool("tunnel", CHECK, &[b3.member()])
        .pool("tunnel-six", CHECK, &[b3.member6()]);
    CASES.iter().zip(["l2-4", "l2-6", "4in4", "6in6"]).fold(config, |config, (case, name)| {
        config.service(name, case.vip, &["tcp/7000", "udp/7000"], case.pool)
    })
}

#[test]
fn packets_come_in_by_one_interface_and_leave_by_another() {
    root::required(|| {
        let lab = Lab::builder().two_armed().build()?;
        // The balancer's route to the VIPs is its default route, by eth0: that the backends come up at all shows that
        // a probe, too, leaves by the interface of its backend and not by that of the VIP.
        let route = lab.balancer.ip(&["route", "get", &VIPS[0].to_string()])?;
        ensure!(route.contains("dev eth0"), "the way to the VIPs is not by eth0: {route}");
        let daemon = Daemon::start(&lab, &config(&lab))?;
        daemon.wait_up(SETTLE)?;
        for interface in daemon.status()?.interfaces {
            ensure!(interface.mode == XdpMode::Native, "not attached natively: {interface:?}");
        }
        CASES.iter().try_for_each(|case| redirects(&lab, case).map_err(|error| error.context(case.what)))
    });
}

fn redirects(lab: &Lab, case: &Case) -> Result<()> {
    let read = |interface| Counters::read(&lab.balancer, interface);
    let (front, back) = (read("eth0")?, read("eth1")?);
    carries(lab, case)?;
    let (front, back) = (read("eth0")? - front, read("eth1")? - back);

    // Two times 10 MiB, in packets that fit the client's link, would be over 14,000 packets; one way, over 7,000.
    ensure!(front.rx_packets > 7_000, "the client's packets did not come by eth0: {front:?}");
    ensure!(front.tx_packets < FEW, "packets went back out of eth0: {front:?}");
    ensure!(back.tx_packets + FEW > front.rx_packets, "not everything left by eth1: {front:?}, {back:?}");
    ensure!(back.rx_packets < FEW, "answers came by the balancer: {back:?}");
    Ok(())
}

fn carries(lab: &Lab, case: &Case) -> Result<()> {
    let expected = |name: &str| case.backends.contains(&name);
    let name = client::echo_bytes(&lab.client, case.vip, TEN_MIB)?;
    ensure!(expected(&name), "{name} echoed");
    for how in [Ask::Tcp, Ask::Udp] {
        let tally = lab.ask(how, case.vip, 100)?;
        ensure!(tally.failed() == 0, "{how:?}: {tally}");
        ensure!(tally.answers.keys().all(|name| expected(name)), "{how:?}: {tally}");
        ensure!(tally.answers.len() == case.backends.len(), "{how:?}: {tally}");
    }
    for length in [1, 1000, 1400] {
        let name = client::echo_datagram(&lab.client, case.vip, length)?;
        ensure!(expected(&name), "{name} echoed {length} bytes");
    }
    Ok(())
}
