//! The addresses of a lab.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The virtual addresses that the router routes to the balancer and that every backend has on its loopback.
pub const VIPS: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x12)),
];

/// The first IPv4 VIP.
pub const VIP4: IpAddr = VIPS[0];

/// The first IPv6 VIP.
pub const VIP6: IpAddr = VIPS[3];

/// A subnet of the lab, by the second octet of 10.x.0.0/24 and the second group of fd00:x::/64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet(u8);

impl Subnet {
    pub(super) const CLIENT: Self = Self(0);
    pub(super) const L2: Self = Self(1);
    /// Between the router and a balancer that has another arm for its backends.
    pub(super) const FRONT: Self = Self(2);
    pub(super) const TUNNEL: Self = Self(9);

    pub(super) fn v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, host)
    }

    /// The host's number reads the same in both families.
    pub(super) fn v6(self, host: u8) -> Ipv6Addr {
        let digits = u16::from(host / 100 % 10) << 8 | u16::from(host / 10 % 10) << 4 | u16::from(host % 10);
        Ipv6Addr::new(0xfd00, self.0.into(), 0, 0, 0, 0, 0, digits)
    }
}

/// The router's number in every subnet.
pub(super) const ROUTER: u8 = 1;

/// Everyone's other fixed number: the client's and the balancer's.
pub(super) const FIRST: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_reads_the_same_in_both_families() {
        assert_eq!(Subnet::TUNNEL.v4(13).to_string(), "10.9.0.13");
        assert_eq!(Subnet::TUNNEL.v6(13).to_string(), "fd00:9::13");
        assert_eq!(Subnet::CLIENT.v6(2).to_string(), "fd00::2");
    }
}
