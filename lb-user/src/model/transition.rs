//! When slots leave the transition: once nobody is left whom the change of owner could hurt.
//!
//! A slot in transition is watched. It has settled when it was watched for the idle time and no flow was seen within
//! that time which is remembered on another backend than the slot's owner; at the latest after the longest time.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    abi::{Flow, Ticks},
    select, track,
};

use super::{
    layout::{Layout, PoolPlace},
    memory::Memory,
    plan::Change,
};

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

/// Since when each slot is in transition, for exactly those that are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch(BTreeMap<u32, Duration>);

impl Watch {
    /// Tables that were found: their transitions are watched from now on, however old they are.
    pub fn found(now: Duration, memory: &Memory) -> Self {
        let slots = (0u32..).zip(&memory.slots);
        Self(slots.filter(|(_, slot)| slot.in_transition()).map(|(at, _)| (at, now)).collect())
    }

    /// A change was carried out. A slot that leaves the transition and enters another is watched anew, however
    /// short the moment between.
    pub fn follow(&mut self, now: Duration, change: &Change) {
        let Change::Slots(slots) = change else { return };
        for &(at, slot) in slots {
            if slot.in_transition() {
                self.0.entry(at).or_insert(now);
            } else {
                self.0.remove(&at);
            }
        }
    }

    /// Looks at one pool.
    pub fn look(
        &self,
        now: Duration,
        memory: &Memory,
        (layout, place): (&Layout, &PoolPlace),
        reading: &FlowReading,
        ticks_per_second: u32,
        patience: Patience,
    ) -> Summary {
        let mut summary = Summary::default();
        let end = place.slot_base + place.slots;
        let idle = idle_ticks(patience.idle, ticks_per_second);
        let patience = Patience { idle: duration(idle, ticks_per_second).max(patience.idle), ..patience };
        // The last time that each slot's change of owner would have hurt, as ticks ago.
        let mut hurt: BTreeMap<u32, u32> = BTreeMap::new();
        for flow in reading.flows.iter().filter(|flow| flow.id & Flow::BESIDE == 0) {
            let age = reading.now.since(flow.seen());
            let number = flow.backend().wrapping_sub(place.backend_base);
            let (true, Ok(number)) = (number < place.capacity && age <= idle, u16::try_from(number)) else {
                continue;
            };
            if layout.epoch(flow.backend()) != flow.epoch() {
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

        for (&at, &since) in self.0.range(place.slot_base..end) {
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
}

/// After how many ticks without a mark a remembered flow has surely been silent for `idle`: packets that come soon
/// after a mark leave none.
pub fn idle_ticks(idle: Duration, ticks_per_second: u32) -> u32 {
    // One more for the clock, which may be about to tick.
    ticks(idle, ticks_per_second) + track::REFRESH + 1
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

#[cfg(test)]
mod tests;
