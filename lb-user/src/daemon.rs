//! The only wiring: starts the edges, carries events to the controller and its actions to the edges.
//!
//! ```text
//!  config_file ── ConfigText ──┐                       ┌── Apply ───────▶ kernel ── Applied ──┐
//!  signals ────── (re-read) ───┤                       ├── Resolve ─────▶ neighbours          │
//!  neighbours ─── NextHop ─────┼─▶ controller.handle ──┼── Probe ───────▶ probe               │
//!  probe ──────── Probe ───────┤          ▲            ├── WriteConfig ─▶ config_file ────────┤
//!  events ─────── Packets ─────┤          │            ├── Reply ───────▶ socket              │
//!  socket ─────── Request ─────┤          │            ├── Stream ──────▶ socket              │
//!  each second ── Counters ────┘          │            └── Log ─────────▶ stderr              │
//!                                         └───────────────────────────────────────────────────┘
//! ```
//!
//! One thread: the tasks take turns, and only this loop touches the controller and the kernel.

mod lock;

use std::{
    collections::HashMap,
    process,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use bytes::Bytes;
use lb_common::abi::{Limits, Service};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{MissedTickBehavior, interval},
};

use crate::{
    api::{InterfaceView, Response, State},
    cli::run::{PACKET_LOG, RunArgs},
    config,
    controller::{self, Action, Applied, Controller, Event, Identity, Level, Token},
    edge::{
        config_file::{ConfigFile, ConfigFileEvent},
        events::Events,
        kernel::{Kernel, LoadOptions, Withdrawn, pins},
        neighbours::{NeighbourEvent, Neighbours},
        probe::Probes,
        socket::{Call, Socket},
    },
    exit::{Exit, Failure},
    model::{
        keys::Keys, layout, packet_event::PacketEvent, plan::Change, probe::ProbeOutcome, service::Desired,
        trace::trace, transition::FlowReading,
    },
};

/// How often counters are read and time passes for the controller.
const BEAT: Duration = Duration::from_secs(1);

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// Whatever keeps it from starting: a bad configuration, a second daemon, the kernel, a missing interface.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &RunArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let file = ConfigFile::new(&args.config, config::files_named);
    let source = file.read().await.map_err(|error| failure(Exit::NoInput, error.to_string()))?;
    let shown = args.config.display().to_string();
    let desired = config::parse(&source.text, &source.files)
        .map_err(|errors| failure(Exit::Config, errors.report(&shown)))?;
    let interfaces = if args.interfaces.is_empty() {
        desired.settings.interfaces.clone()
    } else {
        args.interfaces.clone()
    };
    if interfaces.is_empty() {
        let said = format!("no interface to attach to: set [lb] interfaces in {shown}, or give --interface");
        return Err(failure(Exit::Config, said).into());
    }

    let _lock = lock::Lock::take(&args.socket.with_extension("pid"))?;
    let socket = Socket::bind(&args.socket, args.socket_group.as_deref())?;
    let _pins = pins::claim(&args.pins)?;
    let options = LoadOptions {
        limits: limits_for(&desired),
        features: controller::features(&desired),
        log_packets: tracing::enabled!(target: PACKET_LOG, tracing::Level::DEBUG),
        pins: args.pins.clone(),
    };
    let mut kernel = Kernel::load(&options)?;
    if options.log_packets {
        follow_packet_log(&mut kernel);
    }

    let mut daemon = Daemon::start(kernel, file, started, &shown)?;
    daemon.handle(vec![Event::ConfigText(source)]).await;
    let in_force = match daemon.controller.config_errors() {
        [] => Ok(()),
        errors => Err(failure(Exit::Config, errors.join("\n")).into()),
    };
    if let Err(error) = in_force.and_then(|()| daemon.attach(&interfaces, desired.settings.xdp)) {
        daemon.give_up();
        return Err(error);
    }
    let served = daemon.serve(socket).await;
    daemon.stop(args.keep_forwarding && served.is_ok());
    served
}

fn failure(exit: Exit, message: String) -> Failure {
    Failure { exit, message }
}

