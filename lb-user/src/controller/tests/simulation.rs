//! The promise: no change of the tables breaks an established connection whose backend still runs.
//!
//! A backend runs if its checks say so: one that opens a connection while they do not, because tables that could not be
//! changed yet still name it, may lose it again.
//!
//! Connections open, send, fall silent and close, while backends are added, removed, drained, enabled, renamed, given
//! other weights, fail and return, and the daemon is killed and another goes on, several of these within a second. Packets are sent between the steps of every plan.
//! Time is virtual. Each course follows from its seed: `LB_SEED=7 cargo test -p lb-user --lib simulation` repeats one,
//! and `LB_SEEDS=500` runs as many.

use std::{cell::RefCell, collections::BTreeSet, fmt::Write, net::IpAddr, rc::Rc, time::Duration};

use lb_common::{
    abi::{Flow, Limits},
    addr::Addr,
    decide::{Decision, decide},
    packet::{Kind, Packet},
    wire::{protocol, tcp_flag},
};

use super::world::{World, on_link, ticks_at};
use crate::{
    api::{FlowsView, Request, Response},
    model::memory::Memory,
};

const LIMITS: Limits = Limits {
    index: 16,
    services: 8,
    slots: 1024,
    backends: 2048,
    counters: 2048,
    flow_buckets: 4096,
    limiters: 16,
    prefixes: 64,
};
const IDLE: Duration = Duration::from_secs(20);
const SERVERS: u8 = 7;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_millis(self.below(longest.as_millis() as u64 + 1))
    }
}

/// Where a client's packet ends up: the last byte of a server's address.
fn send(memory: &Memory, client: (Addr, u16), tcp_flags: u8, now: Duration) -> Option<u8> {
    let packet = Packet {
        source: client.0,
        destination: Addr::v4([192, 0, 2, 1]),
        source_port: client.1,
        destination_port: 80,
        protocol: protocol::TCP,
        tcp_flags,
        traffic_class: 0,
        ttl: 64,
        length: 100,
        offset: 14,
        is_v4: true,
        kind: Kind::Whole,
        quic_head: 0,
        quic_id: 0,
        fragment: 0,
    };
    match decide(memory, &packet, || ticks_at(now)).decision {
        Decision::Forward(forward) => Some(forward.hop.destination()[5]),
        Decision::Echo | Decision::TooBig { .. } | Decision::Pass(_) | Decision::Drop(_) => None,
    }
}

/// A TCP connection.
#[derive(Debug)]
struct Connection {
    client: (Addr, u16),
    /// Who saw its SYN.
    server: u8,
    last: Duration,
    /// When it sends next, at most [`IDLE`] after it last did.
    next: Duration,
    closes: Duration,
}

/// Everybody who connects.
struct Clients {
    seed: u64,
    random: Random,
    connections: Vec<Connection>,
    known: u32,
    /// Servers that do not run: nobody is served there.
    dead: BTreeSet<u8>,
    /// Servers that are known to run.
    trusted: BTreeSet<u8>,
    /// Packets that came to the right server.
    right: usize,
}

impl Clients {
    fn new(seed: u64) -> Self {
        let random = Random(seed ^ 0xc11e_4715);
        Self {
            seed,
            random,
            connections: Vec::new(),
            known: 0,
            dead: BTreeSet::new(),
            trusted: BTreeSet::new(),
            right: 0,
        }
    }

    fn open(&mut self, memory: &Memory, now: Duration) {
        self.known += 1;
        let [a, b, c, d] = self.known.to_be_bytes();
        let client = (Addr::v4([10, b, c, d]), 1024 + u16::from(a));
        if let Some(server) = send(memory, client, tcp_flag::SYN, now)
            && !self.dead.contains(&server)
            && self.trusted.contains(&server)
        {
            let next = now + self.random.up_to(Duration::from_millis(200));
            let closes = now + self.random.up_to(8 * IDLE);
            self.connections.push(Connection { client, server, last: now, next, closes });
        }
    }

    fn close(&mut self, now: Duration) {
        self.connections.retain(|connection| connection.closes > now);
    }

