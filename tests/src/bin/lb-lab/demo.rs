//! `lb-lab demo`: each step does something, measures it, and claims only what it measured.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Daemon, Lab, Stream, Tally,
    addresses::{VIP4, VIP6},
    client::{self, Ask, Held},
    counters::Counters,
    namespace,
    server::BLOB,
    stream, wait,
};
use lb_user::api::State;

use crate::{report::Report, standing};

/// Source ports of the requests where shares are measured.
const PORTS: std::ops::Range<u16> = 20_000..21_000;

/// Requests where only the answer matters.
const SOME: usize = 300;

/// Connections that stay open through a drain.
const HELD: usize = 100;

/// Packets at the balancer, while files are downloaded, that belong to probes.
const OTHERS: u64 = 200;

/// Fall × interval + time-out of the check in [`standing::config`].
const OUT_WITHIN: Duration = Duration::from_millis(2 * 500 + 400);

/// Rise × interval + time-out, and a second for nginx to start.
const BACK_WITHIN: Duration = Duration::from_millis(2 * 500 + 400 + 1_000);

/// Runs it; failure if any claim did not hold.
pub(crate) fn run(keep: bool) -> Result<ExitCode> {
    let start = Instant::now();
    say!("lb, a layer-4 balancer whose servers answer the clients directly, in a laboratory of namespaces.");
    let mut report = Report::default();

    report.headline("A client, a router, the balancer, and three real servers");
    let (mut lab, daemon) = if keep { standing::build()? } else { passing()? };
    report.say("client 10.0.0.2 -- router -- lb 10.1.0.2, b1 10.1.0.11, b2 10.1.0.12  (same subnet: l2)");
    report.say(
        "                      `----- b3 10.9.0.13              (another subnet: IP-in-IP, half the weight)",
    );
    report.shown("lb status", &daemon.lb(&["status"])?);

    spread(&lab, &mut report)?;
    families(&lab, &mut report)?;
    direct_return(&lab, &mut report)?;
    crash(&mut lab, &daemon, &mut report)?;
    comeback(&mut lab, &daemon, &mut report)?;
    drain(&lab, &daemon, &mut report)?;

    say!("\n{}", report.table());
    let holds = report.holds();
    say!(
        "{} in {:.0} s.",
        if holds { "All of it is true, measured" } else { "NOT all of it is true, measured" },
        start.elapsed().as_secs_f64()
    );
    if keep {
        standing::leave(lab, daemon)?;
        say!("\nThe laboratory is left standing for you to play with:\n");
        standing::how_to_play()?;
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A lab that goes when it is dropped.
fn passing() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().build()?;
    let daemon = Daemon::start(&lab, &standing::config(&lab))?;
    daemon.wait_up(standing::SETTLE)?;
    Ok((lab, daemon))
}

fn spread(lab: &Lab, report: &mut Report) -> Result<()> {
    report.headline("Requests spread by weight: 100, 100 and 50");
    for _ in 0..3 {
        curl(lab, report, &format!("http://{VIP4}/"))?;
    }
    // From fixed ports: the same flows, so the same shares, each time.
    let tally = client::ask_from(&lab.client, Ask::Http, VIP4, PORTS, 16)?;
    let many = PORTS.len();
    report.claim(&format!("lost of {many} requests over IPv4"), &0, &lost(&tally), tally.failed() == 0);
    for (backend, share) in [("b1", 40), ("b2", 40), ("b3", 20)] {
        let seen = percent(tally.of(backend), tally.answered());
        let fits = (seen - f64::from(share)).abs() <= 5.0;
        report.claim(&format!("share of {backend}"), &format!("{share}% ±5"), &format!("{seen:.1}%"), fits);
    }
    Ok(())
}

fn families(lab: &Lab, report: &mut Report) -> Result<()> {
    report.headline("IPv6, and UDP with the VIP as source of each answer");
    curl(lab, report, &format!("http://[{VIP6}]/"))?;
    for (what, how, vip) in [
        ("requests over IPv6", Ask::Http, VIP6),
        ("UDP echoes over IPv4", Ask::Udp, VIP4),
        ("UDP echoes over IPv6", Ask::Udp, VIP6),
    ] {
        let tally = lab.ask(how, vip, SOME)?;
        report.say(&format!("{what}: {tally}"));
        let all = tally.answers.len() == lab.backends.len();
        let seen = format!("{}, from {} backends", lost(&tally), tally.answers.len());
        report.claim(
            &format!("lost of {SOME} {what}"),
            &"0, from 3 backends",
            &seen,
            tally.failed() == 0 && all,
        );
    }
    Ok(())
}

fn direct_return(lab: &Lab, report: &mut Report) -> Result<()> {
    report.headline("The servers answer directly: the balancer sees no answer");
    let before = (Counters::read(&lab.balancer, "eth0")?, Counters::read(&lab.client, "eth0")?);
    for _ in 0..4 {
        client::download(&lab.client, VIP4)?;
    }
    let balancer = Counters::read(&lab.balancer, "eth0")? - before.0;
    let client = Counters::read(&lab.client, "eth0")? - before.1;
    report.say(&format!(
        "4 downloads of {} MiB, each byte compared: {} MB reached the client.",
        BLOB >> 20,
        client.rx_bytes / 1_000_000
    ));
    let seen = percent(balancer.rx_bytes, client.rx_bytes);
    report.claim("bytes at the balancer", &"< 5% of the answers", &format!("{seen:.1}%"), seen < 5.0);
    // Probes, their answers and ARP come on top of what the client sends.
    let (sent, received) = (client.tx_packets, balancer.rx_packets);
    report.claim(
        "packets at the balancer",
        &format!("{sent} of the client, <= {OTHERS} of probes"),
        &received,
        (sent..=sent + OTHERS).contains(&received),
    );
    report.say(&format!("(The answers were {} packets.)", client.rx_packets));
    Ok(())
}

fn crash(lab: &mut Lab, daemon: &Daemon, report: &mut Report) -> Result<()> {
    report.headline("b2 is killed while clients keep asking");
    let stream = Stream::start(&lab.client, Ask::Http, VIP4, 4, Duration::from_millis(5))?;
    wait::rest(Duration::from_millis(500))?;
    lab.backend("b2").crash()?;
    let killed = Instant::now();
    daemon.wait_state("www", "b2", State::Down, Duration::from_secs(10))?;
    let out = Instant::now();
    wait::rest(Duration::from_secs(2))?;
    let records = stream.stop()?;
    let (before, after): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.sent < out);
    let (before, after) = (stream::tally(before), stream::tally(after));
    report.shown("lb status", &daemon.lb(&["status"])?);
    report.say(&format!("Until it was out: {before}."));
    report.say(&format!("After that:       {after}."));
    ensure!(after.answered() > 0, "no request was sent after b2 was out");
    report.claim(
        "killed b2 out of the table",
        &format!("in {:.1} s", OUT_WITHIN.as_secs_f64()),
        &format!("{:.1} s", (out - killed).as_secs_f64()),
        out - killed <= OUT_WITHIN,
    );
    report.claim(
        "requests lost once it was out",
        &0,
        &lost(&after),
        after.failed() == 0 && after.of("b2") == 0,
    );
    Ok(())
}

