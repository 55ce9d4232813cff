//! The balancer's program on single frames: what becomes of them, byte for byte, and where they are counted.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use lb_common::abi::{Counter, DropReason, PassReason, Slot};
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, Place, THIRD, Verdict,
        fixture::{Expect, Fixture, check_all, ip_length},
        sh,
        target::name,
        ways::{CLIENTS, VIPS, WAYS, endpoint, to, with_balancer},
    },
    packets::{Packet, ether, ethernet, flag, hex, protocol, tcp},
};
use lb_user::model::plan::Change;

#[test]
fn packets_reach_their_backends_byte_for_byte() {
    let mut fixtures = Vec::new();
    for (port, services, backend) in WAYS {
        for (family, service) in services.into_iter().enumerate() {
            let tcp = to(Packet::tcp, family, port);
            let udp = to(Packet::udp, family, port);
            let mut add = |what: &str, packet: Packet| {
                let about = format!("{what} to port {port}, {service}");
                fixtures.push(Fixture::forwarded(&about, &packet, service, backend));
            };
            add("SYN", tcp.clone().flags(flag::SYN));
            add("ACK without payload, padded to 60 bytes", tcp.clone().padding(6));
            add("an odd payload", tcp.clone().payload(*b"GET / HTTP/1.1\r\n\r\n?"));
            add("no flags at all", tcp.clone().flags(0));
            add("DSCP and ECN", tcp.clone().traffic_class(0b1011_1001));
            add("every class bit", udp.clone().traffic_class(0xff));
            add("a flow label", udp.clone().flow_label(0xf_edcb));
            add("TTL 2: one more hop", udp.clone().ttl(2));
            add("the greatest TTL", udp.clone().ttl(255));
            add("an empty datagram", udp.clone());
            add("an empty datagram with padding", udp.clone().padding(18));
            add("a datagram", udp.clone().payload(vec![0x5a; 999]));
            add("as long as fits every tunnel", tcp.clone().ip_length(1448));
            if family == 0 {
                add("don't fragment", tcp.clone().fragment(0x4000).identification(0xbeef));
                add("the reserved flag", tcp.clone().fragment(0x8000));
                for words in 1..=10 {
                    let options = vec![1; words * 4];
                    add(&format!("{words} words of options"), tcp.clone().options(&options));
                    add(&format!("{words} words of options"), udp.clone().options(&options).payload(*b"x"));
                }
            }
        }
    }
    for (family, suffix) in [
        (0, ["here.v4", "web.v4", "quic.v4", "ends.v4", "one-of-three.v4"]),
        (1, ["here.v6", "web.v6", "quic.v6", "ends.v6", "one-of-three.v6"]),
    ] {
        let [here, web, quic, ends, one] = suffix;
        for port in 1000..=1003 {
            let packet = to(Packet::tcp, family, port);
            fixtures.push(Fixture::forwarded(&format!("port {port} of a range"), &packet, here, "10.0.0.1"));
        }
        let packet = to(Packet::tcp, family, 443);
        fixtures.push(Fixture::forwarded("TCP on a port that UDP has too", &packet, web, "10.0.0.1"));
        let packet = to(Packet::udp, family, 443);
        fixtures.push(Fixture::forwarded("UDP on a port that TCP has too", &packet, quic, "10.0.0.2"));
        for port in [1, 65535] {
            let packet = to(Packet::tcp, family, port);
            fixtures.push(Fixture::forwarded(&format!("port {port}"), &packet, ends, "10.0.0.1"));
        }
        let packet = to(Packet::tcp, family, 89);
        fixtures.push(Fixture::forwarded("only one of three can serve", &packet, one, "10.0.0.7"));
    }
    with_balancer(move |rig, target| {
        // The same packet goes straight out or over, depending on where it came in.
        for ingress in [INGRESS, EGRESS, THIRD] {
            check_all(rig, target, ingress, &fixtures)?;
        }
        Ok(())
    });
}

