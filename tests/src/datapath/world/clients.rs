//! Who may use a service of a random balancer, and which backend a client names.

use std::{net::IpAddr, sync::Arc};

use lb_common::{
    abi::{Admission, Features, Quic, Rate, Service},
    addr::Addr,
};
use lb_user::model::plan::{ListTarget, PoolTarget, ServiceTarget};

use super::{World, within};
use crate::packets::{
    generate::{Connection, client},
    protocol,
    random::Random,
};

const LISTS: usize = 4;
const ENTRIES: usize = 40;
/// Server IDs that backends may have: few, so that packets meet them, and of every length.
const SERVER_IDS: u64 = 16;

impl World {
    /// Gives a service its clients: a list, limits, affinity, connection IDs; or takes them away.
    pub(super) fn admit(&mut self, service: &mut ServiceTarget, random: &mut Random) {
        let may = |feature, random: &mut Random| self.features.has(feature) && random.once_in(2);
        service.affinity =
            if may(Features::AFFINITY, random) { random.pick(&[1, 64, 96, 104, 120, 126, 128]) } else { 0 };
        service.quic = if may(Features::QUIC, random) { quic(random) } else { Quic::default() };
        service.list = match &self.target.lists[..] {
            lists @ [_, ..] if may(Features::ACL, random) => Some(random.pick(lists).name.clone()),
            _ => None,
        };
        service.flags &= !Service::DENY_OTHERS;
        if service.list.is_some() && random.once_in(3) {
            service.flags |= Service::DENY_OTHERS;
        }
        service.limited =
            if may(Features::LIMITS, random) { random.pick(&[64, 96, 120, 128, 128]) } else { 0 };
        (service.packets, service.flows) = (rate(random), rate(random));
    }

    pub(super) fn add_list(&mut self, random: &mut Random) {
        if self.features.has(Features::ACL) && self.target.lists.len() < LISTS {
            let name = self.name("l");
            self.target.lists.push(Arc::new(ListTarget { name, entries: entries(random) }));
        }
    }

    /// A list more, a list less, or a list that says something else.
    pub(super) fn change_lists(&mut self, random: &mut Random) {
        let Some(last) = self.target.lists.len().checked_sub(1) else { return self.add_list(random) };
        let at = random.below(last + 1);
        match random.below(4) {
            0 => self.add_list(random),
            1 => {
                let gone = self.target.lists.remove(at);
                let left = self.target.services.iter_mut().filter(|s| s.list.as_ref() == Some(&gone.name));
                left.for_each(|service| service.list = None);
            }
            _ => {
                let name = self.target.lists[at].name.clone();
                self.target.lists[at] = Arc::new(ListTarget { name, entries: entries(random) });
            }
        }
    }

    /// Addresses that lists have an entry for.
    pub(super) fn listed(&self, random: &mut Random) -> Vec<IpAddr> {
        let entries = self.target.lists.iter().flat_map(|list| &list.entries);
        entries.map(|&(prefix, bits, _)| IpAddr::from(within(random, prefix, bits))).collect()
    }

    /// A server ID that no other member has, or none.
    pub(super) fn server_id(&self, pool: &PoolTarget, random: &mut Random) -> Option<u64> {
        let id = random.below(SERVER_IDS as usize) as u64;
        let free = pool.members.iter().all(|member| member.server_id != Some(id));
        (self.features.has(Features::QUIC) && free && !random.once_in(3)).then_some(id)
    }

    /// Connection IDs that name a backend.
    pub(super) fn connections(&self, random: &mut Random) -> Vec<Connection> {
        let services = self.target.services.iter().filter(|service| service.quic != Quic::default());
        let mut connections = Vec::new();
        for service in services {
            let [_, rotation, config, _] = service.quic.0.to_le_bytes();
            let octet = if rotation == 0 { random.byte() } else { config << (8 - rotation) };
            for key in service.keys.iter().filter(|key| key.protocol == protocol::UDP) {
                let id = random.below(SERVER_IDS as usize) as u64;
                connections.push(Connection { to: self.destination(key, random), octet, id });
            }
        }
        connections
    }
}

fn quic(random: &mut Random) -> Quic {
    let rotation = random.pick(&[0, 1, 3, 3, 7]);
    Quic::new(random.pick(&[1, 1, 2, 4, 7, 8]), rotation, random.byte() & ((1u16 << rotation) - 1) as u8)
}

/// Prefixes around the clients that packets come from, and some of nobody's.
fn entries(random: &mut Random) -> Vec<(Addr, u32, Admission)> {
    let mut entries: Vec<(Addr, u32, Admission)> = Vec::new();
    for _ in 0..random.below(ENTRIES) {
        let v4 = random.once_in(2);
        let address = Addr::from(client(random, v4).ip());
        let bits = if v4 { 96 + random.below(33) } else { random.below(129) } as u32;
        let prefix = if bits == 0 { Addr::NONE } else { address.prefix(bits) };
        if entries.iter().all(|entry| (entry.0, entry.1) != (prefix, bits)) {
            entries.push((prefix, bits, random.pick(&[Admission::Allow, Admission::Deny])));
        }
    }
    entries
}

/// From many in a tick to one in thousands of ticks.
fn rate(random: &mut Random) -> Rate {
    let one = 1 << Rate::FRACTION;
    Rate {
        interval: random.pick(&[0, one >> 6, one, one << 4, u32::MAX]),
        tolerance: random.pick(&[0, 1, 16, 1000, u32::MAX >> Rate::FRACTION]),
    }
}
