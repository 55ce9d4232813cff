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
//!
//! Where a service wants the flows of one source together, the source is remembered beside its flows, and a new flow
//! goes where the source's others are.

use crate::{
    abi::{
        Backend, DropReason, Features, Flow, Note, Service, Slot, Standing, Ticks, Tracking, WAYS, Window,
    },
    opaque::{exceeds, larger, opaque, rarely, same},
    packet::{Kind, Packet},
    select,
    tables::{FlowBucket, Tables},
};

/// A flow is marked as seen again only after more than this many ticks: marking dirties a cache line. So idle times
/// must allow for as much.
pub const REFRESH: u32 = 64;

/// What the memory of flows is asked: all of it numbers, so that the kernel program can ask by a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the service.
    pub service: u32,
    /// Place of the slot among all slots.
    pub place: u32,
    /// The flow's identity: see [`Flow::id`].
    pub flow: u64,
    /// What matters of the packet.
    pub packet: PacketTraits,
    /// The time.
    pub now: Ticks,
}

/// What matters of a packet for the memory of its flow, in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketTraits(pub u32);

impl PacketTraits {
    const TCP: u32 = 1;
    const OPENS: u32 = 2;
    const PASSIVE: u32 = 4;

    /// The traits of a packet. An ICMP error is no sign of life of its flow.
    #[inline(always)]
    pub const fn of(packet: &Packet) -> Self {
        let passive = matches!(packet.kind, Kind::IcmpError);
        Self(packet.is_tcp() as u32 | (packet.opens_flow() as u32) << 1 | (passive as u32) << 2)
    }

    const fn is_tcp(self) -> bool {
        self.0 & Self::TCP != 0
    }

    pub(crate) const fn opens(self) -> bool {
        self.0 & Self::OPENS != 0
    }

    const fn is_passive(self) -> bool {
        self.0 & Self::PASSIVE != 0
    }
}

/// The index of the backend that a packet goes to.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub fn backend_of<T: Tables>(
    tables: &T,
    service: &Service,
    slot: Slot,
    packet: &Packet,
    question: impl FnOnce() -> Question,
) -> Result<u32, DropReason> {
    let tracked = match service.tracking(packet.is_tcp()) {
        Tracking::Never => false,
        Tracking::Transition => slot.in_transition(),
        Tracking::Always => true,
    };
    if !tracked {
        return owner(service, slot);
    }
    match tables.remembered(question()) {
        NOBODY => Err(rarely(DropReason::NoBackend)),
        ABSENT => Err(rarely(DropReason::BackendAbsent)),
        index => Ok(index),
    }
}

/// No backend's index. A number and not a `None`, whose payload would be undefined where the verifier wants to see all.
pub const NOBODY: u32 = u32::MAX;

/// An index that no table has: what a slot that names none of the pool's backends leads to.
pub const ABSENT: u32 = u32::MAX - 1;

/// The index of a slot's owner.
///
/// # Errors
/// It has none, or one that is not there.
#[inline(always)]
pub fn owner(service: &Service, slot: Slot) -> Result<u32, DropReason> {
    match slot.owner() {
        // A number outside the pool must not reach into the next one's backends.
        Some(number) if u32::from(number) < service.backend_count => {
            Ok(service.backend_base.wrapping_add(u32::from(number)))
        }
        Some(_) => Err(rarely(DropReason::BackendAbsent)),
        None => Err(rarely(DropReason::NoBackend)),
    }
}

/// The same as one number.
#[inline(always)]
fn owner_index(service: &Service, slot: Slot) -> u32 {
    match owner(service, slot) {
        Ok(index) => index,
        Err(DropReason::BackendAbsent) => ABSENT,
        Err(_) => NOBODY,
    }
}

#[inline(always)]
fn standing<T: Tables>(tables: &T, index: u32) -> Standing {
    tables.backend(index).map_or(Standing::default(), Backend::standing)
}

