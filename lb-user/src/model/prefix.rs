//! Prefixes of addresses: of VIPs and of clients. A single address is the longest of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use lb_common::addr::Addr;

/// A prefix without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text that is no [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Neither an address nor a prefix.
    #[error("\"{}\" is neither an address nor a prefix", .0.escape_debug())]
    Malformed(String),
    /// Longer than an address.
    #[error("{length} is not within 0 to {longest}")]
    TooLong {
        /// As written.
        length: u16,
        /// Bits of such an address.
        longest: u8,
    },
    /// Bits are set behind the prefix.
    #[error("{address}/{length} has host bits: write {meant}")]
    HostBits {
        /// As written.
        address: IpAddr,
        /// As written.
        length: u8,
        /// With the host bits cleared.
        meant: Prefix,
    },
}

impl Prefix {
    /// All of IPv4.
    pub const EVERY_V4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };

    /// A single address.
    pub const fn host(address: IpAddr) -> Self {
        Self { address, length: longest(address) }
    }

    /// The prefix of this length that holds an address; `None` if the length exceeds the address's.
    pub fn containing(address: IpAddr, length: u8) -> Option<Self> {
        let hidden = longest(address).checked_sub(length)?;
        // A shift by all bits leaves nothing.
        let address = match address {
            IpAddr::V4(v4) => {
                IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(hidden.into()).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => {
                IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(hidden.into()).unwrap_or(0)).into())
            }
        };
        Some(Self { address, length })
    }

    /// Its first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length; bits.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether it is a single address.
    pub const fn is_host(&self) -> bool {
        self.length == longest(self.address)
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Self::host(address))
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length <= other.length
            && Self::containing(other.address, self.length) == Some(*self)
    }

    /// The first address that a host may have: not the network's own (RFC 1122 section 3.2.1.3), nor the one that all
    /// routers share (RFC 4291 section 2.6.1). Where a prefix has no more than two, all are hosts' (RFC 3021, RFC 6164).
    pub fn first_host(&self) -> IpAddr {
        if longest(self.address) - self.length < 2 {
            return self.address;
        }
        match self.address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
        }
    }

    /// As the tables have it: its length counts in the 128 bits of an [`Addr`].
    pub fn bits(&self) -> (Addr, u32) {
        let before = if self.address.is_ipv4() { 96 } else { 0 };
        (Addr::from(self.address), before + u32::from(self.length))
    }
}

/// Bits of such an address.
const fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            fmt::Display::fmt(&self.address, f)
        } else {
            f.pad(&format!("{}/{}", self.address, self.length))
        }
    }
}

/// `192.0.2.0/28`, `2001:db8::/64`, or an address.
impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let malformed = || BadPrefix::Malformed(text.to_owned());
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| malformed());
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        // Rust's own parser would take `+8`.
        let digits = (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
        let length: u16 = length.parse().ok().filter(|_| digits).ok_or_else(malformed)?;
        let too_long = || BadPrefix::TooLong { length, longest: longest(address) };
        let length = u8::try_from(length).map_err(|_| too_long())?;
        let meant = Self::containing(address, length).ok_or_else(too_long)?;
        if meant.address == address { Ok(meant) } else { Err(BadPrefix::HostBits { address, length, meant }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn texts_are_prefixes_or_say_why_not() {
        for text in ["192.0.2.0/28", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32", "::/0", "2001:db8::1"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("192.0.2.1/32"), prefix("192.0.2.1"));
        assert_eq!(prefix("2001:db8::1/128"), prefix("2001:db8::1"));
        for (text, said) in [
            ("", "\"\" is neither an address nor a prefix"),
            ("10.0.0.0/", "\"10.0.0.0/\" is neither"),
            ("10.0.0.0/+8", "\"10.0.0.0/+8\" is neither"),
            ("10.0.0/8", "\"10.0.0/8\" is neither"),
            ("10.0.0.0/33", "33 is not within 0 to 32"),
            ("10.0.0.0/999", "999 is not within 0 to 32"),
            ("::/129", "129 is not within 0 to 128"),
            ("10.0.0.1/8", "10.0.0.1/8 has host bits: write 10.0.0.0/8"),
            ("2001:db8::1/64", "2001:db8::1/64 has host bits: write 2001:db8::/64"),
            ("1.0.0.0/0", "1.0.0.0/0 has host bits: write 0.0.0.0/0"),
        ] {
            let error = text.parse::<Prefix>().expect_err(text).to_string();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_prefix_covers_what_begins_as_it_does() {
        for (wide, narrow, covers) in [
            ("192.0.2.0/28", "192.0.2.15", true),
            ("192.0.2.0/28", "192.0.2.16", false),
            ("192.0.2.0/28", "192.0.2.0/28", true),
            ("192.0.2.0/28", "192.0.2.0/27", false),
            ("192.0.2.0/27", "192.0.2.16/28", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("::/0", "192.0.2.1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/64", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::/64", "2001:db8:0:1::", false),
        ] {
            assert_eq!(prefix(wide).covers(&prefix(narrow)), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn the_first_host_is_one_that_a_host_may_be() {
        for (text, host) in [
            ("192.0.2.0/28", "192.0.2.1"),
            ("192.0.2.8/30", "192.0.2.9"),
            ("192.0.2.8/31", "192.0.2.8"),
            ("192.0.2.10", "192.0.2.10"),
            ("2001:db8::/64", "2001:db8::1"),
            ("2001:db8::4/127", "2001:db8::4"),
        ] {
            assert_eq!(prefix(text).first_host(), host.parse::<IpAddr>().unwrap(), "{text}");
        }
    }

    #[test]
    fn the_tables_count_bits_of_both_families_alike() {
        let (address, bits) = prefix("192.0.2.0/28").bits();
        assert_eq!((address, bits), (Addr::v4([192, 0, 2, 0]), 124));
        assert_eq!(prefix("2001:db8::/32").bits().1, 32);
    }
}
