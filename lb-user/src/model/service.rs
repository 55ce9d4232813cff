//! What an operator wants: pools, backends, services. Values of these types are valid by construction
//! (`config` is the only maker): names are well-formed and unique, references resolve, ports do not collide.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use lb_common::abi::{Encap, Features, GUE_DEFAULT_PORT};
use serde::{Deserialize, Serialize};

use super::{
    acl::AccessList,
    check::Check,
    limit::SourceLimit,
    prefix::Prefix,
    quic::{QuicIds, ServerId},
    share::Shares,
    shortage::Shortage,
};

/// Name of a pool, backend or service: 1 to 63 of `a-z A-Z 0-9 - _ .`, not starting with `-` or `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a name: 1 to 63 letters, digits, '-', '_' or '.', not starting with '-' or '.'")]
pub struct BadName(pub String);

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// [`BadName`] if it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let good = (1..=63).contains(&text.len())
            && !text.starts_with(['-', '.'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if good { Ok(Self(text.to_owned())) } else { Err(BadName(text.to_owned())) }
    }

    /// What a server is called that has no name: no [`Name::new`] says the same.
    pub fn of_server(address: IpAddr, via: Via) -> Self {
        Self(format!("{address}/{via}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Everything an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    /// The `[lb]` table.
    pub settings: Settings,
    /// Pools, in the order of the file.
    pub pools: Vec<Pool>,
    /// Services, in the order of the file.
    pub services: Vec<Service>,
    /// Access lists, in the order of the file.
    pub acls: Vec<AccessList>,
}

impl Desired {
    /// The pool of that name.
    pub fn pool(&self, name: &Name) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == *name)
    }

    /// The access list of that name.
    pub fn acl(&self, name: &Name) -> Option<&AccessList> {
        self.acls.iter().find(|acl| acl.name() == name)
    }

    /// The pool that helps another one out.
    pub fn fallback_of(&self, pool: &Pool) -> Option<&Pool> {
        self.pool(pool.shortage.fallback.as_ref()?)
    }

    /// The services of a pool, and after them those of the pools that it helps out.
    pub fn users_of<'a>(&'a self, pool: &'a Name) -> impl Iterator<Item = &'a Service> {
        let helped = self.pools.iter().filter(|other| other.shortage.fallback.as_ref() == Some(pool));
        self.services_of(pool).chain(helped.flat_map(|other| self.services_of(&other.name)))
    }

    /// The services of a pool, in the order of the file. The first one's VIP and port are where the pool is probed.
    pub fn services_of<'a>(&'a self, pool: &'a Name) -> impl Iterator<Item = &'a Service> {
        self.services.iter().filter(move |service| service.pool == *pool)
    }
}

/// What holds for the whole balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Interfaces to attach to; at least one before `lb run` starts.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub xdp: XdpMode,
    /// Where outer IPv4 source addresses come from: the prefix's host bits carry the flow hash, so that
    /// receive-side scaling on the backend spreads tunnelled flows. A /32 turns that off.
    pub tunnel_source_v4: (Ipv4Addr, u8),
    /// The same for outer IPv6 headers; at most 32 host bits carry the hash.
    pub tunnel_source_v6: (Ipv6Addr, u8),
    /// Key of the flow hash: the same on all balancers that share VIPs.
    pub seed: u64,
    /// UDP port that GUE packets go to.
    pub gue_port: u16,
    /// A slot is in transition for at most this long, whatever flows are remembered.
    pub transition_max: Duration,
    /// How many dropped packets are told of, each second and on each CPU; 0 for none.
    pub drop_events: u32,
    /// How many packets that were sent on are told of, each second and on each CPU; 0 for none.
    pub flow_events: u32,
    /// Dropped packets per second, for one reason, from which on somebody is told; 0 for never.
    pub drop_alarm: u32,
}

