//! Configurations on a running daemon: bad ones change nothing, good ones take effect, edits stand in the file.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab,
    addresses::{VIP4, VIP6},
    client::Ask,
    daemon, root, wait,
};
use nix::sys::signal::Signal;

const SETTLE: Duration = Duration::from_secs(15);

fn small_lab() -> Result<(Lab, Config)> {
    let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
    let check = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let config = Config::new().pool("web", check, &members).service("www", VIP4, &["tcp/80"], "web");
    Ok((lab, config))
}

#[test]
fn a_wrong_file_changes_nothing_and_a_right_one_takes_effect() {
    root::required(|| {
        let (lab, config) = small_lab()?;
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        let generation = daemon.status()?.config.generation;

        for (what, text, word) in [
            ("no TOML", "[lb\n".to_owned(), "lb.toml:1"),
            ("an unknown key", format!("{}colour = \"red\"\n", config.text()), "colour"),
            ("no such pool", config.text().replace("pool = \"web\"", "pool = \"wob\""), "wob"),
        ] {
            daemon.write_config(&text)?;
            let errors = wait::until(format_args!("the refusal of {what}"), SETTLE, || {
                let config = daemon.status()?.config;
                ensure!(config.errors.iter().any(|error| error.contains(word)), "{config:?}");
                ensure!(config.generation == generation, "it took effect: {config:?}");
                Ok(config.errors)
            })?;
            let shown = daemon.lb(&["status"])?;
            ensure!(shown.contains(word), "{errors:?} is not in `lb status`:\n{shown}");
            let tally = lab.ask(Ask::Http, VIP4, 50)?;
            ensure!(tally.failed() == 0, "after {what}: {tally}");
        }

        let better = config.service("www6", VIP6, &["tcp/80"], "web");
        daemon.write_config(better.text())?;
        wait::until("the new file to be in force", SETTLE, || {
            let config = daemon.status()?.config;
            ensure!(config.generation > generation && config.errors.is_empty(), "{config:?}");
            Ok(())
        })?;
        daemon.wait_up(SETTLE)?;
        let tally = lab.ask(Ask::Http, VIP6, 50)?;
        ensure!(tally.failed() == 0, "{tally}");
        Ok(())
    });
}

#[test]
fn a_start_that_cannot_work_says_why_and_fails() {
    root::required(|| {
        let (lab, config) = small_lab()?;
        for (what, text, word) in [
            ("no such interface", config.text().replace("\"eth0\"", "\"nosuch7\""), "nosuch7"),
            ("an unknown key", format!("{}colour = \"red\"\n", config.text()), "colour"),
        ] {
            let (status, said) = daemon::refused(&lab, &text)?;
            let code = status.code().with_context(|| format!("{what}: ended by a signal: {status}"))?;
            ensure!(code != 0 && code != 101, "{what}: exit code {code}; it said:\n{said}");
            ensure!(said.contains(word), "{what}: {word} is not in what it said:\n{said}");
            let link = lab.balancer.ip(&["-d", "link", "show", "eth0"])?;
            ensure!(!link.contains("prog/xdp"), "{what}: a program is left:\n{link}");
        }
        Ok(())
    });
}

#[test]
fn an_edit_by_command_line_stands_in_the_file_with_comments_kept() {
    root::required(|| {
        let (lab, config) = small_lab()?;
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        let comment = "# A laboratory's configuration.";
        ensure!(config.text().contains(comment));
        daemon.lb(&["backend", "set", "web", "b1", "--weight", "7"])?;
        let file = std::fs::read_to_string(&daemon.config)?;
        ensure!(file.contains(comment) && file.contains("weight = 7"), "{file}");
        ensure!(daemon.backend("www", "b1")?.weight == 7);

        let refused = daemon.try_lb(&["backend", "set", "web", "nosuch", "--weight", "7"])?;
        ensure!(!refused.status.success(), "an edit of a backend that is not there succeeded");
        let words = String::from_utf8_lossy(&refused.stderr);
        ensure!(words.contains("nosuch"), "{words}");
        ensure!(std::fs::read_to_string(&daemon.config)? == file, "a refused edit changed the file");

        let tally = lab.ask(Ask::Http, VIP4, 400)?;
        ensure!(tally.failed() == 0 && tally.of("b1") * 5 < tally.of("b2"), "weights 7 and 100: {tally}");
        Ok(())
    });
}

#[test]
fn sighup_reads_a_file_again_whose_change_went_unseen() {
    root::required(|| {
        let (lab, config) = small_lab()?;
        // Its own log stands beside the file: the fewer lines, the fewer looks at that directory.
        let daemon = Daemon::start_with(&lab, &config, &["--log", "warn"])?;
        daemon.wait_up(SETTLE)?;
        let generation = daemon.status()?.config.generation;

        // Written by another name in a directory that the daemon has no reason to watch.
        let elsewhere = lab.directory().join("elsewhere");
        std::fs::create_dir(&elsewhere)?;
        let other_name = elsewhere.join("lb.toml");
        std::fs::hard_link(&daemon.config, &other_name)?;
        // Making that directory was a change beside the file: let the daemon look first.
        wait::rest(Duration::from_secs(1))?;
        std::fs::write(&other_name, config.clone().service("www6", VIP6, &["tcp/80"], "web").text())?;
        wait::rest(Duration::from_millis(1500))?;
        ensure!(daemon.status()?.config.generation == generation, "it was seen: this test shows nothing");

        daemon.signal(Signal::SIGHUP)?;
        wait::until("the file to be in force", SETTLE, || {
            let config = daemon.status()?.config;
            ensure!(config.generation == generation + 1 && config.errors.is_empty(), "{config:?}");
            Ok(())
        })?;
        daemon.wait_up(SETTLE)?;
        let tally = lab.ask(Ask::Http, VIP6, 50)?;
        ensure!(tally.failed() == 0, "{tally}");

        std::fs::write(&other_name, "[lb\n")?;
        daemon.signal(Signal::SIGHUP)?;
        wait::until("the refusal of a bad file", SETTLE, || {
            let config = daemon.status()?.config;
            ensure!(config.errors.iter().any(|error| error.contains("lb.toml:1")), "{config:?}");
            ensure!(config.generation == generation + 1, "it took effect: {config:?}");
            Ok(())
        })?;
        let tally = lab.ask(Ask::Http, VIP6, 50)?;
        ensure!(tally.failed() == 0, "after the refusal: {tally}");
        Ok(())
    });
}
