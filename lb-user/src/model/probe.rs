//! What the probe edge is asked to do and what it answers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    check::{CheckKind, Pace},
    dns,
    service::{AdminState, Backend, Desired, Name, Pool},
};

/// Which backend a probe is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// Its pool.
    pub pool: Name,
    /// Its name.
    pub backend: Name,
}

impl BackendId {
    /// The id of a pool's backend.
    pub fn new(pool: &Pool, backend: &Backend) -> Self {
        Self { pool: pool.name.clone(), backend: backend.name.clone() }
    }
}

impl Desired {
    /// Every backend and its pool.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, (&Pool, &Backend))> {
        self.pools.iter().flat_map(|pool| {
            pool.backends.iter().map(move |backend| (BackendId::new(pool, backend), (pool, backend)))
        })
    }

    /// Makes maintenance of drains whose end has come, and tells of which; `wall_clock` is the time since 1970-01-01.
    pub fn end_drains(&mut self, wall_clock: Duration) -> Vec<BackendId> {
        let mut ended = Vec::new();
        for pool in &mut self.pools {
            for backend in &mut pool.backends {
                if backend.state == AdminState::Drain
                    && backend.drain_until.is_some_and(|until| until <= wall_clock)
                {
                    backend.state = AdminState::Maint;
                    ended.push(BackendId { pool: pool.name.clone(), backend: backend.name.clone() });
                }
            }
        }
        ended
    }
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

/// Names a probe: of one backend there may be several.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId {
    /// The backend.
    pub backend: BackendId,
    /// What for.
    pub purpose: Purpose,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Does the backend serve?
    Check,
    /// What does its agent say?
    Agent,
}

/// A probe to repeat until told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// What it is sent to: the VIP, or the backend's own address. The port is 0 where there is none.
    pub target: SocketAddr,
    /// The backend's own address.
    pub backend: IpAddr,
    /// `SO_MARK` that steers it to the backend (`abi::PROBE_MARK` and the backend's index); none if it goes to the
    /// backend's own address.
    pub mark: Option<u32>,
    /// What is done.
    pub kind: ProbeKind,
    /// How often.
    pub pace: Pace,
    /// How long one may take.
    pub timeout: Duration,
    /// Upper bound for TCP segments (`TCP_MAXSEG`), where a tunnel takes room; bytes.
    pub max_segment: Option<u16>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A check; one value is shared by all backends of a pool.
    Check(Arc<CheckKind>),
    /// Asks the agent.
    Agent,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Which probe.
    pub id: ProbeId,
    /// As what it was carried out: an outcome of an older spec is recognised by it.
    pub spec: Arc<ProbeSpec>,
    /// How long it took.
    pub took: Duration,
    /// Success with a word for people ("connected", "200"; of an agent, the line it said), or why not.
    pub result: Result<String, ProbeFailure>,
}

/// Why a probe failed, in words an operator can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// Nothing came back at all: the VIP may be missing on the backend, or the tunnel.
    #[error("no reply from {} in {}{}", Place(.target), seconds(*.after), if *.through_vip { " (is the VIP on the backend, and its tunnel open?)" } else { "" })]
    NoReply {
        /// What was asked.
        target: SocketAddr,
        /// The time-out.
        after: Duration,
        /// Whether it went through the VIP.
        through_vip: bool,
    },
    /// The backend refused the connection.
    #[error("TCP RST from {target}: nothing listens there")]
    Refused {
        /// What was asked.
        target: SocketAddr,
    },
    /// ICMP said that nobody has the port.
    #[error("UDP port {} is closed on {} (ICMP port unreachable)", .target.port(), .target.ip())]
    PortClosed {
        /// What was asked.
        target: SocketAddr,
    },
    /// A datagram was answered from another address than it was sent to: clients would discard that.
    #[error("reply came from {from}, not {}{}: the server must answer from the address it was asked at", if *.through_vip { "the VIP " } else { "" }, .target.ip())]
    OtherSource {
        /// What was asked.
        target: SocketAddr,
        /// Who answered.
        from: IpAddr,
        /// Whether it went through the VIP.
        through_vip: bool,
    },
    /// The backend or a router said it cannot be reached.
    #[error("{} is unreachable: {error}", Place(.target))]
    Unreachable {
        /// What was asked.
        target: SocketAddr,
        /// The system's words.
        error: String,
    },
    /// Connected, but the answer did not come in time.
    #[error("connected to {target}, but no answer in {}", seconds(*.after))]
    NoAnswer {
        /// What was asked.
        target: SocketAddr,
        /// The time-out.
        after: Duration,
    },
    /// Another HTTP status than expected.
    #[error("HTTP {got}, expected {expected}")]
    Status {
        /// What came.
        got: u16,
        /// What the check wants.
        expected: u16,
    },
    /// The connection broke or the answer was none of its protocol.
    #[error("bad answer from {target}: {error}")]
    BadAnswer {
        /// What was asked.
        target: SocketAddr,
        /// What was wrong.
        error: String,
    },
    /// Not the reply that the check wants.
    #[error("replied \"{}\", expected \"{}\"", shown(.got), shown(.expected))]
    OtherReply {
        /// What came.
        got: Vec<u8>,
        /// What must occur in it.
        expected: Vec<u8>,
    },
    /// Another DNS response code than expected.
    #[error("DNS answered {got}, expected {expected}")]
    DnsCode {
        /// What came.
        got: dns::Code,
        /// What the check wants.
        expected: dns::Code,
    },
    /// The DNS answer that the check wants is not there.
    #[error("DNS answered {query}: {}, expected {expected}", listed(.got, *.is_truncated))]
    DnsAnswer {
        /// What was asked.
        query: dns::Query,
        /// What came.
        got: Vec<dns::Data>,
        /// Whether there was more that did not fit.
        is_truncated: bool,
        /// What the check wants.
        expected: dns::Data,
    },
    /// The server's certificate is not good.
    #[error("certificate {0}")]
    Certificate(CertificateFlaw),
    /// TLS did not come about.
    #[error("TLS with {target} failed: {error}")]
    Tls {
        /// What was asked.
        target: SocketAddr,
        /// Why.
        error: String,
    },
    /// The program of the check said no.
    #[error("{program} {end}{}", after_colon(.said))]
    Command {
        /// Its path.
        program: String,
        /// How it ended: "ended with exit code 2".
        end: String,
        /// The first line that it wrote.
        said: String,
    },
    /// The program of the check did not end in time.
    #[error("{program} did not end in {}, and was killed", seconds(*.after))]
    CommandTooSlow {
        /// Its path.
        program: String,
        /// The time-out.
        after: Duration,
    },
    /// The probe could not be sent: this machine's fault, not the backend's.
    #[error("cannot probe {}: {error}", Place(.target))]
    Local {
        /// What was to be asked.
        target: SocketAddr,
        /// What stood in the way.
        error: String,
    },
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFlaw {
    /// Its time is over.
    #[error("expired {}", date(*.0))]
    Expired(u64),
    /// Its time has not come; seconds since 1970.
    #[error("is not valid before {}", date(*.0))]
    NotYetValid(u64),
    /// It is another server's.
    #[error("is for {}, not {asked}", .names.join(", "))]
    OtherName {
        /// What was asked for.
        asked: String,
        /// What it names.
        names: Vec<String>,
    },
    /// Nobody who is trusted signed it.
    #[error("is signed by nobody that {trusted} trusts")]
    UnknownIssuer {
        /// The file of those who are, or the system.
        trusted: String,
    },
    /// Anything else.
    #[error("is not accepted: {0}")]
    Other(String),
}