    fn say(&mut self, at: usize, memory: &Memory, now: Duration) {
        let (random, connection) = (&mut self.random, &mut self.connections[at]);
        let reached = send(memory, connection.client, tcp_flag::ACK, now);
        assert_eq!(reached, Some(connection.server), "LB_SEED={}: at {now:?} {connection:?}", self.seed);
        self.right += 1;
        connection.last = now;
        connection.next = now
            + match random.below(8) {
                0 => IDLE,
                1 | 2 => random.up_to(IDLE),
                _ => random.up_to(Duration::from_secs(2)),
            };
    }

    /// All that is due by now.
    fn run(&mut self, memory: &Memory, now: Duration) {
        self.close(now);
        for at in 0..self.connections.len() {
            if self.connections[at].next <= now {
                self.say(at, memory, now);
            }
        }
    }

    /// A few come between two steps of a plan.
    fn interfere(&mut self, memory: &Memory, now: Duration, trusted: BTreeSet<IpAddr>) {
        self.trust(trusted);
        for at in 0..self.connections.len() {
            if self.random.one_in(6) {
                self.say(at, memory, now);
            }
        }
        if self.random.one_in(2) {
            self.open(memory, now);
        }
    }

    fn trust(&mut self, servers: BTreeSet<IpAddr>) {
        self.trusted = servers.into_iter().map(|server| Addr::from(server).octets()[15]).collect();
    }

    fn die(&mut self, server: u8) {
        self.dead.insert(server);
        self.connections.retain(|connection| connection.server != server);
    }
}

/// What the configuration says of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wanted {
    present: bool,
    drained: bool,
    weight: u64,
    /// Changes its name.
    alias: u64,
}

struct Simulation {
    world: World,
    clients: Rc<RefCell<Clients>>,
    random: Random,
    /// By number, from 1 on.
    wanted: Vec<Wanted>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self::of(seed, SERVERS, SERVERS)
    }

    /// With so many servers, of which the first are in the configuration.
    fn of(seed: u64, servers: u8, present: u8) -> Self {
        let clients = Rc::new(RefCell::new(Clients::new(seed)));
        let mut world = World::of(LIMITS);
        for server in 1..=servers {
            let address = address(server);
            world.way(&address, on_link(&address, 0));
            world.alive.insert(address.parse().unwrap());
        }
        let wanted = Wanted { present: true, drained: false, weight: 100, alias: 0 };
        let wanted = (0..servers).map(|server| Wanted { present: server < present, ..wanted }).collect();
        let mut simulation = Self { world, clients, random: Random(seed), wanted };
        simulation.configure();
        simulation.world.probe();
        let clients = Rc::clone(&simulation.clients);
        simulation.world.between =
            Some(Box::new(move |memory, now, trusted| clients.borrow_mut().interfere(memory, now, trusted)));
        simulation
    }

    fn configure(&mut self) {
        let slots = if self.wanted.len() < 61 { 61 } else { 251 };
        let mut text = format!(
            "[lb]\ntransition_max = \"168h\"\n[[pool]]\nname = \"web\"\nslots = {slots}\n\
             check = {{ type = \"tcp\", rise = 2, fall = 2 }}\n"
        );
        for (server, wanted) in (1..).zip(&self.wanted).filter(|(_, wanted)| wanted.present) {
            let state = if wanted.drained { "drain" } else { "ready" };
            writeln!(
                text,
                "[[pool.backend]]\nname = \"b{server}-{}\"\naddress = \"{}\"\nweight = {}\nstate = \"{state}\"",
                wanted.alias,
                address(server),
                wanted.weight
            )
            .unwrap();
        }
        write!(
            text,
            "[[service]]\nname = \"www\"\nvip = \"192.0.2.1\"\nports = [\"tcp/80\"]\npool = \"web\"\nidle = \"{}s\"\n",
            IDLE.as_secs()
        )
        .unwrap();
        self.world.configure(&text);
        assert_eq!(self.world.controller.config_errors(), [""; 0], "{text}");
    }

    /// One thing happens.
    fn change(&mut self) {
        let server = 1 + self.random.below(self.wanted.len() as u64) as u8;
        let wanted = &mut self.wanted[usize::from(server) - 1];
        match self.random.below(13) {
            12 => {
                self.restart();
                return;
            }
            0..=2 => wanted.present ^= true,
            3..=5 => wanted.drained ^= true,
            6 | 7 => wanted.weight = [0, 1, 50, 100][self.random.below(4) as usize],
            8 => wanted.alias += 1,
            9 => {
                self.world.alive.remove(&address(server).parse().unwrap());
                self.clients.borrow_mut().die(server);
                (0..self.random.below(4)).for_each(|_| self.world.probe());
                return;
            }
            10 => {
                self.world.alive.insert(address(server).parse().unwrap());
                self.clients.borrow_mut().dead.remove(&server);
                (0..self.random.below(4)).for_each(|_| self.world.probe());
                return;
            }
            _ => {
                match self.random.below(4) {
                    0 => self.world.plan_fails_at = Some(self.random.below(4) as usize),
                    1 => self.world.plans_wait = true,
                    _ => {
                        self.world.plan_fails_at = None;
                        self.world.finish();
                    }
                }
                return;
            }
        }
        self.configure();
    }

    /// The daemon is killed, in the middle of a plan or not, and another one goes on. If there was nothing to do there is
    /// nothing to do now.
    fn restart(&mut self) {
        let idle = self.world.plan_fails_at.is_none() && self.world.waits_for_nothing();
        let steps = self.world.steps;
        self.world.restart();
        let seed = self.clients.borrow().seed;
        assert!(
            !idle || self.world.steps == steps,
            "LB_SEED={seed}: an unchanged configuration is planned anew"
        );
    }

    /// Time passes, and everybody does what is due in it.
    fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            let second = Duration::from_secs(self.world.now.as_secs() + 1);
            let due = self.clients.borrow().connections.iter().map(|connection| connection.next).min();
            let next = due.unwrap_or(end).max(self.world.now).min(second).min(end);
            self.world.now = next;
            self.clients.borrow_mut().run(&self.world.memory, next);
            if next == second {
                self.world.tell(vec![super::Event::Tick]);
                if second.as_secs().is_multiple_of(2) {
                    self.world.probe();
                }
            }
        }
    }

    fn open(&mut self, count: usize) {
        self.clients.borrow_mut().trust(self.world.controller.serving());
        for _ in 0..count {
            self.clients.borrow_mut().open(&self.world.memory, self.world.now);
        }
    }

    fn in_transition(&self) -> usize {
        self.world.memory.slots.iter().filter(|slot| slot.in_transition()).count()
    }

    fn flows(&self) -> Vec<Flow> {
        self.world.memory.flows.iter().collect()
    }

    fn view(&mut self) -> FlowsView {
        match self.world.ask(Request::Flows) {
            Response::Flows(mut views) => views.remove(0),
            other => panic!("{other:?}"),
        }
    }
}

