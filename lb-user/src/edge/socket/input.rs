//! What clients send, read: names in paths, queries, bodies. What cannot be read is refused in the API's own words.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::exchange::Answer;
use crate::api::RefusalKind;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Names in the path.
pub(super) struct In<T>(pub(super) T);

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
pub(super) struct Asked<T>(pub(super) T);

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
pub(super) struct Input<T>(pub(super) T);

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
        // Lists would be taken for the fields in their order.
        if body.trim_ascii_start().starts_with(b"[") {
            return refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the body does not fit: it is a list, where an object is expected".to_owned(),
            );
        }
        match serde_json::from_slice(&body) {
            Ok(input) => Ok(Self(input)),
            Err(error) if error.is_data() => {
                refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("the body does not fit: {error}"))
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")),
        }
    }
}
