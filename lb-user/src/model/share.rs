//! How much of its configured weight a backend has: less while it starts slowly, what its agent asks for, and less if it
//! answers more slowly than the others. In few steps, as each moves slots.

use std::time::Duration;

use super::{check, service::Pool};

/// What moves the weights of a pool's backends, beside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shares {
    /// For so long a backend that comes up grows to its weight; zero: it has all of it at once.
    pub slow_start: Duration,
    /// What else they follow.
    pub weights: Weights,
    /// Whom to ask for each backend's share.
    pub agent: Option<check::Agent>,
}

impl Pool {
    /// Weight in the table of a backend that has so many percent, each of what the one before left, of its own. Pools
    /// whose weights move have a hundred times the weights of others, so that small ones have steps, too.
    pub fn table_weight(&self, weight: u16, percents: &[u16]) -> u32 {
        if self.shares == Shares::default() { u32::from(weight) } else { share(weight, percents) }
    }
}

/// What the weights of a pool follow, beside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Weights {
    /// Nothing.
    #[default]
    Fixed,
    /// How fast backends answer their probes.
    Latency,
}

/// Steps in which a backend that returns gets its weight.
const RAMP: u32 = 5;

/// Percent of its weight that a backend has this long after its return, if it starts slowly for `length`.
pub fn ramp(since: Duration, length: Duration) -> u16 {
    if since >= length {
        return 100;
    }
    // Below 4, as it is less than the whole.
    let quarter = (since.as_nanos() * u128::from(RAMP - 1) / length.as_nanos().max(1)) as u32;
    ((quarter + 1) * 100 / RAMP) as u16
}

/// A hundred times a weight of so many percent each.
fn share(weight: u16, percents: &[u16]) -> u32 {
    let whole = u64::from(weight) * 100;
    let part = percents.iter().fold(whole, |part, &percent| part * u64::from(percent) / 100);
    match whole > 0 && percents.iter().all(|&percent| percent > 0) {
        // At most 100 × 10,000 × 2.
        true => part.max(1) as u32,
        false => 0,
    }
}

/// How fast a backend answers, and what share follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Mean of the last probes that succeeded, seconds; 0 before the first.
    mean: f64,
    level: Level,
}

/// Levels below the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Level(u8);

impl Latency {
    /// Of a new probe counts one part of so many.
    const MEMORY: f64 = 8.0;
    /// The lowest level: half of the weight.
    const LOWEST: u8 = 5;
    /// Percent by which a level is lower.
    const STEP: u16 = 10;
    /// What is faster than this counts as fast as this, seconds: differences below say nothing about a server.
    const FAST: f64 = 0.001;

    /// A probe succeeded and took so long.
    pub fn observe(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.mean = if self.mean == 0.0 { took } else { self.mean + (took - self.mean) / Self::MEMORY };
    }

    /// Mean of the last probes, if there were any.
    pub fn mean(&self) -> Option<Duration> {
        (self.mean > 0.0).then(|| Duration::from_secs_f64(self.mean))
    }

    /// Goes one level towards what the median of the pool's backends makes of it. Whether it moved.
    ///
    /// A backend that takes twice as long as the median is due half of its weight. It goes down a level when all of that
    /// level is due, and back when not even half of it is, so that what lies between does not go back and forth.
    pub fn follow(&mut self, median: Duration) -> bool {
        if self.mean == 0.0 || median.is_zero() {
            return false;
        }
        let slower = self.mean.max(Self::FAST) / median.as_secs_f64().max(Self::FAST);
        // 1 is as fast as the median, or faster; 2 is the lowest level.
        let due = ((slower - 1.0) * f64::from(Self::LOWEST)).clamp(0.0, f64::from(Self::LOWEST));
        let now = f64::from(self.level.0);
        if due >= now + 1.0 {
            self.level.0 += 1;
        } else if due <= now - 0.5 {
            self.level.0 -= 1;
        } else {
            return false;
        }
        true
    }

    /// Percent of its weight.
    pub const fn percent(&self) -> u16 {
        100 - self.level.0 as u16 * Self::STEP
    }
}

