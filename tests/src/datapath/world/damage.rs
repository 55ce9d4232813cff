//! What no plan does to the tables.

use lb_common::{
    abi::{Backend, Port, PrefixKey, Quic, Rate, Service, Slot},
    addr::Addr,
};
use lb_user::model::plan::Change;

use super::super::{LIMITS, Rig};
use crate::packets::random::Random;

/// Damage that no plan does: the program must survive it and agree with the model all the same. The next plan repairs
/// some of it.
pub fn damage(rig: &Rig, random: &mut Random) -> Change {
    let place = |random: &mut Random, size: u32| random.below(size as usize) as u32;
    match random.below(6) {
        // Every slot up to a place names a number that is mostly nobody's.
        0 => {
            let first = place(random, LIMITS.slots - 300);
            let kind = if random.once_in(3) { Change::Previous } else { Change::Slots };
            kind((first..first + 300).map(|at| (at, Slot(random.half()))).collect())
        }
        1 => {
            // In use, if the dice say so.
            let used: Vec<u32> =
                (0..).zip(&rig.memory.backends).filter(|(_, b)| b.standing != 0).map(|(at, _)| at).collect();
            let free = place(random, LIMITS.backends);
            let index = if used.is_empty() || random.once_in(4) { free } else { random.pick(&used) };
            let backend = Backend {
                hop: [random.next(), random.next()],
                // Any encap, known or not, and anything else.
                standing: random.next() << 8 | random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 255]),
                outer_source: Addr::v6(random.array()),
                address: Addr::v6(random.array()),
                ..rig.memory.backends[index as usize]
            };
            Change::Backend { index, backend: Box::new(backend) }
        }
        2 => {
            let number = place(random, 12);
            let known = rig.memory.services[number as usize];
            let service = match random.below(6) {
                0 => Service { slot_base: random.pick(&[LIMITS.slots - 5, LIMITS.slots, u32::MAX]), ..known },
                1 => Service { slot_count: random.pick(&[0, 1, u32::MAX]), ..known },
                2 => Service { backend_base: random.pick(&[LIMITS.backends - 1, u32::MAX - 3]), ..known },
                3 => Service { backend_count: random.pick(&[0, 1, 64]), ..known },
                4 => Service { affinity: random.byte(), acl: random.half().into(), ..known },
                _ => Service {
                    limited: random.byte(),
                    quic: Quic(random.next() as u32),
                    packets: rate(random),
                    flows: rate(random),
                    ..known
                },
            };
            Change::Service { number, service }
        }
        3 => {
            // Lists that there are and those that are not, the copies of prefixes of VIPs and our own tunnels among them.
            let key = |random: &mut Random| {
                let bits = random.below(129) as u32;
                PrefixKey::new(random.below(8) as u32, Addr::v6(random.array()), bits)
            };
            let set = (0..random.below(4)).map(|_| (key(random), random.next() as u32 & 3)).collect();
            let known: Vec<PrefixKey> = rig.memory.prefixes.keys().copied().collect();
            let remove = if known.is_empty() { Vec::new() } else { vec![random.pick(&known)] };
            Change::Prefixes { set, remove }
        }
        4 => {
            let number = place(random, 8);
            let known = rig.memory.ports[number as usize];
            // The interface stays: the kernel knows only some.
            Change::Port { number, port: Port { vlan: random.next() as u32, ..known } }
        }
        _ => {
            let mut config = rig.memory.config;
            config.seed ^= 1 << random.below(64);
            Change::Config(config)
        }
    }
}

fn rate(random: &mut Random) -> Rate {
    Rate { interval: random.next() as u32, tolerance: random.next() as u32 }
}
