//! Routes of the control socket, version 1: HTTP method and path to [`Request`], [`Response`] to status and
//! JSON. Every answer is JSON, also the refusals; nothing a client sends gives a 5xx.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, State},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::IntoResponse,
    routing::{get, patch, post},
};
use futures_util::stream;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Call, observe};
use crate::api::{
    ApplySpec, BackendPatch, BackendSpec, CaptureQuery, ConfigText, Done, Edit, EventsQuery, PastQuery,
    PoolPatch, PoolSpec, Proposal, Refusal, RefusalKind, Request, Response, ServicePatch, ServiceSpec,
    TraceSpec,
};

/// Largest body taken, bytes.
const BODY_LIMIT: usize = 1 << 20;

/// The same for a whole configuration.
const CONFIG_LIMIT: usize = 64 << 20;

/// Pieces of a stream that wait for their client.
const PIECES: usize = 1024;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// All routes; calls go to the daemon, which gets `patience` to answer.
pub(super) fn router(calls: mpsc::Sender<Call>, patience: Duration) -> Router {
    Router::new()
        .route("/v1/status", get(async |daemon: Daemon| daemon.ask(Request::Status).await))
        .route("/v1/health", get(async |daemon: Daemon| daemon.ask(Request::Health).await))
        .route("/v1/events", get(events))
        .route("/v1/capture", get(capture))
        .route("/v1/flows", get(async |daemon: Daemon| daemon.ask(Request::Flows).await))
        .route("/v1/stats", get(async |daemon: Daemon| daemon.ask(Request::Stats).await))
        .route("/v1/trace", post(trace))
        .route("/v1/services", get(services).post(add_service))
        .route("/v1/services/{name}", get(service).patch(set_service).delete(delete_service))
        .route("/v1/pools", get(pools).post(add_pool))
        .route("/v1/pools/{name}", get(pool).patch(set_pool).delete(delete_pool))
        .route("/v1/pools/{pool}/backends", post(add_backend))
        .route("/v1/pools/{pool}/backends/{name}", patch(set_backend).delete(delete_backend))
        .merge(configurations())
        .merge(observe::routes())
        .fallback(async |uri: Uri| {
            Answer::refuse(
                StatusCode::NOT_FOUND,
                RefusalKind::NotFound,
                format!("no such route: {}", uri.path()),
            )
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Answer::refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                RefusalKind::Invalid,
                format!("{} does not take {method}", uri.path()),
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Link { calls, patience })
}

/// Configurations as a whole: their texts may be long.
fn configurations() -> Router<Link> {
    Router::new()
        .route("/v1/config", get(async |daemon: Daemon| daemon.ask(Request::Config).await).put(apply))
        .route("/v1/config/plan", post(plan))
        .route("/v1/config/confirm", post(async |orders: Orders| orders.give(Request::Confirm).await))
        .route("/v1/config/rollback", post(rollback))
        .route("/v1/config/history", get(history))
        .layer(DefaultBodyLimit::max(CONFIG_LIMIT))
}

async fn plan(daemon: Daemon, Input(proposal): Input<Proposal>) -> Answer {
    daemon.ask(Request::Plan(proposal)).await
}

async fn apply(orders: Orders, Input(spec): Input<ApplySpec>) -> Answer {
    orders.give(Request::Apply(spec)).await
}

async fn rollback(orders: Orders, Asked(PastQuery { number }): Asked<PastQuery>) -> Answer {
    orders.give(Request::Rollback(number)).await
}

async fn history(daemon: Daemon, Asked(PastQuery { number }): Asked<PastQuery>) -> Answer {
    daemon.ask(Request::History(number)).await
}

/// A question, though it has a body.
async fn trace(daemon: Daemon, Input(spec): Input<TraceSpec>) -> Answer {
    daemon.ask(Request::Trace(spec)).await
}

async fn events(daemon: Daemon, Asked(query): Asked<EventsQuery>) -> axum::response::Response {
    if query.follow {
        daemon.stream(Request::Events(query), "application/x-ndjson").await
    } else {
        daemon.ask(Request::Events(query)).await.into_response()
    }
}

async fn capture(daemon: Daemon, Asked(query): Asked<CaptureQuery>) -> axum::response::Response {
    daemon.stream(Request::Capture(query), "application/x-pcapng").await
}

async fn services(daemon: Daemon) -> Answer {
    daemon.ask(Request::Services(None)).await
}

async fn service(daemon: Daemon, In(name): In<String>) -> Answer {
    daemon.ask(Request::Services(Some(name))).await
}

async fn add_service(orders: Orders, Input(spec): Input<ServiceSpec>) -> Answer {
    orders.edit(Edit::AddService(spec)).await
}

async fn set_service(orders: Orders, In(name): In<String>, Input(patch): Input<ServicePatch>) -> Answer {
    orders.edit(Edit::SetService { name, patch }).await
}

async fn delete_service(orders: Orders, In(name): In<String>) -> Answer {
    orders.edit(Edit::DeleteService { name }).await
}

async fn pools(daemon: Daemon) -> Answer {
    daemon.ask(Request::Pools(None)).await
}

async fn pool(daemon: Daemon, In(name): In<String>) -> Answer {
    daemon.ask(Request::Pools(Some(name))).await
}

async fn add_pool(orders: Orders, Input(spec): Input<PoolSpec>) -> Answer {
    orders.edit(Edit::AddPool(spec)).await
}

async fn set_pool(orders: Orders, In(name): In<String>, Input(patch): Input<PoolPatch>) -> Answer {
    orders.edit(Edit::SetPool { name, patch }).await
}

async fn delete_pool(orders: Orders, In(name): In<String>) -> Answer {
    orders.edit(Edit::DeletePool { name }).await
}

async fn add_backend(orders: Orders, In(pool): In<String>, Input(backend): Input<BackendSpec>) -> Answer {
    orders.edit(Edit::AddBackend { pool, backend }).await
}

async fn set_backend(
    orders: Orders,
    In((pool, name)): In<(String, String)>,
    Input(patch): Input<BackendPatch>,
) -> Answer {
    orders.edit(Edit::SetBackend { pool, name, patch }).await
}

async fn delete_backend(orders: Orders, In((pool, name)): In<(String, String)>) -> Answer {
    orders.edit(Edit::DeleteBackend { pool, name }).await
}

/// The way to the daemon.
#[derive(Clone)]
pub(super) struct Link {
    calls: mpsc::Sender<Call>,
    patience: Duration,
}

pub(super) type Daemon = State<Link>;

/// The way to the daemon for what changes something: with the configurations that the client allows it to change, if
/// it names any (`If-Match`, RFC 9110 section 13.1.1).
struct Orders {
    daemon: Daemon,
    only_if: Option<Vec<String>>,
}

impl Orders {
    async fn edit(self, edit: Edit) -> Answer {
        self.give(Request::Edit(edit)).await
    }

    async fn give(self, request: Request) -> Answer {
        let request = match self.only_if {
            Some(etags) => Request::OnlyIf { etags, request: Box::new(request) },
            None => request,
        };
        self.daemon.ask(request).await
    }
}

impl FromRequestParts<Link> for Orders {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, link: &Link) -> Result<Self, Answer> {
        let mut only_if: Option<Vec<String>> = None;
        for value in parts.headers.get_all(header::IF_MATCH) {
            let etags = value.to_str().ok().and_then(etags).ok_or_else(|| {
                let error = format!("cannot read If-Match {value:?}: write \"ETAG\" with its quotes, or *");
                Answer::refuse(StatusCode::BAD_REQUEST, RefusalKind::Invalid, error)
            })?;
            only_if.get_or_insert_default().extend(etags);
        }
        // Some configuration is always in force.
        let only_if = only_if.filter(|etags| !etags.iter().any(|etag| etag == "*"));
        Ok(Self { daemon: State(link.clone()), only_if })
    }
}

