//! Plans, step by step: single changes here, any sequence of them in `properties`.

mod properties;
mod targets;
mod timings;

use super::*;
use crate::model::{layout::Full, memory::audit::InFlight};
use lb_common::abi::Limits;
use targets::{SMALL, assert_arrived, hop, key, member, pool, service};

/// Tables, where things stand in them, and what follows when a target is wanted.
#[derive(Clone)]
pub(super) struct World {
    pub(super) memory: Memory,
    pub(super) layout: Layout,
    cache: TableCache,
    in_flight: InFlight,
}

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            memory: Memory::new(limits),
            layout: Layout::new(&limits),
            cache: TableCache::default(),
            in_flight: InFlight::default(),
        }
    }

    /// Carries out one step.
    pub(super) fn apply(&mut self, change: &Change) {
        self.in_flight.apply(&mut self.memory, change);
    }

    /// Finds places for a target, and the steps to it.
    pub(super) fn plan(&mut self, target: &Target) -> Result<Vec<Change>, Full> {
        self.layout = self.layout.placed(target)?;
        Ok(plan(&self.memory, &self.layout, target, &mut self.cache).unwrap())
    }

    /// Goes all the way to a target and returns the steps.
    pub(super) fn go_once(&mut self, target: &Target) -> Vec<Change> {
        let changes = self.plan(target).unwrap();
        for change in &changes {
            self.apply(change);
        }
        self.layout.release();
        assert_arrived(&self.memory, target);
        changes
    }

    /// The same, and nothing is left to do then.
    pub(super) fn go(&mut self, target: &Target) -> Vec<Change> {
        let changes = self.go_once(target);
        assert_eq!(self.plan(target), Ok(Vec::new()), "nothing is left to do");
        changes
    }
}

/// One pool of `backends` and one service.
fn simple(backends: u8) -> Target {
    Target {
        pools: vec![pool(1, 251, (0..backends).map(|k| member(1, k, 100)).collect())],
        services: vec![service(1, 1, vec![key(1, 80), key(1, 443)])],
        ..Target::default()
    }
}

#[test]
fn a_weight_changes_the_slots_that_differ_and_nothing_else() {
    let mut world = World::new(SMALL);
    let mut target = simple(100);
    world.go(&target);
    let before = world.memory.slots.clone();
    target.pools[0].members[42].weight = 50;
    let changes = world.go(&target);
    let [Change::Previous(previous), Change::Slots(slots)] = &changes[..] else { panic!("{changes:?}") };
    let differing = before.iter().zip(&world.memory.slots).filter(|(a, b)| a != b).count();
    assert_eq!((slots.len(), previous.len()), (differing, differing));
    assert!((1..10).contains(&differing), "{differing} of 251 slots moved for half of a hundredth");
}

#[test]
fn a_mac_is_a_single_step() {
    let mut world = World::new(SMALL);
    let mut target = simple(10);
    world.go(&target);
    target.pools[0].members[7].hop = Some(hop(1, 7, 3, 1));
    let changes = world.go(&target);
    assert!(matches!(changes[..], [Change::Hop { .. }]), "{changes:?}");
}

#[test]
fn a_seed_is_a_single_step() {
    let mut world = World::new(SMALL);
    let mut target = simple(10);
    world.go(&target);
    target.seed = 7;
    let changes = world.go(&target);
    assert!(matches!(changes[..], [Change::Config(Config { seed: 7, .. })]), "{changes:?}");
}

/// What a slot says: its owner's number, whether it is in transition, and its previous owner's number if so.
fn slot(world: &World, at: usize) -> (Option<u16>, Option<Option<u16>>) {
    let slot = world.memory.slots[at];
    (slot.owner(), slot.in_transition().then(|| world.memory.previous[at].owner()))
}

