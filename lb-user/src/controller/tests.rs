//! Scenarios: what the controller does when the outside behaves in one way or another.

mod apply;
mod counters;
mod draining;
mod edits;
mod events;
mod faults;
mod features;
mod found;
mod interfaces;
mod leaving;
mod moving;
mod properties;
mod shares;
mod simulation;
mod trace;
mod verify;
mod world;

use std::{sync::Arc, time::Duration};

use lb_common::abi::{Limits, PROBE_MARK};

use self::world::{LIMITS, World, behind, check, no_mac, on_link, target};
use super::{Event, Level};
use crate::{
    api::State,
    model::{
        next_hop::Unreachable,
        probe::{ProbeFailure, ProbeOutcome, ProbeSpec},
    },
};

const CONFIG: &str = r#"
[[pool]]
name = "web"
slots = 31
check = { type = "tcp", rise = 2, fall = 3 }
[[pool.backend]]
name = "w1"
address = "10.1.0.11"
[[pool.backend]]
name = "w2"
address = "10.1.0.12"

[[service]]
name = "www"
vip = "192.0.2.10"
ports = ["tcp/80", "tcp/443"]
pool = "web"
"#;
const BOTH: [&str; 2] = ["10.1.0.11", "10.1.0.12"];
const VIP: &str = "192.0.2.10";

/// `CONFIG` with one piece of text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(CONFIG.contains(from), "{from}");
    CONFIG.replacen(from, to, 1)
}

#[test]
fn a_backend_serves_after_its_way_and_its_first_success() {
    let mut world = World::new();
    world.configure(CONFIG);
    assert_eq!(world.status().config.generation, 1);
    assert_eq!(world.servers(VIP, 80), [0], "nobody yet");
    assert_eq!(world.standing("w1"), (State::Down, "looking for the way to 10.1.0.11".to_owned()));
    assert!(world.probes.is_empty() && world.resolving.len() == 2);

    world.way("10.1.0.11", no_mac("10.1.0.11"));
    let words = "no MAC for 10.1.0.11 on eth0: it does not answer ARP".to_owned();
    assert_eq!(world.standing("w1"), (State::Down, words));

    world.way("10.1.0.11", on_link("10.1.0.11", 0));
    assert_eq!(world.standing("w1"), (State::Down, "not checked yet".to_owned()));
    let spec = &world.probes[&check("web", "w1")];
    let mark = spec.mark.unwrap();
    assert_eq!((spec.target, mark & 0xff00_0000), (target("192.0.2.10:80"), PROBE_MARK));
    assert_eq!(world.memory.backends[(mark & 0xff_ffff) as usize].hop().destination()[5], 11);
    assert_eq!(world.servers(VIP, 80), [0]);

    world.alive.insert("10.1.0.11".parse().unwrap());
    world.probe();
    assert_eq!(world.standing("w1"), (State::Up, "check connected in 1.0 ms".to_owned()));
    assert_eq!((world.servers(VIP, 80), world.servers(VIP, 443)), (vec![11], vec![11]));
    assert!(world.said("web/w1 UP: check connected"));
    assert_eq!(world.servers("192.0.2.10", 81), [0], "no service there");
}

#[test]
fn failures_take_a_backend_down_and_successes_bring_it_back() {
    let mut world = World::serving(CONFIG, &BOTH);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    world.alive.remove(&"10.1.0.12".parse().unwrap());
    for serving in [&[11, 12][..], &[11, 12], &[11], &[11]] {
        world.probe();
        assert_eq!(world.servers(VIP, 80), serving);
    }
    assert_eq!(world.standing("w2").0, State::Down);
    assert!(world.log.contains(&(
        Level::Warn,
        "web/w2 DOWN: TCP RST from 192.0.2.10:80: nothing listens there".to_owned()
    )));
    world.alive.insert("10.1.0.12".parse().unwrap());
    for serving in [&[11][..], &[11, 12]] {
        world.probe();
        assert_eq!(world.servers(VIP, 80), serving);
    }

    world.alive.clear();
    (0..3).for_each(|_| world.probe());
    assert_eq!(world.servers(VIP, 80), [0], "nobody is left: no slot names anyone");
    assert!(world.memory.slots.iter().all(|slot| slot.owner().is_none()));
    assert_eq!(world.status().services[0].state, State::Down);
}

