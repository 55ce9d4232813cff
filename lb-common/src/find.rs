//! Looks keys up in the service index: those of packets, and those of backends that QUIC connection IDs name.
//!
//! What only some configurations need stands behind a call in the kernel program, with numbers in and out.

use crate::{
    abi::{Features, Selector, Service, ServiceKey},
    select,
    tables::Tables,
    track,
};

/// The number behind a key: two probes at most.
#[inline(always)]
pub fn exact<T: Tables>(tables: &T, selector: u64, key: &ServiceKey) -> Option<u32> {
    let selector = Selector::from_word(selector);
    let [first, second] = select::index_positions(key, selector);
    for position in [first, second] {
        let entry = tables.index_entry(selector.copy, position)?;
        if entry.matches(key) {
            return Some(entry.service);
        }
    }
    None
}

/// The number of the service that has a key which no service has as it is, plus one; 0 if there is none.
///
/// An exact port comes before any port, and an address before a prefix of addresses.
#[inline(always)]
pub fn wider<T: Tables>(tables: &T, selector: u64, key: ServiceKey) -> u32 {
    widely(tables, selector, key).map_or(0, |number| number.wrapping_add(1))
}

#[inline(always)]
fn widely<T: Tables>(tables: &T, selector: u64, key: ServiceKey) -> Option<u32> {
    let features = tables.features();
    let any_port = features.has(Features::ANY_PORT) && key.port != 0;
    if any_port && let Some(number) = exact(tables, selector, &key.with_port(0)) {
        return Some(number);
    }
    if !features.has(Features::PREFIX_VIP) {
        return None;
    }
    let prefix = tables.prefix(Selector::from_word(selector).copy, key.vip)?;
    let key = ServiceKey::of_prefix(prefix, key.protocol, key.port);
    match exact(tables, selector, &key) {
        None if any_port => exact(tables, selector, &key.with_port(0)),
        number => number,
    }
}

/// Index of the backend that a QUIC connection ID names for a service, if it takes known flows; else
/// [`track::NOBODY`]. `head` and `id` are as a [`crate::packet::Packet`] has them.
#[inline(always)]
pub fn named<T: Tables>(tables: &T, selector: u64, service: &Service, head: u16, id: u64) -> u32 {
    let Some(id) = service.quic.server_id(head, id) else { return track::NOBODY };
    let Some(index) = exact(tables, selector, &ServiceKey::server(service.slot_base, id)) else {
        return track::NOBODY;
    };
    let within = index.wrapping_sub(service.backend_base) < service.backend_count;
    if within && tables.backend(index).is_some_and(|backend| backend.standing().takes(false)) {
        index
    } else {
        track::NOBODY
    }
}
