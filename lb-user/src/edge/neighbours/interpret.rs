//! What the kernel's words about routes, interfaces and neighbours mean for a next hop. Pure.

#[cfg(test)]
mod tests;

use std::{io, net::IpAddr};

use rtnetlink::packet_route::{
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use crate::model::next_hop::{Link, NextHop, Unreachable};

/// Who is asked for a MAC: an address behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Neighbour {
    /// Interface index.
    pub(super) interface: u32,
    /// The gateway, or the target itself.
    pub(super) address: IpAddr,
}

/// What the routing table says about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Packets leave by an interface.
    Out {
        /// The gateway or the target, behind that interface.
        neighbour: Neighbour,
        /// The route's own MTU, bytes.
        mtu: Option<u32>,
        /// Preferred source address.
        local: Option<IpAddr>,
    },
    /// The target is this machine.
    Local,
    /// There is none.
    None,
    /// It leads to no server; the word is that of `ip route`.
    Bad(&'static str),
}

impl Route {
    /// Reads the answer to a route look-up for `target`.
    pub(super) fn read(target: IpAddr, message: &RouteMessage) -> Self {
        match message.header.kind {
            RouteType::Unicast => {}
            RouteType::Local => return Self::Local,
            RouteType::Broadcast => return Self::Bad("broadcast"),
            RouteType::Anycast => return Self::Bad("anycast"),
            RouteType::Multicast => return Self::Bad("multicast"),
            RouteType::BlackHole => return Self::Bad("blackhole"),
            RouteType::Unreachable => return Self::Bad("unreachable"),
            RouteType::Prohibit => return Self::Bad("prohibit"),
            _ => return Self::None,
        }
        let (mut interface, mut gateway, mut mtu, mut local) = (None, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(address) => gateway = ip_of(address),
                // An IPv4 route with an IPv6 gateway (RFC 5549).
                RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
                RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
                RouteAttribute::PrefSource(address) => local = ip_of(address),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(bytes) if *bytes > 0 => Some(*bytes),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let Some(interface) = interface else {
            return Self::None;
        };
        Self::Out { neighbour: Neighbour { interface, address: gateway.unwrap_or(target) }, mtu, local }
    }

    /// Reads the error of a route look-up; `None` if the error says nothing about the route.
    pub(super) fn read_error(error: &io::Error) -> Option<Self> {
        Some(match error.raw_os_error()? {
            // The last two: a kernel without IPv6.
            libc::ENETUNREACH | libc::ENETDOWN | libc::EAFNOSUPPORT | libc::EOPNOTSUPP => Self::None,
            libc::EINVAL => Self::Bad("blackhole"),
            libc::EHOSTUNREACH => Self::Bad("unreachable"),
            libc::EACCES => Self::Bad("prohibit"),
            _ => return None,
        })
    }
}

/// What is known about a neighbour's MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Resolution {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It answered, or was configured.
    Mac([u8; 6]),
    /// It does not answer.
    Failed,
}

/// The kernel's entry for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// `NUD_*`.
    pub(super) state: NeighbourState,
    /// The MAC, if it is one of Ethernet and not all zero.
    pub(super) mac: Option<[u8; 6]>,
}

impl Resolution {
    /// What is known after hearing of the entry; `None` says that the kernel has none.
    ///
    /// An entry that is being resolved again takes nothing away: only `FAILED` does. So a flushed
    /// neighbour table, or garbage collection, disturbs no traffic.
    pub(super) fn after(self, heard: Option<Heard>) -> Self {
        use NeighbourState as S;
        let Some(Heard { state, mac }) = heard else {
            return self;
        };
        match (state, mac) {
            (S::Reachable | S::Stale | S::Delay | S::Probe | S::Permanent | S::Noarp, Some(mac)) => {
                Self::Mac(mac)
            }
            // A permanent entry without a MAC: nobody is going to ask for one.
            (S::Failed, _) | (S::Permanent | S::Noarp, None) => Self::Failed,
            _ => self,
        }
    }
}

/// The next hop of `target`, or why there is none.
///
/// `link` is the interface of the route; without a route, that of the last one. `resolution` is
/// that of the route's neighbour.
pub(super) fn next_hop(
    target: IpAddr,
    route: Route,
    link: Option<&Link>,
    resolution: Resolution,
) -> Result<NextHop, Unreachable> {
    let (neighbour, mtu, local) = match route {
        Route::Out { neighbour, mtu, local } => (neighbour, mtu, local),
        Route::Local => return Err(Unreachable::Local { target }),
        Route::Bad(kind) => return Err(Unreachable::BadRoute { target, kind }),
        // The kernel takes the routes of an interface with it: name the cause, not the effect.
        Route::None => {
            return Err(match link {
                Some(link) if !link.up => Unreachable::LinkDown { interface: link.name.clone() },
                _ => Unreachable::NoRoute { target },
            });
        }
    };
    // Between two notifications the interface may be gone already.
    let Some(link) = link else {
        return Err(Unreachable::NoRoute { target });
    };
    let interface = link.name.clone();
    let via = neighbour.address;
    if !link.up {
        return Err(Unreachable::LinkDown { interface });
    }
    let Some(source) = link.mac else {
        return Err(Unreachable::NotEthernet { interface });
    };
    match resolution {
        // An interface without ARP "resolves" everybody to its own MAC.
        Resolution::Mac(destination) if destination != source => Ok(NextHop {
            via,
            interface: link.index,
            interface_name: interface,
            source,
            destination,
            mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            local,
        }),
        Resolution::Mac(_) | Resolution::Failed => Err(Unreachable::NoMac { via, interface }),
        Resolution::Unknown => Err(Unreachable::Resolving { via, interface }),
    }
}

/// Reads an interface.
pub(super) fn link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let up = header.flags.contains(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp);
    let mut link = Link { index: header.index, name: String::new(), up, mtu: 0, mac: None };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) if header.link_layer_type == LinkLayerType::Ether => {
                link.mac = mac(bytes);
            }
            _ => {}
        }
    }
    link
}

/// Reads an entry of the neighbour table; `None` for those that are not of IP, or only say for whom
/// this machine answers.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(Neighbour, Heard)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut link_layer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = mac(bytes),
            _ => {}
        }
    }
    let neighbour = Neighbour { interface: message.header.ifindex, address: address? };
    Some((neighbour, Heard { state: message.header.state, mac: link_layer }))
}

/// The first and the last address of the prefix a route is for.
pub(super) fn prefix(message: &RouteMessage) -> Option<(IpAddr, IpAddr)> {
    let length = u32::from(message.header.destination_prefix_length);
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip_of(address),
        _ => None,
    })?;
    Some(match destination {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            (IpAddr::V4((v4.to_bits() & !host).into()), IpAddr::V4((v4.to_bits() | host).into()))
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            (IpAddr::V6((v6.to_bits() & !host).into()), IpAddr::V6((v6.to_bits() | host).into()))
        }
    })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok().filter(|mac| *mac != [0; 6])
}
