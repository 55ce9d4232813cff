//! Carries out a decision to forward: takes a hop off the TTL, rewrites the Ethernet addresses, pushes an outer header,
//! picks the way out.

use aya_ebpf::{bindings::xdp_action, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    abi::{DropReason, Encap, Hop},
    decide::Forward,
    encap,
    packet::Packet,
    parse::{Frame, L3_OFFSET},
    wire::{ETHER_IPV4, ETHER_IPV6, ip, pod::Pod},
};

use crate::{cursor::Cursor, maps};

/// Where the `EtherType` of a frame is, or of its first VLAN tag.
const ETHER_TYPE: usize = 12;

/// Where the word with an IPv4 header's TTL is, and the byte with an IPv6 header's hop limit.
const TTL_WORD: usize = 8;
const HOP_LIMIT: usize = 7;

/// Rewrites the frame and returns the verdict that sends it.
///
/// # Errors
/// Why it cannot be sent; the frame must be dropped.
#[inline(always)]
pub fn send(ctx: &XdpContext, packet: &Packet, forward: &Forward<'_>) -> Result<u32, DropReason> {
    let Forward { backend, standing, hop, hash, .. } = *forward;
    // First, so that a frame without a way out is counted with the bytes it came with.
    let verdict = way_out(ctx, hop)?;
    let frame = Cursor::new(ctx);
    // What was parsed is there: no access below fails but for want of headroom.
    take_hop(&frame, packet).ok_or(DropReason::NoHeadroom)?;
    match forward.encap {
        Encap::L2 => address(&frame, hop).ok_or(DropReason::NoHeadroom)?,
        Encap::Ip4 => push(ctx, packet, hop, ETHER_IPV4, encap::ip4(backend, standing, packet, hash))?,
        Encap::Ip6 => push(ctx, packet, hop, ETHER_IPV6, encap::ip6(backend, standing, packet, hash))?,
    }
    Ok(verdict)
}

#[inline(always)]
fn take_hop(frame: &Cursor<'_>, packet: &Packet) -> Option<()> {
    let offset = usize::from(packet.offset);
    if packet.is_v4 {
        let word: u32 = frame.read(offset + TTL_WORD)?;
        frame.write(offset + TTL_WORD, ip::hop_v4(word))
    } else {
        frame.write(offset + HOP_LIMIT, packet.ttl - 1)
    }
}

/// Writes the Ethernet addresses and leaves what follows as it is.
#[inline(always)]
fn address(frame: &Cursor<'_>, hop: Hop) -> Option<()> {
    let ether_type: u16 = frame.read(ETHER_TYPE)?;
    ethernet(frame, hop, ether_type)
}

#[inline(always)]
fn ethernet(frame: &Cursor<'_>, hop: Hop, ether_type: u16) -> Option<()> {
    let (first, second, third) = hop.ethernet(ether_type);
    frame.write(6, third)?;
    frame.write(2, second)?;
    frame.write(0, first)
}

/// Makes room before the IP header and writes new Ethernet and outer headers. VLAN tags stay before the outer one.
#[inline(always)]
fn push<H: Pod>(
    ctx: &XdpContext,
    packet: &Packet,
    hop: Hop,
    ether_type: u16,
    outer: H,
) -> Result<(), DropReason> {
    let old = Cursor::new(ctx);
    let offset = usize::from(packet.offset);
    let tagged = offset > L3_OFFSET;
    let tags: (u32, u32) = if tagged {
        // Each tag as a word: its EtherType and its control information.
        (old.read(ETHER_TYPE).unwrap_or(0), old.read(ETHER_TYPE + 4).unwrap_or(0))
    } else {
        (0, 0)
    };
    // SAFETY: the context is the program's own. All cursors made before are dead.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(size_of::<H>() as i32)) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    let frame = Cursor::new(ctx);
    let written = if tagged {
        ethernet(&frame, hop, tags.0 as u16)
            .and_then(|()| frame.write(ETHER_TYPE, tags.0))
            .and_then(|()| frame.write(ETHER_TYPE + 4, tags.1))
            .and_then(|()| frame.write(offset - 2, ether_type))
            .and_then(|()| frame.write(offset, outer))
    } else {
        ethernet(&frame, hop, ether_type).and_then(|()| frame.write(L3_OFFSET, outer))
    };
    written.ok_or(DropReason::NoHeadroom)
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
