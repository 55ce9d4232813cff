//! Health probes: one task for each backend, through the VIP path.
//!
//! A probe is a connection to the VIP on a marked socket; the tc egress program sends what bears
//! the mark to one backend, by that backend's own encap. What an outcome means for the backend's
//! health is not decided here.

mod http;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    sync::Arc,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    sync::{Semaphore, mpsc::UnboundedSender},
    task::JoinHandle,
    time::Instant,
};

use crate::model::{
    probe::{BackendId, ProbeFailure, ProbeOutcome, ProbeSpec},
    service::CheckKind,
};

/// Sockets that probes have open at the same time, at most. Under a low `RLIMIT_NOFILE` they are
/// half of it: the daemon has other uses for the rest.
const MAX_SOCKETS: u64 = 4096;

/// A new probe starts within this time, so that a backend comes up fast but not all at once.
const FIRST: Duration = Duration::from_millis(100);

/// The probes edge. All probes end when this is dropped.
#[derive(Debug)]
pub struct Probes {
    events: UnboundedSender<ProbeOutcome>,
    sockets: Arc<Semaphore>,
    running: BTreeMap<BackendId, Running>,
}

#[derive(Debug)]
struct Running {
    spec: ProbeSpec,
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
        let sockets = limit.clamp(1, MAX_SOCKETS) as usize;
        Self { events, sockets: Arc::new(Semaphore::new(sockets)), running: BTreeMap::new() }
    }

    /// Sets the full set of wanted probes; within a tokio runtime. Those whose spec is unchanged
    /// go on undisturbed, changed ones start anew at once, others end.
    ///
    /// Of a probe that ended or changed, an outcome may still be on its way: see
    /// [`ProbeOutcome::mark`].
    pub fn set(&mut self, wanted: BTreeMap<BackendId, ProbeSpec>) {
        self.running.retain(|backend, running| wanted.get(backend) == Some(&running.spec));
        for (backend, spec) in wanted {
            self.running.entry(backend).or_insert_with_key(|backend| {
                let repeat = repeat(backend.clone(), spec.clone(), self.events.clone(), self.sockets.clone());
                Running { spec, task: tokio::spawn(repeat) }
            });
        }
    }
}

/// Probes one backend until nobody listens.
async fn repeat(
    backend: BackendId,
    spec: ProbeSpec,
    events: UnboundedSender<ProbeOutcome>,
    sockets: Arc<Semaphore>,
) {
    let mut next = Instant::now() + FIRST.min(spec.interval).mul_f64(fraction(&backend, 0));
    for round in 1.. {
        tokio::time::sleep_until(next).await;
        // The semaphore is never closed.
        let Ok(permit) = sockets.acquire().await else {
            return;
        };
        let start = Instant::now();
        let result = probe(&spec, start + spec.timeout).await;
        drop(permit);
        let outcome =
            ProbeOutcome { backend: backend.clone(), mark: spec.mark, took: start.elapsed(), result };
        if events.send(outcome).is_err() {
            return;
        }
        // Within a tenth of the interval to either side: probes that once met part again.
        next = start + spec.interval.mul_f64(0.9 + 0.2 * fraction(&backend, round));
    }
}

/// One probe.
async fn probe(spec: &ProbeSpec, deadline: Instant) -> Result<String, ProbeFailure> {
    match &spec.kind {
        CheckKind::Tcp => tcp::check(spec, deadline).await,
        CheckKind::Http { path, host, expect } => {
            http::check(spec, deadline, path, host.as_deref(), *expect).await
        }
    }
}

/// A number from 0 to 1 that differs by backend and round.
fn fraction(backend: &BackendId, round: u64) -> f64 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((backend, round));
    f64::from(hash as u32) / f64::from(u32::MAX)
}

/// What an error of connecting means.
fn connect_failure(spec: &ProbeSpec, error: &io::Error) -> ProbeFailure {
    let target = spec.target;
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => ProbeFailure::NoReply { target, after: spec.timeout },
        Some(libc::ECONNREFUSED) => ProbeFailure::Refused { target },
        // The network's words (ICMP), or the kernel's when there is no route or no neighbour.
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENONET | libc::ENOPROTOOPT) => {
            ProbeFailure::Unreachable { target, error: error.to_string() }
        }
        Some(libc::ECONNRESET) => ProbeFailure::BadAnswer { target, error: error.to_string() },
        _ => local_failure(spec, error),
    }
}

/// This machine could not do its part.
fn local_failure(spec: &ProbeSpec, error: &io::Error) -> ProbeFailure {
    ProbeFailure::Local { target: spec.target, error: error.to_string() }
}
