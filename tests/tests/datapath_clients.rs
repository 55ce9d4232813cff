//! Who may use a service: lists of sources, and limits for each source.

use std::{net::SocketAddr, sync::Arc, thread::sleep, time::Duration};

use anyhow::{Context, ensure};
use lb_common::{
    abi::{Admission, DropReason, Rate, Service},
    addr::Addr,
};
use lb_tests::{
    datapath::{
        INGRESS, Rig, Verdict,
        fixture::Fixture,
        target::{LONG, blank, hop, l2, name, name_vips, pool, service},
        ways::{VIPS, endpoint},
        with_rig,
    },
    packets::{
        Packet, flag,
        rare::icmp,
        rare::icmp::{ECHO, TOO_BIG},
    },
};
use lb_user::model::plan::{ListTarget, Target};

/// A service in each family, and another beside it on port 81.
fn balancer() -> Target {
    let mut target = Target {
        fragment_idle: LONG,
        pools: vec![pool("p", 11, vec![l2("10.0.0.1", hop(INGRESS, 1))])],
        services: vec![
            service("v4", VIPS[0], &["tcp/80", "udp/80", "sctp/80"], "p"),
            service("v6", VIPS[1], &["tcp/80", "udp/80", "sctp/80"], "p"),
            service("beside4", VIPS[0], &["tcp/81", "udp/81"], "p"),
            service("beside6", VIPS[1], &["tcp/81", "udp/81"], "p"),
        ],
        ..blank()
    };
    name_vips(&mut target);
    target.services.iter_mut().for_each(|service| service.flags |= Service::ECHO);
    target
}

fn list(list: &str, entries: &[(&str, Admission)]) -> Arc<ListTarget> {
    let entry = |&(prefix, admission): &(&str, Admission)| {
        let (address, bits) = prefix.split_once('/').expect("a prefix");
        let address = Addr::from(address.parse::<std::net::IpAddr>().expect("an address"));
        let bits: u32 = bits.parse().expect("a number");
        (address, if address.is_v4() { 96 + bits } else { bits }, admission)
    };
    Arc::new(ListTarget { name: name(list), entries: entries.iter().map(entry).collect() })
}

use Admission::{Allow, Deny};

/// Holds services of port 80 against a list.
fn guarded(entries: &[(&str, Admission)], denies_others: bool) -> Target {
    let mut target = Target { lists: vec![list("l", entries)], ..balancer() };
    for service in &mut target.services[..2] {
        service.list = Some(name("l"));
        service.flags |= if denies_others { Service::DENY_OTHERS } else { 0 };
    }
    target
}

/// A packet from a client to port 80 or another of its family's VIP.
fn packet(make: fn(SocketAddr, SocketAddr) -> Packet, client: &str, port: u16) -> Packet {
    let client = endpoint(client, 4000);
    make(client, endpoint(VIPS[usize::from(client.is_ipv6())], port))
}

/// Whether a packet goes through; if not, it is dropped for this reason.
fn admits(rig: &mut Rig, packet: &Packet, refusal: DropReason) -> anyhow::Result<bool> {
    rig.gained();
    let verdict = rig.run(&packet.frame())?.verdict;
    let counted = format!("{:?}", rig.counted().keys().collect::<Vec<_>>());
    let refused = verdict == Verdict::Drop;
    ensure!(refused || verdict == Verdict::Transmit, "{packet:?}: {verdict:?}");
    ensure!(counted.contains(refusal.name()) == refused, "{packet:?}: {verdict:?}, counted {counted}");
    Ok(!refused)
}

