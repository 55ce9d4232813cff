//! What is told of packets and of the daemon's own doings, and what a capture gets.

use lb_common::abi::{CaptureFilter, DropReason, Event as Told, Features};

use super::{BOTH, CONFIG, VIP, world::World};
use crate::{
    api::{CaptureQuery, EventView, EventsQuery, Happening, RefusalKind, Request, Response, State},
    controller::{Event, Token},
    model::{
        packet_event::PacketEvent,
        pcapng::{Block, Direction},
    },
};

fn told(world: &World, event: Told) -> Event {
    Event::Packets(vec![PacketEvent { at: world.now, event, frame: Vec::new() }])
}

/// What a packet of a client to the service is told as, that went to `w2`.
fn forwarded(world: &World) -> Told {
    let layout = &world.controller.layout;
    let (_, service) = layout.services().next().unwrap();
    let (_, (pool, backend)) = world.controller.desired().backends().nth(1).unwrap();
    let place = layout.pool(&pool.name).unwrap();
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap().into();
    Told {
        source: address("198.51.100.7"),
        source_port: 40000,
        destination: address(VIP),
        destination_port: 443,
        protocol: 6,
        verdict: 3,
        reason: Told::NONE,
        service: service.number,
        backend: place.index_of(&world.controller.identity_of(backend)).unwrap(),
        ingress: 2,
        length: 52,
        ..Told::default()
    }
}

fn dropped(world: &World) -> Told {
    Told { verdict: 1, reason: DropReason::NoBackend.counter(), backend: Told::NONE, ..forwarded(world) }
}

fn events(world: &mut World, last: Option<usize>) -> Vec<EventView> {
    match world.ask(Request::Events(EventsQuery { last, follow: false })) {
        Response::Events(events) => events,
        other => panic!("{other:?}"),
    }
}

/// The request of a stream, which may be answered later.
fn begin(world: &mut World, request: Request) -> Token {
    let (token, event) = world.request(request);
    world.tell(vec![event]);
    token
}

fn capture(world: &mut World, query: CaptureQuery) -> Token {
    begin(world, Request::Capture(query))
}

#[test]
fn events_have_names_and_times() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.wait(3);
    let packets = [dropped(&world), forwarded(&world)].map(|event| told(&world, event));
    world.tell(packets.into());
    let views = events(&mut world, Some(2));
    let json = serde_json::to_value(&views).unwrap();
    assert_eq!(json[0]["kind"], "packet");
    assert_eq!((&json[0]["verdict"], &json[0]["reason"]), (&"drop".into(), &"no_backend".into()));
    assert_eq!(
        (&json[0]["client"], &json[0]["vip"]),
        (&"198.51.100.7:40000".into(), &"192.0.2.10:443".into())
    );
    assert_eq!((&json[0]["service"], &json[0]["backend"]), (&"www".into(), &serde_json::Value::Null));
    assert_eq!((&json[1]["verdict"], &json[1]["backend"]), (&"transmit".into(), &"web/w2".into()));
    let seconds = world.now.as_secs();
    assert_eq!(json[1]["time"], format!("2023-11-14T22:13:{:02}.000Z", 20 + seconds), "{seconds}");
    let back: Vec<EventView> = serde_json::from_value(json).unwrap();
    assert_eq!(back, views);
}

#[test]
fn packets_do_not_push_out_what_matters() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.wait(3);
    let (event, at) = (dropped(&world), world.now);
    let packet = PacketEvent { at, event, frame: Vec::new() };
    world.tell(vec![Event::Packets(vec![packet; 5000])]);
    let views = events(&mut world, None);
    assert!(views.len() < 2500, "{} are kept", views.len());
    assert!(views.is_sorted_by_key(|view| view.number));
    let ups = |view: &&EventView| matches!(&view.what, Happening::State(state) if state.backend == "w1" && state.state == State::Up);
    let up = views.iter().find(ups).expect("that w1 came up is kept");
    let Happening::State(state) = &up.what else { unreachable!() };
    assert_eq!((state.pool.as_str(), state.was), ("web", State::Down));
}

#[test]
fn who_follows_is_told_everything_once() {
    let mut world = World::serving(CONFIG, &BOTH);
    let token = begin(&mut world, Request::Events(EventsQuery { last: Some(1), follow: true }));
    assert_eq!(world.replies[&token], Response::Streaming);
    let packet = told(&world, dropped(&world));
    world.tell(vec![packet]);
    world.configure("nonsense");
    let lines = String::from_utf8(world.streams[&token].clone()).unwrap();
    let views: Vec<EventView> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(views.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "{lines}");
    assert!(views.iter().any(|view| matches!(view.what, Happening::Packet(_))), "{lines}");
    assert!(lines.contains("was refused"), "{lines}");
    world.tell(vec![Event::StreamEnded { token }]);
    world.configure("other nonsense");
    assert_eq!(world.streams[&token].len(), lines.len(), "told who went away");
}

