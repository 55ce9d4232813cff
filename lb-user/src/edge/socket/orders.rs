//! Orders: changes of one thing each.

use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    exchange::{Answer, IfMatch, Link, Orders},
    input::{In, Input},
    refusals::{AnyTime, Invalid, NotDone, Unfit},
};
use crate::api::{BackendPatch, BackendSpec, Done, Edit, PoolPatch, PoolSpec, ServicePatch, ServiceSpec};

pub(super) fn routes() -> OpenApiRouter<Link> {
    OpenApiRouter::new()
        .routes(routes!(add_service))
        .routes(routes!(set_service, delete_service))
        .routes(routes!(add_pool))
        .routes(routes!(set_pool, delete_pool))
        .routes(routes!(add_backend))
        .routes(routes!(set_backend, delete_backend))
}

/// Adds a service.
#[utoipa::path(post, path = "/v1/services", tag = "orders", params(IfMatch), request_body = ServiceSpec, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn add_service(orders: Orders, Input(spec): Input<ServiceSpec>) -> Answer {
    orders.edit(Edit::AddService(spec)).await
}

/// Changes a service: only the fields given.
#[utoipa::path(patch, path = "/v1/services/{name}", tag = "orders", params(IfMatch, ("name" = String, Path, description = "Name of the service")), request_body = ServicePatch, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn set_service(orders: Orders, In(name): In<String>, Input(patch): Input<ServicePatch>) -> Answer {
    orders.edit(Edit::SetService { name, patch }).await
}

/// Removes a service.
#[utoipa::path(delete, path = "/v1/services/{name}", tag = "orders", params(IfMatch, ("name" = String, Path, description = "Name of the service")), responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Invalid, NotDone))]
async fn delete_service(orders: Orders, In(name): In<String>) -> Answer {
    orders.edit(Edit::DeleteService { name }).await
}

/// Adds a pool.
#[utoipa::path(post, path = "/v1/pools", tag = "orders", params(IfMatch), request_body = PoolSpec, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn add_pool(orders: Orders, Input(spec): Input<PoolSpec>) -> Answer {
    orders.edit(Edit::AddPool(spec)).await
}

/// Changes a pool: only the fields given.
#[utoipa::path(patch, path = "/v1/pools/{name}", tag = "orders", params(IfMatch, ("name" = String, Path, description = "Name of the pool")), request_body = PoolPatch, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn set_pool(orders: Orders, In(name): In<String>, Input(patch): Input<PoolPatch>) -> Answer {
    orders.edit(Edit::SetPool { name, patch }).await
}

/// Removes a pool that no service points at.
#[utoipa::path(delete, path = "/v1/pools/{name}", tag = "orders", params(IfMatch, ("name" = String, Path, description = "Name of the pool")), responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Invalid, NotDone))]
async fn delete_pool(orders: Orders, In(name): In<String>) -> Answer {
    orders.edit(Edit::DeletePool { name }).await
}

/// Adds a backend.
#[utoipa::path(post, path = "/v1/pools/{pool}/backends", tag = "orders", params(IfMatch, ("pool" = String, Path, description = "Name of the pool")), request_body = BackendSpec, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn add_backend(orders: Orders, In(pool): In<String>, Input(backend): Input<BackendSpec>) -> Answer {
    orders.edit(Edit::AddBackend { pool, backend }).await
}

/// Changes a backend: only the fields given.
#[utoipa::path(patch, path = "/v1/pools/{pool}/backends/{name}", tag = "orders", params(IfMatch, ("pool" = String, Path, description = "Name of the pool"), ("name" = String, Path, description = "Name of the backend")), request_body = BackendPatch, responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Unfit, NotDone))]
async fn set_backend(
    orders: Orders,
    In((pool, name)): In<(String, String)>,
    Input(patch): Input<BackendPatch>,
) -> Answer {
    orders.edit(Edit::SetBackend { pool, name, patch }).await
}

/// Removes a backend.
#[utoipa::path(delete, path = "/v1/pools/{pool}/backends/{name}", tag = "orders", params(IfMatch, ("pool" = String, Path, description = "Name of the pool"), ("name" = String, Path, description = "Name of the backend")), responses((status = 200, description = "Done: it is in force and stands in the file", body = Done, headers(("etag" = String, description = "Of the configuration now in force"))), AnyTime, Invalid, NotDone))]
async fn delete_backend(orders: Orders, In((pool, name)): In<(String, String)>) -> Answer {
    orders.edit(Edit::DeleteBackend { pool, name }).await
}
