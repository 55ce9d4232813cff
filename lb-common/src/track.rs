//! Which backend a packet's flow is on: the owner of its slot, unless the flow began before the slot had that owner.
//!
//! In the steady state nothing is remembered and the lookup table alone decides. A slot in transition has a previous
//! owner that can still serve:
//!
//! | packet | goes to |
//! | --- | --- |
//! | of a remembered flow whose backend takes it | that backend |
//! | TCP SYN | the slot's owner, and the flow is remembered |
//! | any other TCP | the previous owner, and the flow is remembered |
//!
//! A flow that was seen but once may be displaced by any other, a confirmed one only after it was idle: so a flood of
//! SYNs displaces nothing but SYNs. UDP has no mark of a beginning: it is tracked always, or goes to the slot's owner.

use crate::{
    abi::{Backend, Flow, Note, Service, Slot, Standing, Ticks, Tracking, WAYS},
    packet::{Kind, Packet},
    tables::{FlowBucket, Tables},
};

/// A flow is marked as seen again only after more than this many ticks: marking dirties a cache line. So idle times
/// must allow for as much.
pub const REFRESH: u32 = 64;

/// Where a packet's flow has its slot and its memory.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Place of the slot among all slots.
    pub place: u32,
    /// The slot.
    pub slot: Slot,
    /// The flow's identity: see [`Flow::id`].
    pub flow: u64,
}

/// The index of the backend that a packet goes to; `None` if its slot is empty.
#[inline(always)]
pub fn backend_of<T: Tables>(
    tables: &T,
    service: &Service,
    packet: &Packet,
    place: Place,
    now: Ticks,
) -> Option<u32> {
    let tcp = packet.is_tcp();
    let tracked = match service.tracking(tcp) {
        Tracking::Never => false,
        Tracking::Transition => place.slot.in_transition(),
        Tracking::Always => true,
    };
    if !tracked {
        return owner(service, place.slot);
    }
    let Some(bucket) = tables.bucket(place.flow as u32) else {
        return owner(service, place.slot);
    };
    remembered(tables, service, packet, place, now, &bucket)
}

/// The owner's index. Numbers that are none of the pool's stay what they are and lead to an absent backend.
#[inline(always)]
fn owner(service: &Service, slot: Slot) -> Option<u32> {
    let number = u32::from(slot.owner()?);
    // A number outside the pool must not reach into the next one's backends.
    if number < service.backend_count {
        Some(service.backend_base.wrapping_add(number))
    } else {
        Some(u32::MAX)
    }
}

#[inline(always)]
fn standing<T: Tables>(tables: &T, index: u32) -> Standing {
    tables.backend(index).map_or(Standing::default(), Backend::standing)
}

#[inline(always)]
fn remembered<T: Tables>(
    tables: &T,
    service: &Service,
    packet: &Packet,
    place: Place,
    now: Ticks,
    bucket: &T::Bucket<'_>,
) -> Option<u32> {
    let opens = packet.opens_flow();
    // An ICMP error is no sign of life of its flow.
    let passive = packet.kind == Kind::IcmpError;
    let idle = service.idle(packet.is_tcp());
    let mut known = WAYS;
    let mut free = WAYS;
    let mut least = WAYS;
    let mut least_age = 0;
    for way in 0..WAYS {
        let flow = bucket.load(way);
        if flow.id == place.flow {
            known = way;
            break;
        }
        let age = now.since(flow.seen());
        if flow.id == 0 || age > idle {
            free = way;
        } else if !flow.is_confirmed() && (least == WAYS || age > least_age) {
            least = way;
            least_age = age;
        }
    }

    if known < WAYS {
        let flow = bucket.load(known);
        let backend = flow.backend();
        let within = backend.wrapping_sub(service.backend_base) < service.backend_count;
        let standing = standing(tables, backend);
        let age = now.since(flow.seen());
        if within && age <= idle && standing.epoch() == flow.epoch() && standing.takes(opens) {
            // The second packet confirms a flow; a SYN sent again does not.
            let confirms = !flow.is_confirmed() && !opens;
            if !passive && (confirms || age > REFRESH) {
                let confirmed = flow.is_confirmed() || confirms;
                bucket.update(known, Flow::new(place.flow, backend, flow.epoch(), confirmed, now));
            }
            return Some(backend);
        }
    }

    let way = if known < WAYS {
        known
    } else if free < WAYS {
        free
    } else {
        least
    };
    let remembers = if passive {
        false
    } else if way == WAYS {
        tables.note(Note::FlowsFull);
        false
    } else if tables.may_remember() {
        true
    } else {
        tables.note(Note::FlowsLimited);
        false
    };

    let mut chosen = owner(service, place.slot);
    // Of TCP, what nobody remembers began before the slot changed owner, unless it begins now. And what begins now
    // and cannot be remembered must go where its next packet will be sent for want of a memory.
    if place.slot.in_transition()
        && packet.is_tcp()
        && (!opens || !remembers)
        && let Some(previous) = tables.previous(place.place).and_then(|slot| owner(service, slot))
        && standing(tables, previous).takes(opens)
    {
        chosen = Some(previous);
    }
    let index = chosen?;
    if remembers {
        let epoch = standing(tables, index).epoch();
        bucket.replace(way, Flow::new(place.flow, index, epoch, false, now));
    }
    Some(index)
}

/// Remembers where the first fragment of a packet went.
#[inline(always)]
pub fn remember_fragment<T: Tables>(tables: &T, hash: u64, backend: u32, now: Ticks) {
    let Some(bucket) = tables.bucket(hash as u32) else { return };
    let mut place = WAYS;
    for way in 0..WAYS {
        let flow = bucket.load(way);
        if flow.id == 0 || flow.id == hash || !flow.is_confirmed() {
            place = way;
        }
    }
    if place == WAYS {
        tables.note(Note::FlowsFull);
    } else if tables.may_remember() {
        let epoch = standing(tables, backend).epoch();
        bucket.replace(place, Flow::new(hash, backend, epoch, false, now));
    } else {
        tables.note(Note::FlowsLimited);
    }
}

/// Where the first fragment of a packet went, if it was seen within `idle` ticks.
#[inline(always)]
pub fn fragment<T: Tables>(tables: &T, hash: u64, idle: u32, now: Ticks) -> Option<u32> {
    let bucket = tables.bucket(hash as u32)?;
    for way in 0..WAYS {
        let flow = bucket.load(way);
        if flow.id == hash {
            let backend = flow.backend();
            let standing = standing(tables, backend);
            let current = standing.epoch() == flow.epoch() && standing.takes(false);
            return (current && now.since(flow.seen()) <= idle).then_some(backend);
        }
    }
    None
}

#[cfg(test)]
mod tests;