fn address(server: u8) -> String {
    format!("10.1.0.{server}")
}

/// Anything happens for a while, then nothing: every transition ends.
fn course(seed: u64) -> usize {
    let mut simulation = Simulation::new(seed);
    simulation.open(40);
    for _ in 0..120 {
        match simulation.random.below(5) {
            0 | 1 => (0..=simulation.random.below(3)).for_each(|_| simulation.change()),
            2 => simulation.open(4),
            3 => {
                let time = simulation.random.up_to(Duration::from_secs(1));
                simulation.pass(time);
            }
            _ => {
                let time = simulation.random.up_to(IDLE / 2);
                simulation.pass(time);
            }
        }
    }
    simulation.world.plan_fails_at = None;
    simulation.world.finish();
    // Those who are there may stay a while longer.
    simulation.pass(2 * IDLE);
    simulation.world.between = None;
    simulation.clients.borrow_mut().connections.clear();
    simulation.pass(2 * IDLE);
    assert_eq!(simulation.in_transition(), 0, "LB_SEED={seed}: a transition without end");
    let view = simulation.view();
    assert_eq!((view.slots_in_transition, view.ends_in_seconds), (0, None), "LB_SEED={seed}: {view:?}");
    assert!(view.backends.is_empty(), "LB_SEED={seed}: {view:?}");
    let records = simulation.world.memory.backends.iter().filter(|backend| backend.standing != 0).count();
    let present = simulation.wanted.iter().filter(|wanted| wanted.present).count();
    assert_eq!(records, present, "LB_SEED={seed}: a backend that left never went");
    simulation.clients.borrow().right
}

