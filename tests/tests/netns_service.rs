//! The daemon as a service: with the capabilities that its unit leaves it and no others, it tells the service manager how it is.

use std::{os::unix::net::UnixDatagram, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Backend, Config, Daemon, Lab, addresses::VIPS, client::Ask, root, wait};
use lb_user::api::State;

const UNIT: &str = include_str!("../../scripts/lb.service");

/// What the unit says of a key.
fn setting(key: &str) -> Result<&'static str> {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().with_context(|| format!("the unit has no {key}"))
}

/// The next thing that the service manager is told.
fn told(socket: &UnixDatagram) -> Result<String> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).context("the daemon tells nothing")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
}

#[test]
fn with_the_capabilities_of_its_unit_it_balances_and_tells_how_it_is() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(1).tunnel_backends(1).build()?;
        let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
        let check = "type = \"tcp\", interval = \"300ms\", timeout = \"200ms\", rise = 1, fall = 2";
        let config = Config::new().pool("web", check, &members).service("www", VIPS[0], &["tcp/80"], "web");
        let path = lab.directory().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let path = path.display().to_string();

        let capabilities: Vec<String> = setting("CapabilityBoundingSet")?
            .split(' ')
            .map(|name| name.trim_start_matches("CAP_").to_lowercase())
            .collect();
        ensure!(!capabilities.iter().any(|name| name == "sys_admin"), "the unit leaves it everything");
        let bounds = format!("-all,+{}", capabilities.join(",+"));
        let wrapper = ["setpriv", "--no-new-privs", "--inh-caps", "-all", "--bounding-set", &bounds];
        let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "30000000")];
        // A file that somebody else owns cannot be read without CAP_DAC_OVERRIDE: everything here is root's.
        let mut daemon = Daemon::start_under(&lab, &config, &[], &wrapper, &environment)?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff")?;
        let held = u64::from_str_radix(effective.trim(), 16)?.count_ones() as usize;
        println!("capabilities: {} ({bounds})", effective.trim());
        ensure!(held == capabilities.len(), "{held} capabilities of {}", capabilities.len());

        ensure!(told(&socket)? == "READY=1", "it is not ready");
        daemon.wait_up(Duration::from_secs(10))?;
        let tally = lab.ask(Ask::Http, VIPS[0], 100)?;
        ensure!(tally.failed() == 0 && tally.answers.len() == 2, "{tally}");
        ensure!(told(&socket)? == "WATCHDOG=1", "the watchdog is not fed");

        // A change is written to the file.
        daemon.lb(&["backend", "set", "web", "b1", "--weight", "50"])?;
        ensure!(std::fs::read_to_string(&daemon.config)?.contains("weight = 50"), "it is not in the file");

        let status = daemon.stop()?;
        ensure!(status.success(), "{status}: {}", daemon.log());
        wait::until("its farewell", Duration::from_secs(5), || {
            let last = told(&socket)?;
            ensure!(last == "STOPPING=1", "{last}");
            anyhow::Ok(())
        })
    });
}

/// The effective, permitted, inheritable and bounding capabilities of each of a process' threads.
fn capabilities(process: u32) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // One that ended meanwhile has none.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
        for line in status.lines().filter(|line| line.starts_with("Cap") && !line.starts_with("CapAmb")) {
            let (name, value) = line.split_once(':').context("no value")?;
            found.push((name.to_owned(), u64::from_str_radix(value.trim(), 16)?));
        }
    }
    Ok(found)
}

#[test]
fn privileges_that_are_not_needed_are_dropped_once_it_is_attached() {
    root::required(|| {
        let mut lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
        let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
        // A program that runs as root must not get back what the daemon gave up.
        let check = "type = \"exec\", command = [\"/bin/sh\", \"-c\", \"grep -q '^CapEff:.*000000c000003000$' /proc/self/status\"], \
                     interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1";
        let config = Config::new()
            .pool(
                "web",
                "type = \"tcp\", interval = \"300ms\", timeout = \"200ms\", rise = 1, fall = 2",
                &members,
            )
            .service("www", VIPS[0], &["tcp/80"], "web")
            .pool("told", check, &members[..1])
            .service("told", VIPS[0], &["tcp/81"], "told");
        let mut daemon = Daemon::start_with(&lab, &config, &["--drop-privileges"])?;
        daemon.wait_up(Duration::from_secs(10))?;
        // Threads of the start that have nothing to do end after ten seconds.
        wait::until("no thread with other capabilities", Duration::from_secs(20), || {
            let found = capabilities(daemon.id())?;
            let needed = |(name, held): &(String, u64)| match name.as_str() {
                "CapInh" => *held == 0,
                _ => *held == 0xc0_0000_3000,
            };
            ensure!(found.len() >= 4 && found.iter().all(needed), "{found:x?}");
            anyhow::Ok(())
        })?;
        // It can do all it has to: edits, other programs for other features, a failing backend, another interface, its end.
        daemon.lb(&["backend", "set", "web", "b1", "--weight", "50"])?;
        daemon.lb(&["service", "set", "www", "--affinity", "source"])?;
        ensure!(lab.ask(Ask::Http, VIPS[0], 100)?.failed() == 0, "requests failed");
        lab.backend("b1").crash()?;
        daemon.wait_state("www", "b1", State::Down, Duration::from_secs(5))?;
        lab.unplug()?;
        wait::until("no interface", Duration::from_secs(5), || {
            ensure!(daemon.status()?.interfaces.is_empty(), "attached");
            anyhow::Ok(())
        })?;
        lab.plug()?;
        daemon.wait_state("www", "b2", State::Up, Duration::from_secs(5))?;
        wait::until("an interface", Duration::from_secs(5), || {
            ensure!(daemon.status()?.interfaces.len() == 1, "none");
            anyhow::Ok(())
        })?;
        ensure!(lab.ask(Ask::Http, VIPS[0], 100)?.failed() == 0, "requests failed");
        let status = daemon.stop()?;
        ensure!(status.success() && !daemon.pins.exists(), "{status}: {}", daemon.log());
        let shown = lab.balancer.ip(&["link", "show", "eth0"])?;
        ensure!(!shown.contains("xdp"), "the program is still attached: {shown}");
        Ok(())
    });
}

/// What systemd itself finds wrong with the unit, where it is installed.
#[test]
fn the_unit_is_in_order() {
    let directory = tempfile_with_lb();
    let Ok((directory, unit)) = directory else { panic!("{directory:?}") };
    match Command::new("systemd-analyze").arg("verify").arg(&unit).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("lb.service")).collect();
            assert!(ours.is_empty(), "{said}");
        }
        Err(error) => println!("systemd-analyze is not here ({error}): its opinion is not asked"),
    }
    drop(std::fs::remove_dir_all(directory));
}

/// The unit with a program that is there.
fn tempfile_with_lb() -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let directory = std::env::temp_dir().join(format!("lb-unit-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let unit = directory.join("lb.service");
    std::fs::write(
        &unit,
        UNIT.replace("/usr/sbin/lb", "/bin/true")
            .replace("file:///usr/share/doc/lb/operations.md", "man:true(1)"),
    )?;
    Ok((directory, unit))
}
