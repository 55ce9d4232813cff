//! One address type: where IPv4 and IPv6 meet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in 16 bytes, network byte order; IPv4 is kept in its v4-mapped form
/// (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// Aligned to 8 bytes so that two addresses compare as two words each.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Addr([u8; 16]);

impl Addr {
    /// All zero bytes: no address.
    pub const NONE: Self = Self([0; 16]);

    /// An IPv4 address from its four bytes in network order.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// An IPv6 address from its sixteen bytes in network order.
    #[inline(always)]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The sixteen bytes, network order.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        self.0
    }

    /// The four bytes of an IPv4 address; of an IPv6 address its last four.
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0;
        [a, b, c, d]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [high, low] = self.words();
        high == 0 && (low.to_be() >> 32) == 0xffff
    }

    /// The address as two words in native byte order, for hashing and comparing.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.v4_octets()))
        } else {
            Self::V6(Ipv6Addr::from(address.octets()))
        }
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_meet_and_part_again() {
        for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "::1"] {
            let ip: IpAddr = text.parse().unwrap();
            let addr = Addr::from(ip);
            assert_eq!(IpAddr::from(addr), ip);
            assert_eq!(addr.is_v4(), ip.is_ipv4(), "{text}");
        }
    }
}