#[test]
fn a_client_that_is_too_slow_follows_no_more() {
    let mut world = World::serving(CONFIG, &BOTH);
    let token = begin(&mut world, Request::Events(EventsQuery { last: Some(0), follow: true }));
    world.tell(vec![Event::StreamFull { token }]);
    assert!(world.ended.contains(&token));
}

/// Of a packet: its direction, the place of its interface, its number, and what is said of it.
type Seen = (Direction, u32, u64, String);

/// What a file has: packets, and what was lost.
fn read(bytes: &[u8]) -> (Vec<Seen>, Option<(u64, u64)>) {
    let (mut rest, mut packets, mut statistics) = (bytes, Vec::new(), None);
    while let Some(block) = Block::first(rest).unwrap() {
        if let Some(packet) = block.packet() {
            packets.push((packet.direction, packet.interface, packet.id, packet.comment.to_owned()));
        }
        statistics = block.statistics().or(statistics);
        rest = &rest[block.length..];
    }
    assert!(rest.is_empty());
    (packets, statistics)
}

#[test]
fn a_capture_has_packets_as_they_came_and_left() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.wait(3);
    let before = world.memory.features;
    let token = capture(
        &mut world,
        CaptureQuery {
            filter: "service www client 198.51.100.0/24".to_owned(),
            count: Some(2),
            bytes: Some(100),
            ..CaptureQuery::default()
        },
    );
    assert_eq!(world.replies[&token], Response::Streaming);
    assert_eq!(world.memory.features, before.with(Features::CAPTURE));
    let number = forwarded(&world).service;
    let CaptureFilter { service, bytes, .. } = world.memory.capture;
    assert_eq!((service, bytes), (number, 100));

    let frame = |stage, time, event| Told { stage, time, ..event };
    let (drop, send) = (dropped(&world), forwarded(&world));
    let packets = [
        frame(Told::CAME, 1, drop),
        // One on each of two CPUs.
        frame(Told::CAME, 2, send),
        frame(Told::CAME, 3, send),
        frame(Told::LEFT, 3, send),
        frame(Told::LEFT, 2, send),
        frame(Told::CAME, 4, drop),
    ];
    let frames = packets.map(|event| PacketEvent { at: world.now, event, frame: vec![0; 60] });
    world.tell(vec![Event::Packets(frames.into())]);
    let (packets, statistics) = read(&world.streams[&token]);
    let sent = "transmit, service www, backend web/w2";
    let wanted = [
        (Direction::In, 0, 1, "drop, reason no_backend, service www".to_owned()),
        (Direction::In, 0, 2, sent.to_owned()),
        (Direction::Out, 0, 2, sent.to_owned()),
    ];
    assert_eq!(packets, wanted);
    assert_eq!(statistics, Some((2, 0)));
    assert!(world.ended.contains(&token));
    assert_eq!(world.memory.features, before, "the plain program is back");
}

#[test]
fn a_capture_ends_with_its_client_or_its_time() {
    let mut world = World::serving(CONFIG, &BOTH);
    let before = world.memory.features;
    let token = capture(&mut world, CaptureQuery::default());
    let other = capture(&mut world, CaptureQuery::default());
    let Response::Refused(refusal) = &world.replies[&other] else { panic!("two captures at a time") };
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    world.tell(vec![Event::StreamEnded { token }]);
    assert_eq!(world.memory.features, before);

    let timed = capture(&mut world, CaptureQuery { seconds: Some(5), ..CaptureQuery::default() });
    assert_eq!(world.replies[&timed], Response::Streaming);
    world.wait(4);
    assert!(!world.ended.contains(&timed));
    world.wait(2);
    assert!(world.ended.contains(&timed));
    assert_eq!(world.memory.features, before);
}

#[test]
fn a_capture_gives_way_to_the_configuration() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.plan_fails_at = Some(0);
    let token = capture(&mut world, CaptureQuery::default());
    let Response::Refused(refusal) = &world.replies[&token] else { panic!("no program that captures") };
    assert!(refusal.errors[0].starts_with("cannot capture: step 1"), "{refusal:?}");
    world.plan_fails_at = None;
    world.wait(2);
    assert_eq!(world.memory.features, Features::DROP_EVENTS);
    assert!(world.status().warnings.is_empty());
}

#[test]
fn a_wrong_filter_is_refused_with_all_its_errors() {
    let mut world = World::serving(CONFIG, &BOTH);
    for (filter, kind, count) in
        [("port x frobnicate", RefusalKind::Invalid, 2), ("service other", RefusalKind::NotFound, 1)]
    {
        let filter = filter.to_owned();
        let response = world.ask(Request::Capture(CaptureQuery { filter, ..CaptureQuery::default() }));
        let Response::Refused(refusal) = response else { panic!("{response:?}") };
        assert_eq!((refusal.kind, refusal.errors.len()), (kind, count));
    }
    assert_eq!(world.memory.features, Features::DROP_EVENTS);
}
