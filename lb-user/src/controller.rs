//! The controller: a state machine that owns all state of the daemon and awaits nothing.
//!
//! Events come in, actions go out. What is wanted (the configuration), what is known (health, next hops) and what is
//! installed meet here; how the one becomes the other is the model's business. No I/O, no clock, no async.

mod event;
mod requests;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    abi::{Limits, PROBE_MARK, Reason, ServiceKey},
    addr::Addr,
};

pub use self::event::{Action, Applied, Event, Identity, Level, Token};
use crate::{
    api::{ConfigView, InterfaceView, State},
    config,
    model::{
        health::{Health, Transition},
        layout::Layout,
        memory::Memory,
        next_hop::{NextHop, Unreachable},
        plan::{Change, HopTarget, MemberTarget, Outer, PoolTarget, ServiceTarget, TableCache, Target, plan},
        probe::{BackendId, ProbeOutcome, ProbeSpec},
        service::{AdminState, Backend, CheckKind, Desired, Name, Pool, Protocol, Service, Via},
        traffic::Meter,
    },
};

/// How long a failed plan waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known about one backend beside its configuration.
#[derive(Clone, Debug)]
struct Member {
    health: Health,
    /// What was last told about it.
    state: State,
    since: Duration,
}

/// Who owns a counter: a service and a backend of its pool.
type CounterOwner = (Name, Name);

/// All state of the daemon.
pub struct Controller {
    identity: Identity,
    interfaces: Vec<InterfaceView>,
    started: Duration,
    config_text: String,
    config: ConfigView,
    desired: Desired,
    members: BTreeMap<BackendId, Member>,
    next_hops: BTreeMap<IpAddr, Result<NextHop, Unreachable>>,
    layout: Layout,
    installed: Memory,
    tables: TableCache,
    /// The plan that is being carried out.
    pending: Vec<Change>,
    retry_at: Option<Duration>,
    failure: Option<String>,
    traffic: Meter<CounterOwner>,
    reasons: Meter<usize>,
    /// What was last ordered of the edges: orders are only repeated if they differ.
    resolving: BTreeSet<IpAddr>,
    probing: BTreeMap<BackendId, ProbeSpec>,
    /// Edits that wait for the file to be written.
    writing: BTreeMap<Token, (String, String)>,
    dirty: bool,
}

impl Controller {
    /// A controller that wants nothing yet, over empty tables.
    pub fn new(now: Duration, limits: Limits, identity: Identity) -> Self {
        Self {
            config: ConfigView { path: identity.config_path.clone(), ..ConfigView::default() },
            identity,
            interfaces: Vec::new(),
            started: now,
            config_text: String::new(),
            desired: Desired::default(),
            members: BTreeMap::new(),
            next_hops: BTreeMap::new(),
            layout: Layout::new(&limits),
            installed: Memory::new(limits),
            tables: TableCache::default(),
            pending: Vec::new(),
            retry_at: None,
            failure: None,
            traffic: Meter::default(),
            reasons: Meter::default(),
            resolving: BTreeSet::new(),
            probing: BTreeMap::new(),
            writing: BTreeMap::new(),
            dirty: true,
        }
    }

    /// The tables as they are believed to be.
    pub fn installed(&self) -> &Memory {
        &self.installed
    }

    /// What the configuration in force asks for.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Where the daemon is attached.
    pub fn set_interfaces(&mut self, interfaces: Vec<InterfaceView>) {
        self.interfaces = interfaces;
    }

