//! Open connections through changes, and packets that are more than one: what real clients notice of both.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lb_tests::lab::{
    Config, Daemon, Lab,
    addresses::VIPS,
    client::{self, Ask, Held},
    config::Member,
    root,
};
use lb_user::api::State;

/// Time for probes, neighbours and changes.
const SETTLE: Duration = Duration::from_secs(15);

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// The VIP of each family.
const BOTH: [IpAddr; 2] = [VIPS[0], VIPS[3]];

/// Connections to each VIP.
const CONNECTIONS: usize = 250;

/// Source ports of the datagrams: each is a flow.
const PORTS: std::ops::Range<u16> = 30_000..30_040;

const PORTS_SERVED: [&str; 3] = ["tcp/80", "tcp/7000", "udp/7000"];

fn config(members: &[Member]) -> Config {
    Config::new().pool("web", CHECK, members).service("four", BOTH[0], &PORTS_SERVED, "web").service(
        "six",
        BOTH[1],
        &PORTS_SERVED,
        "web",
    )
}

/// Two backends next to the balancer, two behind tunnels.
fn lab() -> Result<Lab> {
    Lab::builder().l2_backends(2).tunnel_backends(2).build()
}

fn members(lab: &Lab) -> Vec<Member> {
    lab.backends.iter().map(lb_tests::lab::Backend::member).collect()
}

fn order(daemon: &Daemon, what: &str, name: &str, more: &[&str]) -> Result<()> {
    daemon.lb(&[&["backend", what, "web", name], more].concat()).map(drop)
}

fn add(daemon: &Daemon, member: &Member) -> Result<()> {
    order(daemon, "add", &member.name, &[&member.address.to_string(), "--via", member.via])?;
    daemon.wait_state("four", &member.name, State::Up, SETTLE).map(drop)
}

/// Everything that operators do to backends: to each in turn, and then to all at once.
fn changes(daemon: &Daemon, members: &[Member]) -> Result<()> {
    let pause = || std::thread::sleep(Duration::from_millis(500));
    add(daemon, &members[3])?;
    pause();
    for name in ["b1", "b3"] {
        order(daemon, "drain", name, &[])?;
        daemon.wait_state("four", name, State::Drain, SETTLE)?;
        pause();
    }
    for (name, weight) in [("b1", "10"), ("b2", "300"), ("b4", "50")] {
        order(daemon, "set", name, &["--weight", weight])?;
        pause();
    }
    for name in ["b1", "b3"] {
        order(daemon, "enable", name, &[])?;
        daemon.wait_state("four", name, State::Up, SETTLE)?;
        pause();
    }
    for member in members {
        order(daemon, "del", &member.name, &[])?;
        pause();
        add(daemon, member)?;
        pause();
    }
    // Faster than anyone can watch.
    for name in ["b1", "b2", "b3", "b4"] {
        order(daemon, "drain", name, &[])?;
        order(daemon, "enable", name, &[])?;
    }
    daemon.wait_up(SETTLE)
}

/// Keeps every connection busy until told to stop; gives the rounds that each went through.
fn keep_busy(connections: &mut [Held], stop: &AtomicBool) -> Result<usize> {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        for (number, held) in connections.iter_mut().enumerate() {
            held.ping()
                .with_context(|| format!("connection {number}, to {}, round {rounds}", held.backend))?;
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// Runs something while connections are kept busy.
fn while_busy(connections: &mut [Held], change: impl FnOnce() -> Result<()>) -> Result<usize> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| keep_busy(connections, &stop));
        let changed = change();
        stop.store(true, Ordering::Relaxed);
        let rounds = busy.join().map_err(|_| anyhow!("the client panicked"))?;
        changed?;
        rounds
    })
}

fn open(lab: &Lab) -> Result<Vec<Held>> {
    BOTH.iter().flat_map(|&vip| (0..CONNECTIONS).map(move |_| Held::open(&lab.client, vip))).collect()
}

/// Connections by backend.
fn shares(connections: &[Held]) -> BTreeMap<&str, usize> {
    connections.iter().fold(BTreeMap::new(), |mut shares, held| {
        *shares.entry(held.backend.as_str()).or_default() += 1;
        shares
    })
}

#[test]
fn no_change_breaks_an_open_connection() {
    root::required(|| {
        let lab = lab()?;
        let members = members(&lab);
        let daemon = Daemon::start(&lab, &config(&members[..3]))?;
        daemon.wait_up(SETTLE)?;
        let mut connections = open(&lab)?;
        ensure!(shares(&connections).len() == 3, "{:?}", shares(&connections));
        let rounds = while_busy(&mut connections, || changes(&daemon, &members))?;
        println!("{} connections, {rounds} rounds; {:?}", connections.len(), shares(&connections));
        ensure!(rounds > 5, "only {rounds} rounds");
        Ok(())
    });
}

#[test]
fn datagrams_of_a_flow_stay_with_their_backend() {
    root::required(|| {
        let lab = lab()?;
        let members = members(&lab);
        let daemon = Daemon::start(&lab, &config(&members[..3]))?;
        daemon.wait_up(SETTLE)?;
        let owners = || -> Result<Vec<String>> {
            lab.client.enter(|| {
                let flows = BOTH.iter().flat_map(|&vip| PORTS.map(move |port| (vip, port)));
                flows
                    .map(|(vip, port)| {
                        Ask::Udp.once_from(port, vip).with_context(|| format!("from port {port} to {vip}"))
                    })
                    .collect()
            })?
        };
        let before = owners()?;
        add(&daemon, &members[3])?;
        ensure!(owners()? == before, "adding a backend moved datagrams");
        order(&daemon, "drain", "b1", &[])?;
        daemon.wait_state("four", "b1", State::Drain, SETTLE)?;
        ensure!(owners()? == before, "draining a backend moved datagrams");
        order(&daemon, "enable", "b1", &[])?;
        daemon.wait_state("four", "b1", State::Up, SETTLE)?;
        ensure!(owners()? == before, "enabling a backend moved datagrams");
        order(&daemon, "del", "b1", &[])?;
        ensure!(owners()? == before, "removing a backend moved datagrams");
        Ok(())
    });
}

#[test]
fn fragments_are_answered() {
    root::required(|| {
        let lab = lab()?;
        let daemon = Daemon::start(&lab, &config(&members(&lab)))?;
        daemon.wait_up(SETTLE)?;
        for (vip, may_lose) in BOTH.into_iter().zip([0, lab.backends.len()]) {
            let mut lost = Vec::new();
            // From many ports, so that every backend gets some.
            for length in [2000, 8192, 30_000].repeat(15) {
                lost.extend(client::echo_datagram(&lab.client, vip, length).err());
            }
            // Backends have more room than the client. By IPv6 each loses its first long answer, and must be told.
            ensure!(lost.len() <= may_lose, "{vip}: {lost:?}");
        }
        Ok(())
    });
}

/// The answers' way has less room than the backends think: whoever sent one is told, through the balancer.
#[test]
fn backends_learn_of_a_narrow_path() {
    root::required(|| {
        let lab = lab()?;
        let daemon = Daemon::start(&lab, &config(&members(&lab)))?;
        daemon.wait_up(SETTLE)?;
        // The router's side only: the client still asks for segments of 1,500 bytes.
        lab.router.run("ip", &["link", "set", "client", "mtu", "1400"])?;
        for vip in BOTH {
            for _ in 0..8 {
                client::download(&lab.client, vip)?;
            }
        }
        Ok(())
    });
}
