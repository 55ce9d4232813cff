//! Anything may happen in any order: the tables stay sound, and are in the end what a daemon started just then would
//! make of it.

use std::fmt::Write;

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};

use super::{
    Unreachable,
    world::{World, behind, no_mac, on_link},
};
use crate::{
    api::{BackendPatch, Edit},
    config,
};

#[derive(Clone, Debug)]
enum Step {
    Config(String),
    Way(u8, u8),
    /// A server's service starts or stops.
    Alive(u8, bool),
    Probe,
    Wait,
    /// From now on plans fail after so many steps, or no longer.
    Failing(Option<usize>),
    Hold,
    Finish,
    Weight(u8, u16),
    /// The daemon is killed and another one starts.
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => configs().prop_map(Step::Config),
        1 => Just(Step::Config("nonsense".to_owned())),
        6 => (0u8..8, 0u8..6).prop_map(|(server, way)| Step::Way(server, way)),
        4 => (0u8..8, any::<bool>()).prop_map(|(server, alive)| Step::Alive(server, alive)),
        6 => Just(Step::Probe),
        2 => Just(Step::Wait),
        1 => prop::option::of(0usize..8).prop_map(Step::Failing),
        1 => Just(Step::Hold),
        2 => Just(Step::Finish),
        2 => Just(Step::Restart),
        1 => (0u8..6, 0u16..3).prop_map(|(backend, weight)| Step::Weight(backend, weight)),
    ]
}

fn configs() -> impl Strategy<Value = String> {
    let backend = (0u8..8, any::<bool>(), 0u16..3, 0usize..5);
    let pool = (any::<bool>(), any::<bool>(), btree_map(0u8..6, backend, 0..6));
    let services = btree_map(0u8..4, (0usize..3, 1u16..4), 0..4);
    (vec(pool, 1..4), services, 0u8..2).prop_map(|(pools, services, seed)| {
        let mut text = format!("[lb]\nseed = {seed}\n");
        let mut write = |line: std::fmt::Arguments<'_>| text.write_fmt(line).unwrap();
        let count = pools.len();
        for (n, (checked, large, backends)) in pools.into_iter().enumerate() {
            write(format_args!("[[pool]]\nname = \"p{n}\"\nslots = {}\n", if large { 61 } else { 31 }));
            if checked {
                write(format_args!("check = {{ type = \"tcp\", port = 80, rise = 2, fall = 2 }}\n"));
            }
            let mut servers = std::collections::BTreeSet::new();
            for (name, (server, tunnelled, weight, state)) in backends {
                if servers.insert(server) {
                    let via = if tunnelled { "ipip" } else { "l2" };
                    let state = ["ready", "ready", "ready", "drain", "maint"][state];
                    write(format_args!(
                        "[[pool.backend]]\nname = \"b{name}\"\naddress = \"10.0.0.{}\"\nvia = \"{via}\"\n\
                         weight = {weight}\nstate = \"{state}\"\n",
                        server + 1
                    ));
                }
            }
        }
        for (n, (pool, ports)) in services {
            write(format_args!(
                "[[service]]\nname = \"s{n}\"\nvip = \"192.0.2.{}\"\nports = [\"tcp/80-{}\"]\npool = \"p{}\"\n",
                n % 2 + 1,
                79 + ports,
                pool % count
            ));
        }
        text
    })
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Config(text) => world.configure(&text),
        Step::Way(server, way) => {
            let address = format!("10.0.0.{}", server + 1);
            let target = address.parse().unwrap();
            world.way(
                &address,
                match way {
                    0 => no_mac(&address),
                    1 => Err(Unreachable::NoRoute { target }),
                    2 => Ok(behind(target, "10.0.0.254".parse().unwrap(), 9)),
                    version => on_link(&address, version),
                },
            );
        }
        Step::Alive(server, alive) => {
            let address = format!("10.0.0.{}", server + 1).parse().unwrap();
            if alive {
                world.alive.insert(address)
            } else {
                world.alive.remove(&address)
            };
        }
        Step::Probe => world.probe(),
        Step::Wait => world.wait(1),
        Step::Failing(at) => world.plan_fails_at = at,
        Step::Hold => world.plans_wait = true,
        Step::Finish => world.finish(),
        // With a file that is no configuration none starts.
        Step::Restart if config::parse(&world.file, &world.files).is_err() => {}
        Step::Restart => world.restart(),
        Step::Weight(backend, weight) => {
            let patch = BackendPatch { weight: Some(weight), ..BackendPatch::default() };
            world.edit(Edit::SetBackend { pool: "p0".to_owned(), name: format!("b{backend}"), patch });
        }
    }
}

/// Which server each of some flows reaches.
fn served(world: &World) -> Vec<Vec<Option<[u8; 6]>>> {
    let keys = (1..3).flat_map(|vip| (79..84).map(move |port| (vip, port)));
    keys.map(|(vip, port)| world.flows(&format!("192.0.2.{vip}"), port)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn whatever_happens_the_end_is_as_after_a_fresh_start(steps in vec(steps(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            take(&mut world, step);
        }
        // Everything works again, and probes find out what is so.
        world.finish();
        world.plan_fails_at = None;
        world.wait(2);
        (0..3).for_each(|_| world.probe());
        world.wait(1);
        // As long as it is not known who of its new pool is up, a service is served by the one before, which a fresh start
        // does not know.
        if !world.controller.moves().is_empty() {
            return Ok(());
        }

        let mut fresh = World::new();
        fresh.alive.clone_from(&world.alive);
        fresh.ways.clone_from(&world.ways);
        fresh.configure(&world.controller.source.text.clone());
        (0..3).for_each(|_| fresh.probe());
        prop_assert_eq!(served(&world), served(&fresh));
        prop_assert!(world.status().warnings.is_empty());
    }
}
