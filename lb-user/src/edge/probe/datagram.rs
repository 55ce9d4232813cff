//! Probes of one datagram: the UDP check, and what the DNS check is carried by.
//!
//! The socket is not connected: a connected one would not see that an answer came from another address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Protocol, Type};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{local_failure, network_failure, no_reply};
use crate::model::probe::{ProbeFailure, ProbeSpec, shown};

/// Room for an answer, bytes.
const MAX_ANSWER: usize = 4096;

/// A datagram is answered, and `expect` occurs in the answer.
pub(super) async fn check(
    spec: &ProbeSpec,
    deadline: Instant,
    send: &[u8],
    expect: Option<&[u8]>,
) -> Result<String, ProbeFailure> {
    let judge = |answer: &[u8]| {
        Some(match expect {
            Some(expect) if !occurs(expect, answer) => {
                Err(ProbeFailure::OtherReply { got: answer.to_vec(), expected: expect.to_vec() })
            }
            _ => Ok(format!("\"{}\"", shown(answer))),
        })
    };
    exchange(spec, deadline, send, judge).await
}

fn occurs(wanted: &[u8], within: &[u8]) -> bool {
    wanted.is_empty() || within.windows(wanted.len()).any(|window| window == wanted)
}

/// Sends a datagram, and lets answers be judged until one of them decides.
pub(super) async fn exchange(
    spec: &ProbeSpec,
    deadline: Instant,
    send: &[u8],
    mut judge: impl FnMut(&[u8]) -> Option<Result<String, ProbeFailure>>,
) -> Result<String, ProbeFailure> {
    let target = spec.target;
    let socket = socket(spec).map_err(|error| local_failure(spec, &error))?;
    let mut other_source = None;
    let answered = async {
        socket.send_to(send, target).await?;
        let mut buffer = [0; MAX_ANSWER];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            if !is_same(from, target) {
                other_source = Some(from.ip());
            } else if let Some(verdict) = judge(&buffer[..length]) {
                return Ok::<_, io::Error>(verdict);
            }
        }
    };
    match timeout_at(deadline, answered).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
            Err(ProbeFailure::PortClosed { target })
        }
        Ok(Err(error)) => Err(network_failure(spec, &error)),
        Err(_) => Err(other_source.map_or_else(|| no_reply(spec), |from| foreign(spec, from))),
    }
}

fn foreign(spec: &ProbeSpec, from: IpAddr) -> ProbeFailure {
    ProbeFailure::OtherSource { target: spec.target, from, through_vip: spec.mark.is_some() }
}

fn is_same(from: SocketAddr, target: SocketAddr) -> bool {
    (from.ip(), from.port()) == (target.ip(), target.port())
}

fn socket(spec: &ProbeSpec) -> io::Result<UdpSocket> {
    let socket = super::socket(spec, Type::DGRAM, Protocol::UDP)?;
    // ICMP errors are told of even though it is not connected.
    if spec.target.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    UdpSocket::from_std(socket.into())
}
