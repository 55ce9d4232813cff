//! `lb backend drain --wait`: it ends when nothing is left of the backend's flows, or at the deadline.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::lab::{Backend, Config, Daemon, Lab, addresses::VIPS, client::Held, root, wait};
use lb_user::api::State;

const SETTLE: Duration = Duration::from_secs(10);

fn start() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let check = "type = \"tcp\", port = 7000, interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";
    let config = Config::new()
        .pool("web", check, &members)
        .service("echo", VIPS[0], &["tcp/7000"], "web")
        .lines("idle = \"4s\"");
    let daemon = Daemon::start(&lab, &config)?;
    daemon.wait_up(SETTLE)?;
    Ok((lab, daemon))
}

/// Ten connections that a backend holds.
fn held_by(lab: &Lab, backend: &str) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for _ in 0..200 {
        let connection = Held::open(&lab.client, VIPS[0])?;
        if connection.backend == backend {
            held.push(connection);
        }
        if held.len() == 10 {
            return Ok(held);
        }
    }
    Err(anyhow!("{backend} got {} of 200 connections", held.len()))
}

/// Runs a command to its end while the connections are kept busy; its exit status, what it printed, and those that broke.
fn while_busy(mut command: Command, held: &mut Vec<Held>) -> Result<(i32, String, usize)> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let before = held.len();
            while !ended.load(Ordering::Relaxed) {
                held.retain_mut(|held| held.ping().is_ok());
                std::thread::sleep(Duration::from_millis(200));
            }
            before - held.len()
        });
        let output = command.output();
        ended.store(true, Ordering::Relaxed);
        let broke = busy.join().map_err(|_| anyhow!("the client panicked"))?;
        let output = output.context("starting lb")?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().context("it was killed")?, said, broke))
    })
}

#[test]
fn a_drain_ends_when_the_last_connection_has_or_at_its_deadline() {
    root::required(|| {
        let (lab, daemon) = start()?;

        // Connections that go on: the deadline cuts them off.
        let mut held = held_by(&lab, "b2")?;
        let start = Instant::now();
        let command = daemon.command(&["backend", "drain", "web", "b2", "--deadline", "7s", "--wait"]);
        let (status, said, broke) = while_busy(command, &mut held)?;
        println!("{said}after {:?}: status {status}, {broke} broke", start.elapsed());
        ensure!(status == 75, "status {status}: {said}");
        ensure!((6..12).contains(&start.elapsed().as_secs()), "it took {:?}", start.elapsed());
        ensure!(said.contains("10 remembered flows") && said.contains("was taken out before"), "{said}");
        ensure!(daemon.backend("echo", "b2")?.state == State::Maint, "it is not in maintenance");
        let text = std::fs::read_to_string(&daemon.config)?;
        ensure!(text.contains("drain_until"), "{text}");
        // They are on a backend that knows nothing of them now.
        ensure!(held.iter_mut().all(|held| held.ping().is_err()), "a connection outlived its backend");

        // Connections that end: so does the drain, and none of them was hurt.
        daemon.lb(&["backend", "enable", "web", "b2"])?;
        daemon.wait_state("echo", "b2", State::Up, SETTLE)?;
        wait::rest(Duration::from_secs(6))?;
        let mut held = held_by(&lab, "b2")?;
        let command = daemon.command(&["backend", "drain", "web", "b2", "--deadline", "60s", "--wait"]);
        let start = Instant::now();
        let waiting = std::thread::spawn(move || {
            let mut command = command;
            command.output()
        });
        let busy = Instant::now();
        while busy.elapsed() < Duration::from_secs(6) {
            for held in &mut held {
                held.ping().context("a connection broke while its backend was drained")?;
            }
            wait::rest(Duration::from_millis(200))?;
        }
        ensure!(!waiting.is_finished(), "drained with ten connections on it");
        drop(held);
        let output = waiting.join().map_err(|_| anyhow!("waiting panicked"))??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{said}after {:?}", start.elapsed());
        ensure!(
            output.status.success() && said.ends_with("web/b2 is drained\n"),
            "{}: {said}",
            output.status
        );
        ensure!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
        ensure!(daemon.backend("echo", "b2")?.state == State::Drain, "its drain goes on");
        Ok(())
    });
}
