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
    wire::{ETHER_IPV4, ETHER_IPV6, ip, pod},
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
        Decision::Echo => not_forwarded(Verdict::Pass, Reason::Pass(PassReason::NotForService)),
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
