//! `lb trace`: from arguments to a request.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use clap::{Args, ValueEnum};

use super::ask::Ask;
use crate::api::{Request, TraceProtocol, TraceSpec};

/// Options of `lb trace`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:
  lb trace tcp 198.51.100.7:4711 192.0.2.10:80
  lb trace tcp 198.51.100.7 192.0.2.10:80 --syn --length 1500
  lb trace udp [2001:db8:c::7]:4711 [2001:db8::10]:443 --quic-id 00a1b2c3d4e5f607
  lb trace icmp 198.51.100.7 192.0.2.10 -j",
    after_long_help = "The packet is not sent. The daemon decides about it as the program in the kernel would at this \
moment, on the tables that are in the kernel, and changes nothing in them.

Examples:
  lb trace tcp 198.51.100.7:4711 192.0.2.10:80
  lb trace tcp 198.51.100.7 192.0.2.10:80 --syn --length 1500
  lb trace udp [2001:db8:c::7]:4711 [2001:db8::10]:443 --quic-id 00a1b2c3d4e5f607
  lb trace icmp 198.51.100.7 192.0.2.10 -j"
)]
pub(super) struct TraceOptions {
    /// What kind of packet; icmp is an echo request
    protocol: Kind,
    /// Who sends it: ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets
    client: Endpoint,
    /// The virtual address, written alike; all but icmp need a port
    vip: Endpoint,
    /// It opens a connection: short for --flags S
    #[arg(long, conflicts_with = "flags")]
    syn: bool,
    /// TCP flags by their letters FSRPAU; A unless given
    #[arg(long, value_name = "LETTERS")]
    flags: Option<String>,
    /// Length of the IP packet in bytes; the least unless given
    #[arg(long, value_name = "BYTES")]
    length: Option<u16>,
    /// TTL or hop limit; 64 unless given
    #[arg(long)]
    ttl: Option<u8>,
    /// It is a QUIC packet with a short header and this connection ID
    #[arg(long, value_name = "HEX")]
    quic_id: Option<String>,
    /// The interface it comes in by; the first one that lb is attached to unless given
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

/// An address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint(IpAddr, Option<u16>);

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is neither ADDRESS nor ADDRESS:PORT (an IPv6 address with a port: [ADDRESS]:PORT)")]
struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self(address, None));
        }
        let both: SocketAddr = text.parse().map_err(|_| BadEndpoint(text.to_owned()))?;
        Ok(Self(both.ip(), Some(both.port())))
    }
}

impl TraceOptions {
    pub(super) fn ask(self) -> Ask {
        let Endpoint(client, client_port) = self.client;
        let Endpoint(vip, vip_port) = self.vip;
        Ask::of(Request::Trace(TraceSpec {
            protocol: match self.protocol {
                Kind::Tcp => TraceProtocol::Tcp,
                Kind::Udp => TraceProtocol::Udp,
                Kind::Sctp => TraceProtocol::Sctp,
                Kind::Icmp => TraceProtocol::Icmp,
            },
            client,
            client_port,
            vip,
            vip_port,
            flags: self.flags.or_else(|| self.syn.then(|| "S".to_owned())),
            length: self.length,
            ttl: self.ttl,
            quic_id: self.quic_id,
            interface: self.interface,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_written_as_everywhere() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (text, want) in [
            ("192.0.2.1", Some(Endpoint(address("192.0.2.1"), None))),
            ("192.0.2.1:80", Some(Endpoint(address("192.0.2.1"), Some(80)))),
            ("2001:db8::1", Some(Endpoint(address("2001:db8::1"), None))),
            ("[2001:db8::1]", Some(Endpoint(address("2001:db8::1"), None))),
            ("[2001:db8::1]:443", Some(Endpoint(address("2001:db8::1"), Some(443)))),
            ("192.0.2.1:", None),
            ("192.0.2.1:65536", None),
            ("www:80", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
