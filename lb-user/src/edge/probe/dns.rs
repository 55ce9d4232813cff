//! The DNS check: one query by UDP. The messages are the model's business.

use tokio::time::Instant;

use super::datagram;
use crate::model::{
    dns::{Answer, Code, Data, Query},
    probe::{ProbeFailure, ProbeSpec},
};

/// `query` is answered with the code `expect`, and `wanted` is among the answers.
pub(super) async fn check(
    spec: &ProbeSpec,
    deadline: Instant,
    id: u16,
    (query, expect, wanted): (&Query, Code, Option<&Data>),
) -> Result<String, ProbeFailure> {
    let mut bad = None;
    // What does not answer the question may be anybody's: the answer may yet come.
    let judge = |message: &[u8]| match query.read(id, message) {
        Ok(answer) => Some(verdict(query, expect, wanted, answer)),
        Err(error) => {
            bad = Some(error);
            None
        }
    };
    let result = datagram::exchange(spec, deadline, &query.message(id), judge).await;
    match (result, bad) {
        (Err(ProbeFailure::NoReply { target, .. }), Some(error)) => {
            Err(ProbeFailure::BadAnswer { target, error: error.to_string() })
        }
        (result, _) => result,
    }
}

fn verdict(
    query: &Query,
    expected: Code,
    wanted: Option<&Data>,
    answer: Answer,
) -> Result<String, ProbeFailure> {
    let Answer { code, is_truncated, count, data } = answer;
    if code != expected {
        return Err(ProbeFailure::DnsCode { got: code, expected });
    }
    match wanted {
        Some(wanted) if !data.contains(wanted) => Err(ProbeFailure::DnsAnswer {
            query: query.clone(),
            got: data,
            is_truncated,
            expected: wanted.clone(),
        }),
        Some(wanted) => Ok(format!("{code} {wanted}")),
        None => Ok(format!("{code}, {count} answer{}", if count == 1 { "" } else { "s" })),
    }
}
