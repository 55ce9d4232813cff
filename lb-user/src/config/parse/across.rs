//! Rules that hold between entries: names, addresses and ports belong to one, references lead somewhere.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use super::{
    super::{
        error::Problem,
        keys::nearest,
        reader::{Node, Placed},
    },
    BackendDraft, ListDraft, PoolDraft, ServiceDraft,
};
use crate::model::{
    prefix::Prefix,
    quic::ServerId,
    service::{Name, Ports, Protocol, ServicePort},
};

pub(super) fn unique_names<'a>(
    what: &'static str,
    drafts: impl Iterator<Item = (&'a Node<'a>, Option<&'a Placed<Name>>)>,
) {
    let mut seen: HashMap<&Name, usize> = HashMap::new();
    for (node, name) in drafts {
        let Some(name) = name else { continue };
        if let Some(&first) = seen.get(&name.value) {
            let problem = Problem::Duplicate { what, name: name.value.clone() };
            node.report.add_with(name.at, &node.path, problem, Some(first));
        } else {
            seen.insert(&name.value, name.at);
        }
    }
}

pub(super) fn unique_addresses(backends: &[BackendDraft<'_>]) {
    let mut seen: HashMap<IpAddr, (&BackendDraft<'_>, usize)> = HashMap::new();
    for backend in backends {
        let Some(address) = &backend.address else { continue };
        if let Some((other, first)) = seen.get(&address.value) {
            let problem = Problem::SameAddress { address: address.value, other: other.name() };
            let path = backend.node.path_of("address");
            backend.node.report.add_with(address.at, &path, problem, Some(*first));
        } else {
            seen.insert(address.value, (backend, address.at));
        }
    }
}

/// Who has ports of a VIP and protocol.
struct Owner<'s> {
    service: &'s ServiceDraft<'s>,
    port: &'s Placed<ServicePort>,
}

/// The owners of a VIP's and protocol's ports.
#[derive(Default)]
struct Owners<'s> {
    /// Who has any port.
    any: Option<Owner<'s>>,
    /// Who has the ports from the map's key on. They do not overlap, so the last that begins at or before the end of
    /// a new range is the only one to compare with.
    ranges: BTreeMap<u16, Owner<'s>>,
}

