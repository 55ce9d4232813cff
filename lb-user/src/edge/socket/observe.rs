//! Routes for monitoring systems, answered with text: metrics, and whether the daemon lives and is ready.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    exchange::{Answer, Daemon, Link},
    refusals::AnyTime,
};
use crate::api::{Request, Response, metrics};

pub(super) fn routes() -> OpenApiRouter<Link> {
    OpenApiRouter::new().routes(routes!(metrics)).routes(routes!(healthz)).routes(routes!(readyz))
}

/// What Prometheus scrapes.
#[utoipa::path(get, path = "/metrics", tag = "monitoring", responses(
    (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
    AnyTime
))]
async fn metrics(daemon: Daemon) -> HttpResponse {
    let answer = daemon.ask(Request::Metrics).await;
    match &*answer.1 {
        Response::Metrics(metrics) => {
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.render()).into_response()
        }
        _ => answer.into_response(),
    }
}

/// Whether the daemon lives: it answers.
#[utoipa::path(get, path = "/healthz", tag = "monitoring", responses(
    (status = 200, description = "It answers", body = String),
    AnyTime
))]
async fn healthz(daemon: Daemon) -> HttpResponse {
    match status(&daemon).await {
        Ok(_) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(answer) => answer.into_response(),
    }
}

/// Packets meet its programs, and the tables are as the configuration wants them.
#[utoipa::path(get, path = "/readyz", tag = "monitoring", responses(
    (status = 200, description = "It is ready", body = String),
    (status = 503, description = "Why it is not, a line each", body = String)
))]
async fn readyz(daemon: Daemon) -> HttpResponse {
    match status(&daemon).await {
        Ok(status) => {
            let why = metrics::unready(&status);
            if why.is_empty() {
                text(StatusCode::OK, "ready\n".to_owned())
            } else {
                text(StatusCode::SERVICE_UNAVAILABLE, why.join("\n") + "\n")
            }
        }
        Err(answer) => answer.into_response(),
    }
}

async fn status(daemon: &Link) -> Result<Box<crate::api::Status>, Answer> {
    match daemon.ask(Request::Status).await {
        Answer(code, response) => match *response {
            Response::Status(status) => Ok(status),
            other => Err(Answer(code, Box::new(other))),
        },
    }
}

fn text(status: StatusCode, text: String) -> HttpResponse {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
