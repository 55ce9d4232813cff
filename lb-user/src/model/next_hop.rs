//! How an address is reached from here, as the neighbours edge reports it.

use std::net::IpAddr;

/// The way to an address, resolved down to the MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The gateway, or the address itself if it is on a connected subnet.
    pub via: IpAddr,
    /// Index of the interface packets leave by.
    pub interface: u32,
    /// Its name.
    pub interface_name: String,
    /// Its MAC.
    pub source: [u8; 6],
    /// The MAC of `via`.
    pub destination: [u8; 6],
    /// Largest IP packet on the way: the route's MTU if set, else the interface's; bytes.
    pub mtu: u32,
    /// The address the kernel would send from.
    pub local: Option<IpAddr>,
}

impl NextHop {
    /// Whether `target` is on a connected subnet.
    pub fn is_on_link(&self, target: IpAddr) -> bool {
        self.via == target
    }
}

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether packets can leave by it: switched on and with a carrier.
    pub up: bool,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Its MAC; absent if it is not an Ethernet interface.
    pub mac: Option<[u8; 6]>,
}

/// Why an address is not reachable at this moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Resolution is under way.
    #[error("looking for the MAC of {via} on {interface}")]
    Resolving {
        /// The gateway or the address itself.
        via: IpAddr,
        /// Interface name.
        interface: String,
    },
    /// Nobody answered ARP or neighbour solicitation.
    #[error("no MAC for {via} on {interface}: it does not answer {}", if via.is_ipv4() { "ARP" } else { "neighbour solicitation" })]
    NoMac {
        /// The gateway or the address itself.
        via: IpAddr,
        /// Interface name.
        interface: String,
    },
    /// The routing table has no way.
    #[error("no route to {target}")]
    NoRoute {
        /// The address.
        target: IpAddr,
    },
    /// The routing table has a way that leads to no server.
    #[error("the route to {target} is of type {kind}, which reaches no server")]
    BadRoute {
        /// The address.
        target: IpAddr,
        /// The type as `ip route` names it: `blackhole`, `prohibit`, `unreachable`, `broadcast`, ...
        kind: &'static str,
    },
    /// The interface on the way is down.
    #[error("{interface} is down")]
    LinkDown {
        /// Interface name.
        interface: String,
    },
    /// The address is one of this machine's own.
    #[error("{target} is an address of this machine")]
    Local {
        /// The address.
        target: IpAddr,
    },
    /// The interface has no Ethernet address (loopback, tun).
    #[error("{interface} is not an Ethernet interface")]
    NotEthernet {
        /// Interface name.
        interface: String,
    },
}
