//! From what is installed to what is wanted, in steps that are safe one by one.
//!
//! After every prefix of a plan no live slot points at a backend that is not there: backends are written before the
//! slots that name them, slots and services before the index that leads to them, and nothing that packets could reach
//! is cleared or written anew before those that may still read it are gone ([`Change::Settle`]). So a plan may stop
//! anywhere, and the next one starts from there.

mod cache;
mod change;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use lb_common::{
    abi::{
        Admission, Backend, Config, Features, Hop, IndexEntry, Port, PrefixKey, Quic, Rate, Selector,
        Service, ServiceKey, Slot, Standing,
    },
    addr::Addr,
    encap,
};

pub use self::{
    cache::TableCache,
    change::{Change, Entries},
};
use super::{
    capture::Filter,
    index::{Index, IndexError},
    layout::{Identity, Layout, PoolPlace},
    memory::Memory,
    service::{Name, Via},
};

/// What the tables are to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Key of the flow hash.
    pub seed: u64,
    /// Sources of outer headers.
    pub outer: Outer,
    /// Pools.
    pub pools: Vec<PoolTarget>,
    /// Services; each names one of the pools.
    pub services: Vec<ServiceTarget>,
    /// Slots that were in transition long enough.
    pub settled: BTreeSet<u32>,
    /// How long fragments are waited for; ticks.
    pub fragment_idle: u32,
    /// Prefixes of virtual addresses: their bits in the 128 of an [`Addr`]. Their places here are the numbers that
    /// services' keys name them by.
    pub prefixes: Vec<(Addr, u32)>,
    /// Lists of sources.
    pub lists: Vec<Arc<ListTarget>>,
    /// What the program is to be able to do.
    pub features: Features,
    /// See [`Config::drop_events`].
    pub drop_events: u32,
    /// See [`Config::flow_events`].
    pub flow_events: u32,
    /// Which packets are captured, if any.
    pub capture: Option<Filter>,
}

/// A list of sources as the tables are to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTarget {
    /// Its name.
    pub name: Name,
    /// Prefixes, their bits in the 128 of an [`Addr`], and what becomes of who comes from there.
    pub entries: Vec<(Addr, u32, Admission)>,
}

impl ListTarget {
    /// What the table of prefixes has of it under this number.
    pub fn keys(&self, number: u32) -> impl Iterator<Item = (PrefixKey, u32)> {
        let entries = self.entries.iter();
        entries
            .map(move |&(address, bits, admission)| (PrefixKey::new(number, address, bits), admission as u32))
    }
}

impl Target {
    /// Every next hop a member has.
    pub fn hops(&self) -> impl Iterator<Item = &HopTarget> {
        self.pools.iter().flat_map(|pool| &pool.members).filter_map(|member| member.hop.as_ref())
    }
}

/// Sources of outer headers: prefixes whose host bits carry the flow's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// IPv4 prefix.
    pub v4: (Ipv4Addr, u8),
    /// IPv6 prefix.
    pub v6: (Ipv6Addr, u8),
    /// UDP port that GUE packets go to.
    pub gue_port: u16,
}

impl Default for Outer {
    fn default() -> Self {
        let settings = super::service::Settings::default();
        Self { v4: settings.tunnel_source_v4, v6: settings.tunnel_source_v6, gue_port: settings.gue_port }
    }
}

/// A pool as the tables are to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTarget {
    /// Its name.
    pub name: Name,
    /// Size of its lookup table.
    pub slots: u32,
    /// Whether a slot that changes owner remembers the previous one while that can serve.
    pub is_tracked: bool,
    /// Its backends, and those that left but still serve.
    pub members: Vec<MemberTarget>,
}

/// A backend as the tables are to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTarget {
    /// Its own address.
    pub address: IpAddr,
    /// How packets get there.
    pub via: Via,
    /// Its next hop; without one it is not in the table.
    pub hop: Option<HopTarget>,
    /// Its share of the slots; 0 takes none.
    pub weight: u32,
    /// Whether it can serve the flows it has.
    pub keeps: bool,
    /// What QUIC connection IDs name it by: see [`Quic::server_id`].
    pub server_id: Option<u64>,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopTarget {
    /// Interface the packets leave by, and the VLAN there.
    pub port: Port,
    /// Its MAC.
    pub source: [u8; 6],
    /// The neighbour's MAC.
    pub destination: [u8; 6],
    /// Largest IP packet; bytes. More than 65535 counts as that.
    pub mtu: u32,
}

