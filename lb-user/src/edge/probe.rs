//! Health probes: one task for each, through the VIP path.
//!
//! A probe of the VIP is sent on a marked socket; the tc egress program sends what bears the mark to one backend, by
//! that backend's own encap. What an outcome means for the backend's health is not decided here.

mod agent;
mod datagram;
mod dns;
mod exec;
mod http;
mod icmp;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    sync::Arc,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    sync::{Semaphore, mpsc::UnboundedSender},
    task::JoinHandle,
    time::Instant,
};

use crate::model::{
    check::CheckKind,
    probe::{ProbeFailure, ProbeId, ProbeKind, ProbeOutcome, ProbeSpec},
};

/// Sockets that probes have open at the same time, at most. Under a low `RLIMIT_NOFILE` they are
/// half of it: the daemon has other uses for the rest.
const MAX_SOCKETS: u64 = 4096;

/// Programs that probes run at the same time, at most.
const MAX_COMMANDS: usize = 32;

/// New probes start within this time, so that a backend comes up fast but not all at once; more than a few within
/// [`FIRST_EACH`] for each of them, so that their sockets do not come all at once either. But within an interval.
const FIRST: Duration = Duration::from_millis(100);
const FIRST_EACH: Duration = Duration::from_micros(200);

/// The probes edge. All probes end when this is dropped.
#[derive(Debug)]
pub struct Probes {
    events: UnboundedSender<ProbeOutcome>,
    shared: Arc<Shared>,
    running: BTreeMap<ProbeId, Running>,
}

/// What probes share.
#[derive(Debug)]
struct Shared {
    sockets: Semaphore,
    commands: Semaphore,
    tls: tls::Configs,
}

#[derive(Debug)]
struct Running {
    spec: Arc<ProbeSpec>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// No probes yet; outcomes go to `events`.
    pub fn start(events: UnboundedSender<ProbeOutcome>) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(MAX_SOCKETS, |(soft, _)| soft / 2);
        let shared = Shared {
            sockets: Semaphore::new(limit.clamp(1, MAX_SOCKETS) as usize),
            commands: Semaphore::new(MAX_COMMANDS),
            tls: tls::Configs::default(),
        };
        Self { events, shared: Arc::new(shared), running: BTreeMap::new() }
    }

    /// Sets the full set of wanted probes; within a tokio runtime. Those whose spec is unchanged
    /// go on undisturbed, changed ones start anew at once, others end.
    ///
    /// Of a probe that ended or changed, an outcome may still be on its way: see
    /// [`ProbeOutcome::spec`].
    pub fn set(&mut self, wanted: BTreeMap<ProbeId, Arc<ProbeSpec>>) {
        self.running.retain(|id, running| wanted.get(id) == Some(&running.spec));
        let news = u32::try_from(wanted.len().saturating_sub(self.running.len())).unwrap_or(u32::MAX);
        let spread = FIRST.max(FIRST_EACH.saturating_mul(news));
        for (id, spec) in wanted {
            self.running.entry(id).or_insert_with_key(|id| {
                let repeat = repeat(
                    id.clone(),
                    Arc::clone(&spec),
                    spread,
                    self.events.clone(),
                    Arc::clone(&self.shared),
                );
                Running { spec, task: tokio::spawn(repeat) }
            });
        }
    }
}

/// Outcomes of one kind in a row.
#[derive(Clone, Copy, Default)]
struct Streak {
    is_success: bool,
    length: u32,
}

impl Streak {
    /// A probe that could not be sent tells nothing.
    fn count(&mut self, result: &Result<String, ProbeFailure>) {
        let is_success = match result {
            Ok(_) => true,
            Err(ProbeFailure::Local { .. }) => return,
            Err(_) => false,
        };
        let length = if self.is_success == is_success { self.length.saturating_add(1) } else { 1 };
        *self = Self { is_success, length };
    }
}

