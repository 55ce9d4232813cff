//! Flows through changes: who began before a change stays where it is, who begins after goes where the table says, and
//! nothing is remembered that need not be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, ensure};
use lb_common::abi::Tracking;
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, LIMITS, Place, Rig, THIRD,
        target::{LONG, blank, hop, ipip, l2, name_vips, service, tracked},
        ways::{VIPS, endpoint},
        with_rig,
    },
    packets::{Packet, flag},
};
use lb_user::model::plan::{MemberTarget, Target};

/// Every way to a backend.
fn members() -> Vec<MemberTarget> {
    vec![
        l2("10.0.0.1", hop(INGRESS, 1)),
        ipip("10.9.0.2", hop(EGRESS, 2)),
        ipip("2001:db8:9::3", hop(THIRD, 3)),
        l2("2001:db8:a::4", hop(EGRESS, 4)),
    ]
}

/// One pool of these backends behind a VIP of each family.
fn target(members: Vec<MemberTarget>) -> Target {
    let mut target = Target {
        seed: 99,
        fragment_idle: LONG,
        pools: vec![tracked("p", 101, members)],
        services: vec![
            service("s4", VIPS[0], &["tcp/80", "udp/80"], "p"),
            service("s6", VIPS[1], &["tcp/80", "udp/80"], "p"),
        ],
        ..blank()
    };
    name_vips(&mut target);
    target
}

/// A client of a family, by number.
fn client(family: usize, number: u16) -> SocketAddr {
    let address: IpAddr = match family {
        0 => [198, 51, 100, (number / 200) as u8].into(),
        _ => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number / 200].into(),
    };
    SocketAddr::new(address, 20_000 + number)
}

/// Flows: a client's number and family.
type Flow = (usize, u16);

fn flows(numbers: std::ops::Range<u16>) -> impl Iterator<Item = Flow> {
    numbers.flat_map(|number| [(0, number), (1, number)])
}

fn segment((family, number): Flow, flags: u8) -> Packet {
    Packet::tcp(client(family, number), endpoint(VIPS[family], 80)).flags(flags)
}

fn datagram((family, number): Flow) -> Packet {
    Packet::udp(client(family, number), endpoint(VIPS[family], 80))
}

/// The backend that a packet goes to.
fn backend_of(rig: &mut Rig, packet: &Packet) -> anyhow::Result<String> {
    rig.gained();
    rig.run(&packet.frame())?;
    let counted = rig.counted();
    let mut backends = counted.keys().filter_map(|place| match place {
        Place::Forwarded { backend, .. } => Some(backend.clone()),
        _ => None,
    });
    backends.next_back().with_context(|| format!("{packet:?} went nowhere: {counted:?}"))
}

/// Where packets of these flows go.
fn owners(
    rig: &mut Rig,
    flows: impl Iterator<Item = Flow>,
    packet: impl Fn(Flow) -> Packet,
) -> anyhow::Result<BTreeMap<Flow, String>> {
    flows.map(|flow| Ok((flow, backend_of(rig, &packet(flow))?))).collect()
}

fn syn(flow: Flow) -> Packet {
    segment(flow, flag::SYN)
}

fn ack(flow: Flow) -> Packet {
    segment(flow, flag::ACK)
}

/// Every flow is where it was.
fn stay(rig: &mut Rig, owners: &BTreeMap<Flow, String>, about: &str) -> anyhow::Result<()> {
    for (flow, owner) in owners {
        let now = backend_of(rig, &ack(*flow))?;
        ensure!(now == *owner, "{about}: {flow:?} moved from {owner} to {now}");
    }
    Ok(())
}

/// Slots in transition.
fn moving(rig: &Rig) -> BTreeSet<u32> {
    (0..).zip(&rig.memory.slots).filter(|(_, slot)| slot.in_transition()).map(|(at, _)| at).collect()
}

