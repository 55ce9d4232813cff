//! The HTTP and HTTPS checks: one GET over HTTP/1.1, of whose answer only the status counts.

use std::{
    error::Error as _,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    tcp::{self, End},
    tls,
};
use crate::model::{
    check::Tls,
    probe::{ProbeFailure, ProbeSpec},
};

/// Room for the answer's head, bytes.
const MAX_HEAD: usize = 16 << 10;

/// A body up to this size and time is read, so that the server sees an orderly end.
const MAX_BODY: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_millis(100);

/// GET `path` from `host` is answered with the status `expect`.
pub(super) async fn check(
    spec: &ProbeSpec,
    deadline: Instant,
    (path, host, expect): (&str, Option<&str>, u16),
    tls: Option<(&Tls, &tls::Configs)>,
) -> Result<String, ProbeFailure> {
    let target = spec.target;
    let own_port = if tls.is_some() { 443 } else { 80 };
    let request = request(target, path, host, own_port).map_err(|error| ProbeFailure::Local {
        target,
        error: format!("GET {path} is no valid request: {error}"),
    })?;
    let stream = tcp::connect(spec, deadline, End::Orderly).await?;
    let answer = async {
        match tls {
            None => Ok(status(stream, request).await),
            Some((tls, configs)) => {
                Ok(status(configs.handshake(spec, stream, tls, host).await?, request).await)
            }
        }
    };
    let got = match timeout_at(deadline, answer).await {
        Ok(answer) => match answer? {
            Ok(status) => status.as_u16(),
            Err(error) => return Err(ProbeFailure::BadAnswer { target, error: words(&error) }),
        },
        Err(_) => return Err(ProbeFailure::NoAnswer { target, after: spec.timeout }),
    };
    if got == expect { Ok(got.to_string()) } else { Err(ProbeFailure::Status { got, expected: expect }) }
}

async fn status<S>(stream: S, request: Request<Empty<Bytes>>) -> hyper::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    drain(answer.into_body(), driver);
    Ok(status)
}

/// Reads the body aside: the status is already known, and is not delayed.
fn drain(body: Incoming, mut driver: JoinSet<hyper::Result<()>>) {
    tokio::spawn(async move {
        // Whatever comes of it, the connection ends with the driver.
        timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await.ok();
        driver.shutdown().await;
    });
}

fn request(
    target: SocketAddr,
    path: &str,
    host: Option<&str>,
    own_port: u16,
) -> hyper::http::Result<Request<Empty<Bytes>>> {
    let host = host.map_or_else(|| host_of(target, own_port), str::to_owned);
    Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
}

/// The `Host` header of an address (RFC 9110 section 7.2): the port only if it is not the scheme's own.
fn host_of(target: SocketAddr, own_port: u16) -> String {
    match target.ip() {
        _ if target.port() != own_port => target.to_string(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// An error with its causes; hyper's own sentence seldom tells enough.
fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed before an answer".to_owned();
    }
    let cause = error.source();
    match cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(io) if io.kind() == io::ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
        _ => cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_of_a_vip() {
        for (target, own, host) in [
            ("192.0.2.1:80", 80, "192.0.2.1"),
            ("192.0.2.1:8080", 80, "192.0.2.1:8080"),
            ("192.0.2.1:80", 443, "192.0.2.1:80"),
            ("[2001:db8::1]:80", 80, "[2001:db8::1]"),
            ("[2001:db8::1]:443", 80, "[2001:db8::1]:443"),
            ("[2001:db8::1]:443", 443, "[2001:db8::1]"),
        ] {
            assert_eq!(host_of(target.parse().unwrap(), own), host);
        }
    }
}
