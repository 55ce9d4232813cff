//! From the text of one value to what it means. No tables, no places in the file.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use super::error::{AddressProblem, Problem};
use crate::model::{
    limit::{Frequency, Period},
    prefix::{BadPrefix, Prefix},
    service::{Ports, Protocol, SLOTS_RANGE, ServicePort},
    timestamp,
};

/// An address that a packet can be sent to.
pub(super) fn address(text: &str) -> Result<IpAddr, Problem> {
    let address = text.parse().map_err(|_| AddressProblem::NotAnAddress(text.to_owned()))?;
    Ok(unicast(address)?)
}

fn unicast(address: IpAddr) -> Result<IpAddr, AddressProblem> {
    match address {
        _ if address.is_unspecified() => Err(AddressProblem::Unspecified(address)),
        _ if address.is_loopback() => Err(AddressProblem::Loopback(address)),
        _ if address.is_multicast() => Err(AddressProblem::Multicast(address)),
        IpAddr::V4(v4) if v4.is_broadcast() => Err(AddressProblem::Broadcast(address)),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(AddressProblem::LinkLocal(address)),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(Ok(address), |v4| Err(AddressProblem::Mapped(v4))),
        IpAddr::V4(_) => Ok(address),
    }
}

/// `tcp/80`, `udp/6970-6999`, `tcp/*`.
pub(super) fn service_port(text: &str) -> Result<ServicePort, Problem> {
    let bad = || Problem::BadPort(text.to_owned());
    let (protocol, ports) = text.split_once('/').ok_or_else(bad)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(bad()),
    };
    if ports == "*" {
        return Ok(ServicePort { protocol, ports: Ports::Any });
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first).ok_or_else(bad)?, port(last).ok_or_else(bad)?);
    if first > last {
        return Err(Problem::PortsReversed { first, last });
    }
    Ok(ServicePort { protocol, ports: Ports::Range { first, last } })
}

/// Digits only: Rust's own parser would take `+80`.
fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok().filter(|&port| port != 0) } else { None }
}

/// `500ms`, `2s`, `1.5s`, `1m`, `1h`: to the nanosecond, at most nine digits before and after the point.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    parse_duration(text).ok_or_else(|| Problem::BadDuration(text.to_owned()))
}

/// `500ms`, `2s`, `1.5s`, `1m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let nanos_per_unit: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !(1..=9).contains(&whole.len()) || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let nanos = u128::from(whole.parse::<u64>().ok()?) * u128::from(nanos_per_unit)
        + u128::from(fraction.parse::<u64>().ok()?) * u128::from(nanos_per_unit) / scale;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}

/// A time: RFC 3339.
pub(super) fn time(text: &str) -> Result<Duration, Problem> {
    timestamp::from_rfc3339(text).ok_or_else(|| Problem::BadTime(text.to_owned()))
}

/// A duration as the file would have it: the largest unit that needs no fraction, else seconds.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match (duration.subsec_nanos() % 1_000_000, millis) {
        (0, 0) => "0s".to_owned(),
        (0, _) if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        (0, _) if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        (0, _) if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        (0, _) => format!("{millis}ms"),
        _ => format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos()),
    }
}

/// What one family's tunnel source prefix looks like.
pub(super) struct PrefixRule {
    /// With its article.
    family: &'static str,
    example: &'static str,
    is_v4: bool,
    lengths: RangeInclusive<u8>,
}

/// Outer IPv4 sources: at least a /8, so that a slip does not claim the Internet.
pub(super) const OUTER_V4: PrefixRule =
    PrefixRule { family: "an IPv4", example: "172.16.0.0/16", is_v4: true, lengths: 8..=32 };

/// Outer IPv6 sources.
pub(super) const OUTER_V6: PrefixRule =
    PrefixRule { family: "an IPv6", example: "100::/64", is_v4: false, lengths: 32..=128 };

/// A prefix of the rule's family, its host bits zero.
pub(super) fn prefix(text: &str, rule: &PrefixRule) -> Result<(IpAddr, u8), Problem> {
    let bad = || Problem::BadPrefix { text: text.to_owned(), family: rule.family, example: rule.example };
    let (address, _) = text.split_once('/').ok_or_else(bad)?;
    if address.parse::<IpAddr>().map_err(|_| bad())?.is_ipv4() != rule.is_v4 {
        return Err(bad());
    }
    let prefix = within(text.parse(), &rule.lengths, bad)?;
    Ok((unicast(prefix.address())?, prefix.length()))
}

/// Lengths of prefixes that may be VIPs: longer than those that a slip of the hand makes.
const VIP_LENGTHS: [RangeInclusive<u8>; 2] = [8..=32, 32..=128];

/// A VIP, or a prefix of them.
pub(super) fn vip(text: &str) -> Result<Prefix, Problem> {
    let Some((network, _)) = text.split_once('/') else { return address(text).map(Prefix::host) };
    let bad = || Problem::BadPrefix { text: text.to_owned(), family: "a", example: "192.0.2.0/28" };
    let [v4, v6] = &VIP_LENGTHS;
    let lengths = if network.contains(':') { v6 } else { v4 };
    let prefix = within(text.parse(), lengths, bad)?;
    unicast(prefix.address())?;
    Ok(prefix)
}

