//! What a client may ask the daemon and what it answers: plain data, the same for the socket, the CLI and scripts.

mod apply;
mod check;
mod events;
pub mod metrics;
mod policy;
mod trace;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::apply::{
    ApplySpec, ChangeKind, ChangeView, ConfigText, PastQuery, PastView, PlanView, PoolPlanView, Proposal,
};
pub use self::check::{CheckSpec, Expect};
pub use self::events::{CaptureQuery, EventView, EventsQuery, Happening, LogView, PacketView, StateView};
pub use self::policy::{AllowanceView, LimitView, PolicyView, QuicView};
pub use self::trace::*;
use crate::model::service::{AdminState, Via, XdpMode};

/// A question or an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The balancer as a whole.
    Status,
    /// All services with their backends, or one.
    Services(Option<String>),
    /// All pools with their backends, or one.
    Pools(Option<String>),
    /// Health of every backend.
    Health,
    /// Counters.
    Stats,
    /// What a monitoring system reads.
    Metrics,
    /// What is remembered of flows, by pool.
    Flows,
    /// The way of a packet.
    Trace(TraceSpec),
    /// What happened.
    Events(EventsQuery),
    /// Packets and what becomes of them, as pcapng: a stream until it is over or the client goes away.
    Capture(CaptureQuery),
    /// The configuration in force.
    Config,
    /// A change of the configuration.
    Edit(Edit),
    /// The request, if the configuration in force is one of these still, by [`ConfigText::etag`].
    OnlyIf {
        /// Which.
        etags: Vec<String>,
        /// What is to be done then.
        request: Box<Request>,
    },
    /// What a configuration would change.
    Plan(Proposal),
    /// Brings a configuration into force.
    Apply(ApplySpec),
    /// The configuration on trial stays.
    Confirm,
    /// Goes back to a configuration of the history; without a number to the one before.
    Rollback(Option<u64>),
    /// Configurations that were in force, or one with its text.
    History(Option<u64>),
}

/// A change of the configuration. Texts are as in the file and are validated by the same code.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Adds a service (all fields but the name may be checked only against the file's rules).
    AddService(ServiceSpec),
    /// Changes the named service: only the fields given.
    SetService {
        /// Its name.
        name: String,
        /// What changes.
        patch: ServicePatch,
    },
    /// Removes the named service.
    DeleteService {
        /// Its name.
        name: String,
    },
    /// Adds a pool.
    AddPool(PoolSpec),
    /// Changes the named pool: only the fields given.
    SetPool {
        /// Its name.
        name: String,
        /// What changes.
        patch: PoolPatch,
    },
    /// Removes the named pool; refused while a service points at it.
    DeletePool {
        /// Its name.
        name: String,
    },
    /// Adds a backend to a pool.
    AddBackend {
        /// The pool.
        pool: String,
        /// The backend.
        backend: BackendSpec,
    },
    /// Changes a backend: only the fields given.
    SetBackend {
        /// The pool.
        pool: String,
        /// The backend.
        name: String,
        /// What changes.
        patch: BackendPatch,
    },
    /// Removes a backend.
    DeleteBackend {
        /// The pool.
        pool: String,
        /// The backend.
        name: String,
    },
}

/// A service as written in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// The virtual address, or a prefix of them.
    pub vip: String,
    /// `tcp/80`, `udp/6970-6999`, `tcp/*`.
    pub ports: Vec<String>,
    /// Name of its pool.
    pub pool: String,
    /// `source`, `source/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Name of its access list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<String>,
    /// `transition`, `always`, `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
}

/// Fields of a service that change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicePatch {
    /// The virtual address, or a prefix of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// All its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// Name of its pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `source`, `source/24`; `none` for what holds without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Name of its access list, or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<String>,
    /// `transition`, `always`, `never`; `none` for what holds without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
}

/// In a patch: the key goes.
pub const NONE: &str = "none";

/// A pool as written in the file, without backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Its name.
    pub name: String,
    /// Table size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Its check.
    #[serde(default, deserialize_with = "check::not_a_list", skip_serializing_if = "Option::is_none")]
    pub check: Option<Box<CheckSpec>>,
}

/// Fields of a pool that change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolPatch {
    /// The whole new check.
    #[serde(default, deserialize_with = "check::not_a_list", skip_serializing_if = "Option::is_none")]
    pub check: Option<Box<CheckSpec>>,
}

