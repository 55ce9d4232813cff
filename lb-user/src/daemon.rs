//! The only wiring: starts the edges, carries events to the controller and its actions to the edges.
//!
//! ```text
//!  config_file ── ConfigText ──┐                       ┌── Apply ───────▶ kernel ── Applied ──┐
//!  signals ────── (re-read) ───┤                       ├── ReadBack ────▶ kernel ── ReadBack ─┤
//!  kernel ─────── Interface ───┤                       ├── Resolve ─────▶ neighbours          │
//!  neighbours ─── NextHop ─────┼─▶ controller.handle ──┼── Probe ───────▶ probe               │
//!  probe ──────── Probe ───────┤          ▲            ├── WriteConfig ─▶ config_file ────────┤
//!  events ─────── Packets ─────┤          │            ├── Reply ───────▶ socket              │
//!  socket ─────── Request ─────┤          │            ├── Stream ──────▶ socket              │
//!  each second ── Counters ────┘          │            └── Log ─────────▶ stderr              │
//!                                         └───────────────────────────────────────────────────┘
//! ```
//!
//! One thread: the tasks take turns, and only this loop touches the controller and the kernel.

mod claim;
mod lock;
mod start;

use std::{
    collections::HashMap,
    process,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{MissedTickBehavior, interval},
};

use self::start::{Start, limits_for};
use crate::{
    api::{InterfaceView, Response, State},
    cli::run::{PACKET_LOG, RunArgs},
    config,
    controller::{self, Action, Applied, Controller, Event, Level, Token, Unwritten},
    edge::{
        config_file::{ConfigFile, ConfigFileError, ConfigFileEvent},
        events::Events,
        history::HistoryFiles,
        kernel::{Fate, Kernel, LoadOptions, Withdrawn, pins},
        neighbours::{NeighbourEvent, Neighbours},
        privileges,
        probe::Probes,
        socket::{Call, Listener, Socket},
        supervisor,
    },
    exit::{Exit, Failure},
    model::{
        packet_event::PacketEvent, plan::Change, probe::ProbeOutcome, service::XdpMode, source::Source,
        trace::trace, transition::FlowReading,
    },
};

/// How often counters are read and time passes for the controller.
const BEAT: Duration = Duration::from_secs(1);

