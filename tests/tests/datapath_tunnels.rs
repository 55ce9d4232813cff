//! Ways out: what does not fit a tunnel is answered, what comes back out of one is dropped, and a port's VLAN takes the
//! place of the tags that a frame came with.

use std::{net::IpAddr, thread::sleep, time::Duration};

use anyhow::ensure;
use lb_common::abi::{ANSWERS, DropReason, Note, PassReason, Port};
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, Place, Rig, Verdict,
        fixture::{Fixture, check_all, forwarded},
        namespace::on_one_cpu,
        target::{LONG, blank, hop, ipip, l2, name_vips, pool, service},
        ways::{CLIENTS, VIPS, endpoint, to},
        with_rig,
    },
    packets::{
        Packet, ether, flag, hex, ip_offset,
        outer::{one_hop_on, spread_in},
        protocol,
        rare::icmp::TOO_BIG,
    },
};
use lb_user::model::plan::{HopTarget, MemberTarget, Outer, Target};

/// Services of one backend each: port 80 plus its place here, in both families.
fn one_each(members: Vec<MemberTarget>) -> Target {
    let mut target = Target { seed: 3, fragment_idle: LONG, ..blank() };
    for (number, member) in members.into_iter().enumerate() {
        let (name, port) = (format!("p{number}"), 80 + number);
        let ports = [format!("tcp/{port}"), format!("udp/{port}"), format!("sctp/{port}")];
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        target.pools.push(pool(&name, 11, vec![member]));
        for (vip, family) in VIPS.into_iter().zip([4, 6]) {
            target.services.push(service(&format!("{name}.v{family}"), vip, &ports, &name));
        }
    }
    name_vips(&mut target);
    target
}

/// Narrow tunnels: an IPv4 and an IPv6 outer header into 1400 bytes each.
fn narrow() -> Target {
    let narrow = |number| HopTarget { mtu: 1400, ..hop(INGRESS, number) };
    one_each(vec![ipip("10.9.0.1", narrow(1)), ipip("2001:db8:9::2", narrow(2))])
}

/// What fits into [`narrow`]'s tunnels, by port.
const ROOM: [(u16, usize); 2] = [(80, 1380), (81, 1360)];

#[test]
fn the_sender_of_what_does_not_fit_is_told_what_does() {
    with_rig(|rig| {
        let target = narrow();
        rig.install(&target)?;
        let mut fixtures = Vec::new();
        for (port, room) in ROOM {
            for family in 0..2 {
                let packet = to(Packet::tcp, family, port);
                let mut add = |about: &str, packet: Packet| {
                    let about = format!("{about}, port {port}, family {family}");
                    fixtures.push(Fixture::too_big(&about, &packet, room as u32));
                };
                let longer = |packet: Packet| packet.ip_length(room + 1);
                add("one byte too long", longer(packet.clone()));
                add("as long as Ethernet lets it", packet.clone().ip_length(1500));
                add("a SYN with data", longer(packet.clone().flags(flag::SYN)));
                add("UDP", longer(to(Packet::udp, family, port)));
                add("SCTP", longer(to(Packet::sctp, family, port)));
                add("every bit of the class", longer(packet.clone().traffic_class(0xff)));
                add("in a VLAN", longer(packet.clone()).tag(ether::VLAN, 0x2007));
                add("in two", longer(packet.clone()).tag(ether::SERVICE_VLAN, 5).tag(ether::VLAN, 6));
                add("with padding", longer(packet.clone()).padding(9));
                add("the first fragment of more", {
                    let whole = packet.clone().ip_length(3000);
                    whole.fragments(7, 1400)[0].clone()
                });
                if family == 0 {
                    // Hosts heed the answer, whether they set DF or not.
                    add("don't fragment", longer(packet.clone().fragment(0x4000)));
                    add("with options", longer(packet.clone().options(&[1; 40])));
                } else {
                    add("with an extension header", longer(packet.clone().extension(60, &[0; 7])));
                }
            }
        }
        check_all(rig, &target, INGRESS, &fixtures)?;
        // The answer goes back where the packet came from, whatever interface that was.
        check_all(rig, &target, EGRESS, &fixtures[..4])
    });
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    let mut target = narrow();
    // So narrow that no link may be it.
    let least = |mtu, number| HopTarget { mtu, ..hop(INGRESS, number) };
    let members = vec![ipip("10.9.0.1", least(87, 1)), ipip("2001:db8:9::2", least(1319, 2))];
    let impossible = one_each(members);
    with_rig(move |rig| {
        rig.install(&target)?;
        let mut fixtures = Vec::new();
        for family in 0..2 {
            let about = to(Packet::tcp, family, 80).reply().payload(vec![0; 1480]);
            let router: IpAddr = ["203.0.113.1", "2001:db8:f::1"][family].parse()?;
            let error = about.error(router, TOO_BIG[family], 1400, 1372);
            fixtures.push(Fixture::dropped("an ICMP error", &error, DropReason::TooBig));
        }
        check_all(rig, &target, INGRESS, &fixtures)?;
        for family in 0..2 {
            // A short first fragment fits, its followers do not.
            let first = to(Packet::udp, family, 80).ip_length(4000).fragments(11, 800)[0].clone();
            let follower = to(Packet::udp, family, 80).ip_length(4000).fragments(11, 1400)[1].clone();
            ensure!(rig.run(&first.frame())?.verdict == Verdict::Transmit, "the first fragment");
            Fixture::dropped("a later fragment", &follower, DropReason::TooBig)
                .check(rig, &target, INGRESS)?;
        }
        target = impossible;
        rig.install(&target)?;
        for (family, port) in [(0, 80), (1, 81)] {
            let packet = to(Packet::tcp, family, port).ip_length(1400);
            let about = format!("family {family}, narrower than any link");
            Fixture::dropped(&about, &packet, DropReason::TooBig).check(rig, &target, INGRESS)?;
        }
        Ok(())
    });
}

