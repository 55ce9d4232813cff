//! How backends are checked: what a check does and how often. What its outcomes mean is in `health`, how one is carried
//! out an edge's business.

use std::{sync::Arc, time::Duration};

use super::{
    dns,
    service::{Ports, Protocol, Service, ServicePort},
};

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is done; shared by the probes of all backends.
    pub kind: Arc<CheckKind>,
    /// What is probed.
    pub to: ProbeTo,
    /// Port to probe; without one, [`CheckKind::default_port`] of the pool's first service.
    pub port: Option<u16>,
    /// How often.
    pub pace: Pace,
    /// How long one probe may take; at most the interval.
    pub timeout: Duration,
    /// A backend that fails again and again within this time must answer for longer to come up: see
    /// [`super::health::Damping`]. Zero: however often it failed, it needs the same.
    pub damping: Duration,
}

impl Check {
    /// Time-out where the file names none.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
}

/// What a probe is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProbeTo {
    /// The VIP, steered to the backend by its own encap: the way clients' packets go.
    #[default]
    Vip,
    /// The backend's own address, as the routes have it.
    Backend,
}

/// How often something is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// The same while the last outcomes do not settle its state yet.
    pub fast: Duration,
    /// By so many percent an interval may be longer or shorter, so that probes that once met part again.
    pub jitter: u8,
    /// Successes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

impl Pace {
    /// Interval where the file names none.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// Jitter where the file names none.
    pub const JITTER: u8 = 10;
    /// Rise where the file names none.
    pub const RISE: u32 = 2;
    /// Fall where the file names none.
    pub const FALL: u32 = 3;

    /// From the start of a probe to that of the next one. The probe's outcome was the `streak`th of its kind in a row;
    /// `chance` is any number from 0 to 1.
    pub fn next(&self, is_success: bool, streak: u32, chance: f64) -> Duration {
        let settled = if is_success { self.rise } else { self.fall };
        let interval = if streak < settled { self.fast } else { self.interval };
        let jitter = f64::from(self.jitter) / 100.0;
        interval.mul_f64(1.0 - jitter + 2.0 * jitter * chance)
    }
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection is accepted.
    Tcp,
    /// An HTTP GET is answered with one status.
    Http {
        /// Path and query, starting with `/`.
        path: String,
        /// The `Host` header; without one, the VIP.
        host: Option<String>,
        /// The status that is success.
        expect: u16,
        /// Within TLS, which makes it HTTPS.
        tls: Option<Tls>,
    },
    /// A datagram is answered, from the address it was sent to.
    Udp {
        /// Its payload.
        send: Vec<u8>,
        /// What must occur in the answer; without it, any answer is success.
        expect: Option<Vec<u8>>,
    },
    /// A DNS query is answered.
    Dns {
        /// The query.
        query: dns::Query,
        /// The response code that is success.
        expect: dns::Code,
        /// What one of the answers must be.
        answer: Option<dns::Data>,
    },
    /// An echo request is answered.
    Icmp,
    /// A program ends with exit code 0.
    Exec {
        /// The program, an absolute path, and its arguments.
        command: Vec<String>,
    },
}

/// How an HTTPS check uses TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The name the server is asked for (SNI), which its certificate must bear; without one, that of the `Host` header,
    /// and without that, the VIP.
    pub server_name: Option<String>,
    /// Whether the certificate must be valid.
    pub verify: bool,
    /// File of the certificates that it must lead to (PEM); without one, those the system trusts.
    pub ca: Option<String>,
}