    /// Takes in a batch of events that happened together, and says what is to be done about them.
    pub fn handle(&mut self, now: Duration, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            self.take(now, event, &mut actions);
        }
        self.report_states(now, &mut actions);
        self.steer(now, &mut actions);
        actions
    }

    fn take(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::ConfigText(text) => self.take_config(now, text, actions),
            Event::ConfigUnreadable(why) => {
                let said =
                    format!("cannot read {}: {why}; the configuration in force stays", self.config.path);
                actions.push(Action::Log(Level::Error, said));
                self.config.errors = vec![why];
            }
            Event::ConfigWritten { token, result } => self.take_written(now, token, result, actions),
            Event::NextHop { target, state } => {
                self.next_hops.insert(target, state);
                self.dirty = true;
            }
            Event::Probe(outcome) => self.take_outcome(now, &outcome),
            Event::Applied(applied) => self.take_applied(now, applied, actions),
            Event::Counters(counters) => {
                let owners = self.counter_owners();
                self.traffic.read(now, &counters.forwarded, |place| owners.get(&place).cloned());
                self.reasons.read(now, &counters.reasons, Some);
            }
            Event::Request { token, request } => self.take_request(now, token, request, actions),
            Event::Tick => {
                if self.retry_at.is_some_and(|at| at <= now) {
                    self.retry_at = None;
                    self.dirty = true;
                }
            }
        }
    }

    /// A new text of the configuration file. A bad one changes nothing but what is said about it.
    fn take_config(&mut self, now: Duration, text: String, actions: &mut Vec<Action>) {
        if self.config.generation > 0 && text == self.config_text {
            self.config.errors.clear();
            return;
        }
        match config::parse(&text) {
            Ok(desired) => {
                self.config_text = text;
                self.adopt(now, desired, actions);
                let Desired { pools, services, .. } = &self.desired;
                let backends: usize = pools.iter().map(|pool| pool.backends.len()).sum();
                let said = format!(
                    "configuration {} in force: {} services, {} pools, {backends} backends",
                    self.config.generation,
                    services.len(),
                    pools.len()
                );
                actions.push(Action::Log(Level::Info, said));
            }
            Err(errors) => {
                let report = errors.report(&self.config.path);
                let said = format!("the configuration was refused, the one in force stays:\n{report}");
                actions.push(Action::Log(Level::Error, said));
                self.config.errors = report.lines().map(str::to_owned).collect();
            }
        }
    }

    fn adopt(&mut self, now: Duration, desired: Desired, actions: &mut Vec<Action>) {
        self.config.generation += 1;
        self.config.errors.clear();
        if self.config.generation > 1
            && (desired.settings.interfaces != self.desired.settings.interfaces
                || desired.settings.xdp != self.desired.settings.xdp)
        {
            let said = "changes of [lb] interfaces and xdp take effect when lb is restarted".to_owned();
            actions.push(Action::Log(Level::Warn, said));
        }
        let mut members = BTreeMap::new();
        for pool in &desired.pools {
            let before = self.desired.pool(&pool.name);
            for backend in &pool.backends {
                let id = id(pool, backend);
                let same = before
                    .and_then(|pool| pool.backends.iter().find(|old| old.name == backend.name))
                    .is_some_and(|old| old.address == backend.address && old.via == backend.via);
                let checked = pool.check.is_some();
                let was_checked = before.is_some_and(|pool| pool.check.is_some());
                let member = match self.members.remove(&id) {
                    Some(member) if same && checked == was_checked => member,
                    // A check that is new on a backend that serves: it goes on serving until the check says otherwise.
                    Some(member) if same && checked => Member { health: Health::adopted(now), ..member },
                    _ => Member {
                        health: if checked { Health::new(now) } else { Health::unchecked(now) },
                        state: State::Down,
                        since: now,
                    },
                };
                members.insert(id, member);
            }
        }
        self.members = members;
        self.desired = desired;
        self.dirty = true;
    }

    fn take_outcome(&mut self, now: Duration, outcome: &ProbeOutcome) {
        // An outcome of a probe that is no longer wanted says nothing about the backend as it is now.
        if self.probing.get(&outcome.backend).is_none_or(|spec| spec.mark != outcome.mark) {
            return;
        }
        let check = self.desired.pool(&outcome.backend.pool).and_then(|pool| pool.check.as_ref());
        let (Some(check), Some(member)) = (check, self.members.get_mut(&outcome.backend)) else { return };
        let transition = member.health.observe(&outcome.result, outcome.took, check.rise, check.fall, now);
        if let Some(Transition::Up | Transition::Down) = transition {
            self.dirty = true;
        }
    }

    fn take_applied(&mut self, now: Duration, applied: Applied, actions: &mut Vec<Action>) {
        let done = applied.done.min(self.pending.len());
        for change in self.pending.drain(..).take(done) {
            self.installed.apply(&change);
        }
        match applied.error {
            None => {
                self.failure = None;
                self.layout.release();
            }
            Some(error) => {
                let said = format!("step {} of a plan failed: {error}; trying again in 1 s", done + 1);
                actions.push(Action::Log(Level::Error, said));
                self.failure = Some(error);
                self.retry_at = Some(now + RETRY);
            }
        }
    }

    /// Tells of every backend whose state is no longer what was last told.
    fn report_states(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for pool in &self.desired.pools {
            for backend in &pool.backends {
                let id = id(pool, backend);
                let Some(member) = self.members.get_mut(&id) else { continue };
                let (state, reason) = standing(backend, &member.health, self.next_hops.get(&backend.address));
                if state != member.state {
                    let level = if state == State::Down { Level::Warn } else { Level::Info };
                    actions.push(Action::Log(level, format!("{id} {state}: {reason}")));
                    member.state = state;
                    member.since = now;
                    self.dirty = true;
                }
            }
        }
    }

    /// Brings tables, neighbours and probes to what is wanted now.
    fn steer(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !std::mem::take(&mut self.dirty) || !self.pending.is_empty() {
            return;
        }
        let wanted = self.wanted_addresses();
        if wanted != self.resolving {
            self.next_hops.retain(|address, _| wanted.contains(address));
            self.resolving.clone_from(&wanted);
            actions.push(Action::Resolve(wanted));
        }

        let target = self.target();
        let planned = self.layout.place(&target).map_err(|full| full.to_string()).and_then(|()| {
            plan(&self.installed, &self.layout, &target, &mut self.tables).map_err(|e| e.to_string())
        });
        match planned {
            Ok(changes) if changes.is_empty() => self.layout.release(),
            Ok(changes) => {
                self.pending.clone_from(&changes);
                actions.push(Action::Apply(changes));
            }
            Err(error) => {
                if self.failure.as_ref() != Some(&error) {
                    actions.push(Action::Log(
                        Level::Error,
                        format!("cannot carry out the configuration: {error}"),
                    ));
                }
                self.failure = Some(error);
                self.retry_at = Some(now + RETRY);
            }
        }

        let probes = self.probes();
        if probes != self.probing {
            self.probing.clone_from(&probes);
            actions.push(Action::Probe(probes));
        }
    }

    /// Every address whose next hop must be known: the backends'.
    fn wanted_addresses(&self) -> BTreeSet<IpAddr> {
        self.desired.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.address).collect()
    }

    /// What the tables are to say, from the configuration, health and next hops.
    fn target(&self) -> Target {
        let settings = &self.desired.settings;
        Target {
            seed: settings.seed,
            outer: Outer { v4: settings.tunnel_source_v4, v6: settings.tunnel_source_v6 },
            pools: self.desired.pools.iter().map(|pool| self.pool_target(pool)).collect(),
            services: self.desired.services.iter().map(service_target).collect(),
        }
    }

    fn pool_target(&self, pool: &Pool) -> PoolTarget {
        let member = |backend: &Backend| {
            let next_hop = self.next_hops.get(&backend.address);
            let up = self
                .members
                .get(&id(pool, backend))
                .is_some_and(|member| standing(backend, &member.health, next_hop).0 == State::Up);
            MemberTarget {
                name: backend.name.clone(),
                address: backend.address,
                tunnelled: backend.via == Via::Ipip,
                hop: usable(backend, next_hop).ok().map(|hop| HopTarget {
                    ifindex: hop.interface,
                    source: hop.source,
                    destination: hop.destination,
                    mtu: hop.mtu,
                }),
                weight: if up { u32::from(backend.weight) } else { 0 },
            }
        };
        PoolTarget {
            name: pool.name.clone(),
            slots: pool.slots,
            members: pool.backends.iter().map(member).collect(),
        }
    }

    /// The probes that should be running: every backend of a checked pool that has a place in the tables, unless an
    /// operator took it out. A pool that no service points at has no VIP to be probed through.
    fn probes(&self) -> BTreeMap<BackendId, ProbeSpec> {
        let mut probes = BTreeMap::new();
        for pool in &self.desired.pools {
            let (Some(check), Some(place)) = (&pool.check, self.layout.pool(&pool.name)) else { continue };
            let Some(target) = self.probe_target(pool) else { continue };
            for backend in &pool.backends {
                let Some(index) = place.index_of(&backend.name) else { continue };
                let Ok(hop) = usable(backend, self.next_hops.get(&backend.address)) else { continue };
                if backend.state == AdminState::Maint {
                    continue;
                }
                let spec = ProbeSpec {
                    target,
                    mark: PROBE_MARK | index,
                    kind: check.kind.clone(),
                    interval: check.interval,
                    timeout: check.timeout,
                    max_segment: max_segment(backend, hop, target),
                };
                probes.insert(id(pool, backend), spec);
            }
        }
        probes
    }

    fn probe_target(&self, pool: &Pool) -> Option<SocketAddr> {
        let service = self.desired.services_of(&pool.name).next()?;
        let port = pool.check.as_ref().and_then(|check| check.port).or_else(|| first_tcp_port(service))?;
        Some(SocketAddr::new(service.vip, port))
    }

    fn counter_owners(&self) -> BTreeMap<usize, CounterOwner> {
        let mut owners = BTreeMap::new();
        for (name, service) in self.layout.services() {
            let Some(pool) = self.layout.pool(&service.pool) else { continue };
            for (backend, &(number, _)) in &pool.numbers {
                let place = service.record.counter_base as usize + usize::from(number);
                owners.insert(place, (name.clone(), backend.clone()));
            }
        }
        owners
    }

    /// One above the highest counter in use: how many are worth reading.
    pub fn counters_in_use(&self) -> u32 {
        self.layout.counters_end()
    }
}

