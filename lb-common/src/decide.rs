//! The decision: what happens to a packet, as a pure function of the packet and the tables.
//!
//! The order of the steps is the order of the pipeline in ARCHITECTURE.md. Nothing here reads a clock or looks at the
//! packet's bytes; the tables that are written are those of flows and of limited sources, see `track` and `admit`.

use crate::{
    abi::{
        Backend, Config, DropReason, Encap, Features, Flow, Hop, PassReason, PrefixKey, Reason, Service,
        ServiceKey, Standing, Ticks,
    },
    find,
    opaque::rarely,
    packet::{Kind, Packet},
    select,
    tables::Tables,
    track::{self, PacketTraits, Question},
    wire::protocol,
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

/// What happens to a packet, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<'t> {
    /// What happens.
    pub decision: Decision<'t>,
    /// Number of the service; [`Decided::NOBODY`] if it is for none.
    pub service: u32,
    /// That service.
    pub record: Option<&'t Service>,
}

impl Decided<'_> {
    /// No service.
    pub const NOBODY: u32 = u32::MAX;

    /// Where the service counts its reasons; [`Decided::NOBODY`] if the packet is for none. Read only when it is asked for:
    /// packets that are forwarded have no reason.
    #[inline(always)]
    pub fn reasons(&self) -> u32 {
        self.record.map_or(Self::NOBODY, Service::reason_base)
    }

    /// The counter of a reason that the packet's service has for it; `None` for those that are counted for all.
    #[inline(always)]
    pub fn counter_of(&self, reason: Reason) -> Option<u32> {
        Some(self.record?.reason_base().wrapping_add(reason.of_service()?))
    }
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

/// Decides about one packet. The clock is asked for the few that the time matters to.
#[inline(always)]
pub fn decide<'t, T: Tables>(tables: &'t T, packet: &Packet, now: impl Fn() -> Ticks) -> Decided<'t> {
    let config = tables.config();
    let nobody = |decision| Decided { decision, service: Decided::NOBODY, record: None };
    if packet.kind == Kind::Tunnel {
        return nobody(not_for_service(tables, packet, PassReason::OtherProtocol));
    }
    let Some((number, service)) = find_service(tables, config.selector, packet) else {
        return nobody(not_for_service(tables, packet, PassReason::NotForService));
    };
    if packet.kind == Kind::EchoRequest && service.flags & Service::ECHO == 0 {
        return nobody(Decision::Pass(PassReason::NotForService));
    }
    Decided {
        decision: serve(tables, &config, number, service, packet, now),
        service: number,
        record: Some(service),
    }
}

/// What happens to a packet that no service has: unless a balancer of ours sent it, it is not our business.
#[inline(always)]
fn not_for_service<'t, T: Tables>(tables: &'t T, packet: &Packet, reason: PassReason) -> Decision<'t> {
    let is_gue = packet.protocol == protocol::UDP && packet.destination_port == tables.gue_port();
    let may_be_ours = packet.kind == Kind::Tunnel || packet.kind == Kind::Whole && is_gue;
    if may_be_ours && tables.prefix(PrefixKey::OWN, packet.source).is_some() {
        return Decision::Drop(DropReason::Looped);
    }
    Decision::Pass(reason)
}