/// The entity tags of a header's value, without their quotes. Weak ones are left out: they match nothing here (RFC 9110
/// section 8.8.3.2, the strong comparison).
fn etags(value: &str) -> Option<Vec<String>> {
    let mut etags = Vec::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (is_weak, quoted) = part.strip_prefix("W/").map_or((false, part), |quoted| (true, quoted));
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match inner {
            Some(etag) if !etag.contains('"') => etags.extend((!is_weak).then(|| etag.to_owned())),
            None if part == "*" => etags.push(part.to_owned()),
            _ => return None,
        }
    }
    Some(etags)
}

impl Link {
    pub(super) async fn ask(&self, request: Request) -> Answer {
        self.call(request, None).await
    }

    /// Asks for what comes in pieces.
    async fn stream(&self, request: Request, content: &'static str) -> axum::response::Response {
        let (pieces, stream) = mpsc::channel(PIECES);
        let answer = self.call(request, Some(pieces)).await;
        if *answer.1 != Response::Streaming {
            return answer.into_response();
        }
        let stream = stream::unfold(stream, async |mut stream| {
            let piece = stream.recv().await?;
            Some((Ok::<_, Infallible>(piece), stream))
        });
        ([(header::CONTENT_TYPE, content)], Body::from_stream(stream)).into_response()
    }

