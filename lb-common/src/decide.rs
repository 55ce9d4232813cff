//! The decision: what happens to a packet, as a pure function of the packet and the tables.
//!
//! The order of the steps is the order of the pipeline in ARCHITECTURE.md. Nothing here reads a clock, writes a
//! table, or looks at the packet's bytes.

use crate::{
    abi::{Backend, DropReason, Encap, Hop, PassReason, Selector, Service, ServiceKey},
    encap,
    packet::Packet,
    select,
    tables::Tables,
};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'t> {
    /// It goes to a backend.
    Forward(Forward<'t>),
    /// It is not for us: the kernel's own stack gets it.
    Pass(PassReason),
    /// It is for us and cannot be served.
    Drop(DropReason),
}

/// Where a packet goes and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'t> {
    /// The backend.
    pub backend: &'t Backend,
    /// Its index.
    pub index: u32,
    /// How the packet gets there.
    pub encap: Encap,
    /// The next hop, read once.
    pub hop: Hop,
    /// Where the packet is counted.
    pub counter: u32,
    /// The flow's hash.
    pub hash: u64,
}

/// Decides about one packet.
#[inline(always)]
pub fn decide<'t, T: Tables>(tables: &'t T, packet: &Packet) -> Decision<'t> {
    let config = tables.config();
    let key = ServiceKey::new(packet.destination, packet.protocol, packet.destination_port);
    let Some(service) = find_service(tables, config.selector, &key) else {
        return Decision::Pass(PassReason::NotForService);
    };

    let hash = select::flow_hash(
        config.seed,
        &packet.source,
        &packet.destination,
        packet.source_port,
        packet.destination_port,
        packet.protocol,
    );
    let offset = select::slot_of(hash, service.slot_count);
    let Some(slot) = tables.slot(service.slot_base.wrapping_add(offset)) else {
        return Decision::Drop(DropReason::BackendAbsent);
    };
    let Some(number) = slot.owner() else {
        return Decision::Drop(DropReason::NoBackend);
    };
    if u32::from(number) >= service.backend_count {
        return Decision::Drop(DropReason::BackendAbsent);
    }
    let index = service.backend_base.wrapping_add(u32::from(number));
    let Some(backend) = tables.backend(index) else {
        return Decision::Drop(DropReason::BackendAbsent);
    };
    let Some(encap) = Encap::from_byte(backend.encap) else {
        return Decision::Drop(DropReason::BackendAbsent);
    };
    let hop = backend.hop();
    // An L2 packet came in whole and leaves as it came; a tunnel adds bytes that may not fit.
    if encap != Encap::L2 && u32::from(packet.length) + encap::overhead(encap) > u32::from(hop.mtu()) {
        return Decision::Drop(DropReason::TooBig);
    }
    Decision::Forward(Forward {
        backend,
        index,
        encap,
        hop,
        counter: service.counter_base.wrapping_add(u32::from(number)),
        hash,
    })
}

/// The service that has this key: two probes at most.
#[inline(always)]
fn find_service<'t, T: Tables>(tables: &'t T, selector: u64, key: &ServiceKey) -> Option<&'t Service> {
    let selector = Selector::from_word(selector);
    let [first, second] = select::index_positions(key, selector.salt, selector.bits);
    let mut entry = tables.index_entry(selector.copy, first)?;
    if !entry.matches(key) {
        entry = tables.index_entry(selector.copy, second)?;
        if !entry.matches(key) {
            return None;
        }
    }
    tables.service(entry.service)
}
