//! Frames and snapshots. That a trace is right, `tests/tests/datapath_trace.rs` shows against the kernel.

use std::net::SocketAddr;

use lb_common::{
    abi::{Features, Flow, Limits, Slot, Ticks},
    packet::{Kind, Packet},
    parse::parse,
    tables::{FlowBucket, Tables},
    wire::{checksum, protocol, tcp_flag},
};

use super::{frame::Sample, snapshot::Snapshot};
use crate::model::memory::Memory;

const LIMITS: Limits = Limits {
    index: 16,
    services: 4,
    slots: 64,
    backends: 8,
    counters: 64,
    flow_buckets: 4,
    limiters: 4,
    prefixes: 8,
};

fn sample(client: &str, vip: &str, protocol: u8) -> Sample {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Sample {
        client: address(client),
        vip: address(vip),
        protocol,
        tcp_flags: tcp_flag::SYN,
        ttl: 9,
        length: 200,
        quic_id: Vec::new(),
        ingress: 1,
    }
}

#[test]
fn frames_are_parsed_as_what_was_asked_for() {
    for (client, vip, icmp) in [
        ("198.51.100.7:4711", "192.0.2.10:443", protocol::ICMP),
        ("[2001:db8:c::7]:4711", "[2001:db8::10]:443", protocol::ICMPV6),
    ] {
        for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP, icmp] {
            let sample = sample(client, vip, protocol);
            let frame = sample.frame();
            assert_eq!(frame.len(), 214);
            let packet: Packet = parse(&frame[..], Features::ALL).unwrap();
            let is_echo = protocol == icmp;
            let port = |address: SocketAddr| if is_echo { 0 } else { address.port() };
            assert_eq!(packet.kind, if is_echo { Kind::EchoRequest } else { Kind::Whole });
            assert_eq!((packet.source, packet.source_port), (sample.client.ip().into(), port(sample.client)));
            assert_eq!(
                (packet.destination, packet.destination_port),
                (sample.vip.ip().into(), port(sample.vip))
            );
            assert_eq!((packet.length, packet.ttl), (200, 9));
            assert_eq!(packet.opens_flow(), protocol == protocol::TCP);
            if packet.is_v4 {
                assert_eq!(checksum::fold(checksum::add(0, &frame[14..34])), 0xffff);
            }
            let short = Sample { length: sample.least() as u16, ..sample };
            assert_eq!(short.frame().len(), 14 + sample_length(&short));
            assert!(parse(&short.frame()[..], Features::ALL).is_ok());
        }
    }
    let quic = Sample {
        quic_id: vec![0x0c, 1, 2, 3, 4, 5, 6, 7, 8],
        ..sample("1.1.1.1:1", "2.2.2.2:2", protocol::UDP)
    };
    let packet = parse(&quic.frame()[..], Features::ALL).unwrap();
    assert_eq!(packet.quic_head.to_le_bytes(), [0x40, 0x0c]);
    assert_eq!(packet.quic_id.to_le_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

fn sample_length(sample: &Sample) -> usize {
    usize::from(sample.length)
}

#[test]
fn what_is_written_to_a_snapshot_is_seen_in_it_and_nowhere_else() {
    let memory = Memory::new(LIMITS);
    let before = memory.clone();
    let snapshot = Snapshot::new(&memory);
    let flow = Flow::new(42, 1, 1, false, Ticks::new(7));
    snapshot.bucket(42).unwrap().replace(2, flow);
    snapshot.limiter(42).unwrap().replace(1, flow);
    assert_eq!(snapshot.bucket(42 + 4).unwrap().load(2), flow, "the same bucket");
    assert_eq!(snapshot.bucket(41).unwrap().load(2), Flow::default());
    assert_eq!(snapshot.limiter(42).unwrap().load(1), flow);
    assert_eq!(snapshot.remembered(), [flow]);
    assert!(memory == before);
}

#[test]
fn a_number_leads_to_the_element_of_its_low_bits() {
    let mut memory = Memory::new(LIMITS);
    memory.services[3].slot_count = 7;
    memory.slots[5] = Slot::of(2);
    memory.backends[6].gue_port = 9;
    let snapshot = Snapshot::new(&memory);
    assert_eq!(snapshot.service(4 + 3), Some(&memory.services[3]));
    assert_eq!(snapshot.slot(64 + 5), Some(Slot::of(2)));
    assert_eq!(snapshot.backend(u32::MAX - 1), Some(&memory.backends[6]));
}