/// Two backends; the first is taken out in one way or another, and its slots go to the second.
#[test]
fn a_slot_whose_owner_still_serves_remembers_it() {
    for (tracked, keeps, remembers) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        let mut world = World::new(SMALL);
        let mut target = simple(2);
        target.pools[0].is_tracked = tracked;
        world.go(&target);
        let at = world.memory.slots.iter().position(|slot| slot.owner() == Some(0)).unwrap();
        target.pools[0].members[0] = MemberTarget { weight: 0, keeps, ..member(1, 0, 0) };
        world.go(&target);
        assert_eq!(slot(&world, at), (Some(1), remembers.then_some(Some(0))), "{tracked} {keeps}");
    }
}

#[test]
fn a_slot_that_changes_again_keeps_its_first_previous_owner() {
    let mut world = World::new(SMALL);
    let mut target = simple(3);
    world.go(&target);
    let at = world.memory.slots.iter().position(|slot| slot.owner() == Some(0)).unwrap();
    let mut weigh = |world: &mut World, weights: [u32; 3]| {
        for (member, weight) in target.pools[0].members.iter_mut().zip(weights) {
            member.weight = weight;
        }
        world.go(&target);
        slot(world, at)
    };
    assert_eq!(weigh(&mut world, [0, 1, 0]), (Some(1), Some(Some(0))));
    assert_eq!(weigh(&mut world, [0, 0, 1]), (Some(2), Some(Some(0))));
    assert_eq!(weigh(&mut world, [1, 0, 0]), (Some(0), Some(Some(0))), "as before, but for flows in between");
    assert_eq!(weigh(&mut world, [0, 0, 0]), (None, Some(Some(0))), "nobody takes new flows, old ones stay");
    assert_eq!(weigh(&mut world, [0, 1, 0]), (Some(1), Some(Some(0))));

    // Settled, it is the owner's alone; and what has settled but changes at the same time has not.
    target.settled.insert(u32::try_from(at).unwrap());
    target.pools[0].members[2].weight = 1;
    target.pools[0].members[1].weight = 0;
    world.go_once(&target);
    assert_eq!(slot(&world, at), (Some(2), Some(Some(0))));
    world.go_once(&target);
    assert_eq!(slot(&world, at), (Some(2), None));
}

#[test]
fn a_previous_owner_that_is_gone_is_nobody() {
    let mut world = World::new(SMALL);
    let mut target = simple(2);
    world.go(&target);
    let at = world.memory.slots.iter().position(|slot| slot.owner() == Some(0)).unwrap();
    target.pools[0].members[0].weight = 0;
    world.go(&target);
    // Without a way it may come back; out of the target it does not.
    target.pools[0].members[0].hop = None;
    target.pools[0].members[0].keeps = false;
    world.go(&target);
    assert_eq!(slot(&world, at), (Some(1), Some(Some(0))));
    target.pools[0].members.remove(0);
    world.go(&target);
    assert_eq!(slot(&world, at), (Some(1), Some(None)), "flows that began since are still told from others");
}

#[test]
fn a_number_given_up_is_the_last_to_be_given_again() {
    let mut world = World::new(SMALL);
    let mut target = simple(4);
    world.go(&target);
    let number = |world: &World, k: u8| {
        let identity = Identity::new(targets::address(1, k), Via::L2, &Outer::default());
        world.layout.pool(&targets::name('p', 1)).unwrap().numbers[&identity]
    };
    let given_up = number(&world, 3);
    let capacity = world.layout.pool(&targets::name('p', 1)).unwrap().capacity as u8;
    for k in 4..capacity {
        target.pools[0].members[3] = member(1, k, 100);
        world.go(&target);
        assert_ne!(number(&world, k), given_up);
    }
    target.pools[0].members[3] = member(1, capacity, 100);
    world.go(&target);
    assert_eq!(number(&world, capacity), given_up, "all others had their turn");
}

