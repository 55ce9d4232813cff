//! Random balancers that change at random, the way operators, health and neighbours change a real one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{
    abi::{Backend, Port, Quic, Rate, Service, ServiceKey, Slot, Tracking},
    addr::Addr,
};
use lb_user::model::{
    memory::Memory,
    plan::{Change, HopTarget, MemberTarget, Outer, PoolTarget, ServiceTarget, Target},
    service::Name,
};

use super::{
    EGRESS, INGRESS, LIMITS, Rig, THIRD,
    target::{LONG, blank, name, name_vips},
};
use crate::packets::{protocol, random::Random};

/// Sizes of lookup tables: small ones, where rounding shows.
const SLOTS: [u32; 5] = [11, 13, 31, 101, 251];
const POOLS: usize = 5;
const MEMBERS: usize = 12;
const SERVICES: usize = 10;
const KEYS: usize = 8;
/// Ticks until flows are over: most see none of it, some all.
const IDLE: [u32; 4] = [0, 3, LONG, LONG];

/// A balancer at one moment.
#[derive(Clone, Debug)]
pub struct World {
    /// What its tables are to say.
    pub target: Target,
    /// Names are not used again.
    names: u32,
}

impl World {
    /// A balancer with some pools and services.
    pub fn new(random: &mut Random) -> Self {
        let mut world = Self { target: Target { seed: random.next(), ..blank() }, names: 0 };
        for _ in 0..=random.below(POOLS) {
            world.add_pool(random);
        }
        for _ in 0..=random.below(SERVICES) {
            world.add_service(random);
        }
        world.finish(random);
        world
    }

    fn finish(&mut self, random: &mut Random) {
        name_vips(&mut self.target);
        self.target.fragment_idle = random.pick(&IDLE);
    }

    /// Lets some of the slots that are in transition leave it with the next plan.
    pub fn settle(&mut self, memory: &Memory, random: &mut Random) {
        let moving = (0..).zip(&memory.slots).filter(|(_, slot)| slot.in_transition());
        self.target.settled = moving.map(|(at, _)| at).filter(|_| random.once_in(3)).collect();
    }

    /// Changes a few things.
    pub fn evolve(&mut self, random: &mut Random) {
        for _ in 0..=random.below(4) {
            match random.below(16) {
                0 => self.target.seed = random.next(),
                1 => self.target.outer = outer(random),
                2 => self.add_pool(random),
                3 => self.remove_pool(random),
                4..=5 => self.add_service(random),
                6 => self.remove_service(random),
                7 => self.change_service(random),
                _ => self.change_pool(random),
            }
        }
        self.finish(random);
    }

    /// What the services are found by, but for the keys of whole VIPs.
    pub fn keys(&self) -> Vec<ServiceKey> {
        let keys = self.target.services.iter().flat_map(|service| service.keys.clone());
        keys.filter(|key| *key != ServiceKey::vip(key.vip)).collect()
    }

    fn name(&mut self, what: &str) -> Name {
        self.names += 1;
        name(&format!("{what}{}", self.names))
    }

    fn add_pool(&mut self, random: &mut Random) {
        if self.target.pools.len() < POOLS {
            let mut pool = PoolTarget {
                name: self.name("p"),
                slots: random.pick(&SLOTS),
                is_tracked: !random.once_in(3),
                members: Vec::new(),
            };
            for _ in 0..random.below(MEMBERS) {
                self.add_member(&mut pool, random);
            }
            self.target.pools.push(pool);
        }
    }

    /// Removes a pool, and its services with it.
    fn remove_pool(&mut self, random: &mut Random) {
        if self.target.pools.len() > 1 {
            let pool = self.target.pools.remove(random.below(self.target.pools.len()));
            self.target.services.retain(|service| service.pool != pool.name);
        }
    }

    fn add_member(&mut self, pool: &mut PoolTarget, random: &mut Random) {
        let address = backend_address(random);
        if pool.members.len() < MEMBERS && pool.members.iter().all(|member| member.address != address) {
            pool.members.push(MemberTarget {
                address,
                tunnelled: random.once_in(2),
                hop: (!random.once_in(6)).then(|| hop(random)),
                weight: weight(random),
                keeps: !random.once_in(5),
                server_id: None,
            });
        }
    }

    fn change_pool(&mut self, random: &mut Random) {
        let number = random.below(self.target.pools.len());
        let mut pool = self.target.pools[number].clone();
        match random.below(10) {
            0 => pool.slots = random.pick(&SLOTS),
            1..=2 => self.add_member(&mut pool, random),
            // All down, or gone.
            3 if random.once_in(4) => pool.members.iter_mut().for_each(|member| member.weight = 0),
            3 if random.once_in(4) => pool.members.clear(),
            kind if !pool.members.is_empty() => {
                let at = random.below(pool.members.len());
                match kind {
                    4 => drop(pool.members.remove(at)),
                    5 => pool.members[at].tunnelled ^= true,
                    6 if random.once_in(2) => pool.members[at].hop = None,
                    6 => pool.members[at].keeps ^= true,
                    7..=8 => pool.members[at].hop = Some(hop(random)),
                    _ => pool.members[at].weight = weight(random),
                }
            }
            _ => {}
        }
        self.target.pools[number] = pool;
    }

