//! Pools with too few backends, slow starts, agents, and weights that follow latency.

use std::time::Duration;

use super::{BOTH, VIP, with, world::World};
use crate::api::{BackendView, PoolView, Request, Response, State};

/// `CONFIG` with more keys for its pool, and a pool that may help out, which no service points at.
fn spare(keys: &str) -> String {
    let spare = r#"
[[pool]]
name = "spare"
slots = 31
check = { type = "tcp", rise = 1, fall = 1 }
backend = [{ name = "s1", address = "10.1.0.21" }, { name = "s2", address = "10.1.0.22" }]
"#;
    with("rise = 2, fall = 3 }", &format!("rise = 1, fall = 1 }}\n{keys}")) + spare
}

const ALL: [&str; 4] = ["10.1.0.11", "10.1.0.12", "10.1.0.21", "10.1.0.22"];

fn falls(world: &mut World, servers: &[&str]) {
    for server in servers {
        world.alive.remove(&server.parse().unwrap());
    }
    world.probe();
}

fn returns(world: &mut World, servers: &[&str]) {
    world.alive.extend(servers.iter().map(|server| server.parse::<std::net::IpAddr>().unwrap()));
    world.probe();
}

fn pool(world: &mut World) -> PoolView {
    match world.ask(Request::Pools(Some("web".to_owned()))) {
        Response::Pool(pool) => pool,
        other => panic!("{other:?}"),
    }
}

fn backend(world: &mut World, name: &str) -> BackendView {
    pool(world).backends.into_iter().find(|backend| backend.name == name).unwrap()
}

fn slots(world: &mut World) -> Vec<u32> {
    pool(world).backends.iter().map(|backend| backend.slots).collect()
}

#[test]
fn another_pool_helps_out_while_too_few_are_up() {
    let mut world = World::serving(&spare("min_up = 2\nfallback = \"spare\""), &ALL);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    assert!(world.probes.keys().any(|id| id.backend.pool.as_str() == "spare"), "it is probed at the VIP");
    let steps = world.steps;

    falls(&mut world, &["10.1.0.12"]);
    assert_eq!(world.servers(VIP, 80), [21, 22]);
    let words = "pool web: 1 of 2 backends are up (min_up = 2): those of pool spare take its new flows";
    assert!(world.said(words), "{:?}", world.log);
    assert_eq!(world.status().warnings, [words]);
    assert_eq!(pool(&mut world).shortage.as_deref(), Some(words));
    assert_eq!(world.status().services[0].state, State::Up);
    // Nobody moves to other numbers: slots, and what backends take.
    assert!(world.steps - steps <= 31 + 8, "{} steps", world.steps - steps);

    returns(&mut world, &["10.1.0.12"]);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    assert!(world.said("pool web: 2 backends are up, which is enough again"));
    assert!(world.status().warnings.is_empty());

    // Without any help the rest goes on.
    falls(&mut world, &["10.1.0.12", "10.1.0.21", "10.1.0.22"]);
    assert_eq!(world.servers(VIP, 80), [11]);
    assert!(world.said("1 of 2 backends are up (min_up = 2), pool spare has none either: it takes all"));
    falls(&mut world, &["10.1.0.11"]);
    assert_eq!(world.servers(VIP, 80), [0]);
}

#[test]
fn a_restart_finds_who_helps_out() {
    let config = spare("fallback = \"spare\"");
    let mut world = World::serving(&config, &ALL);
    falls(&mut world, &BOTH);
    assert_eq!(world.servers(VIP, 80), [21, 22]);
    world.restart();
    assert_eq!(world.servers(VIP, 80), [21, 22]);
    returns(&mut world, &BOTH);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
}

#[test]
fn those_that_were_up_last_are_kept() {
    let mut world = World::serving(&spare("on_all_down = \"keep-last\""), &ALL);
    falls(&mut world, &["10.1.0.11"]);
    assert_eq!(world.servers(VIP, 80), [12]);
    falls(&mut world, &["10.1.0.12"]);
    assert_eq!(world.servers(VIP, 80), [12], "the last that was up");
    assert!(world.said("0 of 2 backends are up: those that were up last take its new flows"));
    assert_eq!(world.status().services[0].state, State::Up);
    returns(&mut world, &["10.1.0.11"]);
    assert_eq!(world.servers(VIP, 80), [11]);
}

#[test]
fn all_that_can_be_reached_are_tried() {
    let mut world = World::serving(&spare("on_all_down = \"all\"\nmin_up = 2"), &ALL);
    falls(&mut world, &["10.1.0.11"]);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    falls(&mut world, &["10.1.0.12"]);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    world.way("10.1.0.11", super::world::no_mac("10.1.0.11"));
    assert_eq!(world.servers(VIP, 80), [12], "nobody is sent where there is no way");
}

