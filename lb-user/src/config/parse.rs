//! From the text of a file to what is wanted, or to everything that is wrong with it.

mod access;
mod across;
pub(super) mod check;
mod following;
mod serving;

use self::{access::ListDraft, following::ShortageDraft, serving::ServiceDraft};

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

use lb_common::abi::Slot;
use toml_edit::{Document, Item};

use super::{
    error::{ConfigErrors, Problem},
    keys,
    reader::{Node, Placed, Report, integer, integer_in, one_of, text},
    value,
};
use crate::model::{
    check::Check,
    quic::ServerId,
    service::{
        AdminState, Backend, DEFAULT_SLOTS, DEFAULT_WEIGHT, Desired, MAX_VLAN, MAX_WEIGHT, Name, OnDown,
        Pool, Settings, Via, XdpMode,
    },
    share::Shares,
    source::Files,
};

/// Most backends of a pool: their numbers fit a slot, and one more marks the empty slot.
pub(super) const MAX_BACKENDS: usize = Slot::MAX_BACKENDS as usize - 1;

/// Range of the longest transition.
const LONGEST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(604_800));

/// Events told of, each second on each CPU.
pub(super) const EVENTS: RangeInclusive<u32> = 0..=10_000;
/// Packets per second.
pub(super) const ALARM: RangeInclusive<u32> = 0..=1_000_000_000;

/// Reads a configuration: its text, and those of the files that it names ([`files_named`]).
///
/// # Errors
/// Everything that is wrong with it, in the order of the lines. A text that is not TOML has one error.
pub fn parse(text: &str, files: &Files) -> Result<Desired, ConfigErrors> {
    let report = Report::new(text);
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            // An error without a place is about something that is missing at the end.
            let at = error.span().map_or(text.len(), |span| span.start);
            report.add(at, "", Problem::Syntax(error.message().replace('\n', ", ")));
            return report.finish(Desired::default());
        }
    };
    let file = Node::new(&report, document.as_table(), &keys::FILE, 0, String::new());
    let desired = read_file(&file, files);
    report.finish(desired)
}

/// The files that a configuration names, as they are written there. Of a text with errors, those that can be made out.
pub fn files_named(text: &str) -> BTreeSet<String> {
    let Ok(document) = Document::parse(text) else { return BTreeSet::new() };
    let report = Report::new(text);
    let file = Node::new(&report, document.as_table(), &keys::FILE, 0, String::new());
    file.children("acl", &keys::ACL).iter().flat_map(access::files_of).collect()
}

fn read_file(file: &Node<'_>, files: &Files) -> Desired {
    let settings = file.child("lb", &keys::LB).map_or_else(Settings::default, |node| read_settings(&node));
    let pools: Vec<PoolDraft<'_>> = file.children("pool", &keys::POOL).into_iter().map(read_pool).collect();
    let services: Vec<ServiceDraft<'_>> =
        file.children("service", &keys::SERVICE).into_iter().map(serving::read).collect();
    let lists: Vec<ListDraft<'_>> =
        file.children("acl", &keys::ACL).into_iter().map(|node| access::read(node, files)).collect();

    across::unique_names("pool", pools.iter().map(|pool| (&pool.node, pool.name.as_ref())));
    across::unique_names("service", services.iter().map(|service| (&service.node, service.placed_name())));
    across::unique_names("acl", lists.iter().map(|list| (&list.node, list.name.as_ref())));
    across::ports_belong_to_one(&services);
    across::pools_exist(&services, &pools);
    across::fallbacks_exist(&pools);
    across::lists_exist(&services, &lists);
    across::server_ids_fit(&services, &pools);
    across::checks_have_a_port(&services, &pools);
    across::backends_are_no_vips(&services, &pools);

    // Drafts that lack something were reported; `finish` then drops what is left.
    Desired {
        settings,
        pools: pools.into_iter().filter_map(PoolDraft::finish).collect(),
        services: services.into_iter().filter_map(ServiceDraft::finish).collect(),
        acls: lists.into_iter().filter_map(ListDraft::finish).collect(),
    }
}

/// A pool as far as it could be read.
struct PoolDraft<'a> {
    node: Node<'a>,
    name: Option<Placed<Name>>,
    slots: u32,
    check: Option<Check>,
    check_names_no_port: bool,
    on_down: OnDown,
    shortage: ShortageDraft,
    shares: Shares,
    backends: Vec<BackendDraft<'a>>,
}

impl PoolDraft<'_> {
    fn finish(self) -> Option<Pool> {
        let backends = self.backends.into_iter().filter_map(BackendDraft::finish).collect();
        Some(Pool {
            name: self.name?.value,
            slots: self.slots,
            check: self.check,
            on_down: self.on_down,
            shortage: self.shortage.finish(),
            shares: self.shares,
            backends,
        })
    }
}

/// A backend as far as it could be read.
struct BackendDraft<'a> {
    node: Node<'a>,
    name: Option<Placed<Name>>,
    address: Option<Placed<IpAddr>>,
    via: Via,
    weight: u16,
    state: AdminState,
    drain_until: Option<Duration>,
    vlan: Option<u16>,
    server_id: Option<Placed<ServerId>>,
}

impl BackendDraft<'_> {
    fn finish(self) -> Option<Backend> {
        let Self { name, address, via, weight, state, drain_until, vlan, server_id, .. } = self;
        let server_id = server_id.map(|id| id.value);
        Some(Backend {
            name: name?.value,
            address: address?.value,
            via,
            weight,
            state,
            drain_until,
            vlan,
            server_id,
        })
    }

    fn name(&self) -> Option<Name> {
        self.name.as_ref().map(|name| name.value.clone())
    }
}

