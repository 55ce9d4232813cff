//! The three rules, and what may displace what: a service of one slot and three backends, one bucket.

use std::cell::{Cell, RefCell};

use What::{Data, Error, Syn, SynAck, Udp};

use super::*;
use crate::{
    abi::{Config, Encap, IndexEntry},
    addr::Addr,
    wire::{protocol, tcp_flag},
};

const OLD: u32 = 10;
const NEW: u32 = 11;
const OTHER: u32 = 12;
const IDLE: u32 = 1000;

/// Tables around one bucket.
struct World {
    service: Service,
    slot: Slot,
    previous: Slot,
    backends: [Backend; 3],
    bucket: [Cell<Flow>; WAYS],
    features: Features,
    may_remember: Cell<bool>,
    notes: RefCell<Vec<Note>>,
    now: Cell<u64>,
}

struct Cells<'t>(&'t [Cell<Flow>; WAYS]);

impl FlowBucket for Cells<'_> {
    fn load(&self, way: usize) -> Flow {
        self.0[way].get()
    }

    fn replace(&self, way: usize, flow: Flow) {
        self.0[way].set(flow);
    }

    fn update(&self, way: usize, flow: Flow) {
        assert_eq!(self.0[way].get().id, flow.id, "another flow is there");
        self.0[way].set(flow);
    }
}

impl Tables for World {
    type Bucket<'t> = Cells<'t>;

    fn config(&self) -> Config {
        Config::default()
    }

    fn index_entry(&self, _: u32, _: u32) -> Option<&IndexEntry> {
        None
    }

    fn service(&self, _: u32) -> Option<&Service> {
        Some(&self.service)
    }

    fn slot(&self, _: u32) -> Option<Slot> {
        Some(self.slot)
    }

    fn previous(&self, _: u32) -> Option<Slot> {
        Some(self.previous)
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index.checked_sub(OLD)? as usize)
    }

    fn bucket(&self, _: u32) -> Option<Cells<'_>> {
        Some(Cells(&self.bucket))
    }

    fn features(&self) -> Features {
        self.features
    }

    fn gue_port(&self) -> u16 {
        0
    }

    fn limiter(&self, _: u32) -> Option<Cells<'_>> {
        None
    }

    fn prefix(&self, _: u32, _: Addr) -> Option<u32> {
        None
    }

    fn may(&self, what: Window) -> bool {
        what == Window::Remember && self.may_remember.get()
    }

    fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }
}

impl World {
    /// The slot went from `OLD` to `NEW`; all backends take everything.
    fn moving() -> Self {
        let standing = Standing::new(Encap::L2, 0, 0, 1).taking(true, true).to_word();
        let service = Service {
            slot_count: 1,
            backend_base: OLD,
            backend_count: 3,
            tcp_idle: IDLE,
            udp_idle: IDLE / 10,
            flags: Tracking::bits(Tracking::Transition, Tracking::Always),
            ..Service::default()
        };
        Self {
            service,
            slot: Slot::of(1).moving(),
            previous: Slot::of(0),
            backends: [Backend { standing, ..Backend::default() }; 3],
            bucket: Default::default(),
            features: Features::NONE,
            may_remember: Cell::new(true),
            notes: RefCell::default(),
            now: Cell::new(5000),
        }
    }

    fn settled() -> Self {
        Self { slot: Slot::of(1), ..Self::moving() }
    }

    fn tracking(tcp: Tracking, udp: Tracking) -> Self {
        let mut world = Self::settled();
        world.service.flags = Tracking::bits(tcp, udp);
        world
    }

    fn takes(&mut self, index: u32, remembered: bool, new: bool) {
        let backend = &mut self.backends[(index - OLD) as usize];
        backend.standing = backend.standing().taking(remembered, new).to_word();
    }

    fn send(&self, flow: u64, what: What) -> Option<u32> {
        let (protocol, tcp_flags, kind) = match what {
            Syn => (protocol::TCP, tcp_flag::SYN, Kind::Whole),
            SynAck => (protocol::TCP, tcp_flag::SYN | tcp_flag::ACK, Kind::Whole),
            Data => (protocol::TCP, tcp_flag::ACK, Kind::Whole),
            Error => (protocol::TCP, 0, Kind::IcmpError),
            Udp => (protocol::UDP, 0, Kind::Whole),
        };
        let packet = Packet {
            source: Addr::NONE,
            destination: Addr::NONE,
            source_port: 0,
            destination_port: 0,
            protocol,
            tcp_flags,
            traffic_class: 0,
            ttl: 64,
            length: 100,
            offset: 14,
            is_v4: true,
            kind,
            quic_head: 0,
            quic_id: 0,
            fragment: 0,
        };
        let now = Ticks::new(self.now.get());
        let question = Question { service: 0, place: 0, flow, packet: PacketTraits::of(&packet), now };
        backend_of(self, &self.service, self.slot, &packet, || question).ok()
    }

