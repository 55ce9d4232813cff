//! Why a packet goes where it goes: the decision carried out on tables as they are, and every step to it told.
//!
//! The decision itself is [`lb_common::decide`]'s, and what becomes of the frame is [`super::simulate`]'s. Beside them
//! stands here only what they do not say: which key, which entry, which memory led there.

pub mod frame;
pub mod snapshot;
mod steps;
#[cfg(test)]
mod tests;

use lb_common::{
    abi::{Backend, Encap, Flow, Note, PassReason, Port, Rate, Reason, Service, Slot, Ticks, Tracking},
    addr::Addr,
    packet::Packet,
    parse::parse,
    tables::Tables,
    wire::{ETHER_IPV4, ETHER_IPV6, ETHER_SERVICE_VLAN, ETHER_VLAN},
};

use self::snapshot::{Snapshot, View};
use super::simulate::{self, Outcome, Verdict};

/// What becomes of a frame, and how it comes to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What parsing learned, or why it gave up.
    pub packet: Result<Packet, PassReason>,
    /// The steps to a backend.
    pub steps: Steps,
    /// The backend, and why that one.
    pub choice: Option<Choice>,
    /// How it is sent there.
    pub way: Option<Way>,
    /// What becomes of the frame.
    pub outcome: Outcome,
    /// Flows that would have been remembered, or remembered differently.
    pub remembered: Vec<Flow>,
    /// What would have been noted beside the verdict.
    pub notes: Vec<Note>,
}

/// The steps to a backend. One that was not reached is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The service.
    pub service: Option<Found>,
    /// What its list says about the source.
    pub admission: Option<Admitted>,
    /// What it allows one source.
    pub limits: Vec<Limited>,
    /// The hash.
    pub hash: Option<Hashed>,
    /// What the packet's QUIC connection ID names.
    pub named: Option<Named>,
    /// The slot.
    pub slot: Option<SlotSeen>,
    /// What is remembered of its flow, if anything may be.
    pub memory: Option<Memory>,
}

/// A service, and how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u32,
    /// Its record.
    pub record: Service,
    /// By which of its keys.
    pub by: FoundBy,
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Address, protocol and port.
    Port,
    /// Address and protocol, any port.
    AnyPort,
    /// The address itself: echo requests and later fragments have no port.
    Vip,
    /// The number of a prefix of addresses, and then one of those before.
    Prefix {
        /// The prefix's number.
        number: u32,
        /// By any port.
        any_port: bool,
    },
}

/// What a list says about a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The list's number.
    pub list: u32,
    /// Whether the source may.
    pub admitted: bool,
    /// Whether an entry of the list says so; or else what holds for those that it does not name.
    pub listed: bool,
}

/// What is left to a source of what a service allows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Whether new connections are limited, or packets.
    pub connections: bool,
    /// The source: an address, or what is left of it behind the prefix.
    pub source: Addr,
    /// Bits of it that count.
    pub bits: u8,
    /// The limit.
    pub rate: Rate,
    /// How far ahead of its rate the source is; 2^-20 ticks.
    pub ahead: u64,
    /// Whether one more may pass.
    pub passes: bool,
}

/// The hash that led to the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Of the flow, or of what the fragments of a packet have in common.
    pub hash: u64,
    /// The source that shares its slot, if the service wants its flows together, and how many bits of it count.
    pub affinity: Option<(Addr, u8)>,
}

/// What a QUIC connection ID names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The server ID, in the order of memory; `None` if the ID has none.
    pub id: Option<u64>,
    /// How many bytes of it count.
    pub length: u8,
    /// Whose it is.
    pub backend: Option<u32>,
    /// Whether that one takes the packet.
    pub takes: bool,
}