/// Probes until nobody listens.
async fn repeat(
    id: ProbeId,
    spec: Arc<ProbeSpec>,
    spread: Duration,
    events: UnboundedSender<ProbeOutcome>,
    shared: Arc<Shared>,
) {
    let mut next = Instant::now() + spread.min(spec.pace.interval).mul_f64(chance(&id, 0));
    let mut streak = Streak::default();
    for round in 1.. {
        tokio::time::sleep_until(next).await;
        // The semaphore is never closed.
        let Ok(permit) = shared.sockets.acquire().await else {
            return;
        };
        let start = Instant::now();
        // Of ten thousand probes few are under way: what one needs meanwhile is not kept in its task.
        let result = Box::pin(probe(&id, &spec, round, &shared)).await;
        drop(permit);
        streak.count(&result);
        let outcome = ProbeOutcome { id: id.clone(), spec: Arc::clone(&spec), took: start.elapsed(), result };
        if events.send(outcome).is_err() {
            return;
        }
        next = start + spec.pace.next(streak.is_success, streak.length, chance(&id, round));
    }
}

/// One probe.
async fn probe(id: &ProbeId, spec: &ProbeSpec, round: u64, shared: &Shared) -> Result<String, ProbeFailure> {
    let deadline = Instant::now() + spec.timeout;
    let kind = match &spec.kind {
        ProbeKind::Agent => return agent::ask(spec, deadline).await,
        ProbeKind::Check(kind) => &**kind,
    };
    match kind {
        CheckKind::Tcp => tcp::check(spec, deadline).await,
        CheckKind::Http { path, host, expect, tls } => {
            let tls = tls.as_ref().map(|tls| (tls, &shared.tls));
            http::check(spec, deadline, (path, host.as_deref(), *expect), tls).await
        }
        CheckKind::Udp { send, expect } => datagram::check(spec, deadline, send, expect.as_deref()).await,
        CheckKind::Dns { query, expect, answer } => {
            dns::check(spec, deadline, hash(id, round) as u16, (query, *expect, answer.as_ref())).await
        }
        CheckKind::Icmp => icmp::check(spec, deadline, hash(id, round)).await,
        CheckKind::Exec { command } => exec::check(id, spec, command, &shared.commands).await,
    }
}

/// A number that differs by probe and round.
fn hash(id: &ProbeId, round: u64) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((id, round))
}

/// The same as a number from 0 to 1.
fn chance(id: &ProbeId, round: u64) -> f64 {
    f64::from(hash(id, round) as u32) / f64::from(u32::MAX)
}

/// A socket that does not block, and whose packets go to the backend.
fn socket(spec: &ProbeSpec, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(spec.target), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = spec.mark {
        socket.set_mark(mark).map_err(|error| {
            io::Error::new(error.kind(), format!("SO_MARK, which needs CAP_NET_ADMIN: {error}"))
        })?;
    }
    Ok(socket)
}

/// What an error of the network means.
fn network_failure(spec: &ProbeSpec, error: &io::Error) -> ProbeFailure {
    let target = spec.target;
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => no_reply(spec),
        Some(libc::ECONNREFUSED) => ProbeFailure::Refused { target },
        // The network's words (ICMP), or the kernel's when there is no route or no neighbour.
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENONET | libc::ENOPROTOOPT) => {
            ProbeFailure::Unreachable { target, error: error.to_string() }
        }
        Some(libc::ECONNRESET) => ProbeFailure::BadAnswer { target, error: error.to_string() },
        _ => local_failure(spec, error),
    }
}

fn no_reply(spec: &ProbeSpec) -> ProbeFailure {
    ProbeFailure::NoReply { target: spec.target, after: spec.timeout, through_vip: spec.mark.is_some() }
}

/// This machine could not do its part.
fn local_failure(spec: &ProbeSpec, error: &io::Error) -> ProbeFailure {
    ProbeFailure::Local { target: spec.target, error: error.to_string() }
}