/// The place of a bucket that a flow is at, or should be put at: a rank and, in the low bits, the way.
///
/// One number, because the verifier walks every path to a known value on its own, but all paths to an unknown one
/// together.
#[derive(Clone, Copy)]
struct Best(u64);

impl Best {
    /// The flow itself is there.
    const SAME: u64 = 1 << 42;
    /// Nobody is there, or one who has long been idle.
    const IDLE: u64 = 1 << 41;
    /// One who was seen but once is there: below this bit, how long ago.
    const ONCE: u64 = 1 << 40;

    #[inline(always)]
    const fn way(self) -> usize {
        self.0 as usize & (WAYS - 1)
    }

    /// Whether it may be taken.
    #[inline(always)]
    const fn is_free(self) -> bool {
        self.0 >= Self::ONCE
    }
}

#[inline(always)]
fn best_place<B: FlowBucket>(bucket: &B, id: u64, idle: u32, now: Ticks) -> Best {
    let mut best = 0u64;
    for way in 0..WAYS {
        let flow = bucket.load(way);
        let age = u64::from(now.since(flow.seen()));
        let own = same(flow.id, id) * Best::SAME;
        let free = (same(flow.id, 0) | exceeds(age, u64::from(idle))) * Best::IDLE;
        let unconfirmed = opaque(u64::from(!flow.is_confirmed()));
        let once = unconfirmed.wrapping_mul(Best::ONCE | age << 2);
        let rank = own | free | once | way as u64;
        best = larger(rank, best);
    }
    Best(best)
}

/// The backend of a remembered flow, if it takes this packet; [`NOBODY`] if not.
#[inline(always)]
pub fn backend_of_flow<T: Tables>(
    tables: &T,
    service: &Service,
    flow: Flow,
    idle: u32,
    opens: bool,
    now: Ticks,
) -> u32 {
    let backend = flow.backend();
    let within = backend.wrapping_sub(service.backend_base) < service.backend_count;
    let standing = standing(tables, backend);
    let takes = standing.epoch() == flow.epoch() && standing.takes(opens);
    if within && now.since(flow.seen()) <= idle && takes { backend } else { NOBODY }
}

/// Where a flow goes that is remembered or is to be: an index, or `u32::MAX` for nowhere.
#[inline(always)]
pub fn remembered<T: Tables>(tables: &T, question: Question) -> u32 {
    let Question { service, place, flow: id, packet, now } = question;
    let (Some(service), Some(slot), Some(bucket)) =
        (tables.service(service), tables.slot(place), tables.bucket(id as u32))
    else {
        return NOBODY;
    };
    let opens = packet.opens();
    let idle = service.idle(packet.is_tcp());
    let best = best_place(&bucket, id, idle, now);
    let flow = bucket.load(best.way());
    if flow.id == id {
        let backend = backend_of_flow(tables, service, flow, idle, opens, now);
        if backend != NOBODY {
            // The second packet confirms a flow; a SYN sent again does not.
            let confirms = !flow.is_confirmed() && !opens;
            if !packet.is_passive() && (confirms || now.since(flow.seen()) > REFRESH) {
                let confirmed = flow.is_confirmed() || confirms;
                bucket.update(best.way(), Flow::new(id, backend, flow.epoch(), confirmed, now));
                remember_source(tables, service, id, backend, true, now);
            }
            return backend;
        }
    }

    let remembers = if packet.is_passive() {
        false
    } else if !best.is_free() {
        tables.note(Note::FlowsFull);
        false
    } else if tables.may(Window::Remember) {
        true
    } else {
        tables.note(Note::FlowsLimited);
        false
    };

    let mut chosen = owner_index(service, slot);
    // Of TCP, what nobody remembers began before the slot changed owner, unless it begins now. And what begins now
    // and cannot be remembered must go where its next packet will be sent for want of a memory.
    if slot.in_transition() && packet.is_tcp() && (!opens || !remembers) {
        let previous = tables.previous(place).map_or(NOBODY, |slot| owner_index(service, slot));
        if standing(tables, previous).takes(opens) {
            chosen = previous;
        }
    } else if remembers {
        let others = backend_of_source(tables, service, id, opens, now);
        if others != NOBODY {
            chosen = others;
        }
    }
    if remembers && chosen < ABSENT {
        let epoch = standing(tables, chosen).epoch();
        bucket.replace(best.way(), Flow::new(id, chosen, epoch, false, now));
        remember_source(tables, service, id, chosen, false, now);
    }
    chosen
}

