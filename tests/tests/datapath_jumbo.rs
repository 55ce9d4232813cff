//! Frames in several buffers: what is longer than a page goes its way whole, and is counted whole.

use anyhow::ensure;
use lb_common::abi::{Counter, PassReason, Service, Ticks};
use lb_tests::{
    datapath::{
        Answer, EGRESS, INGRESS, Place, Rig, Verdict, answer_of,
        fixture::{Expect, Fixture, forwarded},
        target::{LONG, blank, hop, ipip, l2, member, name_vips, pool, service},
        ways::{CLIENTS, VIPS, endpoint, to},
        with_rig,
    },
    packets::{
        Packet, ether, hex,
        outer::one_hop_on,
        rare::{
            icmp,
            icmp::{ECHO, TIME_EXCEEDED},
        },
    },
};
use lb_user::model::{
    plan::{HopTarget, Target},
    simulate::process,
};

/// Lengths of IP packets whose frames lie in more than one buffer, up to the longest that there is.
const LENGTHS: [usize; 6] = [3600, 4096, 8192, 9000, 20_000, 65_535];

/// A service for each way out and family, by port: as long as they come, and through tunnels of 1,500 bytes.
fn balancer() -> Target {
    let wide = |ifindex, number| HopTarget { mtu: 65_535, ..hop(ifindex, number) };
    let mut target = Target {
        seed: 8,
        fragment_idle: LONG,
        pools: vec![
            pool("here", 11, vec![l2("10.0.0.1", wide(INGRESS, 1))]),
            pool("there", 11, vec![l2("10.0.0.2", wide(EGRESS, 2))]),
            pool("in-4", 11, vec![ipip("10.9.0.3", wide(INGRESS, 3))]),
            pool("in-6", 11, vec![ipip("2001:db8:9::4", wide(EGRESS, 4))]),
            pool("narrow", 11, vec![ipip("10.9.0.5", hop(INGRESS, 5))]),
        ],
        ..blank()
    };
    for (vip, family) in VIPS.into_iter().zip(["v4", "v6"]) {
        for (port, pool) in (80..).zip(["here", "there", "in-4", "in-6", "narrow"]) {
            let ports = [format!("tcp/{port}"), format!("udp/{port}"), format!("sctp/{port}")];
            let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
            target.services.push(service(&format!("{pool}.{family}"), vip, &ports, pool));
        }
    }
    name_vips(&mut target);
    target.services.iter_mut().for_each(|service| service.flags |= Service::ECHO);
    target
}

/// Ports with the backend behind them, and what their tunnel adds.
const WAYS: [(u16, &str, &str, usize); 4] = [
    (80, "here", "10.0.0.1", 0),
    (81, "there", "10.0.0.2", 0),
    (82, "in-4", "10.9.0.3", 20),
    (83, "in-6", "2001:db8:9::4", 40),
];

/// Runs a frame and holds the answer against the model's.
fn run(rig: &mut Rig, frame: &[u8]) -> anyhow::Result<Answer> {
    let answer = rig.run_jumbo(frame)?;
    let now = Ticks::new(u64::from(rig.jiffies()?));
    let model = answer_of(&process(&rig.memory, frame, INGRESS, now), frame);
    ensure!(
        answer == model,
        "{} bytes in: the model says {:?}, {} bytes; the kernel {:?}, {} bytes, {}",
        frame.len(),
        model.verdict,
        model.frame.len(),
        answer.verdict,
        answer.frame.len(),
        hex::encode(&answer.frame[..answer.frame.len().min(80)])
    );
    Ok(answer)
}

/// A packet whose bytes differ from place to place.
fn filled(packet: Packet, length: usize) -> Packet {
    let headers = packet.ip_packet().len();
    packet.payload((0..length - headers).map(|n| (n * 7 + n / 251) as u8).collect::<Vec<_>>())
}

