//! `lb trace`: from a question to a packet, and from what the tables say, in numbers, to names.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::{Admission, Note, PrefixKey, Rate, Reason, Tracking},
    addr::Addr,
    wire::{protocol, tcp_flag},
};

use super::{Action, Controller, Token, standing::state_of, view::mac_text};
use crate::{
    api::{
        Refusal, RefusalKind, Response, TraceProtocol, TraceSpec, TraceView, TracedBackend, TracedEntry,
        TracedFlow, TracedHash, TracedKey, TracedLimit, TracedPacket, TracedQuic, TracedService, TracedSlot,
        TracedSource, TracedVerdict, TracedWay,
    },
    model::{
        prefix::Prefix,
        probe::BackendId,
        service::{Backend, Pool, Via},
        simulate::Verdict,
        trace::{Admitted, Entry, EntryStanding, Found, FoundBy, Limited, Trace, Why, frame::Sample},
    },
};

/// The port that a client has who names none.
const CLIENT_PORT: u16 = 40_000;

/// Flags by letter (RFC 9293 section 3.1; tcpdump's letters are others).
const FLAGS: [(char, u8, &str); 6] = [
    ('F', tcp_flag::FIN, "FIN"),
    ('S', tcp_flag::SYN, "SYN"),
    ('R', tcp_flag::RST, "RST"),
    ('P', 0x08, "PSH"),
    ('A', tcp_flag::ACK, "ACK"),
    ('U', 0x20, "URG"),
];

/// A server as people know it.
struct Known {
    pool: String,
    name: String,
    address: IpAddr,
    state: Option<crate::api::State>,
    is_leaving: bool,
}

impl Controller {
    /// Asks the tables about a packet.
    pub(super) fn ask_trace(&self, token: Token, spec: &TraceSpec, actions: &mut Vec<Action>) {
        actions.push(match self.sample(spec) {
            Ok(sample) => Action::Trace { token, sample },
            Err(errors) => {
                let refusal = Refusal { kind: RefusalKind::Invalid, errors };
                Action::Reply { token, response: Response::Refused(refusal) }
            }
        });
    }

    /// The packet that is asked about, or everything that is wrong with it.
    pub(super) fn sample(&self, spec: &TraceSpec) -> Result<Sample, Vec<String>> {
        let mut errors = Vec::new();
        let protocol = match (spec.protocol, spec.vip) {
            (TraceProtocol::Tcp, _) => protocol::TCP,
            (TraceProtocol::Udp, _) => protocol::UDP,
            (TraceProtocol::Sctp, _) => protocol::SCTP,
            (TraceProtocol::Icmp, IpAddr::V4(_)) => protocol::ICMP,
            (TraceProtocol::Icmp, IpAddr::V6(_)) => protocol::ICMPV6,
        };
        if spec.client.is_ipv4() != spec.vip.is_ipv4() {
            errors.push(format!("{} and {} are not of one family", spec.client, spec.vip));
        }
        let has_ports = spec.protocol != TraceProtocol::Icmp;
        if has_ports && spec.vip_port.is_none() {
            errors.push(format!("which port of {}? give ADDRESS:PORT", spec.vip));
        } else if !has_ports && (spec.client_port.is_some() || spec.vip_port.is_some()) {
            errors.push("an echo request has no ports".to_owned());
        }
        let tcp_flags = match (&spec.flags, spec.protocol) {
            (None, TraceProtocol::Tcp) => tcp_flag::ACK,
            (None, _) => 0,
            (Some(letters), TraceProtocol::Tcp) => flags(letters).unwrap_or_else(|error| {
                errors.push(error);
                0
            }),
            (Some(_), _) => {
                errors.push("only TCP has flags".to_owned());
                0
            }
        };
        let quic_id = match (spec.quic_id.as_deref().map(bytes), spec.protocol) {
            (None, _) => Vec::new(),
            (Some(Ok(id)), TraceProtocol::Udp) => id,
            (Some(Ok(_)), _) => {
                errors.push("QUIC is UDP".to_owned());
                Vec::new()
            }
            (Some(Err(error)), _) => {
                errors.push(error);
                Vec::new()
            }
        };
        let ingress = self.ingress(spec.interface.as_deref()).unwrap_or_else(|error| {
            errors.push(error);
            0
        });
        let client_port = if has_ports { spec.client_port.unwrap_or(CLIENT_PORT) } else { 0 };
        let mut sample = Sample {
            client: SocketAddr::new(spec.client, client_port),
            vip: SocketAddr::new(spec.vip, spec.vip_port.unwrap_or(0)),
            protocol,
            tcp_flags,
            ttl: spec.ttl.unwrap_or(64),
            length: 0,
            quic_id,
            ingress,
        };
        let least = u16::try_from(sample.least()).unwrap_or(u16::MAX);
        sample.length = spec.length.unwrap_or(least);
        if sample.length < least {
            errors.push(format!("no such packet is shorter than {least} bytes"));
        }
        if errors.is_empty() { Ok(sample) } else { Err(errors) }
    }