fn comeback(lab: &mut Lab, daemon: &Daemon, report: &mut Report) -> Result<()> {
    report.headline("b2 comes back");
    let start = Instant::now();
    lab.backend("b2").start()?;
    daemon.wait_state("www", "b2", State::Up, Duration::from_secs(10))?;
    let took = start.elapsed();
    let tally = lab.ask(Ask::Http, VIP4, SOME)?;
    report.say(&format!("{SOME} requests: {tally}"));
    report.claim(
        "b2 back in the table",
        &format!("in {:.1} s", BACK_WITHIN.as_secs_f64()),
        &format!("{:.1} s", took.as_secs_f64()),
        took <= BACK_WITHIN,
    );
    let seen = format!("{} to b2, {} lost", tally.of("b2"), tally.failed());
    report.claim("b2 serves again", &"some to b2, 0 lost", &seen, tally.of("b2") > 0 && tally.failed() == 0);
    Ok(())
}

fn drain(lab: &Lab, daemon: &Daemon, report: &mut Report) -> Result<()> {
    report.headline("b1 is drained for maintenance");
    // Connections that were there before: they stay where they are, and keep talking.
    let mut held = (0..HELD).map(|_| Held::open(&lab.client, VIP4)).collect::<Result<Vec<_>>>()?;
    let at_b1 = held.iter().filter(|held| held.backend == "b1").count();
    report.say(&format!("{HELD} connections stay open, {at_b1} of them to b1"));
    report.shown("lb backend drain web b1", &daemon.lb(&["backend", "drain", "web", "b1"])?);
    daemon.wait_state("www", "b1", State::Drain, Duration::from_secs(5))?;
    let tally = lab.ask(Ask::Http, VIP4, SOME)?;
    report.say(&format!("{SOME} requests: {tally}"));
    let seen = format!("{} to b1, {} lost", tally.of("b1"), tally.failed());
    report.claim("requests while b1 drains", &"0 to b1, 0 lost", &seen, tally.of("b1") + tally.failed() == 0);
    unbroken(&mut held, report, "open connections broken by the drain");
    let file = std::fs::read_to_string(&daemon.config).context("reading the configuration file")?;
    let line = file.lines().find(|line| line.contains("drain")).unwrap_or("nothing");
    report.claim("the order is in the file", &"state = \"drain\"", &line, line.contains("state = \"drain\""));
    report.shown("lb backend enable web b1", &daemon.lb(&["backend", "enable", "web", "b1"])?);
    daemon.wait_state("www", "b1", State::Up, Duration::from_secs(10))?;
    let tally = lab.ask(Ask::Http, VIP4, SOME)?;
    let seen = format!("{} to b1, {} lost", tally.of("b1"), tally.failed());
    report.claim("b1 enabled again", &"some to b1, 0 lost", &seen, tally.of("b1") > 0 && tally.failed() == 0);
    unbroken(&mut held, report, "open connections broken by the return");
    Ok(())
}

/// Claims that every connection still echoes.
fn unbroken(held: &mut [Held], report: &mut Report, what: &str) {
    let broken: Vec<String> = held
        .iter_mut()
        .filter_map(|held| held.ping().err().map(|error| format!("{}: {error}", held.backend)))
        .collect();
    let seen = match broken.first() {
        None => "0".to_owned(),
        Some(first) => format!("{} ({first})", broken.len()),
    };
    report.claim(&format!("of {HELD} {what}"), &0, &seen, broken.is_empty());
}

/// Runs a real curl in the client's namespace and shows it.
fn curl(lab: &Lab, report: &Report, url: &str) -> Result<()> {
    let mut command = lab.client.command("curl");
    let answer =
        namespace::run(command.args(["--silent", "--show-error", "--globoff", "--max-time", "5", url]))?;
    report.shown(&format!("curl '{url}'"), &answer);
    Ok(())
}

fn lost(tally: &Tally) -> String {
    match tally.errors.first_key_value() {
        None => "0".to_owned(),
        Some((error, _)) => format!("{} ({error})", tally.failed()),
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}
