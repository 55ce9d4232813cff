//! Random balancers that change at random, the way operators, health and neighbours change a real one.

mod clients;
mod damage;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{
    abi::{Features, Port, Service, ServiceKey, Tracking},
    addr::Addr,
};
use lb_user::model::{
    memory::Memory,
    plan::{HopTarget, MemberTarget, Outer, PoolTarget, ServiceTarget, Target},
    service::{Name, Via},
};

pub use self::damage::damage;
use super::{
    EGRESS, INGRESS, THIRD,
    target::{LONG, blank, name, name_vips},
};
use crate::packets::{generate::Surroundings, protocol, random::Random};

/// Sizes of lookup tables: small ones, where rounding shows.
const SLOTS: [u32; 5] = [11, 13, 31, 101, 251];
const POOLS: usize = 5;
const MEMBERS: usize = 12;
const SERVICES: usize = 10;
const KEYS: usize = 8;
const PREFIXES: usize = 4;
/// Ticks until flows are over: most see none of it, some all.
const IDLE: [u32; 4] = [0, 3, LONG, LONG];

/// A balancer at one moment.
#[derive(Clone, Debug)]
pub struct World {
    /// What its tables are to say.
    pub target: Target,
    /// What it may use.
    features: Features,
    /// Names are not used again.
    names: u32,
}

