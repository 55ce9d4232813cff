//! The whole packet path on tables in memory: what the kernel program would do with a frame, byte by byte.
//!
//! Written for clarity against `lb-ebpf/src/main.rs`, which it must agree with; a property test holds the two
//! together.

use lb_common::{
    abi::{DropReason, Encap, Note, PassReason, Reason, Ticks},
    decide::{Decision, Forward, decide},
    encap,
    packet::Packet,
    parse::parse,
    wire::{
        ETHER_IPV4, ETHER_IPV6, checksum,
        ip::{self, Family, V4, V6},
        pod,
    },
};

use super::memory::Memory;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Unchanged to the kernel's own stack.
    Pass,
    /// Gone.
    Drop,
    /// Back out of the interface it came in by.
    Transmit(Vec<u8>),
    /// Out of the interface with this index.
    Redirect(u32, Vec<u8>),
}

/// A verdict and what is counted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of the frame.
    pub verdict: Verdict,
    /// The counter of a forwarded packet.
    pub counter: Option<u32>,
    /// The reason of any other.
    pub reason: Option<Reason>,
}

/// Handles a frame that came in by interface `ingress`.
pub fn process(memory: &Memory, frame: &[u8], ingress: u32, now: Ticks) -> Outcome {
    let packet = match parse(frame) {
        Ok(packet) => packet,
        Err(reason) => return not_forwarded(Verdict::Pass, Reason::Pass(reason)),
    };
    match decide(memory, &packet, now) {
        Decision::Forward(forward) => {
            let frame = rewritten(frame, &packet, &forward);
            let out = memory.ports.get(usize::from(forward.hop.port())).copied().unwrap_or(0);
            let verdict = if out == ingress {
                Verdict::Transmit(frame)
            } else if out == 0 {
                return not_forwarded(Verdict::Drop, Reason::Drop(DropReason::NoPort));
            } else {
                Verdict::Redirect(out, frame)
            };
            let reason = forward.counter.is_none().then_some(Reason::Note(Note::LaterFragment));
            Outcome { verdict, counter: forward.counter, reason }
        }
        Decision::Echo => match echo_reply(frame, &packet) {
            Some(reply) => Outcome {
                verdict: Verdict::Transmit(reply),
                counter: None,
                reason: Some(Reason::Note(Note::EchoAnswered)),
            },
            None => not_forwarded(Verdict::Pass, Reason::Pass(PassReason::OtherProtocol)),
        },
        Decision::TooBig { room: _ } => not_forwarded(Verdict::Drop, Reason::Drop(DropReason::TooBig)),
        Decision::Pass(reason) => not_forwarded(Verdict::Pass, Reason::Pass(reason)),
        Decision::Drop(reason) => not_forwarded(Verdict::Drop, Reason::Drop(reason)),
    }
}

fn not_forwarded(verdict: Verdict, reason: Reason) -> Outcome {
    Outcome { verdict, counter: None, reason: Some(reason) }
}

fn rewritten(frame: &[u8], packet: &Packet, forward: &Forward<'_>) -> Vec<u8> {
    let Forward { backend, standing, hop, hash, .. } = *forward;
    // VLAN tags stay; the EtherType behind them is that of the outermost IP header.
    let (head, inner) = frame.split_at(usize::from(packet.offset));
    let (tags, ether_type) = head[12..].split_at(head.len() - 14);
    let (ether_type, outer) = match forward.encap {
        Encap::L2 => (ether_type.to_vec(), Vec::new()),
        Encap::Ip4 => (
            ETHER_IPV4.to_ne_bytes().to_vec(),
            pod::bytes(&encap::ip4(backend, standing, packet, hash)).to_vec(),
        ),
        Encap::Ip6 => (
            ETHER_IPV6.to_ne_bytes().to_vec(),
            pod::bytes(&encap::ip6(backend, standing, packet, hash)).to_vec(),
        ),
    };
    let (destination, source) = (hop.destination(), hop.source());
    [&destination[..], &source, tags, &ether_type, &outer, &one_hop_on(inner, packet)].concat()
}

/// The IP packet with one hop less to live.
fn one_hop_on(packet: &[u8], parsed: &Packet) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if parsed.is_v4 {
        let word = u32::from_ne_bytes([packet[8], packet[9], packet[10], packet[11]]);
        packet[8..12].copy_from_slice(&ip::hop_v4(word).to_ne_bytes());
    } else {
        packet[7] -= 1;
    }
    packet
}

/// The reply to an echo request, if nothing stands between its IP header and the message.
fn echo_reply(frame: &[u8], packet: &Packet) -> Option<Vec<u8>> {
    let offset = usize::from(packet.offset);
    let mut reply = frame.to_vec();
    let (addresses, length, message, kind) = if packet.is_v4 {
        (offset + 12, 4, offset + 20, V4::ECHO_REPLY)
    } else {
        (offset + 8, 16, offset + 40, V6::ECHO_REPLY)
    };
    let is_plain = if packet.is_v4 { frame[offset] == 0x45 } else { frame[offset + 6] == V6::ICMP };
    if !is_plain {
        return None;
    }
    for (at, length) in [(0, 6), (addresses, length)] {
        let (first, second) = reply[at..at + 2 * length].split_at_mut(length);
        first.swap_with_slice(second);
    }
    if packet.is_v4 {
        change(&mut reply, offset + 8, [encap::OUTER_TTL, frame[offset + 9]], offset + 10);
    } else {
        reply[offset + 7] = encap::OUTER_TTL;
    }
    change(&mut reply, message, [kind, frame[message + 1]], message + 2);
    let check = checksum::not_zero(u16::from_be_bytes([reply[message + 2], reply[message + 3]]));
    reply[message + 2..message + 4].copy_from_slice(&check.to_be_bytes());
    Some(reply)
}

/// Writes two bytes, and what they change in the checksum that covers them.
fn change(bytes: &mut [u8], at: usize, new: [u8; 2], check: usize) {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let updated = checksum::update(word(check), word(at), u16::from_be_bytes(new));
    bytes[at..at + 2].copy_from_slice(&new);
    bytes[check..check + 2].copy_from_slice(&updated.to_be_bytes());
}
