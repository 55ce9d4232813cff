//! Options that describe a health check, for the commands that set one.

use clap::Args;

use crate::api::{CheckSpec, Expect};

/// A health check. The program of an `exec` check is for those to name who may write the configuration file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Health check")]
pub(super) struct CheckOptions {
    /// How backends are checked
    #[arg(long, value_name = "TYPE", value_parser = ["tcp", "http", "https", "udp", "dns", "icmp"])]
    check: Option<String>,
    /// What is probed: the VIP by way of the backend, or the backend's own address [default: vip]
    #[arg(long, value_parser = ["vip", "backend"], requires = "check")]
    to: Option<String>,
    /// Port to probe [default: the one of the check's protocol, or the first, of the pool's first service]
    #[arg(long, value_name = "PORT", requires = "check")]
    check_port: Option<u16>,
    /// Path and query of an HTTP or HTTPS check
    #[arg(long, requires = "check")]
    path: Option<String>,
    /// Host header of an HTTP or HTTPS check [default: the VIP]
    #[arg(long, requires = "check")]
    host: Option<String>,
    /// What is success: a status (http, https), a response code (dns), a text in the answer (udp)
    #[arg(long, value_name = "WHAT", requires = "check")]
    expect: Option<String>,
    /// Name that an HTTPS server is asked for (SNI) [default: that of the Host header]
    #[arg(long, value_name = "NAME", requires = "check")]
    server_name: Option<String>,
    /// Take any certificate of an HTTPS server
    #[arg(long, requires = "check")]
    no_verify: bool,
    /// File of the certificates that an HTTPS server's must lead to [default: those the system trusts]
    #[arg(long, value_name = "FILE", requires = "check")]
    ca: Option<String>,
    /// Payload of a UDP check: a text, or 0x and hexadecimal digits
    #[arg(long, value_name = "PAYLOAD", requires = "check")]
    send: Option<String>,
    /// Name that a DNS check asks for
    #[arg(long, value_name = "NAME", requires = "check")]
    query: Option<String>,
    /// Type of record that a DNS check asks for [default: A]
    #[arg(long, value_name = "TYPE", requires = "check")]
    record: Option<String>,
    /// What one of the answers to a DNS check must be
    #[arg(long, requires = "check")]
    answer: Option<String>,
    /// From the start of one probe to that of the next: 2s, 500ms
    #[arg(long, value_name = "TIME", requires = "check")]
    interval: Option<String>,
    /// The same while the state changes [default: as otherwise]
    #[arg(long, value_name = "TIME", requires = "check")]
    fast_interval: Option<String>,
    /// How long a probe may take: 1s
    #[arg(long, value_name = "TIME", requires = "check")]
    timeout: Option<String>,
    /// By so many percent intervals vary
    #[arg(long, value_name = "PERCENT", requires = "check")]
    jitter: Option<u8>,
    /// Successes in a row that bring a backend up
    #[arg(long, value_name = "N", requires = "check")]
    rise: Option<u32>,
    /// Failures in a row that take a backend down
    #[arg(long, value_name = "N", requires = "check")]
    fall: Option<u32>,
    /// A backend that falls again within this time needs more successes to come up
    #[arg(long, value_name = "TIME", requires = "check")]
    damping: Option<String>,
}

impl CheckOptions {
    /// The check, if one is given.
    pub(super) fn spec(self) -> Option<Box<CheckSpec>> {
        let kind = self.check?;
        // Only these have numbers.
        let is_status = matches!(kind.as_str(), "http" | "https");
        let expect = self.expect.map(|expect| match expect.parse() {
            Ok(status) if is_status => Expect::Status(status),
            _ => Expect::Text(expect),
        });
        Some(Box::new(CheckSpec {
            kind,
            to: self.to,
            port: self.check_port,
            path: self.path,
            host: self.host,
            expect,
            server_name: self.server_name,
            verify: self.no_verify.then_some(false),
            ca: self.ca,
            send: self.send,
            query: self.query,
            record: self.record,
            answer: self.answer,
            interval: self.interval,
            fast_interval: self.fast_interval,
            timeout: self.timeout,
            jitter: self.jitter,
            rise: self.rise,
            fall: self.fall,
            damping: self.damping,
        }))
    }
}