#[test]
fn the_steady_state_remembers_nothing() {
    with_rig(|rig| {
        rig.install(&target(members()))?;
        let owners = owners(rig, flows(0..300), syn)?;
        stay(rig, &owners, "nothing changed")?;
        ensure!(owners.values().collect::<BTreeSet<_>>().len() == 4, "not every backend has flows");
        ensure!(rig.flows().is_empty(), "remembered {:?}", rig.flows());
        Ok(())
    });
}

#[test]
fn a_new_backend_takes_new_flows_only() {
    with_rig(|rig| {
        let mut target = target(members()[..3].to_vec());
        rig.install(&target)?;
        let old = owners(rig, flows(0..30), syn)?;
        target.pools[0].members = members();
        rig.install(&target)?;
        stay(rig, &old, "a backend was added")?;
        ensure!(!moving(rig).is_empty() && !rig.flows().is_empty(), "nothing moved");
        let remembered = rig.flows().len();
        ensure!(remembered < old.len(), "slots that did not move need no memory: {remembered}");

        let new = owners(rig, flows(100..130), syn)?;
        let taken = new.values().filter(|owner| *owner == "2001:db8:a::4").count();
        ensure!(taken > 5, "the new backend got {taken} of {}", new.len());
        stay(rig, &new, "born in the transition")?;

        // Once the slots have settled, all flows are the table's again.
        target.settled = moving(rig);
        rig.install(&target)?;
        target.settled.clear();
        ensure!(moving(rig).is_empty(), "slots stay in transition");
        stay(rig, &new, "settled")?;
        let strays = owners(rig, old.keys().copied(), ack)?;
        ensure!(
            strays.values().any(|owner| owner == "2001:db8:a::4"),
            "settled slots still ask the flow table"
        );
        Ok(())
    });
}

#[test]
fn a_drained_backend_keeps_what_it_has() {
    with_rig(|rig| {
        let mut target = target(members());
        rig.install(&target)?;
        let old = owners(rig, flows(0..30), syn)?;
        for drained in 0..4 {
            let address = target.pools[0].members[drained].address.to_string();
            target.pools[0].members[drained].weight = 0;
            rig.install(&target)?;
            stay(rig, &old, &format!("{address} drains"))?;
            let number = 200 + 100 * u16::try_from(drained)?;
            let new = owners(rig, flows(number..number + 10), syn)?;
            ensure!(!new.values().any(|owner| *owner == address), "{address} drains and got new flows");
            stay(rig, &new, "born while one drains")?;
            target.pools[0].members[drained].weight = 100;
            rig.install(&target)?;
            stay(rig, &old, &format!("{address} is back"))?;
            stay(rig, &new, &format!("{address} is back, born meanwhile"))?;
        }
        Ok(())
    });
}

#[test]
fn flows_of_a_backend_that_cannot_serve_go_to_the_next() {
    with_rig(|rig| {
        for gone in [
            (|member: &mut MemberTarget| (member.weight, member.keeps) = (0, false)) as fn(&mut MemberTarget),
            |member| member.hop = None,
        ] {
            let mut target = target(members());
            rig.install(&target)?;
            let old = owners(rig, flows(0..30), syn)?;
            // In transition, so that some of its flows are remembered.
            target.pools[0].members[1].weight = 1;
            rig.install(&target)?;
            stay(rig, &old, "weighted anew")?;
            gone(&mut target.pools[0].members[1]);
            rig.install(&target)?;
            for (flow, owner) in &old {
                let now = backend_of(rig, &ack(*flow))?;
                ensure!(now != "10.9.0.2", "{flow:?} still goes to a dead backend");
                ensure!(owner == "10.9.0.2" || now == *owner, "{flow:?} moved from {owner} to {now}");
            }
            rig.install(&self::target(Vec::new()))?;
        }
        Ok(())
    });
}

