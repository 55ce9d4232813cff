//! When slots leave the transition: once nobody is left whom the change of owner could hurt.
//!
//! A slot in transition is watched. It has settled when it was watched for the idle time and no flow was seen within
//! that time which is remembered on another backend than the slot's owner; at the latest after the longest time.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    abi::{Flow, Ticks},
    select,
};

use super::{layout::PoolPlace, memory::Memory};

/// How a pool's transitions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A flow that was not seen for this long is over.
    pub idle: Duration,
    /// A transition ends after this long, whatever is remembered.
    pub longest: Duration,
}

/// What is remembered of one pool at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Slots in transition.
    pub in_transition: u32,
    /// Flows remembered and seen within the idle time.
    pub remembered: u32,
    /// Those of them by backend number.
    pub by_number: BTreeMap<u16, u32>,
    /// Slots in transition, by the number of their previous owner.
    pub leaving: BTreeMap<u16, u32>,
    /// Slots that have settled.
    pub settled: Vec<u32>,
    /// When the last transition will have ended, if no flow is seen any more; from now.
    pub ends_in: Option<Duration>,
}

/// The flow table as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowReading {
    /// Time of the reading.
    pub now: Ticks,
    /// Every remembered flow.
    pub flows: Vec<Flow>,
}

/// Since when each slot is in transition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch(BTreeMap<u32, Duration>);

impl Watch {
    /// Looks at one pool.
    pub fn look(
        &mut self,
        now: Duration,
        memory: &Memory,
        place: &PoolPlace,
        reading: &FlowReading,
        ticks_per_second: u32,
        patience: Patience,
    ) -> Summary {
        let mut summary = Summary::default();
        let end = place.slot_base + place.slots;
        let slots = &memory.slots[place.slot_base as usize..end as usize];
        let moving: Vec<u32> = (place.slot_base..end)
            .zip(slots)
            .filter(|(_, slot)| slot.in_transition())
            .map(|(at, _)| at)
            .collect();

        let idle = ticks(patience.idle, ticks_per_second);
        // The last time that each slot's change of owner would have hurt, as ticks ago.
        let mut hurt: BTreeMap<u32, u32> = BTreeMap::new();
        for flow in &reading.flows {
            let age = reading.now.since(flow.seen());
            let number = flow.backend().wrapping_sub(place.backend_base);
            let (true, Ok(number)) = (number < place.capacity && age <= idle, u16::try_from(number)) else {
                continue;
            };
            if place.epoch(number) != flow.epoch() {
                continue;
            }
            summary.remembered += 1;
            *summary.by_number.entry(number).or_default() += 1;
            let at = place.slot_base + select::slot_of(flow.id, place.slots);
            if memory.slots[at as usize].owner() != Some(number) {
                let youngest = hurt.entry(at).or_insert(age);
                *youngest = age.min(*youngest);
            }
        }

        let known: Vec<u32> = self.0.range(place.slot_base..end).map(|(&at, _)| at).collect();
        for at in known.into_iter().filter(|at| moving.binary_search(at).is_err()) {
            self.0.remove(&at);
        }
        for at in moving {
            let since = *self.0.entry(at).or_insert(now);
            let watched = now.saturating_sub(since);
            let quiet = match hurt.get(&at) {
                Some(&age) => duration(age, ticks_per_second).min(watched),
                None => watched,
            };
            let remaining =
                (patience.idle.saturating_sub(quiet)).min(patience.longest.saturating_sub(watched));
            if remaining.is_zero() {
                summary.settled.push(at);
            }
            summary.in_transition += 1;
            if let Some(previous) = memory.previous[at as usize].owner() {
                *summary.leaving.entry(previous).or_default() += 1;
            }
            summary.ends_in = summary.ends_in.max(Some(remaining));
        }
        summary
    }

    /// Whether any slot is watched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A duration in ticks.
pub fn ticks(duration: Duration, ticks_per_second: u32) -> u32 {
    let ticks = duration.as_millis() * u128::from(ticks_per_second) / 1000;
    // Half of the clock's range is as far as it can tell.
    u32::try_from(ticks).unwrap_or(u32::MAX).min(1 << 30)
}

fn duration(ticks: u32, ticks_per_second: u32) -> Duration {
    Duration::from_secs_f64(f64::from(ticks) / f64::from(ticks_per_second.max(1)))
}