/// Whether a service wants the flows of one source together.
#[inline(always)]
fn is_affine<T: Tables>(tables: &T, service: &Service) -> bool {
    tables.features().has(Features::AFFINITY) && service.affinity != 0
}

/// After how many ticks without a packet a source is forgotten.
#[inline(always)]
const fn source_idle(service: &Service) -> u32 {
    if service.tcp_idle > service.udp_idle { service.tcp_idle } else { service.udp_idle }
}

/// Where a source's other flows go, if the service wants them together and it is remembered; else [`NOBODY`].
#[inline(always)]
pub fn backend_of_source<T: Tables>(
    tables: &T,
    service: &Service,
    flow: u64,
    opens: bool,
    now: Ticks,
) -> u32 {
    if !is_affine(tables, service) {
        return NOBODY;
    }
    let id = select::shared_identity(flow);
    let Some(bucket) = tables.bucket(id as u32) else { return NOBODY };
    let idle = source_idle(service);
    let known = bucket.load(best_place(&bucket, id, idle, now).way());
    if known.id == id { backend_of_flow(tables, service, known, idle, opens, now) } else { NOBODY }
}

/// Remembers where a source's flows go, if the service wants them together. The first that is remembered counts, as
/// long as the source is seen and the backend serves.
#[inline(always)]
fn remember_source<T: Tables>(
    tables: &T,
    service: &Service,
    flow: u64,
    backend: u32,
    confirms: bool,
    now: Ticks,
) {
    if !is_affine(tables, service) {
        return;
    }
    let id = select::shared_identity(flow);
    let Some(bucket) = tables.bucket(id as u32) else { return };
    let idle = source_idle(service);
    let best = best_place(&bucket, id, idle, now);
    let known = bucket.load(best.way());
    let mut keeps = backend;
    if known.id == id {
        let others = backend_of_flow(tables, service, known, idle, false, now);
        if others != NOBODY {
            keeps = others;
        }
    }
    if best.is_free() {
        let confirmed = confirms || known.id == id && known.is_confirmed();
        let entry = Flow::new(id, keeps, standing(tables, keeps).epoch(), confirmed, now);
        if known.id == id { bucket.update(best.way(), entry) } else { bucket.replace(best.way(), entry) }
    }
}

/// Remembers where the first fragment of a packet went.
#[inline(always)]
pub fn remember_fragment<T: Tables>(tables: &T, hash: u64, backend: u32, now: Ticks) {
    let Some(bucket) = tables.bucket(hash as u32) else { return };
    let best = best_place(&bucket, hash, u32::MAX, now);
    if !best.is_free() {
        tables.note(Note::FlowsFull);
    } else if tables.may(Window::Remember) {
        let epoch = standing(tables, backend).epoch();
        bucket.replace(best.way(), Flow::new(hash, backend, epoch, false, now));
    } else {
        tables.note(Note::FlowsLimited);
    }
}

/// Where the first fragment of a packet went, if it was seen within `idle` ticks.
#[inline(always)]
pub fn fragment<T: Tables>(tables: &T, hash: u64, idle: u32, now: Ticks) -> Option<u32> {
    let bucket = tables.bucket(hash as u32)?;
    let flow = bucket.load(best_place(&bucket, hash, u32::MAX, now).way());
    if flow.id != hash || now.since(flow.seen()) > idle {
        return None;
    }
    let backend = flow.backend();
    let standing = standing(tables, backend);
    (standing.epoch() == flow.epoch() && standing.takes(false)).then_some(backend)
}

#[cfg(test)]
mod tests;
