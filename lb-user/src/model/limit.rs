//! How much one source may send: in the words of people, and in those of the tables.

use std::{fmt, time::Duration};

use lb_common::abi::Rate;

/// What one source of a service may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimit {
    /// Bits of the client's address that share the limit: 1 to 32 for a service of IPv4, to 128 for one of IPv6.
    pub prefix: u8,
    /// Packets.
    pub packets: Option<Allowance>,
    /// TCP connections it opens.
    pub connections: Option<Allowance>,
}

impl SourceLimit {
    /// Bits where the file names none: of IPv4 a single address, of IPv6 what one site has (RFC 6177).
    pub const fn default_prefix(is_v4: bool) -> u8 {
        if is_v4 { 32 } else { 64 }
    }
}

/// How often, and how much of that at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// In the long run.
    pub rate: Frequency,
    /// So many may come at once after a time of silence; at least 1.
    pub burst: u32,
}

/// So many in a second or a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub per: Period,
}

/// What a frequency counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
}

impl Period {
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
        }
    }
}

/// The lowest frequency: one in three seconds. With less the tables' interval would overflow.
pub const LEAST: Frequency = Frequency { count: 20, per: Period::Minute };

/// The highest frequency. With more the interval would be too short to be told exactly.
pub const MOST: Frequency = Frequency { count: 1_000_000, per: Period::Second };

/// A burst may be as much as comes in this time.
pub const LONGEST_BURST: Duration = Duration::from_secs(3600);

impl Frequency {
    /// Whether it is within [`LEAST`] and [`MOST`].
    pub fn is_in_range(self) -> bool {
        let (count, seconds) = (u64::from(self.count), self.per.seconds());
        let at_least = count * LEAST.per.seconds() >= u64::from(LEAST.count) * seconds;
        at_least && count * MOST.per.seconds() <= u64::from(MOST.count) * seconds
    }

    /// The largest burst.
    pub fn most_at_once(self) -> u32 {
        let most = u64::from(self.count) * LONGEST_BURST.as_secs() / self.per.seconds();
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

impl Allowance {
    /// As the tables have it, by a clock of so many ticks a second.
    ///
    /// Rounded so that who keeps to the rate and the burst is never refused: the interval down, at most by one part in
    /// a hundred; the tolerance up to whole ticks, and one on top, by which the clock may be late.
    pub fn to_rate(self, ticks_per_second: u32) -> Rate {
        let Self { rate, burst } = self;
        let fractions = (u64::from(ticks_per_second) * rate.per.seconds()) << Rate::FRACTION;
        let interval = fractions / u64::from(rate.count);
        let ahead = u128::from(burst.saturating_sub(1)) * u128::from(fractions);
        let tolerance = ahead.div_ceil(u128::from(rate.count) << Rate::FRACTION) + 1;
        Rate {
            interval: u32::try_from(interval).unwrap_or(u32::MAX).max(1),
            tolerance: u32::try_from(tolerance).unwrap_or(u32::MAX),
        }
    }
}

/// `10000/s`, `30/m`.
impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            Period::Second => 's',
            Period::Minute => 'm',
        };
        write!(f, "{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn per_second(count: u32) -> Frequency {
        Frequency { count, per: Period::Second }
    }

    const fn per_minute(count: u32) -> Frequency {
        Frequency { count, per: Period::Minute }
    }

    /// Every choice of the kernel's clock.
    const CLOCKS: [u32; 5] = [100, 250, 300, 1000, 1024];

    #[test]
    fn the_range_has_its_ends() {
        for (rate, good) in [
            (per_minute(20), true),
            (per_minute(19), false),
            (per_second(1), true),
            (per_second(1_000_000), true),
            (per_second(1_000_001), false),
            (per_minute(60_000_000), true),
            (per_minute(60_000_001), false),
        ] {
            assert_eq!(rate.is_in_range(), good, "{rate}");
        }
        assert_eq!(per_second(100).most_at_once(), 360_000);
        assert_eq!(per_minute(20).most_at_once(), 1200);
        assert_eq!(per_second(1_000_000).most_at_once(), 3_600_000_000);
    }

    #[test]
    fn rates_in_the_tables_terms() {
        for (rate, burst, clock, interval, tolerance) in [
            // A tick each, and one for the clock.
            (per_second(250), 1, 250, 1 << 20, 1),
            (per_second(250), 11, 250, 1 << 20, 11),
            // 40 in a tick: 999 more are 24.975 ticks.
            (per_second(10_000), 1000, 250, 26_214, 26),
            (per_minute(20), 1, 1024, 3072 << 20, 1),
            (per_minute(20), 3, 1000, 3000 << 20, 6001),
            (per_second(1_000_000), 1, 100, 104, 1),
        ] {
            let found = Allowance { rate, burst }.to_rate(clock);
            assert_eq!(found, Rate { interval, tolerance }, "{rate} {burst} {clock}");
        }
    }

    #[test]
    fn an_interval_is_never_too_long_and_at_most_one_percent_too_short() {
        for clock in CLOCKS {
            for count in [1, 2, 3, 7, 100, 999, 4321, 65_537, 999_999, 1_000_000] {
                let Rate { interval, .. } = Allowance { rate: per_second(count), burst: 1 }.to_rate(clock);
                let exact = f64::from(clock) * f64::from(1 << Rate::FRACTION) / f64::from(count);
                let short = (exact - f64::from(interval)) / exact;
                assert!((0.0..0.01).contains(&short), "{count}/s at {clock}: {interval}, {short}");
            }
        }
    }

    /// The slowest and largest that may be configured fit the numbers of the tables, and half of their clock's circle.
    #[test]
    fn the_extremes_fit() {
        for clock in CLOCKS {
            for rate in [LEAST, MOST] {
                let found = Allowance { rate, burst: rate.most_at_once() }.to_rate(clock);
                assert!(found.interval < u32::MAX && found.tolerance < 1 << 29, "{found:?}");
            }
        }
    }
}