    fn wait(&self, ticks: u32) {
        self.now.set(self.now.get() + u64::from(ticks));
    }

    fn known(&self, flow: u64) -> Option<(u32, bool)> {
        let known = self.bucket.iter().map(Cell::get).find(|known| known.id == flow)?;
        Some((known.backend(), known.is_confirmed()))
    }

    fn is_empty(&self) -> bool {
        self.bucket.iter().all(|flow| flow.get().id == 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Syn,
    SynAck,
    Data,
    Error,
    Udp,
}

#[test]
fn a_slot_in_transition_sends_what_begins_to_its_owner_and_all_else_where_it_was() {
    for (what, goes_to, known) in [
        (Syn, NEW, Some((NEW, false))),
        (SynAck, OLD, Some((OLD, false))),
        (Data, OLD, Some((OLD, false))),
        (Error, OLD, None),
        (Udp, NEW, Some((NEW, false))),
    ] {
        let world = World::moving();
        assert_eq!(world.send(1, what), Some(goes_to), "{what:?}");
        assert_eq!(world.known(1), known, "{what:?}");
    }
}

#[test]
fn what_is_remembered_goes_on_where_it_went() {
    let mut world = World::moving();
    world.send(1, Syn);
    world.send(2, Data);
    world.slot = Slot::of(2).moving();
    for what in [Data, Error, SynAck, Syn, Data] {
        assert_eq!((world.send(1, what), world.send(2, what)), (Some(NEW), Some(OLD)), "{what:?}");
    }
    assert_eq!((world.known(1), world.known(2)), (Some((NEW, true)), Some((OLD, true))));
}

#[test]
fn in_the_steady_state_nothing_is_looked_up_or_remembered() {
    let world = World::settled();
    world.bucket[0].set(Flow::new(1, OTHER, 1, true, Ticks::new(world.now.get())));
    for what in [Syn, Data, SynAck, Error] {
        assert_eq!(world.send(1, what), Some(NEW), "{what:?}");
    }
    world.bucket[0].set(Flow::default());
    world.send(2, Syn);
    assert!(world.is_empty());
}

#[test]
fn tracking_decides_what_is_remembered() {
    for (tracking, what, remembered) in [
        (Tracking::Always, Syn, true),
        (Tracking::Always, Data, true),
        (Tracking::Always, Udp, true),
        (Tracking::Transition, Syn, false),
        (Tracking::Transition, Udp, false),
        (Tracking::Never, Syn, false),
        (Tracking::Never, Udp, false),
    ] {
        let mut world = World::tracking(tracking, tracking);
        assert_eq!(world.send(1, what), Some(NEW));
        assert_eq!(world.known(1).is_some(), remembered, "{tracking:?} {what:?}");
        world.slot = Slot::of(2);
        let stays = if remembered { NEW } else { OTHER };
        assert_eq!(world.send(1, what), Some(stays), "{tracking:?} {what:?}");
    }
    let mut world = World::tracking(Tracking::Never, Tracking::Never);
    world.slot = world.slot.moving();
    assert_eq!(world.send(1, Data), Some(NEW), "never means never");
    assert!(world.is_empty());
}

#[test]
fn a_syn_sent_again_confirms_nothing() {
    let world = World::moving();
    world.send(1, Syn);
    world.wait(300);
    assert_eq!((world.send(1, Syn), world.known(1)), (Some(NEW), Some((NEW, false))));
    world.wait(900);
    assert_eq!(world.send(1, Data), Some(NEW), "the SYN sent again kept it");
    assert_eq!(world.known(1), Some((NEW, true)));
}

/// A client may use the ports of a connection that is long over while the slot's owner drains.
#[test]
fn a_backend_that_takes_no_new_flow_keeps_those_it_has() {
    let mut world = World::moving();
    world.send(1, Data);
    world.takes(OLD, true, false);
    assert_eq!((world.send(1, Data), world.send(2, Data)), (Some(OLD), Some(OLD)));
    assert_eq!((world.send(1, Syn), world.known(1)), (Some(NEW), Some((NEW, false))));
    assert_eq!(world.send(1, Data), Some(NEW));
}

#[test]
fn flows_of_a_backend_that_fails_go_to_the_owner() {
    let mut world = World::moving();
    world.send(1, Data);
    world.takes(OLD, false, false);
    assert_eq!((world.send(1, Data), world.send(2, Data)), (Some(NEW), Some(NEW)));
    assert_eq!(world.known(1), Some((NEW, false)));
    world.takes(OLD, true, true);
    assert_eq!(world.send(1, Data), Some(NEW), "it went on there");
}

#[test]
fn a_flow_of_another_backend_with_the_same_number_is_no_flow() {
    let mut world = World::moving();
    world.send(1, Syn);
    world.backends[1].standing = Standing::new(Encap::L2, 0, 0, 2).taking(true, true).to_word();
    assert_eq!(world.send(1, Data), Some(OLD));
    // An index outside the service's pool.
    world.bucket[0].set(Flow::new(7, OLD + 3, 1, true, Ticks::new(world.now.get())));
    assert_eq!(world.send(7, Data), Some(OLD));
}

#[test]
fn a_flow_is_over_when_it_was_idle() {
    for (silent, goes_to) in [(IDLE, NEW), (IDLE + 1, OLD)] {
        let world = World::moving();
        world.send(1, Syn);
        world.send(1, Data);
        world.wait(silent);
        assert_eq!(world.send(1, Data), Some(goes_to), "after {silent}");
    }
    // Packets in between keep it, whatever REFRESH hides.
    let world = World::moving();
    world.send(1, Syn);
    for _ in 0..10 {
        world.wait(IDLE - REFRESH);
        assert_eq!(world.send(1, Data), Some(NEW));
        world.wait(REFRESH);
        assert_eq!(world.send(1, Data), Some(NEW));
    }
}

#[test]
fn one_packet_displaces_one_packet_and_never_a_confirmed_flow() {
    let world = World::moving();
    for flow in 1..=3 {
        world.send(flow, Syn);
        world.send(flow, Data);
    }
    for flow in 10..100 {
        world.wait(1);
        assert_eq!(world.send(flow, Syn), Some(NEW));
        assert_eq!(world.known(flow), Some((NEW, false)));
        assert!((1..=3).all(|flow| world.known(flow) == Some((NEW, true))));
    }
    assert!(world.notes.borrow().is_empty());

    // The oldest of those that may be displaced is.
    let world = World::moving();
    for flow in 1..=4 {
        world.wait(1);
        world.send(flow, Syn);
    }
    world.send(2, Data);
    world.send(5, Syn);
    assert_eq!((1..=5).filter(|&flow| world.known(flow).is_some()).collect::<Vec<_>>(), [2, 3, 4, 5]);

    // A confirmed flow goes when it was idle.
    let world = World::moving();
    for flow in 1..=4 {
        world.send(flow, Data);
        world.send(flow, Data);
    }
    world.send(5, Data);
    assert_eq!((world.known(5), world.notes.borrow().as_slice()), (None, &[Note::FlowsFull][..]));
    world.wait(IDLE + 1);
    world.send(5, Data);
    assert_eq!(world.known(5), Some((OLD, false)));
}

/// Its next packet will be sent to the previous owner for want of a memory, and so must its first be.
#[test]
fn a_syn_that_cannot_be_remembered_goes_to_the_previous_owner_if_that_takes_it() {
    for (takes_new, goes_to) in [(true, OLD), (false, NEW)] {
        for full in [true, false] {
            let mut world = World::moving();
            for flow in 1..=4 {
                world.send(flow, Data);
                world.send(flow, Data);
            }
            if !full {
                world.bucket[0].set(Flow::default());
                world.may_remember.set(false);
            }
            world.takes(OLD, true, takes_new);
            assert_eq!(world.send(9, Syn), Some(goes_to));
            assert_eq!(world.known(9), None);
            let note = if full { Note::FlowsFull } else { Note::FlowsLimited };
            assert_eq!(*world.notes.borrow(), [note]);
        }
    }
}

#[test]
fn icmp_errors_follow_their_flow_and_leave_no_trace() {
    let world = World::moving();
    world.send(1, Syn);
    let before: Vec<Flow> = world.bucket.iter().map(Cell::get).collect();
    world.wait(IDLE - 1);
    assert_eq!(world.send(1, Error), Some(NEW));
    assert_eq!(world.send(2, Error), Some(OLD));
    assert_eq!(world.bucket.iter().map(Cell::get).collect::<Vec<_>>(), before);
    assert!(world.notes.borrow().is_empty());
}

#[test]
fn an_emptied_slot_still_serves_the_flows_it_had() {
    let mut world = World::moving();
    world.slot = Slot::EMPTY.moving();
    world.takes(OLD, true, false);
    assert_eq!((world.send(1, Data), world.send(1, Data)), (Some(OLD), Some(OLD)));
    assert_eq!((world.send(2, Syn), world.known(2)), (None, None));
}

#[test]
fn later_fragments_follow_the_first_for_a_while() {
    let world = World::moving();
    let now = || Ticks::new(world.now.get());
    remember_fragment(&world, 77, OTHER, now());
    assert_eq!(fragment(&world, 77, 100, now()), Some(OTHER));
    assert_eq!(fragment(&world, 78, 100, now()), None);
    world.wait(101);
    assert_eq!(fragment(&world, 77, 100, now()), None);
}