impl World {
    /// A balancer with some pools and services that use some of these features.
    pub fn new(random: &mut Random, features: Features) -> Self {
        let target = Target { seed: random.next(), outer: outer(random), features, ..blank() };
        let mut world = Self { target, features, names: 0 };
        if features.has(Features::PREFIX_VIP) {
            world.target.prefixes = vip_prefixes(random);
        }
        for _ in 0..random.below(4) {
            world.add_list(random);
        }
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
            match random.below(20) {
                0 => self.target.seed = random.next(),
                1 => self.target.outer = outer(random),
                2 => self.add_pool(random),
                3 => self.remove_pool(random),
                4..=5 => self.add_service(random),
                6 => self.remove_service(random),
                7..=8 => self.change_service(random),
                9..=10 => self.change_lists(random),
                11 => self.target.outer.gue_port = random.pick(&[0, 53, 6080, 6080]),
                _ => self.change_pool(random),
            }
        }
        self.finish(random);
    }

    /// What the services are found by, but for the keys of whole VIPs and those of prefixes.
    pub fn keys(&self) -> Vec<ServiceKey> {
        let keys = self.target.services.iter().flat_map(|service| service.keys.clone());
        keys.filter(|key| *key == ServiceKey::new(key.vip, key.protocol, key.port) && key.protocol != 0)
            .collect()
    }

    /// What packets may have to do with: of everything that is rare, some examples.
    pub fn surroundings(&self, random: &mut Random) -> Surroundings {
        let keys = self.target.services.iter().flat_map(|service| &service.keys);
        // The keys of whole VIPs have no protocol.
        let keys = keys.filter(|key| key.protocol != 0);
        let Outer { v4, v6, gue_port } = self.target.outer;
        let tunnels = [(IpAddr::V4(v4.0), 96 + u32::from(v4.1)), (IpAddr::V6(v6.0), u32::from(v6.1))]
            .map(|(prefix, bits)| IpAddr::from(within(random, Addr::from(prefix), bits)));
        Surroundings {
            services: keys.map(|key| (self.destination(key, random), key.protocol)).collect(),
            sources: self.listed(random),
            tunnels: tunnels.to_vec(),
            gue_port,
            connections: self.connections(random),
        }
    }

    /// Some address and port that a key stands for.
    fn destination(&self, key: &ServiceKey, random: &mut Random) -> SocketAddr {
        let number = key.vip.words()[1] as usize;
        let is_prefix = key.used == ServiceKey::of_prefix(0, 0, 0).used;
        let vip = match self.target.prefixes.get(number) {
            Some(&(prefix, bits)) if is_prefix => within(random, prefix, bits),
            _ => key.vip,
        };
        SocketAddr::new(vip.into(), if key.port == 0 { random.half() } else { key.port })
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

    /// Half of all backends are next door.
    fn via(&self, random: &mut Random) -> Via {
        let via = if random.once_in(2) { Via::L2 } else { random.pick(&Via::ALL).1 };
        if self.features.has(via.needs()) { via } else { Via::Ipip }
    }

    fn add_member(&mut self, pool: &mut PoolTarget, random: &mut Random) {
        let address = backend_address(random);
        if pool.members.len() < MEMBERS && pool.members.iter().all(|member| member.address != address) {
            pool.members.push(MemberTarget {
                address,
                via: self.via(random),
                hop: (!random.once_in(6)).then(|| hop(random)),
                weight: weight(random),
                keeps: !random.once_in(5),
                server_id: self.server_id(pool, random),
            });
        }
    }

    fn change_pool(&mut self, random: &mut Random) {
        let number = random.below(self.target.pools.len());
        let mut pool = self.target.pools[number].clone();
        match random.below(11) {
            0 => pool.slots = random.pick(&SLOTS),
            1..=2 => self.add_member(&mut pool, random),
            // All down, or gone.
            3 if random.once_in(4) => pool.members.iter_mut().for_each(|member| member.weight = 0),
            3 if random.once_in(4) => pool.members.clear(),
            kind if !pool.members.is_empty() => {
                let at = random.below(pool.members.len());
                match kind {
                    4 => drop(pool.members.remove(at)),
                    5 => pool.members[at].via = self.via(random),
                    6 if random.once_in(2) => pool.members[at].hop = None,
                    6 => pool.members[at].keeps ^= true,
                    7..=8 => pool.members[at].hop = Some(hop(random)),
                    9 => pool.members[at].server_id = self.server_id(&pool, random),
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
            let mut service = ServiceTarget {
                flags: Tracking::bits(tcp, udp) | echo,
                tcp_idle: random.pick(&IDLE),
                udp_idle: random.pick(&IDLE),
                ..super::target::service(name.as_str(), "0.0.0.0", &[], pool.as_str())
            };
            service.keys = keys;
            self.admit(&mut service, random);
            self.target.services.push(service);
        }
    }

    fn remove_service(&mut self, random: &mut Random) {
        if !self.target.services.is_empty() {
            self.target.services.remove(random.below(self.target.services.len()));
        }
    }

    /// Another pool, other ports, or other clients.
    fn change_service(&mut self, random: &mut Random) {
        if self.target.services.is_empty() {
            return;
        }
        let number = random.below(self.target.services.len());
        match random.below(3) {
            0 => self.target.services[number].pool = random.pick(&self.target.pools).name,
            1 => self.target.services[number].keys = self.free_keys(random),
            _ => {
                let mut service = self.target.services[number].clone();
                self.admit(&mut service, random);
                self.target.services[number] = service;
            }
        }
    }

    /// Keys that no service has: few VIPs, so that services share them.
    fn free_keys(&self, random: &mut Random) -> Vec<ServiceKey> {
        let taken: BTreeSet<ServiceKey> =
            self.target.services.iter().flat_map(|service| service.keys.clone()).collect();
        let vip = vip(random);
        let prefix = random.below(self.target.prefixes.len().max(1));
        let prefix = (!self.target.prefixes.is_empty() && random.once_in(3)).then_some(prefix);
        let first: u16 = random.pick(&[1, 53, 80, 443, 8080, 65530]);
        let protocol = random.pick(&[protocol::TCP, protocol::TCP, protocol::UDP, protocol::SCTP]);
        let key = |port| match prefix {
            Some(number) => ServiceKey::of_prefix(number as u32, protocol, port),
            None => ServiceKey::new(Addr::from(vip), protocol, port),
        };
        let any = self.features.has(Features::ANY_PORT) && random.once_in(3);
        (0..=random.below(KEYS) as u16)
            .filter_map(|more| first.checked_add(more))
            .chain(any.then_some(0))
            .map(key)
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

/// Prefixes that hold these addresses and one another, and some that do not.
fn vip_prefixes(random: &mut Random) -> Vec<(Addr, u32)> {
    let mut prefixes: Vec<(Addr, u32)> = Vec::new();
    for _ in 0..random.below(PREFIXES + 1) {
        let address = Addr::from(vip(random));
        let bits = match address.is_v4() {
            true => 96 + random.pick(&[0, 8, 24, 29, 30, 31, 32]),
            false => random.pick(&[0, 1, 32, 64, 65, 120, 126, 127, 128]),
        };
        let prefix = if bits == 0 { (Addr::NONE, 0) } else { (address.prefix(bits), bits) };
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// An address of a prefix.
fn within(random: &mut Random, prefix: Addr, bits: u32) -> Addr {
    let any = Addr::v6(random.array());
    let host = if bits == 0 { Addr::NONE } else { any.prefix(bits) };
    let words = |at: usize| prefix.words()[at] | any.words()[at] ^ host.words()[at];
    Addr::from_words([words(0), words(1)])
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
        port: Port {
            ifindex: random.pick(&[INGRESS, EGRESS, THIRD]),
            vlan: random.pick(&[0, 0, 0, Port::TAGGED, Port::TAGGED | 1, Port::TAGGED | 0xfff]),
        },
        source: random.array(),
        destination: random.array(),
        mtu: random.pick(&[0, 68, 576, 1280, 1300, 1400, 1480, 1500, 1500, 1500, 9000, 65_535, 65_536]),
    }
}

fn outer(random: &mut Random) -> Outer {
    let (bits4, bits6) = (random.pick(&[0, 8, 16, 23, 31, 32]), random.pick(&[0, 64, 96, 97, 120, 128]));
    let mask4 = u32::MAX.checked_shl(32 - bits4).unwrap_or(0);
    let mask6 = u128::MAX.checked_shl(128 - bits6).unwrap_or(0);
    let v4 = Ipv4Addr::from(random.next() as u32 & mask4);
    let v6 = Ipv6Addr::from((u128::from(random.next()) << 64 | u128::from(random.next())) & mask6);
    Outer { v4: (v4, bits4 as u8), v6: (v6, bits6 as u8), gue_port: random.pick(&[6080, 6081]) }
}
