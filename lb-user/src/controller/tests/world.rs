//! All that is outside of the controller, in memory: tables that may fail, ways, servers, the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lb_common::{
    abi::{Limits, PROBE_MARK_MASK, ServiceKey, Ticks},
    addr::Addr,
};

use super::super::{Action, Applied, Controller, Event, Identity, Level, Tables, Token, Unwritten};
use crate::{
    api::{Edit, Request, Response, State, Status},
    config,
    model::{
        history::Past,
        memory::{
            Memory,
            audit::{InFlight, audit, destinations, same_tables},
        },
        next_hop::{NextHop, Unreachable},
        plan::Change,
        probe::{BackendId, ProbeFailure, ProbeId, ProbeKind, ProbeOutcome, ProbeSpec, Purpose},
        service::Name,
        source::{Files, Source},
        trace::trace,
        traffic::Counters,
        transition::FlowReading,
    },
};

pub(super) const LIMITS: Limits = Limits {
    index: 128,
    services: 64,
    slots: 8192,
    backends: 4096,
    counters: 16384,
    flow_buckets: 64,
    limiters: 16,
    prefixes: 1024,
};

/// The world's clock of flows.
pub(super) const TICKS_PER_SECOND: u32 = 250;

pub(super) type Way = Result<NextHop, Unreachable>;

/// Looks at the tables, at this time, and hears which servers are known to run.
pub(super) type Between = Box<dyn FnMut(&Memory, Duration, BTreeSet<IpAddr>)>;

