//! Interfaces that vanish and come back.

use super::{BOTH, CONFIG, world::World};
use crate::{
    api::{InterfaceView, metrics},
    controller::{Event, Level},
    model::service::XdpMode,
};

fn eth(number: u32, index: u32) -> InterfaceView {
    InterfaceView { name: format!("eth{number}"), index, mode: XdpMode::Native }
}

fn told(name: &str, state: Result<InterfaceView, String>) -> Vec<Event> {
    vec![Event::Interface { name: name.to_owned(), state }]
}

#[test]
fn an_interface_that_is_gone_makes_the_balancer_unready_until_it_is_back() {
    let mut world = World::serving(CONFIG, &BOTH);
    world.controller.set_interfaces(vec![eth(0, 2), eth(1, 3)]);
    let memory = world.memory.clone();
    for why in ["it is gone", "it came back, but is busy"] {
        world.tell(told("eth1", Err(why.to_owned())));
        let status = world.status();
        assert_eq!(
            (&status.interfaces, &status.warnings[..]),
            (&vec![eth(0, 2)], &[format!("eth1: {why}")][..])
        );
        assert_eq!(metrics::unready(&status), status.warnings);
        assert!(world.log.contains(&(Level::Error, format!("eth1: {why}"))), "{:?}", world.log);
    }
    world.tell(told("eth1", Ok(eth(1, 9))));
    let status = world.status();
    assert_eq!((status.interfaces, metrics::unready(&world.status())), (vec![eth(0, 2), eth(1, 9)], vec![]));
    assert_eq!(world.memory, memory, "tables are no matter of where packets come in");
}
