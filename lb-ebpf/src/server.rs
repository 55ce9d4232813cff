//! The backend's side of a tunnel: strips the outer header, so that no kernel tunnel device is needed.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    parse::{Frame, L3_OFFSET},
    wire::{ETHER_IPV4, ETHER_IPV6, protocol},
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::cursor::Cursor;

/// An outer header with nothing, or something else, behind it.
pub struct BadTunnel;

/// Strips the outer header of an IP-in-IP packet, in all four combinations of families. Leaves anything else
/// as it is.
#[inline(always)]
pub fn decapsulate(ctx: &XdpContext) -> Result<(), BadTunnel> {
    let frame = Cursor::new(ctx);
    let Some(ethernet) = frame.read::<EthHdr>(0) else { return Ok(()) };
    let (inner, outer_len) = match ethernet.ether_type {
        ETHER_IPV4 => match frame.read::<Ipv4Hdr>(L3_OFFSET) {
            // No options and no fragment: what our encapsulation makes.
            Some(outer) if outer.vihl == 0x45 && u16::from_be_bytes(outer.frags) & 0x3fff == 0 => {
                (outer.proto, size_of::<Ipv4Hdr>())
            }
            _ => return Ok(()),
        },
        ETHER_IPV6 => match frame.read::<Ipv6Hdr>(L3_OFFSET) {
            Some(outer) => (outer.next_hdr, size_of::<Ipv6Hdr>()),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let (ether_type, version) = match inner {
        protocol::IPV4 => (ETHER_IPV4, 4),
        protocol::IPV6 => (ETHER_IPV6, 6),
        _ => return Ok(()),
    };
    let first: u8 = frame.read(L3_OFFSET + outer_len).ok_or(BadTunnel)?;
    if first >> 4 != version {
        return Err(BadTunnel);
    }
    // SAFETY: the context is the program's own. The old cursor is not used after this.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, outer_len as i32) } != 0 {
        return Err(BadTunnel);
    }
    let header = EthHdr { ether_type, ..ethernet };
    Cursor::new(ctx).write(0, header).ok_or(BadTunnel)
}
