//! Tables and sequences: when a slot has settled, and what is told of it until then.

use lb_common::abi::{Limits, Slot};

use super::*;
use crate::model::{
    layout::Layout,
    plan::{MemberTarget, PoolTarget, Target},
    service::{Name, Via},
};

const HZ: u32 = 100;
const IDLE: Duration = Duration::from_secs(10);
const PATIENCE: Patience = Patience { idle: IDLE, longest: Duration::from_secs(60) };
/// How much longer than [`IDLE`] a slot is watched: what marks of flows do not show.
const SLACK: Duration = Duration::from_millis(10 * (track::REFRESH as u64 + 1));
/// In transition in most tests: from backend number 0 to number 1.
const SLOT: u32 = 5;

/// Tables with room for little.
const SMALL: Limits = Limits {
    index: 4,
    services: 1,
    slots: 32,
    backends: 128,
    counters: 128,
    flow_buckets: 4,
    limiters: 1,
    prefixes: 1,
};

/// A pool of eleven slots and three backends, all of whose slots belong to number 1, and a second pool behind it.
struct World {
    memory: Memory,
    layout: Layout,
    place: PoolPlace,
    watch: Watch,
    now: Duration,
    flows: Vec<Flow>,
}

impl World {
    fn new() -> Self {
        let limits = SMALL;
        let member = |k: u8| MemberTarget {
            address: [10, 0, 0, k].into(),
            via: Via::L2,
            hop: None,
            weight: 1,
            keeps: true,
            server_id: None,
        };
        let pool = |name: &str| PoolTarget {
            name: Name::new(name).unwrap(),
            slots: 11,
            is_tracked: true,
            members: (0..3).map(member).collect(),
        };
        let target = Target { pools: vec![pool("a"), pool("b")], ..Target::default() };
        let layout = Layout::new(&limits).placed(&target).unwrap();
        let place = layout.pool(&Name::new("a").unwrap()).unwrap().clone();
        assert_eq!((place.slot_base, place.backend_base), (0, 0));
        let now = Duration::from_secs(1000);
        let (memory, watch) = (Memory::new(limits), Watch::default());
        let mut world = Self { memory, layout, place, watch, now, flows: Vec::new() };
        world.set((0..11).map(|at| (at, Slot::of(1))).collect());
        world
    }

    fn moving() -> Self {
        let mut world = Self::new();
        world.memory.apply(&Change::Previous(vec![(SLOT, Slot::of(0))]));
        world.set(vec![(SLOT, Slot::of(1).moving())]);
        world
    }

    fn set(&mut self, slots: Vec<(u32, Slot)>) {
        let change = Change::Slots(slots);
        self.memory.apply(&change);
        self.watch.follow(self.now, &change);
    }

    fn ticks(&self) -> Ticks {
        Ticks::new(self.now.as_millis() as u64 * u64::from(HZ) / 1000)
    }

    /// Number `number` gets a packet of a flow of `slot`.
    fn seen(&mut self, slot: u32, number: u32) {
        let epoch = self.layout.epoch(number);
        self.seen_as(slot, number, epoch);
    }

    fn seen_as(&mut self, slot: u32, index: u32, epoch: u8) {
        // The middle of the hashes that fall on this slot.
        let id = (((u64::from(slot) << 32) + (1 << 31)) / 11) << 32;
        assert_eq!(select::slot_of(id, 11), slot);
        self.flows.push(Flow::new(id, index, epoch, true, self.ticks()));
    }

    fn look(&self) -> Summary {
        let reading = FlowReading { now: self.ticks(), flows: self.flows.clone() };
        self.watch.look(self.now, &self.memory, (&self.layout, &self.place), &reading, HZ, PATIENCE)
    }

    fn wait(&mut self, time: Duration) -> Summary {
        self.now += time;
        self.look()
    }
}

#[test]
fn without_a_flow_a_slot_settles_after_the_idle_time() {
    let mut world = World::moving();
    let summary = world.look();
    assert_eq!((summary.in_transition, summary.ends_in), (1, Some(IDLE + SLACK)));
    assert_eq!(summary.leaving, BTreeMap::from([(0, 1)]));
    let summary = world.wait(IDLE);
    assert_eq!((summary.settled.len(), summary.ends_in), (0, Some(SLACK)));
    assert_eq!(world.wait(SLACK).settled, [SLOT]);

    world.set(vec![(SLOT, Slot::of(1))]);
    assert_eq!(world.look(), Summary::default());
}