#[test]
fn no_change_breaks_a_connection_whose_backend_runs() {
    let count = std::env::var("LB_SEEDS").map_or(40, |count| count.parse().expect("LB_SEEDS is a number"));
    let seeds: Vec<u64> = match std::env::var("LB_SEED") {
        Ok(seed) => vec![seed.parse().expect("LB_SEED is a number")],
        Err(_) => (1..=count).collect(),
    };
    let right: usize = seeds.into_iter().map(course).sum();
    assert!(right > 1000, "only {right} packets were sent");
}

/// Numbers are given for four times the backends that a pool begins with, and for 64 at least.
#[test]
fn a_pool_that_outgrows_its_numbers_breaks_nothing() {
    for seed in 1..=4 {
        let mut simulation = Simulation::of(seed, 120, 8);
        simulation.open(150);
        simulation.pass(Duration::from_secs(1));
        simulation.wanted[2].drained = true;
        simulation.wanted[3].weight = 10;
        simulation.configure();
        simulation.open(150);
        simulation.pass(Duration::from_secs(2));
        let (before, moving) = (simulation.flows().len(), simulation.in_transition());
        assert!(before > 20 && moving > 10, "LB_SEED={seed}: {before} flows, {moving} slots");
        // In two steps, the second while the first has not ended.
        for present in [70, 120] {
            simulation.wanted[..present].iter_mut().for_each(|wanted| wanted.present = true);
            simulation.configure();
            simulation.world.probe();
            simulation.open(50);
            simulation.pass(Duration::from_secs(3));
        }
        let standing = simulation.world.memory.backends.iter().filter(|b| b.standing != 0).count();
        assert_eq!(standing, 120, "LB_SEED={seed}");
        simulation.pass(2 * IDLE);
        simulation.wanted[5..].iter_mut().for_each(|wanted| wanted.present = false);
        simulation.configure();
        simulation.pass(2 * IDLE);
        simulation.clients.borrow_mut().connections.clear();
        simulation.pass(2 * IDLE);
        assert_eq!(simulation.in_transition(), 0, "LB_SEED={seed}: a transition without end");
    }
}

#[test]
fn in_the_steady_state_nothing_is_remembered() {
    let mut simulation = Simulation::new(1);
    simulation.open(200);
    simulation.pass(3 * IDLE);
    for source in 0..200_000u32 {
        let [a, b, c, d] = source.to_be_bytes();
        send(&simulation.world.memory, (Addr::v4([11 + a, b, c, d]), 7), tcp_flag::SYN, simulation.world.now);
    }
    assert_eq!(simulation.flows(), [], "no flow, no SYN left a trace");
    assert!(simulation.clients.borrow().right > 1000);

    // After a change and its end the table is left as it is.
    simulation.wanted[3].drained = true;
    simulation.configure();
    assert_ne!(simulation.in_transition(), 0);
    simulation.pass(2 * IDLE);
    simulation.clients.borrow_mut().connections.clear();
    simulation.pass(2 * IDLE);
    assert_eq!(simulation.in_transition(), 0);
    let before = simulation.flows();
    simulation.open(200);
    simulation.pass(2 * IDLE);
    assert_eq!(simulation.flows(), before);
}

#[test]
fn a_flood_of_syns_displaces_no_confirmed_flow() {
    let mut simulation = Simulation::new(1);
    simulation.open(200);
    simulation.pass(Duration::from_secs(1));
    simulation.wanted[3].drained = true;
    simulation.wanted[4].weight = 10;
    simulation.configure();
    simulation.open(200);
    simulation.pass(Duration::from_secs(4));
    let confirmed = |simulation: &Simulation| -> BTreeSet<u64> {
        simulation.flows().iter().filter(|flow| flow.is_confirmed()).map(|flow| flow.id).collect()
    };
    let before = confirmed(&simulation);
    assert!(before.len() > 20, "{}", before.len());
    for source in 0..200_000u32 {
        let [a, b, c, d] = source.to_be_bytes();
        send(&simulation.world.memory, (Addr::v4([11 + a, b, c, d]), 7), tcp_flag::SYN, simulation.world.now);
    }
    assert_eq!(confirmed(&simulation), before);
    assert!(simulation.flows().len() > before.len() + 1000, "the flood fell on slots in transition");
    simulation.pass(IDLE);
}
