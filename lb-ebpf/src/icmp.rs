//! Answers that the balancer itself gives: ICMP.

use lb_common::{
    encap::OUTER_TTL,
    packet::Packet,
    parse::Frame,
    wire::{
        checksum,
        ip::{Family, V4, V6},
    },
};

use crate::cursor::Cursor;

/// First byte of an IPv4 header without options.
const PLAIN_V4: u8 = 0x45;

/// Turns an echo request into its reply, in place (RFC 792, RFC 4443 section 4.2). `None`, and nothing is changed, if
/// anything stands between the IP header and the message: nobody pings like that.
#[inline(always)]
pub fn reply_to_echo(frame: &Cursor<'_>, packet: &Packet) -> Option<()> {
    let offset = usize::from(packet.offset);
    let message = if packet.is_v4 {
        if frame.read::<u8>(offset)? != PLAIN_V4 {
            return None;
        }
        offset + 20
    } else {
        if frame.read::<u8>(offset + 6)? != V6::ICMP {
            return None;
        }
        offset + 40
    };
    let start: u32 = frame.read(message)?;
    if packet.is_v4 {
        let source: u32 = frame.read(offset + 12)?;
        let destination: u32 = frame.read(offset + 16)?;
        frame.write(offset + 12, destination)?;
        frame.write(offset + 16, source)?;
        // TTL, protocol and checksum: the swapped addresses leave the sum as it is.
        let word = u32::from_be(frame.read(offset + 8)?);
        let ttl = u32::from(OUTER_TTL) << 24 | word & 0x00ff_0000;
        let check = checksum::update(word as u16, (word >> 16) as u16, (ttl >> 16) as u16);
        frame.write(offset + 8, (ttl | u32::from(check)).to_be())?;
    } else {
        for word in [8, 16] {
            let source: u64 = frame.read(offset + word)?;
            let destination: u64 = frame.read(offset + word + 16)?;
            frame.write(offset + word, destination)?;
            frame.write(offset + word + 16, source)?;
        }
        frame.write(offset + 7, OUTER_TTL)?;
    }
    frame.write(message, reply_start(packet, start))?;
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