impl CheckKind {
    /// Its word in the file.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http { tls: None, .. } => "http",
            Self::Http { tls: Some(_), .. } => "https",
            Self::Udp { .. } => "udp",
            Self::Dns { .. } => "dns",
            Self::Icmp => "icmp",
            Self::Exec { .. } => "exec",
        }
    }

    /// What carries it; `None` if it has no ports, or may do without.
    pub const fn transport(&self) -> Option<Protocol> {
        match self {
            Self::Tcp | Self::Http { .. } => Some(Protocol::Tcp),
            Self::Udp { .. } | Self::Dns { .. } => Some(Protocol::Udp),
            Self::Icmp | Self::Exec { .. } => None,
        }
    }

    /// The port that its protocol is known by.
    const fn known_port(&self) -> Option<u16> {
        match self {
            Self::Http { tls: Some(_), .. } => Some(443),
            Self::Dns { .. } => Some(53),
            Self::Tcp | Self::Http { tls: None, .. } | Self::Udp { .. } | Self::Icmp | Self::Exec { .. } => {
                None
            }
        }
    }

    /// The port of a service to probe, unless the check names one: the known one of its protocol, if it is among the
    /// service's, else the first named one that it can be carried by. 0 if it needs none and the service names none.
    pub fn default_port(&self, service: &Service) -> Option<u16> {
        let fits =
            |ports: &&ServicePort| self.transport().is_none_or(|transport| transport == ports.protocol);
        let mut fitting = service.ports.iter().filter(fits);
        let has = |ports: &ServicePort, port| match ports.ports {
            Ports::Range { first, last } => (first..=last).contains(&port),
            Ports::Any => true,
        };
        let known = self.known_port().filter(|&port| fitting.clone().any(|ports| has(ports, port)));
        let first = known.or_else(|| fitting.find_map(ServicePort::first));
        first.or(self.transport().is_none().then_some(0))
    }
}

/// Who tells a balancer, beside its own checks, what a backend can take: HAProxy's agent protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// TCP port on the backend's own address.
    pub port: u16,
    /// From the start of one question to that of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        prefix::Prefix,
        service::{FlowPolicy, Name},
    };

    fn pace(interval: u64, fast: u64, jitter: u8) -> Pace {
        Pace {
            interval: Duration::from_millis(interval),
            fast: Duration::from_millis(fast),
            jitter,
            rise: 2,
            fall: 3,
        }
    }

    #[test]
    fn probes_are_faster_until_the_state_is_settled() {
        let pace = pace(2000, 500, 0);
        let cases = [(true, 1, 500), (true, 2, 2000), (false, 1, 500), (false, 2, 500), (false, 3, 2000)];
        for (is_success, streak, millis) in cases {
            let next = pace.next(is_success, streak, 0.7);
            assert_eq!(next, Duration::from_millis(millis), "{is_success} {streak}");
        }
    }

    #[test]
    fn jitter_goes_to_both_sides() {
        for (jitter, chance, millis) in [
            (10, 0.0, 900),
            (10, 0.5, 1000),
            (10, 1.0, 1100),
            (50, 0.0, 500),
            (50, 1.0, 1500),
            (0, 1.0, 1000),
        ] {
            let next = pace(1000, 1000, jitter).next(true, 9, chance);
            assert_eq!(next.as_millis(), millis, "{jitter} {chance}");
        }
    }

    #[test]
    fn the_port_that_is_probed_suits_the_check() {
        let port = |protocol, first, last| ServicePort { protocol, ports: Ports::Range { first, last } };
        let service = |ports| Service {
            name: Name::new("s").unwrap(),
            vip: Prefix::host("192.0.2.1".parse().unwrap()),
            ports,
            pool: Name::new("p").unwrap(),
            flows: FlowPolicy::default(),
            echo: true,
            affinity: None,
            quic: None,
            acl: None,
            limit: None,
        };
        let https = CheckKind::Http {
            path: "/".to_owned(),
            host: None,
            expect: 200,
            tls: Some(Tls { server_name: None, verify: true, ca: None }),
        };
        let dns = CheckKind::Dns {
            query: dns::Query { name: ".".parse().unwrap(), record: dns::Record::Ns },
            expect: dns::Code::NO_ERROR,
            answer: None,
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let web = service(vec![port(udp, 443, 443), port(tcp, 80, 80), port(tcp, 400, 500)]);
        let names = service(vec![port(udp, 1000, 1000), port(udp, 53, 53)]);
        let cases = [
            (&CheckKind::Tcp, &web, Some(80)),
            (&https, &web, Some(443)),
            (&dns, &web, Some(443)),
            (&dns, &names, Some(53)),
            (&CheckKind::Tcp, &names, None),
            (&https, &names, None),
            (&CheckKind::Icmp, &names, Some(1000)),
            (&CheckKind::Icmp, &service(Vec::new()), Some(0)),
        ];
        for (kind, service, expected) in cases {
            assert_eq!(kind.default_port(service), expected, "{}", kind.word());
        }
    }
}