#[test]
fn a_way_lost_takes_a_backend_out_and_silence_makes_it_new() {
    let silent = no_mac("10.1.0.12");
    let no_route = Err(Unreachable::NoRoute { target: "10.1.0.12".parse().unwrap() });
    for (why, back) in [(silent, State::Down), (no_route, State::Up)] {
        let mut world = World::serving(CONFIG, &BOTH);
        world.way("10.1.0.12", why);
        assert_eq!((world.servers(VIP, 80), world.standing("w2").0), (vec![11], State::Down));
        assert!(!world.probes.contains_key(&check("web", "w2")));
        world.way("10.1.0.12", on_link("10.1.0.12", 1));
        assert_eq!(world.standing("w2").0, back);
        world.probe();
        assert_eq!(world.servers(VIP, 80), [11, 12], "one success is enough");
    }
}

#[test]
fn a_new_mac_moves_a_backend_in_one_step() {
    let mut world = World::serving(CONFIG, &BOTH);
    let steps = world.steps;
    world.way("10.1.0.12", on_link("10.1.0.12", 7));
    assert_eq!(world.steps, steps + 1);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    world.way("10.1.0.12", on_link("10.1.0.12", 7));
    assert_eq!(world.steps, steps + 1, "no news");
}

#[test]
fn an_l2_backend_behind_a_gateway_is_told_to_use_a_tunnel() {
    let mut world = World::serving(CONFIG, &BOTH[..1]);
    let hop = behind("10.1.0.12".parse().unwrap(), "10.1.0.1".parse().unwrap(), 0);
    world.way("10.1.0.12", Ok(hop));
    let words =
        "10.1.0.12 is not on a subnet of this machine (its gateway is 10.1.0.1): it needs via = \"ipip\"";
    assert_eq!(world.standing("w2"), (State::Down, words.to_owned()));
    world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nvia = \"ipip\""));
    world.alive.insert("10.1.0.12".parse().unwrap());
    world.probe();
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    assert_eq!(world.probes[&check("web", "w2")].max_segment, Some(1500 - 20 - 40));
}

#[test]
fn the_operator_has_the_last_word() {
    let state = |word: &str| with("\"10.1.0.12\"", &format!("\"10.1.0.12\"\nstate = \"{word}\""));
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure(&state("drain"));
    assert_eq!((world.servers(VIP, 80), world.standing("w2").0), (vec![11], State::Drain));
    assert!(world.probes.contains_key(&check("web", "w2")), "still probed");
    world.configure(&state("ready"));
    assert_eq!((world.servers(VIP, 80), world.standing("w2").0), (vec![11, 12], State::Up));
    world.configure(&state("maint"));
    assert_eq!((world.servers(VIP, 80), world.standing("w2").0), (vec![11], State::Maint));
    assert!(!world.probes.contains_key(&check("web", "w2")), "left alone");
    world.configure(&state("ready"));
    assert_eq!(world.standing("w2"), (State::Down, "not checked yet".to_owned()), "nobody looked meanwhile");
    world.probe();
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nweight = 0"));
    assert_eq!((world.servers(VIP, 80), world.standing("w2").0), (vec![11], State::Up));
}

#[test]
fn a_bad_configuration_changes_nothing_but_what_is_said() {
    let mut world = World::serving(CONFIG, &BOTH);
    let (memory, steps) = (world.memory.clone(), world.steps);
    world.configure(&with("pool = \"web\"", "pool = \"wbe\""));
    let config = world.status().config;
    assert_eq!(config.generation, 1);
    assert!(config.errors[0].contains("pool \"wbe\" does not exist"), "{config:?}");
    world.tell(vec![Event::ConfigUnreadable("Permission denied".to_owned())]);
    assert_eq!(world.status().config.errors, ["Permission denied"]);
    assert_eq!((&world.memory, world.steps), (&memory, steps));

    world.configure(CONFIG);
    let config = world.status().config;
    assert_eq!((config.generation, config.errors.len(), world.steps), (1, 0, steps), "the same text");
}

