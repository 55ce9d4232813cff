//! What the decision looks at on its way to a backend, asked by its own functions one after the other.

use lb_common::{
    abi::{Admission, Features, Flow, Note, Rate, Selector, Service, ServiceKey, Ticks, Tracking, WAYS},
    admit, decide, find,
    packet::{Kind, Packet},
    select,
    tables::{FlowBucket, Tables},
    track,
};

use super::{
    Admitted, Choice, Entry, EntryStanding, Found, FoundBy, Hashed, Limited, Memory, Named, SlotSeen, Steps,
    Why, snapshot::Snapshot,
};

/// Every step up to where the packet's way ends or its backend is known.
pub(super) fn steps(tables: &Snapshot<'_>, packet: &Packet, now: Ticks) -> Steps {
    let mut steps = Steps::default();
    let config = tables.config();
    if packet.kind == Kind::Tunnel {
        return steps;
    }
    let Some((number, &record)) = decide::find_service(tables, config.selector, packet) else { return steps };
    let by = found_by(tables, config.selector, packet, number);
    steps.service = Some(Found { number, record, by });
    if packet.kind == Kind::EchoRequest && record.flags & Service::ECHO == 0 {
        return steps;
    }
    if packet.kind == Kind::LaterFragment {
        let hash = decide::fragment_hash(&config, packet);
        let entry = known(tables, hash).map(|flow| fragment_entry(tables, flow, config.fragment_idle, now));
        steps.hash = Some(Hashed { hash, affinity: None });
        steps.memory = Some(Memory { tracking: None, looked: true, entry, others: None });
        return steps;
    }
    steps.admission = admission(tables, &record, packet);
    if steps.admission.is_none_or(|admission| admission.admitted) {
        steps.limits = limits(tables, number, &record, packet, now);
    }
    let refused = steps.admission.is_some_and(|admission| !admission.admitted)
        || steps.limits.iter().any(|limit| !limit.passes);
    if refused || packet.kind == Kind::EchoRequest {
        return steps;
    }
    let hash = decide::hash(&config, tables.features(), &record, packet);
    let is_affine = tables.features().has(Features::AFFINITY) && record.affinity != 0;
    let source = packet.source.prefix(u32::from(record.affinity).max(1));
    steps.hash = Some(Hashed { hash, affinity: is_affine.then_some((source, record.affinity)) });
    steps.named = named(tables, config.selector, &record, packet);
    if !steps.named.is_some_and(|named| named.takes) {
        steps.slot = slot(tables, &record, packet, hash);
        steps.memory = steps.slot.map(|slot| memory(tables, &record, packet, slot, hash, now));
    }
    steps
}

impl Steps {
    /// The backend that these steps lead to. `notes` tell whether the flow could be remembered.
    pub(super) fn choice(&self, packet: &Packet, notes: &[Note]) -> Option<Choice> {
        let choice = |index, why| Some(Choice { index, why });
        if let Some(Named { backend: Some(index), takes: true, .. }) = self.named {
            return choice(index, Why::Named);
        }
        let memory = self.memory?;
        let good = memory.entry.filter(|entry| entry.standing == EntryStanding::Good);
        if memory.tracking.is_none() {
            return choice(good?.backend, Why::Fragment);
        }
        let slot = self.slot?;
        if memory.looked {
            if let Some(entry) = good {
                return choice(entry.backend, Why::Remembered);
            }
            let remembers = packet.kind != Kind::IcmpError && !notes.contains(&Note::FlowsFull);
            let is_old = packet.is_tcp() && (!packet.opens_flow() || !remembers);
            if slot.slot.in_transition() && is_old {
                if let Some(previous) = slot.previous.filter(|_| slot.previous_takes) {
                    return choice(previous, Why::Previous);
                }
            } else if let Some(others) = memory.others.filter(|_| remembers) {
                return choice(others, Why::Others);
            }
        }
        // The memory answers with a number, and has two for nobody.
        let is_number = |index: &u32| !memory.looked || *index < track::ABSENT;
        choice(slot.owner.filter(is_number)?, Why::Owner)
    }
}

/// Which of a service's keys a packet has.
fn found_by(tables: &Snapshot<'_>, selector: u64, packet: &Packet, number: u32) -> FoundBy {
    let leads = |key: ServiceKey| find::exact(tables, selector, &key) == Some(number);
    let has_port = !matches!(packet.kind, Kind::LaterFragment | Kind::EchoRequest);
    let key = if has_port {
        ServiceKey::new(packet.destination, packet.protocol, packet.destination_port)
    } else {
        ServiceKey::vip(packet.destination)
    };
    if leads(key) {
        return if has_port { FoundBy::Port } else { FoundBy::Vip };
    }
    if leads(key.with_port(0)) {
        return FoundBy::AnyPort;
    }
    let prefix = tables.prefix(Selector::from_word(selector).copy, packet.destination).unwrap_or(u32::MAX);
    FoundBy::Prefix {
        number: prefix,
        any_port: has_port && !leads(ServiceKey::of_prefix(prefix, key.protocol, key.port)),
    }
}

