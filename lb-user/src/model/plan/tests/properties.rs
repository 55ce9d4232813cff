//! Any sequence of targets, any failure: the tables are sound after each step, and arrive in the end.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};

use super::{
    Change, ServiceKey, Target, World,
    targets::{SMALL, assert_serving, pools_by_key, targets},
};

/// Carries out some steps towards a target, and looks at the tables after each. `live` is what the live index was made
/// for: which pool each key leads to.
fn walk(world: &mut World, live: &mut BTreeMap<ServiceKey, u8>, target: &Target, changes: &[Change]) {
    for change in changes {
        let selector = world.memory.config.selector;
        world.apply(change);
        if world.memory.config.selector != selector {
            *live = pools_by_key(target);
        }
        assert_serving(&world.memory, live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Plans one after the other, some of which stop half-way.
    #[test]
    fn every_prefix_of_every_plan_is_sound(
        course in vec((targets(), option::weighted(0.3, any::<prop::sample::Index>())), 1..8),
    ) {
        let mut world = World::new(SMALL);
        let mut live = BTreeMap::new();
        for (target, failure) in &course {
            let changes = world.plan(target).unwrap();
            let end = failure.map_or(changes.len(), |at| at.index(changes.len() + 1));
            walk(&mut world, &mut live, target, &changes[..end]);
            if end == changes.len() {
                world.go(target);
            }
        }
        // Twice, as above: slots that a target calls settled may come into transition only by the first.
        let last = &course.last().unwrap().0;
        world.go_once(last);
        world.go(last);
    }

    /// A plan that stops after each of its steps in turn; then the same or another target is wanted.
    #[test]
    fn a_plan_may_stop_anywhere(first in targets(), second in targets(), third in targets()) {
        let mut start = World::new(SMALL);
        start.go(&first);
        let mut live = pools_by_key(&first);
        for change in start.plan(&second).unwrap() {
            for next in [&second, &first, &third] {
                let (mut world, mut live) = (start.clone(), live.clone());
                let changes = world.plan(next).unwrap();
                walk(&mut world, &mut live, next, &changes);
                world.go(next);
            }
            walk(&mut start, &mut live, &second, &[change]);
        }
        start.go(&second);
    }
}
