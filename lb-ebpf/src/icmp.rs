//! Answers that the balancer itself gives: ICMP.

use aya_ebpf::{
    helpers::{
        bpf_xdp_adjust_head,
        generated::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    },
    programs::XdpContext,
};
use lb_common::{
    abi::Window,
    encap::OUTER_TTL,
    packet::Packet,
    parse::Frame,
    tables::Tables as _,
    too_big::{self, Notice},
    wire::{
        ETHER_IPV4, ETHER_IPV6, checksum,
        ip::{Family, V4, V6},
        pod::Pod,
    },
};

use crate::{cursor::Cursor, link::Tags, maps::Maps};

/// First byte of an IPv4 header without options.
const PLAIN_V4: u8 = 0x45;

/// Turns an echo request into its reply, in place (RFC 792, RFC 4443 section 4.2). `None`, and nothing is changed, if
/// anything stands between the IP header and the message: nobody pings like that.
#[inline(always)]
pub fn reply_to_echo(frame: &Cursor<'_>, packet: &Packet) -> Option<()> {
    let header = frame.behind(usize::from(packet.offset));
    let message = if packet.is_v4 {
        if header.read::<u8>(0)? != PLAIN_V4 {
            return None;
        }
        20
    } else {
        if header.read::<u8>(6)? != V6::ICMP {
            return None;
        }
        40
    };
    let start: u32 = header.read(message)?;
    if packet.is_v4 {
        let source: u32 = header.read(12)?;
        let destination: u32 = header.read(16)?;
        header.write(12, destination)?;
        header.write(16, source)?;
        // TTL, protocol and checksum: the swapped addresses leave the sum as it is.
        let word = u32::from_be(header.read(8)?);
        let ttl = u32::from(OUTER_TTL) << 24 | word & 0x00ff_0000;
        let check = checksum::update(word as u16, (word >> 16) as u16, (ttl >> 16) as u16);
        header.write(8, (ttl | u32::from(check)).to_be())?;
    } else {
        for word in [8, 16] {
            let source: u64 = header.read(word)?;
            let destination: u64 = header.read(word + 16)?;
            header.write(word, destination)?;
            header.write(word + 16, source)?;
        }
        header.write(7, OUTER_TTL)?;
    }
    header.write(message, reply_start(packet, start))?;
    swap_ethernet(frame)
}

/// Type, code and checksum of the reply. Both families' reply differs from the request in the type only, and the
/// addresses of the pseudo-header only change places.
#[inline(always)]
const fn reply_start(packet: &Packet, start: u32) -> u32 {
    let host = u32::from_be(start);
    let old = (host >> 16) as u16;
    let kind = if packet.is_v4 { V4::ECHO_REPLY } else { V6::ECHO_REPLY };
    let new = (kind as u16) << 8 | old & 0xff;
    let check = checksum::not_zero(checksum::update(host as u16, old, new));
    ((new as u32) << 16 | check as u32).to_be()
}

/// Turns a packet that is too big into the message that tells its sender so, in place: the start of it, behind new
/// headers. `None`, and nothing is changed, if it must not or cannot be answered, or enough were.
#[inline(always)]
pub fn tell_what_fits(ctx: &XdpContext, packet: &Packet, room: u16) -> Option<()> {
    if !too_big::is_answered(packet, room) || !Maps.may(Window::Answer) {
        return None;
    }
    let quotable = Cursor::new(ctx).behind(usize::from(packet.offset));
    if packet.is_v4 {
        let quoted = quotable.sum::<{ too_big::QUOTED_V4 }>(0, 0)?;
        wrap(ctx, packet, too_big::QUOTED_V4, too_big::notice_v4(packet, room, quoted))
    } else {
        // Three times, because the helper takes no more at once.
        let quoted = quotable.sum::<512>(0, 0)?;
        let quoted = quotable.sum::<512>(512, quoted)?;
        let quoted = quotable.sum::<{ too_big::QUOTED_V6 - 1024 }>(1024, quoted)?;
        wrap(ctx, packet, too_big::QUOTED_V6, too_big::notice_v6(packet, room, quoted))
    }
}

/// Puts headers before the first bytes of the IP packet, cuts the rest off, and turns the frame round.
#[inline(always)]
fn wrap<H: Pod>(ctx: &XdpContext, packet: &Packet, quoted: usize, headers: Notice<H>) -> Option<()> {
    let offset = usize::from(packet.offset);
    let frame = Cursor::new(ctx);
    let destination: (u16, u32) = (frame.read(0)?, frame.read(2)?);
    let source: (u32, u16) = (frame.read(6)?, frame.read(10)?);
    let tags = Tags::read(&frame, offset)?;
    // SAFETY: the context is the program's own. All cursors made before are dead.
    let resized = unsafe {
        let length = bpf_xdp_get_buff_len(ctx.ctx) as usize;
        bpf_xdp_adjust_tail(ctx.ctx, (offset + quoted) as i32 - length as i32) == 0
            && bpf_xdp_adjust_head(ctx.ctx, -(size_of::<H>() as i32)) == 0
    };
    let frame = Cursor::new(ctx);
    if !resized {
        return None;
    }
    let Notice(headers) = headers;
    frame.write(0, source.0)?;
    frame.write(4, source.1)?;
    frame.write(6, destination.0)?;
    frame.write(8, destination.1)?;
    let offset = tags.write(&frame, if packet.is_v4 { ETHER_IPV4 } else { ETHER_IPV6 })?;
    frame.write(offset, headers)
}

#[inline(always)]
fn swap_ethernet(frame: &Cursor<'_>) -> Option<()> {
    let destination: (u16, u32) = (frame.read(0)?, frame.read(2)?);
    let source: (u32, u16) = (frame.read(6)?, frame.read(10)?);
    let [a, b, c, d] = source.0.to_ne_bytes();
    let [e, f] = source.1.to_ne_bytes();
    frame.write(0, u16::from_ne_bytes([a, b]))?;
    frame.write(2, u32::from_ne_bytes([c, d, e, f]))?;
    let [a, b] = destination.0.to_ne_bytes();
    let [c, d, e, f] = destination.1.to_ne_bytes();
    frame.write(6, u32::from_ne_bytes([a, b, c, d]))?;
    frame.write(10, u16::from_ne_bytes([e, f]))
}
