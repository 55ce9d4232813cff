//! What may come instead of an answer, described.

use utoipa::IntoResponses;

use crate::api::Refusal;

/// To any request.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described: the statuses are chosen where the answers are made")]
pub(super) enum AnyTime {
    /// The path, the query or a header cannot be read, or the body is no JSON.
    #[response(status = 400)]
    Unreadable(Refusal),
    /// Over TCP: the token is wrong.
    #[response(status = 401)]
    WrongToken(Refusal),
    /// Over TCP: this needs the token.
    #[response(status = 403)]
    ReadOnly(Refusal),
    /// The thing does not exist.
    #[response(status = 404)]
    NotFound(Refusal),
    /// The daemon is stopping, or too busy to answer.
    #[response(status = 503)]
    Unavailable(Refusal),
}

/// To a request with a body as well.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described: the statuses are chosen where the answers are made")]
pub(super) enum Unfit {
    /// The body did not come in time.
    #[response(status = 408)]
    Late(Refusal),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(Refusal),
    /// What is asked for is not valid: every reason, with its place.
    #[response(status = 422)]
    Invalid(Refusal),
}

/// To an order without a body: what would be left is not valid, every reason.
#[derive(IntoResponses)]
#[response(status = 422)]
#[expect(dead_code, reason = "only described: the statuses are chosen where the answers are made")]
pub(super) struct Invalid(Refusal);

/// To an order as well.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described: the statuses are chosen where the answers are made")]
pub(super) enum NotDone {
    /// The state of things forbids it now: another edit is being written, the file has errors, a configuration is on trial.
    #[response(status = 409)]
    Conflict(Refusal),
    /// Another configuration than those of `If-Match` is in force.
    #[response(status = 412)]
    Outdated(Refusal),
    /// It could not be carried out: a full disk.
    #[response(status = 500)]
    Failed(Refusal),
}
