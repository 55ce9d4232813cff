//! `[[service]]` and the tables in it.

use std::time::Duration;

use super::{
    super::{
        error::Problem,
        keys,
        reader::{Node, Placed, boolean, integer_in, one_of, text},
        value,
    },
    PoolDraft, duration_within, name,
};
use crate::model::{
    limit::{Allowance, Frequency, SourceLimit},
    prefix::Prefix,
    quic::{CONFIG_BITS, MAX_CONFIG_BITS, MAX_SERVER_ID, QuicIds},
    service::{FlowPolicy, Name, Service, ServicePort, Tracking},
};

/// Range of idle times.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// A service as far as it could be read.
pub(super) struct ServiceDraft<'a> {
    pub(super) node: Node<'a>,
    name: Option<Placed<Name>>,
    pub(super) vip: Option<Placed<Prefix>>,
    pub(super) ports: Vec<Placed<ServicePort>>,
    pub(super) all_ports_read: bool,
    pub(super) pool: Option<Placed<String>>,
    flows: FlowPolicy,
    echo: bool,
    affinity: Option<u8>,
    pub(super) quic: Option<Placed<QuicIds>>,
    pub(super) acl: Option<Placed<String>>,
    limit: Option<SourceLimit>,
}

impl ServiceDraft<'_> {
    pub(super) fn finish(self) -> Option<Service> {
        let ports = self.ports.into_iter().map(|port| port.value).collect();
        let named = |name: Placed<String>| Name::new(&name.value).ok();
        Some(Service {
            name: self.name?.value,
            vip: self.vip?.value,
            ports,
            pool: named(self.pool?)?,
            flows: self.flows,
            echo: self.echo,
            affinity: self.affinity,
            quic: self.quic.map(|quic| quic.value),
            acl: self.acl.and_then(named),
            limit: self.limit,
        })
    }

    pub(super) fn name(&self) -> Option<Name> {
        self.name.as_ref().map(|name| name.value.clone())
    }

    pub(super) fn placed_name(&self) -> Option<&Placed<Name>> {
        self.name.as_ref()
    }

    pub(super) fn points_at(&self, pool: &PoolDraft<'_>) -> bool {
        match (&self.pool, &pool.name) {
            (Some(wanted), Some(name)) => wanted.value == name.value.as_str(),
            _ => false,
        }
    }
}

pub(super) fn read(node: Node<'_>) -> ServiceDraft<'_> {
    let written = node.required("ports", |item| match item.as_array().map(toml_edit::Array::len) {
        Some(0) => Err(Problem::NoPorts),
        count => Ok(count.unwrap_or(0)),
    });
    let ports = node.texts("ports", value::service_port).unwrap_or_default();
    let vip = node.required("vip", |item| value::vip(text(item)?));
    // Where the VIP is unknown, lengths are held against the longer addresses.
    let is_v4 = vip.as_ref().is_some_and(|vip| vip.value.address().is_ipv4());
    let affinity = node.optional("affinity", |item| value::affinity(text(item)?, is_v4));
    ServiceDraft {
        name: node.required("name", name),
        vip,
        all_ports_read: written.is_some_and(|written| written.value == ports.len()),
        ports,
        pool: node.required("pool", |item| text(item).map(str::to_owned)),
        flows: read_flows(&node),
        echo: node.optional("echo", boolean).is_none_or(|echo| echo.value),
        affinity: affinity.map(|bits| bits.value),
        quic: node.child("quic", &keys::QUIC).and_then(|quic| read_quic(&quic)),
        acl: node.optional("acl", |item| text(item).map(str::to_owned)),
        limit: node.child("limit", &keys::LIMIT).and_then(|limit| read_limit(&limit, is_v4)),
        node,
    }
}

fn read_flows(node: &Node<'_>) -> FlowPolicy {
    let default = FlowPolicy::default();
    let trackings =
        &[("transition", Tracking::Transition), ("always", Tracking::Always), ("never", Tracking::Never)];
    let tracking = node.optional("tracking", one_of(trackings)).map(|tracking| tracking.value);
    let idle = |key, default| {
        node.optional(key, |item| duration_within(item, IDLE.0, IDLE.1)).map_or(default, |idle| idle.value)
    };
    FlowPolicy {
        tcp: tracking.unwrap_or(default.tcp),
        udp: tracking.unwrap_or(default.udp),
        idle: idle("idle", default.idle),
        udp_idle: idle("udp_idle", default.udp_idle),
    }
}

fn read_quic(node: &Node<'_>) -> Option<Placed<QuicIds>> {
    let length = node.required("server_id_length", integer_in(1..=MAX_SERVER_ID));
    let bits = node.optional("config_bits", integer_in(0..=MAX_CONFIG_BITS));
    let config_bits = bits.map_or(CONFIG_BITS, |bits| bits.value);
    let last = QuicIds::last_config(config_bits);
    let config = node.optional("config", integer_in(0..=last)).map_or(0, |config| config.value);
    let value = QuicIds { server_id_length: length?.value, config_bits, config };
    Some(Placed { value, at: node.at })
}

fn read_limit(node: &Node<'_>, is_v4: bool) -> Option<SourceLimit> {
    let longest = if is_v4 { 32 } else { 128 };
    let prefix = node.optional("prefix", integer_in(1..=longest));
    let packets = read_allowance(node, "packets", "packets_burst");
    let connections = read_allowance(node, "connections", "connections_burst");
    if !node.has("packets") && !node.has("connections") {
        node.report.add(node.at, &node.path, Problem::NoLimit);
    }
    let prefix = prefix.map_or(SourceLimit::default_prefix(is_v4), |prefix| prefix.value);
    Some(SourceLimit { prefix, packets, connections })
}

fn read_allowance(node: &Node<'_>, key: &'static str, burst_key: &'static str) -> Option<Allowance> {
    let rate = node.optional(key, |item| value::frequency(text(item)?));
    // Held against the largest burst of any rate where this one is not known.
    let most = rate.as_ref().map_or(u32::MAX, |rate| rate.value.most_at_once());
    let burst = node.optional(burst_key, integer_in(1..=most));
    if let Some(at) = node.key_position(burst_key)
        && !node.has(key)
    {
        node.report.add(at, &node.path, Problem::BurstWithoutRate { burst: burst_key, rate: key });
    }
    let rate: Frequency = rate?.value;
    Some(Allowance { rate, burst: burst.map_or(rate.count, |burst| burst.value) })
}