/// Clients: a prefix of any length, or an address.
pub(super) fn client_prefix(text: &str) -> Result<Prefix, Problem> {
    let prefix: Prefix = text.parse()?;
    match prefix.address() {
        IpAddr::V6(v6) if prefix.length() >= 96 => match v6.to_ipv4_mapped() {
            Some(v4) => Err(AddressProblem::Mapped(v4).into()),
            None => Ok(prefix),
        },
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(prefix),
    }
}

/// `source`, `source/24`: how many bits of a client's address choose its backend.
pub(super) fn affinity(text: &str, is_v4: bool) -> Result<u8, Problem> {
    let longest = if is_v4 { 32 } else { 128 };
    let bad = || Problem::BadAffinity(text.to_owned());
    let Some(length) = text.strip_prefix("source").ok_or_else(bad)?.strip_prefix('/') else {
        return if text == "source" { Ok(longest) } else { Err(bad()) };
    };
    let digits = (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
    let length: i64 = length.parse().ok().filter(|_| digits).ok_or_else(bad)?;
    let in_range = u8::try_from(length).ok().filter(|length| (1..=longest).contains(length));
    in_range.ok_or(Problem::OutOfRange { value: length, min: 1, max: longest.into() })
}

/// `10000/s`, `30/m`.
pub(super) fn frequency(text: &str) -> Result<Frequency, Problem> {
    let bad = || Problem::BadFrequency(text.to_owned());
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let per = match unit {
        "s" => Period::Second,
        "m" => Period::Minute,
        _ => return Err(bad()),
    };
    let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let count = if digits { count.parse().ok() } else { None }.filter(|&count| count > 0).ok_or_else(bad)?;
    let rate = Frequency { count, per };
    if rate.is_in_range() { Ok(rate) } else { Err(Problem::FrequencyOutOfRange { rate }) }
}

/// A prefix whose length is in range.
fn within(
    read: Result<Prefix, BadPrefix>,
    lengths: &RangeInclusive<u8>,
    malformed: impl FnOnce() -> Problem,
) -> Result<Prefix, Problem> {
    let out_of_range = |length: i64| {
        let (min, max) = (*lengths.start(), *lengths.end());
        Problem::OutOfRange { value: length, min: min.into(), max: max.into() }
    };
    match read {
        Ok(prefix) if lengths.contains(&prefix.length()) => Ok(prefix),
        Ok(prefix) => Err(out_of_range(prefix.length().into())),
        Err(BadPrefix::Malformed(_)) => Err(malformed()),
        Err(BadPrefix::TooLong { length, .. }) => Err(out_of_range(length.into())),
        Err(error @ BadPrefix::HostBits { .. }) => Err(error.into()),
    }
}

/// `0x` and 1 to 16 hexadecimal digits.
pub(super) fn hex_seed(text: &str) -> Result<u64, Problem> {
    text.strip_prefix("0x")
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Problem::BadSeed(text.to_owned()))
}

/// The path of an HTTP request line (RFC 9112 section 3.2.1).
pub(super) fn http_path(text: &str) -> Result<String, Problem> {
    let good = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if good { Ok(text.to_owned()) } else { Err(Problem::BadHttpPath(text.to_owned())) }
}

/// The value of a `Host` header.
pub(super) fn http_host(text: &str) -> Result<String, Problem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    let good = (1..=259).contains(&text.len()) && text.bytes().all(allowed);
    if good { Ok(text.to_owned()) } else { Err(Problem::BadHost(text.to_owned())) }
}

/// The name a TLS server is asked for.
pub(super) fn server_name(text: &str) -> Result<String, Problem> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_name = text.len() <= 253 && text.split('.').all(label);
    if is_name || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(Problem::BadServerName(text.to_owned()))
    }
}

/// The full path of a file.
pub(super) fn file(text: &str) -> Result<String, Problem> {
    let good = text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
    if good { Ok(text.to_owned()) } else { Err(Problem::NotAFile(text.to_owned())) }
}

/// An argument of a program.
pub(super) fn argument(text: &str) -> Result<String, Problem> {
    if text.contains('\0') { Err(Problem::ZeroByte) } else { Ok(text.to_owned()) }
}

