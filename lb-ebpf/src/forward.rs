//! Carries out a decision to forward: takes a hop off the TTL, rewrites the Ethernet addresses, pushes an outer header,
//! picks the way out.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_xdp_adjust_head, generated::bpf_xdp_store_bytes},
    programs::XdpContext,
};
use lb_common::{
    abi::{DropReason, Encap, Features, Hop, Port},
    decide::Forward,
    encap,
    opaque::rarely,
    packet::Packet,
    parse::{Frame, L3_OFFSET},
    wire::{ETHER_IPV4, ETHER_IPV6, ip, pod::Pod},
};

use crate::{cursor::Cursor, link::Tags, maps};

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
pub fn send(
    ctx: &XdpContext,
    packet: &Packet,
    offset: usize,
    forward: &Forward<'_>,
) -> Result<u32, DropReason> {
    let Forward { backend, standing, hop, hash, .. } = *forward;
    // First, so that a frame without a way out is counted with the bytes it came with.
    let port = maps::port(u32::from(hop.port()));
    let verdict = way_out(ctx, hop, port)?;
    let frame = Cursor::new(ctx);
    // What was parsed is there: no access below fails but for want of headroom.
    let header = if maps::LEAN { frame.from(offset) } else { frame.behind(offset) };
    take_hop(&header, packet).ok_or_else(no_headroom)?;
    let head = Head { offset, hop, vlan: port.vlan };
    let written = match forward.encap {
        Encap::L2 if port.vlan == 0 => address(&frame, hop),
        Encap::L2 => {
            let ether_type = if packet.is_v4 { ETHER_IPV4 } else { ETHER_IPV6 };
            head.replace(ctx, 0, ether_type).map(|_| ())
        }
        Encap::Ip4 => head.push(ctx, ETHER_IPV4, encap::ip4(backend, standing, packet, hash)),
        Encap::Ip6 => head.push(ctx, ETHER_IPV6, encap::ip6(backend, standing, packet, hash)),
        // The verifier removes what no backend uses.
        Encap::Gue4 | Encap::Gue6 | Encap::GueHeader4 | Encap::GueHeader6
            if !maps::features().has(Features::GUE) =>
        {
            None
        }
        Encap::Gue4 | Encap::Gue6 | Encap::GueHeader4 | Encap::GueHeader6 => {
            let outer = encap::gue(backend, standing, forward.encap, packet, hash);
            let ether_type = if forward.encap.is_outer_v4() { ETHER_IPV4 } else { ETHER_IPV6 };
            head.push_part(ctx, ether_type, &outer, encap::gue_length(standing))
        }
    };
    written.ok_or_else(no_headroom)?;
    Ok(verdict)
}

#[inline(always)]
fn no_headroom() -> DropReason {
    rarely(DropReason::NoHeadroom)
}

#[inline(always)]
fn take_hop(header: &Cursor<'_>, packet: &Packet) -> Option<()> {
    if packet.is_v4 {
        let word: u32 = header.read(TTL_WORD)?;
        header.write(TTL_WORD, ip::hop_v4(word))
    } else {
        header.write(HOP_LIMIT, packet.ttl - 1)
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

/// What a frame is to have before its IP header.
struct Head {
    offset: usize,
    hop: Hop,
    vlan: u32,
}

impl Head {
    /// Makes room for an outer header before the IP header and writes it. VLAN tags stay before it.
    #[inline(always)]
    fn push<H: Pod>(&self, ctx: &XdpContext, ether_type: u16, outer: H) -> Option<()> {
        if maps::LEAN && self.offset == L3_OFFSET && self.vlan == 0 {
            // All at known places, and written from the end: what is checked there is checked.
            let frame = moved(ctx, size_of::<H>() as i32)?;
            frame.write(L3_OFFSET, outer)?;
            return ethernet(&frame, self.hop, ether_type);
        }
        let offset = self.replace(ctx, size_of::<H>(), ether_type)?;
        Cursor::new(ctx).write(offset, outer)
    }

    /// The same for the first bytes of a header, however many. By a helper, which takes any length.
    #[inline(always)]
    fn push_part(&self, ctx: &XdpContext, ether_type: u16, outer: &encap::Gue, length: u32) -> Option<()> {
        let offset = self.replace(ctx, length as usize, ether_type)?;
        let from = core::ptr::from_ref(outer).cast_mut().cast();
        // SAFETY: the context is the program's own, and so many bytes are there to read.
        let stored = unsafe { bpf_xdp_store_bytes(ctx.ctx, offset as u32, from, length) };
        (stored == 0).then_some(())
    }

    /// Makes room for so many bytes, writes all that stands before them, and returns where they begin.
    #[inline(always)]
    fn replace(&self, ctx: &XdpContext, room: usize, ether_type: u16) -> Option<usize> {
        let old = Tags::read(&Cursor::new(ctx), self.offset)?;
        let tags = if self.vlan == 0 { old } else { old.only(self.vlan) };
        let frame = moved(ctx, room as i32 + tags.len() as i32 - old.len() as i32)?;
        ethernet(&frame, self.hop, ether_type)?;
        tags.write(&frame, ether_type)
    }
}

/// The frame after its start has moved so far to the front. All cursors made before are dead.
#[inline(always)]
fn moved(ctx: &XdpContext, room: i32) -> Option<Cursor<'_>> {
    // SAFETY: the context is the program's own.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -room) } != 0 {
        return None;
    }
    Some(Cursor::new(ctx))
}

/// Back out of the interface it came in by, or over to another one.
#[inline(always)]
fn way_out(ctx: &XdpContext, hop: Hop, port: Port) -> Result<u32, DropReason> {
    if port.ifindex == ctx.ingress_ifindex() as u32 {
        // Not known to the verifier: what follows is the same for every way out.
        return Ok(xdp_action::XDP_TX | maps::zero());
    }
    maps::redirect(u32::from(hop.port())).ok_or_else(|| rarely(DropReason::NoPort))
}
