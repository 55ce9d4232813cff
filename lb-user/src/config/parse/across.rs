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
    BackendDraft, PoolDraft, ServiceDraft,
};
use crate::model::service::{Name, Protocol, ServicePort};

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

/// No (VIP, protocol, port) may lead to two pools, and naming one twice is a slip.
pub(super) fn ports_belong_to_one(services: &[ServiceDraft<'_>]) {
    /// Who has the ports from the map's key on.
    struct Owner<'s> {
        service: &'s ServiceDraft<'s>,
        port: &'s Placed<ServicePort>,
    }
    // Ranges in a map do not overlap, so the last that begins at or before the end of a new range is the
    // only one to compare with.
    let mut taken: HashMap<(IpAddr, Protocol), BTreeMap<u16, Owner<'_>>> = HashMap::new();
    for service in services {
        let Some(vip) = &service.vip else { continue };
        for port in &service.ports {
            let ServicePort { protocol, first, last } = port.value;
            let owners = taken.entry((vip.value, protocol)).or_default();
            let nearest = owners.range(..=last).next_back().map(|(_, owner)| owner);
            match nearest.filter(|owner| owner.port.value.last >= first) {
                Some(owner) => {
                    let problem = Problem::PortTaken {
                        vip: vip.value,
                        port: owner.port.value,
                        service: owner.service.name(),
                    };
                    service.node.report.add_with(port.at, &service.node.path, problem, Some(owner.port.at));
                }
                None => {
                    owners.insert(first, Owner { service, port });
                }
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

/// Probes are TCP connections: where all services of a pool are UDP, only the check itself can name a port.
pub(super) fn checks_have_a_port(services: &[ServiceDraft<'_>], pools: &[PoolDraft<'_>]) {
    for pool in pools.iter().filter(|pool| pool.check_names_no_port) {
        let mut users = services.iter().filter(|service| service.points_at(pool)).peekable();
        let is_udp = |service: &ServiceDraft<'_>| {
            service.all_ports_read && service.ports.iter().all(|port| port.value.protocol == Protocol::Udp)
        };
        if users.peek().is_some() && users.all(is_udp) {
            let at = pool.node.key_position("check").unwrap_or(pool.node.at);
            pool.node.report.add(at, &pool.node.path_of("check"), Problem::CheckNeedsPort);
        }
    }
}

/// A packet sent on to a VIP would come back to the balancer.
pub(super) fn backends_are_no_vips(services: &[ServiceDraft<'_>], pools: &[PoolDraft<'_>]) {
    let vips: HashMap<IpAddr, &ServiceDraft<'_>> =
        services.iter().rev().filter_map(|service| Some((service.vip.as_ref()?.value, service))).collect();
    for backend in pools.iter().flat_map(|pool| &pool.backends) {
        let Some(address) = &backend.address else { continue };
        if let Some(service) = vips.get(&address.value) {
            let problem = Problem::BackendIsVip { address: address.value, service: service.name() };
            let other = service.vip.as_ref().map(|vip| vip.at);
            backend.node.report.add_with(address.at, &backend.node.path_of("address"), problem, other);
        }
    }
}