#[test]
fn a_configuration_too_large_for_the_tables_is_refused_as_a_whole() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure(&with("slots = 31", "slots = 16381"));
    let config = world.status().config;
    let full = "no room for 16381 more slots: the tables were made for 8192; restart lb to make larger ones";
    assert_eq!((config.generation, config.errors), (1, vec![full.to_owned()]));
    world.configure(&with("\"tcp/443\"", "\"tcp/1000-1999\""));
    assert!(world.status().config.errors[0].contains("1002 VIP ports"), "{:?}", world.status().config);

    world.alive.remove(&"10.1.0.12".parse().unwrap());
    (0..3).for_each(|_| world.probe());
    assert_eq!(world.servers(VIP, 80), [11], "the old one is in force, with all that happens under it");
}

/// Backends that a new configuration no longer has serve the flows they have, and need their places meanwhile.
#[test]
fn room_is_needed_for_those_that_would_leave() {
    let servers = |first: u8| (first..first + 16).map(|last| format!("10.1.0.{last}")).collect::<Vec<_>>();
    let config = |first: u8, slots: u32| {
        let backend =
            |address: &String| format!("[[pool.backend]]\nname = \"b{address}\"\naddress = \"{address}\"\n");
        let backends: String = servers(first).iter().map(backend).collect();
        let service = &CONFIG[CONFIG.find("[[service]]").unwrap()..];
        format!(
            "[[pool]]\nname = \"web\"\nslots = {slots}\ncheck = {{ type = \"tcp\" }}\n{backends}{service}"
        )
    };
    let mut world = World::of(Limits { backends: 128, ..LIMITS });
    world.configure(&config(1, 31));
    for server in servers(1) {
        world.way(&server, on_link(&server, 0));
        world.alive.insert(server.parse().unwrap());
    }
    world.probe();
    let serving = world.servers(VIP, 80);
    assert!(serving.len() > 10, "{serving:?}");

    world.configure(&config(101, 61));
    let status = world.status();
    assert_eq!(status.warnings, [""; 0], "taken, and then it does not fit");
    let full = "no room for 128 more backends: the tables were made for 128; restart lb to make larger ones";
    assert_eq!((status.config.generation, status.config.errors), (1, vec![full.to_owned()]));
    assert_eq!(world.servers(VIP, 80), serving);

    // Those that are down have no flows to serve.
    for server in servers(1) {
        world.way(&server, no_mac(&server));
    }
    world.configure(&config(101, 61));
    let status = world.status();
    assert_eq!((status.config.generation, status.config.errors, status.warnings), (2, vec![], vec![]));
}

#[test]
fn a_failed_plan_is_tried_again_and_shown() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.plan_fails_at = Some(0);
    world.alive.remove(&"10.1.0.12".parse().unwrap());
    (0..3).for_each(|_| world.probe());
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    let warnings = world.status().warnings;
    assert_eq!(warnings, ["the tables are not as wanted: step 1 of 2 failed: the kernel said no"]);
    world.wait(10);
    assert_eq!(world.log.iter().filter(|(level, _)| *level == Level::Error).count(), 1, "said once");
    world.plan_fails_at = None;
    world.tell(vec![Event::Tick]);
    assert_eq!(world.servers(VIP, 80), [11, 12], "not before a second has passed");
    world.wait(1);
    assert_eq!(world.servers(VIP, 80), [11]);
    assert!(world.status().warnings.is_empty());
}

/// What happens while a plan is being carried out is seen to afterwards.
#[test]
fn nothing_is_lost_while_a_plan_is_under_way() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.plans_wait = true;
    world.way("10.1.0.11", on_link("10.1.0.11", 1));
    world.way("10.1.0.12", no_mac("10.1.0.12"));
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    world.finish();
    assert_eq!(world.servers(VIP, 80), [11]);
    assert!(world.said("web/w2 DOWN: no MAC"));
}

/// A pool that moves keeps its health: probes are sent to where the records are, not to where they should be.
#[test]
fn a_plan_that_fails_does_not_lead_probes_astray() {
    let mut world = World::serving(CONFIG, &BOTH);
    let probes = world.probes.clone();
    world.plan_fails_at = Some(1);
    world.configure(&with("slots = 31", "slots = 37"));
    assert_eq!(world.probes, probes);
    world.plan_fails_at = None;
    world.wait(2);
    assert_ne!(world.probes, probes);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
}