impl Settings {
    /// Dropped packets told of where the file says nothing: enough to see why, and only dropped packets pay for it.
    pub const DROP_EVENTS: u32 = 10;
    /// Dropped packets per second that somebody is told of where the file says nothing.
    pub const DROP_ALARM: u32 = 1000;
    /// Longest transition where the file names none.
    pub const TRANSITION_MAX: Duration = Duration::from_secs(3600);
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xdp: XdpMode::Auto,
            tunnel_source_v4: (Ipv4Addr::new(172, 16, 0, 0), 16),
            tunnel_source_v6: (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
            seed: 0,
            gue_port: GUE_DEFAULT_PORT,
            transition_max: Self::TRANSITION_MAX,
            drop_events: Self::DROP_EVENTS,
            flow_events: 0,
            drop_alarm: Self::DROP_ALARM,
        }
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native; where the driver cannot, generic with a warning.
    #[default]
    Auto,
    /// Native or not at all.
    Native,
    /// Generic (slow, for tests and for drivers without XDP).
    Generic,
}

/// A named set of backends with one health check and one lookup table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique among pools.
    pub name: Name,
    /// Size of the lookup table: a prime, fixed for the pool's life.
    pub slots: u32,
    /// How its backends are checked. Without one a backend with a known MAC counts as up.
    pub check: Option<Check>,
    /// What becomes of the flows of a backend that fails its checks.
    pub on_down: OnDown,
    /// Who takes new flows while too few backends are up.
    pub shortage: Shortage,
    /// What the weights of its backends follow, beside the file.
    pub shares: Shares,
    /// Backends, in the order of the file.
    pub backends: Vec<Backend>,
}

/// What becomes of the flows of a backend that fails its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDown {
    /// They go to other backends at once, which reset them: clients notice and connect anew.
    #[default]
    Reset,
    /// They stay, in case the backend still serves them; it gets no new ones.
    Keep,
}

/// Size of a lookup table unless a pool says otherwise.
pub const DEFAULT_SLOTS: u32 = 16381;

/// Table sizes a pool may choose from lie in this range (and are prime).
pub const SLOTS_RANGE: std::ops::RangeInclusive<u32> = 11..=1_048_573;

/// A server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name, unique in its pool.
    pub name: Name,
    /// Its own address (not the VIP).
    pub address: IpAddr,
    /// How packets get there.
    pub via: Via,
    /// Its share relative to the pool's other backends; 0 to [`MAX_WEIGHT`]. 0 takes no flow.
    pub weight: u16,
    /// What the operator said about it.
    pub state: AdminState,
    /// When its drain ends, whatever it still has: from then on it is in maintenance. Time since 1970-01-01.
    pub drain_until: Option<Duration>,
    /// The VLAN tag of packets to it, 1 to [`MAX_VLAN`]; without one, tags stay as they came.
    pub vlan: Option<u16>,
    /// What QUIC connection IDs name it by.
    pub server_id: Option<ServerId>,
}

/// The largest VLAN ID (IEEE 802.1Q: 4095 is reserved).
pub const MAX_VLAN: u16 = 4094;

/// Weight of a backend that names none.
pub const DEFAULT_WEIGHT: u16 = 100;

/// The largest weight.
pub const MAX_WEIGHT: u16 = 10_000;

/// How packets get to a backend.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Rewrite the Ethernet addresses; the backend is on a connected subnet.
    #[default]
    L2,
    /// IP-in-IP, the outer family being that of the backend's address.
    Ipip,
    /// GUE variant 1: IP in UDP.
    Gue,
    /// GUE variant 0: with a GUE header.
    Gue0,
}

impl Via {
    /// Each with its word in the file.
    pub const ALL: [(&str, Self); 4] =
        [("l2", Self::L2), ("ipip", Self::Ipip), ("gue", Self::Gue), ("gue0", Self::Gue0)];

    /// The way that packets with this encap go.
    pub const fn of(encap: Encap) -> Self {
        match encap {
            Encap::L2 => Self::L2,
            Encap::Ip4 | Encap::Ip6 => Self::Ipip,
            Encap::Gue4 | Encap::Gue6 => Self::Gue,
            Encap::GueHeader4 | Encap::GueHeader6 => Self::Gue0,
        }
    }