fn id(pool: &Pool, backend: &Backend) -> BackendId {
    BackendId { pool: pool.name.clone(), backend: backend.name.clone() }
}

/// State of a backend and why, in words: the operator's word first, then the way there, then health.
fn standing(
    backend: &Backend,
    health: &Health,
    next_hop: Option<&Result<NextHop, Unreachable>>,
) -> (State, String) {
    match backend.state {
        AdminState::Maint => return (State::Maint, "taken out by an operator".to_owned()),
        AdminState::Drain => return (State::Drain, "no new flows, by an operator".to_owned()),
        AdminState::Ready => {}
    }
    if let Err(why) = usable(backend, next_hop) {
        return (State::Down, why);
    }
    let state = if health.is_up() { State::Up } else { State::Down };
    (state, health.to_string())
}

/// The next hop, if packets can be sent by it the way the backend wants.
fn usable<'h>(
    backend: &Backend,
    next_hop: Option<&'h Result<NextHop, Unreachable>>,
) -> Result<&'h NextHop, String> {
    match next_hop {
        None => Err(format!("looking for the way to {}", backend.address)),
        Some(Err(why)) => Err(why.to_string()),
        Some(Ok(hop)) if backend.via == Via::L2 && !hop.is_on_link(backend.address) => Err(format!(
            "{} is not on a subnet of this machine (its gateway is {}): it needs via = \"ipip\"",
            backend.address, hop.via
        )),
        Some(Ok(hop)) => Ok(hop),
    }
}