#[test]
fn what_is_not_for_a_service_passes_untouched() {
    let arp = ethernet([0xff; 6], [2, 0, 0, 0, 0, 9], ether::ARP, &[0; 46]);
    let mut fixtures = vec![
        Fixture::passed("ARP", arp, PassReason::NotIp),
        Fixture::passed(
            "nothing but an Ethernet header",
            ethernet([0; 6], [0; 6], 0, &[]),
            PassReason::NotIp,
        ),
        Fixture::passed("a length where the type stands", vec![0x26; 60], PassReason::NotIp),
    ];
    for family in 0..2 {
        let tcp = to(Packet::tcp, family, 80);
        let udp = to(Packet::udp, family, 80);
        let mut add = |about: &str, packet: Packet, reason| {
            fixtures.push(Fixture::passed(about, packet.frame(), reason));
        };
        add("no such port", to(Packet::tcp, family, 79), PassReason::NotForService);
        add("port 0", to(Packet::tcp, family, 0), PassReason::NotForService);
        add("below a port range", to(Packet::tcp, family, 999), PassReason::NotForService);
        add("above a port range", to(Packet::tcp, family, 1004), PassReason::NotForService);
        add("a range of the other protocol", to(Packet::udp, family, 1000), PassReason::NotForService);
        add(
            "ports the wrong way round",
            Packet::tcp(endpoint(CLIENTS[family], 80), endpoint(VIPS[family], 40000)),
            PassReason::NotForService,
        );
        add(
            "a reply from the VIP",
            Packet::tcp(endpoint(VIPS[family], 80), endpoint(CLIENTS[family], 80)),
            PassReason::NotForService,
        );
        let neighbour = ["192.0.2.11", "2001:db8::11"][family];
        add(
            "the address beside the VIP",
            Packet::tcp(endpoint(CLIENTS[family], 1), endpoint(neighbour, 80)),
            PassReason::NotForService,
        );
        add("the wrong version", tcp.clone().version([6, 4][family]), PassReason::BadHeader);
        add("version 0", tcp.clone().version(0), PassReason::BadHeader);
        add(
            "the other family's type",
            tcp.clone().ether_type([ether::IPV6, ether::IPV4][family]),
            PassReason::BadHeader,
        );
        for number in [1, 2, 4, 41, 47, 58, 59, 136, 255] {
            if number == [protocol::ICMP, protocol::ICMPV6][family] {
                continue;
            }
            add(&format!("protocol {number}"), tcp.clone().protocol(number), PassReason::OtherProtocol);
        }
        // Every place where a frame may end, and every length that promises more than there is.
        for packet in [&tcp.clone().payload(*b"data"), &udp.clone().payload(*b"data")] {
            let whole = packet.frame().len();
            for end in 14..whole {
                add(&format!("cut to {end} bytes"), packet.clone().cut(end), PassReason::Truncated);
            }
        }
        add(
            "one byte promised too much",
            {
                let length = [40 + 1, 20 + 1][family];
                tcp.clone().length(length)
            },
            PassReason::Truncated,
        );
        // The packet's own length ends within the transport header, the frame does not.
        let fixed = [20, 0][family];
        for length in 0..20 {
            let about = format!("{length} bytes for TCP");
            add(&about, tcp.clone().payload([0; 40]).length(fixed + length), PassReason::Truncated);
        }
        for length in 0..8 {
            let about = format!("{length} bytes for UDP");
            add(&about, udp.clone().payload([0; 40]).length(fixed + length), PassReason::Truncated);
        }
    }
    let tcp4 = to(Packet::tcp, 0, 80);
    let tcp6 = to(Packet::tcp, 1, 80);
    for words in 0..5 {
        let packet = tcp4.clone().header_words(words);
        fixtures.push(Fixture::passed(&format!("IHL {words}"), packet.frame(), PassReason::BadHeader));
    }
    for length in [0, 1, 19] {
        let packet = tcp4.clone().length(length);
        fixtures.push(Fixture::passed(
            &format!("total length {length}"),
            packet.frame(),
            PassReason::BadHeader,
        ));
    }
    let mut add = |about: &str, packet: Packet, reason| {
        fixtures.push(Fixture::passed(about, packet.frame(), reason));
    };
    add("total length within the options", tcp4.clone().options(&[1; 8]).length(27), PassReason::BadHeader);
    add("IHL 15 and nothing there", tcp4.clone().header_words(15), PassReason::BadHeader);
    add("options up to the end", tcp4.clone().header_words(10), PassReason::Truncated);
    add("total length 65535", tcp4.clone().length(0xffff), PassReason::Truncated);
    add("payload length 65495", tcp6.clone().length(65495), PassReason::Truncated);
    add("payload length 65496 is longer than a packet", tcp6.clone().length(65496), PassReason::BadHeader);
    add("payload length 65535", tcp6.clone().length(0xffff), PassReason::BadHeader);
    // An IPv6 address that looks like a VIP in the form we keep IPv4 addresses in must not be taken for it.
    add(
        "an IPv4 VIP dressed as IPv6",
        tcp("[2001:db8:c::7]:40000", "[::ffff:192.0.2.10]:80"),
        PassReason::BadHeader,
    );
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

#[test]
fn what_cannot_be_served_is_dropped_for_a_reason() {
    let mut fixtures = Vec::new();
    for family in 0..2 {
        let suffix = ["v4", "v6"][family];
        for (port, what) in [(86, "empty"), (87, "weightless"), (88, "unreachable")] {
            let about = format!("pool {what}, {suffix}");
            fixtures.push(Fixture::dropped(&about, &to(Packet::tcp, family, port), DropReason::NoBackend));
        }
        for (port, services, backend) in WAYS {
            let fits: usize = match port {
                82 | 83 => 1480,
                84 | 85 => 1460,
                90 => 1472,
                91 => 1452,
                92 => 1468,
                93 => 1448,
                _ => 1514,
            };
            for make in [Packet::tcp as fn(_, _) -> _, Packet::udp] {
                let packet = to(make, family, port);
                let longest = packet.clone().ip_length(fits);
                let about = format!("{fits} bytes to port {port}, {suffix}");
                fixtures.push(Fixture::forwarded(&about, &longest, services[family], backend));
                // Padding is no part of the packet: it neither counts nor makes it too big.
                let about = format!("{about}, with bytes behind the packet");
                fixtures.push(Fixture::forwarded(&about, &longest.padding(8), services[family], backend));
                if port >= 82 {
                    let about = format!("{} bytes to port {port}, {suffix}", fits + 1);
                    let longer = packet.ip_length(fits + 1);
                    fixtures.push(Fixture::too_big(&about, &longer, fits as u32));
                }
            }
        }
    }
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

#[test]
fn a_slot_that_names_nobody_drops() {
    with_balancer(|rig, target| {
        let place = rig.layout().pool(&name("here")).context("a pool")?.clone();
        let capacity = u16::try_from(place.capacity)?;
        let everywhere = |slot: Slot| {
            Change::Slots((place.slot_base..place.slot_base + place.slots).map(|at| (at, slot)).collect())
        };
        let packet = to(Packet::tcp, 0, 80);
        for (about, slot, expect) in [
            ("nobody", Slot::EMPTY, Expect::Dropped(DropReason::NoBackend)),
            ("a number without a backend", Slot::of(5), Expect::Dropped(DropReason::BackendAbsent)),
            ("the last number", Slot::of(capacity - 1), Expect::Dropped(DropReason::BackendAbsent)),
            // Right behind the pool's own numbers stands the next pool's first backend.
            ("a number of the next pool", Slot::of(capacity), Expect::Dropped(DropReason::BackendAbsent)),
            (
                "the largest number",
                Slot::of(Slot::MAX_BACKENDS - 1),
                Expect::Dropped(DropReason::BackendAbsent),
            ),
            ("the owner again", Slot::of(0), Expect::Forwarded { service: "here.v4", backend: "10.0.0.1" }),
        ] {
            rig.apply(&everywhere(slot))?;
            let fixture = Fixture { about: about.to_owned(), frame: packet.frame(), expect };
            fixture.check(rig, target, INGRESS)?;
        }
        Ok(())
    });
}

#[test]
fn a_port_whose_interface_is_gone_drops() {
    with_balancer(|rig, target| {
        let away = Fixture::forwarded("before", &to(Packet::tcp, 0, 81), "there.v4", "10.0.0.2");
        away.check(rig, target, INGRESS)?;
        sh("ip link del egress")?;
        let expect = Expect::Dropped(DropReason::NoPort);
        Fixture { about: "after".to_owned(), expect: expect.clone(), ..away }.check(rig, target, INGRESS)?;
        // It is counted with the bytes it came with, not with those of the outer header.
        let tunnelled = to(Packet::tcp, 0, 83).frame();
        Fixture { about: "in a tunnel".to_owned(), frame: tunnelled, expect }.check(rig, target, INGRESS)
    });
}

#[test]
fn a_tunnel_without_headroom_drops() {
    with_balancer(|rig, _| {
        if let Err(error) = rig.run_with_headroom(0, &to(Packet::tcp, 0, 80).frame()) {
            eprintln!("SKIPPED: this kernel does not let a test take the headroom away: {error:#}");
            return Ok(());
        }
        for (port, needed) in
            [(80, 0), (82, 20), (83, 20), (84, 40), (85, 40), (90, 28), (91, 48), (92, 32), (93, 52)]
        {
            for family in 0..2 {
                let frame = to(Packet::tcp, family, port).frame();
                let wanted = rig.run(&frame)?;
                rig.gained();
                let just = rig.run_with_headroom(needed, &frame)?;
                ensure!(just == wanted, "{needed} bytes are enough for port {port}: {just:?}");
                if needed > 0 {
                    rig.gained();
                    let less = rig.run_with_headroom(needed - 4, &frame)?;
                    ensure!(less.verdict == Verdict::Drop, "port {port}: {less:?}");
                    let counted = rig.counted();
                    let once = Counter { packets: 1, bytes: ip_length(&frame) };
                    let place = Place::Reason(DropReason::NoHeadroom.name());
                    ensure!(counted == BTreeMap::from([(place, once)]), "port {port}: {counted:?}");
                }
            }
        }
        Ok(())
    });
}

/// Frames written out, so that they do not depend on how the others are built.
#[test]
fn frames_written_out() {
    const CASES: [(&str, &str, &str); 3] = [
        (
            "SYN, L2",
            "02000000001b 0200000000fe 0800 450000280000400040061ae9 c6336407 c000020a \
             9c40 0050 00000001 00000000 5002 ffff 0000 0000",
            "020000000201 020000000101 0800 45000028000040003f061be9 c6336407 c000020a \
             9c40 0050 00000001 00000000 5002 ffff 0000 0000",
        ),
        (
            "a datagram, 4in4",
            "02000000001b 0200000000fe 0800 45b9001d0000000040118d1e c6336407 c000020a \
             9c40 0052 0009 0000 41 aabbccdd",
            "020000000203 020000000101 0800 45b90031000040004004XXXX ac10SSSS 0a090003 \
             45b9001d000000003f118e1e c6336407 c000020a 9c40 0052 0009 0000 41 aabbccdd",
        ),
        (
            "a datagram, 6in6",
            "02000000001b 0200000000fe 86dd 6b9abcde 0009 11 40 20010db8000c00000000000000000007 \
             20010db8000000000000000000000010 9c40 0054 0009 0000 41 aabbccdd",
            "020000000205 020000000101 86dd 6b9LLLLL 0031 29 40 010000000000000000000000SSSSSSSS \
             20010db8000900000000000000000005 6b9abcde 0009 11 3f 20010db8000c00000000000000000007 \
             20010db8000000000000000000000010 9c40 0054 0009 0000 41 aabbccdd",
        ),
    ];
    with_balancer(|rig, _| {
        for (about, input, output) in CASES {
            let out = hex::encode(&rig.run(&hex::decode(input))?.frame);
            let wanted: String = output.chars().filter(|c| !c.is_whitespace()).collect();
            // Capitals stand for what the flow's hash decides.
            let same = |(got, wanted): (char, char)| wanted.is_ascii_uppercase() || got == wanted;
            ensure!(
                out.len() == wanted.len() && out.chars().zip(wanted.chars()).all(same),
                "{about}\n  wanted {wanted}\n  got    {out}"
            );
        }
        Ok(())
    });
}
