//! The whole packet path on tables in memory: what the kernel program would do with a frame, byte by byte.
//!
//! Written for clarity against `lb-ebpf/src/main.rs`, which it must agree with; a property test holds the two
//! together.

use lb_common::{
    abi::{DropReason, Encap, Features, Note, PassReason, Port, Reason, Ticks, Window},
    decide::{Decided, Decision, Forward, decide},
    encap,
    packet::Packet,
    parse::parse,
    tables::Tables,
    too_big::{self, Notice},
    wire::{
        ETHER_IPV4, ETHER_IPV6, ETHER_VLAN, checksum,
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
    /// Its service's counter, if one counts it: that of the backend it goes to, or of the reason why it does not.
    pub counter: Option<u32>,
    /// The reason, unless it went to a backend.
    pub reason: Option<Reason>,
    /// What it counts for beside one packet; bytes.
    pub bytes: u64,
}

/// Handles a frame that came in by interface `ingress`.
pub fn process(memory: &Memory, frame: &[u8], ingress: u32, now: Ticks) -> Outcome {
    let port = |number: u16| {
        let number = usize::from(number) % memory.ports.len().max(1);
        memory.ports.get(number).copied().unwrap_or_default()
    };
    process_on(memory, port, frame, ingress, now)
}

/// The same on any tables; `port` knows where packets leave.
pub fn process_on<T: Tables>(
    tables: &T,
    port: impl Fn(u16) -> Port,
    frame: &[u8],
    ingress: u32,
    now: Ticks,
) -> Outcome {
    let packet = match parse(frame, tables.features()) {
        Ok(packet) => packet,
        Err(reason) => {
            let bytes = frame.len() as u64;
            return Outcome {
                verdict: Verdict::Pass,
                counter: None,
                reason: Some(Reason::Pass(reason)),
                bytes,
            };
        }
    };
    let decided = decide(tables, &packet, || now);
    let (verdict, counter, reason) = carried_out(tables, &port, frame, ingress, &packet, &decided);
    let counter = counter.or_else(|| decided.counter_of(reason?));
    let bytes = if verdict == Verdict::Pass { frame.len() } else { usize::from(packet.length) };
    Outcome { verdict, counter, reason, bytes: bytes as u64 }
}

/// What becomes of the frame, the counter of the backend it goes to, and the reason if it does not.
fn carried_out<T: Tables>(
    tables: &T,
    port: &dyn Fn(u16) -> Port,
    frame: &[u8],
    ingress: u32,
    packet: &Packet,
    decided: &Decided<'_>,
) -> (Verdict, Option<u32>, Option<Reason>) {
    let without_backend = |verdict, reason| (verdict, None, Some(reason));
    match decided.decision {
        Decision::Forward(forward) => {
            let port = port(forward.hop.port());
            if port.ifindex == 0 && ingress != 0 {
                return without_backend(Verdict::Drop, Reason::Drop(DropReason::NoPort));
            }
            // A plan loads the program for what it writes; here something else has written.
            if forward.encap.is_gue() && !tables.features().has(Features::GUE) {
                return without_backend(Verdict::Drop, Reason::Drop(DropReason::NoHeadroom));
            }
            let frame = rewritten(frame, packet, &forward, port);
            let verdict = if port.ifindex == ingress {
                Verdict::Transmit(frame)
            } else {
                Verdict::Redirect(port.ifindex, frame)
            };
            let reason = forward.counter.is_none().then_some(Reason::Note(Note::LaterFragment));
            (verdict, forward.counter, reason)
        }
        Decision::Echo => match echo_reply(frame, packet) {
            Some(reply) => without_backend(Verdict::Transmit(reply), Reason::Note(Note::EchoAnswered)),
            None => without_backend(Verdict::Pass, Reason::Pass(PassReason::OtherProtocol)),
        },
        Decision::TooBig { room } if too_big::is_answered(packet, room) && tables.may(Window::Answer) => {
            let answer = notice(frame, packet, room);
            without_backend(Verdict::Transmit(answer), Reason::Note(Note::TooBigAnswered))
        }
        Decision::TooBig { room: _ } => without_backend(Verdict::Drop, Reason::Drop(DropReason::TooBig)),
        Decision::Pass(reason) => without_backend(Verdict::Pass, Reason::Pass(reason)),
        Decision::Drop(reason) => without_backend(Verdict::Drop, Reason::Drop(reason)),
    }
}

/// The message to the sender of a packet that is too big.
fn notice(frame: &[u8], packet: &Packet, room: u16) -> Vec<u8> {
    let (head, inner) = frame.split_at(usize::from(packet.offset));
    let sum = |quoted: &[u8]| {
        // As the kernel's helper has it: of the words as they lie in memory.
        u32::from(checksum::fold(checksum::add(0, quoted)).to_be())
    };
    let (quoted, headers) = if packet.is_v4 {
        let quoted = &inner[..too_big::QUOTED_V4];
        let Notice(headers) = too_big::notice_v4(packet, room, sum(quoted));
        (quoted, pod::bytes(&headers).to_vec())
    } else {
        let quoted = &inner[..too_big::QUOTED_V6];
        let Notice(headers) = too_big::notice_v6(packet, room, sum(quoted));
        (quoted, pod::bytes(&headers).to_vec())
    };
    [&head[6..12], &head[..6], &head[12..], &headers, quoted].concat()
}

fn rewritten(frame: &[u8], packet: &Packet, forward: &Forward<'_>, port: Port) -> Vec<u8> {
    let Forward { backend, standing, hop, hash, .. } = *forward;
    // VLAN tags stay; the EtherType behind them is that of the outermost IP header.
    let (head, inner) = frame.split_at(usize::from(packet.offset));
    let (tags, ether_type) = head[12..].split_at(head.len() - 14);
    // Unless the port has a tag of its own, which takes the place of all; the priority stays.
    let tags = if port.vlan == 0 {
        tags.to_vec()
    } else {
        let priority = tags.get(2..4).map_or(0, |control| u16::from_be_bytes([control[0], control[1]]));
        let control = priority & !encap::VLAN_ID | port.vlan as u16 & encap::VLAN_ID;
        [ETHER_VLAN.to_ne_bytes(), control.to_be_bytes()].concat()
    };
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
        Encap::Gue4 | Encap::Gue6 | Encap::GueHeader4 | Encap::GueHeader6 => {
            let ether_type = if forward.encap.is_outer_v4() { ETHER_IPV4 } else { ETHER_IPV6 };
            let outer = encap::gue(backend, standing, forward.encap, packet, hash);
            let used = &pod::bytes(&outer)[..encap::gue_length(standing) as usize];
            (ether_type.to_ne_bytes().to_vec(), used.to_vec())
        }
    };
    let (destination, source) = (hop.destination(), hop.source());
    [&destination[..], &source, &tags, &ether_type, &outer, &one_hop_on(inner, packet)].concat()
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
