//! Carries out a decision to forward: rewrites the Ethernet addresses, pushes an outer header, picks the way out.

use aya_ebpf::{bindings::xdp_action, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    abi::{DropReason, Encap, Hop},
    decide::Forward,
    encap,
    packet::Packet,
    parse::L3_OFFSET,
    wire::{ETHER_IPV4, ETHER_IPV6, pod::Pod},
};

use crate::{cursor::Cursor, maps};

/// Rewrites the frame and returns the verdict that sends it.
///
/// # Errors
/// Why it cannot be sent; the frame must be dropped.
#[inline(always)]
pub fn send(ctx: &XdpContext, packet: &Packet, forward: &Forward<'_>) -> Result<u32, DropReason> {
    let Forward { backend, hop, hash, .. } = *forward;
    // First, so that a frame without a way out is counted with the bytes it came with.
    let verdict = way_out(ctx, hop)?;
    match forward.encap {
        Encap::L2 => {
            let ether_type = if packet.is_v4 { ETHER_IPV4 } else { ETHER_IPV6 };
            ethernet(&Cursor::new(ctx), hop, ether_type)?;
        }
        Encap::Ip4 => push(ctx, hop, ETHER_IPV4, encap::ip4(backend, packet, hash))?,
        Encap::Ip6 => push(ctx, hop, ETHER_IPV6, encap::ip6(backend, packet, hash))?,
    }
    Ok(verdict)
}

/// Makes room before the IP header and writes new Ethernet and outer headers.
#[inline(always)]
fn push<H: Pod>(ctx: &XdpContext, hop: Hop, ether_type: u16, outer: H) -> Result<(), DropReason> {
    // SAFETY: the context is the program's own. All cursors made before are dead.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(size_of::<H>() as i32)) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    let frame = Cursor::new(ctx);
    ethernet(&frame, hop, ether_type)?;
    frame.write(L3_OFFSET, outer).ok_or(DropReason::NoHeadroom)
}

#[inline(always)]
fn ethernet(frame: &Cursor<'_>, hop: Hop, ether_type: u16) -> Result<(), DropReason> {
    let (first, second, third) = hop.ethernet(ether_type);
    frame.write(6, third).and_then(|()| frame.write(2, second)).and_then(|()| frame.write(0, first)).ok_or(
        // Not to be reached: the frame was long enough to be parsed.
        DropReason::NoHeadroom,
    )
}

/// Back out of the interface it came in by, or over to another one.
#[inline(always)]
fn way_out(ctx: &XdpContext, hop: Hop) -> Result<u32, DropReason> {
    let port = u32::from(hop.port());
    if maps::port(port) == ctx.ingress_ifindex() as u32 {
        return Ok(xdp_action::XDP_TX);
    }
    maps::redirect(port).ok_or(DropReason::NoPort)
}
