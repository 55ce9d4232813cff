//! QUIC connection IDs that name a backend (draft-ietf-quic-load-balancers, plaintext algorithm).

use std::{fmt, str::FromStr};

use lb_common::abi;

/// How the connection IDs of a service name its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuicIds {
    /// Octets of a server ID: 1 to [`MAX_SERVER_ID`].
    pub server_id_length: u8,
    /// Bits of the first octet that tell the configuration: at most [`MAX_CONFIG_BITS`].
    pub config_bits: u8,
    /// What they are; at most [`Self::last_config`].
    pub config: u8,
}

/// Octets of the longest server ID.
pub const MAX_SERVER_ID: u8 = 8;

/// Bits that tell the configuration where the file does not say: three, as in the draft from its version 16 on.
pub const CONFIG_BITS: u8 = 3;

/// The most bits that tell the configuration.
pub const MAX_CONFIG_BITS: u8 = 3;

impl QuicIds {
    /// The highest configuration that so many bits can tell. All ones say that there is none.
    pub const fn last_config(bits: u8) -> u8 {
        if bits == 0 { 0 } else { (1 << bits) - 2 }
    }

    /// As the tables have it.
    pub const fn to_abi(self) -> abi::Quic {
        abi::Quic::new(self.server_id_length, self.config_bits, self.config)
    }
}

/// What connection IDs name a backend by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId {
    octets: [u8; MAX_SERVER_ID as usize],
    length: u8,
}

/// A text that is no [`ServerId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is not a server ID: write 1 to {MAX_SERVER_ID} octets, each by two hexadecimal digits, such as \"0x2a01\"",
    .0.escape_debug()
)]
pub struct BadServerId(pub String);

impl ServerId {
    /// How many octets it has.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// The ID of so many octets that the packet path reads as this; `None` if there is none of that length.
    pub fn of_key(key: u64, length: u8) -> Option<Self> {
        (1..=MAX_SERVER_ID).contains(&length).then(|| Self { octets: key.to_le_bytes(), length })
    }

    /// As the packet path reads it: see [`abi::Quic::server_id`].
    pub const fn key(self) -> u64 {
        u64::from_le_bytes(self.octets)
    }
}

/// `0x2a01`: the octets in the order in which they are sent.
impl FromStr for ServerId {
    type Err = BadServerId;

    fn from_str(text: &str) -> Result<Self, BadServerId> {
        let bad = || BadServerId(text.to_owned());
        let digits = text.strip_prefix("0x").ok_or_else(bad)?;
        let whole = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let length = u8::try_from(digits.len() / 2).map_err(|_| bad())?;
        if !whole || !(1..=MAX_SERVER_ID).contains(&length) {
            return Err(bad());
        }
        let value = u64::from_str_radix(digits, 16).map_err(|_| bad())?;
        let unused = u32::from(MAX_SERVER_ID - length) * 8;
        Ok(Self { octets: (value << unused).to_be_bytes(), length })
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.octets.iter().take(self.length.into()).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_is_what_the_packet_path_reads() {
        let ids = QuicIds { server_id_length: 3, config_bits: 3, config: 2 };
        let id: ServerId = "0x2A0100".parse().unwrap();
        assert_eq!((id.length(), id.to_string()), (3, "0x2a0100".to_owned()));
        // A short header; configuration 2 and five other bits; the server ID; a nonce.
        let packet = [0x41, 0x5f, 0x2a, 0x01, 0x00, 0xde, 0xad, 0xbe, 0xef, 9];
        let head = u16::from_ne_bytes([packet[0], packet[1]]);
        let rest = u64::from_ne_bytes(packet[2..].try_into().unwrap());
        assert_eq!(ids.to_abi().server_id(head, rest), Some(id.key()));
        let other = QuicIds { config: 1, ..ids };
        assert_eq!(other.to_abi().server_id(head, rest), None);
        let whichever = QuicIds { config_bits: 0, config: 0, ..ids };
        assert_eq!(whichever.to_abi().server_id(head, rest), Some(id.key()));
        let longest: ServerId = "0x2a0100deadbeef09".parse().unwrap();
        let ids = QuicIds { server_id_length: 8, ..ids };
        assert_eq!(ids.to_abi().server_id(head, rest), Some(longest.key()));
    }

    #[test]
    fn texts_that_are_no_server_ids() {
        for text in ["", "0x", "2a", "0x2", "0x2a0", "0x2g", "0x+1", "0x112233445566778899", "0X2a", "0xü"] {
            assert_eq!(text.parse::<ServerId>(), Err(BadServerId(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn all_ones_are_no_configuration() {
        assert_eq!([0, 1, 2, 3].map(QuicIds::last_config), [0, 0, 2, 6]);
    }
}
