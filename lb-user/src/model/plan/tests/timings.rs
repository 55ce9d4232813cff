//! How long plans take. `cargo test --release -p lb-user --lib plan -- --ignored --nocapture`

use std::time::Instant;

use super::{
    World,
    targets::{pool, service},
    *,
};

fn large(services: u16, backends: u8) -> Target {
    let numbered = |kind: char, number: u16| Name::new(&format!("{kind}{number}")).unwrap();
    let mut target = Target::default();
    for n in 0..services {
        let [high, low] = n.to_be_bytes();
        let member = |k: u8| MemberTarget {
            address: Ipv4Addr::new(10, high, low, k).into(),
            via: if k.is_multiple_of(2) { Via::Ipip } else { Via::L2 },
            hop: Some(hop(low, k, 3, high)),
            weight: 100,
            keeps: true,
            server_id: None,
        };
        let members = (0..backends).map(member).collect();
        target.pools.push(PoolTarget { name: numbered('p', n), ..pool(0, 1021, members) });
        target.services.push(ServiceTarget {
            name: numbered('s', n),
            pool: numbered('p', n),
            keys: vec![
                ServiceKey::new(Addr::v4([192, 0, high, low]), 6, 80),
                ServiceKey::new(Addr::v4([198, 51, high, low]), 6, 443),
            ],
            ..service(0, 0, Vec::new())
        });
    }
    target
}

#[test]
#[ignore = "prints timings; meaningful in release only"]
fn timings() {
    for services in [1000, 2000, 4000] {
        let mut world = World::new(Limits { backends: 1 << 18, counters: 1 << 18, ..Limits::DEFAULT });
        let mut target = large(services, 10);
        let steps = |world: &mut World, target: &Target, what: &str| {
            let start = Instant::now();
            let layout = world.layout.placed(target).unwrap();
            let placed = start.elapsed();
            world.layout = layout;
            let changes = plan(&world.memory, &world.layout, target, &mut world.cache).unwrap();
            println!(
                "{services} services, {what}: {} steps in {:.2?} (placed in {placed:.2?})",
                changes.len(),
                start.elapsed()
            );
            for change in &changes {
                world.memory.apply(change);
            }
            world.layout.release();
        };
        steps(&mut world, &target, "from nothing");
        steps(&mut world, &target, "unchanged");
        target.pools[7].members[3].weight = 50;
        steps(&mut world, &target, "one weight");
        target.pools[7].members[3].hop = None;
        steps(&mut world, &target, "one backend lost");
        target.services.pop();
        steps(&mut world, &target, "one service less");
    }
}
