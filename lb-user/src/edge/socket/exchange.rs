//! A request's way to the daemon and its answer's way back.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequestParts, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use futures_util::stream;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::Call;
use crate::api::{ConfigText, Done, Edit, Refusal, RefusalKind, Request, Response};

/// Pieces of a stream that wait for their client.
const PIECES: usize = 1024;

/// The way to the daemon.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) patience: Duration,
}

pub(super) type Daemon = State<Link>;

/// The way to the daemon for what changes something: with the configurations that the client allows it to change, if
/// it names any (`If-Match`, RFC 9110 section 13.1.1).
pub(super) struct Orders {
    daemon: Daemon,
    only_if: Option<Vec<String>>,
}

impl Orders {
    pub(super) async fn edit(self, edit: Edit) -> Answer {
        self.give(Request::Edit(edit)).await
    }

    pub(super) async fn give(self, request: Request) -> Answer {
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

/// The header of [`Orders`], described.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described: the header is read by Orders")]
pub(super) struct IfMatch {
    /// Entity tags of configurations, as `GET /v1/config` tells them, each in its quotes, or `*`: the order is carried
    /// out only if one of them is in force still.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

/// The entity tags of a header's value, without their quotes. Weak ones are left out: they match nothing here (RFC 9110
/// section 8.8.3.2, the strong comparison).
fn etags(value: &str) -> Option<Vec<String>> {
    let mut etags = Vec::new();
    let mut parts = value.split(',').map(str::trim).filter(|part| !part.is_empty()).peekable();
    parts.peek()?;
    for part in parts {
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
    pub(super) async fn stream(&self, request: Request, content: &'static str) -> axum::response::Response {
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
        for bad in ["", " , ", "1", "\"1", "1\"", "\"1\" \"2\"", "\"", "W/*"] {
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
