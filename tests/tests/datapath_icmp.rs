//! ICMP errors about what a VIP sent go to the backend that sent it; everything else of ICMP is the kernel's.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use lb_common::abi::{DropReason, PassReason, Service};
use lb_tests::{
    datapath::{
        INGRESS, Verdict,
        fixture::{Fixture, check_all},
        ways::{CLIENTS, VIPS, WAYS, endpoint, to, with_balancer},
    },
    packets::{
        Packet, ether, hex, protocol,
        rare::icmp,
        rare::icmp::{ECHO, ECHO_REPLY, PARAMETER_PROBLEM, TIME_EXCEEDED, TOO_BIG, UNREACHABLE},
    },
};

/// Somewhere between client and balancer, by family.
const ROUTERS: [&str; 2] = ["203.0.113.1", "2001:db8:f::1"];

/// Makes a packet between two endpoints.
type Make = fn(SocketAddr, SocketAddr) -> Packet;

/// Kinds of transport that services may have.
const TRANSPORTS: [(&str, Make); 3] = [("TCP", Packet::tcp), ("UDP", Packet::udp), ("SCTP", Packet::sctp)];

/// What a service's backend sent to its client: long, as such packets are.
fn answer(make: Make, family: usize, port: u16) -> Packet {
    to(make, family, port).reply().payload([0x5a; 1300])
}

fn router(family: usize) -> IpAddr {
    ROUTERS[family].parse().expect("an address")
}

