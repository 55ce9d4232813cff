//! What stands around and before the transport header: VLAN tags, IPv6 extension headers, TTLs, fragments.

use anyhow::ensure;
use lb_common::abi::{DropReason, Note, PassReason};
use lb_tests::{
    datapath::{
        INGRESS, Place, Rig, THIRD, Verdict,
        fixture::{Expect, Fixture, check_all},
        ways::{CLIENTS, VIPS, WAYS, endpoint, to, with_balancer},
    },
    packets::{Packet, ether, flag, outer::one_hop_on, protocol},
};

#[test]
fn tags_stay_before_whatever_comes_next() {
    let mut fixtures = Vec::new();
    for (port, services, backend) in WAYS {
        for (family, service) in services.into_iter().enumerate() {
            let plain = to(Packet::tcp, family, port).payload(*b"tagged");
            for (what, packet) in [
                ("a VLAN", plain.clone().tag(ether::VLAN, 42)),
                ("priority and VLAN", plain.clone().tag(ether::VLAN, 0xefff)),
                ("a VLAN of a service", plain.clone().tag(ether::SERVICE_VLAN, 7)),
                ("QinQ", plain.clone().tag(ether::SERVICE_VLAN, 7).tag(ether::VLAN, 42)),
                ("two VLANs", plain.clone().tag(ether::VLAN, 7).tag(ether::VLAN, 42)),
                ("a VLAN and padding", plain.clone().tag(ether::VLAN, 1).padding(9)),
            ] {
                let about = format!("{what}, to port {port}, {service}");
                fixtures.push(Fixture::forwarded(&about, &packet, service, backend));
                let about = format!("{about}, datagram");
                let datagram = to(Packet::udp, family, port).tag(ether::VLAN, 3);
                fixtures.push(Fixture::forwarded(&about, &datagram, service, backend));
            }
            if port == 80 {
                let three = plain.clone().tag(ether::VLAN, 1).tag(ether::VLAN, 2).tag(ether::VLAN, 3);
                fixtures.push(Fixture::passed("three VLANs", three.frame(), PassReason::NotIp));
                let other = plain.clone().tag(ether::VLAN, 1).ether_type(ether::ARP);
                fixtures.push(Fixture::passed("ARP in a VLAN", other.frame(), PassReason::NotIp));
                let none = plain.clone().ether_type(ether::VLAN).cut(14);
                fixtures.push(Fixture::passed(
                    "a VLAN and nothing more",
                    none.frame(),
                    PassReason::Truncated,
                ));
                let one = plain.clone().tag(ether::VLAN, 1);
                for end in 14..one.frame().len() {
                    let about = format!("tagged, cut to {end} bytes");
                    fixtures.push(Fixture::passed(
                        &about,
                        one.clone().cut(end).frame(),
                        PassReason::Truncated,
                    ));
                }
            }
        }
    }
    with_balancer(move |rig, target| {
        for ingress in [INGRESS, THIRD] {
            check_all(rig, target, ingress, &fixtures)?;
        }
        Ok(())
    });
}

