//! `lb trace`, from the question to its answer in names.

use super::{BOTH, CONFIG, VIP, with, world::World};
use crate::{
    api::{InterfaceView, RefusalKind, Request, Response, TraceProtocol, TraceSpec, TraceView, TracedKey},
    model::service::XdpMode,
};

fn ask(text: &str) -> TraceSpec {
    let (client, vip) = text.split_once(' ').unwrap();
    let end = |text: &str| match text.split_once(':') {
        Some((address, port)) => (address.parse().unwrap(), Some(port.parse().unwrap())),
        None => (text.parse().unwrap(), None),
    };
    let ((client, client_port), (vip, vip_port)) = (end(client), end(vip));
    TraceSpec {
        protocol: TraceProtocol::Tcp,
        client,
        client_port,
        vip,
        vip_port,
        flags: None,
        length: None,
        ttl: None,
        quic_id: None,
        interface: None,
    }
}

fn syn(text: &str) -> TraceSpec {
    TraceSpec { flags: Some("S".to_owned()), ..ask(text) }
}

fn traced(world: &mut World, spec: TraceSpec) -> TraceView {
    match world.ask(Request::Trace(spec)) {
        Response::Trace(view) => *view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_step_has_a_name() {
    let mut world = World::serving(CONFIG, &BOTH);
    let interface = |name: &str, index| InterfaceView { name: name.to_owned(), index, mode: XdpMode::Native };
    world.controller.set_interfaces(vec![interface("eth0", 3), interface("eth1", 4)]);
    let view = traced(&mut world, ask("198.51.100.7:4711 192.0.2.10:443"));
    let service = view.service.unwrap();
    assert_eq!((service.name.as_deref(), service.found_by), (Some("www"), TracedKey::Port));
    let (slot, backend) = (view.slot.unwrap(), view.backend.unwrap());
    assert_eq!((slot.of, slot.pool.as_deref(), slot.in_transition), (31, Some("web"), false));
    assert_eq!(slot.owner.as_ref(), Some(&backend.name));
    assert_eq!((backend.pool.as_deref(), &*backend.why), (Some("web"), "owner"));
    let way = view.way.unwrap();
    assert_eq!((&*way.encap, way.interface.as_deref(), way.length), ("l2", Some("eth0"), 40));
    let last = if backend.name == "w1" { "0b" } else { "0c" };
    assert_eq!(way.mac, format!("02:00:00:00:00:{last}"));
    assert_eq!((&*view.verdict.verdict, view.verdict.reason), ("XDP_TX", None));
    assert_eq!(view.packet.flags, ["ACK"]);

    let other = TraceSpec { interface: Some("eth1".to_owned()), ..ask("198.51.100.7:4711 192.0.2.10:443") };
    assert_eq!(traced(&mut world, other).verdict.verdict, "XDP_REDIRECT");

    let view = traced(&mut world, ask("198.51.100.7 192.0.2.10:81"));
    assert_eq!((view.service, view.backend), (None, None));
    let verdict = (&*view.verdict.verdict, view.verdict.reason.as_deref());
    assert_eq!(verdict, ("XDP_PASS", Some("not_for_service")));
    let dying = TraceSpec { ttl: Some(1), ..ask("198.51.100.7 192.0.2.10:80") };
    let view = traced(&mut world, dying);
    assert_eq!(view.verdict.reason.as_deref(), Some("ttl_expired"));
    assert!(view.backend.is_some(), "where it would have gone");
}

#[test]
fn in_a_transition_it_tells_old_from_new() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nstate = \"drain\""));
    let moving = (1..2000)
        .map(|port| format!("198.51.100.7:{port} 192.0.2.10:80"))
        .find(|text| {
            let slot = traced(&mut world, ask(text)).slot.unwrap();
            slot.in_transition && slot.previous.as_deref() == Some("w2")
        })
        .expect("a flow of a slot in transition");
    let before = world.memory.clone();
    let flow = |world: &mut World, spec| {
        let view = traced(world, spec);
        let (backend, flow) = (view.backend.unwrap(), view.flow.unwrap());
        (backend.name, backend.why, flow)
    };
    let (name, why, seen) = flow(&mut world, ask(&moving));
    assert_eq!((&*name, &*why), ("w2", "previous_owner"));
    assert!(seen.asked && seen.entry.is_none() && seen.remembers);
    let (name, why, _) = flow(&mut world, syn(&moving));
    assert_eq!((&*name, &*why), ("w1", "owner"));
    assert!(world.memory == before, "it leaves no trace");

    // Once the packet came, it is remembered.
    let sample = world.controller.sample(&ask(&moving)).unwrap();
    crate::model::simulate::process(&world.memory, &sample.frame(), 0, world.ticks());
    world.wait(2);
    let (name, why, seen) = flow(&mut world, ask(&moving));
    assert_eq!((&*name, &*why), ("w2", "remembered"));
    let entry = seen.entry.unwrap();
    assert_eq!((entry.age_ms, &*entry.backend, entry.ignored), (2000, "w2", None));
    let (name, why, seen) = flow(&mut world, syn(&moving));
    assert_eq!((&*name, &*why), ("w1", "owner"), "a drained one takes no new flow");
    assert_eq!(seen.entry.unwrap().ignored.as_deref(), Some("refused"));

    // A server that left has its address for a name.
    world.configure(&with("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"", ""));
    let view = traced(&mut world, ask(&moving));
    let backend = view.backend.unwrap();
    assert_eq!((&*backend.name, backend.is_leaving, backend.state), ("10.1.0.12", true, None));
}

#[test]
fn all_that_is_wrong_with_a_question_is_said() {
    let mut world = World::serving(CONFIG, &BOTH);
    let eth0 = InterfaceView { name: "eth0".to_owned(), index: 3, mode: XdpMode::Native };
    world.controller.set_interfaces(vec![eth0]);
    let spec = TraceSpec {
        protocol: TraceProtocol::Icmp,
        client: "2001:db8::1".parse().unwrap(),
        client_port: Some(1),
        vip: VIP.parse().unwrap(),
        vip_port: None,
        flags: Some("X".to_owned()),
        length: Some(7),
        ttl: None,
        quic_id: Some("0".to_owned()),
        interface: Some("eth9".to_owned()),
    };
    let Response::Refused(refusal) = world.ask(Request::Trace(spec)) else { panic!("taken") };
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    assert_eq!(
        refusal.errors,
        [
            "2001:db8::1 and 192.0.2.10 are not of one family",
            "an echo request has no ports",
            "only TCP has flags",
            "\"0\" is no connection ID: 1 to 20 bytes, hexadecimal",
            "lb is not attached to eth9 (it is to: eth0)",
            "no such packet is shorter than 28 bytes",
        ]
    );
    let spec = TraceSpec { flags: Some("SX".to_owned()), ..ask("198.51.100.7 192.0.2.10") };
    let Response::Refused(refusal) = world.ask(Request::Trace(spec)) else { panic!("taken") };
    assert_eq!(
        refusal.errors,
        ["which port of 192.0.2.10? give ADDRESS:PORT", "'X' is no TCP flag: they are FSRPAU"]
    );
}
