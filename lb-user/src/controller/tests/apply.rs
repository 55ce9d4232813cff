//! Configurations as a whole: looked at, on trial, confirmed, taken back.

use super::world::World;
use crate::{
    api::{
        ApplySpec, BackendPatch, ChangeKind, Edit, PastView, PlanView, Proposal, RefusalKind, Request,
        Response, State,
    },
    controller::{Event, Level},
    model::source::Source,
};

const CONFIG: &str = r#"
[[pool]]
name = "web"
slots = 1021
check = { type = "tcp", rise = 1, fall = 1 }
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
const SERVERS: [&str; 3] = ["10.1.0.11", "10.1.0.12", "10.1.0.13"];
const THIRD: &str = "[[pool.backend]]\nname = \"w3\"\naddress = \"10.1.0.13\"\n\n[[service]]";

fn world() -> World {
    World::serving(CONFIG, &SERVERS)
}

/// With a third backend, another weight and another port.
fn larger() -> String {
    CONFIG
        .replace("[[service]]", THIRD)
        .replace("10.1.0.11\"", "10.1.0.11\"\nweight = 50")
        .replace("tcp/443", "udp/443")
}

fn plan(world: &mut World, text: &str) -> PlanView {
    match world.ask(Request::Plan(Proposal { text: text.to_owned() })) {
        Response::Plan(view) => *view,
        other => panic!("{other:?}"),
    }
}

fn apply(world: &mut World, text: &str, confirm_seconds: Option<u64>) -> Response {
    let text = text.to_owned();
    world.ask(Request::Apply(ApplySpec { text, confirm_seconds, ..ApplySpec::default() }))
}

fn done(response: &Response) -> &str {
    match response {
        Response::Done(done) => &done.message,
        other => panic!("{other:?}"),
    }
}

fn refused(response: &Response) -> (RefusalKind, &str) {
    match response {
        Response::Refused(refusal) => (refusal.kind, &refusal.errors[0]),
        other => panic!("{other:?}"),
    }
}

