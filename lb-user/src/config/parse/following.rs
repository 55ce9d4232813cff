//! What a pool's backends and their weights follow beside its check: the keys of shortage, slow start and agents.

use std::time::Duration;

use super::{
    super::{
        error::Problem,
        keys,
        reader::{Node, Placed, integer_in, one_of, text},
    },
    MAX_BACKENDS,
    check::read_timing,
    duration_within,
};
use crate::model::{
    check::Agent,
    service::Name,
    share::{Shares, Weights},
    shortage::{OnAllDown, Shortage},
};

/// Range of a slow start.
const SLOW_START: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What is said about too few backends, as far as it could be read.
pub(super) struct ShortageDraft {
    min_up: u32,
    /// As it stands in the file; whether there is such a pool shows when all are read.
    pub(super) fallback: Option<Placed<String>>,
    then: OnAllDown,
}

impl ShortageDraft {
    pub(super) fn read(node: &Node<'_>) -> Self {
        let min_up = node.optional("min_up", integer_in(0..=MAX_BACKENDS as u32));
        Self {
            min_up: min_up.map_or(Shortage::MIN_UP, |min_up| min_up.value),
            fallback: node.optional("fallback", |item| Ok(text(item)?.to_owned())),
            then: node
                .optional("on_all_down", one_of(&OnAllDown::WORDS))
                .map(|word| word.value)
                .unwrap_or_default(),
        }
    }

    pub(super) fn finish(self) -> Shortage {
        let fallback = self.fallback.and_then(|name| Name::new(&name.value).ok());
        Shortage { min_up: self.min_up, fallback, then: self.then }
    }
}

pub(super) fn read(node: &Node<'_>) -> Shares {
    let slow_start = node.optional("slow_start", |item| duration_within(item, SLOW_START.0, SLOW_START.1));
    let words = &[("fixed", Weights::Fixed), ("latency", Weights::Latency)];
    let weights = node.optional("weights", one_of(words));
    if let Some(Placed { value: Weights::Latency, at }) = weights
        && !node.has("check")
    {
        node.report.add(at, &node.path_of("weights"), Problem::LatencyWithoutCheck);
    }
    Shares {
        slow_start: slow_start.map(|slow_start| slow_start.value).unwrap_or_default(),
        weights: weights.map(|weights| weights.value).unwrap_or_default(),
        agent: node.child("agent", &keys::AGENT).and_then(|agent| read_agent(&agent)),
    }
}

fn read_agent(node: &Node<'_>) -> Option<Agent> {
    let port = node.required("port", integer_in(1..=u16::MAX));
    let timing = read_timing(node);
    Some(Agent { port: port?.value, interval: timing.interval, timeout: timing.timeout })
}