/// Tables twice as large as the configuration needs now, and never smaller than the defaults: maps cannot grow.
fn limits_for(desired: &Desired) -> Limits {
    let default = Limits::DEFAULT;
    let room = |needed: u64, least: u32| {
        let wanted = u32::try_from((2 * needed).next_power_of_two()).unwrap_or(1 << 31);
        wanted.max(least)
    };
    let keys = Keys::of(desired);
    let listed: u64 = desired.acls.iter().map(|acl| acl.table.entries.len() as u64).sum();
    let named =
        desired.pools.iter().flat_map(|pool| &pool.backends).filter(|backend| backend.server_id.is_some());
    let backends_of =
        |pool| desired.pool(pool).map_or(0, |pool| u64::from(layout::capacity_for(pool.backends.len())));
    let counters_of = |pool| backends_of(pool) + u64::from(Service::counters(0));
    Limits {
        index: room(3 * (keys.count() + named.count()) as u64, default.index),
        services: room(desired.services.len() as u64, default.services),
        slots: room(desired.pools.iter().map(|pool| u64::from(pool.slots)).sum(), default.slots),
        backends: room(desired.pools.iter().map(|pool| backends_of(&pool.name)).sum(), default.backends),
        counters: room(
            desired.services.iter().map(|service| counters_of(&service.pool)).sum(),
            default.counters,
        ),
        prefixes: room(2 * keys.prefixes.len() as u64 + listed, default.prefixes),
        ..default
    }
}

struct Daemon {
    started: Instant,
    controller: Controller,
    kernel: Kernel,
    file: ConfigFile,
    neighbours: Neighbours,
    probes: Probes,
    replies: HashMap<Token, oneshot::Sender<Response>>,
    /// Where pieces of streams go.
    streams: HashMap<Token, mpsc::Sender<Bytes>>,
    _events: Events,
    next_token: Token,
    inbox: Inbox,
}

/// Where the edges put what happened.
struct Inbox {
    neighbours: mpsc::UnboundedReceiver<NeighbourEvent>,
    probes: mpsc::UnboundedReceiver<ProbeOutcome>,
    packets: mpsc::Receiver<Vec<PacketEvent>>,
}

