//! The TCP check, and the connection every check begins with.

use std::{io, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

use super::{connect_failure, local_failure};
use crate::model::{
    probe::{ProbeFailure, ProbeSpec},
    service::CheckKind,
};

/// A TCP connection is accepted.
pub(super) async fn check(spec: &ProbeSpec, deadline: Instant) -> Result<String, ProbeFailure> {
    connect(spec, deadline).await?;
    Ok("connected".to_owned())
}

/// Connects to the VIP by way of the backend.
pub(super) async fn connect(spec: &ProbeSpec, deadline: Instant) -> Result<TcpStream, ProbeFailure> {
    let socket = socket(spec).map_err(|error| local_failure(spec, &error))?;
    match timeout_at(deadline, socket.connect(spec.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(connect_failure(spec, &error)),
        Err(_) => Err(ProbeFailure::NoReply { target: spec.target, after: spec.timeout }),
    }
}

fn socket(spec: &ProbeSpec) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(spec.target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(spec.mark).map_err(|error| {
        io::Error::new(error.kind(), format!("SO_MARK, which needs CAP_NET_ADMIN: {error}"))
    })?;
    if let Some(bytes) = spec.max_segment {
        socket
            .set_tcp_mss(bytes.into())
            .map_err(|error| io::Error::new(error.kind(), format!("TCP_MAXSEG {bytes}: {error}")))?;
    }
    socket.set_tcp_nodelay(true)?;
    if spec.kind == CheckKind::Tcp {
        // Closing resets the connection: neither side keeps a TIME_WAIT for each probe.
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}
