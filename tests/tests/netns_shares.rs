//! Pools that help each other out, and backends whose agents say what they can take: with real clients and servers.

use std::{
    io::Write as _,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab, Namespace,
    addresses::VIP4,
    client::{Ask, Held},
    config::Member,
    root, wait,
};
use lb_user::api::{State, Stats};

const CHECK: &str =
    "type = \"http\", path = \"/healthz\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 2";

/// Generous: for waits whose length is not what the test is about.
const SETTLE: Duration = Duration::from_secs(15);

const PORTS: [&str; 2] = ["tcp/80", "tcp/7000"];

#[test]
fn another_pool_helps_out_and_keeps_what_it_has() {
    root::required(|| {
        let mut lab = Lab::builder().build()?;
        let members: Vec<Member> = lab.backends.iter().map(Backend::member).collect();
        let config = Config::new()
            .pool_with("web", CHECK, "fallback = \"spare\"", &members[..1])
            .pool("spare", CHECK, &members[1..])
            .service("www", VIP4, &PORTS, "web");
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        only(&lab, &["b1"])?;

        lab.backend("b1").crash()?;
        daemon.wait_state("www", "b1", State::Down, SETTLE)?;
        only(&lab, &["b2", "b3"])?;
        let words = "pool web: 0 of 1 backends are up: those of pool spare take its new flows";
        for asked in [&["status"][..], &["pool", "show", "web"]] {
            let said = daemon.lb(asked)?;
            ensure!(said.contains(words), "lb {asked:?}:\n{said}");
        }
        ensure!(daemon.service("www")?.state == State::Up, "a service that others serve is up");
        let mut held = (0..10).map(|_| Held::open(&lab.client, VIP4)).collect::<Result<Vec<_>, _>>()?;
        wait::until("packets of both backends of the other pool", SETTLE, || {
            let stats: Stats = serde_json::from_str(&daemon.lb(&["stats", "-j"])?)?;
            for name in ["spare/b2", "spare/b3"] {
                let mut backends = stats.services.iter().flat_map(|service| &service.backends);
                let found = backends.find(|known| known.backend == name);
                let packets = found.context("not in `lb stats`")?.traffic.packets;
                ensure!(packets > 0, "none to {name}");
            }
            Ok(())
        })?;

        lab.backend("b1").start()?;
        daemon.wait_state("www", "b1", State::Up, SETTLE)?;
        only(&lab, &["b1"])?;
        for connection in &mut held {
            connection.ping().with_context(|| format!("a connection held by {}", connection.backend))?;
        }
        Ok(())
    });
}

/// Asks so often that each of these answers, and nobody else does.
fn only(lab: &Lab, backends: &[&str]) -> Result<()> {
    let tally = lab.ask(Ask::Http, VIP4, 100)?;
    let answered: Vec<&str> = tally.answers.keys().map(String::as_str).collect();
    ensure!(tally.failed() == 0 && answered == backends, "{tally}, not just {backends:?}");
    Ok(())
}

/// An agent on a backend, which says to everybody who connects what it is told to.
struct Agent(Arc<Mutex<&'static str>>);

impl Agent {
    const PORT: u16 = 9999;

    fn start(namespace: &Namespace, line: &'static str) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind(("0.0.0.0", Self::PORT)))?;
        let listener = listener.context("listening as an agent")?;
        let line = Arc::new(Mutex::new(line));
        let said = Arc::clone(&line);
        // It ends with the test.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let line = *said.lock().unwrap_or_else(PoisonError::into_inner);
                // Who does not listen any longer need not be told.
                drop(writeln!(stream, "{line}"));
            }
        });
        Ok(Self(line))
    }

    fn say(&self, line: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

#[test]
fn an_agent_says_what_its_backend_can_take() {
    root::required(|| {
        let lab = Lab::builder().build()?;
        let members: Vec<Member> = lab.backends.iter().map(Backend::member).collect();
        let agent = format!("agent = {{ port = {}, interval = \"200ms\" }}", Agent::PORT);
        let config =
            Config::new().pool_with("web", CHECK, &agent, &members).service("www", VIP4, &PORTS, "web");
        // The other two backends have none, which is no reason to be down.
        let agent = Agent::start(&lab.backends[0].namespace, "up ready 100%")?;
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        only(&lab, &["b1", "b2", "b3"])?;

        agent.say("50%");
        wait::until("half of its weight", SETTLE, || {
            let view = daemon.backend("www", "b1")?;
            ensure!(view.weight_percent == 50, "{view:?}");
            // 50 of 250.
            ensure!((view.share_percent - 20.0).abs() < 0.1, "{view:?}");
            Ok(())
        })?;
        agent.say("drain");
        daemon.wait_state("www", "b1", State::Drain, SETTLE)?;
        only(&lab, &["b2", "b3"])?;
        agent.say("ready, 100%, fail # disk full");
        let view = daemon.wait_state("www", "b1", State::Down, SETTLE)?;
        ensure!(view.reason == "agent says \"ready, 100%, fail # disk full\"", "{}", view.reason);
        only(&lab, &["b2", "b3"])?;
        agent.say("up");
        daemon.wait_state("www", "b1", State::Up, SETTLE)?;
        only(&lab, &["b1", "b2", "b3"])
    });
}
