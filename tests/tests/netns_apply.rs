//! Configurations as a whole on a running daemon, and changes of all kinds under steady traffic.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::{
    lab::{
        Backend, Config, Daemon, Lab,
        addresses::VIPS,
        client::Ask,
        load::{self, under_load},
        root, wait,
    },
    packets::random::Random,
};
use lb_user::api::{PastView, PlanView, State};

const SETTLE: Duration = Duration::from_secs(15);
const CHECK: &str = "type = \"tcp\", interval = \"200ms\", timeout = \"150ms\", rise = 1, fall = 2";
const PORTS: [&str; 3] = ["tcp/80", "tcp/7000", "udp/7000"];

fn config(lab: &Lab, backends: usize) -> Config {
    let members: Vec<_> = lab.backends.iter().take(backends).map(Backend::member).collect();
    Config::new()
        .pool("web", CHECK, &members)
        .service("four", VIPS[0], &PORTS, "web")
        .service("six", VIPS[3], &PORTS, "web")
}

fn start(backends: usize) -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().l2_backends(2).tunnel_backends(2).build()?;
    let daemon = Daemon::start(&lab, &config(&lab, backends))?;
    daemon.wait_up(SETTLE)?;
    Ok((lab, daemon))
}

#[test]
fn a_configuration_is_planned_applied_on_trial_and_taken_back() {
    root::required(|| {
        let (lab, mut daemon) = start(3)?;
        let first = fs::read_to_string(&daemon.config)?;
        let proposed = lab.directory().join("new.toml");
        fs::write(&proposed, config(&lab, 4).text().replace("udp/7000", "udp/7001"))?;
        let file = proposed.to_str().expect("the laboratory's paths are text");

        println!("{}", daemon.lb(&["plan", file])?);
        let view: PlanView = serde_json::from_str(&daemon.lb(&["-j", "plan", file])?)?;
        ensure!(view.pools[0].backends[0].name == "b4", "{view:?}");
        ensure!((20.0..30.0).contains(&view.pools[0].percent_moved), "{view:?}");
        ensure!(fs::read_to_string(&daemon.config)? == first, "a plan changed the file");

        // Nobody confirms.
        println!("{}", daemon.lb(&["apply", file, "--confirm", "2s"])?);
        ensure!(fs::read_to_string(&daemon.config)? == fs::read_to_string(&proposed)?);
        let refused = daemon.try_lb(&["backend", "drain", "web", "b1"])?;
        ensure!(String::from_utf8_lossy(&refused.stderr).contains("on trial"), "{refused:?}");
        wait::until("the configuration before", SETTLE, || {
            ensure!(fs::read_to_string(&daemon.config)? == first, "it is not back");
            Ok::<_, anyhow::Error>(())
        })?;
        let tally = lab.ask(Ask::Http, VIPS[0], 50)?;
        ensure!(tally.failed() == 0, "after it came back: {tally}");

        // Somebody does.
        daemon.lb(&["apply", file, "--confirm", "2s"])?;
        daemon.lb(&["confirm"])?;
        wait::rest(Duration::from_secs(3))?;
        ensure!(fs::read_to_string(&daemon.config)? == fs::read_to_string(&proposed)?);

        // The history is there after a restart.
        daemon.crash()?;
        daemon.restart(&[])?;
        println!("{}", daemon.lb(&["history"])?);
        let past: Vec<PastView> = serde_json::from_str(&daemon.lb(&["-j", "history"])?)?;
        ensure!(past.len() == 4 && past[3].in_force, "{past:?}");
        daemon.lb(&["rollback", &past[0].number.to_string()])?;
        ensure!(fs::read_to_string(&daemon.config)? == first);
        daemon.wait_up(SETTLE)?;
        let tally = lab.ask(Ask::Http, VIPS[0], 50)?;
        ensure!(tally.failed() == 0, "after the rollback: {tally}");
        Ok(())
    });
}

