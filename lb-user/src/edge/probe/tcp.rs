//! The TCP check, and the connection that others begin with.

use std::{io, time::Duration};

use socket2::{Protocol, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

use super::{local_failure, network_failure, no_reply};
use crate::model::probe::{ProbeFailure, ProbeSpec};

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a reset: neither side keeps a TIME_WAIT for each probe.
    Reset,
    /// As connections do, for servers to whom a reset is an event.
    Orderly,
}

/// A TCP connection is accepted.
pub(super) async fn check(spec: &ProbeSpec, deadline: Instant) -> Result<String, ProbeFailure> {
    connect(spec, deadline, End::Reset).await?;
    Ok("connected".to_owned())
}

/// Connects.
pub(super) async fn connect(
    spec: &ProbeSpec,
    deadline: Instant,
    end: End,
) -> Result<TcpStream, ProbeFailure> {
    let socket = socket(spec, end).map_err(|error| local_failure(spec, &error))?;
    match timeout_at(deadline, socket.connect(spec.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(network_failure(spec, &error)),
        Err(_) => Err(no_reply(spec)),
    }
}

fn socket(spec: &ProbeSpec, end: End) -> io::Result<TcpSocket> {
    let socket = super::socket(spec, Type::STREAM, Protocol::TCP)?;
    if let Some(bytes) = spec.max_segment {
        socket
            .set_tcp_mss(bytes.into())
            .map_err(|error| io::Error::new(error.kind(), format!("TCP_MAXSEG {bytes}: {error}")))?;
    }
    match end {
        End::Reset => socket.set_linger(Some(Duration::ZERO))?,
        End::Orderly => socket.set_tcp_nodelay(true)?,
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}