#[test]
fn long_packets_reach_their_backends_byte_for_byte() {
    with_rig(|rig| {
        let target = balancer();
        rig.install(&target)?;
        for (port, name, backend, added) in WAYS {
            for (family, suffix) in ["v4", "v6"].into_iter().enumerate() {
                let service = format!("{name}.{suffix}");
                let member = member(&target, &service, backend);
                for length in LENGTHS.into_iter().filter(|length| length + added <= 65_535) {
                    for packet in [
                        filled(to(Packet::tcp, family, port), length),
                        filled(to(Packet::udp, family, port), length),
                        filled(to(Packet::tcp, family, port), length).tag(ether::VLAN, 7),
                        filled(to(Packet::tcp, family, port), length).padding(100),
                    ] {
                        let frame = packet.frame();
                        rig.gained();
                        let answer = run(rig, &frame)?;
                        let expected =
                            forwarded(&one_hop_on(&frame), member, target.outer, INGRESS, &answer.frame)?;
                        ensure!(answer == expected, "{length} bytes to port {port}, {suffix}");
                        let place =
                            Place::Forwarded { service: service.clone(), backend: backend.to_owned() };
                        let once = Counter { packets: 1, bytes: length as u64 };
                        let counted: Vec<_> = rig.counted().into_iter().collect();
                        ensure!(counted == [(place, once)], "{length} bytes: {counted:?}");
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn long_packets_that_do_not_fit_are_answered() {
    with_rig(|rig| {
        rig.install(&balancer())?;
        for family in 0..2 {
            for length in LENGTHS {
                let packet = filled(to(Packet::tcp, family, 84), length);
                let answer = run(rig, &packet.frame())?;
                let Fixture { expect, .. } = Fixture::too_big("", &packet, 1480);
                let Expect::Answered { reply, .. } = expect else { anyhow::bail!("no answer is expected") };
                ensure!(answer == Answer { verdict: Verdict::Transmit, frame: reply }, "{length} bytes");
            }
        }
        // Longer than any packet may be with an outer header: for the widest link, too.
        let answer = run(rig, &filled(to(Packet::tcp, 0, 82), 65_535).frame())?;
        ensure!(answer.verdict == Verdict::Transmit && answer.frame.len() == 14 + 28 + 512, "{answer:?}");
        Ok(())
    });
}

#[test]
fn what_is_rare_may_be_long() {
    with_rig(|rig| {
        rig.install(&balancer())?;
        for family in 0..2 {
            let (client, vip) = (endpoint(CLIENTS[family], 0).ip(), endpoint(VIPS[family], 0).ip());
            let data: Vec<u8> = (0..=255).cycle().take(8900).collect();
            let ping = icmp(client, vip, (ECHO[family], 0), 1, &data).frame();
            let answer = run(rig, &ping)?;
            ensure!(answer.verdict == Verdict::Transmit && answer.frame.len() == ping.len(), "ping");
            let about = filled(to(Packet::tcp, family, 80), 9000).reply();
            let router = ["203.0.113.1", "2001:db8:f::1"][family].parse()?;
            let error = about.error(router, (TIME_EXCEEDED[family], 0), 0, 8000).frame();
            ensure!(run(rig, &error)?.verdict == Verdict::Transmit, "an error that quotes much");
            for (number, part) in
                filled(to(Packet::udp, family, 81), 30_000).fragments(9, 8000).iter().enumerate()
            {
                ensure!(rig.run_jumbo(&part.frame())?.verdict == Verdict::Redirect, "fragment {number}");
            }
            // What promises more than there is.
            let mut short = filled(to(Packet::tcp, family, 80), 9000).frame();
            short.truncate(8999);
            rig.gained();
            ensure!(run(rig, &short)?.verdict == Verdict::Pass, "a frame that ends early");
            let counted: Vec<Place> = rig.counted().into_keys().collect();
            ensure!(counted == [Place::Reason(PassReason::Truncated.name())], "{counted:?}");
        }
        Ok(())
    });
}
