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

use crate::{cursor::Cursor, maps};

/// An outer header with nothing, or something else, behind it.
pub struct BadTunnel;

/// Strips the outer headers of an IP-in-IP or GUE packet, in all four combinations of families. Leaves anything else
/// as it is.
///
/// A UDP checksum is not looked at: the inner packet has its own, and the balancer sends none.
#[inline(always)]
pub fn decapsulate(ctx: &XdpContext) -> Result<(), BadTunnel> {
    let frame = Cursor::new(ctx);
    let Some(ethernet) = frame.read::<EthHdr>(0) else { return Ok(()) };
    let (protocol, outer) = match ethernet.ether_type {
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
    let (outer, inner) = match protocol {
        protocol::IPV4 | protocol::IPV6 => (outer, inner_type(protocol)),
        protocol::UDP => match gue(&frame, L3_OFFSET + outer)? {
            Some((header, inner)) => (outer + header, inner),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let Some((ether_type, version)) = inner else { return Ok(()) };
    let first: u8 = frame.read(L3_OFFSET + outer).ok_or(BadTunnel)?;
    if first >> 4 != version {
        return Err(BadTunnel);
    }
    // SAFETY: the context is the program's own. The old cursor is not used after this.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, outer as i32) } != 0 {
        return Err(BadTunnel);
    }
    let header = EthHdr { ether_type, ..ethernet };
    Cursor::new(ctx).write(0, header).ok_or(BadTunnel)
}

/// `EtherType` and version of what a protocol number says is inside.
type Inner = Option<(u16, u8)>;

#[inline(always)]
const fn inner_type(protocol: u8) -> Inner {
    match protocol {
        protocol::IPV4 => Some((ETHER_IPV4, 4)),
        protocol::IPV6 => Some((ETHER_IPV6, 6)),
        _ => None,
    }
}

/// How long UDP and GUE header at `offset` are together, and what is behind; `None` for other datagrams, and for GUE
/// with what we do not send (control messages, optional fields, other payloads): the kernel's own driver may know it.
#[inline(always)]
fn gue(frame: &Cursor<'_>, offset: usize) -> Result<Option<(usize, Inner)>, BadTunnel> {
    let Some(port) = frame.read::<u16>(offset + 2) else { return Ok(None) };
    if u16::from_be(port) != maps::gue_port() {
        return Ok(None);
    }
    let first: u8 = frame.read(offset + UDP_HEADER).ok_or(BadTunnel)?;
    match first >> 4 {
        4 => Ok(Some((UDP_HEADER, Some((ETHER_IPV4, 4))))),
        6 => Ok(Some((UDP_HEADER, Some((ETHER_IPV6, 6))))),
        _ => {
            let header: u32 = frame.read(offset + UDP_HEADER).ok_or(BadTunnel)?;
            let [plain, inner, flags, more] = header.to_le_bytes();
            if plain != 0 || flags != 0 || more != 0 {
                return Ok(None);
            }
            Ok(Some((UDP_HEADER + GUE_HEADER, inner_type(inner))))
        }
    }
}

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Bytes of the header of GUE variant 0.
const GUE_HEADER: usize = 4;
