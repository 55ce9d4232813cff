//! Tables in which somebody else writes.

use std::time::Duration;

use super::{BOTH, CONFIG, VIP, edits::weight, world::World};
use crate::{controller::Level, model::memory::Memory};
use lb_common::abi::{Backend, IndexEntry, Slot};

fn errors(world: &World) -> Vec<&str> {
    let errors = world.log.iter().filter(|(level, _)| *level == Level::Error);
    errors.map(|(_, text)| text.as_str()).collect()
}

/// What somebody does to the tables.
type Spoil = fn(&mut Memory);

/// Each table, spoilt by somebody; how it is named.
const SPOILT: [(&str, Spoil); 4] = [
    ("slots", |memory| memory.slots.fill(Slot::EMPTY)),
    ("index", |memory| memory.index.fill(IndexEntry::default())),
    ("backends", |memory| memory.backends.fill(Backend::default())),
    ("config", |memory| memory.config.selector ^= 1),
];

#[test]
fn tables_in_which_somebody_wrote_are_found_out_and_mended() {
    for (table, spoil) in SPOILT {
        let mut world = World::serving(CONFIG, &BOTH);
        let whole = world.memory.clone();
        world.strangers_write = true;
        spoil(&mut world.memory);
        assert!(world.memory != whole, "{table}");
        // Nobody changes anything: each second one pool is looked at, and then what is common.
        world.wait(3);
        assert!(errors(&world)[0].contains(table), "{table}: {:?}", errors(&world));
        assert_eq!(errors(&world).len(), 1, "{table}: {:?}", errors(&world));
        assert_eq!(world.servers(VIP, 80), [11, 12], "{table}");

        world.wait(180);
        assert_eq!(errors(&world).len(), 1, "once it is mended nothing is said: {:?}", errors(&world));
    }
}

#[test]
fn tables_that_are_as_written_are_no_news() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.now += Duration::from_secs(1);
    world.edit(weight("w2", 50));
    world.wait(600);
    assert_eq!(errors(&world), [""; 0]);
}

#[test]
fn what_a_change_wrote_is_read_back_at_once() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.strangers_write = true;
    world.forgets_slots = true;
    world.edit(weight("w2", 0));
    assert!(errors(&world)[0].contains("(slots)"), "{:?}", errors(&world));
    world.forgets_slots = false;
    world.wait(3);
    assert_eq!(world.servers(VIP, 80), [11]);
}