#[test]
fn answers_come_at_a_limited_rate() {
    with_rig(|rig| {
        on_one_cpu()?;
        rig.install(&narrow())?;
        let burst = |rig: &mut Rig| -> anyhow::Result<(u64, u64)> {
            rig.gained();
            for number in 0..400u16 {
                let family = usize::from(number % 2);
                let packet = to(Packet::tcp, family, 80).ip_length(1500);
                let answer = rig.run(&packet.from(endpoint(CLIENTS[family], number)).frame())?;
                ensure!(matches!(answer.verdict, Verdict::Transmit | Verdict::Drop), "{answer:?}");
            }
            let counted = rig.counted();
            let of = |reason| counted.get(&Place::Reason(reason)).map_or(0, |counter| counter.packets);
            Ok((of(Note::TooBigAnswered.name()), of(DropReason::TooBig.name())))
        };
        let most = u64::from(ANSWERS);
        for _ in 0..2 {
            let (answered, dropped) = burst(rig)?;
            ensure!(answered + dropped == 400, "{answered} answered, {dropped} dropped");
            // A burst may reach from one window into the next.
            ensure!((most..=2 * most).contains(&answered), "{answered} answered");
            // Longer than a window at the slowest clock that there is.
            sleep(Duration::from_millis(700));
        }
        Ok(())
    });
}

/// The frame as it is after its tags gave way to the port's.
fn retagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let offset = ip_offset(frame);
    let priority = if offset > 14 { frame[14] & 0xf0 } else { 0 };
    let [high, low] = vlan.to_be_bytes();
    [&frame[..12], &[0x81, 0, priority | high, low], &frame[offset - 2..]].concat()
}

#[test]
fn a_port_has_a_vlan_of_its_own() {
    for vlan in [0, 7, 0xfff] {
        with_rig(move |rig| {
            let tagged = |ifindex, number| HopTarget {
                port: Port { ifindex, vlan: Port::TAGGED | u32::from(vlan) },
                ..hop(ifindex, number)
            };
            let members = vec![
                l2("10.0.0.1", tagged(INGRESS, 1)),
                l2("10.0.0.2", tagged(EGRESS, 2)),
                ipip("10.9.0.3", tagged(INGRESS, 3)),
                ipip("2001:db8:9::4", tagged(EGRESS, 4)),
                // The same interface, another VLAN or none.
                l2("10.0.0.5", hop(INGRESS, 5)),
            ];
            let target = one_each(members.clone());
            rig.install(&target)?;
            for (port, member) in (80..).zip(&members) {
                for family in 0..2 {
                    let plain = to(Packet::tcp, family, port).payload(*b"data");
                    let packets = [
                        plain.clone(),
                        plain.clone().padding(7),
                        plain.clone().tag(ether::VLAN, 0),
                        plain.clone().tag(ether::VLAN, 0xf123),
                        plain.clone().tag(ether::SERVICE_VLAN, 0x5001),
                        plain.clone().tag(ether::SERVICE_VLAN, 0x6abc).tag(ether::VLAN, 0x1fff),
                        to(Packet::udp, family, port).payload([7; 900]).fragments(port.into(), 400)[0]
                            .clone(),
                    ];
                    for packet in packets {
                        let frame = packet.frame();
                        let hop = member.hop.as_ref().expect("a hop");
                        let before = if hop.port.vlan == 0 { frame.clone() } else { retagged(&frame, vlan) };
                        let answer = rig.run(&frame)?;
                        let expected =
                            forwarded(&one_hop_on(&before), member, target.outer, INGRESS, &answer.frame)?;
                        ensure!(
                            answer == expected,
                            "port {port}, family {family}, VLAN {vlan}\n  in       {}\n  expected {:?} {}\n  got      {:?} {}",
                            hex::encode(&frame),
                            expected.verdict,
                            hex::encode(&expected.frame),
                            answer.verdict,
                            hex::encode(&answer.frame)
                        );
                    }
                }
            }
            Ok(())
        });
    }
}

