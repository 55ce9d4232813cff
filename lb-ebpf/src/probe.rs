//! Steers health probes: a packet whose mark names a backend gets that backend's own next hop and outer header,
//! whatever its lookup table says. So a probe to the VIP takes the path that clients' packets take.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_redirect, bpf_skb_vlan_push, generated::bpf_skb_store_bytes},
    programs::TcContext,
};
use lb_common::{
    abi::{Encap, Features, Hop, PROBE_MARK, PROBE_MARK_MASK, Port},
    encap::{self, VLAN_ID},
    parse::{Copied, Frame, L3_OFFSET, parse},
    tables::Tables,
    wire::{ETHER_IPV4, ETHER_IPV6, ETHER_VLAN, pod::Pod},
};
use network_types::eth::EthHdr;

use crate::maps::{self, Maps};

/// What became of a packet.
pub enum Steered {
    /// It carries no probe mark.
    NotOurs,
    /// It leaves by this interface, rewritten.
    Here,
    /// It leaves by another: the verdict of the redirect.
    Elsewhere(i32),
    /// Its backend is gone, or it could not be rewritten. It must not go where it was not meant to.
    Lost,
}

/// Frames of the tc hook are read by helper calls: their headers need not be linear.
struct Skb<'c>(&'c TcContext);

impl Frame for Skb<'_> {
    type View<'f, T: Pod>
        = Copied<T>
    where
        Self: 'f;

    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<Copied<T>> {
        self.0.load(offset).ok().map(Copied)
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        self.0.len() as usize >= length
    }
}

/// Rewrites a marked packet for the backend that its mark names.
#[inline(always)]
pub fn steer(ctx: &mut TcContext) -> Steered {
    // SAFETY: the context is the program's own.
    let (mark, ifindex) = unsafe { ((*ctx.skb.skb).mark, (*ctx.skb.skb).ifindex) };
    if mark & PROBE_MARK_MASK != PROBE_MARK {
        return Steered::NotOurs;
    }
    match rewrite(ctx, mark & !PROBE_MARK_MASK) {
        Some(hop) => {
            let Port { ifindex: out, vlan } = maps::port(u32::from(hop.port()));
            // SAFETY: the context is the program's own.
            if vlan != 0 && unsafe { bpf_skb_vlan_push(ctx.skb.skb, ETHER_VLAN, vlan as u16 & VLAN_ID) } != 0
            {
                return Steered::Lost;
            }
            // The mark has done its work; left on, it would be steered again on the interface it goes to.
            ctx.set_mark(0);
            if out == ifindex {
                Steered::Here
            } else if out == 0 {
                Steered::Lost
            } else {
                // SAFETY: the helper has no preconditions.
                Steered::Elsewhere(unsafe { bpf_redirect(out, 0) } as i32)
            }
        }
        None => Steered::Lost,
    }
}

#[inline(always)]
fn rewrite(ctx: &TcContext, index: u32) -> Option<Hop> {
    let backend = Maps.backend(index)?;
    let standing = backend.standing();
    let encap = standing.encap()?;
    let hop = backend.hop();
    let packet = parse(&Skb(ctx), Features::NONE).ok()?;
    // Any hash will do: each backend keeps to one outer source for its probes.
    let hash = u64::from(index);
    match encap {
        Encap::L2 => ethernet(ctx, hop, if packet.is_v4 { ETHER_IPV4 } else { ETHER_IPV6 })?,
        Encap::Ip4 => {
            push(ctx, encap::ip4(backend, standing, &packet, hash), BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)?;
            ethernet(ctx, hop, ETHER_IPV4)?;
        }
        Encap::Ip6 => {
            push(ctx, encap::ip6(backend, standing, &packet, hash), BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)?;
            ethernet(ctx, hop, ETHER_IPV6)?;
        }
        Encap::Gue4 | Encap::Gue6 | Encap::GueHeader4 | Encap::GueHeader6 => {
            let (flag, ether_type) = if encap.is_outer_v4() {
                (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, ETHER_IPV4)
            } else {
                (BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, ETHER_IPV6)
            };
            let outer = encap::gue(backend, standing, encap, &packet, hash);
            push_part(ctx, &outer, encap::gue_length(standing), flag | BPF_F_ADJ_ROOM_ENCAP_L4_UDP)?;
            ethernet(ctx, hop, ether_type)?;
        }
    }
    Some(hop)
}

#[inline(always)]
fn push<H: Pod>(ctx: &TcContext, outer: H, flag: u32) -> Option<()> {
    ctx.adjust_room(size_of::<H>() as i32, BPF_ADJ_ROOM_MAC, u64::from(flag)).ok()?;
    ctx.store(L3_OFFSET, &outer, 0).ok()
}

/// The same for the first bytes of a header, however many.
#[inline(always)]
fn push_part(ctx: &TcContext, outer: &encap::Gue, length: u32, flags: u32) -> Option<()> {
    ctx.adjust_room(length as i32, BPF_ADJ_ROOM_MAC, u64::from(flags)).ok()?;
    let from = core::ptr::from_ref(outer).cast();
    // SAFETY: the context is the program's own, and so many bytes are there to read.
    let stored = unsafe { bpf_skb_store_bytes(ctx.skb.skb.cast(), L3_OFFSET as u32, from, length, 0) };
    (stored == 0).then_some(())
}

#[inline(always)]
fn ethernet(ctx: &TcContext, hop: Hop, ether_type: u16) -> Option<()> {
    let header = EthHdr { dst_addr: hop.destination(), src_addr: hop.source(), ether_type };
    ctx.store(0, &header, 0).ok()
}
