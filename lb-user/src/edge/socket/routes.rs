//! Routes of the control socket, version 1, and the document that describes them. Every answer but a stream and those
//! for monitoring systems is JSON, also the refusals.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
    routing::get,
};
use tokio::sync::mpsc;
use utoipa::{
    OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    Call, configurations,
    exchange::{Answer, Link},
    observe, orders, questions,
};
use crate::api::{Refusal, RefusalKind};

/// Largest body taken, bytes.
const BODY_LIMIT: usize = 1 << 20;

/// What holds for all routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "lb",
        version = "1",
        description = "The API of the lb daemon: HTTP/1.1 and JSON over its Unix socket \
            (`curl --unix-socket /run/lb/lb.sock http://lb/v1/status`), or over TCP with `lb run --api-listen`, where \
            only questions are answered unless the token of `--api-token-file` is sent along.\n\n\
            Requests are validated like the configuration file, with all errors at once; one that is refused changes \
            nothing. Orders go through the file: what they change stands there. Of two clients that change what they \
            saw none is lost if both send the `ETag` of `GET /v1/config` as `If-Match`: the later one is refused \
            with 412."
    ),
    components(schemas(Refusal, RefusalKind)),
    tags(
        (name = "questions", description = "What is: nothing changes by asking."),
        (name = "orders", description = "Changes of one thing."),
        (name = "configurations", description = "Changes as a whole, what they would do, and the way back."),
        (name = "monitoring", description = "For monitoring systems.")
    )
)]
struct Common;

/// All routes; calls go to the daemon, which gets `patience` to answer.
pub(super) fn router(calls: mpsc::Sender<Call>, patience: Duration) -> Router {
    let (router, document) = described().split_for_parts();
    router
        .route("/v1/openapi.json", get(async move || Json(document)))
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
        .with_state(Link { calls, patience })
}

/// Each route with its description.
fn described() -> OpenApiRouter<Link> {
    let mut common = Common::openapi();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    common.components.get_or_insert_default().add_security_scheme("token", bearer);
    OpenApiRouter::with_openapi(common)
        .merge(questions::routes())
        .merge(orders::routes())
        .merge(observe::routes())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        // Texts of whole configurations may be longer.
        .merge(configurations::routes())
}