/// A name that means another server now, while the tables are still those of the earlier one.
#[test]
fn a_plan_that_fails_does_not_judge_a_backend_by_another() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.way("10.1.0.13", on_link("10.1.0.13", 0));
    world.plan_fails_at = Some(0);
    world.configure(&with("10.1.0.12", "10.1.0.13"));
    world.probe();
    assert_eq!(world.standing("w2"), (State::Down, "not checked yet".to_owned()));
    world.plan_fails_at = None;
    world.wait(2);
    world.probe();
    assert_eq!(world.standing("w2").0, State::Down);
    assert_eq!(world.servers(VIP, 80), [11]);
}

#[test]
fn an_outcome_of_an_earlier_probe_says_nothing() {
    let mut world = World::serving(CONFIG, &BOTH);
    let spec = world.probes[&check("web", "w1")].clone();
    let failed = |spec: &ProbeSpec| {
        let result = Err(ProbeFailure::Refused { target: spec.target });
        let spec = Arc::new(spec.clone());
        Event::Probe(ProbeOutcome { id: check("web", "w1"), spec, took: Duration::ZERO, result })
    };
    let other_mark = ProbeSpec { mark: spec.mark.map(|mark| mark + 1), ..(*spec).clone() };
    let other_check = ProbeSpec { timeout: Duration::from_secs(9), ..(*spec).clone() };
    for other in [&other_mark, &other_check] {
        (0..9).for_each(|_| world.tell(vec![failed(other)]));
        assert_eq!(world.standing("w1").0, State::Up);
    }
    (0..3).for_each(|_| world.tell(vec![failed(&spec)]));
    assert_eq!(world.standing("w1").0, State::Down);
}

#[test]
fn a_check_that_comes_or_goes_leaves_who_serves() {
    let checked = "check = { type = \"tcp\", rise = 2, fall = 3 }";
    let mut world = World::serving(&with(checked, ""), &BOTH);
    world.alive.clear();
    assert_eq!(world.standing("w1"), (State::Up, "no check".to_owned()));
    assert!(world.probes.is_empty());
    let log = world.log.len();
    world.configure(CONFIG);
    assert_eq!(world.servers(VIP, 80), [11, 12], "until the check says otherwise");
    world.configure(&with(checked, ""));
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    assert!(!world.log[log..].iter().any(|(_, line)| line.contains(" UP")), "{:?}", &world.log[log..]);
    world.configure(CONFIG);
    (0..3).for_each(|_| world.probe());
    assert_eq!(world.servers(VIP, 80), [0]);
}

#[test]
fn what_is_removed_leaves_nothing_behind() {
    let mut world = World::serving(CONFIG, &BOTH);
    let present = |world: &World| {
        let memory = &world.memory;
        let backends = memory.backends.iter().filter(|backend| backend.standing != 0).count();
        (backends, memory.services.iter().filter(|service| service.slot_count != 0).count())
    };
    assert_eq!(present(&world), (2, 1));
    world.configure(&with("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"", ""));
    assert_eq!((present(&world), world.servers(VIP, 80)), ((2, 1), vec![11]), "it may have flows");
    world.wait(310);
    assert_eq!((present(&world), world.servers(VIP, 80)), ((1, 1), vec![11]), "it has none");
    assert!(!world.probes.contains_key(&check("web", "w2")) && world.resolving.len() == 1);
    let pool = CONFIG.split("[[service]]").next().unwrap();
    world.configure(&pool.replace("\"tcp\",", "\"tcp\", port = 80,"));
    assert_eq!((present(&world), world.servers(VIP, 80)), ((2, 0), vec![0]));
    assert!(world.probes.is_empty(), "there is no VIP to probe it through");
    world.configure("");
    assert_eq!(present(&world), (0, 0));
    assert!(world.resolving.is_empty());
}

/// Its name is what people call it; its connections know nothing of that.
#[test]
fn a_backend_under_another_name_goes_on_as_it_was() {
    let mut world = World::serving(CONFIG, &BOTH);
    let (steps, flows) = (world.steps, world.flows(VIP, 80));
    world.configure(&with("\"w2\"", "\"w9\""));
    assert_eq!(world.standing("w9").0, State::Up);
    assert_eq!((world.steps, world.flows(VIP, 80)), (steps, flows), "nothing moved");
    assert!(world.probes.contains_key(&check("web", "w9")));
}
