//! What `lb events` and `lb capture` ask and are told.

use serde::{Deserialize, Serialize};

use super::State;

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// At most so many of the past, the youngest; all that are kept if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Go on with those to come: a line of JSON each, until the client goes away.
    #[serde(default)]
    pub follow: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventView {
    /// Counts all events since the daemon started: a gap means that some are no longer kept.
    pub number: u64,
    /// When: RFC 3339, UTC.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Happening {
    /// A packet, of those that are told of: see `drop_events` and `flow_events` of the configuration.
    Packet(PacketView),
    /// A backend changed its state.
    State(StateView),
    /// Anything else that the daemon says.
    Log(LogView),
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PacketView {
    /// `drop`, `pass`, `transmit` (out of the interface it came by) or `redirect` (out of another).
    pub verdict: String,
    /// Why it was not simply forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `tcp`, `udp`, … or a number.
    pub protocol: String,
    /// Address and port.
    pub client: String,
    /// Address and port.
    pub vip: String,
    /// The service it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Pool and backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The interface it came by.
    pub interface: String,
    /// Length of the IP packet.
    pub bytes: u32,
}

/// A backend's new state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StateView {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// The state it left.
    pub was: State,
    /// The state it is in.
    pub state: State,
    /// Why, in words.
    pub reason: String,
}

impl std::fmt::Display for StateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}: {}", self.pool, self.backend, self.state, self.reason)
    }
}

/// A line of the daemon's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogView {
    /// `error`, `warn` or `info`.
    pub level: String,
    /// What it says.
    pub text: String,
}

/// What is to be captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CaptureQuery {
    /// Terms that all must hold of a packet, see `lb capture --help`.
    #[serde(default)]
    pub filter: String,
    /// Most bytes of a frame; absent for whole frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// End after so many packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}
