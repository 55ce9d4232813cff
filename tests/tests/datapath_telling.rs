//! What the programs tell of single packets: events at their rate, and frames as they came and left.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::{
    abi::{DropReason, Event, Features, Note, PassReason, Reason, name},
    wire::pod,
};
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, Rig, Verdict,
        target::{blank, hop, ipip, l2, name_vips, pool, service},
        with_rig, xdp,
    },
    packets::{Packet, ethernet, rare, tcp, udp},
};
use lb_user::model::{capture::Filter, plan::Target};

const CLIENT: &str = "198.51.100.7:40000";
const TUNNELLED: &str = "192.0.2.1:80";
const PLAIN: &str = "192.0.2.1:443";
const EMPTY: &str = "192.0.2.2:80";

/// A service behind a tunnel, one next door, and one that has nobody.
fn target(features: Features) -> Target {
    let mut target = Target {
        pools: vec![
            pool("tunnel", 31, vec![ipip("10.9.0.1", hop(INGRESS, 1))]),
            pool("plain", 31, vec![l2("10.9.0.2", hop(EGRESS, 2))]),
            pool("empty", 31, vec![]),
        ],
        services: vec![
            service("tunnel", "192.0.2.1", &["tcp/80"], "tunnel"),
            service("plain", "192.0.2.1", &["tcp/443"], "plain"),
            service("empty", "192.0.2.2", &["tcp/80"], "empty"),
        ],
        features,
        ..blank()
    };
    name_vips(&mut target);
    target
}

fn capturing(filter: &str, bytes: u32) -> Target {
    let filter = Filter::parse(filter, bytes).expect("a filter");
    Target { capture: Some(filter), ..target(Features::ALL) }
}

/// What was told since the last call: events, each with its frame.
fn told(rig: &mut Rig) -> anyhow::Result<Vec<(Event, Vec<u8>)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    let mut ring = rig.kernel().events()?;
    let mut told = Vec::new();
    while let Some(record) = ring.get_mut().next() {
        let event: Event = pod::read(&record, 0).context("a record shorter than an event")?;
        told.push((event, record[size_of::<Event>()..].to_vec()));
    }
    Ok(told)
}

fn count(rig: &mut Rig, reason: Reason) -> u64 {
    rig.gained().reasons[reason.counter() as usize].packets
}

/// Sends a frame many times at once: it must be one that is not changed.
fn flood(rig: &mut Rig, frame: &[u8], times: u32) -> anyhow::Result<()> {
    let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
    xdp(rig.kernel(), name::PROGRAM)?.test_run(options)?;
    Ok(())
}

fn number(rig: &Rig, service: &str) -> u32 {
    let known = rig.layout().services().find(|(known, _)| known.as_str() == service);
    known.expect("a service").1.number
}

#[test]
fn frames_are_captured_as_they_came_and_left() {
    with_rig(|rig| {
        rig.install(&capturing("", 9000))?;
        let syn = tcp(CLIENT, TUNNELLED).frame();
        let echo = rare::icmp(
            "198.51.100.7".parse()?,
            "192.0.2.1".parse()?,
            (rare::icmp::ECHO[0], 0),
            0x0001_0002,
            b"ping",
        );
        let fragments = tcp(CLIENT, PLAIN).payload([7; 100]).fragments(9, 64);
        let no_echo = Reason::Pass(PassReason::NotForService).counter();
        for (what, frame, reason) in [
            ("in a tunnel", syn.clone(), Event::NONE),
            ("next door", tcp(CLIENT, PLAIN).frame(), Event::NONE),
            ("through every program", fragments[0].frame(), Event::NONE),
            ("to nobody", tcp(CLIENT, EMPTY).frame(), Reason::Drop(DropReason::NoBackend).counter()),
            ("not for us", udp(CLIENT, "192.0.2.9:53").frame(), no_echo),
            ("a ping that no service answers", echo.frame(), no_echo),
            (
                "no packet at all",
                ethernet([1; 6], [2; 6], 0x0806, &[0; 28]),
                Reason::Pass(PassReason::NotIp).counter(),
            ),
        ] {
            let answer = rig.run(&frame)?;
            let told = told(rig).with_context(|| what)?;
            let is_sent = matches!(answer.verdict, Verdict::Transmit | Verdict::Redirect);
            ensure!(told.len() == 1 + usize::from(is_sent), "{what}: {told:?}");
            let (came, before) = &told[0];
            ensure!(came.stage == Event::CAME && *before == frame, "{what}: {told:?}");
            ensure!(came.length as usize == frame.len() && came.reason == reason, "{what}: {came:?}");
            ensure!(came.time > 0 && came.ingress == INGRESS, "{what}: {came:?}");
            if let Some((left, after)) = told.get(1) {
                ensure!(left.stage == Event::LEFT && *after == answer.frame, "{what}: {told:?}");
                ensure!((left.time, left.backend) == (came.time, came.backend), "{what}: {told:?}");
                ensure!(left.length as usize == after.len(), "{what}: {left:?}");
            }
        }
        rig.run(&syn)?;
        let (event, _) = &told(rig)?[0];
        ensure!((event.service, event.verdict) == (number(rig, "tunnel"), 3), "{event:?}");
        let client: SocketAddr = CLIENT.parse()?;
        ensure!(event.source == client.ip().into() && event.source_port == client.port(), "{event:?}");
        Ok(())
    });
}

