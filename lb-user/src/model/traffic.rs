//! Totals and rates from counters that never stop and may change owner.

use std::{collections::BTreeMap, hash::Hash, time::Duration};

use lb_common::abi::Counter;

/// Counters as they stand, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By counter number.
    pub forwarded: Vec<Counter>,
    /// By [`lb_common::abi::Reason::counter`].
    pub reasons: Vec<Counter>,
}

/// What was counted for one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Since the owner appeared.
    pub total: Counter,
    /// Packets per second between the last two readings.
    pub packets_per_second: f64,
    /// Bytes per second between the last two readings.
    pub bytes_per_second: f64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            packets_per_second: self.packets_per_second + other.packets_per_second,
            bytes_per_second: self.bytes_per_second + other.bytes_per_second,
        }
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), std::ops::Add::add)
    }
}

/// Follows counters by place and adds what they gained to whoever owns the place at the time.
#[derive(Clone, Debug)]
pub struct Meter<K> {
    last: Vec<Counter>,
    read_at: Option<Duration>,
    traffic: BTreeMap<K, Traffic>,
}

impl<K> Default for Meter<K> {
    fn default() -> Self {
        Self { last: Vec::new(), read_at: None, traffic: BTreeMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Meter<K> {
    /// Takes a reading. `owner` says whose a place is now; owners that it no longer names are forgotten.
    pub fn read(&mut self, now: Duration, counters: &[Counter], mut owner: impl FnMut(usize) -> Option<K>) {
        let elapsed = self.read_at.map(|then| now.saturating_sub(then).as_secs_f64());
        let mut gained: BTreeMap<K, Counter> = BTreeMap::new();
        for (place, &counter) in counters.iter().enumerate() {
            let before = self.last.get(place).copied().unwrap_or_default();
            let Some(owner) = owner(place) else { continue };
            let gain = Counter {
                packets: counter.packets.wrapping_sub(before.packets),
                bytes: counter.bytes.wrapping_sub(before.bytes),
            };
            let sum = gained.entry(owner).or_default();
            *sum = *sum + gain;
        }
        self.traffic.retain(|owner, _| gained.contains_key(owner));
        for (owner, gain) in gained {
            let traffic = self.traffic.entry(owner).or_default();
            traffic.total = traffic.total + gain;
            let rate = |count: u64| match elapsed {
                Some(seconds) if seconds > 0.0 => count as f64 / seconds,
                _ => 0.0,
            };
            traffic.packets_per_second = rate(gain.packets);
            traffic.bytes_per_second = rate(gain.bytes);
        }
        self.last = counters.to_vec();
        self.read_at = Some(now);
    }

    /// What an owner has, zero if it is unknown.
    pub fn of(&self, owner: &K) -> Traffic {
        self.traffic.get(owner).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(packets: u64) -> Counter {
        Counter { packets, bytes: packets * 100 }
    }

    #[test]
    fn what_a_place_gains_belongs_to_its_owner_at_the_time() {
        let mut meter = Meter::default();
        let second = Duration::from_secs;
        meter.read(second(1), &[counter(5), counter(7)], |_| Some("a"));
        assert_eq!(meter.of(&"a").total.packets, 12);
        meter.read(second(3), &[counter(15), counter(17)], |place| Some(if place == 0 { "a" } else { "b" }));
        assert_eq!(meter.of(&"a").total.packets, 22);
        assert_eq!(meter.of(&"b").total.packets, 10, "not what the place had counted for its earlier owner");
        assert!((meter.of(&"a").packets_per_second - 5.0).abs() < 1e-9);
        assert!((meter.of(&"b").bytes_per_second - 500.0).abs() < 1e-9);
        meter.read(second(4), &[counter(15), counter(18)], |place| (place == 1).then_some("b"));
        assert_eq!(meter.of(&"a").total.packets, 0, "forgotten");
        assert_eq!(meter.of(&"b").total.packets, 11);
    }
}