/// A service as the tables are to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Its name.
    pub name: Name,
    /// What it is found by.
    pub keys: Vec<ServiceKey>,
    /// Its pool.
    pub pool: Name,
    /// See [`Service::flags`].
    pub flags: u32,
    /// See [`Service::tcp_idle`]; ticks.
    pub tcp_idle: u32,
    /// See [`Service::udp_idle`]; ticks.
    pub udp_idle: u32,
    /// See [`Service::affinity`].
    pub affinity: u8,
    /// See [`Service::quic`].
    pub quic: Quic,
    /// Its list of sources.
    pub list: Option<Name>,
    /// See [`Service::limited`].
    pub limited: u8,
    /// See [`Service::packets`].
    pub packets: Rate,
    /// See [`Service::flows`].
    pub flows: Rate,
}

/// The steps from `memory` to `target`, whose places `layout` knows ([`Layout::placed`]). Empty if nothing differs.
///
/// # Errors
/// The services' keys do not fit the index.
pub fn plan(
    memory: &Memory,
    layout: &Layout,
    target: &Target,
    cache: &mut TableCache,
) -> Result<Vec<Change>, IndexError> {
    let mut changes = Vec::new();
    if let Some(filter) = &target.capture {
        let filter = filter.record(|service| layout.service(service).map(|place| place.number));
        if memory.capture != filter {
            changes.push(Change::Capture(Box::new(filter)));
        }
    }
    let both = memory.features.with(target.features);
    if memory.features != both {
        changes.push(Change::Features(both));
    }
    for (number, port) in layout.ports() {
        if memory.ports[number as usize] != port {
            changes.push(Change::Port { number, port });
        }
    }
    change_lists(memory, layout, target, &mut changes);

    let mut backends = BTreeSet::new();
    let mut slots = Vec::new();
    let mut late = Vec::new();
    cache.keep(target);
    // By pool: how many backend numbers the services know of that may be live.
    let mut known = BTreeMap::new();
    for service in memory.services.iter().filter(|service| service.slot_count > 0) {
        let count = known.entry(service.slot_base).or_insert(service.backend_count);
        *count = service.backend_count.min(*count);
    }
    for pool in &target.pools {
        let Some(place) = layout.pool(&pool.name) else { continue };
        let mut keeping = BTreeSet::new();
        for member in &pool.members {
            let identity = Identity::new(member.address, member.via, &target.outer);
            let (Some(&number), Some(hop)) = (place.numbers.get(&identity), &member.hop) else { continue };
            let Some(hop) = hop_of(layout, hop) else { continue };
            let index = place.backend_base + u32::from(number);
            change_backend(memory, index, record(&identity, layout.epoch(index), member, hop), &mut changes);
            backends.insert(index);
            if member.keeps {
                keeping.insert(number);
            }
        }
        let table = cache.table(pool, place, &target.outer);
        let steps = change_slots(memory, place, table, &target.settled, pool.is_tracked, &keeping);
        // Without a backend that takes flows every slot is empty. A service may be about to leave such a pool for
        // another: until then its packets must not find the old one empty.
        let is_empty = table.first().is_none_or(|slot| slot.owner().is_none());
        let known = known.get(&place.slot_base);
        // And where the pool has more numbers than before, slots name them only after the services know.
        let waits = known.is_some_and(|&count| is_empty || count < place.capacity);
        if waits { late.extend(steps) } else { slots.extend(steps) }
    }
    changes.extend(slots);

    for (_, service) in layout.services() {
        if memory.services[service.number as usize] != service.record {
            changes.push(Change::Service { number: service.number, service: service.record });
        }
    }
    switch(memory, layout, target, both, &mut changes)?;
    if !late.is_empty() {
        changes.push(Change::Settle);
        changes.extend(late);
    }
    clear(memory, layout, &backends, &mut changes);
    if both != target.features {
        changes.push(Change::Features(target.features));
    }
    Ok(changes)
}

/// The steps that bring lists of sources into the table. A list that changed has a new number, so packets are held
/// against the old one until the new one stands whole.
fn change_lists(memory: &Memory, layout: &Layout, target: &Target, changes: &mut Vec<Change>) {
    let (v4, v6) = (target.outer.v4, target.outer.v6);
    let own = [
        (Addr::from(IpAddr::V4(v4.0)), 96 + u32::from(v4.1)),
        (Addr::from(IpAddr::V6(v6.0)), u32::from(v6.1)),
    ];
    let own = own.map(|(address, bits)| (PrefixKey::new(PrefixKey::OWN, address, bits), 1));
    change_list(memory, PrefixKey::OWN, &own, changes);
    for (number, list) in layout.lists() {
        // A list never changes: if it has as many entries as it should, they are the ones.
        if memory.list(number).count() != list.entries.len() {
            let wanted: Vec<(PrefixKey, u32)> = list.keys(number).collect();
            change_list(memory, number, &wanted, changes);
        }
    }
}