#[test]
fn what_the_balancer_answers_is_captured_too() {
    with_rig(|rig| {
        let mut target = capturing("proto icmp", 9000);
        target.services[0].flags |= lb_common::abi::Service::ECHO;
        rig.install(&target)?;
        let (client, vip) = ("198.51.100.7".parse()?, "192.0.2.1".parse()?);
        let echo = rare::icmp(client, vip, (rare::icmp::ECHO[0], 0), 0x0001_0002, b"ping").frame();
        let answer = rig.run(&echo)?;
        ensure!(answer.verdict == Verdict::Transmit, "{answer:?}");
        let told = told(rig)?;
        let frames: Vec<&[u8]> = told.iter().map(|(_, frame)| &frame[..]).collect();
        ensure!(frames == [&echo[..], &answer.frame], "{told:?}");
        ensure!(told[0].0.reason == Reason::Note(Note::EchoAnswered).counter(), "{told:?}");
        Ok(())
    });
}

#[test]
fn only_what_the_filter_names_is_captured_and_no_more_of_it() {
    with_rig(|rig| {
        let packet = |destination: &str| -> Packet { tcp(CLIENT, destination) };
        for (filter, wanted) in [
            ("service plain", [false, true, false]),
            ("port 80", [true, false, true]),
            ("vip 192.0.2.1", [true, true, false]),
            ("vip 192.0.2.0/31 client 198.51.100.0/24", [true, true, false]),
            ("client 198.51.100.8", [false; 3]),
            ("dropped", [false, false, true]),
            ("reason no_backend", [false, false, true]),
            ("proto udp", [false; 3]),
        ] {
            rig.install(&capturing(filter, 34))?;
            for (destination, wanted) in [TUNNELLED, PLAIN, EMPTY].into_iter().zip(wanted) {
                rig.run(&packet(destination).frame())?;
                let told = told(rig)?;
                ensure!(told.is_empty() != wanted, "{filter}: of {destination} {told:?}");
                ensure!(told.iter().all(|(_, frame)| frame.len() == 34), "{filter}: {told:?}");
            }
        }
        // Nothing is left of it when it is over.
        rig.install(&target(Features::NONE))?;
        rig.run(&packet(EMPTY).frame())?;
        ensure!(told(rig)?.is_empty());
        Ok(())
    });
}

#[test]
fn a_flood_is_captured_only_in_part_and_what_is_missing_is_counted() {
    /// Many in a window, which is at least 64 ms.
    const TIMES: u32 = 20_000;
    with_rig(|rig| {
        rig.install(&capturing("dropped", 1000))?;
        let frame = tcp(CLIENT, EMPTY).payload([0; 900]).frame();
        rig.gained();
        flood(rig, &frame, TIMES)?;
        let gained = rig.gained();
        let of = |note: Note| gained.reasons[Reason::Note(note).counter() as usize].packets;
        let (limited, lost) = (of(Note::CaptureLimited), of(Note::EventLost));
        ensure!(limited > 0 && lost > 0, "{limited} over the limit, {lost} without room");
        let told = told(rig)?.len() as u64;
        ensure!(told + limited + lost == u64::from(TIMES), "{told} told, {limited} limited, {lost} lost");
        Ok(())
    });
}

#[test]
fn events_come_at_their_rate_and_only_of_what_is_asked_for() {
    with_rig(|rig| {
        let (dropped, sent) = (tcp(CLIENT, EMPTY).frame(), tcp(CLIENT, PLAIN).frame());
        let passed = udp(CLIENT, "192.0.2.9:53").frame();
        for (features, drops, flows, wanted) in [
            (Features::NONE, 5, 5, [0, 0]),
            (Features::DROP_EVENTS, 5, 0, [1, 0]),
            (Features::FLOW_EVENTS, 0, 5, [0, 1]),
            (Features::DROP_EVENTS.with(Features::FLOW_EVENTS), 5, 5, [1, 1]),
            (Features::DROP_EVENTS.with(Features::FLOW_EVENTS), 0, 0, [0, 0]),
        ] {
            rig.install(&Target { drop_events: drops, flow_events: flows, ..target(features) })?;
            for (frame, wanted) in [(&dropped, wanted[0]), (&sent, wanted[1]), (&passed, 0)] {
                // The windows of those before may be used up.
                std::thread::sleep(std::time::Duration::from_millis(700));
                rig.run(frame)?;
                let told = told(rig)?;
                ensure!(told.len() == wanted, "{features:?}: {told:?}");
                ensure!(told.iter().all(|(event, frame)| event.stage == Event::TOLD && frame.is_empty()));
            }
        }
        // In one window so many, or in two if one ends meanwhile.
        rig.install(&Target { drop_events: 5, ..target(Features::DROP_EVENTS) })?;
        std::thread::sleep(std::time::Duration::from_millis(700));
        flood(rig, &dropped, 5000)?;
        let told = told(rig)?.len();
        ensure!((5..=10).contains(&told), "{told} of 5 in a window");
        ensure!(count(rig, Reason::Note(Note::EventLost)) == 0);
        Ok(())
    });
}