/// A backend as written in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: String,
    /// `l2` or `ipip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The VLAN tag of packets to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Its QUIC server ID: `0x2a01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
}

/// Fields of a backend that change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// Its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `l2` or `ipip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// `ready` (enable), `drain`, `maint` (disable).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AdminState>,
    /// With `drain`: when it ends in `maint`, whatever the backend still has (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<String>,
    /// The same in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
    /// The VLAN tag of packets to it; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Its QUIC server ID, or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Services`] without a name.
    Services(Vec<ServiceView>),
    /// To [`Request::Services`] with one.
    Service(Box<ServiceView>),
    /// To [`Request::Pools`] without a name.
    Pools(Vec<PoolView>),
    /// To [`Request::Pools`] with one.
    Pool(PoolView),
    /// To [`Request::Health`].
    Health(Vec<HealthView>),
    /// To [`Request::Stats`].
    Stats(Stats),
    /// To [`Request::Metrics`].
    Metrics(Box<metrics::Metrics>),
    /// To [`Request::Flows`].
    Flows(Vec<FlowsView>),
    /// To [`Request::Trace`].
    Trace(Box<TraceView>),
    /// To [`Request::Events`] that does not follow.
    Events(Vec<EventView>),
    /// To [`Request::Events`] that follows, and to [`Request::Capture`]: what follows is a stream.
    Streaming,
    /// To [`Request::Config`].
    Config(ConfigText),
    /// To [`Request::Plan`].
    Plan(Box<PlanView>),
    /// To [`Request::History`].
    History(Vec<PastView>),
    /// To [`Request::Edit`] and what else changes the configuration.
    Done(Done),
    /// The request could not be done; nothing was changed.
    Refused(Refusal),
}

/// An edit took effect and stands in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Done {
    /// Number of the configuration now in force.
    pub generation: u64,
    /// What tells it from others, see `GET /v1/config`.
    pub etag: String,
    /// What was done, one sentence.
    pub message: String,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Refusal {
    /// Kind, for status and exit codes.
    pub kind: RefusalKind,
    /// Every reason, one sentence each.
    pub errors: Vec<String>,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The named thing does not exist (HTTP 404).
    NotFound,
    /// The result would not be a valid configuration (HTTP 422).
    Invalid,
    /// The state of things forbids it now (HTTP 409).
    Conflict,
    /// The configuration in force is none of those that the request asks for (HTTP 412).
    Outdated,
    /// The daemon could not carry it out: a full disk, the kernel (HTTP 500).
    Failed,
}

/// The balancer as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The configuration in force.
    pub config: ConfigView,
    /// Where it is attached.
    pub interfaces: Vec<InterfaceView>,
    /// Services with their backends.
    pub services: Vec<ServiceView>,
    /// Things that need a person, one sentence each.
    pub warnings: Vec<String>,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConfigView {
    /// The file.
    pub path: String,
    /// Counts every configuration that took effect; 1 is the first.
    pub generation: u64,
    /// Why the file as it stands now was refused; empty if it is in force.
    pub errors: Vec<String>,
}

/// One interface the program is attached to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `native` or `generic`.
    pub mode: XdpMode,
}

/// A service, as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// The virtual address, or the prefix of them.
    pub vip: String,
    /// Its ports, as in the file.
    pub ports: Vec<String>,
    /// Its pool.
    pub pool: String,
    /// What it asks for beyond its ports.
    pub policy: PolicyView,
    /// `UP` if any backend takes flows, else `DOWN`.
    pub state: State,
    /// Packets and bytes towards this service's backends since the daemon started, and per second; those that are gone
    /// as well.
    pub traffic: Traffic,
    /// The pool's backends; traffic is that of this service.
    pub backends: Vec<BackendView>,
    /// Its packets that were not sent to a backend, by reason; only those that happened.
    pub reasons: Vec<ReasonStats>,
}

/// A pool, as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Table size.
    pub slots: u32,
    /// Its check in one line; absent if none.
    pub check: Option<String>,
    /// What is done about too few backends that are up; absent if there are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<String>,
    /// Names of the services that point at it.
    pub services: Vec<String>,
    /// What it remembers of flows.
    pub flows: FlowsView,
    /// Its backends; traffic is that of all its services.
    pub backends: Vec<BackendView>,
}

