//! Who may use a service: lists of sources, and limits for each source.

use crate::{
    abi::{Admission, DropReason, Features, Note, Rate, Reason, Service, Ticks, WAYS},
    addr::Addr,
    select,
    tables::{FlowBucket, Tables},
    track::PacketTraits,
};

/// Whether a source may send this packet to a service: 0, or [`Reason::counter`] of the [`DropReason`] why not. A
/// number, so that the kernel program can ask by a call.
#[inline(always)]
pub fn refusal<T: Tables>(tables: &T, number: u32, source: Addr, packet: PacketTraits, now: Ticks) -> u32 {
    let Some(service) = tables.service(number) else { return 0 };
    let features = tables.features();
    if features.has(Features::ACL) && service.acl != 0 && !is_listed(tables, service, source) {
        return Reason::Drop(DropReason::Denied).counter();
    }
    if features.has(Features::LIMITS) && service.limited != 0 {
        let prefix = source.prefix(u32::from(service.limited));
        let seed = tables.config().seed;
        if !within(tables, identity(seed, &prefix, number, false), service.packets, now) {
            return Reason::Drop(DropReason::PacketLimit).counter();
        }
        if packet.opens() && !within(tables, identity(seed, &prefix, number, true), service.flows, now) {
            return Reason::Drop(DropReason::FlowLimit).counter();
        }
    }
    0
}

/// What a source is known by among those that a service limits: in its packets, or in the connections it opens.
#[inline(always)]
pub const fn identity(seed: u64, source: &Addr, service: u32, connections: bool) -> u64 {
    select::source_hash(seed, source, service << 1 | connections as u32)
}

/// Whether the service's list admits a source.
#[inline(always)]
fn is_listed<T: Tables>(tables: &T, service: &Service, source: Addr) -> bool {
    match tables.prefix(service.acl, source) {
        Some(found) => found == Admission::Allow as u32,
        None => service.flags & Service::DENY_OTHERS == 0,
    }
}

/// Times of a limiter count modulo this: the 31 bits of [`Ticks`] and a fraction.
const CIRCLE: u64 = (1 << (31 + Rate::FRACTION)) - 1;

/// Further ahead than this is behind.
const HALF: u64 = 1 << (30 + Rate::FRACTION);

/// Whether one more may come from the source of this hash; if so, it is counted.
///
/// What is kept of a source is the moment until which it has used up its rate (the theoretical arrival time of the
/// algorithm that [`Rate`] names). CPUs that write it at the same time may let a packet too many pass. A bucket that is
/// full forgets the source that has used up least.
#[inline(always)]
fn within<T: Tables>(tables: &T, id: u64, rate: Rate, now: Ticks) -> bool {
    if rate.interval == 0 {
        return true;
    }
    let Some(bucket) = tables.limiter(id as u32) else { return true };
    let now = moment(now);
    // The place and how far ahead its source is, in one number: see `Best` in `track`.
    let mut best = u64::MAX;
    for way in 0..WAYS {
        let entry = bucket.load(way);
        let ahead = ahead(entry.value, now) & !(WAYS as u64 - 1);
        let ahead = if entry.id == id || entry.id == 0 { 0 } else { ahead + (1 << 52) };
        // One's own place comes before a free one, and any other last.
        let own = if entry.id == id { 0 } else { 1 << 51 };
        let rank = (own + ahead) | way as u64;
        if rank < best {
            best = rank;
        }
    }
    let way = best as usize & (WAYS - 1);
    let entry = bucket.load(way);
    let known = entry.id == id;
    if !known && entry.id != 0 && ahead(entry.value, now) > 0 {
        tables.note(Note::LimiterFull);
    }
    let ahead = if known { ahead(entry.value, now) } else { 0 };
    if !is_within(ahead, rate) {
        return false;
    }
    let value = (now + ahead + u64::from(rate.interval)) & CIRCLE;
    let next = crate::abi::Flow { id, value };
    if known {
        bucket.update(way, next);
    } else {
        bucket.replace(way, next);
    }
    true
}

/// A time as limiters count it.
#[inline(always)]
pub const fn moment(now: Ticks) -> u64 {
    (now.to_bits() as u64) << Rate::FRACTION
}

/// Whether one more may come from a source that is so far ahead of its rate.
#[inline(always)]
pub const fn is_within(ahead: u64, rate: Rate) -> bool {
    ahead <= (rate.tolerance as u64) << Rate::FRACTION
}

/// How far a moment is ahead of `now`; 0 if it is past.
#[inline(always)]
pub const fn ahead(moment: u64, now: u64) -> u64 {
    let ahead = moment.wrapping_sub(now) & CIRCLE;
    if ahead < HALF { ahead } else { 0 }
}