    /// Index of the interface that a packet comes in by.
    fn ingress(&self, name: Option<&str>) -> Result<u32, String> {
        let Some(name) = name else { return Ok(self.interfaces.first().map_or(0, |first| first.index)) };
        let found = self.interfaces.iter().find(|interface| interface.name == name);
        found.map(|interface| interface.index).ok_or_else(|| {
            let names: Vec<&str> = self.interfaces.iter().map(|interface| &*interface.name).collect();
            format!("lb is not attached to {name} (it is to: {})", names.join(", "))
        })
    }

    /// What the tables said, in names.
    pub(super) fn trace_view(&self, sample: &Sample, trace: &Trace) -> TraceView {
        let steps = &trace.steps;
        let slot = steps.slot.zip(steps.service).map(|(slot, found)| TracedSlot {
            number: slot.number,
            of: found.record.slot_count,
            place: slot.place,
            pool: self.pool_of(found.record.backend_base).map(|pool| pool.name.to_string()),
            owner: slot.owner.map(|index| self.server_name(index)),
            in_transition: slot.slot.in_transition(),
            previous: slot.previous.map(|index| self.server_name(index)),
            previous_takes: slot.previous_takes,
        });
        let hash = steps.hash.map(|hashed| TracedHash {
            hash: format!("{:016x}", hashed.hash),
            affinity: hashed.affinity.map(|(source, bits)| prefix_text(source, bits)),
        });
        let quic = steps.named.map(|named| TracedQuic {
            server_id: named.id.map(|id| {
                let bytes = &id.to_le_bytes()[..usize::from(named.length).min(8)];
                bytes.iter().fold(String::new(), |mut text, byte| {
                    // Writing to a text cannot fail.
                    write!(text, "{byte:02x}").ok();
                    text
                })
            }),
            backend: named.backend.map(|index| self.server_name(index)),
            takes: named.takes,
        });
        let backend = trace.choice.map(|choice| {
            let known = self.server(choice.index);
            let known = known.as_ref();
            TracedBackend {
                pool: known.map(|known| known.pool.clone()),
                name: self.server_name(choice.index),
                index: choice.index,
                address: known.map(|known| known.address),
                state: known.and_then(|known| known.state),
                is_leaving: known.is_some_and(|known| known.is_leaving),
                why: why(choice.why).to_owned(),
            }
        });
        TraceView {
            packet: self.packet_view(sample),
            service: steps.service.as_ref().map(|found| self.found_view(found)),
            source: steps.admission.as_ref().map(|admitted| self.source_view(sample, admitted)),
            limits: steps.limits.iter().map(|limited| self.limit_view(limited)).collect(),
            hash,
            quic,
            slot,
            flow: self.flow_view(trace),
            backend,
            way: self.way_view(trace),
            verdict: verdict_view(trace),
        }
    }

    fn packet_view(&self, sample: &Sample) -> TracedPacket {
        let is_tcp = sample.protocol == protocol::TCP;
        let set = FLAGS.iter().filter(|(_, bit, _)| is_tcp && sample.tcp_flags & bit != 0);
        TracedPacket {
            protocol: match sample.protocol {
                protocol::TCP => TraceProtocol::Tcp,
                protocol::UDP => TraceProtocol::Udp,
                protocol::SCTP => TraceProtocol::Sctp,
                _ => TraceProtocol::Icmp,
            },
            client: sample.client.ip(),
            client_port: sample.client.port(),
            vip: sample.vip.ip(),
            vip_port: sample.vip.port(),
            flags: set.map(|(.., name)| (*name).to_owned()).collect(),
            length: sample.length,
            ttl: sample.ttl,
            interface: self.interface_name(sample.ingress).unwrap_or_else(|| "no interface".to_owned()),
        }
    }