fn admission(tables: &Snapshot<'_>, service: &Service, packet: &Packet) -> Option<Admitted> {
    if service.acl == 0 || !tables.features().has(Features::ACL) {
        return None;
    }
    let found = tables.prefix(service.acl, packet.source);
    let admitted = match found {
        Some(found) => found == Admission::Allow as u32,
        None => service.flags & Service::DENY_OTHERS == 0,
    };
    Some(Admitted { list: service.acl, admitted, listed: found.is_some() })
}

fn limits(
    tables: &Snapshot<'_>,
    number: u32,
    service: &Service,
    packet: &Packet,
    now: Ticks,
) -> Vec<Limited> {
    if service.limited == 0 || !tables.features().has(Features::LIMITS) {
        return Vec::new();
    }
    let source = packet.source.prefix(u32::from(service.limited));
    let limited = |connections, rate: Rate| {
        let id = admit::identity(tables.config().seed, &source, number, connections);
        let bucket = tables.limiter(id as u32)?;
        let known = (0..WAYS).map(|way| bucket.load(way)).find(|entry| entry.id == id);
        let ahead = known.map_or(0, |entry| admit::ahead(entry.value, admit::moment(now)));
        let passes = admit::is_within(ahead, rate);
        Some(Limited { connections, source, bits: service.limited, rate, ahead, passes })
    };
    let mut limits = Vec::new();
    if service.packets.interval != 0 {
        limits.extend(limited(false, service.packets));
    }
    if packet.opens_flow() && service.flows.interval != 0 && limits.iter().all(|limit| limit.passes) {
        limits.extend(limited(true, service.flows));
    }
    limits
}

fn named(tables: &Snapshot<'_>, selector: u64, service: &Service, packet: &Packet) -> Option<Named> {
    if service.quic.0 == 0 || !tables.features().has(Features::QUIC) {
        return None;
    }
    let id = service.quic.server_id(packet.quic_head, packet.quic_id);
    let backend = id.and_then(|id| find::exact(tables, selector, &ServiceKey::server(service.slot_base, id)));
    let taken = find::named(tables, selector, service, packet.quic_head, packet.quic_id);
    Some(Named { id, length: service.quic.0 as u8, backend, takes: taken != track::NOBODY })
}

fn slot(tables: &Snapshot<'_>, service: &Service, packet: &Packet, hash: u64) -> Option<SlotSeen> {
    let number = select::slot_of(hash, service.slot_count);
    let place = service.slot_base.wrapping_add(number);
    let slot = tables.slot(place)?;
    let index = |slot| track::owner(service, slot).ok();
    let previous = tables.previous(place).filter(|_| slot.in_transition()).and_then(index);
    let takes = |index| tables.backend(index).is_some_and(|b| b.standing().takes(packet.opens_flow()));
    Some(SlotSeen {
        number,
        place,
        slot,
        owner: index(slot),
        previous,
        previous_takes: previous.is_some_and(takes),
    })
}

fn memory(
    tables: &Snapshot<'_>,
    service: &Service,
    packet: &Packet,
    slot: SlotSeen,
    hash: u64,
    now: Ticks,
) -> Memory {
    let tracking = service.tracking(packet.is_tcp());
    let looked = match tracking {
        Tracking::Never => false,
        Tracking::Transition => slot.slot.in_transition(),
        Tracking::Always => true,
    };
    let mut memory = Memory { tracking: Some(tracking), looked, entry: None, others: None };
    if looked {
        let flow = Flow::identity(hash);
        let (idle, opens) = (service.idle(packet.is_tcp()), packet.opens_flow());
        memory.entry = known(tables, flow).map(|flow| {
            let counts = track::backend_of_flow(tables, service, flow, idle, opens, now) != track::NOBODY;
            entry(tables, flow, idle, now, counts)
        });
        let others = track::backend_of_source(tables, service, flow, opens, now);
        memory.others = (others != track::NOBODY).then_some(others);
    }
    memory
}

/// What stands in the flow table under this identity.
fn known(tables: &Snapshot<'_>, id: u64) -> Option<Flow> {
    let bucket = tables.bucket(id as u32)?;
    // Of two, which only CPUs at the same moment could have written, the decision takes the last.
    (0..WAYS).rev().map(|way| bucket.load(way)).find(|flow| flow.id == id)
}

fn fragment_entry(tables: &Snapshot<'_>, flow: Flow, idle: u32, now: Ticks) -> Entry {
    entry(tables, flow, idle, now, track::fragment(tables, flow.id, idle, now).is_some())
}

fn entry(tables: &Snapshot<'_>, flow: Flow, idle: u32, now: Ticks, counts: bool) -> Entry {
    let age = now.since(flow.seen());
    let same = tables.backend(flow.backend()).is_some_and(|b| b.standing().epoch() == flow.epoch());
    let standing = if counts {
        EntryStanding::Good
    } else if age > idle {
        EntryStanding::Idle
    } else if same {
        EntryStanding::Refused
    } else {
        EntryStanding::Gone
    };
    Entry { backend: flow.backend(), age, is_confirmed: flow.is_confirmed(), standing }
}