#[test]
fn errors_reach_the_backend_of_the_packet_they_quote() {
    let mut fixtures = Vec::new();
    for (port, services, backend) in WAYS {
        for family in 0..2 {
            // How much a router quotes: as little as RFC 792 wants, and as much as RFC 4443 does.
            let (least, most) = [(28, 548), (48, 1232)][family];
            for (transport, make) in TRANSPORTS {
                let about = answer(make, family, port);
                let mut add = |what: &str, error: Packet| {
                    let about = format!("{what} about {transport} from port {port}, {}", services[family]);
                    fixtures.push(Fixture::forwarded(&about, &error, services[family], backend));
                };
                for (what, kind, rest) in [
                    ("unreachable", (UNREACHABLE[family], 1), 0),
                    ("prohibited", (UNREACHABLE[family], [13, 1][family]), 0),
                    ("too big, with an MTU", TOO_BIG[family], [1400, 1280][family]),
                    ("time exceeded", (TIME_EXCEEDED[family], 0), 0),
                    ("parameter problem", (PARAMETER_PROBLEM[family], 0), 0x0600_0000),
                ] {
                    for quoted in [least, most] {
                        add(
                            &format!("{what}, {quoted} bytes"),
                            about.error(router(family), kind, rest, quoted),
                        );
                    }
                }
                let error = about.error(router(family), TOO_BIG[family], 1400, least);
                add("an error with padding", error.clone().padding(6));
                add("an error with two hops to live", error.clone().ttl(2));
                add("an error in a VLAN", error.clone().tag(ether::VLAN, 7));
                add("ports and nothing more", about.error(router(family), TOO_BIG[family], 1400, least - 4));
                if family == 0 {
                    add("an error with options", error.clone().options(&[1; 12]));
                    let about = about.clone().options(&[1; 8]);
                    add("about a packet with options", about.error(router(0), TOO_BIG[0], 1400, 36));
                    add(
                        "about one that could not be cut",
                        about.fragment(0x4000).error(router(0), TOO_BIG[0], 9, 36),
                    );
                } else {
                    add("an error behind options", error.clone().extension(60, &[0; 7]));
                    let about = about.clone().extension(60, &[0; 7]).extension(43, &[0; 7]);
                    add("about a packet with extensions", about.error(router(1), TOO_BIG[1], 1280, 1000));
                }
                let first = &about.fragments(7, 1200)[0];
                add(
                    "about a first fragment",
                    first.error(router(family), TIME_EXCEEDED.map(|t| (t, 1))[family], 0, 200),
                );
            }
        }
    }
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

#[test]
fn other_messages_pass() {
    let mut fixtures = Vec::new();
    for family in 0..2 {
        let vip = endpoint(VIPS[family], 0).ip();
        let client = endpoint(CLIENTS[family], 0).ip();
        let about = answer(Packet::tcp, family, 80);
        let too_big = |packet: &Packet, quoted| packet.error(router(family), TOO_BIG[family], 1400, quoted);
        let whole = [20, 40][family];
        let mut add = |about: &str, packet: Packet, reason| {
            fixtures.push(Fixture::passed(about, packet.frame(), reason));
        };
        add(
            "about a packet that the VIP did not send",
            too_big(&to(Packet::tcp, family, 80), 100).to(vip),
            PassReason::OtherProtocol,
        );
        let neighbour = endpoint(["192.0.2.11", "2001:db8::11"][family], 80);
        add(
            "about another's packet, to the VIP",
            too_big(&about.clone().from(neighbour), 100).to(vip),
            PassReason::OtherProtocol,
        );
        add(
            "about the VIP's packet, to another",
            too_big(&about, 100).to(neighbour.ip()),
            PassReason::OtherProtocol,
        );
        add(
            "about a port that is no service's",
            too_big(&answer(Packet::tcp, family, 79), 100),
            PassReason::NotForService,
        );
        for number in [[protocol::ICMP, protocol::ICMPV6][family], 47, 50, 255] {
            let inner = about.clone().protocol(number);
            add(&format!("about protocol {number}"), too_big(&inner, 100), PassReason::OtherProtocol);
        }
        for (part, fragment) in (0..).zip(about.fragments(7, 400)).skip(1) {
            add(&format!("about fragment {part}"), too_big(&fragment, 200), PassReason::Fragment);
        }
        for quoted in 0..whole + 4 {
            add(&format!("{quoted} bytes quoted"), too_big(&about, quoted), PassReason::Truncated);
        }
        for end in 14 + whole..14 + whole + 8 + whole + 4 {
            add(&format!("cut to {end} bytes"), too_big(&about, 100).cut(end), PassReason::Truncated);
        }
        // The message ends, the frame does not.
        let fixed = [20, 0][family];
        for length in 0..8 + whole + 4 {
            let message = too_big(&about, 100).length((fixed + length) as u16);
            add(&format!("a message of {length} bytes"), message, PassReason::Truncated);
        }
        add("about the other version", too_big(&about.clone().version(5), 100), PassReason::BadHeader);
        for kind in [0, 5, 9, 10, 13, 14, 17, 130, 133, 134, 135, 136, 137] {
            let message = icmp(client, vip, (kind, 0), 0, &about.ip_packet()[..100]);
            add(&format!("type {kind}"), message, PassReason::OtherProtocol);
        }
        let ping = icmp(client, vip, (ECHO[family], 0), 0x0001_0001, b"who is there");
        add(
            "an echo request with another code",
            ping_with_code(client, vip, family),
            PassReason::OtherProtocol,
        );
        for fragment in ping.fragments(3, 8).into_iter().take(1) {
            add("the beginning of an echo request", fragment, PassReason::Fragment);
        }
        let other = icmp(client, neighbour.ip(), (ECHO[family], 0), 0, &[]);
        add("an echo request to another", other, PassReason::NotForService);
    }
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

fn ping_with_code(client: IpAddr, vip: IpAddr, family: usize) -> Packet {
    icmp(client, vip, (ECHO[family], 1), 0, b"who is there")
}

#[test]
fn errors_have_hops_and_sizes_too() {
    let mut fixtures = Vec::new();
    for (family, too_big) in TOO_BIG.into_iter().enumerate() {
        for (port, _, _) in WAYS {
            let about = answer(Packet::tcp, family, port);
            let error = about.error(router(family), too_big, 1400, 100);
            for ttl in [0, 1] {
                let error = error.clone().ttl(ttl);
                let about = format!("an error with TTL {ttl} about port {port}");
                fixtures.push(Fixture::dropped(&about, &error, DropReason::TtlExpired));
            }
        }
        let about = answer(Packet::tcp, family, 86);
        let error = about.error(router(family), too_big, 1400, 100);
        fixtures.push(Fixture::dropped("about a pool without backends", &error, DropReason::NoBackend));
    }
    with_balancer(move |rig, target| check_all(rig, target, INGRESS, &fixtures));
}

/// The answer to an echo request, built anew: the addresses change places, the data come back, and the TTL is fresh.
#[test]
fn echo_requests_are_answered() {
    with_balancer(|rig, _| {
        let mut sent = 0;
        for family in 0..2 {
            let (client, vip) = (endpoint(CLIENTS[family], 0).ip(), endpoint(VIPS[family], 0).ip());
            for length in [0, 1, 2, 56, 57, 1472] {
                let data: Vec<u8> = (0..=255).cycle().take(length).collect();
                for word in [0, 1, 0x1234_5678, 0xffff_ffff] {
                    for ttl in [1, 64, 255] {
                        let message = |source, destination, kind| {
                            let kind: [u8; 2] = kind;
                            icmp(source, destination, (kind[family], 0), word, &data).identification(7)
                        };
                        let request = message(client, vip, ECHO).ttl(ttl);
                        let reply = message(vip, client, ECHO_REPLY).ttl(64);
                        for (request, reply) in [
                            (request.clone(), reply.clone()),
                            (request.clone().tag(ether::VLAN, 9), reply.clone().tag(ether::VLAN, 9)),
                            (request.clone().traffic_class(0xb8), reply.clone().traffic_class(0xb8)),
                            (request.padding(5), reply.padding(5)),
                        ] {
                            let frame = request.frame();
                            let mut expected = reply.frame();
                            let (to, from) = (frame[6..12].to_vec(), frame[..6].to_vec());
                            expected[..6].copy_from_slice(&to);
                            expected[6..12].copy_from_slice(&from);
                            // Of one's complement's two zeros the program takes the one that is right for any
                            // message; the plain sum makes the other of a message that sums up to ffff.
                            let check = lb_tests::packets::ip_offset(&expected) + [22, 42][family];
                            if expected[check..check + 2] == [0, 0] {
                                expected[check..check + 2].fill(0xff);
                            }
                            let answer = rig.run(&frame)?;
                            ensure!(
                                answer.verdict == Verdict::Transmit && answer.frame == expected,
                                "{length} bytes, word {word:x}, TTL {ttl}\n  in       {}\n  expected {}\n  got {:?} {}",
                                hex::encode(&frame),
                                hex::encode(&expected),
                                answer.verdict,
                                hex::encode(&answer.frame)
                            );
                            sent += 1;
                        }
                    }
                }
            }
        }
        let counted: u64 = rig.counted().values().map(|counter| counter.packets).sum();
        ensure!(counted == sent, "{counted} of {sent} counted");
        Ok(())
    });
}

#[test]
fn echo_requests_pass_where_no_service_answers_them() {
    with_balancer(|rig, target| {
        let mut target = target.clone();
        for service in &mut target.services {
            service.flags &= !Service::ECHO;
        }
        rig.install(&target)?;
        for family in 0..2 {
            let (client, vip) = (endpoint(CLIENTS[family], 0).ip(), endpoint(VIPS[family], 0).ip());
            let ping = icmp(client, vip, (ECHO[family], 0), 1, b"who is there").frame();
            Fixture::passed("an echo request", ping, PassReason::NotForService)
                .check(rig, &target, INGRESS)?;
        }
        Ok(())
    });
}