/// A number that another backend has now is none that its predecessor's flows go to.
#[test]
fn a_number_used_again_inherits_no_flows() {
    with_rig(|rig| {
        let mut target = target(members()[..2].to_vec());
        rig.install(&target)?;
        let old = owners(rig, flows(0..40), syn)?;
        target.pools[0].members[0].weight = 1;
        rig.install(&target)?;
        stay(rig, &old, "weighted anew")?;
        // Numbers are given anew in turn: until the first one's comes round again.
        for number in 10..60 {
            target.pools[0].members[0] = l2(&format!("10.0.0.{number}"), hop(INGRESS, number));
            rig.install(&target)?;
            for (flow, owner) in old.iter().filter(|(_, owner)| *owner == "10.9.0.2") {
                let now = backend_of(rig, &ack(*flow))?;
                ensure!(now == *owner, "{flow:?} moved from {owner} to {now} at {number}");
            }
        }
        Ok(())
    });
}

#[test]
fn changes_in_quick_succession_break_nothing() {
    with_rig(|rig| {
        let mut target = target(members()[..2].to_vec());
        rig.install(&target)?;
        let mut known = owners(rig, flows(0..10), syn)?;
        for (round, (member, weight)) in
            (1u16..).zip([(0, 0), (2, 100), (0, 100), (1, 1), (3, 300), (2, 0), (1, 200), (2, 100), (3, 0)])
        {
            if target.pools[0].members.len() <= member {
                let next = members()[target.pools[0].members.len()].clone();
                target.pools[0].members.push(next);
            }
            target.pools[0].members[member].weight = weight;
            rig.install(&target)?;
            stay(rig, &known, &format!("round {round}"))?;
            known.extend(owners(rig, flows(100 * round..100 * round + 5), syn)?);
            stay(rig, &known, &format!("round {round}, with new ones"))?;
        }
        ensure!(rig.flows().len() <= 4 * LIMITS.flow_buckets as usize, "more than the table holds");
        Ok(())
    });
}

#[test]
fn a_flood_of_syns_displaces_nothing_established() {
    with_rig(|rig| {
        let mut target = target(members()[..3].to_vec());
        rig.install(&target)?;
        let old = owners(rig, flows(0..20), syn)?;
        target.pools[0].members = members();
        rig.install(&target)?;
        // Twice: the second packet confirms them.
        stay(rig, &old, "added")?;
        stay(rig, &old, "added")?;
        for number in 1000..9000 {
            rig.run(&syn((usize::from(number % 2), number)).frame())?;
        }
        ensure!(rig.flows().len() > 100, "the flood left {} flows", rig.flows().len());
        stay(rig, &old, "after a flood")
    });
}

#[test]
fn datagrams_stay_where_they_are_tracked() {
    with_rig(|rig| {
        for (tracking, stays) in [(Tracking::Always, true), (Tracking::Never, false)] {
            let mut target = target(members()[..3].to_vec());
            for service in &mut target.services {
                service.flags = Tracking::bits(Tracking::Transition, tracking);
            }
            rig.install(&target)?;
            let old = owners(rig, flows(0..30), datagram)?;
            target.pools[0].members = members();
            rig.install(&target)?;
            let new = owners(rig, flows(0..30), datagram)?;
            ensure!((old == new) == stays, "{tracking:?}: {:?}", rig.flows().len());
            rig.install(&self::target(Vec::new()))?;
        }
        Ok(())
    });
}

/// An error about a flow goes where the flow does, and is no sign of its life.
#[test]
fn errors_follow_their_flow_through_a_change() {
    with_rig(|rig| {
        let mut target = target(members()[..3].to_vec());
        rig.install(&target)?;
        let old = owners(rig, flows(0..40), syn)?;
        target.pools[0].members = members();
        rig.install(&target)?;
        let error = |flow: Flow| {
            let router = ["203.0.113.1", "2001:db8:f::1"][flow.0].parse().expect("an address");
            segment(flow, flag::ACK).reply().error(router, [(3, 4), (2, 0)][flow.0], 1400, 100)
        };
        let told = owners(rig, old.keys().copied(), error)?;
        ensure!(told == old, "errors went elsewhere");
        ensure!(rig.flows().is_empty(), "errors are remembered: {:?}", rig.flows());
        stay(rig, &old, "afterwards")?;
        let told = owners(rig, old.keys().copied(), error)?;
        ensure!(told == old, "errors about remembered flows went elsewhere");
        Ok(())
    });
}