/// Every number of the pool is taken, and a backend is exchanged: the pool needs more numbers to do it. Its backends keep
/// theirs, so that what is remembered of them holds, unless another pool leaves no room.
#[test]
fn a_pool_without_a_free_number_takes_more_where_it_stands() {
    for (backends, stays) in [(SMALL.backends, true), (400, false)] {
        let mut world = World::new(Limits { backends, ..SMALL });
        let mut target = simple(64);
        // A second pool takes the middle of what the first leaves.
        target.pools.push(PoolTarget {
            name: targets::name('p', 2),
            members: Vec::new(),
            ..target.pools[0].clone()
        });
        let mut few = target.clone();
        few.pools[0].members.truncate(16);
        world.go(&few);
        world.go(&target);
        let before = world.layout.pool(&targets::name('p', 1)).unwrap().clone();
        assert_eq!(before.capacity, 64);
        target.pools[0].members[0] = member(1, 99, 100);
        if !stays {
            // The neighbour is too close: 64 numbers stand at 0, 64 at 200.
            assert_eq!(world.layout.pool(&targets::name('p', 2)).unwrap().backend_base, 200);
            assert!(world.layout.placed(&target).is_err(), "and elsewhere is no room either");
            continue;
        }
        world.go(&target);
        let after = world.layout.pool(&targets::name('p', 1)).unwrap();
        assert_eq!(
            (after.capacity, after.backend_base, after.slot_base),
            (256, before.backend_base, before.slot_base)
        );
        for (identity, number) in &after.numbers {
            assert!(before.numbers.get(identity).is_none_or(|known| known == number));
        }
    }
}

/// An interface that goes away between being reported and being used must not hold up every later plan.
#[test]
fn a_port_that_nobody_needs_is_not_set_and_one_given_up_is_cleared() {
    let mut world = World::new(SMALL);
    let mut target = simple(2);
    world.go(&target);
    target.pools[0].members[0].hop = Some(hop(1, 0, 9, 0));
    let changes = world.plan(&target).unwrap();
    assert!(matches!(changes[0], Change::Port { port: Port { ifindex: 9, .. }, .. }), "{changes:?}");
    // That step fails; the interface is gone.
    target.pools[0].members[0].hop = None;
    let changes = world.go(&target);
    assert!(!changes.iter().any(|change| matches!(change, Change::Port { .. })), "{changes:?}");

    target.pools[0].members[1].hop = None;
    let changes = world.go(&target);
    let cleared = |change: &Change| matches!(change, Change::Port { port: Port { ifindex: 0, .. }, .. });
    assert!(changes.iter().any(cleared), "{changes:?}");
}

#[test]
fn what_is_full_says_so_and_leaves_the_layout_as_it_is() {
    let limits = Limits {
        index: 16,
        services: 2,
        slots: 512,
        backends: 128,
        counters: 300,
        flow_buckets: 4,
        limiters: 1,
        prefixes: 16,
    };
    let mut three = simple(2);
    three.services.extend([service(2, 1, vec![key(2, 80)]), service(3, 1, vec![key(3, 80)])]);
    let mut large = simple(2);
    large.pools[0].slots = 499;
    let mut many = simple(2);
    many.pools.extend([pool(2, 11, vec![member(2, 0, 1)]), pool(3, 11, vec![member(3, 0, 1)])]);
    let mut counters = simple(65);
    counters.services.push(service(2, 1, vec![key(2, 80)]));
    let mut interfaces = simple(65);
    for (ifindex, member) in (1..).zip(&mut interfaces.pools[0].members) {
        member.hop.as_mut().unwrap().port.ifindex = ifindex;
    }
    for (target, what) in [
        (&three, "no room for 1 more services: the tables were made for 2; restart lb to make larger ones"),
        (&large, "no room for 499 more slots: the tables were made for 512; restart lb to make larger ones"),
        (&many, "no room for 64 more backends: the tables were made for 128; restart lb to make larger ones"),
        (
            &counters,
            "no room for 512 more backends: the tables were made for 128; restart lb to make larger ones",
        ),
        (
            &interfaces,
            "no room for 1 more interfaces: the tables were made for 64; restart lb to make larger ones",
        ),
    ] {
        let mut world = World::new(limits);
        world.go(&simple(2));
        for _ in 0..40 {
            assert_eq!(world.plan(target).unwrap_err().to_string(), what);
        }
        assert_eq!(world.plan(&simple(2)), Ok(Vec::new()), "the old target needs nothing");
        let mut other = simple(2);
        other.pools[0].members[0] = member(1, 9, 100);
        world.go(&other);
    }
}