#[test]
fn a_backend_that_returns_grows_to_its_weight() {
    let mut world = World::serving(&spare("slow_start = \"40s\""), &ALL);
    // All start alike: the shares are those of the file.
    let even = slots(&mut world);
    assert_eq!(even.iter().sum::<u32>(), 31);
    assert!(even.iter().all(|&slots| slots.abs_diff(15) <= 1), "{even:?}");
    world.wait(100);
    assert_eq!(slots(&mut world), even);

    falls(&mut world, &["10.1.0.12"]);
    assert_eq!(slots(&mut world), [31, 0]);
    returns(&mut world, &["10.1.0.12"]);
    let mut grown = Vec::new();
    for _ in 0..=40 {
        grown.push((backend(&mut world, "w2").weight_percent, slots(&mut world)[1]));
        world.wait(1);
    }
    grown.dedup();
    // Of 31: 20 of 120, 40 of 140, ...
    assert_eq!(grown, [(20, 5), (40, 9), (60, 12), (80, 14), (100, even[1])]);
    assert_eq!(backend(&mut world, "w2").weight, 100, "what the file says");

    falls(&mut world, &["10.1.0.12"]);
    returns(&mut world, &["10.1.0.12"]);
    let reason = backend(&mut world, "w2").reason;
    assert_eq!(reason, "check connected in 1.0 ms; 20% of its weight: it starts slowly");
}

#[test]
fn an_agent_says_what_its_backend_can_take() {
    let config = spare("agent = { port = 9999 }");
    let mut world = World::serving(&config, &ALL);
    let even = slots(&mut world);
    assert_eq!(world.servers(VIP, 80), [11, 12], "an agent that does not answer changes nothing");
    let agent = |world: &mut World, line| {
        world.agents.insert("10.1.0.12".parse().unwrap(), line);
        world.probe();
    };
    agent(&mut world, "50%");
    assert_eq!(slots(&mut world), [21, 10]);
    assert_eq!(
        backend(&mut world, "w2").reason,
        "check connected in 1.0 ms; 50% of its weight: agent says \"50%\""
    );
    agent(&mut world, "drain");
    assert_eq!((world.standing("w2").0, slots(&mut world)), (State::Drain, vec![31, 0]));
    assert_eq!(world.standing("w2").1, "agent says \"drain\"");

    // A new daemon has not heard it, and the table tells.
    world.restart();
    assert_eq!((world.standing("w2").0, slots(&mut world)), (State::Drain, vec![31, 0]));
    world.probe();

    agent(&mut world, "ready 100%");
    assert_eq!((world.standing("w2").0, slots(&mut world)), (State::Up, even.clone()));
    agent(&mut world, "down # disk full");
    assert_eq!((world.standing("w2").0, slots(&mut world)), (State::Down, vec![31, 0]));
    assert_eq!(world.standing("w2").1, "agent says \"down # disk full\"");
    agent(&mut world, "up");
    assert_eq!((world.standing("w2").0, slots(&mut world)), (State::Up, even.clone()));
    agent(&mut world, "maint");
    assert_eq!(world.standing("w2").0, State::Maint);
    // Nobody is asked any longer: what was said does not hold.
    world.configure(&spare(""));
    world.probe();
    assert_eq!((world.standing("w2").0, slots(&mut world)), (State::Up, even));
}

#[test]
fn the_operators_word_comes_before_that_of_an_agent() {
    let config = spare("agent = { port = 9999 }");
    let mut world = World::serving(&config, &ALL);
    world.agents.insert("10.1.0.12".parse().unwrap(), "ready 100%");
    world.configure(&config.replacen("\"10.1.0.12\"", "\"10.1.0.12\"\nstate = \"maint\"", 1));
    world.probe();
    assert_eq!(world.standing("w2"), (State::Maint, "taken out by an operator".to_owned()));
}

#[test]
fn a_backend_that_answers_more_slowly_gets_less() {
    let mut world = World::new();
    let three = "address = \"10.1.0.12\"\n[[pool.backend]]\nname = \"w3\"\naddress = \"10.1.0.13\"\n";
    world.configure(&spare("weights = \"latency\"").replacen("address = \"10.1.0.12\"\n", three, 1));
    for server in ["10.1.0.11", "10.1.0.12", "10.1.0.13"] {
        world.way(server, super::world::on_link(server, 0));
        world.alive.insert(server.parse().unwrap());
        world.slow.insert(server.parse().unwrap(), Duration::from_millis(10));
    }
    world.probe();
    world.slow.insert("10.1.0.12".parse().unwrap(), Duration::from_millis(40));
    let mut percents = Vec::new();
    for _ in 0..20 {
        (0..5).for_each(|_| world.probe());
        world.wait(10);
        percents.push(backend(&mut world, "w2").weight_percent);
    }
    percents.dedup();
    assert_eq!(percents, [90, 80, 70, 60, 50], "a step at a time, and not below half");
    assert_eq!(slots(&mut world).iter().sum::<u32>(), 31);
    assert!(slots(&mut world)[1].abs_diff(31 / 5) <= 1, "{:?}", slots(&mut world));
    assert_eq!(backend(&mut world, "w1").weight_percent, 100);
}
