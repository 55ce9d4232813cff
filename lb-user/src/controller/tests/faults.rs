//! The kernel refuses step k of a plan, for every k: what packets meet is sound after each step, the service that was there
//! serves on, and the tables arrive where they were to go, by the same daemon or by the next one.

use lb_common::{abi::ServiceKey, addr::Addr};

use super::{
    BOTH, CONFIG, VIP, with,
    world::{World, no_mac},
};
use crate::model::memory::audit::destinations;

/// What is done to a balancer that serves [`CONFIG`].
struct Change {
    what: &'static str,
    act: fn(&mut World),
}

const THIRD: &str = "address = \"10.1.0.12\"\n[[pool.backend]]\nname = \"w3\"\naddress = \"10.1.0.13\"\n";

const CHANGES: [Change; 10] = [
    Change {
        what: "a weight",
        act: |world| world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nweight = 30")),
    },
    Change {
        what: "a backend more",
        act: |world| world.configure(&with("address = \"10.1.0.12\"\n", THIRD)),
    },
    Change {
        what: "a backend less",
        act: |world| {
            world.configure(&with("[[pool.backend]]\nname = \"w2\"\naddress = \"10.1.0.12\"\n", ""));
        },
    },
    Change {
        what: "a drain",
        act: |world| world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nstate = \"drain\"")),
    },
    Change {
        what: "a tunnel",
        act: |world| world.configure(&with("\"10.1.0.12\"", "\"10.1.0.12\"\nvia = \"ipip\"")),
    },
    Change { what: "a larger table", act: |world| world.configure(&with("slots = 31", "slots = 61")) },
    Change {
        what: "a service more",
        act: |world| {
            let other =
                "\n[[service]]\nname = \"dns\"\nvip = \"192.0.2.11\"\nports = [\"udp/53\"]\npool = \"web\"\n";
            world.configure(&(CONFIG.to_owned() + other));
        },
    },
    Change {
        what: "a pool more, and the service moves there",
        act: |world| {
            let other = "\n[[pool]]\nname = \"new\"\nslots = 31\nbackend = [{ name = \"n1\", address = \"10.1.0.13\" }]\n";
            world.configure(&(with("pool = \"web\"", "pool = \"new\"") + other));
        },
    },
    Change {
        what: "affinity and a list",
        act: |world| {
            let list = "\n[[acl]]\nname = \"bad\"\ndeny = [\"198.18.0.0/15\"]\n";
            world.configure(
                &(with("pool = \"web\"", "pool = \"web\"\nacl = \"bad\"\naffinity = \"source\"") + list),
            );
        },
    },
    Change { what: "a way that is lost", act: |world| world.way("10.1.0.12", no_mac("10.1.0.12")) },
];

fn serving() -> World {
    let third = ["10.1.0.13"];
    let mut world = World::serving(CONFIG, &[&BOTH[..], &third].concat());
    assert_eq!(world.servers(VIP, 80), [11, 12]);
    // Whatever happens, this service is always there.
    world.between = Some(Box::new(|memory, _, _| {
        let key = ServiceKey::new(Addr::from(VIP.parse::<std::net::IpAddr>().unwrap()), 6, 80);
        assert!(destinations(memory, &key).iter().all(Option::is_some), "a flow goes nowhere");
    }));
    world
}

/// Lets probes and retries do what is left to do.
fn settle(world: &mut World) {
    world.plan_fails_at = None;
    for _ in 0..3 {
        world.wait(2);
        world.probe();
    }
}

#[test]
fn each_step_may_fail() {
    for Change { what, act } in CHANGES {
        let mut whole = serving();
        let before = whole.steps;
        act(&mut whole);
        settle(&mut whole);
        let (steps, arrived) = (whole.steps - before, whole.flows(VIP, 80));
        assert!(steps > 0, "{what} changes nothing");
        for at in 0..steps {
            // A new daemon finds no pool but those that services are at, and of a new one it knows nobody.
            let kills = if what.contains("moves") { &[false][..] } else { &[false, true] };
            for &is_killed in kills {
                let mut world = serving();
                world.plan_fails_at = Some(at);
                act(&mut world);
                if is_killed {
                    world.plan_fails_at = None;
                    world.restart();
                }
                settle(&mut world);
                let said = format!("{what}, step {at} of {steps}, killed: {is_killed}");
                assert!(world.status().warnings.is_empty(), "{said}: {:?}", world.status().warnings);
                assert_eq!(world.flows(VIP, 80), arrived, "{said}");
            }
        }
    }
}