/// A slot as it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSeen {
    /// Within its pool's table.
    pub number: u32,
    /// Among all slots.
    pub place: u32,
    /// What it says.
    pub slot: Slot,
    /// Index of its owner.
    pub owner: Option<u32>,
    /// Index of its previous owner, while it is in transition.
    pub previous: Option<u32>,
    /// Whether the previous owner takes the packet.
    pub previous_takes: bool,
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// When the service's flows are remembered; `None` for a later fragment, whose first one is.
    pub tracking: Option<Tracking>,
    /// Whether this packet's flow may be.
    pub looked: bool,
    /// What is remembered of it.
    pub entry: Option<Entry>,
    /// Where the source's other flows are, if the service wants them together.
    pub others: Option<u32>,
}

/// A remembered flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of its backend.
    pub backend: u32,
    /// When it was last seen; ticks ago.
    pub age: u32,
    /// Whether more than one packet of it was seen.
    pub is_confirmed: bool,
    /// Whether it counts.
    pub standing: EntryStanding,
}

/// Whether a remembered flow counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStanding {
    /// It does.
    Good,
    /// It was silent for too long.
    Idle,
    /// Its backend is gone; another may have its number.
    Gone,
    /// Its backend does not take this packet.
    Refused,
}

/// A backend, and why that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its index.
    pub index: u32,
    /// Why.
    pub why: Why,
}

/// Why a backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The slot is its own, and nothing speaks against it.
    Owner,
    /// The flow is remembered there.
    Remembered,
    /// The slot was its own when the flow began.
    Previous,
    /// The source's other flows are there.
    Others,
    /// The QUIC connection ID names it.
    Named,
    /// The first fragment went there.
    Fragment,
}

/// How a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The backend's record.
    pub record: Backend,
    /// How it gets there.
    pub encap: Encap,
    /// Where it leaves.
    pub port: Port,
    /// Length of the IP packet on its way to the backend; bytes.
    pub length: u32,
    /// Source and destination of the outer header.
    pub outer: Option<(Addr, Addr)>,
}

/// Carries out the decision about a frame that comes in by interface `ingress`, and leaves no trace in the tables.
pub fn trace(view: &dyn View, frame: &[u8], ingress: u32, now: Ticks) -> Trace {
    let tables = Snapshot::new(view);
    let packet = parse(frame, tables.features());
    // In this order: what is told are the tables as the packet finds them, not as it leaves them.
    let steps = packet.map(|packet| steps::steps(&tables, &packet, now)).unwrap_or_default();
    let outcome = simulate::process_on(&tables, |number| tables.port(number), frame, ingress, now);
    let (remembered, notes) = (tables.remembered(), tables.notes());
    let choice = packet.ok().and_then(|packet| steps.choice(&packet, &notes));
    let way = packet.ok().and_then(|packet| way(&tables, choice?.index, &packet, &outcome));
    Trace { packet, steps, choice, way, outcome, remembered, notes }
}

fn way(tables: &Snapshot<'_>, index: u32, packet: &Packet, outcome: &Outcome) -> Option<Way> {
    let record = *tables.backend(index)?;
    let encap = record.standing().encap()?;
    let sent = match (&outcome.verdict, outcome.reason) {
        (
            Verdict::Transmit(frame) | Verdict::Redirect(_, frame),
            None | Some(Reason::Note(Note::LaterFragment)),
        ) => Some(frame),
        _ => None,
    };
    Some(Way {
        record,
        encap,
        port: tables.port(record.hop().port()),
        length: u32::from(packet.length) + record.standing().overhead(),
        outer: sent.filter(|_| encap != Encap::L2).and_then(|frame| outermost(frame)),
    })
}

/// Source and destination of a frame's first IP header.
fn outermost(frame: &[u8]) -> Option<(Addr, Addr)> {
    let mut at = 12;
    loop {
        let ether_type = u16::from_ne_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        let head = frame.get(at + 2..)?;
        let v4 = |at: usize| Some(Addr::v4(head.get(at..at + 4)?.try_into().ok()?));
        let v6 = |at: usize| Some(Addr::v6(head.get(at..at + 16)?.try_into().ok()?));
        match ether_type {
            ETHER_VLAN | ETHER_SERVICE_VLAN => at += 4,
            ETHER_IPV4 => return v4(12).zip(v4(16)),
            ETHER_IPV6 => return v6(8).zip(v6(24)),
            _ => return None,
        }
    }
}
