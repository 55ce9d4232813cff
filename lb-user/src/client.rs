//! A client of the control socket: the CLI's way to the daemon, and that of tests. The routes are those of
//! `edge::socket`; what is asked and answered is [`crate::api`]. Nothing is printed here.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, StatusCode,
    body::Incoming,
    client::conn::http1::SendRequest,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::api::{
    ApplySpec, CaptureQuery, ConfigText, Done, Edit, EventView, EventsQuery, FlowsView, HealthView, PastView,
    PlanView, PoolView, Proposal, Refusal, RefusalKind, Request, Response, ServiceView, Stats, Status,
    TraceSpec, TraceView,
};

/// How long the daemon's answer may take: a little longer than the daemon itself waits before it says 503.
const PATIENCE: Duration = Duration::from_secs(35);

/// Why the daemon could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket there, or one that nobody listens on.
    #[error("no daemon listens on {}: is `lb run` running?", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
    },
    /// The socket belongs to others.
    #[error(
        "not allowed to connect to {}{}: use sudo, or let `lb run --socket-group` name a group of yours",
        path.display(),
        owner.as_deref().unwrap_or("")
    )]
    Denied {
        /// The socket.
        path: PathBuf,
        /// ` (mode 0660, group root)`, if that could be seen.
        owner: Option<String>,
    },
    /// Any other failure to connect.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The connection broke; an edit may or may not have taken effect.
    #[error("the daemon on {} went away before it answered: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened to the connection.
        source: hyper::Error,
    },
    /// No answer; an edit may or may not have taken effect.
    #[error("the daemon on {} did not answer within {} s", path.display(), PATIENCE.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// An answer that this version does not understand.
    #[error("cannot read the answer of {} to {asked}: {source}; do lb and its daemon have one version?", path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// Method and path.
        asked: String,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// The daemon is there but cannot answer now.
    #[error("{}", refusal.errors.join("\n"))]
    Unavailable {
        /// Its reasons.
        refusal: Refusal,
    },
    /// The daemon said no; nothing was changed.
    #[error("{}", refusal.errors.join("\n"))]
    Refused {
        /// Its reasons.
        refusal: Refusal,
    },
}

impl ClientError {
    /// What the daemon itself said, if it is the daemon that said no.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Unavailable { refusal } | Self::Refused { refusal } => Some(refusal),
            _ => None,
        }
    }
}

/// A connection to the daemon, good for any number of calls, one after the other.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    sender: SendRequest<Full<Bytes>>,
    only_if: Vec<String>,
}

