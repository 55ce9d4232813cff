//! The daemon ends, by request or by force, and another one takes over.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{Backend, Config, Daemon, Lab, Stream, addresses::VIP4, client::Ask, root, stream, wait};

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
    Ok(lab.balancer.ip(&["-d", "link", "show", "eth0"])?.contains("prog/xdp"))
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
