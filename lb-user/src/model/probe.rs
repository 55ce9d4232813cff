//! What the probe edge is asked to do and what it answers.

use std::{net::SocketAddr, time::Duration};

use super::service::{Backend, CheckKind, Desired, Name, Pool};

/// Which backend a probe is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// Its pool.
    pub pool: Name,
    /// Its name.
    pub backend: Name,
}

impl BackendId {
    /// The id of a pool's backend.
    pub fn new(pool: &Pool, backend: &Backend) -> Self {
        Self { pool: pool.name.clone(), backend: backend.name.clone() }
    }
}

impl Desired {
    /// Every backend and its pool.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, (&Pool, &Backend))> {
        self.pools.iter().flat_map(|pool| {
            pool.backends.iter().map(move |backend| (BackendId::new(pool, backend), (pool, backend)))
        })
    }
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

/// A probe to repeat until told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// The VIP and port to connect to.
    pub target: SocketAddr,
    /// `SO_MARK` that steers it to the backend (`abi::PROBE_MARK` and the backend's index).
    pub mark: u32,
    /// What is done.
    pub kind: CheckKind,
    /// From start to start.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Upper bound for TCP segments (`TCP_MAXSEG`), where a tunnel takes room; bytes.
    pub max_segment: Option<u16>,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// The backend.
    pub backend: BackendId,
    /// The mark it was sent with: an outcome of an older spec is recognised by it.
    pub mark: u32,
    /// How long it took.
    pub took: Duration,
    /// Success with a word for people ("connected", "200"), or why not.
    pub result: Result<String, ProbeFailure>,
}

/// Why a probe failed, in words an operator can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// Nothing came back at all: the VIP may be missing on the backend, or the tunnel.
    #[error("no reply from {target} in {} (is the VIP on the backend, and its tunnel open?)", seconds(*.after))]
    NoReply {
        /// The VIP and port.
        target: SocketAddr,
        /// The time-out.
        after: Duration,
    },
    /// The backend refused the connection.
    #[error("TCP RST from {target}: nothing listens there")]
    Refused {
        /// The VIP and port.
        target: SocketAddr,
    },
    /// The backend or a router said it cannot be reached.
    #[error("{target} is unreachable: {error}")]
    Unreachable {
        /// The VIP and port.
        target: SocketAddr,
        /// The system's words.
        error: String,
    },
    /// Connected, but the answer did not come in time.
    #[error("connected to {target}, but no answer in {}", seconds(*.after))]
    NoAnswer {
        /// The VIP and port.
        target: SocketAddr,
        /// The time-out.
        after: Duration,
    },
    /// Another HTTP status than expected.
    #[error("HTTP {got}, expected {expected}")]
    Status {
        /// What came.
        got: u16,
        /// What the check wants.
        expected: u16,
    },
    /// The connection broke or the answer was no HTTP.
    #[error("bad answer from {target}: {error}")]
    BadAnswer {
        /// The VIP and port.
        target: SocketAddr,
        /// What was wrong.
        error: String,
    },
    /// The probe could not be sent: this machine's fault, not the backend's.
    #[error("cannot probe {target}: {error}")]
    Local {
        /// The VIP and port.
        target: SocketAddr,
        /// The system's words.
        error: String,
    },
}

fn seconds(duration: Duration) -> String {
    if duration.as_millis() < 1000 {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}