impl Client {
    /// Connects to the daemon's socket.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`], [`ClientError::Denied`] or [`ClientError::Connect`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|source| cannot_connect(path, source))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Broken { path: path.to_owned(), source })?;
        // Its failure is the pending call's failure too.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { path: path.to_owned(), sender, only_if: Vec::new() })
    }

    /// Asks or orders anything but streams, see [`Client::follow`] and [`Client::capture`]; never answers [`Response::Refused`], which is an error here.
    ///
    /// # Errors
    /// [`ClientError`] of any kind but those of [`Client::connect`].
    pub async fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        Ok(match request {
            Request::Status => Response::Status(Box::new(self.status().await?)),
            Request::Services(None) => Response::Services(self.services().await?),
            Request::Services(Some(name)) => Response::Service(Box::new(self.service(&name).await?)),
            Request::Pools(None) => Response::Pools(self.pools().await?),
            Request::Pools(Some(name)) => Response::Pool(self.pool(&name).await?),
            Request::Health => Response::Health(self.health().await?),
            Request::Stats => Response::Stats(self.stats().await?),
            Request::Flows => Response::Flows(self.flows().await?),
            Request::Trace(spec) => Response::Trace(Box::new(self.trace(&spec).await?)),
            Request::Events(query) if !query.follow => Response::Events(self.events(query).await?),
            Request::Events(_) | Request::Capture(_) | Request::Metrics => {
                let errors = vec!["this is answered by a stream or a text".to_owned()];
                return Err(ClientError::Refused { refusal: Refusal { kind: RefusalKind::Invalid, errors } });
            }
            Request::Config => Response::Config(self.config().await?),
            Request::OnlyIf { etags, request } => {
                self.only_if = etags;
                Box::pin(self.call(*request)).await?
            }
            Request::Edit(edit) => Response::Done(self.edit(edit).await?),
            Request::Plan(proposal) => Response::Plan(Box::new(self.plan(&proposal).await?)),
            Request::Apply(spec) => Response::Done(self.apply(&spec).await?),
            Request::Confirm => Response::Done(self.confirm().await?),
            Request::Rollback(number) => Response::Done(self.rollback(number).await?),
            Request::History(number) => Response::History(self.history(number).await?),
        })
    }

    /// The balancer as a whole.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.get("/v1/status".to_owned()).await
    }

    /// All services.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn services(&mut self) -> Result<Vec<ServiceView>, ClientError> {
        self.get("/v1/services".to_owned()).await
    }

    /// One service.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn service(&mut self, name: &str) -> Result<ServiceView, ClientError> {
        self.get(service_path(name)).await
    }

    /// All pools.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn pools(&mut self) -> Result<Vec<PoolView>, ClientError> {
        self.get("/v1/pools".to_owned()).await
    }

    /// One pool.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn pool(&mut self, name: &str) -> Result<PoolView, ClientError> {
        self.get(pool_path(name)).await
    }

    /// Health of every backend.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn health(&mut self) -> Result<Vec<HealthView>, ClientError> {
        self.get("/v1/health".to_owned()).await
    }

    /// Counters.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn stats(&mut self) -> Result<Stats, ClientError> {
        self.get("/v1/stats".to_owned()).await
    }

    /// What is remembered of flows.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn flows(&mut self) -> Result<Vec<FlowsView>, ClientError> {
        self.get("/v1/flows".to_owned()).await
    }

    /// The way of a packet.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn trace(&mut self, spec: &TraceSpec) -> Result<TraceView, ClientError> {
        self.exchange(Method::POST, "/v1/trace".to_owned(), json(spec)).await
    }

    /// What happened.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn events(&mut self, query: EventsQuery) -> Result<Vec<EventView>, ClientError> {
        self.get(events_path(query)).await
    }

    /// What happened and what happens: a line of JSON for each [`EventView`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn follow(mut self, last: Option<usize>) -> Result<Stream, ClientError> {
        self.stream(events_path(EventsQuery { last, follow: true })).await
    }

    /// Packets and what becomes of them, as pcapng.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn capture(mut self, query: &CaptureQuery) -> Result<Stream, ClientError> {
        let CaptureQuery { filter, bytes, count, seconds } = query;
        let mut path = format!("/v1/capture?filter={}", escaped(filter));
        let numbers = [("bytes", bytes.map(u64::from)), ("count", *count), ("seconds", *seconds)];
        for (key, number) in numbers {
            path.extend(number.map(|number| format!("&{key}={number}")));
        }
        self.stream(path).await
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn config(&mut self) -> Result<ConfigText, ClientError> {
        self.get("/v1/config".to_owned()).await
    }

    /// The next order is carried out only if the configuration in force is this one still, by [`ConfigText::etag`].
    pub fn only_if(&mut self, etag: &str) -> &mut Self {
        self.only_if = vec![etag.to_owned()];
        self
    }

    /// Changes the configuration.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn edit(&mut self, edit: Edit) -> Result<Done, ClientError> {
        let (method, path, body) = match &edit {
            Edit::AddService(spec) => (Method::POST, "/v1/services".to_owned(), json(spec)),
            Edit::SetService { name, patch } => (Method::PATCH, service_path(name), json(patch)),
            Edit::DeleteService { name } => (Method::DELETE, service_path(name), Bytes::new()),
            Edit::AddPool(spec) => (Method::POST, "/v1/pools".to_owned(), json(spec)),
            Edit::SetPool { name, patch } => (Method::PATCH, pool_path(name), json(patch)),
            Edit::DeletePool { name } => (Method::DELETE, pool_path(name), Bytes::new()),
            Edit::AddBackend { pool, backend } => {
                (Method::POST, format!("{}/backends", pool_path(pool)), json(backend))
            }
            Edit::SetBackend { pool, name, patch } => (Method::PATCH, backend_path(pool, name), json(patch)),
            Edit::DeleteBackend { pool, name } => (Method::DELETE, backend_path(pool, name), Bytes::new()),
        };
        self.exchange(method, path, body).await
    }

    /// What a configuration would change.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn plan(&mut self, proposal: &Proposal) -> Result<PlanView, ClientError> {
        self.exchange(Method::POST, "/v1/config/plan".to_owned(), json(proposal)).await
    }

    /// Brings a configuration into force.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn apply(&mut self, spec: &ApplySpec) -> Result<Done, ClientError> {
        self.exchange(Method::PUT, "/v1/config".to_owned(), json(spec)).await
    }

    /// Confirms the configuration on trial.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn confirm(&mut self) -> Result<Done, ClientError> {
        self.exchange(Method::POST, "/v1/config/confirm".to_owned(), Bytes::new()).await
    }

    /// Goes back to a configuration of the history.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn rollback(&mut self, number: Option<u64>) -> Result<Done, ClientError> {
        let number = number.map(|number| format!("?number={number}")).unwrap_or_default();
        self.exchange(Method::POST, format!("/v1/config/rollback{number}"), Bytes::new()).await
    }

    /// Configurations that were in force, or one with its text.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn history(&mut self, number: Option<u64>) -> Result<Vec<PastView>, ClientError> {
        let number = number.map(|number| format!("?number={number}")).unwrap_or_default();
        self.get(format!("/v1/config/history{number}")).await
    }

    async fn get<T: DeserializeOwned>(&mut self, path: String) -> Result<T, ClientError> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    async fn stream(&mut self, path: String) -> Result<Stream, ClientError> {
        let asked = format!("GET {path}");
        let socket = || self.path.clone();
        let broken = |source| ClientError::Broken { path: socket(), source };
        let answer = self.sender.send_request(request(Method::GET, path, Bytes::new()));
        let answer = timeout(PATIENCE, answer).await.map_err(|_| ClientError::Silent { path: socket() })?;
        let answer = answer.map_err(broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Stream { path: socket(), body: answer.into_body() });
        }
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        Err(refused(status, &body).unwrap_or_else(|source| ClientError::Strange {
            path: socket(),
            asked,
            source,
        }))
    }

    async fn exchange<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let asked = format!("{method} {path}");
        let mut request = request(method, path, body);
        for etag in std::mem::take(&mut self.only_if) {
            let value = HeaderValue::try_from(format!("\"{etag}\""));
            request.headers_mut().append(header::IF_MATCH, value.unwrap_or(HeaderValue::from_static("\"\"")));
        }
        let socket = || self.path.clone();
        let broken = |source| ClientError::Broken { path: socket(), source };
        let answer = async {
            let answer = self.sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            Ok((status, answer.into_body().collect().await.map_err(broken)?.to_bytes()))
        };
        let (status, body) = match timeout(PATIENCE, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(ClientError::Silent { path: socket() }),
        };
        let strange = |source| ClientError::Strange { path: socket(), asked, source };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(strange);
        }
        Err(refused(status, &body).map_err(strange)?)
    }
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    body: Incoming,
}

