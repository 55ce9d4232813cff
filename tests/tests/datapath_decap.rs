//! The backend's program: what a tunnel added it takes away, and nothing else.

use std::net::SocketAddr;

use anyhow::ensure;
use lb_tests::{
    datapath::{
        INGRESS, Verdict,
        target::{behind, blank, hop, ipip, pool, service},
        with_rig,
    },
    packets::{
        ETHERNET_LEN, LB_MAC, Packet, ROUTER_MAC, ether, ethernet, flag, hex,
        outer::{Macs, Outer, one_hop_on, wrapped},
        protocol, raw, tcp, udp,
    },
};
use lb_user::model::{plan::Target, service::Via};

const MACS: Macs = Macs { destination: LB_MAC, source: ROUTER_MAC };

/// A frame in a tunnel whose outer header is of this family.
fn tunnelled(inner: &[u8], outer_v4: bool) -> Vec<u8> {
    let (source, destination) =
        if outer_v4 { ("172.16.1.2", "10.9.0.1") } else { ("100::1:2", "2001:db8:9::1") };
    let address = |text: &str| text.parse().expect("an address");
    wrapped(
        inner,
        MACS,
        Outer { source: address(source), destination: address(destination), flow_label: 0x12345, gue: None },
    )
}

#[test]
fn what_the_balancer_wraps_comes_out_as_it_was() {
    let mut target = Target {
        pools: vec![
            pool("in-4", 11, vec![ipip("10.9.0.1", hop(INGRESS, 1))]),
            pool("in-6", 11, vec![ipip("2001:db8:9::1", hop(INGRESS, 2))]),
            pool("gue-4", 11, vec![behind(Via::Gue, "10.9.0.3", hop(INGRESS, 3))]),
            pool("gue-6", 11, vec![behind(Via::Gue, "2001:db8:9::4", hop(INGRESS, 4))]),
            pool("gue0-4", 11, vec![behind(Via::Gue0, "10.9.0.5", hop(INGRESS, 5))]),
            pool("gue0-6", 11, vec![behind(Via::Gue0, "2001:db8:9::6", hop(INGRESS, 6))]),
        ],
        services: vec![
            service("4in4", "192.0.2.1", &["tcp/4", "udp/4"], "in-4"),
            service("4in6", "192.0.2.1", &["tcp/6", "udp/6"], "in-6"),
            service("6in4", "2001:db8::1", &["tcp/4", "udp/4"], "in-4"),
            service("6in6", "2001:db8::1", &["tcp/6", "udp/6"], "in-6"),
        ],
        ..blank()
    };
    for (family, vip) in [("v4", "192.0.2.1"), ("v6", "2001:db8::1")] {
        for (port, pool) in [(14, "gue-4"), (16, "gue-6"), (24, "gue0-4"), (26, "gue0-6")] {
            let ports = [format!("tcp/{port}"), format!("udp/{port}")];
            let ports = ports.each_ref().map(String::as_str);
            target.services.push(service(&format!("{pool}.{family}"), vip, &ports, pool));
        }
    }
    with_rig(move |rig| {
        rig.install(&target)?;
        for (client, vip) in [("198.51.100.7", "192.0.2.1"), ("2001:db8:c::7", "2001:db8::1")] {
            for (port, backend) in [(4, 1), (6, 2), (14, 3), (16, 4), (24, 5), (26, 6)] {
                let client = SocketAddr::new(client.parse()?, 40000);
                let vip = SocketAddr::new(vip.parse()?, port);
                for packet in [
                    Packet::tcp(client, vip).flags(flag::SYN),
                    Packet::tcp(client, vip).padding(6),
                    Packet::tcp(client, vip).traffic_class(0xb9).ip_length(1448),
                    Packet::udp(client, vip),
                    Packet::udp(client, vip).payload(*b"odd").padding(15),
                ] {
                    let frame = packet.frame();
                    let sent = rig.run(&frame)?;
                    ensure!(sent.verdict == Verdict::Transmit, "{vip}: {sent:?}");
                    let received = rig.decapsulate(&sent.frame)?;
                    ensure!(received.verdict == Verdict::Pass, "{vip}: {received:?}");
                    // The Ethernet addresses stay those of the last link; the type is the inner packet's again.
                    let hop = hop(INGRESS, backend);
                    let one_hop_on = one_hop_on(&frame);
                    let expected = [&hop.destination[..], &hop.source, &one_hop_on[12..]].concat();
                    ensure!(
                        received.frame == expected,
                        "{vip}\n  sent     {}\n  received {}",
                        hex::encode(&expected),
                        hex::encode(&received.frame)
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn other_traffic_is_left_alone() {
    let inner = udp("198.51.100.7:1", "192.0.2.1:2").payload(*b"data");
    let ipip = || raw(protocol::IPIP, "10.0.0.1", "10.9.0.1").payload(inner.ip_packet());
    let gue = |header: &[u8]| {
        udp("198.51.100.7:50000", "10.9.0.1:6080").payload([header, &inner.ip_packet()].concat()).frame()
    };
    let six = || raw(protocol::IPIP, "2001:db8::1", "2001:db8:9::1").payload(inner.ip_packet());
    let cases = [
        ("ARP", ethernet([0xff; 6], ROUTER_MAC, ether::ARP, &[0; 46])),
        ("nothing but an Ethernet header", ethernet(LB_MAC, ROUTER_MAC, ether::IPV4, &[])),
        ("TCP", tcp("198.51.100.7:1", "192.0.2.1:80").frame()),
        ("TCP over IPv6", tcp("[2001:db8::7]:1", "[2001:db8::1]:80").frame()),
        ("ICMP", raw(protocol::ICMP, "10.0.0.1", "10.9.0.1").payload([8; 8]).frame()),
        ("UDP to another port", udp("198.51.100.7:6080", "10.9.0.1:6081").payload(inner.ip_packet()).frame()),
        ("a GUE control message", gue(&[0x20, 4, 0, 0])),
        ("GUE with options", gue(&[0x01, 4, 0, 0, 0, 0, 0, 0])),
        ("GUE with flags", gue(&[0, 4, 0x80, 0])),
        ("GUE around TCP", gue(&[0, 6, 0, 0])),
        ("a UDP header cut short", udp("198.51.100.7:1", "10.9.0.1:6080").cut(ETHERNET_LEN + 23).frame()),
        ("GRE", raw(47, "10.0.0.1", "10.9.0.1").payload([0; 24]).frame()),
        // Our tunnels have none of these; the kernel's own tunnel driver may make sense of them.
        ("an outer header with options", ipip().options(&[1; 4]).frame()),
        ("the first fragment of a tunnelled packet", ipip().fragment(0x2000).frame()),
        ("the last fragment of a tunnelled packet", ipip().fragment(0x0010).frame()),
        ("an outer header with an extension", six().extension(60, &[0; 7]).frame()),
        ("a fragment in an IPv6 tunnel", six().extension(protocol::FRAGMENT, &[0; 7]).frame()),
        ("an outer IPv4 header cut short", ipip().cut(ETHERNET_LEN + 19).frame()),
        ("an outer IPv6 header cut short", six().cut(ETHERNET_LEN + 39).frame()),
        ("a VLAN tag", ipip().ether_type(ether::VLAN).frame()),
    ];
    with_rig(move |rig| {
        for (about, frame) in cases {
            let answer = rig.decapsulate(&frame)?;
            ensure!(
                answer.verdict == Verdict::Pass && answer.frame == frame,
                "{about}: {:?}\n  in  {}\n  out {}",
                answer.verdict,
                hex::encode(&frame),
                hex::encode(&answer.frame)
            );
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_with_nothing_in_it_is_dropped() {
    let inner = udp("198.51.100.7:1", "192.0.2.1:2").ip_packet();
    let mut cases = Vec::new();
    for (source, destination) in [("10.0.0.1", "10.9.0.1"), ("2001:db8::1", "2001:db8:9::1")] {
        let tunnel = |number| raw(number, source, destination);
        for number in [protocol::IPIP, protocol::IPV6] {
            cases.push((
                format!("protocol {number} with nothing behind it, {source}"),
                tunnel(number).frame(),
            ));
            cases.push((
                format!("protocol {number} with zeros, {source}"),
                tunnel(number).payload([0; 40]).frame(),
            ));
        }
        let wrong = tunnel(protocol::IPV6).payload(inner.clone()).frame();
        cases.push((format!("IPv4 where IPv6 was promised, {source}"), wrong));
        let mut six = inner.clone();
        six[0] = 0x60;
        cases.push((
            format!("IPv6 where IPv4 was promised, {source}"),
            tunnel(protocol::IPIP).payload(six).frame(),
        ));
    }
    with_rig(move |rig| {
        for (about, frame) in cases {
            let answer = rig.decapsulate(&frame)?;
            ensure!(answer.verdict == Verdict::Drop, "{about}: {:?} {}", answer.verdict, hex::encode(&frame));
        }
        Ok(())
    });
}

#[test]
fn one_layer_is_stripped_and_no_more() {
    let frame = udp("198.51.100.7:1", "192.0.2.1:2").payload(*b"data").frame();
    with_rig(move |rig| {
        for outermost_v4 in [true, false] {
            for middle_v4 in [true, false] {
                let middle = tunnelled(&frame, middle_v4);
                let answer = rig.decapsulate(&tunnelled(&middle, outermost_v4))?;
                ensure!(answer.verdict == Verdict::Pass, "{answer:?}");
                ensure!(answer.frame == middle, "{}", hex::encode(&answer.frame));
            }
        }
        // Whatever is inside, the program does not care: the kernel's stack reads it next.
        let cut = tunnelled(&frame, true)[..ETHERNET_LEN + 20 + 1].to_vec();
        let answer = rig.decapsulate(&cut)?;
        ensure!(answer.frame == frame[..ETHERNET_LEN + 1], "{}", hex::encode(&answer.frame));
        Ok(())
    });
}