/// The longest prefix decides, in both families; who is in none, by the service's default.
#[test]
fn the_longest_prefix_of_a_list_decides() {
    let entries = [
        ("198.51.100.0/24", Allow),
        ("198.51.100.128/25", Deny),
        ("198.51.100.200/32", Allow),
        ("203.0.113.0/30", Deny),
        ("2001:db8:c::/48", Deny),
        ("2001:db8:c:7::/64", Allow),
        ("2001:db8:c:7::bad/128", Deny),
        ("2001:db8:d::/127", Allow),
    ];
    let allowed = ["198.51.100.0", "198.51.100.127", "198.51.100.200", "2001:db8:c:7::1", "2001:db8:d::1"];
    let denied = ["198.51.100.128", "198.51.100.255", "203.0.113.3", "2001:db8:c::", "2001:db8:c:7::bad"];
    let others =
        ["198.51.99.255", "198.51.101.0", "203.0.113.4", "2001:db8:d::2", "::ffff:1", "2001:db8:b:ffff::1"];
    with_rig(move |rig| {
        for denies_others in [false, true] {
            rig.install(&guarded(&entries, denies_others))?;
            let groups = [(&allowed[..], true), (&denied, false), (&others, !denies_others)];
            for (client, expected) in groups.into_iter().flat_map(|(g, e)| g.iter().map(move |c| (*c, e))) {
                let about = format!("{client}, others denied: {denies_others}");
                for make in [Packet::tcp as fn(_, _) -> _, Packet::udp, Packet::sctp] {
                    let admitted = admits(rig, &packet(make, client, 80), DropReason::Denied)?;
                    ensure!(admitted == expected, "{about}: {admitted}");
                }
                // The service beside it has no list.
                ensure!(
                    admits(rig, &packet(Packet::tcp, client, 81), DropReason::Denied)?,
                    "{about}: port 81"
                );
                // What is behind options, tags and fragments is the same client.
                let tagged = packet(Packet::udp, client, 80).tag(0x8100, 3);
                ensure!(admits(rig, &tagged, DropReason::Denied)? == expected, "{about}, in a VLAN");
                let id = client.len() as u32 + u32::from(denies_others) * 1000;
                let parts = packet(Packet::udp, client, 80).payload([1; 100]).fragments(id, 40);
                ensure!(admits(rig, &parts[0], DropReason::Denied)? == expected, "{about}, in fragments");
                // Of a packet that was refused, the rest is nobody's.
                let rest = if expected { DropReason::Denied } else { DropReason::FragmentUnknown };
                ensure!(admits(rig, &parts[1], rest)? == expected, "{about}, the rest of a packet");
            }
        }
        Ok(())
    });
}

/// Echo requests and ICMP errors are held against the list of the service they are for: errors by the client that the
/// quoted packet went to, whoever sends them.
#[test]
fn a_list_holds_for_icmp() {
    with_rig(|rig| {
        let entries = [("198.51.100.7/32", Deny), ("2001:db8:c::7/128", Deny)];
        rig.install(&guarded(&entries, false))?;
        for (family, denied, allowed) in
            [(0, "198.51.100.7", "198.51.100.8"), (1, "2001:db8:c::7", "2001:db8:c::8")]
        {
            let vip = endpoint(VIPS[family], 0).ip();
            for (client, expected) in [(denied, false), (allowed, true)] {
                let echo = icmp(client.parse()?, vip, (ECHO[family], 0), 1, b"ping");
                ensure!(admits(rig, &echo, DropReason::Denied)? == expected, "echo from {client}");
                for router in [denied, allowed] {
                    let about = packet(Packet::tcp, client, 80).reply().payload([0; 600]);
                    let error = about.error(router.parse()?, TOO_BIG[family], 1400, 100);
                    ensure!(
                        admits(rig, &error, DropReason::Denied)? == expected,
                        "{router} about a packet to {client}"
                    );
                }
            }
        }
        Ok(())
    });
}

/// An entry of no bits is everybody of both families, one of `0.0.0.0/0` all of IPv4.
#[test]
fn an_entry_for_all() {
    with_rig(|rig| {
        for (entries, v4, v6) in [
            (&[("::/0", Deny)][..], false, false),
            (&[("0.0.0.0/0", Deny)], false, true),
            (&[("::/0", Deny), ("0.0.0.0/0", Allow)], true, false),
        ] {
            rig.install(&guarded(entries, false))?;
            for (client, expected) in [("198.51.100.7", v4), ("2001:db8:c::7", v6)] {
                let admitted = admits(rig, &packet(Packet::tcp, client, 80), DropReason::Denied)?;
                ensure!(admitted == expected, "{client} with {entries:?}: {admitted}");
            }
        }
        Ok(())
    });
}