#[test]
fn dscp_and_ecn_are_those_of_the_packet_inside() {
    with_rig(|rig| {
        let members = vec![ipip("10.9.0.1", hop(INGRESS, 1)), ipip("2001:db8:9::2", hop(INGRESS, 2))];
        rig.install(&one_each(members))?;
        for class in 0..=255 {
            for family in 0..2 {
                let out = |rig: &mut Rig, port| -> anyhow::Result<Vec<u8>> {
                    Ok(rig.run(&to(Packet::tcp, family, port).traffic_class(class).frame())?.frame)
                };
                let v4 = out(rig, 80)?;
                ensure!((v4[14], v4[15]) == (0x45, class), "class {class} in IPv4: {}", hex::encode(&v4));
                let v6 = out(rig, 81)?;
                let word = u16::from_be_bytes([v6[14], v6[15]]);
                ensure!(word >> 4 == 0x600 | u16::from(class), "class {class} in IPv6: {}", hex::encode(&v6));
            }
        }
        Ok(())
    });
}

#[test]
fn what_comes_back_out_of_our_tunnels_is_dropped() {
    let outer = Outer {
        v4: ([172, 20, 0, 0].into(), 14),
        v6: ("2001:db8:7::".parse().expect("an address"), 64),
        gue_port: 6080,
    };
    let target = Target {
        outer,
        ..one_each(vec![ipip("10.9.0.1", hop(INGRESS, 1)), ipip("2001:db8:9::2", hop(EGRESS, 2))])
    };
    with_rig(move |rig| {
        rig.install(&target)?;
        // What it has sent itself, by every way and from either family.
        for (family, client) in CLIENTS.into_iter().enumerate() {
            for port in [80, 81] {
                for number in 0..20 {
                    let packet = to(Packet::tcp, family, port).from(endpoint(client, number));
                    let out = rig.run(&packet.payload(*b"data").frame())?.frame;
                    let (source, _) = spread_in(&out);
                    rig.gained();
                    let again = rig.run(&out)?;
                    ensure!(again.verdict == Verdict::Drop, "from {source}: {}", hex::encode(&out));
                    let counted: Vec<Place> = rig.counted().into_keys().collect();
                    ensure!(counted == [Place::Reason("looped")], "{counted:?}");
                }
            }
        }
        let ours = ["172.20.0.0", "172.23.255.255", "2001:db8:7::", "2001:db8:7::ffff:ffff"];
        let others = ["172.19.255.255", "172.24.0.0", "2001:db8:6:ffff::1", "2001:db8:7:1::"];
        let mut fixtures = Vec::new();
        for (sources, is_ours) in [(ours, true), (others, false)] {
            for source in sources {
                let source = endpoint(source, 5000);
                let family = usize::from(source.is_ipv6());
                let own = ["203.0.113.9", "2001:db8:f::9"][family];
                for destination in [own, VIPS[family]] {
                    let inner = to(Packet::tcp, family, 80).ip_packet();
                    let inside =
                        |number| Packet::udp(source, endpoint(destination, 0)).raw(number, inner.clone());
                    let gue = |port| Packet::udp(source, endpoint(destination, port)).payload(inner.clone());
                    let mut add = |about: &str, packet: &Packet, reason| {
                        let about = format!("{about} from {source} to {destination}");
                        fixtures.push(match is_ours {
                            true => Fixture::dropped(&about, packet, DropReason::Looped),
                            false => Fixture::passed(&about, packet.frame(), reason),
                        });
                    };
                    add("IPv4 in it", &inside(protocol::IPIP), PassReason::OtherProtocol);
                    add("IPv6 in it", &inside(protocol::IPV6), PassReason::OtherProtocol);
                    add("in a VLAN", &inside(protocol::IPIP).tag(ether::VLAN, 9), PassReason::OtherProtocol);
                    add("GUE", &gue(6080), PassReason::NotForService);
                    let other = gue(6081).frame();
                    fixtures.push(Fixture::passed("another port", other, PassReason::NotForService));
                    // Not a tunnel: nobody need look.
                    let echo = inside(47).frame();
                    fixtures.push(Fixture::passed("GRE", echo, PassReason::OtherProtocol));
                }
            }
        }
        check_all(rig, &target, INGRESS, &fixtures)
    });
}