    fn add_service(&mut self, random: &mut Random) {
        if self.target.services.len() < SERVICES {
            let name = self.name("s");
            let keys = self.free_keys(random);
            let pool = random.pick(&self.target.pools).name;
            let tracking = [Tracking::Transition, Tracking::Always, Tracking::Never];
            let [tcp, udp] = [random.pick(&tracking), random.pick(&tracking)];
            let echo = if random.once_in(2) { Service::ECHO } else { 0 };
            self.target.services.push(ServiceTarget {
                name,
                keys,
                pool,
                flags: Tracking::bits(tcp, udp) | echo,
                tcp_idle: random.pick(&IDLE),
                udp_idle: random.pick(&IDLE),
                affinity: 0,
                quic: Quic::default(),
                list: None,
                limited: 0,
                packets: Rate::default(),
                flows: Rate::default(),
            });
        }
    }

    fn remove_service(&mut self, random: &mut Random) {
        if !self.target.services.is_empty() {
            self.target.services.remove(random.below(self.target.services.len()));
        }
    }

    /// Another pool, or other ports.
    fn change_service(&mut self, random: &mut Random) {
        if self.target.services.is_empty() {
            return;
        }
        let number = random.below(self.target.services.len());
        if random.once_in(2) {
            self.target.services[number].pool = random.pick(&self.target.pools).name;
        } else {
            self.target.services[number].keys = self.free_keys(random);
        }
    }

    /// Keys that no service has: few VIPs, so that services share them.
    fn free_keys(&self, random: &mut Random) -> Vec<ServiceKey> {
        let taken: BTreeSet<ServiceKey> = self.keys().into_iter().collect();
        let vip = vip(random);
        let first: u16 = random.pick(&[1, 53, 80, 443, 8080, 65530]);
        let protocol = random.pick(&[protocol::TCP, protocol::TCP, protocol::UDP, protocol::SCTP]);
        (0..=random.below(KEYS) as u16)
            .filter_map(|more| Some(ServiceKey::new(Addr::from(vip), protocol, first.checked_add(more)?)))
            .filter(|key| !taken.contains(key))
            .collect()
    }
}

/// One of a few virtual addresses.
pub fn vip(random: &mut Random) -> IpAddr {
    let host = 1 + random.below(4) as u8;
    if random.once_in(2) {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)))
    }
}

fn backend_address(random: &mut Random) -> IpAddr {
    let host = 1 + random.below(40) as u8;
    if random.once_in(2) {
        IpAddr::V4(Ipv4Addr::new(10, 9, 0, host))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0xffff, u16::from(host)))
    }
}

fn weight(random: &mut Random) -> u32 {
    random.pick(&[0, 1, 2, 50, 100, 100, 100, 10_000])
}

fn hop(random: &mut Random) -> HopTarget {
    HopTarget {
        port: Port { ifindex: random.pick(&[INGRESS, EGRESS, THIRD]), vlan: 0 },
        source: random.array(),
        destination: random.array(),
        mtu: random.pick(&[0, 68, 576, 1280, 1480, 1500, 1500, 1500, 9000, 65_535, 65_536]),
    }
}

fn outer(random: &mut Random) -> Outer {
    let (bits4, bits6) = (random.pick(&[0, 8, 16, 23, 31, 32]), random.pick(&[0, 64, 96, 97, 120, 128]));
    let mask4 = u32::MAX.checked_shl(32 - bits4).unwrap_or(0);
    let mask6 = u128::MAX.checked_shl(128 - bits6).unwrap_or(0);
    let v4 = Ipv4Addr::from(random.next() as u32 & mask4);
    let v6 = Ipv6Addr::from((u128::from(random.next()) << 64 | u128::from(random.next())) & mask6);
    Outer { v4: (v4, bits4 as u8), v6: (v6, bits6 as u8) }
}

/// Damage that no plan does: the program must survive it and agree with the model all the same. The next plan repairs
/// some of it.
pub fn damage(rig: &Rig, random: &mut Random) -> Change {
    let place = |random: &mut Random, size: u32| random.below(size as usize) as u32;
    match random.below(4) {
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
                standing: random.next() << 8 | random.pick(&[0, 1, 2, 3, 4, 255]),
                outer_source: Addr::v6(random.array()),
                outer_destination: Addr::v6(random.array()),
                ..rig.memory.backends[index as usize]
            };
            Change::Backend { index, backend: Box::new(backend) }
        }
        2 => {
            let number = place(random, 12);
            let known = rig.memory.services[number as usize];
            let service = match random.below(4) {
                0 => Service { slot_base: random.pick(&[LIMITS.slots - 5, LIMITS.slots, u32::MAX]), ..known },
                1 => Service { slot_count: random.pick(&[0, 1, u32::MAX]), ..known },
                2 => Service { backend_base: random.pick(&[LIMITS.backends - 1, u32::MAX - 3]), ..known },
                _ => Service { backend_count: random.pick(&[0, 1, 64]), ..known },
            };
            Change::Service { number, service }
        }
        _ => {
            let mut config = rig.memory.config;
            config.seed ^= 1 << random.below(64);
            Change::Config(config)
        }
    }
}