    /// What a program must be able to do for it.
    pub const fn needs(self) -> Features {
        match self {
            Self::L2 | Self::Ipip => Features::NONE,
            Self::Gue | Self::Gue0 => Features::GUE,
        }
    }

    /// What becomes of packets to a backend with this address.
    pub const fn encap(self, address: &IpAddr) -> Encap {
        match (self, address) {
            (Self::L2, _) => Encap::L2,
            (Self::Ipip, IpAddr::V4(_)) => Encap::Ip4,
            (Self::Ipip, IpAddr::V6(_)) => Encap::Ip6,
            (Self::Gue, IpAddr::V4(_)) => Encap::Gue4,
            (Self::Gue, IpAddr::V6(_)) => Encap::Gue6,
            (Self::Gue0, IpAddr::V4(_)) => Encap::GueHeader4,
            (Self::Gue0, IpAddr::V6(_)) => Encap::GueHeader6,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gue0 => "gue0",
        })
    }
}

/// What the operator said about a backend. In the file: `state = "ready" | "drain" | "maint"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// Serves if healthy.
    #[default]
    Ready,
    /// No new flows.
    Drain,
    /// Not at all, and not probed.
    Maint,
}

/// VIP, ports and the pool they point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique among services.
    pub name: Name,
    /// The virtual address, or a prefix of them.
    pub vip: Prefix,
    /// At least one; no (VIP, port) belongs to two services.
    pub ports: Vec<ServicePort>,
    /// Name of its pool, which exists.
    pub pool: Name,
    /// Which of its flows are remembered, and for how long.
    pub flows: FlowPolicy,
    /// Whether echo requests to the VIP are answered. A VIP of several services answers if one of them wants it to.
    pub echo: bool,
    /// Bits of the client's address that choose the backend, for all ports alike: 1 to 32 for a VIP of IPv4, to 128 for
    /// one of IPv6. Without, the whole flow does.
    pub affinity: Option<u8>,
    /// How QUIC connection IDs name its backends, if they do.
    pub quic: Option<QuicIds>,
    /// Name of the access list that clients are held against, which exists.
    pub acl: Option<Name>,
    /// How much may come from one source.
    pub limit: Option<SourceLimit>,
}

/// Which flows of a service are remembered, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPolicy {
    /// When TCP flows are.
    pub tcp: Tracking,
    /// When others are.
    pub udp: Tracking,
    /// After this long without a packet a TCP flow is over.
    pub idle: Duration,
    /// The same for others.
    pub udp_idle: Duration,
}

impl Default for FlowPolicy {
    fn default() -> Self {
        Self {
            tcp: Tracking::Transition,
            udp: Tracking::Always,
            idle: Duration::from_secs(300),
            udp_idle: Duration::from_secs(30),
        }
    }
}

/// When the flows of a service are remembered, so that they stay on their backend. In the file: `tracking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tracking {
    /// Only while the table changes under them. The default for TCP, whose beginnings show.
    #[default]
    Transition,
    /// From their first packet on. The default for UDP.
    Always,
    /// Not at all: for services whose flows are one packet, as DNS.
    Never,
}

impl fmt::Display for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Transition => "transition",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Ports of a protocol: `tcp/80`, `udp/6970-6999`, `tcp/*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The protocol.
    pub protocol: Protocol,
    /// Which of its ports.
    pub ports: Ports,
}

impl ServicePort {
    /// The first of them, if they are named.
    pub const fn first(&self) -> Option<u16> {
        match self.ports {
            Ports::Range { first, .. } => Some(first),
            Ports::Any => None,
        }
    }
}

/// Which ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ports {
    /// All that no service names.
    Any,
    /// One or more in a row.
    Range {
        /// First port, at least 1.
        first: u16,
        /// Last port, at least `first`.
        last: u16,
    },
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol;
        match self.ports {
            Ports::Any => write!(f, "{protocol}/*"),
            Ports::Range { first, last } if first == last => write!(f, "{protocol}/{first}"),
            Ports::Range { first, last } => write!(f, "{protocol}/{first}-{last}"),
        }
    }
}
