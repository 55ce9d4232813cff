//! `lb trace`: a line for each step of a packet's way, and what becomes of it at the end.

use std::net::SocketAddr;

use super::table::{Cell, Paint, Style, Table};
use crate::api::{
    TraceProtocol, TraceView, TracedBackend, TracedEntry, TracedFlow, TracedKey, TracedLimit, TracedPacket,
    TracedQuic, TracedService, TracedSlot, TracedSource, TracedVerdict, TracedWay,
};

pub(super) fn trace(view: &TraceView, paint: Paint) -> String {
    let mut table = Table::new(paint);
    let mut step = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            table.row([Cell::new(name).styled(Style::Strong), Cell::new(text)]);
        }
    };
    step("packet", Some(packet(&view.packet)));
    step("service", view.service.as_ref().map(service));
    step("source", view.source.as_ref().map(source));
    for limited in &view.limits {
        step("limit", Some(limit(limited)));
    }
    step(
        "hash",
        view.hash.as_ref().map(|hash| match &hash.affinity {
            Some(source) => format!("{}, its upper half from the source {source} alone", hash.hash),
            None => hash.hash.clone(),
        }),
    );
    step("quic", view.quic.as_ref().map(quic));
    step("slot", view.slot.as_ref().map(slot));
    step("flow", view.flow.as_ref().map(flow));
    step("backend", view.backend.as_ref().map(backend));
    step("way", view.way.as_ref().map(way));
    if view.way.is_some() && view.verdict.reason.is_none() {
        step("ttl", Some(format!("{} -> {}", view.packet.ttl, view.packet.ttl.saturating_sub(1))));
    }
    let style = if view.verdict.verdict == "XDP_DROP" { Style::Bad } else { Style::Good };
    table.row([Cell::new("verdict").styled(Style::Strong), Cell::new(verdict(&view.verdict)).styled(style)]);
    table.render()
}

fn packet(packet: &TracedPacket) -> String {
    let TracedPacket { client, client_port, vip, vip_port, flags, length, ttl, interface, .. } = packet;
    let from = SocketAddr::new(*client, *client_port).to_string();
    let to = SocketAddr::new(*vip, *vip_port).to_string();
    let (name, from, to) = match packet.protocol {
        TraceProtocol::Tcp => ("tcp", from, to),
        TraceProtocol::Udp => ("udp", from, to),
        TraceProtocol::Sctp => ("sctp", from, to),
        TraceProtocol::Icmp => ("echo request", client.to_string(), vip.to_string()),
    };
    let flags = if flags.is_empty() { String::new() } else { format!(" {}", flags.join(",")) };
    format!("{name} {from} -> {to}{flags}, {length} bytes, ttl {ttl}, in by {interface}")
}

fn service(service: &TracedService) -> String {
    let name = known(service.name.as_deref(), "service number", service.number);
    let prefix = service.prefix.as_deref().unwrap_or("a prefix");
    match service.found_by {
        TracedKey::Port => format!("{name}, by address and port"),
        TracedKey::AnyPort => format!("{name}, by address and any port"),
        TracedKey::Vip => format!("{name}, by address alone"),
        TracedKey::PrefixPort => format!("{name}, by {prefix} and port"),
        TracedKey::PrefixAnyPort => format!("{name}, by {prefix} and any port"),
    }
}

fn known(name: Option<&str>, what: &str, number: u32) -> String {
    name.map_or_else(|| format!("{what} {number}, which the daemon does not know"), str::to_owned)
}

fn source(source: &TracedSource) -> String {
    let verdict = if source.admitted { "admitted" } else { "denied" };
    let list = source.list.as_deref().unwrap_or("its list");
    match (&source.prefix, source.is_listed) {
        (Some(prefix), true) => format!("{verdict} by {prefix} in {list}"),
        (None, true) => format!("{verdict} by an entry of {list}"),
        (_, false) => format!("{verdict}: {list} does not name it"),
    }
}

fn limit(limit: &TracedLimit) -> String {
    let TracedLimit { of, source, per_second, ahead_ms, tolerance_ms, passes } = limit;
    let verdict = if *passes { "passes" } else { "too many" };
    format!(
        "{verdict}: {per_second:.1} {of} a second from {source}, ahead by {ahead_ms:.1} ms of {tolerance_ms:.1} ms"
    )
}