/// Address and port, the port only if there is one.
struct Place<'a>(&'a SocketAddr);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.port() {
            0 => write!(f, "{}", self.0.ip()),
            _ => write!(f, "{}", self.0),
        }
    }
}

fn seconds(duration: Duration) -> String {
    if duration.as_millis() < 1000 {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}

/// As much of some bytes as fits a line.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 40;
    let text: String = bytes.iter().take(MOST).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    if bytes.len() > MOST { text + "…" } else { text }
}

fn after_colon(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

fn listed(data: &[dns::Data], is_truncated: bool) -> String {
    let mut words: Vec<String> = data.iter().take(4).map(ToString::to_string).collect();
    if data.len() > words.len() {
        words.push(format!("and {} more", data.len() - words.len()));
    }
    if words.is_empty() {
        words.push("nothing".to_owned());
    }
    words.join(", ") + if is_truncated { " (cut off)" } else { "" }
}

/// The day of a moment in seconds since 1970, as `2026-01-31`.
fn date(seconds: u64) -> String {
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": eras of 400 years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day) = (month, day - (153 * month + 2) / 5 + 1);
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
            (4_102_444_800, "2100-01-01"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn words_name_what_was_asked() {
        let (vip, own) = ("192.0.2.1:53".parse().unwrap(), "[2001:db8::5]:0".parse().unwrap());
        let after = Duration::from_secs(1);
        let cases = [
            (
                ProbeFailure::NoReply { target: vip, after, through_vip: true },
                "no reply from 192.0.2.1:53 in 1 s (is the VIP on the backend, and its tunnel open?)",
            ),
            (
                ProbeFailure::NoReply { target: own, after: after / 4, through_vip: false },
                "no reply from 2001:db8::5 in 250 ms",
            ),
            (
                ProbeFailure::OtherSource {
                    target: vip,
                    from: "10.1.0.11".parse().unwrap(),
                    through_vip: true,
                },
                "reply came from 10.1.0.11, not the VIP 192.0.2.1: the server must answer from the address it was asked at",
            ),
            (
                ProbeFailure::OtherReply { got: b"no\x00".to_vec(), expected: b"PONG".to_vec() },
                "replied \"no\\x00\", expected \"PONG\"",
            ),
            (
                ProbeFailure::DnsCode { got: dns::Code(2), expected: dns::Code::NO_ERROR },
                "DNS answered SERVFAIL, expected NOERROR",
            ),
            (ProbeFailure::Certificate(CertificateFlaw::Expired(86_400)), "certificate expired 1970-01-02"),
            (
                ProbeFailure::Command {
                    program: "/bin/x".into(),
                    end: "ended with exit code 2".into(),
                    said: "no".into(),
                },
                "/bin/x ended with exit code 2: no",
            ),
        ];
        for (failure, words) in cases {
            assert_eq!(failure.to_string(), words);
        }
        assert_eq!(shown(&[b'a'; 41]), "a".repeat(40) + "…");
        assert_eq!(listed(&[], true), "nothing (cut off)");
    }
}
