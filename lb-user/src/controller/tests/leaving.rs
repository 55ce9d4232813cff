//! Backends that leave the configuration and still serve the flows they have, and what is told of flows.

use super::{
    BOTH, CONFIG, VIP, with,
    world::{World, no_mac, on_link},
};
use crate::{
    api::{Request, Response, State},
    controller::{Action, Event},
};

#[test]
fn a_backend_that_comes_back_before_it_is_gone_never_left() {
    let without = with("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"", "");
    let mut world = World::serving(CONFIG, &BOTH);
    let flows = world.flows(VIP, 80);
    world.configure(&without);
    assert_eq!(world.servers(VIP, 80), [11]);
    let leaving = |world: &mut World| match world.ask(Request::Flows) {
        Response::Flows(views) => views[0].backends.iter().filter(|backend| backend.is_leaving).count(),
        other => panic!("{other:?}"),
    };
    assert_eq!(leaving(&mut world), 1);
    world.configure(CONFIG);
    assert_eq!((leaving(&mut world), world.flows(VIP, 80)), (0, flows), "at once, without a probe");
    assert_eq!(world.standing("w2").0, State::Up);
    world.alive.remove(&"10.1.0.12".parse().unwrap());
    (0..3).for_each(|_| world.probe());
    assert_eq!(world.standing("w2").0, State::Down, "its checks have the last word");

    // One that did not serve, or was taken out, has no flows to leave with.
    world.configure(&without);
    assert_eq!(leaving(&mut world), 0);
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nstate = \"maint\""));
    world.configure(&without);
    assert_eq!(leaving(&mut world), 0);
}

/// Who drains a server and waits until nothing more is told of it must not be told so before it began.
#[test]
fn what_is_remembered_is_told_as_it_is_now() {
    let mut world = World::serving(CONFIG, &BOTH);
    let flows = |world: &mut World| match world.ask(Request::Flows) {
        Response::Flows(mut views) => views.remove(0),
        other => panic!("{other:?}"),
    };
    assert_eq!(flows(&mut world).slots_in_transition, 0);
    world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nstate = \"drain\""));
    let view = flows(&mut world);
    assert!(view.slots_in_transition > 10, "{view:?}");
    assert_eq!((&*view.backends[0].backend, view.backends[0].slots), ("w2", view.slots_in_transition));
    assert!(view.ends_in_seconds.is_some_and(|left| left >= 300), "{view:?}");
    let Response::Pools(pools) = world.ask(Request::Pools(None)) else { panic!("no pools") };
    assert_eq!(pools[0].flows, view);

    // A clock that cannot be read is no reason to say nothing.
    let (token, event) = world.request(Request::Flows);
    let actions = world.controller.handle(world.now, [event]);
    assert_eq!(actions, [Action::ReadFlows]);
    world.tell(vec![Event::FlowsUnreadable]);
    assert_eq!(world.replies.remove(&token), Some(Response::Flows(vec![view])));
}

/// Of several services it is the longest time of those protocols that they have.
#[test]
fn a_server_without_tcp_leaves_when_its_datagrams_are_over() {
    for (ports, gone_after) in [("udp/53", 40), ("tcp/80", 310), ("udp/53\", \"tcp/*", 310)] {
        let config = with("tcp/80\", \"tcp/443", ports).replace("\"tcp\",", "\"tcp\", port = 80,");
        let mut world = World::serving(&config, &BOTH);
        world.configure(&config.replace("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"", ""));
        let present = |world: &World| world.memory.backends.iter().filter(|b| b.standing != 0).count();
        world.wait(gone_after - 15);
        assert_eq!(present(&world), 2, "{ports}");
        world.wait(15);
        assert_eq!(present(&world), 1, "{ports}");
    }
}

/// Else its flows would be sent to a dead server for as long as somebody tries.
#[test]
fn a_backend_that_dies_while_it_leaves_is_done_with() {
    let without = with("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"", "");
    let dead = "10.1.0.12".parse().unwrap();
    let standings = |world: &World| world.memory.backends.iter().filter(|b| b.standing != 0).count();
    for keep in [false, true] {
        let on_down = |text: &str| match keep {
            true => text.replace("slots = 31", "slots = 31\non_down = \"keep\""),
            false => text.to_owned(),
        };
        let mut world = World::serving(&on_down(CONFIG), &BOTH);
        world.configure(&on_down(&without));
        assert_eq!(world.probes.len(), 2, "both are probed: {:?}", world.probes.keys());
        world.alive.remove(&dead);
        (0..2).for_each(|_| world.probe());
        assert_eq!(standings(&world), 2, "not yet: it falls after three failures");
        world.probe();
        assert_eq!(standings(&world), if keep { 2 } else { 1 });
        assert_eq!(world.said("web/10.1.0.12/l2, which left the configuration"), !keep);
        assert_eq!(world.probes.len(), if keep { 2 } else { 1 });
    }

    // What its checks had found goes along with it, and back.
    let mut world = World::serving(CONFIG, &BOTH);
    world.alive.remove(&dead);
    world.probe();
    world.configure(&without);
    world.probe();
    world.configure(CONFIG);
    world.probe();
    assert_eq!(world.standing("w2").0, State::Down, "three failures in a row");

    // One whose address is silent is as good as dead.
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure(&without);
    world.way("10.1.0.12", no_mac("10.1.0.12"));
    assert_eq!(standings(&world), 1);
    assert_eq!(world.resolving.len(), 1);
}

/// A name is free for others as soon as its backend left.
#[test]
fn a_probe_of_one_that_left_says_nothing_of_its_namesake() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.way("10.1.0.13", on_link("10.1.0.13", 0));
    world.alive.insert("10.1.0.13".parse().unwrap());
    world.configure(&with("10.1.0.12", "10.1.0.13"));
    assert_eq!(world.probes.len(), 3);
    world.alive.remove(&"10.1.0.12".parse().unwrap());
    (0..4).for_each(|_| world.probe());
    assert_eq!(world.standing("w2").0, State::Up);
    assert_eq!(world.servers(VIP, 80), [11, 13]);
    assert_eq!(world.probes.len(), 2);
}

/// As long as the plan that takes its slots from it fails, a backend that leaves is needed.
#[test]
fn a_backend_that_leaves_stays_until_its_slots_are_anothers() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.plan_fails_at = Some(0);
    world.configure(&with("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"", ""));
    world.wait(20);
    world.plan_fails_at = None;
    world.wait(2);
    assert_eq!(world.servers(VIP, 80), [11], "new flows");
    let moving = world.memory.slots.iter().filter(|slot| slot.in_transition()).count();
    assert!(moving > 10, "and the others stay: {moving} of 31 slots are in transition");
}