#[test]
fn extension_headers_are_stepped_over() {
    // Number and bytes after the first: hop-by-hop, routing, destination options.
    let of = |number: u8, units: u8| {
        let mut rest = vec![0xee; 8 * (usize::from(units) + 1) - 1];
        rest[0] = units;
        (number, rest)
    };
    let extend = |packet: Packet, chain: &[(u8, Vec<u8>)]| {
        chain.iter().fold(packet, |packet, (number, rest)| packet.extension(*number, rest))
    };
    const KINDS: [u8; 3] = [0, 43, 60];
    let mut fixtures = Vec::new();
    for (port, services, backend) in WAYS {
        for make in [Packet::tcp as fn(_, _) -> _, Packet::udp, Packet::sctp] {
            let plain = to(make, 1, port).payload(*b"behind");
            let mut add = |about: String, chain: &[(u8, Vec<u8>)]| {
                let about = format!("{about}, port {port}");
                fixtures.push(Fixture::forwarded(
                    &about,
                    &extend(plain.clone(), chain),
                    services[1],
                    backend,
                ));
            };
            for kind in KINDS {
                for words in [0, 1, 2, 10, 31] {
                    add(format!("header {kind} of {words}"), &[of(kind, words)]);
                }
                for second in KINDS {
                    add(format!("headers {kind} and {second}"), &[of(kind, 1), of(second, 2)]);
                }
            }
            let whole = (protocol::FRAGMENT, vec![0, 0, 0, 0, 0, 0, 9]);
            add("a fragment that is the whole".to_owned(), std::slice::from_ref(&whole));
            add("the same among others".to_owned(), &[of(0, 0), whole, of(60, 1)]);
            let five = [of(0, 0), of(60, 1), of(43, 0), of(60, 4), of(0, 0)];
            add("five headers".to_owned(), &five);
        }
    }
    let plain = to(Packet::tcp, 1, 80).payload(*b"behind");
    let mut add = |about: String, packet: Packet, reason| {
        fixtures.push(Fixture::passed(&about, packet.frame(), reason));
    };
    for count in [7, 8, 20] {
        add(
            format!("{count} headers"),
            extend(plain.clone(), &vec![of(60, 0); count]),
            PassReason::Extension,
        );
    }
    for kind in KINDS {
        let lie = |length: u8| {
            let (number, mut rest) = of(kind, 0);
            rest[0] = length;
            extend(plain.clone(), &[(number, rest)])
        };
        add(format!("header {kind} longer than the packet"), lie(255), PassReason::BadHeader);
        // It ends with the packet: nothing is left for TCP.
        let (number, rest) = of(kind, 1);
        let header = rest.len() + 1;
        let alone = extend(plain.clone(), &[(number, rest)]);
        for room in 0..20 {
            let about = format!("header {kind} and {room} bytes for TCP");
            add(about, alone.clone().length((header + room) as u16), PassReason::Truncated);
        }
        let whole = alone.frame().len();
        for end in 14..whole {
            add(format!("header {kind}, cut to {end}"), alone.clone().cut(end), PassReason::Truncated);
        }
    }
    for number in [50, 51, 59, 135, 140, 253] {
        let packet = plain.clone().extension(number, &[0; 7]);
        add(format!("header {number}: nobody sees behind it"), packet, PassReason::OtherProtocol);
    }
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

#[test]
fn every_packet_has_a_hop_less_to_live() {
    let mut fixtures = Vec::new();
    for (port, services, backend) in WAYS {
        for (family, service) in services.into_iter().enumerate() {
            for make in [Packet::tcp as fn(_, _) -> _, Packet::udp, Packet::sctp] {
                let packet = to(make, family, port);
                for ttl in [0, 1] {
                    let about = format!("TTL {ttl} to port {port}, {service}");
                    let packet = packet.clone().ttl(ttl);
                    fixtures.push(Fixture::dropped(&about, &packet, DropReason::TtlExpired));
                }
                for ttl in [2, 3, 64, 128, 255] {
                    let about = format!("TTL {ttl} to port {port}, {service}");
                    fixtures.push(Fixture::forwarded(&about, &packet.clone().ttl(ttl), service, backend));
                }
            }
        }
    }
    for family in 0..2 {
        let other = to(Packet::tcp, family, 79).ttl(1);
        fixtures.push(Fixture::passed("TTL 1, for nobody", other.frame(), PassReason::NotForService));
        let none = to(Packet::tcp, family, 86).ttl(1);
        fixtures.push(Fixture::dropped("TTL 1, no backend", &none, DropReason::NoBackend));
    }
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

/// The checksum is mended, not worked out: every value it can have must come out as if it were.
#[test]
fn every_checksum_survives_the_hop() {
    with_balancer(|rig, _| {
        for identification in 0..=u16::MAX {
            let frame = to(Packet::udp, 0, 80).identification(identification).frame();
            let out = rig.run(&frame)?.frame;
            let expected = one_hop_on(&frame);
            ensure!(out[12..] == expected[12..], "identification {identification:x}: {:x?}", &out[22..26]);
        }
        Ok(())
    });
}

/// A datagram of a family to a port, in fragments.
fn datagram(family: usize, port: u16, id: u32) -> Vec<Packet> {
    to(Packet::udp, family, port)
        .payload((0..=255).cycle().take(1000).collect::<Vec<u8>>())
        .fragments(id, 200)
}

fn expect(
    rig: &mut Rig,
    target: &lb_user::model::plan::Target,
    about: &str,
    packet: &Packet,
    expect: Expect,
) -> anyhow::Result<()> {
    Fixture { about: about.to_owned(), frame: packet.frame(), expect }.check(rig, target, INGRESS)
}

#[test]
fn fragments_follow_their_first_one() {
    with_balancer(|rig, target| {
        for (port, services, backend) in WAYS {
            for (family, service) in services.into_iter().enumerate() {
                let id = 0x10_0000 + u32::from(port);
                let parts = datagram(family, port, id);
                ensure!(parts.len() == 6, "{} fragments", parts.len());
                let unknown = || Expect::Dropped(DropReason::FragmentUnknown);
                expect(rig, target, "a later one before the first", &parts[3], unknown())?;
                let first = Expect::Forwarded { service, backend };
                expect(rig, target, "the first", &parts[0], first.clone())?;
                let followed = || Expect::Followed { service, backend };
                for order in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 1, 5, 2, 4]] {
                    for part in order {
                        let about = format!("fragment {part} to port {port}, {service}");
                        expect(rig, target, &about, &parts[part], followed())?;
                    }
                }
                expect(rig, target, "in a VLAN", &parts[2].clone().tag(ether::VLAN, 5), followed())?;
                expect(rig, target, "one again", &parts[2], followed())?;
                expect(rig, target, "with two hops to live", &parts[2].clone().ttl(2), followed())?;
                let expired = Expect::Dropped(DropReason::TtlExpired);
                expect(rig, target, "with one hop to live", &parts[2].clone().ttl(1), expired)?;

                let other = &datagram(family, port, id + 1)[1];
                expect(rig, target, "of another packet", other, unknown())?;
                let neighbour = endpoint(["198.51.100.8", "2001:db8:c::8"][family], 0);
                let other = parts[1].clone().from(neighbour);
                expect(rig, target, "of another client", &other, unknown())?;
                let other = parts[1].clone().protocol(protocol::TCP);
                expect(rig, target, "of another protocol", &other, unknown())?;
                let vip = endpoint(["192.0.2.11", "2001:db8::11"][family], 0).ip();
                let passed = Expect::Passed(PassReason::NotForService);
                expect(rig, target, "to another address", &parts[1].clone().to(vip), passed)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_first_fragment_needs_a_backend_to_be_remembered() {
    with_balancer(|rig, target| {
        for family in 0..2 {
            let parts = to(Packet::tcp, family, 86).payload([1; 500]).fragments(5, 200);
            for _ in 0..2 {
                expect(rig, target, "no backend", &parts[0], Expect::Dropped(DropReason::NoBackend))?;
                let unknown = Expect::Dropped(DropReason::FragmentUnknown);
                expect(rig, target, "after it", &parts[1], unknown)?;
            }
            // What is too short to hold the ports is no first fragment that anyone could balance.
            let tiny = to(Packet::tcp, family, 80).flags(flag::SYN).payload([1; 500]).fragments(6, 8);
            expect(rig, target, "a tiny first one", &tiny[0], Expect::Passed(PassReason::Truncated))?;
            let nobody = to(Packet::udp, family, 79).payload([1; 500]).fragments(8, 200);
            let passed = Expect::Passed(PassReason::NotForService);
            expect(rig, target, "a port that is no service's", &nobody[0], passed)?;
        }
        Ok(())
    });
}

#[test]
fn later_fragments_are_forgotten_in_time() {
    with_balancer(|rig, target| {
        let mut target = target.clone();
        target.fragment_idle = 0;
        rig.install(&target)?;
        for family in 0..2 {
            let parts = datagram(family, 80, 77);
            ensure!(rig.run(&parts[0].frame())?.verdict == Verdict::Transmit, "the first");
            std::thread::sleep(std::time::Duration::from_millis(50));
            let late = rig.run(&parts[1].frame())?;
            ensure!(late.verdict == Verdict::Drop, "{} {}: {late:?}", CLIENTS[family], VIPS[family]);
        }
        Ok(())
    });
}

/// A flood of first fragments: each would be remembered. They end here by their TTL, so that every one is the same.
#[test]
fn a_cpu_remembers_only_so_many_in_a_moment() {
    const FLOOD: u64 = 20_000;
    with_balancer(|rig, _| {
        for family in 0..2 {
            let first = datagram(family, 80, 3)[0].clone().ttl(1);
            rig.gained();
            let start = rig.jiffies()?;
            rig.run_repeatedly(&first.frame(), FLOOD as u32)?;
            let ticks = u64::from(rig.jiffies()?.wrapping_sub(start)) + 1;
            let counted = rig.counted();
            let of = |reason: &'static str| counted.get(&Place::Reason(reason)).map_or(0, |c| c.packets);
            ensure!(of(DropReason::TtlExpired.name()) == FLOOD, "{counted:?}");
            let limited = of(Note::FlowsLimited.name());
            // As many as the object file says, in each tick.
            ensure!(limited >= FLOOD.saturating_sub(1000 * ticks), "{limited} of {FLOOD} in {ticks} ticks");
            ensure!(limited > 0 && limited < FLOOD, "{limited} of {FLOOD} in {ticks} ticks");
        }
        Ok(())
    });
}
