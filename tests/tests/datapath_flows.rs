//! Many flows: how they spread over backends and outer source addresses, that they stay, and where they are counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::ensure;
use lb_tests::{
    datapath::{
        INGRESS, Place, Verdict,
        target::{blank, hop, ipip, l2, pool, service},
        ways::{VIPS, endpoint},
        with_rig,
    },
    packets::{Packet, outer::spread_in},
};
use lb_user::model::plan::{MemberTarget, Target};

/// Five backends, one of them with three times the weight, one with none.
fn many() -> Target {
    let weighted = |number: u8, weight: u32| MemberTarget {
        weight,
        ..l2(&format!("10.0.1.{number}"), hop(INGRESS, number))
    };
    let members =
        vec![weighted(1, 100), weighted(2, 300), weighted(3, 100), weighted(4, 0), weighted(5, 100)];
    Target {
        seed: 7,
        pools: vec![
            pool("many", 1009, members),
            pool(
                "tunnels",
                11,
                vec![ipip("10.9.0.4", hop(INGRESS, 4)), ipip("2001:db8:9::6", hop(INGRESS, 6))],
            ),
        ],
        services: vec![
            service("www", "192.0.2.10", &["tcp/80", "udp/80"], "many"),
            service("www6", "2001:db8::10", &["tcp/80"], "many"),
            service("far", "192.0.2.10", &["tcp/82"], "tunnels"),
        ],
        ..blank()
    }
}

/// Source endpoints that differ as little as clients do.
fn clients(family: usize) -> impl Iterator<Item = SocketAddr> {
    (0..2000u16).map(move |number| {
        let [high, low] = (number / 8).to_be_bytes();
        let address: IpAddr = match family {
            0 => [198, 51, high, low].into(),
            _ => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number / 8].into(),
        };
        SocketAddr::new(address, 40000 + number % 8)
    })
}

#[test]
fn flows_spread_by_weight_and_stay() {
    with_rig(|rig| {
        rig.install(&many())?;
        for (family, make, service) in
            [(0, Packet::tcp as fn(_, _) -> Packet, "www"), (0, Packet::udp, "www"), (1, Packet::tcp, "www6")]
        {
            let vip = endpoint(VIPS[family], 80);
            rig.gained();
            let mut chosen = BTreeMap::new();
            for client in clients(family) {
                chosen.insert(client, rig.run(&make(client, vip).frame())?.frame[..6].to_vec());
            }
            for (place, counter) in rig.counted() {
                let Place::Forwarded { service: counted, backend } = &place else {
                    anyhow::bail!("{place:?} has {counter:?}")
                };
                ensure!(counted == service, "{place:?} is none of {service}'s");
                let share = if backend == "10.0.1.2" { 1000.0 } else { 2000.0 / 6.0 };
                let got = counter.packets as f64;
                // Six standard deviations of a fair choice.
                ensure!(
                    (got - share).abs() < 6.0 * f64::sqrt(share),
                    "{place:?}: {got} flows, not about {share}"
                );
                ensure!(backend != "10.0.1.4", "a backend without weight got {got} flows");
            }
            // Whatever else changes, a flow stays where it is.
            for (client, backend) in &chosen {
                let later = make(*client, vip).payload(vec![1; usize::from(client.port() % 100)]);
                let later = later.traffic_class(3).ttl(9).padding(3);
                ensure!(rig.run(&later.frame())?.frame[..6] == backend[..], "{client} moved");
            }
        }
        Ok(())
    });
}

#[test]
fn services_of_one_pool_count_apart() {
    with_rig(|rig| {
        let target = many();
        rig.install(&target)?;
        rig.gained();
        for client in clients(0).take(100) {
            rig.run(&Packet::tcp(client, endpoint(VIPS[0], 80)).frame())?;
        }
        for client in clients(1).take(50) {
            rig.run(&Packet::tcp(client, endpoint(VIPS[1], 80)).ip_length(100).frame())?;
        }
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (place, counter) in rig.counted() {
            let Place::Forwarded { service, .. } = place else { anyhow::bail!("{place:?}") };
            let sum = sums.entry(service).or_default();
            *sum = (sum.0 + counter.packets, sum.1 + counter.bytes);
        }
        let expected = [("www".to_owned(), (100, 100 * 40)), ("www6".to_owned(), (50, 50 * 100))];
        ensure!(sums == BTreeMap::from(expected), "{sums:?}");
        Ok(())
    });
}

#[test]
fn outer_sources_carry_the_flow() {
    with_rig(|rig| {
        rig.install(&many())?;
        let vip = endpoint(VIPS[0], 82);
        let mut seen: BTreeMap<bool, Vec<(IpAddr, u32)>> = BTreeMap::new();
        for client in clients(0) {
            let first = spread_in(&rig.run(&Packet::tcp(client, vip).frame())?.frame);
            let second = spread_in(&rig.run(&Packet::tcp(client, vip).payload(*b"more").frame())?.frame);
            ensure!(first == second, "{client} has two outer sources: {first:?} {second:?}");
            seen.entry(first.0.is_ipv4()).or_default().push(first);
        }
        for (is_v4, spreads) in seen {
            let sources: BTreeSet<IpAddr> = spreads.iter().map(|&(source, _)| source).collect();
            let labels: BTreeSet<u32> = spreads.iter().map(|&(_, label)| label).collect();
            // About a thousand balls in 2^16, 2^32 and 2^20 bins: hardly two in one.
            ensure!(
                sources.len() * 100 > spreads.len() * 95,
                "{} sources of {}",
                sources.len(),
                spreads.len()
            );
            ensure!(is_v4 || labels.len() * 100 > spreads.len() * 95, "{} flow labels", labels.len());
            // Devices hash any of the bits: every one of them must take part.
            let bits = |source: &IpAddr| match source {
                IpAddr::V4(address) => u128::from(u32::from(*address) & 0xffff),
                IpAddr::V6(address) => u128::from(*address) & 0xffff_ffff,
            };
            let ones = sources.iter().fold(0, |all, source| all | bits(source));
            let zeros = sources.iter().fold(0, |all, source| all | !bits(source));
            let width = if is_v4 { 0xffff } else { 0xffff_ffff };
            ensure!(ones & zeros & width == width, "bits that never change: {:x}", !(ones & zeros) & width);
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_source_without_host_bits_is_used_as_it_is() {
    with_rig(|rig| {
        let mut target = many();
        target.outer.v4 = ("172.16.5.6".parse()?, 32);
        target.outer.v6 = ("100::5:6".parse()?, 128);
        rig.install(&target)?;
        let allowed: [IpAddr; 2] = ["172.16.5.6".parse()?, "100::5:6".parse()?];
        for client in clients(0) {
            let answer = rig.run(&Packet::tcp(client, endpoint(VIPS[0], 82)).frame())?;
            ensure!(answer.verdict == Verdict::Transmit, "{answer:?}");
            let (source, _) = spread_in(&answer.frame);
            ensure!(allowed.contains(&source), "{client} has outer source {source}");
        }
        Ok(())
    });
}