fn quic(quic: &TracedQuic) -> String {
    match (&quic.server_id, &quic.backend) {
        (None, _) => "its connection ID has no server ID".to_owned(),
        (Some(id), None) => format!("server ID {id} is nobody's"),
        (Some(id), Some(backend)) if quic.takes => format!("server ID {id} is {backend}'s"),
        (Some(id), Some(backend)) => format!("server ID {id} is {backend}'s, which does not take it"),
    }
}

fn slot(slot: &TracedSlot) -> String {
    let TracedSlot { number, of, pool, owner, in_transition, previous, previous_takes, .. } = slot;
    let pool = pool.as_ref().map(|pool| format!(" of {pool}")).unwrap_or_default();
    let owner = owner.as_ref().map_or_else(|| "nobody's".to_owned(), |owner| format!("{owner}'s"));
    let transition = match (in_transition, previous) {
        (false, _) => String::new(),
        (true, None) => ", in transition from one that is gone".to_owned(),
        (true, Some(previous)) if *previous_takes => format!(", in transition from {previous}"),
        (true, Some(previous)) => format!(", in transition from {previous}, which does not take it"),
    };
    format!("{number} of {of}{pool}: {owner}{transition}")
}

fn flow(flow: &TracedFlow) -> String {
    let mut text = match (&flow.entry, flow.tracking.as_deref()) {
        _ if !flow.asked && flow.tracking.as_deref() == Some("never") => {
            return "not remembered: this service's never are".to_owned();
        }
        _ if !flow.asked => return "not remembered: its slot is not in transition".to_owned(),
        (Some(entry), _) => remembered(entry),
        (None, None) => "its first fragment is not remembered".to_owned(),
        (None, Some(_)) => "not known yet".to_owned(),
    };
    if let Some(others) = &flow.others {
        text = format!("{text}; the source's others are on {others}");
    }
    if flow.is_full {
        text = format!("{text}; no room to remember it");
    } else if flow.remembers {
        let known = flow.entry.as_ref().is_some_and(|entry| entry.ignored.is_none());
        let what = if known { "mark it as seen" } else { "be remembered" };
        text = format!("{text}; this packet would {what}");
    }
    text
}

fn remembered(entry: &TracedEntry) -> String {
    let TracedEntry { backend, age_ms, is_confirmed, ignored } = entry;
    let confirmed = if *is_confirmed { "confirmed" } else { "seen once" };
    let seconds = *age_ms as f64 / 1000.0;
    let ignored = match ignored.as_deref() {
        Some("idle") => ", too long ago to count",
        Some("gone") => ", but that one is gone",
        Some(_) => ", but that one does not take it",
        None => "",
    };
    format!("remembered on {backend}, {confirmed}, {seconds:.1} s ago{ignored}")
}

fn backend(backend: &TracedBackend) -> String {
    let TracedBackend { pool, name, address, is_leaving, why, state, .. } = backend;
    let pool = pool.as_ref().map(|pool| format!("{pool}/")).unwrap_or_default();
    let address = match address {
        Some(address) if !is_leaving => format!(" {address}"),
        _ => String::new(),
    };
    let state = match state {
        _ if *is_leaving => " (leaving)".to_owned(),
        Some(state) => format!(" ({state})"),
        None => String::new(),
    };
    let why = match why.as_str() {
        "owner" => "the slot is its own",
        "remembered" => "the flow is remembered there",
        "previous_owner" => "the slot was its own when the flow began",
        "source" => "the source's other flows are there",
        "quic" => "the connection ID names it",
        _ => "the first fragment went there",
    };
    format!("{pool}{name}{address}{state}, because {why}")
}

fn verdict(verdict: &TracedVerdict) -> String {
    let TracedVerdict { verdict, reason, text } = verdict;
    match reason {
        Some(reason) => format!("{verdict}, {reason}: {text}"),
        None => format!("{verdict}: {text}"),
    }
}

fn way(way: &TracedWay) -> String {
    let TracedWay { encap, length, mtu, mac, interface, source_mac, vlan, .. } = way;
    let interface = interface.as_deref().unwrap_or("no interface");
    let outer = match (way.outer_source, way.outer_destination) {
        (Some(source), Some(destination)) => format!(" {source} -> {destination}"),
        _ => String::new(),
    };
    let vlan = vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    format!(
        "{encap}{outer}, {length} of at most {mtu} bytes, to {mac} by {interface}{vlan}, from {source_mac}"
    )
}