impl Daemon {
    fn start(
        mut kernel: Kernel,
        file: ConfigFile,
        started: Instant,
        config_path: &str,
    ) -> anyhow::Result<Self> {
        let (neighbour_events, neighbours_inbox) = mpsc::unbounded_channel();
        let (outcomes, probes_inbox) = mpsc::unbounded_channel();
        // Small: what finds no room waits in the kernel's buffer.
        let (told, packets_inbox) = mpsc::channel(4);
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            config_path: config_path.to_owned(),
            epoch: since_epoch.saturating_sub(started.elapsed()),
            ticks_per_second: kernel.ticks_per_second().context("cannot find out the kernel's clock")?,
        };
        Ok(Self {
            started,
            controller: Controller::new(started.elapsed(), kernel.limits(), identity),
            file,
            neighbours: Neighbours::start(neighbour_events).context("cannot open a netlink socket")?,
            probes: Probes::start(outcomes),
            replies: HashMap::new(),
            streams: HashMap::new(),
            _events: Events::start(kernel.events()?, started, told)
                .context("cannot read the programs' events")?,
            next_token: 0,
            inbox: Inbox { neighbours: neighbours_inbox, probes: probes_inbox, packets: packets_inbox },
            kernel,
        })
    }

    fn attach(&mut self, interfaces: &[String], mode: crate::model::service::XdpMode) -> anyhow::Result<()> {
        let mut views = Vec::new();
        for (name, mode) in self.kernel.attach(interfaces, mode)? {
            let index = nix::net::if_::if_nametoindex(name.as_str()).unwrap_or(0);
            tracing::info!(interface = name, ?mode, "attached");
            views.push(InterfaceView { name, index, mode });
        }
        // Not earlier: until now the pins may be those of a daemon whose programs forward.
        self.kernel.pin_maps()?;
        for interface in self.kernel.detach_others()? {
            tracing::info!(interface, "detached what an earlier daemon left here: not configured any more");
        }
        self.controller.set_interfaces(views);
        Ok(())
    }

    async fn serve(&mut self, socket: Socket) -> anyhow::Result<()> {
        let (calls, mut inbox_calls) = mpsc::channel::<Call>(64);
        let (changes, mut inbox_changes) = mpsc::channel(4);
        let (stop_socket, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(socket.serve(calls, async {
            // Either way it is over.
            drop(stopped.await);
        }));
        let file = self.file.clone();
        let watcher = tokio::spawn(async move { file.watch(changes).await });

        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut watching = true;
        tracing::info!(pid = process::id(), "lb is running");
        loop {
            let mut events = Vec::new();
            select! {
                // In this order: however much else happens, a signal is obeyed and time passes.
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => events.push(self.reread().await),
                _ = beat.tick() => {
                    events.push(Event::Counters(self.kernel.counters(self.controller.counters_in_use())));
                    events.extend(self.ended_streams());
                    events.push(Event::Tick);
                }
                change = inbox_changes.recv(), if watching => match change {
                    Some(ConfigFileEvent::Changed(source)) => events.push(Event::ConfigText(source)),
                    Some(ConfigFileEvent::Unreadable(error)) => events.push(Event::ConfigUnreadable(error.to_string())),
                    None => {
                        watching = false;
                        tracing::warn!("the configuration file is not watched any more: reload with SIGHUP");
                    }
                },
                Some(call) = inbox_calls.recv() => events.push(self.accept(call)),
                Some(event) = self.inbox.neighbours.recv() => events.extend(next_hop(event)),
                Some(outcome) = self.inbox.probes.recv() => events.push(Event::Probe(outcome)),
                // Last: they are many.
                Some(packets) = self.inbox.packets.recv() => events.push(Event::Packets(packets)),
            }
            // What else has come in is handled together: one plan for a hundred probes that ended at once.
            while let Ok(event) = self.inbox.neighbours.try_recv() {
                events.extend(next_hop(event));
            }
            while let Ok(outcome) = self.inbox.probes.try_recv() {
                events.push(Event::Probe(outcome));
            }
            self.handle(events).await;
        }
        tracing::info!("stopping");
        watcher.abort();
        // Forwarding may go on without us: not by programs that capture for nobody.
        let ended: Vec<Event> = self.streams.drain().map(|(token, _)| Event::StreamEnded { token }).collect();
        self.handle(ended).await;
        // The server may have ended by itself; then there is nobody to tell.
        stop_socket.send(()).ok();
        if let Ok(Err(error)) = server.await {
            tracing::warn!(%error, "the control socket failed");
        }
        Ok(())
    }

    async fn reread(&self) -> Event {
        match self.file.read().await {
            Ok(source) => Event::ConfigText(source),
            Err(error) => Event::ConfigUnreadable(error.to_string()),
        }
    }

    fn accept(&mut self, call: Call) -> Event {
        let token = self.next_token;
        self.next_token += 1;
        self.replies.insert(token, call.reply);
        self.streams.extend(call.stream.map(|stream| (token, stream)));
        Event::Request { token, request: call.request }
    }

    /// Streams whose clients went away while there was nothing to send.
    fn ended_streams(&mut self) -> Vec<Event> {
        let ended: Vec<Token> =
            self.streams.iter().filter(|(_, stream)| stream.is_closed()).map(|(&token, _)| token).collect();
        self.streams.retain(|token, _| !ended.contains(token));
        ended.into_iter().map(|token| Event::StreamEnded { token }).collect()
    }

    /// Handles events, carries out what follows from them, and what follows from that, until nothing does.
    async fn handle(&mut self, mut events: Vec<Event>) {
        while !events.is_empty() {
            let actions = self.controller.handle(self.started.elapsed(), events);
            events = Vec::new();
            for action in actions {
                events.extend(self.carry_out(action).await);
            }
        }
    }

    async fn carry_out(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Apply(changes) => return Some(Event::Applied(self.apply(&changes))),
            Action::Resolve(targets) => self.neighbours.want(targets),
            Action::Probe(probes) => self.probes.set(probes),
            Action::ReadFlows => {
                return match self.kernel.now() {
                    Ok(now) => Some(Event::Flows(FlowReading { now, flows: self.kernel.flows() })),
                    Err(error) => {
                        tracing::error!("cannot read the clock: {:#}", anyhow::Error::from(error));
                        Some(Event::FlowsUnreadable)
                    }
                };
            }
            Action::Trace { token, sample } => {
                let now = self.kernel.now();
                let frame = sample.frame();
                let trace = now.map(|now| Box::new(trace(&self.kernel, &frame, sample.ingress, now)));
                let trace = trace.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
                return Some(Event::Traced { token, sample, trace });
            }
            Action::WriteConfig { token, before, after } => {
                let result = self.file.replace(&before, &after).await.map_err(|error| error.to_string());
                return Some(Event::ConfigWritten { token, result });
            }
            Action::Reply { token, response } => {
                if let Some(reply) = self.replies.remove(&token) {
                    let is_streaming = response == Response::Streaming;
                    // A client that went away needs no answer.
                    drop(reply.send(response));
                    if !is_streaming {
                        self.streams.remove(&token);
                    }
                }
            }
            Action::Stream { token, chunk } => {
                let stream = self.streams.get(&token)?;
                return match stream.try_send(chunk.into()) {
                    Ok(()) => None,
                    Err(TrySendError::Full(_)) => Some(Event::StreamFull { token }),
                    Err(TrySendError::Closed(_)) => {
                        self.streams.remove(&token);
                        Some(Event::StreamEnded { token })
                    }
                };
            }
            Action::EndStream { token } => drop(self.streams.remove(&token)),
            Action::State(change) if change.state == State::Down => tracing::warn!("{change}"),
            Action::State(change) => tracing::info!("{change}"),
            Action::Log(Level::Error, text) => tracing::error!("{text}"),
            Action::Log(Level::Warn, text) => tracing::warn!("{text}"),
            Action::Log(Level::Info, text) => tracing::info!("{text}"),
        }
        None
    }

    fn apply(&mut self, changes: &[Change]) -> Applied {
        let start = Instant::now();
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = self.kernel.apply(change) {
                return Applied { done, error: Some(format!("{:#}", anyhow::Error::from(error))) };
            }
        }
        tracing::debug!(steps = changes.len(), took = ?start.elapsed(), "tables changed");
        Applied { done: changes.len(), error: None }
    }

    /// After a start that failed.
    fn give_up(self) {
        match self.kernel.withdraw() {
            Ok(Withdrawn { forwarding, lost }) => {
                for interface in forwarding {
                    tracing::warn!(interface, "an earlier daemon's program goes on forwarding here");
                }
                for interface in lost {
                    tracing::error!(
                        interface,
                        "an earlier daemon's program forwarded here, and does no more"
                    );
                }
            }
            Err(error) => tracing::error!("cannot clean up: {:#}", anyhow::Error::from(error)),
        }
    }

    fn stop(mut self, keep_forwarding: bool) {
        if keep_forwarding {
            tracing::info!(
                "forwarding goes on without the daemon; cargo xtask detach, or the next lb run, takes over"
            );
            self.kernel.leave();
        } else if let Err(error) = self.kernel.detach() {
            tracing::error!("cannot clean up: {:#}", anyhow::Error::from(error));
        }
    }
}