/// The outside. What is not set up is as it should be: plans are carried out, files written; but nobody has a MAC and
/// no server answers.
pub(super) struct World {
    pub(super) controller: Controller,
    pub(super) now: Duration,
    pub(super) memory: Memory,
    in_flight: InFlight,
    /// The ways there are, whether or not somebody asks.
    pub(super) ways: BTreeMap<IpAddr, Way>,
    pub(super) resolving: BTreeSet<IpAddr>,
    pub(super) probes: BTreeMap<ProbeId, Arc<ProbeSpec>>,
    /// Servers whose service answers.
    pub(super) alive: BTreeSet<IpAddr>,
    /// How long servers take to answer, if not a millisecond.
    pub(super) slow: BTreeMap<IpAddr, Duration>,
    /// What agents say.
    pub(super) agents: BTreeMap<IpAddr, &'static str>,
    pub(super) file: String,
    /// The files that it names.
    pub(super) files: Files,
    /// Configurations kept.
    pub(super) kept: Vec<Past>,
    /// Why writing the file fails.
    pub(super) disk_error: Option<String>,
    /// Each plan fails after so many steps.
    pub(super) plan_fails_at: Option<usize>,
    /// Somebody else writes in the tables: they may differ from what is believed.
    pub(super) strangers_write: bool,
    /// Slots are not written, whatever is said of them.
    pub(super) forgets_slots: bool,
    /// Plans are not carried out for now.
    pub(super) plans_wait: bool,
    waiting: Option<Event>,
    /// What happens between the steps of plans.
    pub(super) between: Option<Between>,
    /// Steps carried out so far.
    pub(super) steps: usize,
    pub(super) log: Vec<(Level, String)>,
    pub(super) replies: BTreeMap<Token, Response>,
    /// What was streamed to each client.
    pub(super) streams: BTreeMap<Token, Vec<u8>>,
    pub(super) ended: BTreeSet<Token>,
    next_token: Token,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(LIMITS)
    }

    /// A world with tables of this size.
    pub(super) fn of(limits: Limits) -> Self {
        Self {
            controller: Controller::new(Duration::ZERO, limits, identity()),
            now: Duration::ZERO,
            memory: Memory::new(limits),
            in_flight: InFlight::default(),
            ways: BTreeMap::new(),
            resolving: BTreeSet::new(),
            probes: BTreeMap::new(),
            alive: BTreeSet::new(),
            slow: BTreeMap::new(),
            agents: BTreeMap::new(),
            file: String::new(),
            files: Files::new(),
            kept: Vec::new(),
            disk_error: None,
            plan_fails_at: None,
            strangers_write: false,
            forgets_slots: false,
            plans_wait: false,
            waiting: None,
            between: None,
            steps: 0,
            log: Vec::new(),
            replies: BTreeMap::new(),
            streams: BTreeMap::new(),
            ended: BTreeSet::new(),
            next_token: 0,
        }
    }

    /// A world in which this is configured, and these servers have a MAC and answer.
    pub(super) fn serving(config: &str, servers: &[&str]) -> Self {
        let mut world = Self::new();
        world.configure(config);
        for server in servers {
            world.way(server, on_link(server, 0));
            world.alive.insert(server.parse().unwrap());
        }
        world.probe();
        world
    }

    /// Tells the controller, carries out what it orders, tells it of that, and so on.
    pub(super) fn tell(&mut self, events: Vec<Event>) {
        let mut events = events;
        while !events.is_empty() {
            let actions = self.controller.handle(self.now, std::mem::take(&mut events));
            for action in actions {
                events.extend(self.carry_out(action));
            }
        }
        if self.waiting.is_none() && self.plan_fails_at.is_none() && !self.strangers_write {
            assert!(same_tables(self.controller.installed(), &self.memory), "what is believed is not so");
        }
    }

    fn carry_out(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::Apply(changes) => {
                assert!(self.waiting.is_none(), "a plan on top of another");
                let done = self.plan_fails_at.map_or(changes.len(), |at| at.min(changes.len()));
                for change in &changes[..done] {
                    if self.strangers_write {
                        // Packets met what is worse than any order of the steps.
                        if !(self.forgets_slots && matches!(change, Change::Slots(_))) {
                            self.memory.apply(change);
                        }
                        continue;
                    }
                    self.in_flight.apply(&mut self.memory, change);
                    audit(&self.memory);
                    if let Some(between) = &mut self.between {
                        between(&self.memory, self.now, self.controller.serving());
                    }
                }
                self.steps += done;
                let error = (done < changes.len()).then(|| "the kernel said no".to_owned());
                let applied = Event::Applied(Applied { done, error });
                if self.plans_wait {
                    self.waiting = Some(applied);
                    return Vec::new();
                }
                vec![applied]
            }
            Action::ReadBack(changes) => {
                vec![Event::ReadBack(changes.iter().filter_map(|change| change.read(&self.memory)).collect())]
            }
            Action::Resolve(wanted) => {
                let news: Vec<IpAddr> = wanted.difference(&self.resolving).copied().collect();
                self.resolving = wanted;
                let told = |target: IpAddr| Some((target, self.ways.get(&target)?.clone()));
                news.into_iter()
                    .filter_map(told)
                    .map(|(target, state)| Event::NextHop { target, state })
                    .collect()
            }
            Action::Probe(probes) => {
                self.probes = probes;
                Vec::new()
            }
            Action::ReadNamed { token, text } => {
                vec![Event::NamedRead { token, source: Source { text, files: self.files.clone() } }]
            }
            Action::Keep(past) => {
                self.kept.push(past);
                Vec::new()
            }
            Action::WriteConfig { token, before, after } => {
                let result = match &self.disk_error {
                    Some(error) => Err(Unwritten::Failed(error.clone())),
                    None if self.file != before => {
                        Err(Unwritten::ChangedMeanwhile("changed by someone else".to_owned()))
                    }
                    None => {
                        self.file = after;
                        Ok(())
                    }
                };
                vec![Event::ConfigWritten { token, result }]
            }
            Action::ReadFlows => {
                vec![Event::Flows(FlowReading {
                    now: self.ticks(),
                    flows: self.memory.flows.iter().collect(),
                })]
            }
            Action::Trace { token, sample } => {
                let trace = trace(&self.memory, &sample.frame(), sample.ingress, self.ticks());
                vec![Event::Traced { token, sample, trace: Ok(Box::new(trace)) }]
            }
            Action::Reply { token, response } => {
                assert!(self.replies.insert(token, response).is_none(), "answered twice");
                Vec::new()
            }
            Action::Stream { token, chunk } => {
                self.streams.entry(token).or_default().extend(chunk);
                Vec::new()
            }
            Action::EndStream { token } => {
                assert!(self.ended.insert(token), "ended twice");
                Vec::new()
            }
            Action::State(change) => {
                let level = if change.state == State::Down { Level::Warn } else { Level::Info };
                self.log.push((level, change.to_string()));
                Vec::new()
            }
            Action::Log(level, text) => {
                self.log.push((level, text));
                Vec::new()
            }
        }
    }

    /// The daemon was killed, and another one starts: it knows the file and what stands in the tables. The one before
    /// may have been in the middle of a plan.
    pub(super) fn restart(&mut self) {
        // The kernel edge does so before it reads the tables.
        self.in_flight.apply(&mut self.memory, &Change::Settle);
        let desired = config::parse(&self.file, &self.files).expect("a file that a daemon starts with");
        let tables = Tables { memory: self.memory.clone(), counters: Counters::default() };
        self.controller = Controller::found(self.now, tables, identity(), desired).expect("sound tables");
        self.controller.recall(self.kept.clone());
        self.waiting = None;
        self.plans_wait = false;
        self.resolving.clear();
        self.probes.clear();
        self.configure(&self.file.clone());
    }

    /// Whether all that was planned is carried out.
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.waiting.is_none() && !self.controller.dirty && self.controller.failure.is_none()
    }

    /// The plan that waits is done.
    pub(super) fn finish(&mut self) {
        self.plans_wait = false;
        let done = self.waiting.take().into_iter().collect();
        self.tell(done);
    }

    /// Somebody saves the file.
    pub(super) fn configure(&mut self, text: &str) {
        text.clone_into(&mut self.file);
        self.tell(vec![Event::ConfigText(Source { text: text.to_owned(), files: self.files.clone() })]);
    }

    pub(super) fn way(&mut self, address: &str, way: Way) {
        let target = address.parse().unwrap();
        self.ways.insert(target, way.clone());
        if self.resolving.contains(&target) {
            self.tell(vec![Event::NextHop { target, state: way }]);
        }
    }

    /// The clock that flows are remembered by.
    pub(super) fn ticks(&self) -> Ticks {
        ticks_at(self.now)
    }

    /// Every probe is carried out once.
    pub(super) fn probe(&mut self) {
        let outcomes = self.probes.iter().map(|(id, spec)| Event::Probe(self.outcome(id, spec)));
        let outcomes = outcomes.collect();
        self.tell(outcomes);
    }

    fn outcome(&self, id: &ProbeId, spec: &Arc<ProbeSpec>) -> ProbeOutcome {
        if spec.kind == ProbeKind::Agent {
            let failure = ProbeFailure::Refused { target: spec.target };
            let said = self.agents.get(&spec.backend).map(|line| (*line).to_owned());
            return self.found(id, spec, said.ok_or(failure));
        }
        let mark = spec.mark.expect("a probe through the VIP");
        let record = self.memory.backends[(mark & !PROBE_MARK_MASK) as usize];
        let reached = |server: &IpAddr| Addr::from(*server).octets()[15] == record.hop().destination()[5];
        let answers = record.standing != 0 && self.alive.iter().any(reached);
        let failure = ProbeFailure::Refused { target: spec.target };
        let result = if answers { Ok("connected".to_owned()) } else { Err(failure) };
        self.found(id, spec, result)
    }

    fn found(
        &self,
        id: &ProbeId,
        spec: &Arc<ProbeSpec>,
        result: Result<String, ProbeFailure>,
    ) -> ProbeOutcome {
        let took = self.slow.get(&spec.backend).copied().unwrap_or(Duration::from_millis(1));
        ProbeOutcome { id: id.clone(), spec: Arc::clone(spec), took, result }
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.tell(vec![Event::Tick]);
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Response {
        let (token, event) = self.request(request);
        self.tell(vec![event]);
        self.replies.remove(&token).expect("an answer")
    }

    /// An event that asks, and the token of its answer.
    pub(super) fn request(&mut self, request: Request) -> (Token, Event) {
        self.next_token += 1;
        (self.next_token, Event::Request { token: self.next_token, request })
    }

    pub(super) fn edit(&mut self, edit: Edit) -> Response {
        self.ask(Request::Edit(edit))
    }

    pub(super) fn status(&mut self) -> Status {
        match self.ask(Request::Status) {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// State of a backend and why.
    pub(super) fn standing(&mut self, backend: &str) -> (State, String) {
        let Response::Health(views) = self.ask(Request::Health) else { panic!("no health") };
        let view = views.into_iter().find(|view| view.backend == backend).expect(backend);
        (view.state, view.reason)
    }

    /// Last bytes of the addresses of those servers that get flows for a VIP and port; 0 for none at all.
    pub(super) fn servers(&self, vip: &str, port: u16) -> Vec<u8> {
        let macs = self.flows(vip, port);
        let servers: BTreeSet<u8> = macs.into_iter().map(|mac| mac.map_or(0, |mac| mac[5])).collect();
        servers.into_iter().collect()
    }

    /// To which MAC some flows go.
    pub(super) fn flows(&self, vip: &str, port: u16) -> Vec<Option<[u8; 6]>> {
        let key = ServiceKey::new(Addr::from(vip.parse::<IpAddr>().unwrap()), 6, port);
        destinations(&self.memory, &key)
    }

    pub(super) fn said(&self, text: &str) -> bool {
        self.log.iter().any(|(_, line)| line.contains(text))
    }
}

pub(super) fn identity() -> Identity {
    Identity {
        version: "1".to_owned(),
        pid: 1,
        config_path: "lb.toml".to_owned(),
        ticks_per_second: TICKS_PER_SECOND,
        epoch: Duration::from_secs(1_700_000_000),
    }
}

/// The clock that flows are remembered by, at this time.
pub(super) fn ticks_at(now: Duration) -> Ticks {
    Ticks::new(now.as_millis() as u64 * u64::from(TICKS_PER_SECOND) / 1000)
}

/// A server next door. Its MAC ends as its address does.
pub(super) fn on_link(address: &str, version: u8) -> Way {
    let address: IpAddr = address.parse().unwrap();
    Ok(behind(address, address, version))
}

/// A server behind a gateway. The MAC is the server's own all the same, to tell who gets a packet.
pub(super) fn behind(address: IpAddr, gateway: IpAddr, version: u8) -> NextHop {
    let [.., last] = Addr::from(address).octets();
    NextHop {
        via: gateway,
        interface: 3,
        interface_name: "eth0".to_owned(),
        source: [6; 6],
        destination: [2, version, 0, 0, 0, last],
        mtu: 1500,
        local: None,
    }
}

pub(super) fn no_mac(address: &str) -> Way {
    Err(Unreachable::NoMac { via: address.parse().unwrap(), interface: "eth0".to_owned() })
}

pub(super) fn id(pool: &str, backend: &str) -> BackendId {
    BackendId { pool: Name::new(pool).unwrap(), backend: Name::new(backend).unwrap() }
}

/// The check of a backend.
pub(super) fn check(pool: &str, backend: &str) -> ProbeId {
    ProbeId { backend: id(pool, backend), purpose: Purpose::Check }
}

pub(super) fn target(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
