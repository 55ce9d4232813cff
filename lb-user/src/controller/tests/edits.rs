//! Orders of clients: they take effect when they stand in the file, or not at all.

use super::{
    BOTH, CONFIG, VIP, with,
    world::{World, on_link},
};
use crate::{
    api::{BackendPatch, BackendSpec, Done, Edit, PoolSpec, Refusal, RefusalKind, Request, Response},
    model::service::AdminState,
};

pub(super) fn weight(name: &str, weight: u16) -> Edit {
    let patch = BackendPatch { weight: Some(weight), ..BackendPatch::default() };
    Edit::SetBackend { pool: "web".to_owned(), name: name.to_owned(), patch }
}

fn refused(response: Response) -> Refusal {
    match response {
        Response::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_edit_stands_in_the_file_and_takes_effect() {
    let mut world = World::serving(CONFIG, &BOTH);
    let done = world.edit(weight("w2", 0));
    let etag = world.controller.etag();
    let message = "backend web/w2 changed".to_owned();
    assert_eq!(done, Response::Done(Done { generation: 2, etag, message }));
    assert_eq!(world.file, with("\"10.1.0.12\"", "\"10.1.0.12\"\nweight = 0"));
    assert_eq!(world.servers(VIP, 80), [11]);

    // The watcher may report what was written.
    let text = world.file.clone();
    world.configure(&text);
    assert_eq!(world.status().config.generation, 2);

    let backend =
        BackendSpec { name: "w3".to_owned(), address: "10.1.0.13".to_owned(), ..BackendSpec::default() };
    world.way("10.1.0.13", on_link("10.1.0.13", 0));
    world.alive.insert("10.1.0.13".parse().unwrap());
    world.edit(Edit::AddBackend { pool: "web".to_owned(), backend });
    world.probe();
    assert_eq!(world.servers(VIP, 80), [11, 13]);
    let patch = BackendPatch { state: Some(AdminState::Drain), ..BackendPatch::default() };
    world.edit(Edit::SetBackend { pool: "web".to_owned(), name: "w1".to_owned(), patch });
    assert_eq!(world.servers(VIP, 80), [13]);
    world.edit(Edit::DeleteService { name: "www".to_owned() });
    assert_eq!(world.servers(VIP, 80), [0]);
}

#[test]
fn a_refused_edit_changes_nothing() {
    let delete = |pool: &str| Edit::DeletePool { name: pool.to_owned() };
    let add = |slots| Edit::AddPool(PoolSpec { name: "p".to_owned(), slots: Some(slots), check: None });
    for (edit, kind, words) in [
        (weight("w9", 1), RefusalKind::NotFound, "there is no backend \"web/w9\""),
        (weight("w1", 10_001), RefusalKind::Invalid, "10001 is not within 0 to 10000"),
        (delete("web"), RefusalKind::Conflict, "is in use by service \"www\""),
        (delete("p"), RefusalKind::NotFound, "there is no pool \"p\""),
        (add(12), RefusalKind::Invalid, "12 is not a prime"),
        (add(65_537), RefusalKind::Invalid, "no room for 65537 more slots"),
    ] {
        let mut world = World::serving(CONFIG, &BOTH);
        let memory = world.memory.clone();
        let refusal = refused(world.edit(edit.clone()));
        assert_eq!(refusal.kind, kind, "{edit:?}");
        assert!(refusal.errors.join("\n").contains(words), "{edit:?}: {refusal:?}");
        assert_eq!((&world.file[..], &world.memory), (CONFIG, &memory));
        assert_eq!(world.status().config.generation, 1);
    }
}

#[test]
fn an_edit_that_cannot_be_written_changes_nothing() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.disk_error = Some("No space left on device".to_owned());
    let refusal = refused(world.edit(weight("w2", 0)));
    assert_eq!((refusal.kind, &refusal.errors[0][..]), (RefusalKind::Failed, "No space left on device"));
    assert_eq!((world.servers(VIP, 80), &world.file[..]), (vec![11, 12], CONFIG));
    world.disk_error = None;
    world.edit(weight("w2", 0));
    assert_eq!(world.servers(VIP, 80), [11], "the next one can");
}

#[test]
fn what_an_editor_wrote_is_not_overwritten() {
    let mut world = World::serving(CONFIG, &BOTH);
    let by_hand = with("tcp/80", "tcp/8080");
    world.file.clone_from(&by_hand);
    let refusal = refused(world.edit(weight("w2", 0)));
    assert_eq!((refusal.kind, &refusal.errors[0][..]), (RefusalKind::Conflict, "changed by someone else"));
    assert_eq!((world.servers(VIP, 80), &world.file), (vec![11, 12], &by_hand));
}

#[test]
fn an_edit_of_a_broken_file_is_refused() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure("nonsense");
    let refusal = refused(world.edit(weight("w2", 0)));
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(refusal.errors[0].contains("mend it first") && refusal.errors.len() > 1, "{refusal:?}");
    assert_eq!((world.servers(VIP, 80), &world.file[..]), (vec![11, 12], "nonsense"));
}

#[test]
fn of_two_edits_at_once_one_is_refused() {
    let mut world = World::serving(CONFIG, &BOTH);
    let (first, one) = world.request(Request::Edit(weight("w1", 0)));
    let (second, other) = world.request(Request::Edit(weight("w2", 0)));
    world.tell(vec![one, other]);
    assert!(matches!(world.replies[&first], Response::Done(_)));
    let refusal = refused(world.replies[&second].clone());
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(world.servers(VIP, 80), [12]);
}

#[test]
fn questions_about_what_is_not_there_say_so() {
    let mut world = World::serving(CONFIG, &BOTH);
    for (request, what) in [
        (Request::Services(Some("x".to_owned())), "there is no service \"x\""),
        (Request::Pools(Some("x".to_owned())), "there is no pool \"x\""),
    ] {
        let refusal = refused(world.ask(request));
        assert_eq!((refusal.kind, &refusal.errors[0][..]), (RefusalKind::NotFound, what));
    }
    assert!(matches!(world.ask(Request::Services(Some("www".to_owned()))), Response::Service(_)));
}