#[test]
fn what_takes_the_backends_down_comes_back_by_itself() {
    root::required(|| {
        let (lab, daemon) = start(4)?;
        let first = fs::read_to_string(&daemon.config)?;
        let proposed = lab.directory().join("new.toml");
        // Nobody listens there.
        fs::write(&proposed, first.replace("type = \"tcp\"", "type = \"tcp\", port = 81"))?;
        let file = proposed.to_str().expect("the laboratory's paths are text");
        daemon.lb(&["apply", file, "--confirm", "10m", "--max-down", "30"])?;
        wait::until("the configuration before", SETTLE, || {
            ensure!(fs::read_to_string(&daemon.config)? == first, "it is not back");
            Ok::<_, anyhow::Error>(())
        })?;
        ensure!(daemon.log().contains("backends that were UP went DOWN"), "{}", daemon.log());
        daemon.wait_up(SETTLE)
    });
}

/// The file with everything changed at random that may be without harm to those who are connected.
fn edited(lab: &Lab, random: &mut Random) -> String {
    let mut members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    for member in &mut members {
        member.weight = [1, 50, 100, 300][random.below(4)];
    }
    // Somebody must stay to take flows.
    let away = random.below(members.len() + 2);
    if away < members.len() {
        members.remove(away);
    }
    let mut config = Config::new()
        .lines(&format!("# edit {}", random.below(1 << 32)))
        .pool("web", CHECK, &members)
        .service("four", VIPS[0], &PORTS, "web")
        .service("six", VIPS[3], &PORTS, "web");
    for number in 0..random.below(5) {
        config =
            config.service(&format!("more{number}"), VIPS[1], &[&format!("tcp/{}", 9000 + number)], "web");
    }
    config.text().to_owned()
}

#[test]
fn a_hundred_reloads_lose_nothing() {
    root::required(|| {
        let (lab, daemon) = start(4)?;
        let mut random = Random::new(7);
        let before = daemon.status()?.config.generation;
        let done = under_load(&lab, "100 reloads with random edits", || {
            for _ in 0..100 {
                let generation = daemon.status()?.config.generation;
                daemon.write_config(&edited(&lab, &mut random))?;
                wait::until("the file to be in force", SETTLE, || {
                    let config = daemon.status()?.config;
                    ensure!(config.generation > generation && config.errors.is_empty(), "{config:?}");
                    Ok(())
                })?;
            }
            Ok(())
        });
        for note in ["flow_not_remembered_full", "flow_not_remembered_limited"] {
            println!("{note}: {}", daemon.counted(note)?);
        }
        done?;
        ensure!(daemon.status()?.config.generation == before + 100);
        Ok(())
    });
}

#[test]
fn a_backend_that_comes_and_goes_harms_only_its_own() {
    root::required(|| {
        let (mut lab, daemon) = start(4)?;
        let mut flapping = lab.backends.remove(0);
        let outcome = load::load(&lab, "a backend that comes and goes, three times", || {
            for _ in 0..3 {
                flapping.crash()?;
                daemon.wait_state("four", "b1", State::Down, SETTLE)?;
                wait::rest(Duration::from_millis(500))?;
                flapping.start()?;
                daemon.wait_state("four", "b1", State::Up, SETTLE)?;
                wait::rest(Duration::from_secs(1))?;
            }
            Ok(())
        })?;
        let others: Vec<&String> = outcome.lost.iter().filter(|error| !error.contains("to b1")).collect();
        ensure!(others.is_empty(), "connections of others broke: {others:?}");
        // It is found out within two checks: 0.4 s and their time-outs. New connections meet it for that long.
        let share = 3.0 * 1.0 / outcome.took.as_secs_f64() / 4.0;
        let failed = outcome.http.failed() as f64 / (outcome.http.failed() + outcome.http.answered()) as f64;
        ensure!(failed < share, "{:.1}% of HTTP requests failed: {}", 100.0 * failed, outcome.http);
        Ok(())
    });
}
