//! The ICMP check: one echo request, on a raw socket, as only that needs no setting of the machine
//! (`net.ipv4.ping_group_range`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use lb_common::wire::checksum;
use socket2::{Protocol, Type};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{local_failure, network_failure, no_reply};
use crate::model::probe::{ProbeFailure, ProbeSpec};

/// Types of messages of a family.
struct Types {
    request: u8,
    reply: u8,
}

// RFC 792 and RFC 4443 section 4.
const V4: Types = Types { request: 8, reply: 0 };
const V6: Types = Types { request: 128, reply: 129 };

/// An echo request is answered. `token` tells its answer from others'.
pub(super) async fn check(spec: &ProbeSpec, deadline: Instant, token: u64) -> Result<String, ProbeFailure> {
    let types = if spec.target.is_ipv4() { &V4 } else { &V6 };
    let request = message(types.request, token);
    let socket = socket(spec).map_err(|error| match error.raw_os_error() {
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => network_failure(spec, &error),
        _ => local_failure(spec, &error),
    })?;
    let answered = async {
        socket.send(&request).await?;
        let mut buffer = [0; 256];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let echo = echo(spec.target.ip(), &buffer[..length]);
            // All but the checksum is as it was sent.
            if echo.is_some_and(|echo| echo[0] == types.reply && echo[4..] == request[4..]) {
                return Ok::<_, io::Error>(());
            }
        }
    };
    match timeout_at(deadline, answered).await {
        Ok(Ok(())) => Ok("echo".to_owned()),
        Ok(Err(error)) => Err(network_failure(spec, &error)),
        Err(_) => Err(no_reply(spec)),
    }
}

/// Sends and receives whole messages, as the runtime's UDP sockets do: that the kernel's is of another type is nothing to
/// them.
fn socket(spec: &ProbeSpec) -> io::Result<UdpSocket> {
    let protocol = if spec.target.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = super::socket(spec, Type::RAW, protocol).map_err(|error| {
        io::Error::new(error.kind(), format!("a raw socket, which needs CAP_NET_RAW: {error}"))
    })?;
    // From then on only what comes from there is received.
    socket.connect(&SocketAddr::new(spec.target.ip(), 0).into())?;
    UdpSocket::from_std(socket.into())
}

/// An echo request: the kernel fills in the checksum of ICMPv6, which covers addresses (RFC 3542 section 3.1).
fn message(kind: u8, token: u64) -> [u8; 16] {
    let mut message = [0; 16];
    message[0] = kind;
    message[4..8].copy_from_slice(&(token as u32).to_be_bytes());
    message[8..].copy_from_slice(&token.to_be_bytes());
    let sum = checksum::finish(checksum::add(0, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The ICMP message in what was received: IPv4 gives its header along.
fn echo(from: IpAddr, received: &[u8]) -> Option<&[u8]> {
    let header = match from {
        IpAddr::V4(_) => usize::from(received.first()? & 0x0f) * 4,
        IpAddr::V6(_) => 0,
    };
    received.get(header..).filter(|message| message.len() >= 8)
}
