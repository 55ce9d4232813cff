//! Drains with a deadline.

use super::{BOTH, CONFIG, VIP, with, world::World};
use crate::{
    api::{BackendPatch, BackendView, Edit, Refusal, RefusalKind, Request, Response, State},
    model::service::AdminState,
};

fn patch(patch: BackendPatch) -> Edit {
    Edit::SetBackend { pool: "web".to_owned(), name: "w2".to_owned(), patch }
}

fn drain(seconds: u64) -> Edit {
    patch(BackendPatch {
        state: Some(AdminState::Drain),
        drain_seconds: Some(seconds),
        ..BackendPatch::default()
    })
}

fn view(world: &mut World) -> BackendView {
    let Response::Pool(pool) = world.ask(Request::Pools(Some("web".to_owned()))) else { panic!("no pool") };
    pool.backends.into_iter().find(|backend| backend.name == "w2").expect("w2")
}

/// Backends that have a place in the tables.
fn present(world: &World) -> usize {
    world.memory.backends.iter().filter(|backend| backend.standing().takes(false)).count()
}

#[test]
fn at_its_deadline_a_drained_backend_is_in_maintenance() {
    let mut world = World::serving(CONFIG, &BOTH);
    assert_eq!(view(&mut world).drain_ends_in_seconds, None);
    let Response::Done(_) = world.edit(drain(60)) else { panic!("refused") };
    assert!(world.file.contains("state = \"drain\"\ndrain_until = \"2023-11-14T22:14:"), "{}", world.file);
    assert_eq!((world.servers(VIP, 80), present(&world)), (vec![11], 2), "known flows stay");
    let before = view(&mut world);
    assert_eq!((before.state, before.drain_ends_in_seconds), (State::Drain, Some(60)));
    assert!(before.reason.contains("out at 2023-11-14T22:14:"), "{}", before.reason);

    world.wait(58);
    assert_eq!((view(&mut world).state, present(&world)), (State::Drain, 2));
    world.wait(3);
    let after = view(&mut world);
    assert_eq!((after.state, after.drain_ends_in_seconds, present(&world)), (State::Maint, None, 1));
    assert!(after.reason.contains("drained until 2023-11-14T22:14:"), "{}", after.reason);
    assert!(world.said("web/w2: its drain is over"));

    // The file says the same to whoever reads it later: nothing would change, and nothing does.
    let text = world.file.clone();
    let generation = world.status().config.generation;
    world.configure(&(text.clone() + "# read again\n"));
    assert_eq!((world.status().config.generation, view(&mut world).state), (generation + 1, State::Maint));
    world.restart();
    world.configure(&text);
    assert_eq!(view(&mut world).state, State::Maint);

    // Enabling it takes the deadline away.
    world.edit(patch(BackendPatch { state: Some(AdminState::Ready), ..BackendPatch::default() }));
    assert!(!world.file.contains("drain"), "{}", world.file);
    (0..3).for_each(|_| world.probe());
    assert_eq!((view(&mut world).state, world.servers(VIP, 80)), (State::Up, vec![11, 12]));
}

#[test]
fn a_drain_without_a_deadline_lasts() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.edit(drain(60));
    world.edit(patch(BackendPatch { state: Some(AdminState::Drain), ..BackendPatch::default() }));
    assert!(!world.file.contains("drain_until"), "{}", world.file);
    world.wait(100);
    assert_eq!(view(&mut world).state, State::Drain);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let text = |text: &str| Some(text.to_owned());
    for (edit, words) in [
        (BackendPatch { drain_seconds: Some(5), ..BackendPatch::default() }, "go with state"),
        (
            BackendPatch {
                state: Some(AdminState::Maint),
                drain_seconds: Some(5),
                ..BackendPatch::default()
            },
            "go with state",
        ),
        (
            BackendPatch {
                state: Some(AdminState::Drain),
                drain_seconds: Some(5),
                drain_until: text("2026-01-31T12:00:00Z"),
                ..BackendPatch::default()
            },
            "exclude each other",
        ),
        (
            BackendPatch {
                state: Some(AdminState::Drain),
                drain_seconds: Some(u64::MAX),
                ..BackendPatch::default()
            },
            "30 days",
        ),
        (
            BackendPatch {
                state: Some(AdminState::Drain),
                drain_until: text("soon"),
                ..BackendPatch::default()
            },
            "is not a time",
        ),
    ] {
        let mut world = World::serving(CONFIG, &BOTH);
        let Response::Refused(Refusal { kind, errors }) = world.edit(patch(edit.clone())) else {
            panic!("taken: {edit:?}")
        };
        assert_eq!(kind, RefusalKind::Invalid, "{edit:?}");
        assert!(errors.join(" ").contains(words), "{edit:?}: {errors:?}");
        assert_eq!(world.file, CONFIG);
    }
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\ndrain_until = \"2026-01-31T12:00:00Z\""));
    let errors = world.status().config.errors.join(" ");
    assert!(errors.contains("drain_until without state"), "{errors}");
}