impl Stream {
    /// The next piece; `None` at its end.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|source| ClientError::Broken { path: self.path.clone(), source })?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }
}

fn request(method: Method, path: String, body: Bytes) -> hyper::Request<Full<Bytes>> {
    hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "lb")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("a path of unreserved and percent-encoded characters is a URI")
}

/// What a daemon that said no meant.
fn refused(status: StatusCode, body: &[u8]) -> Result<ClientError, serde_json::Error> {
    let refusal = serde_json::from_slice(body)?;
    Ok(if status == StatusCode::SERVICE_UNAVAILABLE {
        ClientError::Unavailable { refusal }
    } else {
        ClientError::Refused { refusal }
    })
}

fn events_path(query: EventsQuery) -> String {
    let last = query.last.map(|last| format!("&last={last}")).unwrap_or_default();
    format!("/v1/events?follow={}{last}", query.follow)
}

fn service_path(name: &str) -> String {
    format!("/v1/services/{}", escaped(name))
}

fn pool_path(name: &str) -> String {
    format!("/v1/pools/{}", escaped(name))
}

fn backend_path(pool: &str, name: &str) -> String {
    format!("{}/backends/{}", pool_path(pool), escaped(name))
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
fn escaped(segment: &str) -> String {
    segment.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

fn json<T: Serialize>(body: &T) -> Bytes {
    serde_json::to_vec(body).expect("structs of texts and whole numbers always become JSON").into()
}

fn cannot_connect(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { path },
        io::ErrorKind::PermissionDenied => ClientError::Denied { owner: owner(&path), path },
        _ => ClientError::Connect { path, source },
    }
}

/// Who may connect, for people: ` (mode 0660, group root)`.
fn owner(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let mode = metadata.permissions().mode() & 0o7777;
    let group = match Group::from_gid(Gid::from_raw(metadata.gid())) {
        Ok(Some(group)) => group.name,
        _ => metadata.gid().to_string(),
    };
    Some(format!(" (mode {mode:04o}, group {group})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_one_segment() {
        for (name, want) in [
            ("www", "/v1/services/www"),
            ("a-b_c.d", "/v1/services/a-b_c.d"),
            ("a/b?c#d", "/v1/services/a%2Fb%3Fc%23d"),
            ("ü %", "/v1/services/%C3%BC%20%25"),
        ] {
            assert_eq!(service_path(name), want);
        }
    }
}