fn change_list(memory: &Memory, list: u32, wanted: &[(PrefixKey, u32)], changes: &mut Vec<Change>) {
    let names: BTreeSet<PrefixKey> = wanted.iter().map(|(key, _)| *key).collect();
    let set: Vec<(PrefixKey, u32)> =
        wanted.iter().filter(|(key, value)| memory.prefixes.get(key) != Some(value)).copied().collect();
    let remove: Vec<PrefixKey> =
        memory.list(list).map(|(key, _)| key).filter(|key| !names.contains(key)).collect();
    if !set.is_empty() || !remove.is_empty() {
        changes.push(Change::Prefixes { set, remove });
    }
}

/// The steps that bring one backend to what it should be.
fn change_backend(memory: &Memory, index: u32, wanted: Backend, changes: &mut Vec<Change>) {
    let present = memory.backends[index as usize];
    if present != (Backend { hop: present.hop, standing: present.standing, ..wanted })
        || !present.standing().is_same(wanted.standing())
    {
        // A flow may be remembered on it from before it was lost: it takes nothing until the record is whole.
        let standing = wanted.standing();
        if standing.takes(false) {
            let closed = Backend { standing: standing.taking(false, false).to_word(), ..wanted };
            changes.push(Change::Backend { index, backend: Box::new(closed) });
            changes.push(Change::Standing { index, standing });
        } else {
            changes.push(Change::Backend { index, backend: Box::new(wanted) });
        }
        return;
    }
    if present.hop != wanted.hop {
        changes.push(Change::Hop { index, hop: wanted.hop() });
    }
    if present.standing != wanted.standing {
        changes.push(Change::Standing { index, standing: wanted.standing() });
    }
}

/// The steps that bring a pool's slots to their new owners. A slot whose old owner still serves goes into transition,
/// and keeps the first previous owner if it was in one already: flows born in between are all remembered.
fn change_slots(
    memory: &Memory,
    place: &PoolPlace,
    table: &[Slot],
    settled: &BTreeSet<u32>,
    is_tracked: bool,
    keeping: &BTreeSet<u16>,
) -> Vec<Change> {
    let mut previous = Vec::new();
    let mut slots = Vec::new();
    let numbers: BTreeSet<u16> = place.numbers.values().copied().collect();
    for (at, &wanted) in (place.slot_base..).zip(table) {
        let present = memory.slots[at as usize];
        let mut next = wanted;
        if is_tracked && !place.is_fresh {
            if present.in_transition() {
                let before = memory.previous[at as usize];
                let gone = before.owner().is_some_and(|number| !numbers.contains(&number));
                if gone {
                    // Its number may soon be another's.
                    previous.push((at, Slot::EMPTY));
                }
                if !settled.contains(&at) || wanted.owner() != present.owner() {
                    next = wanted.moving();
                }
            } else if wanted != present
                && let Some(owner) = present.owner()
                && keeping.contains(&owner)
            {
                if memory.previous[at as usize] != present {
                    previous.push((at, present));
                }
                next = wanted.moving();
            }
        }
        if next != present {
            slots.push((at, next));
        }
    }
    let mut changes = Vec::new();
    if !previous.is_empty() {
        changes.push(Change::Previous(previous));
    }
    if !slots.is_empty() {
        changes.push(Change::Slots(slots));
    }
    changes
}

/// The index of every service's keys, and of the backends that have a server ID.
///
/// # Errors
/// The keys do not fit into `capacity` entries.
pub fn index(layout: &Layout, target: &Target, capacity: u32) -> Result<Index, IndexError> {
    let services =
        layout.services().flat_map(|(_, service)| service.keys.iter().map(|&key| (key, service.number)));
    let servers = target.pools.iter().flat_map(|pool| {
        let place = layout.pool(&pool.name);
        pool.members.iter().filter_map(move |member| {
            let place = place?;
            let identity = Identity::new(member.address, member.via, &target.outer);
            let id = member.server_id.filter(|_| member.hop.is_some())?;
            Some((ServiceKey::server(place.slot_base, id), place.index_of(&identity)?))
        })
    });
    Index::build(&services.chain(servers).collect::<Vec<_>>(), capacity)
}