#[test]
fn a_flow_elsewhere_keeps_a_slot_in_transition_and_one_on_its_owner_does_not() {
    for (slot, number, settles) in [(SLOT, 0, false), (SLOT, 2, false), (SLOT, 1, true), (SLOT + 1, 0, true)]
    {
        let mut world = World::moving();
        world.now += IDLE;
        world.seen(slot, number);
        let summary = world.wait(SLACK);
        assert_eq!(summary.settled == [SLOT], settles, "{slot} {number}: {summary:?}");
        assert_eq!((summary.remembered, summary.by_number), (1, BTreeMap::from([(number as u16, 1)])));
        if !settles {
            assert_eq!(summary.ends_in, Some(IDLE));
            assert_eq!(world.wait(IDLE).settled, [SLOT], "it was silent");
        }
    }
}

/// A fragment's hash says nothing of a slot, and a source's is no flow of its own.
#[test]
fn what_is_remembered_beside_flows_is_no_flow() {
    let mut world = World::moving();
    world.now += IDLE + SLACK;
    world.seen(SLOT, 0);
    world.flows[0].id |= Flow::BESIDE;
    let summary = world.look();
    assert_eq!((summary.remembered, summary.by_number, summary.settled), (0, BTreeMap::new(), vec![SLOT]));
}

#[test]
fn flows_of_earlier_backends_and_of_other_pools_count_for_nothing() {
    let mut world = World::moving();
    world.now += IDLE + SLACK;
    world.seen_as(SLOT, 0, world.layout.epoch(0).wrapping_add(1));
    world.seen_as(SLOT, world.place.capacity, world.layout.epoch(0));
    world.seen_as(SLOT, u32::MAX >> 8, 0);
    let summary = world.look();
    assert_eq!((summary.remembered, summary.settled), (0, vec![SLOT]));
}

#[test]
fn the_longest_time_ends_it_whatever_is_seen() {
    let mut world = World::moving();
    while world.now < Duration::from_secs(1059) {
        world.seen(SLOT, 0);
        assert_eq!(world.look().settled, [0; 0]);
        world.now += Duration::from_secs(1);
    }
    world.seen(SLOT, 0);
    assert_eq!(world.look().ends_in, Some(Duration::from_secs(1)), "not longer, though flows go on");
    assert_eq!(world.wait(Duration::from_secs(1)).settled, [SLOT]);
}

/// Between two looks a slot may leave one transition and enter another.
#[test]
fn every_transition_is_watched_for_itself() {
    let mut world = World::moving();
    assert_eq!(world.wait(IDLE + SLACK).settled, [SLOT]);
    world.set(vec![(SLOT, Slot::of(1))]);
    world.set(vec![(SLOT, Slot::of(2).moving())]);
    let summary = world.look();
    assert_eq!((summary.settled.len(), summary.ends_in), (0, Some(IDLE + SLACK)));
    // Another owner within the transition is the same transition.
    world.now += IDLE;
    world.set(vec![(SLOT, Slot::of(1).moving())]);
    assert_eq!(world.wait(SLACK).settled, [SLOT]);
}

#[test]
fn the_last_one_to_end_says_when_it_will_be_over() {
    let mut world = World::moving();
    world.wait(Duration::from_secs(4));
    world.set(vec![(7, Slot::of(2).moving()), (13, Slot::of(2).moving())]);
    let summary = world.look();
    assert_eq!((summary.in_transition, summary.ends_in), (2, Some(IDLE + SLACK)), "13 is another pool's");
}

/// Reading a large table takes time, and packets do not wait for it.
#[test]
fn a_flow_that_is_seen_while_the_table_is_read_is_remembered() {
    let mut world = World::moving();
    world.wait(PATIENCE.idle / 2);
    world.now += Duration::from_secs(1);
    world.seen(SLOT, 0);
    world.now -= Duration::from_secs(1);
    let summary = world.look();
    assert_eq!((summary.remembered, summary.by_number.get(&0)), (1, Some(&1)));
    assert!(
        world.wait(PATIENCE.idle / 2 + Duration::from_secs(1)).settled.is_empty(),
        "its flow was just seen"
    );
}
