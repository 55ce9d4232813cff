//! `check = { … }`: which keys a type of check has, and what they mean.

use std::{sync::Arc, time::Duration};

use toml_edit::Item;

use super::{
    super::{
        error::Problem,
        reader::{Node, Placed, boolean, integer_in, one_of, text},
        value,
    },
    duration_within,
};
use crate::model::{
    check::{Check, CheckKind, Pace, ProbeTo, Tls},
    dns,
};

/// Intervals and time-outs lie in this range.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3600));

/// The shortest time-out.
const SHORTEST: Duration = Duration::from_millis(1);

/// Range of the time within which falls count together.
const DAMPING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// Status an HTTP check expects unless told otherwise.
pub(in crate::config) const DEFAULT_EXPECT: u16 = 200;

/// Path an HTTP check asks for unless told otherwise.
pub(in crate::config) const DEFAULT_PATH: &str = "/";

/// Most percent of jitter: beyond, there would be no interval left.
pub(in crate::config) const MAX_JITTER: u8 = 50;

/// Longest payload of a UDP check, and longest text of other keys; bytes.
const LONGEST: usize = 1024;

/// The types.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Tcp,
    Http,
    Https,
    Udp,
    Dns,
    Icmp,
    Exec,
}

const TYPES: [(&str, Type); 7] = [
    ("tcp", Type::Tcp),
    ("http", Type::Http),
    ("https", Type::Https),
    ("udp", Type::Udp),
    ("dns", Type::Dns),
    ("icmp", Type::Icmp),
    ("exec", Type::Exec),
];

/// Keys that only some types have; any other belongs to all.
pub(in crate::config) const KEYS_OF_TYPES: [(&str, &[&str]); 13] = [
    ("to", &["tcp", "http", "https", "udp", "dns", "icmp"]),
    ("port", &["tcp", "http", "https", "udp", "dns", "exec"]),
    ("path", &["http", "https"]),
    ("host", &["http", "https"]),
    ("expect", &["http", "https", "udp", "dns"]),
    ("server_name", &["https"]),
    ("verify", &["https"]),
    ("ca", &["https"]),
    ("send", &["udp"]),
    ("query", &["dns"]),
    ("record", &["dns"]),
    ("answer", &["dns"]),
    ("command", &["exec"]),
];

/// Reads a check; `None` if it has an error.
pub(super) fn read(node: &Node<'_>) -> Option<Check> {
    let kind = node.required("type", one_of(&TYPES)).map(|kind| kind.value);
    let word = kind.and_then(|kind| TYPES.iter().find(|(_, known)| *known == kind)).map(|(word, _)| *word);
    if let Some(kind) = word {
        for (key, types) in KEYS_OF_TYPES.into_iter().filter(|(_, types)| !types.contains(&kind)) {
            if let Some(at) = node.key_position(key) {
                node.report.add(at, &node.path, Problem::KeyOfOtherCheck { key, kind, types });
            }
        }
    }
    let read = kind.and_then(|kind| read_kind(node, kind));
    let to = node.optional("to", one_of(&[("vip", ProbeTo::Vip), ("backend", ProbeTo::Backend)]));
    let port = node.optional("port", integer_in(1..=u16::MAX));
    let (pace, timeout) = read_times(node);
    let damping = node.optional("damping", |item| duration_within(item, DAMPING.0, DAMPING.1));
    Some(Check {
        kind: Arc::new(read?),
        to: to.map(|to| to.value).unwrap_or_default(),
        port: port.map(|port| port.value),
        pace,
        timeout,
        damping: damping.map_or(Duration::ZERO, |damping| damping.value),
    })
}

fn read_kind(node: &Node<'_>, kind: Type) -> Option<CheckKind> {
    match kind {
        Type::Tcp => Some(CheckKind::Tcp),
        Type::Http | Type::Https => Some(read_http(node, kind == Type::Https)),
        Type::Udp => {
            let send = node.required("send", |item| value::bytes(text(item)?, 0..=LONGEST));
            let expect = node.optional("expect", |item| value::bytes(text(item)?, 1..=LONGEST));
            Some(CheckKind::Udp { send: send?.value, expect: expect.map(|expect| expect.value) })
        }
        Type::Dns => read_dns(node),
        Type::Icmp => Some(CheckKind::Icmp),
        Type::Exec => read_command(node).map(|command| CheckKind::Exec { command }),
    }
}

