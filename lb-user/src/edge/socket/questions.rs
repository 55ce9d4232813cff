//! Questions.

use axum::response::IntoResponse;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    exchange::{Answer, Daemon, Link},
    input::{Asked, In, Input},
    refusals::{AnyTime, NotDone, Unfit},
};
use crate::api::{
    CaptureQuery, EventView, EventsQuery, FlowsView, HealthView, PoolView, Request, ServiceView, Stats,
    Status, TraceSpec, TraceView,
};

pub(super) fn routes() -> OpenApiRouter<Link> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(health))
        .routes(routes!(services))
        .routes(routes!(service))
        .routes(routes!(pools))
        .routes(routes!(pool))
        .routes(routes!(stats))
        .routes(routes!(flows))
        .routes(routes!(trace))
        .routes(routes!(events))
        .routes(routes!(capture))
}

/// The balancer as a whole.
#[utoipa::path(get, path = "/v1/status", tag = "questions", responses((status = 200, description = "Interfaces, services, backends, warnings", body = Status), AnyTime))]
async fn status(daemon: Daemon) -> Answer {
    daemon.ask(Request::Status).await
}

/// Health of every backend.
#[utoipa::path(get, path = "/v1/health", tag = "questions", responses((status = 200, description = "By pool", body = Vec<HealthView>), AnyTime))]
async fn health(daemon: Daemon) -> Answer {
    daemon.ask(Request::Health).await
}

/// All services with their backends.
#[utoipa::path(get, path = "/v1/services", tag = "questions", responses((status = 200, description = "In the order of the file", body = Vec<ServiceView>), AnyTime))]
async fn services(daemon: Daemon) -> Answer {
    daemon.ask(Request::Services(None)).await
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{name}", tag = "questions", params(("name" = String, Path, description = "Name of the service")), responses((status = 200, description = "The service", body = ServiceView), AnyTime))]
async fn service(daemon: Daemon, In(name): In<String>) -> Answer {
    daemon.ask(Request::Services(Some(name))).await
}

/// All pools with their backends.
#[utoipa::path(get, path = "/v1/pools", tag = "questions", responses((status = 200, description = "In the order of the file", body = Vec<PoolView>), AnyTime))]
async fn pools(daemon: Daemon) -> Answer {
    daemon.ask(Request::Pools(None)).await
}

/// One pool.
#[utoipa::path(get, path = "/v1/pools/{name}", tag = "questions", params(("name" = String, Path, description = "Name of the pool")), responses((status = 200, description = "The pool", body = PoolView), AnyTime))]
async fn pool(daemon: Daemon, In(name): In<String>) -> Answer {
    daemon.ask(Request::Pools(Some(name))).await
}

/// Counters.
#[utoipa::path(get, path = "/v1/stats", tag = "questions", responses((status = 200, description = "By service and backend, and by reason", body = Stats), AnyTime))]
async fn stats(daemon: Daemon) -> Answer {
    daemon.ask(Request::Stats).await
}

/// What is remembered of flows.
#[utoipa::path(get, path = "/v1/flows", tag = "questions", responses((status = 200, description = "By pool", body = Vec<FlowsView>), AnyTime))]
async fn flows(daemon: Daemon) -> Answer {
    daemon.ask(Request::Flows).await
}

/// The way of a packet through the tables as they are.
#[utoipa::path(post, path = "/v1/trace", tag = "questions", request_body = TraceSpec, responses((status = 200, description = "Each step, and what becomes of it", body = TraceView), AnyTime, Unfit, NotDone))]
async fn trace(daemon: Daemon, Input(spec): Input<TraceSpec>) -> Answer {
    daemon.ask(Request::Trace(spec)).await
}

/// What happened: the events that are kept, or with `follow` those to come as well.
#[utoipa::path(get, path = "/v1/events", tag = "questions", params(EventsQuery), responses(
    (status = 200, description = "With `follow` a line of JSON for each, until the client goes away", content(
        (Vec<EventView> = "application/json"),
        (EventView = "application/x-ndjson")
    )),
    AnyTime
))]
async fn events(daemon: Daemon, Asked(query): Asked<EventsQuery>) -> axum::response::Response {
    if query.follow {
        daemon.stream(Request::Events(query), "application/x-ndjson").await
    } else {
        daemon.ask(Request::Events(query)).await.into_response()
    }
}

/// Packets and what becomes of them, from now on.
#[utoipa::path(get, path = "/v1/capture", tag = "questions", params(CaptureQuery), responses(
    (
        status = 200,
        description = "A pcapng file, until it is over or the client goes away",
        body = Vec<u8>,
        content_type = "application/x-pcapng"
    ),
    AnyTime,
    Unfit,
    NotDone
))]
async fn capture(daemon: Daemon, Asked(query): Asked<CaptureQuery>) -> axum::response::Response {
    daemon.stream(Request::Capture(query), "application/x-pcapng").await
}
