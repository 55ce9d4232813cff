//! The program that steers health probes: a marked packet goes to the backend its mark names, as a client's would.

use std::net::SocketAddr;

use anyhow::ensure;
use lb_common::abi::{PROBE_MARK, PROBE_MARK_MASK};
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, THIRD, TcAnswer, fixture,
        target::{blank, hop, ipip, l2, pool, service},
        with_rig,
    },
    packets::{Packet, ether, ethernet, flag, hex, protocol, raw},
};
use lb_user::model::plan::{MemberTarget, Target};

// linux/pkt_cls.h
const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

fn target() -> Target {
    // Backends without weight: probes decide whether they get some.
    let down = |member: MemberTarget| MemberTarget { weight: 0, ..member };
    Target {
        pools: vec![pool(
            "p",
            11,
            vec![
                l2("10.0.0.1", hop(EGRESS, 1)),
                down(l2("10.0.0.2", hop(INGRESS, 2))),
                down(ipip("10.9.0.3", hop(EGRESS, 3))),
                ipip("10.9.0.4", hop(THIRD, 4)),
                down(ipip("2001:db8:9::5", hop(EGRESS, 5))),
                ipip("2001:db8:9::6", hop(THIRD, 6)),
            ],
        )],
        services: vec![
            service("s4", "192.0.2.1", &["tcp/80"], "p"),
            service("s6", "2001:db8::1", &["tcp/80"], "p"),
        ],
        ..blank()
    }
}

/// A probe's SYN: from the balancer's own address to the VIP.
fn probe(v4: bool) -> Packet {
    let (own, vip) = if v4 { ("10.0.0.100", "192.0.2.1") } else { ("2001:db8:a::100", "2001:db8::1") };
    let at = |address: &str, port| SocketAddr::new(address.parse().expect("an address"), port);
    Packet::tcp(at(own, 50000), at(vip, 80)).flags(flag::SYN)
}

#[test]
fn a_marked_packet_goes_to_the_backend_of_its_mark() {
    with_rig(|rig| {
        let target = target();
        rig.install(&target)?;
        rig.gained();
        for backend in &target.pools[0].members {
            let index = rig.backend("p", backend.address)?;
            for v4 in [true, false] {
                let frame = probe(v4).frame();
                let answer = rig.probe(PROBE_MARK | index, &frame)?;
                let about = format!("{} from {}", backend.address, hex::encode(&frame));
                // As the balancer does it: the interface of the hook is the one packets come in by.
                let expected = fixture::forwarded(&frame, backend, target.outer, EGRESS, &answer.frame)?;
                ensure!(
                    answer.frame == expected.frame,
                    "{about}\n  expected {}\n  got      {}",
                    hex::encode(&expected.frame),
                    hex::encode(&answer.frame)
                );
                let here = backend.hop.is_some_and(|hop| hop.port.ifindex == EGRESS);
                ensure!(answer.verdict == if here { OK } else { REDIRECT }, "{about}: {answer:?}");
                ensure!(answer.mark == 0, "{about}: the mark stays on: {:x}", answer.mark);
                // Each backend keeps to one outer source for its probes.
                let again = rig.probe(PROBE_MARK | index, &frame)?;
                ensure!(again == answer, "{about}: {again:?}");
            }
        }
        let counted = rig.counted();
        ensure!(counted.is_empty(), "probes are no clients' traffic: {counted:?}");
        Ok(())
    });
}

#[test]
fn other_packets_are_left_alone() {
    with_rig(|rig| {
        rig.install(&target())?;
        let arp = ethernet([0xff; 6], [2; 6], ether::ARP, &[0; 46]);
        for mark in [0, 1, !PROBE_MARK & PROBE_MARK_MASK, PROBE_MARK ^ 1 << 24, PROBE_MARK >> 8, u32::MAX] {
            for frame in [probe(true).frame(), probe(false).frame(), arp.clone()] {
                let answer = rig.probe(mark, &frame)?;
                ensure!(answer == TcAnswer { verdict: OK, frame, mark }, "mark {mark:x}: {answer:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_probe_that_cannot_be_steered_goes_nowhere() {
    with_rig(|rig| {
        rig.install(&target())?;
        let here = rig.backend("p", "10.0.0.1".parse()?)?;
        let icmp = raw(protocol::ICMP, "10.0.0.100", "192.0.2.1").payload([8; 8]);
        for (about, index, frame) in [
            ("a backend that is not there", here + 10, probe(true).frame()),
            ("an index outside the table", 0xff_ffff, probe(true).frame()),
            ("neither TCP nor UDP", here, icmp.frame()),
        ] {
            let answer = rig.probe(PROBE_MARK | index, &frame)?;
            ensure!(answer.verdict == SHOT, "{about}: {answer:?}");
        }
        Ok(())
    });
}
