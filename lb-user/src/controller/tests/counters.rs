//! What is counted, by service, backend and reason.

use std::time::Duration;

use lb_common::abi::{self, Counter, DropReason, Note, Reason};

use super::{
    BOTH, CONFIG,
    world::{LIMITS, World},
};
use crate::{
    api::{ReasonStats, Request, Response, ServiceStats, Stats},
    controller::Event,
    model::traffic::Counters,
};

/// Counters as the program counts, and what the controller is told of them.
struct Counted(Vec<u64>);

impl Counted {
    fn new() -> Self {
        Self(vec![0; LIMITS.counters as usize])
    }

    fn service(world: &World) -> abi::Service {
        *world.memory.services.iter().find(|service| service.slot_count != 0).unwrap()
    }

    fn forward(&mut self, world: &World, server: u8, more: u64) {
        let service = Self::service(world);
        let base = service.backend_base as usize;
        let records = &world.memory.backends[base..base + service.backend_count as usize];
        let number = records.iter().position(|backend| backend.hop().destination()[5] == server).unwrap();
        self.0[service.counter_base as usize + number] += more;
    }

    fn refuse(&mut self, world: &World, reason: Reason, more: u64) {
        let place = Self::service(world).reason_base() + reason.of_service().unwrap();
        self.0[place as usize] += more;
    }

    fn tell(&self, world: &mut World) {
        let counter = |&packets: &u64| Counter { packets, bytes: 100 * packets };
        let end = world.controller.counters_in_use() as usize;
        let forwarded = self.0[..end].iter().map(counter).collect();
        world.now += Duration::from_secs(1);
        world.tell(vec![Event::Counters(Counters { forwarded, reasons: vec![counter(&5)] })]);
    }
}

fn stats(world: &mut World) -> Stats {
    match world.ask(Request::Stats) {
        Response::Stats(stats) => stats,
        other => panic!("{other:?}"),
    }
}

/// Packets by backend, or by reason.
fn of_backends(stats: &ServiceStats) -> Vec<(String, u64)> {
    stats.backends.iter().map(|stats| (stats.backend.clone(), stats.traffic.packets)).collect()
}

fn of_reasons(reasons: &[ReasonStats]) -> Vec<(&str, u64)> {
    let happened = reasons.iter().filter(|stats| stats.traffic.packets > 0);
    happened.map(|stats| (&*stats.reason, stats.traffic.packets)).collect()
}

#[test]
fn counters_belong_to_a_service_and_a_backend() {
    let mut world = World::serving(CONFIG, &BOTH);
    let mut counted = Counted::new();
    counted.forward(&world, 11, 7);
    counted.forward(&world, 12, 8);
    counted.tell(&mut world);
    let both = |a, b| vec![("w1".to_owned(), a), ("w2".to_owned(), b)];
    let seen = stats(&mut world);
    assert_eq!((seen.services[0].traffic.packets, of_backends(&seen.services[0])), (15, both(7, 8)));
    assert_eq!(of_reasons(&seen.reasons), [("not_ip", 5)]);

    // Everything is taken away, and others come: what was counted before is not theirs, only their service's.
    world.configure("");
    world.configure(&CONFIG.replace("\"w", "\"x").replace("\"xe", "\"we").replace("\"xww", "\"www"));
    world.probe();
    counted.forward(&world, 12, 1);
    counted.tell(&mut world);
    let seen = stats(&mut world);
    let both = vec![("x1".to_owned(), 0), ("x2".to_owned(), 1)];
    assert_eq!((seen.services[0].traffic.packets, of_backends(&seen.services[0])), (16, both));
}

#[test]
fn sums_never_fall() {
    let (denied, echo) = (Reason::Drop(DropReason::Denied), Reason::Note(Note::EchoAnswered));
    let mut world = World::serving(CONFIG, &BOTH);
    let mut counted = Counted::new();
    counted.forward(&world, 11, 7);
    counted.forward(&world, 12, 8);
    counted.refuse(&world, denied, 3);
    counted.refuse(&world, echo, 2);
    counted.tell(&mut world);
    let seen = stats(&mut world);
    assert_eq!(of_reasons(&seen.services[0].reasons), [("denied", 3), ("echo_answered", 2)]);
    assert_eq!(of_reasons(&seen.reasons), [("not_ip", 5), ("denied", 3), ("echo_answered", 2)]);
    let Response::Service(view) = world.ask(Request::Services(Some("www".to_owned()))) else { panic!() };
    assert_eq!((view.traffic.packets, view.reasons), (15, seen.services[0].reasons.clone()));

    // One leaves and goes on with the flows it has.
    world.configure(&CONFIG.replace("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"\n", ""));
    counted.forward(&world, 11, 1);
    counted.forward(&world, 12, 1);
    counted.tell(&mut world);
    let seen = stats(&mut world);
    assert_eq!(seen.services[0].traffic.packets, 17);
    assert_eq!(of_backends(&seen.services[0]), [("w1".to_owned(), 8), ("10.1.0.12".to_owned(), 1)]);
    assert!(seen.services[0].backends[1].is_leaving);

    // It is gone, and then the service: the sums know of both.
    world.wait(700);
    counted.tell(&mut world);
    let seen = stats(&mut world);
    assert_eq!(of_backends(&seen.services[0]), [("w1".to_owned(), 8)]);
    assert_eq!(seen.services[0].traffic.packets, 17);
    world.configure("");
    counted.tell(&mut world);
    let seen = stats(&mut world);
    assert_eq!(seen.services, []);
    assert_eq!(of_reasons(&seen.reasons), [("not_ip", 5), ("denied", 3), ("echo_answered", 2)]);
}

#[test]
fn many_drops_are_told_of_once_and_again_when_they_are_over() {
    let mut world = World::serving(&format!("[lb]\ndrop_alarm = 100\n{CONFIG}"), &BOTH);
    let mut counted = Counted::new();
    let reason = Reason::Drop(DropReason::NoBackend);
    let mut alarms = |world: &mut World, each_second: &[u64]| -> Vec<String> {
        let before = world.log.len();
        for &more in each_second {
            counted.refuse(world, reason, more);
            counted.tell(world);
        }
        let said = world.log[before..].iter().map(|(_, text)| text.clone());
        said.filter(|text| text.contains(reason.name())).collect()
    };
    assert_eq!(alarms(&mut world, &[0, 90, 100, 0]), [""; 0]);
    let said = alarms(&mut world, &[101, 5000, 99, 300, 51]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("101 packets a second are dropped for no_backend, 101 of service www: "),
        "{said:?}"
    );
    assert_eq!(alarms(&mut world, &[50, 90]), ["drops for no_backend are over: 50 packets a second"]);

    let off = world.file.replace("drop_alarm = 100", "drop_alarm = 0");
    world.configure(&off);
    assert_eq!(alarms(&mut world, &[100_000, 100_000]), [""; 0]);
}
