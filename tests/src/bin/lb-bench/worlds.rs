//! The balancers that are measured: which tables a case stands on.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use lb_common::{
    abi::{Admission, Features, Limits, Rate, Service, Tracking},
    addr::Addr,
};
use lb_tests::datapath::{
    EGRESS, INGRESS, Rig,
    target::{LONG, behind, hop, ipip, l2, name, name_vips, service, tracked},
};
use lb_user::{
    edge::kernel::LoadOptions,
    model::{
        plan::{HopTarget, ListTarget, MemberTarget, ServiceTarget, Target},
        service::Via,
    },
};

/// Sizes of the tables: what 10,000 services of 10 backends need.
const LIMITS: Limits = Limits { services: 1 << 14, counters: 1 << 21, ..Limits::DEFAULT };

/// Backends of a pool, and slots of its table: the default.
const BACKENDS: u16 = 100;
const SLOTS: u32 = 16_381;

/// A kind of balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// A service of each kind in the steady state, on a program that can do nothing else.
    Plain,
    /// Backends behind GUE, on a program that can do that.
    Gue,
    /// As [`Self::Plain`], on a program that has every feature, none of which is used.
    EveryFeature,
    /// Each service has a list of sources.
    Listed,
    /// Each service has limits for each source.
    Limited,
    /// Flows are always remembered.
    Always,
    /// Every slot has just changed its owner.
    Transition,
    /// So many services.
    Services(u32),
}

/// The services: name, VIP without its last two bytes, and how its packets go on.
pub(crate) const L2: [&str; 2] = ["10.64.0.0", "2001:db8:64::"];
pub(crate) const REDIRECT: [&str; 2] = ["10.65.0.0", "2001:db8:65::"];
pub(crate) const IN_4: [&str; 2] = ["10.66.0.0", "2001:db8:66::"];
pub(crate) const IN_6: [&str; 2] = ["10.67.0.0", "2001:db8:67::"];
pub(crate) const GUE: [&str; 2] = ["10.69.0.0", "2001:db8:69::"];
/// Nobody's.
pub(crate) const NOBODYS: [&str; 2] = ["10.68.0.0", "2001:db8:68::"];

impl World {
    fn features(self) -> Features {
        match self {
            Self::Plain | Self::Always | Self::Transition | Self::Services(_) => Features::NONE,
            Self::Gue => Features::GUE,
            Self::EveryFeature => Features::ALL,
            Self::Listed => Features::ACL,
            Self::Limited => Features::LIMITS,
        }
    }

    /// Loads the programs and fills the tables, for frames that come by [`INGRESS`].
    pub(crate) fn load(self) -> Result<Rig> {
        self.load_between(INGRESS, EGRESS)
    }

    /// The same for frames that come by the first interface and leave by it, those of [`REDIRECT`] by the second.
    pub(crate) fn load_between(self, ingress: u32, egress: u32) -> Result<Rig> {
        let options = LoadOptions {
            limits: LIMITS,
            features: self.features(),
            log_packets: false,
            pins: "/nonexistent".into(),
        };
        let mut rig = Rig::load_with(&options)?;
        let target = self.target(ingress, egress);
        if self == Self::Transition {
            // First everybody was on the other half of the backends.
            let mut before = target.clone();
            for pool in &mut before.pools {
                for member in &mut pool.members {
                    member.weight = 100 - member.weight;
                }
            }
            rig.install(&before)?;
        }
        rig.install(&target)?;
        Ok(rig)
    }

    fn target(self, ingress: u32, egress: u32) -> Target {
        let mut target =
            Target { seed: 0x5eed, fragment_idle: LONG, features: self.features(), ..Target::default() };
        if let Self::Services(count) = self {
            target.pools.push(tracked("p", SLOTS, members(10, |number| l2(&near(number), hop(ingress, 1)))));
            for number in 0..count {
                let [low, high, ..] = number.to_le_bytes();
                let vip = format!("10.64.{low}.{high}");
                target.services.push(service(&format!("s{number}"), &vip, &["tcp/80"], "p"));
            }
            name_vips(&mut target);
            return target;
        }
        type Member = fn(u16, HopTarget) -> MemberTarget;
        let ways: [(&str, [&str; 2], u32, Member); 4] = [
            ("l2", L2, ingress, |number, hop| l2(&near(number), hop)),
            ("redirect", REDIRECT, egress, |number, hop| l2(&near(number), hop)),
            ("in4", IN_4, ingress, |number, hop| ipip(&far(number), hop)),
            ("in6", IN_6, ingress, |number, hop| ipip(&format!("2001:db8:9::{number:x}"), hop)),
        ];
        let gue: (&str, [&str; 2], u32, Member) =
            ("gue", GUE, ingress, |number, hop| behind(Via::Gue, &far(number), hop));
        let gue = (self == Self::Gue).then_some(gue);
        for (pool, vips, interface, member) in ways.into_iter().chain(gue) {
            let member = |number| member(number, hop(interface, number as u8));
            target.pools.push(tracked(pool, SLOTS, members(BACKENDS, member)));
            for (vip, family) in vips.iter().zip(["v4", "v6"]) {
                let base = service(&format!("{pool}.{family}"), vip, &["tcp/80", "udp/80"], pool);
                target.services.push(self.service(base));
            }
        }
        match self {
            Self::Transition => {
                for pool in &mut target.pools {
                    for (number, member) in pool.members.iter_mut().enumerate() {
                        member.weight = if number % 2 == 0 { 100 } else { 0 };
                    }
                }
            }
            Self::Listed => target.lists.push(Arc::new(ListTarget {
                name: name("clients"),
                entries: (0..10_000u32)
                    .map(|number| {
                        let [_, _, high, low] = number.to_be_bytes();
                        (Addr::v4([11, high, low, 0]), 96 + 24, Admission::Deny)
                    })
                    .collect(),
            })),
            _ => {}
        }
        name_vips(&mut target);
        target
    }

    /// A service as it is in this world.
    fn service(self, base: ServiceTarget) -> ServiceTarget {
        let endless = Rate { interval: 1, tolerance: 1 << 20 };
        match self {
            Self::Always => ServiceTarget {
                flags: base.flags & !15 | Tracking::bits(Tracking::Always, Tracking::Always),
                ..base
            },
            Self::Listed => ServiceTarget { list: Some(name("clients")), ..base },
            Self::Limited => ServiceTarget { limited: 128, packets: endless, flows: endless, ..base },
            _ => ServiceTarget { flags: base.flags | Service::ECHO, ..base },
        }
    }
}

fn members(count: u16, member: impl Fn(u16) -> MemberTarget) -> Vec<MemberTarget> {
    (1..=count).map(member).collect()
}

fn near(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 1, high, low]).to_string()
}

fn far(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 9, high, low]).to_string()
}