    fn found_view(&self, found: &Found) -> TracedService {
        let known = self.layout.services().find(|(_, place)| place.number == found.number);
        let name = known.map(|(name, _)| name.clone());
        let service = name.as_ref().and_then(|name| self.desired.services.iter().find(|s| s.name == *name));
        let (found_by, by_prefix) = match found.by {
            FoundBy::Port => (TracedKey::Port, false),
            FoundBy::AnyPort => (TracedKey::AnyPort, false),
            FoundBy::Vip => (TracedKey::Vip, false),
            FoundBy::Prefix { any_port: false, .. } => (TracedKey::PrefixPort, true),
            FoundBy::Prefix { any_port: true, .. } => (TracedKey::PrefixAnyPort, true),
        };
        TracedService {
            name: name.map(|name| name.to_string()),
            number: found.number,
            found_by,
            prefix: service.filter(|_| by_prefix).map(|service| service.vip.to_string()),
        }
    }

    fn source_view(&self, sample: &Sample, admitted: &Admitted) -> TracedSource {
        let list = self.layout.lists().find(|(number, _)| *number == admitted.list);
        // The kernel says what holds; which entry says so, only our picture of the list knows.
        let source = Addr::from(sample.client.ip());
        let entry = (0..=128u8).rev().find_map(|bits| {
            let key = PrefixKey::new(admitted.list, source, u32::from(bits));
            Some((bits, *self.installed.prefixes.get(&key)?))
        });
        let agrees = |value: u32| (value == Admission::Allow as u32) == admitted.admitted;
        let entry = entry.filter(|&(_, value)| admitted.listed && agrees(value));
        TracedSource {
            list: list.map(|(_, list)| list.name.to_string()),
            admitted: admitted.admitted,
            is_listed: admitted.listed,
            prefix: entry.map(|(bits, _)| prefix_text(source, bits)),
        }
    }

    fn limit_view(&self, limited: &Limited) -> TracedLimit {
        let hz = f64::from(self.identity.ticks_per_second.max(1));
        let fraction = f64::from(1u32 << Rate::FRACTION);
        TracedLimit {
            of: if limited.connections { "connections" } else { "packets" }.to_owned(),
            source: prefix_text(limited.source, limited.bits),
            per_second: hz * fraction / f64::from(limited.rate.interval.max(1)),
            ahead_ms: limited.ahead as f64 / fraction / hz * 1000.0,
            tolerance_ms: f64::from(limited.rate.tolerance) / hz * 1000.0,
            passes: limited.passes,
        }
    }

    fn flow_view(&self, trace: &Trace) -> Option<TracedFlow> {
        let memory = trace.steps.memory?;
        let entry = |entry: Entry| TracedEntry {
            backend: self.server_name(entry.backend),
            age_ms: u64::from(entry.age) * 1000 / u64::from(self.identity.ticks_per_second.max(1)),
            is_confirmed: entry.is_confirmed,
            ignored: match entry.standing {
                EntryStanding::Good => None,
                EntryStanding::Idle => Some("idle".to_owned()),
                EntryStanding::Gone => Some("gone".to_owned()),
                EntryStanding::Refused => Some("refused".to_owned()),
            },
        };
        Some(TracedFlow {
            tracking: memory.tracking.map(|tracking| tracking_text(tracking).to_owned()),
            asked: memory.looked,
            entry: memory.entry.map(entry),
            others: memory.others.map(|index| self.server_name(index)),
            remembers: !trace.remembered.is_empty(),
            is_full: trace.notes.contains(&Note::FlowsFull),
        })
    }

    fn way_view(&self, trace: &Trace) -> Option<TracedWay> {
        let way = trace.way?;
        let hop = way.record.hop();
        Some(TracedWay {
            encap: Via::of(way.encap).to_string(),
            outer_source: way.outer.map(|(source, _)| IpAddr::from(source)),
            outer_destination: way.outer.map(|(_, destination)| IpAddr::from(destination)),
            length: way.length,
            mtu: hop.mtu(),
            mac: mac_text(hop.destination()),
            interface: self.interface_name(way.port.ifindex),
            source_mac: mac_text(hop.source()),
            vlan: (way.port.vlan != 0).then_some(way.port.vlan as u16 & 0x0fff),
        })
    }