fn service_target(service: &Service) -> ServiceTarget {
    let vip = Addr::from(service.vip);
    let keys = service.ports.iter().flat_map(|ports| {
        (ports.first..=ports.last).map(move |port| ServiceKey::new(vip, ports.protocol.number(), port))
    });
    ServiceTarget { name: service.name.clone(), keys: keys.collect(), pool: service.pool.clone() }
}

fn first_tcp_port(service: &Service) -> Option<u16> {
    service.ports.iter().find(|ports| ports.protocol == Protocol::Tcp).map(|ports| ports.first)
}

/// The largest TCP segment that fits with IP and TCP headers into the next hop's MTU after the outer header took its
/// room; only where there is one.
fn max_segment(backend: &Backend, hop: &NextHop, target: SocketAddr) -> Option<u16> {
    if backend.via == Via::L2 {
        return None;
    }
    let outer = if backend.address.is_ipv4() { 20 } else { 40 };
    let inner = if target.is_ipv4() { 40 } else { 60 };
    let room = hop.mtu.saturating_sub(outer + inner);
    // Below this the kernel refuses (TCP_MIN_MSS).
    u16::try_from(room).ok().filter(|&segment| segment >= 88)
}

/// A check in one line.
fn describe(kind: &CheckKind, target: Option<SocketAddr>) -> String {
    let target = target.map_or_else(|| "no service yet".to_owned(), |target| target.to_string());
    match kind {
        CheckKind::Tcp => format!("tcp {target}"),
        CheckKind::Http { path, expect, .. } => format!("http {target} GET {path} -> {expect}"),
    }
}

/// Every reason and its traffic, those first that passed.
fn reasons(meter: &Meter<usize>) -> impl Iterator<Item = (Reason, crate::model::traffic::Traffic)> {
    Reason::all().map(|reason| (reason, meter.of(&(reason.counter() as usize))))
}