fn read_http(node: &Node<'_>, is_https: bool) -> CheckKind {
    let path = node.optional("path", |item| value::http_path(text(item)?));
    let host = node.optional("host", |item| value::http_host(text(item)?));
    let expect = node.optional("expect", integer_in(100..=599u16));
    let tls = is_https.then(|| Tls {
        server_name: node
            .optional("server_name", |item| value::server_name(text(item)?))
            .map(|name| name.value),
        verify: node.optional("verify", boolean).is_none_or(|verify| verify.value),
        ca: node.optional("ca", |item| value::file(text(item)?)).map(|file| file.value),
    });
    CheckKind::Http {
        path: path.map_or_else(|| DEFAULT_PATH.to_owned(), |path| path.value),
        host: host.map(|host| host.value),
        expect: expect.map_or(DEFAULT_EXPECT, |expect| expect.value),
        tls,
    }
}

fn read_dns(node: &Node<'_>) -> Option<CheckKind> {
    let name = node.required("query", |item| {
        let name = text(item)?;
        name.parse().map_err(|why| Problem::BadDomainName { name: name.to_owned(), why })
    });
    let record = node.optional("record", one_of(&dns::Record::WORDS));
    let record = record.map_or(dns::Record::A, |record| record.value);
    let expect = node.optional("expect", one_of(&dns::Code::WORDS));
    let answer = node.optional("answer", |item| {
        let text = text(item)?;
        record.data(text).ok_or_else(|| Problem::BadDnsData { text: text.to_owned(), record: record.word() })
    });
    Some(CheckKind::Dns {
        query: dns::Query { name: name?.value, record },
        expect: expect.map_or(dns::Code::NO_ERROR, |expect| expect.value),
        answer: answer.map(|answer| answer.value),
    })
}

fn read_command(node: &Node<'_>) -> Option<Vec<String>> {
    let written = node.required("command", |item| match item.as_array().map(toml_edit::Array::len) {
        Some(0) => Err(Problem::NoCommand),
        count => Ok(count.unwrap_or(0)),
    })?;
    let words = node.texts("command", value::argument)?;
    let Placed { value: program, at } = words.first()?;
    if let Err(problem) = value::file(program) {
        node.report.add(*at, &node.path_of("command"), problem);
        return None;
    }
    let words: Vec<String> = words.into_iter().map(|word| word.value).collect();
    (words.len() == written.value).then_some(words)
}

fn read_times(node: &Node<'_>) -> (Pace, Duration) {
    let timing = read_timing(node);
    let fast = node.optional("fast_interval", interval);
    let jitter = node.optional("jitter", integer_in(0..=MAX_JITTER));
    let rise = node.optional("rise", integer_in(1..=100u32));
    let fall = node.optional("fall", integer_in(1..=100u32));
    let pace = Pace {
        interval: timing.interval,
        fast: timing.within(node, "fast_interval", fast, timing.interval),
        jitter: jitter.map_or(Pace::JITTER, |jitter| jitter.value),
        rise: rise.map_or(Pace::RISE, |rise| rise.value),
        fall: fall.map_or(Pace::FALL, |fall| fall.value),
    };
    (pace, timing.timeout)
}

/// How often something is asked, and how long it may take.
pub(super) struct Timing {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    interval_is_wrong: bool,
}

pub(super) fn read_timing(node: &Node<'_>) -> Timing {
    let interval = node.optional("interval", interval);
    let timeout = node.optional("timeout", |item| duration_within(item, SHORTEST, INTERVALS.1));
    let interval_is_wrong = interval.is_none() && node.has("interval");
    let interval = interval.map_or(Pace::INTERVAL, |interval| interval.value);
    let timing = Timing { interval, timeout: Duration::ZERO, interval_is_wrong };
    Timing { timeout: timing.within(node, "timeout", timeout, Check::TIMEOUT), ..timing }
}

impl Timing {
    /// A duration that must not be longer than the interval.
    fn within(
        &self,
        node: &Node<'_>,
        key: &str,
        duration: Option<Placed<Duration>>,
        default: Duration,
    ) -> Duration {
        // A short interval alone should not be an error about a key that is not there.
        let value = duration.as_ref().map_or(default.min(self.interval), |duration| duration.value);
        if let Some(duration) = duration.filter(|_| value > self.interval && !self.interval_is_wrong) {
            let what = if key == "timeout" { "time-out" } else { "fast interval" };
            let problem = Problem::AboveInterval { what, value, interval: self.interval };
            node.report.add(duration.at, &node.path_of(key), problem);
        }
        value
    }
}

fn interval(item: &Item) -> Result<Duration, Problem> {
    duration_within(item, INTERVALS.0, INTERVALS.1)
}