/// What happens to a packet for a service.
#[inline(always)]
fn serve<'t, T: Tables>(
    tables: &'t T,
    config: &Config,
    number: u32,
    service: &Service,
    packet: &Packet,
    now: impl Fn() -> Ticks,
) -> Decision<'t> {
    let features = tables.features();
    // Who is asked more than once gives one answer: all that a packet leaves behind is of the same time.
    let asks_again =
        features.has_any(Features::ACL.with(Features::LIMITS)) || packet.kind == Kind::FirstFragment;
    let fixed = if asks_again { now() } else { Ticks::default() };
    let now = || if asks_again { fixed } else { now() };
    // Later fragments go where a first one went that was admitted.
    if (features.has(Features::ACL) || features.has(Features::LIMITS)) && packet.kind != Kind::LaterFragment {
        let refusal = tables.refusal(number, packet.source, PacketTraits::of(packet), now());
        if refusal != 0 {
            return Decision::Drop(DropReason::from_counter(refusal));
        }
    }
    if packet.kind == Kind::EchoRequest {
        return Decision::Echo;
    }
    let (index, hash) = if packet.kind == Kind::LaterFragment {
        let hash = fragment_hash(config, packet);
        match track::fragment(tables, hash, config.fragment_idle, now()) {
            Some(index) => (index, hash),
            None => return Decision::Drop(DropReason::FragmentUnknown),
        }
    } else {
        let hash = hash(config, features, service, packet);
        let named = if features.has(Features::QUIC) && service.quic.0 != 0 {
            tables.named(config.selector, number, packet.quic_head, packet.quic_id)
        } else {
            track::NOBODY
        };
        if named != track::NOBODY {
            (named, hash)
        } else {
            let place = service.slot_base.wrapping_add(select::slot_of(hash, service.slot_count));
            let Some(slot) = tables.slot(place) else { return drop(DropReason::BackendAbsent) };
            let question = || {
                let (flow, packet) = (Flow::identity(hash), PacketTraits::of(packet));
                Question { service: number, place, flow, packet, now: now() }
            };
            match track::backend_of(tables, service, slot, packet, question) {
                Ok(index) => (index, hash),
                Err(reason) => return Decision::Drop(reason),
            }
        }
    };
    if packet.kind == Kind::FirstFragment {
        track::remember_fragment(tables, fragment_hash(config, packet), index, now());
    }
    send(tables, service, index, hash, packet)
}

/// The hash that chooses the slot and spreads what follows.
#[inline(always)]
pub fn hash(config: &Config, features: Features, service: &Service, packet: &Packet) -> u64 {
    let flow = select::flow_hash(
        config.seed,
        &packet.source,
        &packet.destination,
        packet.source_port,
        packet.destination_port,
        packet.protocol,
    );
    if features.has(Features::AFFINITY) && service.affinity != 0 {
        let source = packet.source.prefix(u32::from(service.affinity));
        return select::affine_hash(config.seed, &source, &packet.destination, flow);
    }
    flow
}

#[inline(always)]
fn drop<'t>(reason: DropReason) -> Decision<'t> {
    Decision::Drop(rarely(reason))
}

/// How a packet gets to its backend.
#[inline(always)]
fn send<'t, T: Tables>(
    tables: &'t T,
    service: &Service,
    index: u32,
    hash: u64,
    packet: &Packet,
) -> Decision<'t> {
    let Some(backend) = tables.backend(index) else { return drop(DropReason::BackendAbsent) };
    let standing = backend.standing();
    let Some(encap) = standing.encap() else { return drop(DropReason::BackendAbsent) };
    if packet.ttl <= 1 {
        return drop(DropReason::TtlExpired);
    }
    let hop = backend.hop();
    // An L2 packet came in whole and leaves as it came; a tunnel adds bytes that may not fit.
    if encap != Encap::L2 && u32::from(packet.length) + standing.overhead() > u32::from(hop.mtu()) {
        let room = u32::from(hop.mtu()).saturating_sub(standing.overhead()) as u16;
        return Decision::TooBig { room };
    }
    // A later fragment is found by its VIP: which of the VIP's services it is for, nobody knows.
    let counted = packet.kind != Kind::LaterFragment;
    let number = index.wrapping_sub(service.backend_base);
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

/// The hash of what the fragments of a packet have in common.
#[inline(always)]
pub fn fragment_hash(config: &Config, packet: &Packet) -> u64 {
    select::fragment_hash(config.seed, &packet.source, &packet.destination, packet.protocol, packet.fragment)
}

/// The service that a packet is for, and its number.
#[inline(always)]
pub fn find_service<'t, T: Tables>(
    tables: &'t T,
    selector: u64,
    packet: &Packet,
) -> Option<(u32, &'t Service)> {
    let key = match packet.kind {
        Kind::Whole | Kind::FirstFragment | Kind::IcmpError => {
            ServiceKey::new(packet.destination, packet.protocol, packet.destination_port)
        }
        Kind::LaterFragment | Kind::EchoRequest | Kind::Tunnel => ServiceKey::vip(packet.destination),
    };
    let features = tables.features();
    let number = match find::exact(tables, selector, &key) {
        Some(number) => number,
        None if features.has_any(Features::ANY_PORT.with(Features::PREFIX_VIP)) => {
            tables.wider(selector, key).checked_sub(1)?
        }
        None => return None,
    };
    Some((number, tables.service(number)?))
}
