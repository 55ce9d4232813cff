//! A daemon ends anyhow and another one goes on: with everything that stands in the tables.

use std::time::Duration;

use lb_common::abi::{Features, Service};

use super::world::{World, on_link};
use crate::{
    api::State,
    config,
    controller::{Controller, Tables},
    model::{layout::Incoherent, traffic::Counters},
};

const BACKENDS: &str = "[[pool.backend]]\nname = \"b1\"\naddress = \"10.0.0.1\"\nserver_id = \"0x01\"\n\
     [[pool.backend]]\nname = \"b2\"\naddress = \"10.0.0.2\"\nvia = \"ipip\"\nserver_id = \"0x02\"\n\
     [[pool.backend]]\nname = \"b3\"\naddress = \"10.0.0.3\"\nvia = \"gue\"\nweight = 20\nserver_id = \"0x03\"\n";

/// Everything that may stand in the tables.
fn everything() -> String {
    let pool = |name: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\nslots = 61\ncheck = {{ type = \"tcp\", port = 80 }}\n{BACKENDS}"
        )
    };
    let service = |name: &str, rest: &str| format!("[[service]]\nname = \"{name}\"\n{rest}\n");
    [
        "[lb]\nseed = 7\nflow_events = 5\n".to_owned(),
        "[[acl]]\nname = \"good\"\nallow = [\"10.0.0.0/8\", \"198.51.100.0/24\", \"2001:db8::/32\"]\ndeny = [\"10.7.0.0/16\"]\ndefault = \"deny\"\n"
            .to_owned(),
        pool("web"),
        pool("dns"),
        service(
            "www",
            "vip = \"192.0.2.1\"\nports = [\"tcp/80\", \"tcp/443\"]\npool = \"web\"\nacl = \"good\"",
        ),
        service("same", "vip = \"192.0.2.1\"\nports = [\"tcp/8080\"]\npool = \"web\"\necho = false"),
        service("net", "vip = \"198.51.100.0/24\"\nports = [\"tcp/80\"]\npool = \"web\""),
        service("other-net", "vip = \"203.0.113.0/24\"\nports = [\"tcp/*\"]\npool = \"dns\""),
        service("dns", "vip = \"192.0.2.2\"\nports = [\"udp/53\"]\npool = \"dns\"\naffinity = \"source\""),
        service(
            "h3",
            "vip = \"192.0.2.3\"\nports = [\"udp/443\"]\npool = \"web\"\nquic = { server_id_length = 1 }",
        ),
    ]
    .concat()
}

