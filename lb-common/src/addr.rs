//! One address type: where IPv4 and IPv6 meet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in 16 bytes, network byte order; IPv4 is kept in its v4-mapped form
/// (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// Held as two words that have the bytes' order in memory, because the packet path moves, compares and hashes
/// addresses by words; taken apart into bytes, the compiler would move them one by one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addr([u64; 2]);

/// The first six bytes behind the first eight of every v4-mapped address, and two of zero.
const V4_MAPPED: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);

impl Addr {
    /// All zero bytes: no address.
    pub const NONE: Self = Self([0; 2]);

    /// An IPv4 address from its four bytes in network order.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::v4_word(u32::from_ne_bytes(octets))
    }

    /// An IPv4 address from a word that has the bytes' order in memory.
    #[inline(always)]
    pub const fn v4_word(word: u32) -> Self {
        let low = if cfg!(target_endian = "little") { (word as u64) << 32 } else { word as u64 };
        Self([0, V4_MAPPED | low])
    }

    /// An IPv6 address from its sixteen bytes in network order.
    #[inline(always)]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let value = u128::from_ne_bytes(octets);
        let (first, second) = (value as u64, (value >> 64) as u64);
        if cfg!(target_endian = "little") { Self([first, second]) } else { Self([second, first]) }
    }

    /// The sixteen bytes, network order.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let [first, second] = self.0;
        let [a, b, c, d, e, f, g, h] = first.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = second.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The last four bytes, which are all of an IPv4 address, as a word that has their order in memory.
    #[inline(always)]
    pub const fn last_word(&self) -> u32 {
        let [_, second] = self.0;
        if cfg!(target_endian = "little") { (second >> 32) as u32 } else { second as u32 }
    }

    /// The four bytes of an IPv4 address; of an IPv6 address its last four.
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        self.last_word().to_ne_bytes()
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let mapped = Self::v4_word(self.last_word());
        self.0[0] == mapped.0[0] && self.0[1] == mapped.0[1]
    }

    /// The address as two words that have the bytes' order in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// From two words that have the bytes' order in memory.
    #[inline(always)]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The first `bits` bits of it, 1 to 128, and zeros. An IPv4 prefix is 96 bits longer here than people write it.
    #[inline(always)]
    #[must_use]
    pub const fn prefix(&self, bits: u32) -> Self {
        let [first, second] = self.0;
        if bits > 64 {
            Self([first, second & first_bits(bits - 64)])
        } else {
            Self([first & first_bits(bits), 0])
        }
    }
}

/// A word whose first `bits` bits in memory are set, 1 to 64: in network order the high ones come first.
#[inline(always)]
const fn first_bits(bits: u32) -> u64 {
    (u64::MAX << (64u32.wrapping_sub(bits) & 63)).to_be()
}

impl Ord for Addr {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.octets().cmp(&other.octets())
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
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
            let v6 = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            assert_eq!(addr.octets(), v6.octets());
            assert_eq!(addr.v4_octets()[..], v6.octets()[12..]);
        }
    }
}