/// A payload: a text, or `0x` and hexadecimal digits.
pub(super) fn bytes(text: &str, lengths: RangeInclusive<usize>) -> Result<Vec<u8>, Problem> {
    let bytes = match text.strip_prefix("0x") {
        None => text.as_bytes().to_vec(),
        Some(digits) => hex(digits).ok_or_else(|| Problem::BadBytes(text.to_owned()))?,
    };
    let (length, min, max) = (bytes.len(), *lengths.start(), *lengths.end());
    if lengths.contains(&length) { Ok(bytes) } else { Err(Problem::BadLength { length, min, max }) }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// A name the kernel takes for an interface (`dev_valid_name` in net/core/dev.c).
pub(super) fn interface(text: &str) -> Result<String, Problem> {
    let good = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if good { Ok(text.to_owned()) } else { Err(Problem::BadInterface(text.to_owned())) }
}

/// A table size: a prime in [`SLOTS_RANGE`].
pub(super) fn slots(value: i64) -> Result<u32, Problem> {
    let (min, max) = (*SLOTS_RANGE.start(), *SLOTS_RANGE.end());
    let slots = u32::try_from(value)
        .ok()
        .filter(|slots| SLOTS_RANGE.contains(slots))
        .ok_or(Problem::OutOfRange { value, min: min.into(), max: max.into() })?;
    if is_prime(slots) { Ok(slots) } else { Err(Problem::NotPrime { slots, nearest: nearest_prime(slots) }) }
}

fn nearest_prime(slots: u32) -> u32 {
    // Both ends of the range are prime, so the search meets one on either side.
    (0..)
        .flat_map(|step| [slots.saturating_sub(step), slots.saturating_add(step)])
        .find(|&candidate| SLOTS_RANGE.contains(&candidate) && is_prime(candidate))
        .unwrap_or(*SLOTS_RANGE.end())
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("2s", 2000),
            ("500ms", 500),
            ("1m", 60_000),
            ("1.5s", 1500),
            ("0.25m", 15_000),
            ("1h", 3_600_000),
        ];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "2", "s", "-1s", "1 s", "1.s", ".5s", "1.2.3s", "2sec", "9999999999s", "1s ", "٣s"]
        {
            assert_eq!(duration(text), Err(Problem::BadDuration(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_duration_reads_back() {
        for millis in [1, 10, 999, 1000, 1500, 59_000, 60_000, 61_000, 3_600_000, 3_601_500] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&duration_text(value)), Ok(value));
        }
        let odd = Duration::from_nanos(1_500_000_001);
        assert_eq!(duration(&duration_text(odd)), Ok(odd));
    }

    #[test]
    fn payloads() {
        for (text, expected) in
            [("PING", &b"PING"[..]), ("", b""), ("0x00fF", &[0, 0xff]), ("0x", b""), ("ü", "ü".as_bytes())]
        {
            assert_eq!(bytes(text, 0..=4).as_deref(), Ok(expected), "{text}");
        }
        for text in ["0x0", "0xzz", "0x+1", "0x 0", "0xü"] {
            assert_eq!(bytes(text, 0..=4), Err(Problem::BadBytes(text.to_owned())));
        }
        assert_eq!(bytes("abcde", 1..=4), Err(Problem::BadLength { length: 5, min: 1, max: 4 }));
        assert_eq!(bytes("0x", 1..=4), Err(Problem::BadLength { length: 0, min: 1, max: 4 }));
    }

    #[test]
    fn server_names_and_files() {
        for name in ["www.example.com", "a_b", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(server_name(name), Ok(name.to_owned()));
        }
        for name in ["", "a..b", "-a", "a-", "a b", "www.example.com:443", "[::1]", "www."] {
            assert!(server_name(name).is_err(), "{name}");
        }
        assert!(file("/etc/ca.pem").is_ok() && file("ca.pem").is_err() && file("/etc/").is_err());
    }

    #[test]
    fn the_ends_of_the_slots_range_are_primes_and_the_nearest_is_found() {
        assert!(is_prime(*SLOTS_RANGE.start()) && is_prime(*SLOTS_RANGE.end()));
        for (slots, nearest) in
            [(12, 11), (100, 101), (16_384, 16_381), (65_536, 65_537), (1_048_572, 1_048_571)]
        {
            assert_eq!(super::slots(slots.into()), Err(Problem::NotPrime { slots, nearest }));
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(prefix("10.0.0.0/8", &OUTER_V4), Ok(("10.0.0.0".parse().unwrap(), 8)));
        assert_eq!(prefix("10.1.2.3/32", &OUTER_V4), Ok(("10.1.2.3".parse().unwrap(), 32)));
        assert_eq!(prefix("2001:db8::/32", &OUTER_V6), Ok(("2001:db8::".parse().unwrap(), 32)));
        let host_bits = prefix("10.1.2.3/24", &OUTER_V4).unwrap_err().to_string();
        assert_eq!(host_bits, "10.1.2.3/24 has host bits: write 10.1.2.0/24");
        for text in ["10.0.0.0/7", "10.0.0.0/33", "10.0.0.0/999"] {
            assert!(matches!(prefix(text, &OUTER_V4), Err(Problem::OutOfRange { .. })), "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/+8", "x/8", "100::/64", "/8", ""] {
            assert!(matches!(prefix(text, &OUTER_V4), Err(Problem::BadPrefix { .. })), "{text}");
        }
        assert!(matches!(prefix("224.0.0.0/8", &OUTER_V4), Err(Problem::Address(_))));
    }
}
