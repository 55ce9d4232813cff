//! Services that move to another pool.

use super::{BOTH, CONFIG, VIP, with, world::World};
use crate::api::State;

/// `CONFIG` with another pool, which is checked as well, and the service there.
fn moved() -> String {
    let other = r#"
[[pool]]
name = "new"
slots = 31
check = { type = "tcp", rise = 1, fall = 2 }
backend = [{ name = "n1", address = "10.1.0.13" }]
"#;
    with("pool = \"web\"", "pool = \"new\"") + other
}

fn serving() -> World {
    World::serving(CONFIG, &[&BOTH[..], &["10.1.0.13"]].concat())
}

#[test]
fn the_pool_before_serves_until_the_new_one_is_known() {
    let mut world = serving();
    world.configure(&moved());
    assert_eq!(world.servers(VIP, 80), [11, 12], "nobody of the new pool is checked yet");
    let words = "service www: pool web serves until it is known who of pool new is up";
    assert_eq!(world.status().warnings, [words]);
    assert_eq!(world.status().services[0].state, State::Up);
    world.probe();
    assert_eq!(world.servers(VIP, 80), [13]);
    assert!(world.status().warnings.is_empty());
}

#[test]
fn a_pool_of_which_nobody_comes_up_is_taken_at_the_operators_word() {
    let mut world = serving();
    world.alive.remove(&"10.1.0.13".parse().unwrap());
    world.configure(&moved());
    for serving in [&[11, 12][..], &[0]] {
        world.probe();
        world.wait(1);
        assert_eq!(world.servers(VIP, 80), serving);
    }
    assert_eq!(world.status().services[0].state, State::Down);
}

#[test]
fn a_pool_with_another_name_goes_on_as_it_was() {
    let mut world = serving();
    let renamed = CONFIG.replace("\"web\"", "\"shop\"");
    world.configure(&renamed);
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    assert!(world.standing("w1").1.starts_with("check connected"), "{:?}", world.standing("w1"));
    // With another check it is not known who serves by that.
    world.configure(
        &renamed.replace("\"shop\"", "\"other\"").replace("\"tcp\", rise", "\"tcp\", port = 81, rise"),
    );
    assert_eq!((world.servers(VIP, 80), world.standing("w1").1), (vec![0], "not checked yet".to_owned()));
}