    async fn call(&self, request: Request, stream: Option<mpsc::Sender<Bytes>>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.calls.send(Call { request, reply, stream }).await.ok()?;
            answer.await.ok()
        };
        let trouble = match timeout(self.patience, exchange).await {
            Ok(Some(response)) => return Answer::of(response),
            Ok(None) => "the daemon is stopping".to_owned(),
            Err(_) => format!(
                "the daemon did not answer within {} s; an edit may still take effect",
                self.patience.as_secs()
            ),
        };
        Answer::refuse(StatusCode::SERVICE_UNAVAILABLE, RefusalKind::Failed, trouble)
    }
}

/// What goes back: a status and a body.
pub(super) struct Answer(pub(super) StatusCode, pub(super) Box<Response>);

impl Answer {
    fn of(response: Response) -> Self {
        let status = match &response {
            Response::Refused(refusal) => match refusal.kind {
                RefusalKind::NotFound => StatusCode::NOT_FOUND,
                RefusalKind::Conflict => StatusCode::CONFLICT,
                RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
                RefusalKind::Outdated => StatusCode::PRECONDITION_FAILED,
                RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            },
            _ => StatusCode::OK,
        };
        Self(status, Box::new(response))
    }

    pub(super) fn refuse(status: StatusCode, kind: RefusalKind, error: String) -> Self {
        Self(status, Box::new(Response::Refused(Refusal { kind, errors: vec![error] })))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> axum::response::Response {
        let etag = match &*self.1 {
            Response::Config(ConfigText { etag, .. }) | Response::Done(Done { etag, .. }) => {
                HeaderValue::try_from(format!("\"{etag}\"")).ok()
            }
            _ => None,
        };
        let mut answer = (self.0, Json(self.1)).into_response();
        answer.headers_mut().extend(etag.map(|etag| (header::ETAG, etag)));
        answer
    }
}

/// Names in the path.
struct In<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for In<T> {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Answer> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(rejection) => Err(Answer::refuse(
                StatusCode::BAD_REQUEST,
                RefusalKind::Invalid,
                format!("cannot read the path: {}", rejection.body_text()),
            )),
        }
    }
}

/// What stands behind the question mark.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Asked<T> {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Answer> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Answer::refuse(
                StatusCode::BAD_REQUEST,
                RefusalKind::Invalid,
                format!("cannot read the query: {}", rejection.body_text()),
            )),
        }
    }
}

/// A JSON body. The content type is not asked for: over this socket there are no browsers to be wary of, and
/// `curl -d` sends another one.
struct Input<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Answer;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Answer> {
        let refuse = |status, error| Err(Answer::refuse(status, RefusalKind::Invalid, error));
        let body = match timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => body,
            // Too large is 413; anything else means that the client went away.
            Ok(Err(rejection)) => {
                return refuse(
                    rejection.status(),
                    format!("cannot read the body: {}", rejection.body_text()),
                );
            }
            Err(_) => {
                return refuse(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()),
                );
            }
        };
        match serde_json::from_slice(&body) {
            Ok(input) => Ok(Self(input)),
            Err(error) if error.is_data() => {
                refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("the body does not fit: {error}"))
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_read_by_the_rules() {
        let read = |value| etags(value).map(|etags| etags.join("|"));
        assert_eq!(read("\"1\"").as_deref(), Some("1"));
        assert_eq!(read("\"1\" , W/\"2\",\"3\"").as_deref(), Some("1|3"));
        assert_eq!(read("*").as_deref(), Some("*"));
        assert_eq!(read("W/\"2\"").as_deref(), Some(""));
        for bad in ["1", "\"1", "1\"", "\"1\" \"2\"", "\"", "W/*"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_silent_daemon_is_503() {
        let (calls, mut waiting) = mpsc::channel(1);
        let link = Link { calls, patience: Duration::from_millis(20) };
        let Answer(status, response) = link.ask(Request::Status).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let Response::Refused(refusal) = *response else { panic!("{response:?}") };
        assert!(refusal.errors[0].contains("did not answer"), "{refusal:?}");
        assert_eq!(waiting.recv().await.map(|call| call.request), Some(Request::Status));
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_is_503_at_once() {
        let (calls, waiting) = mpsc::channel(1);
        drop(waiting);
        let link = Link { calls, patience: Duration::from_secs(600) };
        let Answer(status, response) = link.ask(Request::Stats).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let Response::Refused(refusal) = *response else { panic!("{response:?}") };
        assert_eq!(refusal.errors, ["the daemon is stopping"]);
    }
}