impl<'s> Owners<'s> {
    /// Enters an owner, unless there is one; then gives that.
    fn enter(&mut self, owner: Owner<'s>) -> Option<&Owner<'s>> {
        match owner.port.value.ports {
            Ports::Any if self.any.is_some() => self.any.as_ref(),
            Ports::Any => {
                self.any = Some(owner);
                None
            }
            Ports::Range { first, last } => {
                let overlaps = |port: Ports| matches!(port, Ports::Range { last, .. } if last >= first);
                let nearest = self.ranges.range(..=last).next_back();
                let before = nearest.filter(|(_, nearest)| overlaps(nearest.port.value.ports));
                match before.map(|(&first, _)| first) {
                    Some(before) => self.ranges.get(&before),
                    None => {
                        self.ranges.insert(first, owner);
                        None
                    }
                }
            }
        }
    }
}

/// No (VIP, protocol, port) may lead to two pools, and naming one twice is a slip.
pub(super) fn ports_belong_to_one(services: &[ServiceDraft<'_>]) {
    let mut taken: HashMap<(Prefix, Protocol), Owners<'_>> = HashMap::new();
    for service in services {
        let Some(vip) = &service.vip else { continue };
        for port in &service.ports {
            let report = service.node.report;
            let owners = taken.entry((vip.value, port.value.protocol)).or_default();
            if let Some(other) = owners.enter(Owner { service, port }) {
                let problem = Problem::PortTaken {
                    vip: vip.value,
                    port: other.port.value,
                    service: other.service.name(),
                };
                report.add_with(port.at, &service.node.path, problem, Some(other.port.at));
            }
            let is_any = |other: &&Placed<ServicePort>| {
                other.value.protocol == port.value.protocol && other.value.ports == Ports::Any
            };
            if port.value.ports != Ports::Any
                && let Some(any) = service.ports.iter().find(is_any)
            {
                let problem = Problem::PortAmongAny { port: port.value, any: any.value };
                report.add(port.at, &service.node.path_of("ports"), problem);
            }
        }
    }
}

pub(super) fn pools_exist(services: &[ServiceDraft<'_>], pools: &[PoolDraft<'_>]) {
    let names: HashSet<&str> =
        pools.iter().filter_map(|pool| pool.name.as_ref()).map(|name| name.value.as_str()).collect();
    for service in services {
        let Some(pool) = service.pool.as_ref().filter(|pool| !names.contains(pool.value.as_str())) else {
            continue;
        };
        let problem = Problem::NoSuchPool {
            name: pool.value.escape_debug().to_string(),
            suggestion: nearest(&pool.value, names.iter().copied()).map(str::to_owned),
        };
        service.node.report.add(pool.at, &service.node.path, problem);
    }
}

/// A pool that helps out is another one that exists.
pub(super) fn fallbacks_exist(pools: &[PoolDraft<'_>]) {
    let names: HashSet<&str> =
        pools.iter().filter_map(|pool| pool.name.as_ref()).map(|name| name.value.as_str()).collect();
    for pool in pools {
        let Some(fallback) = &pool.shortage.fallback else { continue };
        let problem = if pool.name.as_ref().is_some_and(|name| name.value.as_str() == fallback.value) {
            Problem::OwnFallback
        } else if names.contains(fallback.value.as_str()) {
            continue;
        } else {
            Problem::NoSuchPool {
                name: fallback.value.escape_debug().to_string(),
                suggestion: nearest(&fallback.value, names.iter().copied()).map(str::to_owned),
            }
        };
        pool.node.report.add(fallback.at, &pool.node.path_of("fallback"), problem);
    }
}

pub(super) fn lists_exist(services: &[ServiceDraft<'_>], lists: &[ListDraft<'_>]) {
    let names: HashSet<&str> =
        lists.iter().filter_map(|list| list.name.as_ref()).map(|name| name.value.as_str()).collect();
    for service in services {
        let Some(acl) = service.acl.as_ref().filter(|acl| !names.contains(acl.value.as_str())) else {
            continue;
        };
        let problem = Problem::NoSuchList {
            name: acl.value.escape_debug().to_string(),
            suggestion: nearest(&acl.value, names.iter().copied()).map(str::to_owned),
        };
        service.node.report.add(acl.at, &service.node.path_of("acl"), problem);
    }
}

/// Where a service finds backends by server IDs, each backend of its pool has one of its own, of the right length.
pub(super) fn server_ids_fit(services: &[ServiceDraft<'_>], pools: &[PoolDraft<'_>]) {
    for pool in pools {
        let mut seen: HashMap<ServerId, (&BackendDraft<'_>, usize)> = HashMap::new();
        for backend in &pool.backends {
            let Some(id) = &backend.server_id else { continue };
            if let Some((other, first)) = seen.get(&id.value) {
                let problem = Problem::SameServerId { id: id.value, other: other.name() };
                backend.node.report.add_with(
                    id.at,
                    &backend.node.path_of("server_id"),
                    problem,
                    Some(*first),
                );
            } else {
                seen.insert(id.value, (backend, id.at));
            }
        }
        let users = services.iter().filter(|service| service.points_at(pool));
        let mut users = users.filter_map(|service| Some((service, service.quic.as_ref()?)));
        let Some((service, quic)) = users.next() else { continue };
        let wanted = quic.value.server_id_length;
        // A pool's server IDs have one length, or one could be the beginning of another.
        for (other, its) in users.filter(|(_, its)| its.value.server_id_length != wanted) {
            let problem = Problem::ServerIdLengths { length: wanted, service: service.name() };
            other.node.report.add_with(its.at, &other.node.path_of("quic"), problem, Some(quic.at));
        }
        for backend in &pool.backends {
            let (at, path) = (backend.node.at, &backend.node.path);
            match &backend.server_id {
                None if backend.node.has("server_id") => {}
                None => {
                    let problem = Problem::NoServerId { service: service.name(), length: wanted };
                    backend.node.report.add_with(at, path, problem, Some(quic.at));
                }
                Some(id) if id.value.length() != wanted => {
                    let problem =
                        Problem::ServerIdLength { id: id.value, service: service.name(), length: wanted };
                    let path = backend.node.path_of("server_id");
                    backend.node.report.add_with(id.at, &path, problem, Some(quic.at));
                }
                Some(_) => {}
            }
        }
    }
}

/// Where no service of a pool names a port that the check's protocol could use, only the check itself can.
pub(super) fn checks_have_a_port(services: &[ServiceDraft<'_>], pools: &[PoolDraft<'_>]) {
    for pool in pools.iter().filter(|pool| pool.check_names_no_port) {
        let Some(protocol) = pool.check.as_ref().and_then(|check| check.kind.transport()) else { continue };
        let helped = pools.iter().filter(|other| {
            let fallback = other.shortage.fallback.as_ref();
            fallback
                .is_some_and(|name| pool.name.as_ref().is_some_and(|own| own.value.as_str() == name.value))
        });
        let of = |pool| services.iter().filter(move |service| service.points_at(pool));
        let mut users = of(pool).chain(helped.flat_map(of)).peekable();
        let names_none = |service: &ServiceDraft<'_>| {
            let named =
                |port: &Placed<ServicePort>| port.value.protocol == protocol && port.value.first().is_some();
            service.all_ports_read && !service.ports.iter().any(named)
        };
        if users.peek().is_some() && users.all(names_none) {
            let at = pool.node.key_position("check").unwrap_or(pool.node.at);
            let port = if protocol == Protocol::Tcp { 80 } else { 53 };
            let problem = Problem::CheckNeedsPort { protocol, port };
            pool.node.report.add(at, &pool.node.path_of("check"), problem);
        }
    }
}

/// A packet sent on to a VIP would come back to the balancer.
pub(super) fn backends_are_no_vips(services: &[ServiceDraft<'_>], pools: &[PoolDraft<'_>]) {
    let vips = services.iter().rev().filter_map(|service| Some((service.vip.as_ref()?, service)));
    let (hosts, prefixes): (Vec<_>, Vec<_>) = vips.partition(|(vip, _)| vip.value.is_host());
    let hosts: HashMap<IpAddr, _> = hosts.into_iter().map(|vip| (vip.0.value.address(), vip)).collect();
    for backend in pools.iter().flat_map(|pool| &pool.backends) {
        let Some(address) = &backend.address else { continue };
        let around = || prefixes.iter().rev().find(|(vip, _)| vip.value.contains(address.value));
        if let Some((vip, service)) = hosts.get(&address.value).or_else(around) {
            let problem =
                Problem::BackendIsVip { address: address.value, vip: vip.value, service: service.name() };
            let path = backend.node.path_of("address");
            backend.node.report.add_with(address.at, &path, problem, Some(vip.at));
        }
    }
}