fn next_hop(event: NeighbourEvent) -> Option<Event> {
    match event {
        NeighbourEvent::Target { target, state } => Some(Event::NextHop { target, state }),
        NeighbourEvent::Link(link) => {
            tracing::debug!(?link, "interface");
            None
        }
        NeighbourEvent::LinkGone { index, name } => {
            tracing::warn!(index, name, "interface is gone");
            None
        }
    }
}

/// The programs were loaded with their log statements in: carries what they say to our log.
fn follow_packet_log(kernel: &mut Kernel) {
    match aya_log::EbpfLogger::init(kernel.ebpf()) {
        Ok(mut logger) => {
            tokio::spawn(async move {
                // The buffer is drained by time: its descriptor is not registered with the runtime.
                loop {
                    logger.flush();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Err(error) => tracing::warn!(%error, "cannot read the programs' log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::{Files, Source};

    fn pools(count: u32, slots: u32, backends: u32) -> String {
        let backend = |n: u32| {
            format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"10.0.{}.{}\"\n", n >> 8, n & 255)
        };
        let backends: String = (1..=backends).map(backend).collect();
        (0..count).map(|n| format!("[[pool]]\nname = \"p{n}\"\nslots = {slots}\n{backends}")).collect()
    }

    fn services(count: u32, pools: u32, ports: &str) -> String {
        let service = |n: u32| {
            let (vip, pool) = (format!("192.0.{}.{}", n >> 8, n & 255), n % pools);
            format!(
                "[[service]]\nname = \"s{n}\"\nvip = \"{vip}\"\nports = [\"{ports}\"]\npool = \"p{pool}\"\n"
            )
        };
        (0..count).map(service).collect()
    }

    /// Everything may be exchanged at once: the old must stay until the new is there.
    #[test]
    fn tables_fit_the_configuration_twice() {
        assert_eq!(limits_for(&Desired::default()), Limits::DEFAULT);
        for text in [
            pools(100, 65_537, 0),
            pools(40, 11, 9) + &services(40, 40, "tcp/80"),
            pools(1, 4099, 1500) + &services(30, 1, "tcp/80"),
            pools(1, 11, 1) + &services(5000, 1, "udp/53"),
            pools(1, 11, 1) + &services(2, 1, "tcp/1-40000"),
        ] {
            let limits = limits_for(&config::parse(&text, &Files::new()).unwrap());
            let identity = Identity { pid: 1, ticks_per_second: 250, ..Identity::default() };
            let mut controller = Controller::new(Duration::ZERO, limits, identity);
            for text in [&text, &text.replace("= \"p", "= \"q").replace("name = \"s", "name = \"t")] {
                let actions =
                    controller.handle(Duration::ZERO, [Event::ConfigText(Source::of(text.clone()))]);
                assert_eq!(controller.config_errors(), [""; 0], "{limits:?}");
                for action in actions {
                    if let Action::Apply(changes) = action {
                        let applied = Applied { done: changes.len(), error: None };
                        controller.handle(Duration::ZERO, [Event::Applied(applied)]);
                    }
                }
            }
        }
    }
}