    fn interface_name(&self, index: u32) -> Option<String> {
        let attached = self.interfaces.iter().find(|interface| interface.index == index);
        let attached = attached.map(|interface| interface.name.clone());
        let hops = || self.next_hops.values().flatten().find(|hop| hop.interface == index);
        attached
            .or_else(|| hops().map(|hop| hop.interface_name.clone()))
            .or_else(|| (index != 0).then(|| format!("interface {index}")))
    }

    /// The pool whose backends begin there.
    fn pool_of(&self, backend_base: u32) -> Option<&Pool> {
        self.desired
            .pools
            .iter()
            .find(|pool| self.layout.pool(&pool.name).is_some_and(|place| place.backend_base == backend_base))
    }

    fn server_name(&self, index: u32) -> String {
        self.server(index).map_or_else(|| format!("backend number {index}"), |known| known.name)
    }

    /// Who has an index, as far as the daemon knows.
    fn server(&self, index: u32) -> Option<Known> {
        self.desired.pools.iter().find_map(|pool| {
            let place = self.layout.pool(&pool.name)?;
            let has = |backend: &&Backend| place.index_of(&self.identity_of(backend)) == Some(index);
            if index.wrapping_sub(place.backend_base) >= place.capacity {
                return None;
            }
            let known = |backend: &Backend, name: String, state, is_leaving| Known {
                pool: pool.name.to_string(),
                name,
                address: backend.address,
                state,
                is_leaving,
            };
            if let Some(backend) = pool.backends.iter().find(has) {
                let member = self.members.get(&BackendId::new(pool, backend));
                let hop = self.next_hops.get(&backend.address);
                let state = member.map(|member| state_of(backend, member, hop));
                return Some(known(backend, backend.name.to_string(), state, false));
            }
            if let Some((other, helper)) = self.helpers(&self.desired, pool).find(|(_, backend)| has(backend))
            {
                let name = BackendId::new(other, helper).to_string();
                return Some(known(helper, name, None, false));
            }
            let leaving = self.leaving_from(&pool.name).find(has)?;
            Some(known(leaving, leaving.address.to_string(), None, true))
        })
    }
}

const fn tracking_text(tracking: Tracking) -> &'static str {
    match tracking {
        Tracking::Transition => "transition",
        Tracking::Always => "always",
        Tracking::Never => "never",
    }
}

const fn why(why: Why) -> &'static str {
    match why {
        Why::Owner => "owner",
        Why::Remembered => "remembered",
        Why::Previous => "previous_owner",
        Why::Others => "source",
        Why::Named => "quic",
        Why::Fragment => "fragment",
    }
}

fn verdict_view(trace: &Trace) -> TracedVerdict {
    let outcome = &trace.outcome;
    let (verdict, sent) = match &outcome.verdict {
        Verdict::Pass => ("XDP_PASS", "It goes to the kernel's own stack."),
        Verdict::Drop => ("XDP_DROP", "It is dropped."),
        Verdict::Transmit(_) => ("XDP_TX", "It leaves by the interface it came by."),
        Verdict::Redirect(..) => ("XDP_REDIRECT", "It leaves by another interface."),
    };
    TracedVerdict {
        verdict: verdict.to_owned(),
        reason: outcome.reason.map(|reason| reason.name().to_owned()),
        text: outcome.reason.map_or(sent, Reason::text).to_owned(),
    }
}

/// A prefix of `bits` bits in the 128 of an [`Addr`], as people write it.
fn prefix_text(address: Addr, bits: u8) -> String {
    let address = IpAddr::from(address);
    let length = if address.is_ipv4() { bits.saturating_sub(96) } else { bits };
    Prefix::containing(address, length).map_or_else(|| address.to_string(), |prefix| prefix.to_string())
}

fn flags(letters: &str) -> Result<u8, String> {
    letters.chars().try_fold(0, |set, letter| {
        let flag = FLAGS.iter().find(|(known, ..)| *known == letter.to_ascii_uppercase());
        flag.map(|(_, bit, _)| set | bit).ok_or_else(|| {
            let known: String = FLAGS.iter().map(|(letter, ..)| *letter).collect();
            format!("'{letter}' is no TCP flag: they are {known}")
        })
    })
}

fn bytes(hexadecimal: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("\"{hexadecimal}\" is no connection ID: 1 to 20 bytes, hexadecimal");
    let pairs = hexadecimal.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Vec<u8> = pairs.map(byte).collect::<Option<_>>().ok_or_else(wrong)?;
    if (1..=20).contains(&bytes.len()) { Ok(bytes) } else { Err(wrong()) }
}
