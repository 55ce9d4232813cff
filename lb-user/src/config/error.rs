//! What can be wrong with a configuration, where, and what to do about it. Only words and places: the
//! rules themselves are in `read` and `value`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::value::duration_text;
use crate::model::{
    dns::BadDomainName,
    limit::{self, Frequency},
    prefix::{BadPrefix, Prefix},
    quic::{BadServerId, ServerId},
    service::{BadName, Name, Protocol, ServicePort},
};

/// Everything that is wrong with a file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// One line for each error, as compilers print them: `lb.toml:12:9: service "www": pool "wbe" does not exist`.
    pub fn report(&self, file: &str) -> String {
        self.0.iter().map(|error| format!("{file}:{error}\n")).collect()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One error: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The thing it is about: `pool "web", backend "w1", address`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
    /// The line of the other thing involved, where there is one (a name's first use).
    pub other_line: Option<u32>,
}

impl ConfigError {
    /// Path and problem, without lines: for someone who does not see the file.
    pub fn sentence(&self) -> String {
        let Self { path, problem, .. } = self;
        if path.is_empty() { problem.to_string() } else { format!("{path}: {problem}") }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.sentence())?;
        match self.other_line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

impl Serialize for ConfigError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ConfigError", 5)?;
        fields.serialize_field("line", &self.line)?;
        fields.serialize_field("column", &self.column)?;
        fields.serialize_field("path", &self.path)?;
        fields.serialize_field("message", &self.problem.to_string())?;
        fields.serialize_field("other_line", &self.other_line)?;
        fields.end()
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML. The words are the TOML parser's.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// A key that means nothing here.
    #[error("unknown key \"{key}\"{}", meant(.suggestion.as_deref(), .known))]
    UnknownKey {
        /// As written.
        key: String,
        /// The most similar key.
        suggestion: Option<String>,
        /// Every key of this table.
        known: Vec<&'static str>,
    },
    /// A key that must be there.
    #[error("{key} is missing: add {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// How it is written.
        example: &'static str,
    },
    /// Another TOML type than the key wants.
    #[error("expected {expected}, found {}", with_article(.found))]
    WrongType {
        /// With its article.
        expected: &'static str,
        /// TOML's name of what is there.
        found: &'static str,
    },
    /// A single table or a value where there may be several tables.
    #[error("expected tables, found {}: write {key}, with two brackets", with_article(.found))]
    NotTables {
        /// How they are written.
        key: &'static str,
        /// TOML's name of what is there.
        found: &'static str,
    },
    /// Not one of a few words.
    #[error("\"{found}\" is not one of {}{}", listed(.allowed), did_you_mean(.suggestion.as_deref()))]
    NotOneOf {
        /// As written.
        found: String,
        /// The words.
        allowed: Vec<&'static str>,
        /// The most similar of them.
        suggestion: Option<String>,
    },
    /// A number outside its range.
    #[error("{value} is not within {min} to {max}")]
    OutOfRange {
        /// As written.
        value: i64,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Not a name.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// A name that stands for something else already.
    #[error("there is already {} \"{name}\"", with_article(.what))]
    Duplicate {
        /// `pool`, `service`, `backend`, `acl`.
        what: &'static str,
        /// The name.
        name: Name,
    },
    /// Not an address, or none that can be used.
    #[error(transparent)]
    Address(#[from] AddressProblem),
    /// Two backends of a pool with one address.
    #[error("{address} is already the address of {}: one backend, one address", quoted(.other.as_ref(), "another backend"))]
    SameAddress {
        /// The address.
        address: IpAddr,
        /// The other backend, if its name is readable.
        other: Option<Name>,
    },
    /// A backend's address that is a VIP.
    #[error("{address} is {} of {}: give the backend's own address", the_vip(.vip), quoted(.service.as_ref(), "a service"))]
    BackendIsVip {
        /// The address.
        address: IpAddr,
        /// The VIP.
        vip: Prefix,
        /// The service, if its name is readable.
        service: Option<Name>,
    },
    /// Not a port or a range of ports.
    #[error(
        "\"{}\" is not a port: write \"tcp/80\", \"udp/6970-6999\" or \"sctp/*\", ports 1 to 65535",
        .0.escape_debug()
    )]
    BadPort(String),
    /// A range that ends before it begins.
    #[error("the range {first}-{last} ends before it begins: write {last}-{first}")]
    PortsReversed {
        /// As written.
        first: u16,
        /// As written.
        last: u16,
    },
    /// A service without ports.
    #[error("a service needs at least one port: write ports = [\"tcp/80\"]")]
    NoPorts,
    /// A (VIP, protocol, port) that a service has already.
    #[error("{port} of {vip} already belongs to {}", quoted(.service.as_ref(), "another service"))]
    PortTaken {
        /// The VIP.
        vip: Prefix,
        /// The ports it already has.
        port: ServicePort,
        /// The service that has them (it may be the same), if its name is readable.
        service: Option<Name>,
    },
    /// A port of a service that has any port of that protocol.
    #[error("{port} is among {any} of the same service: leave one of them away")]
    PortAmongAny {
        /// As written.
        port: ServicePort,
        /// What has it, too.
        any: ServicePort,
    },
    /// A service's pool that is not there.
    #[error("pool \"{name}\" does not exist{}", did_you_mean(.suggestion.as_deref()))]
    NoSuchPool {
        /// As written.
        name: String,
        /// The most similar pool.
        suggestion: Option<String>,
    },
    /// A pool that is to help itself out.
    #[error("a pool cannot be its own fallback: name another one")]
    OwnFallback,
    /// Weights that follow what nobody measures.
    #[error("\"latency\" is measured by the pool's check: it needs a check = {{ … }}")]
    LatencyWithoutCheck,
    /// A table size that is not prime.
    #[error("{slots} is not a prime, which a lookup table's size must be: the nearest is {nearest}")]
    NotPrime {
        /// As written.
        slots: u32,
        /// The nearest prime in range.
        nearest: u32,
    },
    /// More backends than slots, or than can be numbered.
    #[error("{count} backends, but {slots} slots hold at most {limit}")]
    TooManyBackends {
        /// Backends of the pool.
        count: usize,
        /// Its slots.
        slots: u32,
        /// The most it may have.
        limit: usize,
    },
    /// Not a duration.
    #[error("\"{0}\" is not a duration: write a number and ms, s, m or h, such as \"500ms\" or \"1.5s\"")]
    BadDuration(String),
    /// Not a time.
    #[error(
        "\"{0}\" is not a time: write a date, a time and an offset (RFC 3339), such as \"2026-01-31T12:00:00Z\""
    )]
    BadTime(String),
    /// The end of a drain, and no drain.
    #[error("drain_until without state = \"drain\": nothing is drained")]
    DrainUntilWithoutDrain,
    /// A duration outside its range.
    #[error("{} is not within {} to {}", duration_text(*.value), duration_text(*.min), duration_text(*.max))]
    DurationOutOfRange {
        /// As written.
        value: Duration,
        /// Smallest.
        min: Duration,
        /// Largest.
        max: Duration,
    },
    /// A time that must not be longer than the interval.
    #[error("the {what} of {} is longer than the interval of {}", duration_text(*.value), duration_text(*.interval))]
    AboveInterval {
        /// `time-out`, `fast interval`.
        what: &'static str,
        /// As written.
        value: Duration,
        /// The interval.
        interval: Duration,
    },
    /// A key that other types of check have.
    #[error("{key} does not belong to a check of type \"{kind}\": remove it, or write type = {}", alternatives(.types))]
    KeyOfOtherCheck {
        /// The key.
        key: &'static str,
        /// The type of this check.
        kind: &'static str,
        /// Those that have it.
        types: &'static [&'static str],
    },
    /// Not the path of an HTTP request.
    #[error("\"{}\" is not a path: it starts with '/' and has no spaces, control characters or '#', others as %XX", .0.escape_debug())]
    BadHttpPath(String),
    /// Not the value of a `Host` header.
    #[error("\"{}\" is not a host: a name or address, with :port if need be", .0.escape_debug())]
    BadHost(String),
    /// Nothing to connect to.
    #[error(
        "no service of this pool has a {} port to probe: add port = {port}, or whichever the backends answer at",
        .protocol.to_string().to_uppercase()
    )]
    CheckNeedsPort {
        /// What carries the check.
        protocol: Protocol,
        /// A likely one.
        port: u16,
    },
    /// Not the name of a TLS server.
    #[error("\"{}\" is not a server name: a host name or an address, without a port", .0.escape_debug())]
    BadServerName(String),
    /// A file that would depend on where the daemon runs.
    #[error("\"{}\" is not a full path of a file: it starts with '/'", .0.escape_debug())]
    NotAFile(String),
    /// Not a domain name.
    #[error("\"{}\" is not a domain name: {why}", .name.escape_debug())]
    BadDomainName {
        /// As written.
        name: String,
        /// What one is.
        why: BadDomainName,
    },
    /// Nothing that a DNS answer could say.
    #[error("\"{}\" cannot be compared with the answer to a question for {record}{}", .text.escape_debug(), comparable(.record))]
    BadDnsData {
        /// As written.
        text: String,
        /// The type that is asked for.
        record: &'static str,
    },
    /// Bytes that are not.
    #[error("\"{}\" is not a payload: a text, or \"0x\" and an even number of hexadecimal digits", .0.escape_debug())]
    BadBytes(String),
    /// A text too short or too long.
    #[error("{length} bytes, but there must be {min} to {max}")]
    BadLength {
        /// Of what is written.
        length: usize,
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// A check without a program.
    #[error("a check of type \"exec\" needs a program: write command = [\"/usr/local/bin/check\"]")]
    NoCommand,
    /// A zero byte, which ends an argument.
    #[error("an argument must not have a zero byte")]
    ZeroByte,
    /// Not a name Linux gives an interface.
    #[error("\"{}\" is not an interface name: 1 to 15 characters without '/', ':' and spaces, and not \".\" or \"..\"", .0.escape_debug())]
    BadInterface(String),
    /// An interface named twice.
    #[error("\"{0}\" is named twice")]
    DuplicateInterface(String),
    /// Not a prefix.
    #[error("\"{}\" is not {family} prefix: write it like \"{example}\"", .text.escape_debug())]
    BadPrefix {
        /// As written.
        text: String,
        /// `an IPv4`, `an IPv6`, `a`.
        family: &'static str,
        /// A good one.
        example: &'static str,
    },
    /// A prefix that is none.
    #[error(transparent)]
    Prefix(#[from] BadPrefix),
    /// Not a way of keeping clients on their backends.
    #[error(
        "\"{}\" is no affinity: write \"source\", or \"source/24\" for all clients that share 24 bits of their address",
        .0.escape_debug()
    )]
    BadAffinity(String),
    /// A service's list that is not there.
    #[error("acl \"{name}\" does not exist{}", did_you_mean(.suggestion.as_deref()))]
    NoSuchList {
        /// As written.
        name: String,
        /// The most similar list.
        suggestion: Option<String>,
    },
    /// A list of nobody.
    #[error("a list names someone: add allow = [\"192.0.2.0/24\"] or deny = [\"192.0.2.0/24\"]")]
    EmptyList,
    /// A list with two sides that does not say what becomes of others.
    #[error(
        "a list that both allows and denies says what becomes of all others: add default = \"allow\" or default = \"deny\""
    )]
    NoDefault,
    /// A prefix on both sides of a list.
    #[error("{0} is both allowed and denied")]
    AllowedAndDenied(Prefix),
    /// A file of prefixes that cannot be read.
    #[error("cannot read {}: {why}", .file.escape_debug())]
    UnreadableList {
        /// As written.
        file: String,
        /// What the system said.
        why: String,
    },
    /// A line of a file that is no prefix.
    #[error("{} line {number}: {problem}", .file.escape_debug())]
    BadListLine {
        /// As written.
        file: String,
        /// The line, from 1.
        number: u32,
        /// What is wrong with it.
        problem: Box<Self>,
    },
    /// Lines that are not told one by one.
    #[error("{}: {count} more lines are no prefixes", .file.escape_debug())]
    MoreBadLines {
        /// As written.
        file: String,
        /// How many.
        count: usize,
    },
    /// Not a frequency.
    #[error("\"{}\" is not a rate: write a number and /s or /m, such as \"10000/s\" or \"30/m\"", .0.escape_debug())]
    BadFrequency(String),
    /// A frequency outside the range.
    #[error("{rate} is not within {} to {}", limit::LEAST, limit::MOST)]
    FrequencyOutOfRange {
        /// As written.
        rate: Frequency,
    },
    /// A limit that limits nothing.
    #[error("it limits nothing: add packets = \"10000/s\" or connections = \"100/s\"")]
    NoLimit,
    /// A burst of what has no limit.
    #[error(
        "{burst} says how much of {rate} may come at once, which has no limit: add {rate}, or remove {burst}"
    )]
    BurstWithoutRate {
        /// The key.
        burst: &'static str,
        /// The key that is missing.
        rate: &'static str,
    },
    /// Not a server ID.
    #[error(transparent)]
    ServerId(#[from] BadServerId),
    /// Two backends of a pool with one server ID.
    #[error("{id} is already the server ID of {}: one backend, one server ID", quoted(.other.as_ref(), "another backend"))]
    SameServerId {
        /// The server ID.
        id: ServerId,
        /// The other backend, if its name is readable.
        other: Option<Name>,
    },
    /// A backend that connection IDs cannot name.
    #[error(
        "{} finds backends by QUIC server IDs: add server_id = \"0x{}\", or whichever the server has",
        quoted(.service.as_ref(), "a service"),
        "2a".repeat((*.length).into())
    )]
    NoServerId {
        /// The service, if its name is readable.
        service: Option<Name>,
        /// Octets of its server IDs.
        length: u8,
    },
    /// A server ID of another length than a service reads.
    #[error("{id} has {} octets, but {} reads {length} (server_id_length)", id.length(), quoted(.service.as_ref(), "a service"))]
    ServerIdLength {
        /// The server ID.
        id: ServerId,
        /// The service, if its name is readable.
        service: Option<Name>,
        /// Octets of its server IDs.
        length: u8,
    },
    /// Two lengths of server IDs in one pool.
    #[error("the server IDs of this pool have {length} octets by {}: a pool's have one length", quoted(.service.as_ref(), "another service"))]
    ServerIdLengths {
        /// Octets.
        length: u8,
        /// The other service, if its name is readable.
        service: Option<Name>,
    },
    /// Not a seed.
    #[error(
        "\"{0}\" is not a seed: a whole number from 0, or a string of \"0x\" and 1 to 16 hexadecimal digits"
    )]
    BadSeed(String),
}

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// Not an address at all.
    #[error("\"{}\" is not an IP address{}", .0.escape_debug(), address_advice(.0))]
    NotAnAddress(String),
    /// `0.0.0.0`, `::`.
    #[error("{0} is no address of a host")]
    Unspecified(IpAddr),
    /// A loopback address.
    #[error("{0} is a loopback address, which no other host can reach")]
    Loopback(IpAddr),
    /// A multicast group.
    #[error("{0} is a multicast address: give a unicast address")]
    Multicast(IpAddr),
    /// 255.255.255.255.
    #[error("{0} is the broadcast address")]
    Broadcast(IpAddr),
    /// `fe80::/10`.
    #[error("{0} is link-local, the same on every interface: give a global or unique-local address")]
    LinkLocal(IpAddr),
    /// IPv4 in IPv6's clothes.
    #[error("::ffff:{0} is IPv4 written as IPv6: write {0}")]
    Mapped(Ipv4Addr),
}

/// What was probably meant by a text that is not an address.
fn address_advice(text: &str) -> &'static str {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        ": leave the port away"
    } else if text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()) {
        ": leave the prefix length away"
    } else {
        ": names are not looked up, write it in digits"
    }
}

fn the_vip(vip: &Prefix) -> String {
    if vip.is_host() { "the VIP".to_owned() } else { format!("within {vip}, the VIPs") }
}

fn quoted(name: Option<&Name>, otherwise: &str) -> String {
    name.map_or_else(|| otherwise.to_owned(), |name| format!("\"{name}\""))
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |word| format!(" (did you mean \"{word}\"?)"))
}

fn meant(suggestion: Option<&str>, known: &[&str]) -> String {
    match suggestion {
        Some(_) => did_you_mean(suggestion),
        None => format!(" (known here: {})", known.join(", ")),
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

fn alternatives(types: &[&str]) -> String {
    types.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
}

fn comparable(record: &str) -> &'static str {
    match record {
        "A" => ": write an IPv4 address",
        "AAAA" => ": write an IPv6 address",
        "CNAME" | "NS" | "PTR" => ": write a domain name",
        _ => ": leave it away",
    }
}

fn with_article(found: &str) -> String {
    let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {found}")
}
