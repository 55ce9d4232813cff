//! Configurations as a whole.

use axum::extract::DefaultBodyLimit;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    exchange::{Answer, Daemon, IfMatch, Link, Orders},
    input::{Asked, Input},
    refusals::{AnyTime, Invalid, NotDone, Unfit},
};
use crate::api::{ApplySpec, ConfigText, Done, PastQuery, PastView, PlanView, Proposal, Request};

/// Largest body taken, bytes.
const BODY_LIMIT: usize = 64 << 20;

pub(super) fn routes() -> OpenApiRouter<Link> {
    OpenApiRouter::new()
        .routes(routes!(config, apply))
        .routes(routes!(plan))
        .routes(routes!(confirm))
        .routes(routes!(rollback))
        .routes(routes!(history))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// The configuration in force.
#[utoipa::path(get, path = "/v1/config", tag = "configurations", responses((status = 200, description = "Its text and its tag", body = ConfigText, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime))]
async fn config(daemon: Daemon) -> Answer {
    daemon.ask(Request::Config).await
}

/// Brings a configuration into force, on trial if asked for.
#[utoipa::path(put, path = "/v1/config", tag = "configurations", params(IfMatch), request_body = ApplySpec, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn apply(orders: Orders, Input(spec): Input<ApplySpec>) -> Answer {
    orders.give(Request::Apply(spec)).await
}

/// What a configuration would change.
#[utoipa::path(post, path = "/v1/config/plan", tag = "configurations", request_body = Proposal, responses((status = 200, description = "Differences, slots and flows that move", body = PlanView), AnyTime, Unfit))]
async fn plan(daemon: Daemon, Input(proposal): Input<Proposal>) -> Answer {
    daemon.ask(Request::Plan(proposal)).await
}

/// The configuration on trial stays.
#[utoipa::path(post, path = "/v1/config/confirm", tag = "configurations", params(IfMatch), responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, NotDone))]
async fn confirm(orders: Orders) -> Answer {
    orders.give(Request::Confirm).await
}

/// Goes back to a configuration of the history; without a number to the one before.
#[utoipa::path(post, path = "/v1/config/rollback", tag = "configurations", params(IfMatch, PastQuery), responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Invalid, NotDone))]
async fn rollback(orders: Orders, Asked(PastQuery { number }): Asked<PastQuery>) -> Answer {
    orders.give(Request::Rollback(number)).await
}

/// Configurations that were in force; with a number that one, with its text.
#[utoipa::path(get, path = "/v1/config/history", tag = "configurations", params(PastQuery), responses((status = 200, description = "The oldest first", body = Vec<PastView>), AnyTime))]
async fn history(daemon: Daemon, Asked(PastQuery { number }): Asked<PastQuery>) -> Answer {
    daemon.ask(Request::History(number)).await
}
