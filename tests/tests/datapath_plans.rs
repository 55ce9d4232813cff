//! Plans under traffic: while one is carried out, step by step, no packet of a service that is served before and after
//! is lost. `LB_TEST_SEED` repeats a run.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use lb_common::abi::{DropReason, Features, Reason, Service, ServiceKey};
use lb_tests::{
    datapath::{
        INGRESS, Rig,
        target::{blank, hop, ipip, name, pool, service},
        with_rig, within,
        world::World,
    },
    packets::{
        Packet, protocol,
        random::{Random, seed_of_run},
    },
};
use lb_user::model::plan::{Change, Target};

/// Flows sent to each service after each step.
const FLOWS: u16 = 6;

/// What balancers use here: nothing that refuses a packet.
const USED: Features =
    Features::ANY_PORT.with(Features::PREFIX_VIP).with(Features::AFFINITY).with(Features::GUE);

/// Whether packets with this destination have somewhere to go.
fn is_served(target: &Target, key: &ServiceKey) -> bool {
    let service = target.services.iter().find(|service| service.keys.contains(key));
    let pool = service.and_then(|service| target.pools.iter().find(|pool| pool.name == service.pool));
    pool.is_some_and(|pool| pool.members.iter().any(|member| member.hop.is_some() && member.weight > 0))
}

/// Packets of a few flows to a service.
fn packets(key: &ServiceKey) -> impl Iterator<Item = Packet> {
    let vip = SocketAddr::new(key.vip.into(), key.port);
    let make = match key.protocol {
        protocol::UDP => Packet::udp,
        protocol::SCTP => Packet::sctp,
        _ => Packet::tcp,
    };
    (0..FLOWS).map(move |number| {
        let client: SocketAddr = if vip.is_ipv4() {
            ([198, 51, 100, number as u8], 40000 + number).into()
        } else {
            ([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number], 40000 + number).into()
        };
        make(client, vip)
    })
}

/// Sends packets to these services; none may be lost. Too big for a tunnel is no loss of the plan's.
fn send(rig: &mut Rig, keys: &[ServiceKey]) -> anyhow::Result<()> {
    rig.gained();
    let mut sent = 0;
    for packet in keys.iter().flat_map(packets) {
        rig.run(&packet.frame())?;
        sent += 1;
    }
    let gained = rig.gained();
    // The services as packets meet them now, in the middle of a plan.
    let too_big = Reason::Drop(DropReason::TooBig).of_service();
    let counts_sent = |counter: u32, service: &Service| {
        let number = counter.wrapping_sub(service.counter_base);
        number < service.backend_count || number.checked_sub(service.backend_count) == too_big
    };
    let met = |counter: u32| rig.memory.services.iter().any(|service| counts_sent(counter, service));
    let counted = || (0u32..).zip(&gained.forwarded).filter(|(_, counter)| counter.packets > 0);
    let forwarded: u64 = counted().filter(|(number, _)| met(*number)).map(|(_, c)| c.packets).sum();
    ensure!(
        forwarded == sent,
        "{forwarded} of {sent} packets forwarded; counters {:?}, reasons {:?}",
        counted().collect::<Vec<_>>(),
        gained.reasons
    );
    Ok(())
}

/// Plans follow each other. Some stop half-way; now and then everything is another's.
#[test]
fn no_step_of_a_plan_loses_a_packet() {
    const ROUNDS: usize = 250;
    let seed = seed_of_run();
    within(move || {
        let rig = &mut Rig::load(USED, false)?;
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random, USED);
        rig.install(&world.target)?;
        let mut steps = 0;
        // What packets may meet: the last target that was reached, and those since that were only begun.
        let mut met = vec![world.target.clone()];
        for round in 0..ROUNDS {
            if round % 40 == 39 {
                world = World::new(&mut random, USED);
            } else {
                world.evolve(&mut random);
            }
            met.push(world.target.clone());
            let is_safe = |key: &ServiceKey| met.iter().all(|target| is_served(target, key));
            let keys: Vec<ServiceKey> = world.keys().into_iter().filter(is_safe).collect();
            let watch = |rig: &mut Rig, change: &Change| {
                steps += 1;
                send(rig, &keys).with_context(|| format!("after {change:?}"))
            };
            let is_left = met.len() < 4 && random.once_in(3);
            let result = if is_left {
                rig.begin(&world.target, random.below(8), watch)
            } else {
                rig.install_watched(&world.target, watch)
            };
            result
                .with_context(|| format!("LB_TEST_SEED={seed}, round {round} on the way through {met:#?}"))?;
            if !is_left {
                met.drain(..met.len() - 1);
            }
        }
        println!("{steps} steps");
        ensure!(steps > 2 * ROUNDS, "only {steps} steps");
        Ok(())
    });
}

/// A pool that grew into its room may still give all its backends another identity at once.
#[test]
fn a_full_pool_changes_its_tunnel_source() {
    with_rig(|rig| {
        let backend = |number: u8| ipip(&format!("10.9.0.{number}"), hop(INGRESS, number));
        let mut target = Target {
            pools: vec![pool("p", 101, vec![backend(1)])],
            services: vec![service("s", "192.0.2.1", &["tcp/80"], "p")],
            ..blank()
        };
        rig.install(&target)?;
        target.pools[0].members = (1..=48).map(backend).collect();
        rig.install(&target)?;
        let room = rig.layout().pool(&name("p")).context("the pool")?.capacity;
        ensure!(room < 96, "not full: room for {room}");
        target.outer.v4 = ("172.17.0.0".parse()?, 16);
        let keys = target.services[0].keys.clone();
        rig.install_watched(&target, |rig, change| {
            send(rig, &keys).with_context(|| format!("after {change:?}"))
        })
    });
}

/// A service moves to another pool while its old one loses every backend: it is never without one.
#[test]
fn a_service_leaves_a_pool_that_is_emptied() {
    with_rig(|rig| {
        let backend = |number: u8| ipip(&format!("10.9.0.{number}"), hop(INGRESS, number));
        let mut target = Target {
            pools: vec![pool("old", 31, vec![backend(1)]), pool("new", 31, vec![backend(2)])],
            services: vec![service("s", "192.0.2.1", &["tcp/80"], "old")],
            ..blank()
        };
        rig.install(&target)?;
        target.pools[0].members.clear();
        target.services[0].pool = name("new");
        let keys = target.services[0].keys.clone();
        rig.install_watched(&target, |rig, change| {
            send(rig, &keys).with_context(|| format!("after {change:?}"))
        })
    });
}