/// While a list gives way to another one, nobody is refused whom both admit, or admitted whom both refuse.
#[test]
fn a_list_is_replaced_without_a_gap() {
    with_rig(|rig| {
        let others: Vec<String> = (0..200).map(|n| format!("10.{n}.0.0/16")).collect();
        let entries = |own: &[(&'static str, Admission)], from: usize, to: usize| {
            let more = others[from..to].iter().map(|prefix| (prefix.clone().leak() as &str, Deny));
            own.iter().copied().chain(more).collect::<Vec<_>>()
        };
        let one = entries(&[("198.51.100.0/24", Allow), ("203.0.113.0/24", Deny)], 0, 120);
        let other = entries(&[("198.51.100.7/32", Allow), ("203.0.113.7/32", Deny)], 80, 200);
        rig.install(&guarded(&one, true))?;
        for round in 0..6 {
            let next = if round % 2 == 0 { &other } else { &one };
            rig.install_watched(&guarded(next, true), |rig, change| {
                for (client, expected) in
                    [("198.51.100.7", true), ("203.0.113.7", false), ("10.100.1.1", false)]
                {
                    // Where it is counted is in motion, too.
                    let verdict = rig.run(&packet(Packet::tcp, client, 80).frame())?.verdict;
                    let wanted = if expected { Verdict::Transmit } else { Verdict::Drop };
                    ensure!(verdict == wanted, "{client} after {change:?}: {verdict:?}");
                }
                Ok(())
            })?;
        }
        // Nothing of the old lists is left.
        ensure!(rig.read().prefixes == rig.memory.prefixes, "the kernel has other prefixes");
        ensure!(rig.memory.prefixes.len() == one.len() + 2, "{} prefixes", rig.memory.prefixes.len());
        Ok(())
    });
}

/// From one to the next so many ticks, with so many at once.
fn rate(ticks: u32, at_once: u32) -> Rate {
    Rate { interval: ticks << Rate::FRACTION, tolerance: ticks * (at_once - 1) }
}

/// Services of port 80 with limits for a source of so many bits.
fn limited(bits: [u8; 2], packets: Rate, flows: Rate) -> Target {
    let mut target = balancer();
    for (service, bits) in target.services.iter_mut().zip(bits) {
        (service.limited, service.packets, service.flows) = (bits, packets, flows);
    }
    target
}

/// How many of so many packets get through.
fn of_many(rig: &mut Rig, count: usize, packet: &Packet, refusal: DropReason) -> anyhow::Result<usize> {
    let mut admitted = 0;
    for _ in 0..count {
        admitted += usize::from(admits(rig, packet, refusal)?);
    }
    Ok(admitted)
}

#[test]
fn a_source_sends_only_so_many_packets() {
    with_rig(|rig| {
        // A minute or more from one to the next: no test is so slow.
        rig.install(&limited([128; 2], rate(4000, 5), Rate::default()))?;
        for (family, [client, other]) in
            [["198.51.100.7", "198.51.100.8"], ["2001:db8:c::7", "2001:db8:c::8"]].into_iter().enumerate()
        {
            for (client, about) in [(client, "a client"), (other, "another")] {
                let first = of_many(rig, 3, &packet(Packet::tcp, client, 80), DropReason::PacketLimit)?;
                // Whatever it sends, it is one source.
                let then = of_many(rig, 3, &packet(Packet::udp, client, 80), DropReason::PacketLimit)?;
                ensure!((first, then) == (3, 2), "{about} of family {family}: {first} and {then}");
                let about = packet(Packet::tcp, client, 80).reply().payload([0; 99]);
                let error = about.error(client.parse()?, TOO_BIG[family], 1400, 100);
                ensure!(!admits(rig, &error, DropReason::PacketLimit)?, "an error about its packet");
            }
            // The service beside it has no limit.
            let beside = of_many(rig, 20, &packet(Packet::tcp, client, 81), DropReason::PacketLimit)?;
            ensure!(beside == 20, "{beside} beside");
        }
        Ok(())
    });
}

#[test]
fn a_source_may_be_a_prefix() {
    with_rig(|rig| {
        rig.install(&limited([96 + 24, 64], rate(4000, 4), Rate::default()))?;
        for (one, two, other) in [
            ("198.51.100.7", "198.51.100.250", "198.51.101.7"),
            ("2001:db8:c:1::7", "2001:db8:c:1:ffff::1", "2001:db8:c:2::7"),
        ] {
            let counts = [one, two, other]
                .map(|client| of_many(rig, 3, &packet(Packet::tcp, client, 80), DropReason::PacketLimit));
            let counts: Vec<usize> = counts.into_iter().collect::<Result<_, _>>()?;
            ensure!(counts == [3, 1, 3], "{one}, {two}, {other}: {counts:?}");
        }
        Ok(())
    });
}

#[test]
fn a_source_opens_only_so_many_connections() {
    with_rig(|rig| {
        rig.install(&limited([128; 2], Rate::default(), rate(4000, 2)))?;
        for client in ["198.51.100.7", "2001:db8:c::7"] {
            let syn = packet(Packet::tcp, client, 80).flags(flag::SYN);
            let opened = of_many(rig, 5, &syn, DropReason::FlowLimit)?;
            ensure!(opened == 2, "{client} opened {opened}");
            // What is open goes on, and what has no beginning is not counted.
            for packet in [
                packet(Packet::tcp, client, 80),
                packet(Packet::tcp, client, 80).flags(flag::SYN | flag::ACK),
                packet(Packet::udp, client, 80),
            ] {
                ensure!(of_many(rig, 9, &packet, DropReason::FlowLimit)? == 9, "{packet:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn time_gives_back_what_a_source_used_up() {
    with_rig(|rig| {
        // Of the slowest clock and the fastest: 50 ticks are from 50 to 500 ms.
        rig.install(&limited([128; 2], rate(50, 3), Rate::default()))?;
        let packet = packet(Packet::tcp, "198.51.100.7", 80);
        let start = rig.jiffies()?;
        let first = of_many(rig, 30, &packet, DropReason::PacketLimit)?;
        let took = rig.jiffies()?.wrapping_sub(start) as usize;
        ensure!((3..=3 + took.div_ceil(50)).contains(&first), "{first} at once, in {took} ticks");
        let resumed = |rig: &mut Rig, ticks: u32| -> anyhow::Result<()> {
            while rig.jiffies()?.wrapping_sub(start) < ticks {
                sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        // So long that everything is given back: no more than at once can be saved up.
        resumed(rig, took as u32 + 200)?;
        let start = rig.jiffies()?;
        let again = of_many(rig, 30, &packet, DropReason::PacketLimit)?;
        let took = rig.jiffies()?.wrapping_sub(start) as usize;
        ensure!((3..=3 + took.div_ceil(50)).contains(&again), "{again} again, in {took} ticks");
        Ok(())
    });
}

/// A source that is refused by the list uses up nothing.
#[test]
fn the_list_comes_before_the_limits() {
    with_rig(|rig| {
        let mut target = limited([128; 2], rate(4000, 2), Rate::default());
        target.lists = vec![list("l", &[("198.51.100.7/32", Deny)])];
        let open = target.clone();
        target.services[0].list = Some(name("l"));
        rig.install(&target)?;
        let packet = packet(Packet::tcp, "198.51.100.7", 80);
        ensure!(of_many(rig, 9, &packet, DropReason::Denied)? == 0, "admitted");
        let used = rig.read().limiters.iter().count();
        ensure!(used == 0, "{used} sources are remembered");
        rig.install(&open)?;
        let fixture = Fixture::forwarded("nothing is used up", &packet, "v4", "10.0.0.1");
        fixture.check(rig, &open, INGRESS).context("after the list")
    });
}
