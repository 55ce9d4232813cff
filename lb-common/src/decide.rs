//! The decision: what happens to a packet, as a pure function of the packet and the tables.
//!
//! The order of the steps is the order of the pipeline in ARCHITECTURE.md. Nothing here reads a clock or looks at the
//! packet's bytes; the only table that is written is the flow table, see `track`.

use crate::{
    abi::{
        Backend, Config, DropReason, Encap, Hop, PassReason, Selector, Service, ServiceKey, Standing, Ticks,
    },
    encap,
    packet::{Kind, Packet},
    select,
    tables::Tables,
    track::{self, PacketTraits, Question},
};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'t> {
    /// It goes to a backend.
    Forward(Forward<'t>),
    /// It is an echo request to a VIP: the balancer answers.
    Echo,
    /// It does not fit its backend's tunnel: the sender is told what would.
    TooBig {
        /// Largest IP packet that fits; bytes.
        room: u16,
    },
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
    /// What it is and takes, read once.
    pub standing: Standing,
    /// How the packet gets there.
    pub encap: Encap,
    /// The next hop, read once.
    pub hop: Hop,
    /// Where the packet is counted; later fragments belong to no service.
    pub counter: Option<u32>,
    /// The flow's hash.
    pub hash: u64,
}

/// Decides about one packet.
#[inline(always)]
pub fn decide<'t, T: Tables>(tables: &'t T, packet: &Packet, now: Ticks) -> Decision<'t> {
    let config = tables.config();
    let key = match packet.kind {
        Kind::Whole | Kind::FirstFragment | Kind::IcmpError => {
            ServiceKey::new(packet.destination, packet.protocol, packet.destination_port)
        }
        Kind::LaterFragment | Kind::EchoRequest => ServiceKey::vip(packet.destination),
    };
    let Some((number, service)) = find_service(tables, config.selector, &key) else {
        return Decision::Pass(PassReason::NotForService);
    };
    let (index, hash) = match packet.kind {
        Kind::EchoRequest if service.flags & Service::ECHO != 0 => return Decision::Echo,
        Kind::EchoRequest => return Decision::Pass(PassReason::NotForService),
        Kind::LaterFragment => {
            let hash = fragment_hash(&config, packet);
            match track::fragment(tables, hash, config.fragment_idle, now) {
                Some(index) => (index, hash),
                None => return Decision::Drop(DropReason::FragmentUnknown),
            }
        }
        Kind::Whole | Kind::FirstFragment | Kind::IcmpError => {
            let hash = select::flow_hash(
                config.seed,
                &packet.source,
                &packet.destination,
                packet.source_port,
                packet.destination_port,
                packet.protocol,
            );
            let place = service.slot_base.wrapping_add(select::slot_of(hash, service.slot_count));
            let Some(slot) = tables.slot(place) else {
                return Decision::Drop(DropReason::BackendAbsent);
            };
            // 0 marks an empty place of the flow table.
            let flow = if hash == 0 { 1 } else { hash };
            let question = Question { service: number, place, flow, packet: PacketTraits::of(packet), now };
            match track::backend_of(tables, service, slot, packet, question) {
                Some(index) => (index, hash),
                None => return Decision::Drop(DropReason::NoBackend),
            }
        }
    };
    if packet.kind == Kind::FirstFragment {
        track::remember_fragment(tables, fragment_hash(&config, packet), index, now);
    }

    let Some(backend) = tables.backend(index) else {
        return Decision::Drop(DropReason::BackendAbsent);
    };
    let standing = backend.standing();
    let Some(encap) = standing.encap() else {
        return Decision::Drop(DropReason::BackendAbsent);
    };
    if packet.ttl <= 1 {
        return Decision::Drop(DropReason::TtlExpired);
    }
    let hop = backend.hop();
    // An L2 packet came in whole and leaves as it came; a tunnel adds bytes that may not fit.
    if encap != Encap::L2 && u32::from(packet.length) + encap::overhead(encap) > u32::from(hop.mtu()) {
        let room = u32::from(hop.mtu()).saturating_sub(encap::overhead(encap)) as u16;
        return Decision::TooBig { room };
    }
    let number = index.wrapping_sub(service.backend_base);
    // A later fragment is found by its VIP: which of the VIP's services it is for, nobody knows.
    let counted = number < service.backend_count && !matches!(packet.kind, Kind::LaterFragment);
    Decision::Forward(Forward {
        backend,
        index,
        standing,
        encap,
        hop,
        counter: if counted { Some(service.counter_base.wrapping_add(number)) } else { None },
        hash,
    })
}

#[inline(always)]
fn fragment_hash(config: &Config, packet: &Packet) -> u64 {
    select::fragment_hash(config.seed, &packet.source, &packet.destination, packet.protocol, packet.fragment)
}

/// The service that has this key, and its number: two probes at most.
#[inline(always)]
fn find_service<'t, T: Tables>(tables: &'t T, selector: u64, key: &ServiceKey) -> Option<(u32, &'t Service)> {
    let selector = Selector::from_word(selector);
    let [first, second] = select::index_positions(key, selector.salt, selector.bits);
    let mut entry = tables.index_entry(selector.copy, first)?;
    if !entry.matches(key) {
        entry = tables.index_entry(selector.copy, second)?;
        if !entry.matches(key) {
            return None;
        }
    }
    Some((entry.service, tables.service(entry.service)?))
}