fn world() -> World {
    let mut world = World::serving(&everything(), &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(world.controller.config_errors(), [""; 0]);
    // What settled has settled.
    world.wait(400);
    world
}

#[test]
fn nothing_is_planned_for_an_unchanged_configuration() {
    let mut world = world();
    let (before, steps) = (world.memory.clone(), world.steps);
    for _ in 0..3 {
        world.restart();
        assert_eq!(world.steps, steps);
        for backend in ["b1", "b2", "b3"] {
            assert_eq!(world.standing(backend), (State::Up, "not checked yet".to_owned()));
        }
        world.probe();
        world.wait(5);
    }
    assert_eq!(world.steps, steps);
    assert!(world.memory == before);
    assert!(world.log.iter().all(|(_, line)| !line.contains("DOWN")), "{:?}", world.log);
}

#[test]
fn transitions_and_those_who_leave_are_gone_on_with() {
    let mut world = world();
    world.configure(&everything().replace("10.0.0.1", "10.0.0.4"));
    world.way("10.0.0.4", on_link("10.0.0.4", 0));
    world.alive.insert("10.0.0.4".parse().unwrap());
    world.probe();
    let moving = |world: &World| world.memory.slots.iter().filter(|slot| slot.in_transition()).count();
    let (before, steps) = (moving(&world), world.steps);
    assert!(before > 0);
    world.restart();
    assert_eq!((moving(&world), world.steps), (before, steps));
    assert!(world.controller.leaving_addresses().any(|address| address.to_string() == "10.0.0.1"));
    // The transitions end as they would have.
    world.wait(700);
    assert_eq!(moving(&world), 0);
    assert_eq!(world.controller.leaving_addresses().count(), 0);
}

#[test]
fn a_configuration_that_changed_meanwhile_changes_what_it_says() {
    let mut world = world();
    let flows = world.flows("192.0.2.1", 80);
    let text = everything().replace("name = \"same\"", "name = \"renamed\"").replace("tcp/8080", "tcp/8081");
    let text = text.replace("seed = 7\nflow_events = 5", "seed = 7");
    world.file.clone_from(&text);
    world.restart();
    assert!(flows.iter().all(Option::is_some));
    assert_eq!(world.flows("192.0.2.1", 80), flows, "who did not change keeps place and slots");
    assert!(world.flows("192.0.2.1", 8081).iter().all(Option::is_some));
    assert_eq!(world.servers("192.0.2.1", 8080), [0]);
    assert!(!world.memory.features.has(Features::FLOW_EVENTS));
    assert_eq!(world.memory.config.features, world.memory.features);
    let records = world.memory.services.iter().filter(|service| service.slot_count > 0).count();
    assert_eq!(records, 6, "the old record is cleared");
}

#[test]
fn who_was_down_is_not_taken_for_up() {
    let mut world = world();
    world.alive.remove(&"10.0.0.2".parse().unwrap());
    (0..5).for_each(|_| world.probe());
    assert_eq!(world.standing("b2").0, State::Down);
    let steps = world.steps;
    world.restart();
    assert_eq!(world.steps, steps);
    assert_eq!(world.standing("b2"), (State::Down, "not checked yet".to_owned()));
    world.alive.insert("10.0.0.2".parse().unwrap());
    world.probe();
    assert_eq!(world.standing("b2").0, State::Up);
}

/// Root may write anything into pinned maps.
#[test]
fn tables_that_contradict_themselves_are_not_gone_on_with() {
    let world = world();
    let number = world.memory.services.iter().position(|service| service.slot_count > 0).unwrap();
    let broken = |change: &dyn Fn(&mut Service)| {
        let mut memory = world.memory.clone();
        change(&mut memory.services[number]);
        let tables = Tables { memory, counters: Counters::default() };
        let desired = config::parse(&world.file, &world.files).unwrap();
        Controller::found(Duration::ZERO, tables, super::world::identity(), desired).err()
    };
    assert_eq!(broken(&|_| {}), None);
    type Damage = (&'static str, fn(&mut Service));
    let damages: [Damage; 6] = [
        ("a run of slots behind the end", |service| service.slot_base = u32::MAX - 3),
        ("slots of two pools", |service| service.slot_count += 40),
        ("another place for its backends", |service| service.backend_base += 1),
        ("more backends than there are", |service| service.backend_count = u32::MAX),
        ("somebody else's counters", |service| service.counter_base += 1),
        ("no service where the index leads", |service| *service = Service::default()),
    ];
    for (what, damage) in damages {
        let error: Option<Incoherent> = broken(&damage);
        assert!(error.is_some(), "{what}");
    }
}

/// A plan that stopped half-way left a pool twice: as it was, where nothing leads any more, and as it is.
#[test]
fn what_a_plan_left_behind_is_not_written_over_while_it_serves() {
    let pool = |slots: u32| {
        format!(
            "[[pool]]\nname = \"p0\"\nslots = {slots}\n[[pool.backend]]\nname = \"b0\"\naddress = \"10.0.0.2\"\nweight = 0\n"
        )
    };
    let service = "[[service]]\nname = \"s0\"\nvip = \"192.0.2.1\"\nports = [\"tcp/80\"]\npool = \"p0\"\n";
    for steps in 0..12 {
        let mut world = World::new();
        world.way("10.0.0.2", on_link("10.0.0.2", 3));
        world.configure(&pool(31));
        world.plan_fails_at = Some(steps);
        world.configure(&(pool(61) + service));
        world.restart();
        world.wait(2);
        world.plan_fails_at = None;
        world.wait(2);
        assert!(world.status().warnings.is_empty());
    }
}