fn name(item: &Item) -> Result<Name, Problem> {
    Ok(Name::new(text(item)?)?)
}

fn address(item: &Item) -> Result<IpAddr, Problem> {
    value::address(text(item)?)
}

fn read_settings(node: &Node<'_>) -> Settings {
    let default = Settings::default();
    let modes = &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
    let prefix =
        |key, rule| node.optional(key, |item| value::prefix(text(item)?, rule)).map(|prefix| prefix.value);
    let longest = node.optional("transition_max", |item| duration_within(item, LONGEST.0, LONGEST.1));
    let events = |key, default| node.optional(key, integer_in(EVENTS)).map_or(default, |events| events.value);
    Settings {
        drop_events: events("drop_events", default.drop_events),
        flow_events: events("flow_events", default.flow_events),
        drop_alarm: node
            .optional("drop_alarm", integer_in(ALARM))
            .map_or(default.drop_alarm, |rate| rate.value),
        transition_max: longest.map_or(default.transition_max, |longest| longest.value),
        interfaces: read_interfaces(node),
        xdp: node.optional("xdp", one_of(modes)).map_or(default.xdp, |xdp| xdp.value),
        tunnel_source_v4: match prefix("tunnel_source", &value::OUTER_V4) {
            Some((IpAddr::V4(address), length)) => (address, length),
            _ => default.tunnel_source_v4,
        },
        tunnel_source_v6: match prefix("tunnel_source6", &value::OUTER_V6) {
            Some((IpAddr::V6(address), length)) => (address, length),
            _ => default.tunnel_source_v6,
        },
        gue_port: node
            .optional("gue_port", integer_in(1..=u16::MAX))
            .map_or(default.gue_port, |port| port.value),
        seed: node.optional("seed", read_seed).map_or(default.seed, |seed| seed.value),
    }
}

fn read_interfaces(node: &Node<'_>) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut interfaces = Vec::new();
    for Placed { value, at } in node.texts("interfaces", value::interface).unwrap_or_default() {
        if let Some(&first) = seen.get(&value) {
            let problem = Problem::DuplicateInterface(value);
            node.report.add_with(at, &node.path_of("interfaces"), problem, Some(first));
        } else {
            seen.insert(value.clone(), at);
            interfaces.push(value);
        }
    }
    interfaces
}

fn read_seed(item: &Item) -> Result<u64, Problem> {
    match item.as_str() {
        Some(hex) => value::hex_seed(hex),
        None => {
            let seed = integer(item)?;
            u64::try_from(seed).map_err(|_| Problem::BadSeed(seed.to_string()))
        }
    }
}

fn read_pool(node: Node<'_>) -> PoolDraft<'_> {
    let name = node.required("name", name);
    let slots = node.optional("slots", |item| value::slots(integer(item)?));
    let slots = slots.map_or(DEFAULT_SLOTS, |slots| slots.value);
    let check = node.child("check", &keys::CHECK);
    let check_names_no_port = check.as_ref().is_some_and(|check| !check.has("port"));
    let check = check.and_then(|check| check::read(&check));
    let backends: Vec<_> = node.children("backend", &keys::BACKEND).into_iter().map(read_backend).collect();

    let limit = MAX_BACKENDS.min(slots as usize);
    if let Some(first_too_many) = backends.get(limit) {
        let problem = Problem::TooManyBackends { count: backends.len(), slots, limit };
        node.report.add(first_too_many.node.at, &node.path, problem);
    }
    across::unique_names("backend", backends.iter().map(|backend| (&backend.node, backend.name.as_ref())));
    across::unique_addresses(&backends);
    let choices = &[("reset", OnDown::Reset), ("keep", OnDown::Keep)];
    let on_down = node.optional("on_down", one_of(choices)).map(|choice| choice.value).unwrap_or_default();
    let shortage = ShortageDraft::read(&node);
    let shares = following::read(&node);
    PoolDraft { node, name, slots, check, check_names_no_port, on_down, shortage, shares, backends }
}

fn read_backend(node: Node<'_>) -> BackendDraft<'_> {
    let states = &[("ready", AdminState::Ready), ("drain", AdminState::Drain), ("maint", AdminState::Maint)];
    let state = node.optional("state", one_of(states)).map_or(AdminState::default(), |state| state.value);
    let until = node.optional("drain_until", |item| value::time(text(item)?));
    if let Some(until) = until.as_ref().filter(|_| state != AdminState::Drain) {
        node.report.add(until.at, &node.path_of("drain_until"), Problem::DrainUntilWithoutDrain);
    }
    BackendDraft {
        name: node.required("name", name),
        address: node.required("address", address),
        via: node.optional("via", one_of(&Via::ALL)).map_or(Via::default(), |via| via.value),
        weight: node
            .optional("weight", integer_in(0..=MAX_WEIGHT))
            .map_or(DEFAULT_WEIGHT, |weight| weight.value),
        state,
        drain_until: until.map(|until| until.value),
        vlan: node.optional("vlan", integer_in(1..=MAX_VLAN)).map(|vlan| vlan.value),
        server_id: node.optional("server_id", |item| Ok(text(item)?.parse()?)),
        node,
    }
}

fn duration_within(item: &Item, min: Duration, max: Duration) -> Result<Duration, Problem> {
    let value = value::duration(text(item)?)?;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Problem::DurationOutOfRange { value, min, max })
    }
}