/// What a pool remembers of flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlowsView {
    /// Its pool.
    pub pool: String,
    /// Slots in transition: flows from before their last change of owner are sent to the owner before.
    pub slots_in_transition: u32,
    /// Remembered flows that were seen within the idle time.
    pub remembered: u32,
    /// Seconds until the last transition ends, if no more is seen of the flows that prolong it; absent if there is none.
    pub ends_in_seconds: Option<u64>,
    /// Backends that have remembered flows, or are previous owners of slots.
    pub backends: Vec<BackendFlows>,
}

/// What is remembered for one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendFlows {
    /// Its name; one that left the configuration is named by its address.
    pub backend: String,
    /// Whether it left the configuration and only serves the flows it has.
    pub is_leaving: bool,
    /// Remembered flows that were seen within the idle time.
    pub remembered: u32,
    /// Slots in transition that were its own.
    pub slots: u32,
}

/// A backend, as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Its own address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// How packets get there.
    pub via: Via,
    /// Its weight.
    pub weight: u16,
    /// Percent of it that it has now: less while it starts slowly, what its agent asks for, less if it is slow.
    #[serde(default = "all")]
    pub weight_percent: u16,
    /// Its state.
    pub state: State,
    /// Why it is in that state, in words.
    pub reason: String,
    /// Seconds since the state last changed.
    pub since_seconds: u64,
    /// Slots it owns.
    pub slots: u32,
    /// Its share of the table, percent.
    pub share_percent: f64,
    /// Seconds until its drain ends in maintenance; absent if it is not drained, or without a deadline.
    #[serde(default)]
    pub drain_ends_in_seconds: Option<u64>,
    /// The next hop's MAC, once known.
    pub mac: Option<String>,
    /// The interface its packets leave by, once known.
    pub interface: Option<String>,
    /// The VLAN tag that they leave with; absent where tags stay as they came.
    pub vlan: Option<u16>,
    /// Its QUIC server ID.
    pub server_id: Option<String>,
    /// Packets and bytes towards it.
    pub traffic: Traffic,
}

/// Status words are HAProxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Takes flows.
    Up,
    /// Does not, because it cannot.
    Down,
    /// Takes no new flows, because an operator said so.
    Drain,
    /// Takes none and is not probed, because an operator said so.
    Maint,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Drain => "DRAIN",
            Self::Maint => "MAINT",
        })
    }
}

/// A total and its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Traffic {
    /// Packets since the daemon started.
    pub packets: u64,
    /// Bytes (IP packets as the clients sent them).
    pub bytes: u64,
    /// Packets per second over the last second.
    pub packets_per_second: f64,
    /// Bytes per second over the last second.
    pub bytes_per_second: f64,
}

/// Health of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HealthView {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its state.
    pub state: State,
    /// Why, in words.
    pub reason: String,
    /// Seconds since the state last changed.
    pub since_seconds: u64,
    /// The check in one line: `http GET /healthz -> 200 on 192.0.2.10:80`; absent if none.
    pub check: Option<String>,
    /// What its agent said last; absent if nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Successes or failures in a row.
    pub streak: u32,
    /// How long the last probe took, milliseconds.
    pub last_ms: Option<f64>,
}

const fn all() -> u16 {
    100
}

/// Counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stats {
    /// Traffic by service and backend.
    pub services: Vec<ServiceStats>,
    /// Packets not sent to a backend, by reason: those of no service, and those of all services together.
    pub reasons: Vec<ReasonStats>,
}

/// Traffic of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceStats {
    /// Its name.
    pub service: String,
    /// All its backends together, those that are gone as well.
    pub traffic: Traffic,
    /// By backend.
    pub backends: Vec<BackendStats>,
    /// Packets not sent to a backend, by reason; only those that happened.
    pub reasons: Vec<ReasonStats>,
}

/// Traffic of a backend within a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendStats {
    /// Its name; one that left the configuration is named by its address.
    pub backend: String,
    /// Whether it left the configuration and only serves the flows it has.
    pub is_leaving: bool,
    /// Packets and bytes.
    pub traffic: Traffic,
}

/// Packets not sent to a backend, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReasonStats {
    /// Name of the reason.
    pub reason: String,
    /// `pass`, `drop`, or `note` for what was answered or noticed.
    pub verdict: String,
    /// One sentence.
    pub text: String,
    /// Packets and bytes.
    pub traffic: Traffic,
}