fn history(world: &mut World) -> Vec<PastView> {
    match world.ask(Request::History(None)) {
        Response::History(past) => past,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plan_tells_what_moves_and_touches_nothing() {
    let mut world = world();
    let steps = world.steps;
    let nothing = plan(&mut world, CONFIG);
    assert!(nothing.is_empty(), "{nothing:?}");
    let commented = plan(&mut world, &format!("# a comment\n{CONFIG}"));
    assert!(commented.is_empty(), "{commented:?}");

    let view = plan(&mut world, &larger());
    assert_eq!(view.generation, 1);
    let [service] = &view.services[..] else { panic!("{view:?}") };
    assert_eq!(
        (service.change, &service.what[..]),
        (ChangeKind::Changed, &["ports -tcp/443 +udp/443".to_owned()][..])
    );
    let [pool] = &view.pools[..] else { panic!("{view:?}") };
    let backends: Vec<_> =
        pool.backends.iter().map(|b| (b.name.as_str(), b.change, b.what.join(","))).collect();
    assert_eq!(
        backends,
        [
            ("w1", ChangeKind::Changed, "weight 100 -> 50".to_owned()),
            ("w3", ChangeKind::Added, String::new())
        ]
    );
    // Half of the first one's half goes to others, and the third takes its two fifths of all.
    assert!((35.0..55.0).contains(&pool.percent_moved), "{pool:?}");
    assert!(view.steps > 0 && view.writes > 0, "{view:?}");
    assert_eq!((world.steps, world.status().config.generation), (steps, 1));
    assert_eq!(world.file, CONFIG);

    // What was foretold is what happens.
    done(&apply(&mut world, &larger(), None));
    let before: Vec<_> = (0..1021).map(|at| world.memory.slots[at].owner()).collect();
    world.probe();
    let moved = (0..1021).filter(|&at| world.memory.slots[at].owner() != before[at]).count();
    assert!(moved > 300, "{moved} slots went to the third");
    assert_eq!(world.status().config.generation, 2);

    let gone = plan(&mut world, "[lb]\nseed = 7\n");
    let kinds: Vec<_> = gone.services.iter().map(|service| service.change).collect();
    assert_eq!((kinds, gone.pools[0].change), (vec![ChangeKind::Removed], ChangeKind::Removed));
    assert!(gone.settings[0].starts_with("seed"), "{gone:?}");
}

#[test]
fn a_proposal_with_errors_is_refused_with_all_of_them() {
    let mut world = world();
    let bad = "[lb]\nsede = 1\n[[service]]\nname = \"x\"\n";
    for request in [
        Request::Plan(Proposal { text: bad.to_owned() }),
        Request::Apply(ApplySpec { text: bad.to_owned(), ..ApplySpec::default() }),
    ] {
        let Response::Refused(refusal) = world.ask(request) else { panic!("taken") };
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert!(refusal.errors.len() > 1 && refusal.errors[0].starts_with("proposal:2:1"), "{refusal:?}");
    }
    assert_eq!((world.status().config.generation, world.file.as_str()), (1, CONFIG));
}

#[test]
fn what_is_not_confirmed_comes_back() {
    let mut world = world();
    assert!(done(&apply(&mut world, &larger(), Some(60))).contains("60 s"));
    assert_eq!(world.file, larger());
    world.wait(59);
    assert_eq!(world.status().config.generation, 2);
    // Meanwhile nothing else is changed.
    let (kind, why) = {
        let response = apply(&mut world, CONFIG, None);
        let (kind, why) = refused(&response);
        (kind, why.to_owned())
    };
    assert!(kind == RefusalKind::Conflict && why.contains("on trial for 1 s"), "{why}");
    world.wait(1);
    assert_eq!((world.status().config.generation, world.file.as_str()), (3, CONFIG));
    assert!(world.said("rolled back: it was not confirmed in time"));
    world.wait(120);
    assert_eq!(world.status().config.generation, 3);
    assert_eq!(refused(&world.ask(Request::Confirm)).0, RefusalKind::Conflict);
}

#[test]
fn what_is_confirmed_stays() {
    let mut world = world();
    done(&apply(&mut world, &larger(), Some(60)));
    world.wait(30);
    done(&world.ask(Request::Confirm));
    world.wait(100);
    assert_eq!((world.status().config.generation, world.file.clone()), (2, larger()));
}

#[test]
fn what_takes_too_many_down_comes_back_at_once() {
    let mut world = world();
    world.probe();
    // The check's new port is answered by nobody: here, because the servers fall silent.
    done(&apply(&mut world, &CONFIG.replace("type = \"tcp\"", "type = \"tcp\", port = 81"), Some(600)));
    world.alive.remove(&SERVERS[0].parse().unwrap());
    world.probe();
    assert_eq!(
        (world.standing("w1").0, world.status().config.generation),
        (State::Down, 2),
        "half of them may"
    );
    world.alive.remove(&SERVERS[1].parse().unwrap());
    world.probe();
    world.wait(1);
    assert_eq!((world.status().config.generation, world.file.as_str()), (3, CONFIG));
    assert!(world.said("2 of 2 backends that were UP went DOWN"), "{:?}", world.log);
}

#[test]
fn a_full_disk_delays_the_way_back_and_is_told() {
    let mut world = world();
    done(&apply(&mut world, &larger(), Some(10)));
    world.disk_error = Some("disk full".to_owned());
    world.wait(12);
    assert_eq!(world.status().config.generation, 2);
    assert!(world.log.iter().any(|(level, line)| *level == Level::Error && line.contains("disk full")));
    world.disk_error = None;
    world.wait(1);
    assert_eq!((world.status().config.generation, world.file.as_str()), (3, CONFIG));
}

#[test]
fn a_file_changed_by_hand_ends_the_trial() {
    let mut world = world();
    done(&apply(&mut world, &larger(), Some(10)));
    let by_hand = CONFIG.replace("tcp/443", "tcp/8443");
    world.configure(&by_hand);
    world.wait(20);
    assert_eq!((world.status().config.generation, world.file.clone()), (3, by_hand));
}

#[test]
fn an_outdated_look_is_no_ground_for_a_change() {
    let mut world = world();
    let seen = etag(&mut world);
    world.configure(&larger());
    let spec = ApplySpec { text: CONFIG.to_owned(), ..ApplySpec::default() };
    for order in [Request::Apply(spec), Request::Rollback(None)] {
        let response = world.ask(only_if(&seen, order));
        let (kind, why) = refused(&response);
        assert!(kind == RefusalKind::Outdated && why.contains("generation 2"), "{why}");
    }
    assert_eq!((world.status().config.generation, &world.file), (2, &larger()));
    assert!(done(&apply(&mut world, &larger(), None)).contains("already"));
}

/// What tells the configuration in force from others.
fn etag(world: &mut World) -> String {
    match world.ask(Request::Config) {
        Response::Config(config) => config.etag,
        other => panic!("{other:?}"),
    }
}

fn only_if(etag: &str, request: Request) -> Request {
    Request::OnlyIf { etags: vec![etag.to_owned()], request: Box::new(request) }
}

#[test]
fn of_two_orders_that_saw_the_same_configuration_one_is_carried_out() {
    let mut world = world();
    let seen = etag(&mut world);
    let set = |weight| {
        let patch = BackendPatch { weight: Some(weight), ..BackendPatch::default() };
        Request::Edit(Edit::SetBackend { pool: "web".to_owned(), name: "w1".to_owned(), patch })
    };
    let Response::Done(done) = world.ask(only_if(&seen, set(2))) else { panic!() };
    assert_eq!((done.generation, done.etag), (2, etag(&mut world)));
    let file = world.file.clone();
    let response = world.ask(only_if(&seen, set(3)));
    assert_eq!(refused(&response).0, RefusalKind::Outdated);
    assert_eq!((world.status().config.generation, &world.file), (2, &file));

    // The same text is the same configuration, whatever was in between, and whoever serves it.
    let text = world.file.clone();
    world.configure(CONFIG);
    assert_eq!(etag(&mut world), seen);
    world.configure(&text);
    assert_ne!(etag(&mut world), seen);
}

/// A file may change while those that a proposal names are read.
#[test]
fn an_order_that_waits_for_files_is_compared_again() {
    let mut world = world();
    let seen = etag(&mut world);
    let spec = ApplySpec { text: CONFIG.replace("tcp/443", "tcp/8443"), ..ApplySpec::default() };
    let (token, order) = world.request(only_if(&seen, Request::Apply(spec)));
    world.file = larger();
    world.tell(vec![order, Event::ConfigText(Source::of(larger()))]);
    let response = world.replies.remove(&token).unwrap();
    assert_eq!(refused(&response).0, RefusalKind::Outdated);
    assert_eq!((world.status().config.generation, &world.file), (2, &larger()));
}

#[test]
fn the_history_leads_back_and_outlives_the_daemon() {
    let mut world = world();
    world.configure(&larger());
    let third = CONFIG.replace("tcp/443", "tcp/8443");
    done(&apply(&mut world, &third, None));
    let said: Vec<_> =
        history(&mut world).into_iter().map(|past| (past.number, past.said, past.in_force)).collect();
    assert_eq!(
        said,
        [
            (1, "lb was started".to_owned(), false),
            (2, "the file was changed".to_owned(), false),
            (3, "a configuration was applied".to_owned(), true),
        ]
    );
    world.restart();
    assert_eq!(history(&mut world).len(), 3, "nothing new");
    done(&world.ask(Request::Rollback(None)));
    assert_eq!(world.file, larger());
    done(&world.ask(Request::Rollback(Some(1))));
    assert_eq!(world.file, CONFIG);
    assert_eq!(refused(&world.ask(Request::Rollback(Some(77)))).0, RefusalKind::NotFound);
    let Response::History(past) = world.ask(Request::History(Some(3))) else { panic!("no history") };
    assert_eq!(past[0].text.as_deref(), Some(third.as_str()));
    assert_eq!(history(&mut world).last().map(|past| past.number), Some(5));
}
