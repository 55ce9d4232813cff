//! The whole packet path on tables in memory: what the kernel program would do with a frame, byte by byte.
//!
//! Written for clarity against `lb-ebpf/src/main.rs`, which it must agree with; a property test holds the two
//! together.

use lb_common::{
    abi::{DropReason, Encap, Reason},
    decide::{Decision, Forward, decide},
    encap,
    packet::Packet,
    parse::{L3_OFFSET, parse},
    wire::{ETHER_IPV4, ETHER_IPV6, pod},
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
pub fn process(memory: &Memory, frame: &[u8], ingress: u32) -> Outcome {
    let packet = match parse(frame) {
        Ok(packet) => packet,
        Err(reason) => return not_forwarded(Verdict::Pass, Reason::Pass(reason)),
    };
    match decide(memory, &packet) {
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
            Outcome { verdict, counter: Some(forward.counter), reason: None }
        }
        Decision::Pass(reason) => not_forwarded(Verdict::Pass, Reason::Pass(reason)),
        Decision::Drop(reason) => not_forwarded(Verdict::Drop, Reason::Drop(reason)),
    }
}

fn not_forwarded(verdict: Verdict, reason: Reason) -> Outcome {
    Outcome { verdict, counter: None, reason: Some(reason) }
}

fn rewritten(frame: &[u8], packet: &Packet, forward: &Forward<'_>) -> Vec<u8> {
    let (ether_type, outer) = match forward.encap {
        Encap::L2 => (if packet.is_v4 { ETHER_IPV4 } else { ETHER_IPV6 }, Vec::new()),
        Encap::Ip4 => (ETHER_IPV4, pod::bytes(&encap::ip4(forward.backend, packet, forward.hash)).to_vec()),
        Encap::Ip6 => (ETHER_IPV6, pod::bytes(&encap::ip6(forward.backend, packet, forward.hash)).to_vec()),
    };
    let ethernet = [&forward.hop.destination()[..], &forward.hop.source(), &ether_type.to_ne_bytes()];
    [&ethernet.concat(), &outer, &frame[L3_OFFSET..]].concat()
}
