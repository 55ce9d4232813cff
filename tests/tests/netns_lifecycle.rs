//! The daemon ends, by request or by force, and another one takes over.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab, Stream, addresses::VIP4, client::Ask, process, root, stream, wait,
};

const SETTLE: Duration = Duration::from_secs(15);

fn start(arguments: &[&str]) -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
    let check = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let config = Config::new().pool("web", check, &members).service("www", VIP4, &["tcp/80"], "web");
    let daemon = Daemon::start_with(&lab, &config, arguments)?;
    daemon.wait_up(SETTLE)?;
    Ok((lab, daemon))
}

/// Whether an XDP program is attached to the balancer's interface.
fn attached(lab: &Lab) -> Result<bool> {
    attached_to(lab, "eth0")
}

fn attached_to(lab: &Lab, interface: &str) -> Result<bool> {
    Ok(lab.balancer.ip(&["-d", "link", "show", interface])?.contains("prog/xdp"))
}

/// Another interface of the balancer, on which nothing arrives.
const SPARE: &str = "spare";

fn add_spare(lab: &Lab) -> Result<()> {
    lab.balancer.ip(&["link", "add", SPARE, "type", "veth", "peer", "name", "spare-peer"])?;
    lab.balancer.ip(&["link", "set", SPARE, "up"]).map(drop)
}

#[test]
fn sigterm_leaves_nothing_in_the_kernel() {
    root::required(|| {
        let (lab, mut daemon) = start(&[])?;
        ensure!(attached(&lab)?, "no program is attached while it runs");
        let status = daemon.stop()?;
        ensure!(status.success(), "it ended with {status}:\n{}", daemon.log());
        ensure!(!attached(&lab)?, "the program is left");
        ensure!(!daemon.pins.exists(), "pins are left in {}", daemon.pins.display());
        ensure!(!daemon.socket.exists(), "the socket is left at {}", daemon.socket.display());
        let filters = lab.balancer.run("tc", &["filter", "show", "dev", "eth0", "egress"])?;
        ensure!(filters.trim().is_empty(), "the probe's steering is left: {filters}");
        Ok(())
    });
}

#[test]
fn forwarding_goes_on_without_a_daemon_and_the_next_one_adopts_it() {
    root::required(|| {
        let (lab, mut daemon) = start(&["--keep-forwarding"])?;
        let stream = Stream::start(&lab.client, Ask::Http, VIP4, 4, Duration::from_millis(5))?;
        let status = daemon.stop()?;
        ensure!(status.success(), "it ended with {status}:\n{}", daemon.log());
        ensure!(attached(&lab)?, "--keep-forwarding, but no program is attached");
        wait::rest(Duration::from_millis(500))?;
        daemon.restart(&[])?;
        daemon.wait_up(SETTLE)?;
        daemon.crash()?;
        ensure!(attached(&lab)?, "a crash took the program along");
        wait::rest(Duration::from_millis(500))?;
        daemon.restart(&[])?;
        daemon.wait_up(SETTLE)?;
        let tally = stream::tally(&stream.stop()?);
        ensure!(tally.failed() == 0 && tally.answers.len() == 2, "while daemons came and went: {tally}");
        daemon.stop()?;
        ensure!(!attached(&lab)?, "the last one left the program");
        Ok(())
    });
}

#[test]
fn what_a_crashed_daemon_left_on_an_interface_no_longer_configured_is_detached() {
    root::required(|| {
        let (lab, mut daemon) = start(&[])?;
        daemon.stop()?;
        add_spare(&lab)?;
        daemon.restart(&["--interface", "eth0", "--interface", SPARE])?;
        daemon.crash()?;
        ensure!(attached(&lab)? && attached_to(&lab, SPARE)?, "a crash took a program along");
        daemon.restart(&[])?;
        ensure!(attached(&lab)?, "the interface that stays was detached");
        ensure!(!attached_to(&lab, SPARE)?, "the stale program is left");
        let log = daemon.log();
        ensure!(log.lines().any(|line| line.contains("detached") && line.contains(SPARE)), "{log}");
        Ok(())
    });
}

#[test]
fn a_start_that_fails_leaves_alone_what_forwards() {
    root::required(|| {
        let (lab, mut daemon) = start(&["--keep-forwarding"])?;
        let stream = Stream::start(&lab.client, Ask::Http, VIP4, 4, Duration::from_millis(5))?;
        daemon.stop()?;
        add_spare(&lab)?;
        let lb = process::binary("lb")?;
        let lb = lb.to_str().context("the path of lb is text")?;
        lab.balancer.run(lb, &["server", "pass", "--interface", SPARE])?;
        for (other, word) in [("nosuch7", "nosuch7"), (SPARE, "another XDP program")] {
            let failed = daemon.restart(&["--interface", "eth0", "--interface", other]);
            ensure!(failed.is_err(), "it started with {other}");
            let log = daemon.log();
            ensure!(log.contains(word) && log.contains("goes on forwarding"), "{other}: {log}");
            ensure!(attached(&lab)?, "{other}: what forwarded was detached");
        }
        wait::rest(Duration::from_millis(300))?;
        daemon.restart(&[])?;
        daemon.wait_up(SETTLE)?;
        let tally = stream::tally(&stream.stop()?);
        ensure!(tally.failed() == 0 && tally.answers.len() == 2, "while starts failed: {tally}");
        Ok(())
    });
}

#[test]
fn a_second_daemon_on_the_same_pins_or_interface_is_refused_by_name() {
    root::required(|| {
        let (lab, daemon) = start(&[])?;
        // Should it start after all, it does not stay.
        let mut second = lab.balancer.command("timeout");
        second.arg("10").arg(process::binary("lb")?).arg("run").arg("--config").arg(&daemon.config);
        second.arg("--pins").arg(&daemon.pins).arg("--socket").arg(lab.directory().join("second.sock"));
        let output = second.output().context("starting a second daemon")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        ensure!(said.contains(&format!("pid {}", daemon.id())), "{said}");
        // With pins of its own as well.
        let (status, said) = lb_tests::lab::daemon::refused(&lab, &std::fs::read_to_string(&daemon.config)?)?;
        ensure!(status.code() == Some(1), "{status}: {said}");
        ensure!(said.contains(&format!("another lb with pid {} has eth0", daemon.id())), "{said}");
        let tally = lab.ask(Ask::Http, VIP4, 50)?;
        ensure!(tally.failed() == 0, "after the second was refused: {tally}");
        Ok(())
    });
}

#[test]
fn packets_are_logged_when_asked_for_and_a_trace_beside_the_configuration_does_not_run_away() {
    root::required(|| {
        // The laboratory has log and configuration in one directory.
        let (lab, mut daemon) = start(&["--log", "trace,lb_ebpf=debug"])?;
        let tally = lab.ask(Ask::Http, VIP4, 20)?;
        ensure!(tally.failed() == 0, "{tally}");
        wait::until("packets in the log", SETTLE, || {
            let log = daemon.log();
            ensure!(log.contains("verdict 3"), "no packets in the log");
            Ok(())
        })?;
        let status = daemon.stop()?;
        ensure!(status.success(), "it ended with {status}");
        let log = daemon.log();
        let watched = log.lines().filter(|line| line.contains("inotify event")).count();
        ensure!(watched == 0, "{watched} lines tell of changes in the directory that the log is in:\n{log}");
        Ok(())
    });
}