/// How long an earlier daemon's programs may go on while it is not known of every backend whether it serves.
const TAKE_OVER: Duration = Duration::from_secs(10);

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
    let listener = args.api_listen.map(|address| Listener::bind(address, args.api_token_file.as_deref()));
    let listener = listener.transpose()?;
    let _pins = pins::claim(&args.pins)?;
    let _claims =
        interfaces.iter().map(|name| claim::Claim::take(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let options = LoadOptions {
        limits: limits_for(&desired),
        features: controller::features(&desired),
        log_packets: tracing::enabled!(target: PACKET_LOG, tracing::Level::DEBUG),
        pins: args.pins.clone(),
    };
    let mut start = Start::over(&options, started, &shown, (&source, desired.clone()))?;
    if options.log_packets {
        follow_packet_log(&mut start.kernel);
    }

    let found = start.found;
    let mut daemon = Daemon::start(start, file, HistoryFiles::new(args.state.join("history")), started)?;
    if let Err(error) = daemon.begin(found, source, (interfaces, desired.settings.xdp)).await {
        daemon.give_up();
        return Err(error);
    }
    if args.drop_privileges {
        privileges::give_up().context("cannot give up privileges")?;
        tracing::info!("privileges dropped: what is left is what forwarding and checking need");
    }
    let served = daemon.serve(socket, listener).await;
    if daemon.take_over.is_some() {
        daemon.give_up();
    } else {
        daemon.stop(args.keep_forwarding && served.is_ok());
    }
    served
}

fn failure(exit: Exit, message: String) -> Failure {
    Failure { exit, message }
}

/// Interfaces where an earlier daemon's programs forward by tables that are not gone on with. They do until the new
/// tables are filled.
struct TakeOver {
    interfaces: Vec<String>,
    mode: XdpMode,
    /// Then at the latest.
    deadline: Instant,
}

struct Daemon {
    started: Instant,
    controller: Controller,
    kernel: Kernel,
    file: ConfigFile,
    history: HistoryFiles,
    neighbours: Neighbours,
    probes: Probes,
    replies: HashMap<Token, oneshot::Sender<Response>>,
    /// Where pieces of streams go.
    streams: HashMap<Token, mpsc::Sender<Bytes>>,
    _events: Events,
    next_token: Token,
    inbox: Inbox,
    take_over: Option<TakeOver>,
}

/// Where the edges put what happened.
struct Inbox {
    neighbours: mpsc::UnboundedReceiver<NeighbourEvent>,
    probes: mpsc::UnboundedReceiver<ProbeOutcome>,
    packets: mpsc::Receiver<Vec<PacketEvent>>,
}

impl Daemon {
    fn start(
        start: Start,
        file: ConfigFile,
        history: HistoryFiles,
        started: Instant,
    ) -> anyhow::Result<Self> {
        let Start { kernel, mut controller, .. } = start;
        match history.read() {
            Ok(past) => controller.recall(past),
            Err(error) => {
                let directory = history.directory().display();
                tracing::warn!(%error, "cannot read the configurations kept in {directory}");
            }
        }
        let (neighbour_events, neighbours_inbox) = mpsc::unbounded_channel();
        let (outcomes, probes_inbox) = mpsc::unbounded_channel();
        // Small: what finds no room waits in the kernel's buffer.
        let (told, packets_inbox) = mpsc::channel(4);
        Ok(Self {
            started,
            controller,
            file,
            history,
            neighbours: Neighbours::start(neighbour_events).context("cannot open a netlink socket")?,
            probes: Probes::start(outcomes),
            replies: HashMap::new(),
            streams: HashMap::new(),
            _events: Events::start(kernel.events()?, started, told)
                .context("cannot read the programs' events")?,
            next_token: 0,
            inbox: Inbox { neighbours: neighbours_inbox, probes: probes_inbox, packets: packets_inbox },
            kernel,
            take_over: None,
        })
    }

    /// Brings the configuration into force and attaches, in the order that loses no packet.
    async fn begin(
        &mut self,
        found: bool,
        source: Source,
        (interfaces, mode): (Vec<String>, XdpMode),
    ) -> anyhow::Result<()> {
        if found {
            tracing::info!("going on with the tables of an earlier daemon");
            // First: the programs that are there may not be able to do what the configuration asks for now, and should
            // this fail nothing has changed.
            self.attach(&interfaces, mode)?;
        }
        let is_aside = !found && !self.kernel.left_by_others()?.is_empty();
        if is_aside {
            self.controller.fill_aside();
        }
        self.handle(vec![Event::ConfigText(source)]).await;
        if let errors @ [_, ..] = self.controller.config_errors() {
            return Err(failure(Exit::Config, errors.join("\n")).into());
        }
        if found {
            return Ok(());
        }
        if !is_aside {
            return self.attach(&interfaces, mode);
        }
        self.kernel.attach_probes(&interfaces)?;
        tracing::info!(
            "an earlier daemon's programs forward until the new tables are filled, for {} s at most",
            TAKE_OVER.as_secs()
        );
        self.take_over = Some(TakeOver { interfaces, mode, deadline: Instant::now() + TAKE_OVER });
        Ok(())
    }

    /// Attaches in the place of an earlier daemon's programs as soon as it is known of every backend whether it serves.
    fn take_over_when_ready(&mut self) -> anyhow::Result<()> {
        let undecided = self.controller.undecided();
        let Some(TakeOver { interfaces, mode, .. }) =
            self.take_over.take_if(|waiting| undecided == 0 || Instant::now() >= waiting.deadline)
        else {
            return Ok(());
        };
        if undecided > 0 {
            tracing::warn!(undecided, "taking over before every backend is known to be up or down");
        }
        let attached = self.attach(&interfaces, mode);
        if attached.is_err() {
            self.take_over = Some(TakeOver { interfaces, mode, deadline: Instant::now() });
        }
        attached
    }

    fn attach(&mut self, interfaces: &[String], mode: XdpMode) -> anyhow::Result<()> {
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
        for version in self.kernel.remove_other_versions()? {
            tracing::info!(version, "removed the tables of an earlier daemon of another version");
        }
        self.controller.set_interfaces(views);
        Ok(())
    }

    /// What became of the interfaces since the last look.
    fn followed_interfaces(&mut self) -> impl Iterator<Item = Event> + use<> {
        self.kernel.follow_interfaces().into_iter().map(|(name, fate)| {
            let state = match fate {
                Fate::Back { index, mode } => Ok(InterfaceView { name: name.clone(), index, mode }),
                Fate::Gone => {
                    Err("the interface is gone, nothing is forwarded there; once it comes back, lb \
                                   attaches again"
                        .to_owned())
                }
                Fate::Refused(why) => Err(format!(
                    "the interface came back, but nothing is forwarded there: {why}; lb goes on trying"
                )),
            };
            Event::Interface { name, state }
        })
    }

    async fn serve(&mut self, socket: Socket, listener: Option<Listener>) -> anyhow::Result<()> {
        let (calls, mut inbox_calls) = mpsc::channel::<Call>(64);
        let listening = listener.map(|listener| tokio::spawn(listener.serve(calls.clone())));
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
        supervisor::ready();
        loop {
            let mut events = Vec::new();
            select! {
                // In this order: however much else happens, a signal is obeyed and time passes.
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => events.push(self.reread().await),
                _ = beat.tick() => {
                    supervisor::alive();
                    events.push(Event::Counters(self.kernel.counters(self.controller.counters_in_use())));
                    events.extend(self.followed_interfaces());
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
            self.take_over_when_ready()?;
        }
        tracing::info!("stopping");
        supervisor::stopping();
        watcher.abort();
        if let Some(listening) = listening {
            listening.abort();
        }
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
            Action::ReadBack(changes) => {
                let read = changes.iter().filter_map(|change| change.read(&self.kernel));
                return Some(Event::ReadBack(read.collect()));
            }
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
            Action::ReadNamed { token, text } => {
                return Some(Event::NamedRead { token, source: self.file.with_files(text).await });
            }
            Action::Keep(past) => {
                if let Err(error) = self.history.keep(&past) {
                    let directory = self.history.directory().display();
                    tracing::warn!(%error, "cannot keep the configuration in {directory}: no rollback after a restart");
                }
            }
            Action::WriteConfig { token, before, after } => {
                let result = self.file.replace(&before, &after).await.map_err(|error| match error {
                    ConfigFileError::ChangedMeanwhile { .. } => {
                        Unwritten::ChangedMeanwhile(error.to_string())
                    }
                    error => Unwritten::Failed(error.to_string()),
                });
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
