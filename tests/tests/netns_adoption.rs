//! Daemons are killed, upgraded and started anew under steady traffic, and the next one goes on where the last one stopped.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use lb_common::abi::{ABI_VERSION, name};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab, addresses::VIPS, client::Ask, load::under_load, root, wait,
};

const SETTLE: Duration = Duration::from_secs(15);
const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";
const PORTS: [&str; 3] = ["tcp/80", "tcp/7000", "udp/7000"];

fn config(lab: &Lab) -> Config {
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    Config::new()
        .pool("web", CHECK, &members)
        .service("four", VIPS[0], &PORTS, "web")
        .service("six", VIPS[3], &PORTS, "web")
}

fn start() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().l2_backends(2).tunnel_backends(2).build()?;
    let daemon = Daemon::start_with(&lab, &config(&lab), LOUD)?;
    daemon.wait_up(SETTLE)?;
    Ok((lab, daemon))
}

/// The daemon says when it changes its tables.
const LOUD: &[&str] = &["--log", "info,lb_user::daemon=debug"];

/// What the daemon that runs now has logged: the log is one file for all.
fn log_of(daemon: &Daemon) -> String {
    let log = daemon.log();
    let own = format!("pid={}", daemon.id());
    let at = log.rfind("going on with").or_else(|| log.rfind(&own)).unwrap_or(0);
    log[at..].to_owned()
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing_and_the_next_one_plans_nothing() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        under_load(&lab, "five daemons killed", || {
            for _ in 0..5 {
                daemon.crash()?;
                wait::rest(Duration::from_millis(300))?;
                daemon.restart(LOUD)?;
                daemon.wait_up(SETTLE)?;
                let log = log_of(&daemon);
                ensure!(log.contains("going on with"), "it began anew:\n{log}");
                // Probes have said something about everybody by now.
                wait::rest(Duration::from_secs(1))?;
                let log = log_of(&daemon);
                ensure!(!log.contains("tables changed"), "an unchanged configuration was planned:\n{log}");
            }
            Ok(())
        })?;
        let stats = daemon.lb(&["stats"])?;
        println!("{stats}");
        Ok(())
    });
}

/// Where a version of the layouts has its maps.
fn maps_of(daemon: &Daemon, version: u32) -> PathBuf {
    daemon.pins.join(format!("v{version}"))
}

#[test]
fn tables_of_an_older_version_forward_until_the_new_ones_are_filled() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        under_load(&lab, "an upgrade to another layout", || {
            daemon.crash()?;
            // As if the maps were laid out otherwise.
            fs::rename(maps_of(&daemon, ABI_VERSION), maps_of(&daemon, ABI_VERSION - 1))?;
            daemon.restart(LOUD)?;
            daemon.wait_up(SETTLE)?;
            wait::until("the new programs to take over", SETTLE, || {
                let log = daemon.log();
                ensure!(log.contains("removed the tables of an earlier daemon"), "they have not");
                Ok(())
            })?;
            wait::rest(Duration::from_secs(1))
        })?;
        ensure!(!maps_of(&daemon, ABI_VERSION - 1).exists(), "the old tables are left");
        ensure!(
            !daemon.log().contains("before every backend is known"),
            "it did not wait:\n{}",
            daemon.log()
        );
        Ok(())
    });
}

#[test]
fn tables_of_a_newer_version_are_left_alone() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        daemon.crash()?;
        fs::rename(maps_of(&daemon, ABI_VERSION), maps_of(&daemon, 99))?;
        ensure!(daemon.restart(&[]).is_err(), "an older daemon started over newer tables");
        let log = daemon.log();
        ensure!(log.contains("version 99") && log.contains("run that one"), "{log}");
        let tally = lab.ask(Ask::Http, VIPS[0], 50)?;
        ensure!(tally.failed() == 0, "it touched what forwards: {tally}");
        let status = daemon.try_lb(&["status", "--pins", &daemon.pins.display().to_string()])?;
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        ensure!(said.contains("version 99") && said.contains("cannot read"), "{said}");
        fs::rename(maps_of(&daemon, 99), maps_of(&daemon, ABI_VERSION))?;
        let status = daemon.try_lb(&["status", "--pins", &daemon.pins.display().to_string()])?;
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        println!("{said}");
        ensure!(status.status.code() == Some(69), "{status:?}");
        ensure!(said.contains("no daemon runs; the programs of an earlier one forward on eth0"), "{said}");
        ensure!(said.contains("2 services, 4 backends, 4 of them taking new flows"), "{said}");
        daemon.restart(&[])?;
        daemon.wait_up(SETTLE)
    });
}

#[test]
fn tables_that_became_too_small_are_replaced_under_traffic() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        // Each service counts by itself: so many do not fit the tables that were made for two.
        let mut many = config(&lab);
        for port in 0..800 {
            many = many.service(&format!("s{port}"), VIPS[0], &[&format!("tcp/{}", 20_000 + port)], "web");
        }
        under_load(&lab, "larger tables", || {
            daemon.crash()?;
            fs::write(&daemon.config, many.text())?;
            daemon.restart(LOUD)?;
            daemon.wait_up(SETTLE)?;
            wait::until("the new programs to take over", SETTLE, || {
                ensure!(!daemon.status()?.interfaces.is_empty(), "they have not");
                Ok(())
            })?;
            wait::rest(Duration::from_secs(1))
        })?;
        let log = daemon.log();
        ensure!(log.contains("no room for"), "the tables were large enough:\n{log}");
        ensure!(daemon.status()?.services.len() == 802);
        Ok(())
    });
}

#[test]
fn half_of_the_pins_are_as_good_as_none() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        daemon.crash()?;
        fs::remove_file(maps_of(&daemon, ABI_VERSION).join(name::SLOTS))?;
        daemon.restart(LOUD)?;
        daemon.wait_up(SETTLE)?;
        let log = daemon.log();
        ensure!(log.contains(&format!("{} is not pinned", name::SLOTS)), "{log}");
        let tally = lab.ask(Ask::Http, VIPS[0], 50)?;
        ensure!(tally.failed() == 0, "{tally}");
        Ok(())
    });
}