/// The median of what backends take; zero of none.
pub fn median(mut means: Vec<Duration>) -> Duration {
    means.sort_unstable();
    means.get(means.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slow_start_has_five_steps() {
        let length = Duration::from_secs(40);
        let percents: Vec<u16> = (0..=50).map(|second| ramp(Duration::from_secs(second), length)).collect();
        let mut steps = percents.clone();
        steps.dedup();
        assert_eq!(steps, [20, 40, 60, 80, 100]);
        assert_eq!((percents[9], percents[10], percents[39], percents[40]), (20, 40, 80, 100));
        assert_eq!(ramp(Duration::ZERO, Duration::ZERO), 100);
    }

    #[test]
    fn shares() {
        for (weight, percents, expected) in [
            (100, &[100, 100][..], 10_000),
            (1, &[20][..], 20),
            (1, &[5, 20][..], 1),
            (0, &[100][..], 0),
            (100, &[100, 0][..], 0),
            (10_000, &[200][..], 2_000_000),
        ] {
            assert_eq!(share(weight, percents), expected, "{weight} {percents:?}");
        }
    }

    fn of(millis: u64) -> Latency {
        let mut latency = Latency::default();
        latency.observe(Duration::from_millis(millis));
        latency
    }

    #[test]
    fn a_slower_backend_gets_less_step_by_step_and_not_below_half() {
        let median = Duration::from_millis(10);
        for (millis, percents) in [
            (10, &[100][..]),
            (1, &[100][..]),
            (11, &[100][..]),
            (13, &[90][..]),
            (17, &[90, 80, 70][..]),
            (1000, &[90, 80, 70, 60, 50, 50][..]),
        ] {
            let mut latency = of(millis);
            for &percent in percents {
                latency.follow(median);
                assert_eq!(latency.percent(), percent, "{millis}");
            }
            assert!(!latency.follow(median), "{millis}: it has arrived");
        }
        // Below a millisecond all are alike.
        let mut quick = Latency::default();
        quick.observe(Duration::from_micros(900));
        assert!(!quick.follow(Duration::from_micros(100)));
        assert!(!Latency::default().follow(median), "nothing is known");
    }

    #[test]
    fn it_comes_back_and_does_not_waver() {
        let median = Duration::from_millis(10);
        let mut latency = of(30);
        while latency.follow(median) {}
        assert_eq!(latency.percent(), 50);
        for _ in 0..100 {
            latency.observe(Duration::from_millis(10));
        }
        let mut moves = 0;
        while latency.follow(median) {
            moves += 1;
        }
        assert_eq!((moves, latency.percent()), (5, 100));
    }

    #[test]
    fn medians() {
        let millis = |numbers: &[u64]| numbers.iter().map(|&n| Duration::from_millis(n)).collect();
        assert_eq!(median(Vec::new()), Duration::ZERO);
        assert_eq!(median(millis(&[3])), Duration::from_millis(3));
        assert_eq!(median(millis(&[9, 1])), Duration::from_millis(1));
        assert_eq!(median(millis(&[9, 1, 5])), Duration::from_millis(5));
    }

    proptest! {
        /// Whatever it takes, one look moves it by at most a step, and looks that see the same come to rest.
        #[test]
        fn steps_are_small_and_end(took in proptest::collection::vec(0u64..100_000, 1..50), median in 0u64..100_000) {
            let median = Duration::from_micros(median);
            let mut latency = Latency::default();
            for micros in took {
                latency.observe(Duration::from_micros(micros));
                let before = latency.percent();
                let moved = latency.follow(median);
                let step = if moved { Latency::STEP } else { 0 };
                prop_assert_eq!(latency.percent().abs_diff(before), step);
                prop_assert!((50..=100).contains(&latency.percent()));
            }
            prop_assert!((0..10).any(|_| !latency.follow(median)));
        }

        #[test]
        fn a_ramp_only_rises(length in 1u64..1000, at in proptest::collection::vec(0u64..1000, 2..20)) {
            let mut at = at;
            at.sort_unstable();
            let percents: Vec<u16> =
                at.iter().map(|&at| ramp(Duration::from_secs(at), Duration::from_secs(length))).collect();
            prop_assert!(percents.is_sorted());
            prop_assert!(percents.iter().all(|percent| (20..=100).contains(percent)));
        }
    }
}