/// Builds the index anew beside the live one, and switches, if keys or the seed differ. The programs have these
/// `features` at that step.
fn switch(
    memory: &Memory,
    layout: &Layout,
    target: &Target,
    features: Features,
    changes: &mut Vec<Change>,
) -> Result<(), IndexError> {
    let live = Selector::from_word(memory.config.selector);
    let mut config = Config {
        seed: target.seed,
        fragment_idle: target.fragment_idle,
        gue_port: u64::from(target.outer.gue_port),
        drop_events: target.drop_events,
        flow_events: target.flow_events,
        features,
        ..memory.config
    };
    let built = index(layout, target, memory.limits.index)?;
    let base = (live.copy * memory.limits.index) as usize;
    let prefixes = |list| -> Vec<(PrefixKey, u32)> {
        let named = target.prefixes.iter().zip(0u32..);
        named.map(|(&(address, bits), number)| (PrefixKey::new(list, address, bits), number)).collect()
    };
    let same_prefixes = {
        let wanted: BTreeMap<PrefixKey, u32> = prefixes(live.copy).into_iter().collect();
        memory.list(live.copy).collect::<BTreeMap<_, _>>() == wanted
    };
    let unchanged = same_prefixes
        && built.selector(live.copy) == live
        && built.entries[..] == memory.index[base..base + built.entries.len()];
    if !unchanged {
        let copy = 1 - live.copy;
        let base = (copy * memory.limits.index) as usize;
        let entries: Vec<(u32, IndexEntry)> = (0u32..)
            .zip(&built.entries)
            .zip(&memory.index[base..base + built.entries.len()])
            .filter(|((_, wanted), present)| wanted != present)
            .map(|((position, &wanted), _)| (position, wanted))
            .collect();
        let mut written = Vec::new();
        if !entries.is_empty() {
            written.push(Change::Index { copy, entries });
        }
        change_list(memory, copy, &prefixes(copy), &mut written);
        if !written.is_empty() {
            // Packets that began before the last switch may still be reading this copy.
            changes.push(Change::Settle);
            changes.extend(written);
        }
        config.selector = built.selector(copy).to_word();
    }
    if config != memory.config {
        changes.push(Change::Config(config));
    }
    Ok(())
}

/// Clears what nothing leads to any more.
fn clear(memory: &Memory, layout: &Layout, backends: &BTreeSet<u32>, changes: &mut Vec<Change>) {
    let mut cleared = Vec::new();
    let mut closed = Vec::new();
    let numbers: BTreeSet<u32> = layout.services().map(|(_, service)| service.number).collect();
    for (number, service) in (0u32..).zip(&memory.services) {
        if *service != Service::default() && !numbers.contains(&number) {
            cleared.push(Change::Service { number, service: Service::default() });
        }
    }
    for (index, backend) in (0u32..).zip(&memory.backends) {
        if backend.standing != 0 && !backends.contains(&index) {
            // No slot names it any more, but flows may be remembered on it.
            if backend.standing().takes(false) {
                closed.push(Change::Standing { index, standing: backend.standing().taking(false, false) });
            }
            cleared.push(Change::Backend { index, backend: Box::default() });
        }
    }
    let ports: BTreeSet<u32> = layout.ports().map(|(number, _)| number).collect();
    for (number, &port) in (0u32..).zip(&memory.ports) {
        if port != Port::default() && !ports.contains(&number) {
            cleared.push(Change::Port { number, port: Port::default() });
        }
    }
    let lists: BTreeSet<u32> = layout.lists().map(|(number, _)| number).collect();
    let is_left = |key: &&PrefixKey| key.list >= PrefixKey::FIRST_ACL && !lists.contains(&key.list);
    let left: Vec<PrefixKey> = memory.prefixes.keys().filter(is_left).copied().collect();
    if !left.is_empty() {
        cleared.push(Change::Prefixes { set: Vec::new(), remove: left });
    }
    if !cleared.is_empty() {
        changes.extend(closed);
        changes.push(Change::Settle);
        changes.extend(cleared);
    }
}

fn hop_of(layout: &Layout, hop: &HopTarget) -> Option<Hop> {
    Some(Hop::new(
        hop.destination,
        layout.port_of(hop.port)?,
        hop.source,
        u16::try_from(hop.mtu).unwrap_or(u16::MAX),
    ))
}

fn record(identity: &Identity, epoch: u8, member: &MemberTarget, hop: Hop) -> Backend {
    let destination = Addr::from(identity.address);
    let sum = if identity.encap.is_outer_v4() {
        encap::constant_sum(identity.outer_source, destination)
    } else {
        0
    };
    let standing = Standing::new(identity.encap, identity.spread_bits, sum, epoch);
    Backend {
        hop: hop.to_words(),
        standing: standing.taking(member.keeps, member.weight > 0).to_word(),
        outer_source: identity.outer_source,
        address: destination,
        gue_port: u64::from(identity.gue_port),
    }
}

#[cfg(test)]
mod tests;
