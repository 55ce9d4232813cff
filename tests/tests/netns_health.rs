//! Backends that fail, return and drain under a client that keeps asking.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab, Stream,
    addresses::{VIP4, VIP6},
    client::Ask,
    root, stream, wait,
};
use lb_user::api::State;

const CHECK: &str =
    "type = \"http\", path = \"/healthz\", interval = \"500ms\", timeout = \"400ms\", rise = 2, fall = 3";

/// Fall × interval + time-out: what a dead backend may cost.
const OUT_WITHIN: Duration = Duration::from_millis(3 * 500 + 400);

/// Generous: for waits whose length is not what the test is about.
const SETTLE: Duration = Duration::from_secs(15);

fn start() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().build()?;
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let config = Config::new().pool("web", CHECK, &members).service("www", VIP4, &["tcp/80"], "web").service(
        "www6",
        VIP6,
        &["tcp/80"],
        "web",
    );
    let daemon = Daemon::start(&lab, &config)?;
    daemon.wait_up(SETTLE)?;
    Ok((lab, daemon))
}

#[test]
fn a_dead_backend_is_out_in_time_and_returns() {
    root::required(|| {
        let (mut lab, daemon) = start()?;
        for victim in ["b2", "b3"] {
            let stream = Stream::start(&lab.client, Ask::Http, VIP4, 4, Duration::from_millis(5))?;
            wait::rest(Duration::from_millis(300))?;
            lab.backend(victim).crash()?;
            let killed = Instant::now();
            let view = daemon.wait_state("www", victim, State::Down, SETTLE)?;
            let out = Instant::now();
            ensure!(
                out - killed <= OUT_WITHIN,
                "{victim} was out after {:?}, not {OUT_WITHIN:?}",
                out - killed
            );
            ensure!(!view.reason.is_empty(), "no reason is shown");
            wait::rest(Duration::from_secs(1))?;
            let records = stream.stop()?;
            let after = stream::tally(records.iter().filter(|record| record.sent >= out));
            ensure!(after.answered() > 100 && after.failed() == 0 && after.of(victim) == 0, "{after}");
            // The other family's service points at the same pool.
            let six = lab.ask(Ask::Http, VIP6, 100)?;
            ensure!(six.failed() == 0 && six.of(victim) == 0, "{six}");

            lab.backend(victim).start()?;
            daemon.wait_state("www", victim, State::Up, SETTLE)?;
            let back = lab.ask(Ask::Http, VIP4, 200)?;
            ensure!(back.failed() == 0 && back.of(victim) > 0, "{back}");
        }
        Ok(())
    });
}

#[test]
fn a_backend_without_the_vip_is_down_though_its_own_address_answers() {
    root::required(|| {
        let (mut lab, daemon) = start()?;
        let backend = lab.backend("b1");
        backend.namespace.ip(&["addr", "del", &format!("{VIP4}/32"), "dev", "lo"])?;
        let address = backend.address4;
        let view = daemon.wait_state("www", "b1", State::Down, SETTLE)?;
        ensure!(view.reason.contains(&VIP4.to_string()), "the reason does not name the VIP: {}", view.reason);
        let own = lab.balancer.enter(|| Ask::Http.once(address))??;
        ensure!(own == "b1", "b1's own address is answered by {own}");
        let tally = lab.ask(Ask::Http, VIP4, 200)?;
        ensure!(tally.failed() == 0 && tally.of("b1") == 0, "{tally}");
        Ok(())
    });
}

#[test]
fn a_draining_backend_takes_nothing_new_and_a_disabled_one_is_not_probed() {
    root::required(|| {
        let (lab, daemon) = start()?;
        for (verb, state) in [("drain", State::Drain), ("disable", State::Maint)] {
            daemon.lb(&["backend", verb, "web", "b1"])?;
            daemon.wait_state("www", "b1", state, SETTLE)?;
            let tally = lab.ask(Ask::Http, VIP4, 200)?;
            ensure!(tally.failed() == 0 && tally.of("b1") == 0, "{verb}: {tally}");
            daemon.lb(&["backend", "enable", "web", "b1"])?;
            daemon.wait_state("www", "b1", State::Up, SETTLE)?;
            let tally = lab.ask(Ask::Http, VIP4, 200)?;
            ensure!(tally.failed() == 0 && tally.of("b1") > 0, "enable after {verb}: {tally}");
        }
        Ok(())
    });
}
