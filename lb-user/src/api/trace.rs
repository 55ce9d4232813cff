//! `lb trace`: the packet that is asked about, and every step of its way.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::State;

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceSpec {
    /// What it is.
    pub protocol: TraceProtocol,
    /// Who sends it.
    #[schema(value_type = String)]
    pub client: IpAddr,
    /// From which port; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port: Option<u16>,
    /// The virtual address, of the same family.
    #[schema(value_type = String)]
    pub vip: IpAddr,
    /// The port there; ICMP has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip_port: Option<u16>,
    /// TCP flags, by their letters, `S` or `FA`; `A` if absent, as in an established connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Length of the IP packet, bytes; the least if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u16>,
    /// TTL or hop limit; 64 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Connection ID of a QUIC packet with a short header: 1 to 20 bytes, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_id: Option<String>,
    /// The interface it comes in by; the first that lb is attached to if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// What can be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An ICMP or ICMPv6 echo request.
    Icmp,
}

/// The way of a packet. A step that it does not come to is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TraceView {
    /// The packet.
    pub packet: TracedPacket,
    /// Its service.
    pub service: Option<TracedService>,
    /// What the service's list says of its source.
    pub source: Option<TracedSource>,
    /// What the service allows one source.
    pub limits: Vec<TracedLimit>,
    /// Its hash.
    pub hash: Option<TracedHash>,
    /// What its QUIC connection ID names, where the service looks at those.
    pub quic: Option<TracedQuic>,
    /// Its slot, unless something else names the backend.
    pub slot: Option<TracedSlot>,
    /// What is remembered of its flow.
    pub flow: Option<TracedFlow>,
    /// Its backend.
    pub backend: Option<TracedBackend>,
    /// How it gets there.
    pub way: Option<TracedWay>,
    /// What becomes of it.
    pub verdict: TracedVerdict,
}

/// A packet, as it was parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedPacket {
    /// What it is.
    pub protocol: TraceProtocol,
    /// Who sends it.
    #[schema(value_type = String)]
    pub client: IpAddr,
    /// From which port; 0 for ICMP.
    pub client_port: u16,
    /// Where to.
    #[schema(value_type = String)]
    pub vip: IpAddr,
    /// The port there; 0 for ICMP.
    pub vip_port: u16,
    /// Names of its TCP flags.
    pub flags: Vec<String>,
    /// Length of the IP packet; bytes.
    pub length: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The interface it comes in by.
    pub interface: String,
}

/// A service, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedService {
    /// Its name; absent if the tables have one that the daemon does not know (any more).
    pub name: Option<String>,
    /// Its number in the tables.
    pub number: u32,
    /// By which kind of key.
    pub found_by: TracedKey,
    /// The prefix of virtual addresses, if it was found by one.
    pub prefix: Option<String>,
}

/// Kinds of keys, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TracedKey {
    /// Address, protocol and port.
    Port,
    /// Address and protocol, any port.
    AnyPort,
    /// The address itself, for what has no port.
    Vip,
    /// A prefix of addresses, protocol and port.
    PrefixPort,
    /// A prefix of addresses and protocol, any port.
    PrefixAnyPort,
}

/// What a list says of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedSource {
    /// The list.
    pub list: Option<String>,
    /// Whether the source may.
    pub admitted: bool,
    /// Whether an entry of the list says so; or else what holds for all that it does not name.
    pub is_listed: bool,
    /// That entry.
    pub prefix: Option<String>,
}

/// How much a source has used of what it is allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedLimit {
    /// `packets`, or `connections` for what opens one.
    pub of: String,
    /// The source: an address, or a prefix whose addresses share the limit.
    pub source: String,
    /// How many a second.
    pub per_second: f64,
    /// How far ahead of that the source is, milliseconds.
    pub ahead_ms: f64,
    /// How far ahead it may be, milliseconds.
    pub tolerance_ms: f64,
    /// Whether this packet may pass.
    pub passes: bool,
}

/// The hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedHash {
    /// Sixteen digits, hexadecimal.
    pub hash: String,
    /// The source whose flows share a slot, where the service wants its flows together.
    pub affinity: Option<String>,
}

/// What a QUIC connection ID names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedQuic {
    /// The server ID, hexadecimal; absent if the packet has none that the service's scheme knows.
    pub server_id: Option<String>,
    /// The backend that has it.
    pub backend: Option<String>,
    /// Whether that one takes the packet.
    pub takes: bool,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedSlot {
    /// Its number in the pool's table.
    pub number: u32,
    /// Slots of that table.
    pub of: u32,
    /// Its place among the slots of all pools.
    pub place: u32,
    /// The pool.
    pub pool: Option<String>,
    /// Its owner.
    pub owner: Option<String>,
    /// Whether it changed its owner a short while ago.
    pub in_transition: bool,
    /// Who owned it before, while it is in transition.
    pub previous: Option<String>,
    /// Whether that one takes this packet.
    pub previous_takes: bool,
}

/// What is remembered of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedFlow {
    /// When the service's flows are remembered: `transition`, `always`, `never`; absent for a later fragment, which
    /// follows its first one.
    pub tracking: Option<String>,
    /// Whether the memory was asked.
    pub asked: bool,
    /// What it said.
    pub entry: Option<TracedEntry>,
    /// Where the source's other flows are, where the service wants them together.
    pub others: Option<String>,
    /// Whether this packet would have been remembered, or marked as seen.
    pub remembers: bool,
    /// Whether there was no room to remember it.
    pub is_full: bool,
}

/// A remembered flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedEntry {
    /// Its backend.
    pub backend: String,
    /// When it was last seen, milliseconds ago. Marks are up to 64 ticks of the kernel's clock old.
    pub age_ms: u64,
    /// Whether more than one packet of it was seen.
    pub is_confirmed: bool,
    /// Why it does not count: `idle`, `gone` (its backend is), `refused` (its backend does not take this packet); absent
    /// if it does.
    pub ignored: Option<String>,
}

/// A backend, and why that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedBackend {
    /// Its pool.
    pub pool: Option<String>,
    /// Its name; one that left the configuration is named by its address.
    pub name: String,
    /// Its index in the tables.
    pub index: u32,
    /// Its own address.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Its state, if it is in the configuration.
    pub state: Option<State>,
    /// Whether it left the configuration and only serves the flows it has.
    pub is_leaving: bool,
    /// Why: `owner`, `remembered`, `previous_owner`, `source` (the source's other flows are there), `quic`, `fragment`.
    pub why: String,
}

/// How a packet gets to its backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedWay {
    /// `l2` or `ipip`.
    pub encap: String,
    /// Source of the outer header.
    #[schema(value_type = Option<String>)]
    pub outer_source: Option<IpAddr>,
    /// Destination of the outer header.
    #[schema(value_type = Option<String>)]
    pub outer_destination: Option<IpAddr>,
    /// Length of the IP packet as it leaves; bytes.
    pub length: u32,
    /// Longest that the next hop takes; bytes.
    pub mtu: u16,
    /// The next hop's MAC address.
    pub mac: String,
    /// The interface it leaves by.
    pub interface: Option<String>,
    /// That interface's MAC address.
    pub source_mac: String,
    /// Tag that takes the place of the packet's own.
    pub vlan: Option<u16>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracedVerdict {
    /// The program's return code: `XDP_TX`, `XDP_REDIRECT`, `XDP_DROP`, `XDP_PASS`.
    pub verdict: String,
    /// Name of the reason that it is counted for; absent if it is sent to a backend.
    pub reason: Option<String>,
    /// Why, one sentence.
    pub text: String,
}
