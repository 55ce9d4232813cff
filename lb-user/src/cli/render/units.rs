//! Numbers for people: SI prefixes (powers of 1000, never of 1024), two or three digits that matter.

/// `0.3 pps`, `12 pps`, `1.2 Mpps`.
pub(super) fn packets_per_second(rate: f64) -> String {
    scaled(rate, "pps")
}

/// From bytes per second: `3.4 Gbit/s`.
pub(super) fn bits_per_second(bytes_per_second: f64) -> String {
    scaled(bytes_per_second * 8.0, "bit/s")
}

/// `12`, `1.2 M`.
pub(super) fn count(number: u64) -> String {
    scaled(number as f64, "").trim_end().to_owned()
}

/// `12 B`, `3.4 GB`.
pub(super) fn bytes(number: u64) -> String {
    scaled(number as f64, "B")
}

/// `66.7%`, `0%`, `100%`; a share that is small but there never shows as nothing.
pub(super) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.1 {
        return "<0.1%".to_owned();
    }
    let text = format!("{share:.1}");
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// The largest unit that fits: `59s`, `2m`, `3h`, `5d`.
pub(super) fn duration(seconds: u64) -> String {
    const UNITS: [(u64, char); 3] = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let (size, unit) = UNITS.into_iter().find(|&(size, _)| seconds >= size).unwrap_or((1, 's'));
    format!("{}{unit}", seconds / size)
}

fn scaled(mut value: f64, unit: &str) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut prefix = 0;
    // 999.5 would be rounded to 1000: it is 1.0 of the next prefix.
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    // One decimal where it says something: `1.2 M`, `0.3`, but `12 M` and `5`.
    let whole = value >= 9.95 || (prefix == 0 && value.fract() == 0.0);
    let digits = if whole { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{digits} {}{unit}", PREFIXES[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_si_prefixes() {
        for (rate, want) in [
            (0.0, "0 pps"),
            (0.25, "0.2 pps"),
            (1.0, "1 pps"),
            (12.4, "12 pps"),
            (999.4, "999 pps"),
            (999.6, "1.0 kpps"),
            (1_234_000.0, "1.2 Mpps"),
            (9_960_000.0, "10 Mpps"),
            (612_000.0, "612 kpps"),
            (999_600.0, "1.0 Mpps"),
        ] {
            assert_eq!(packets_per_second(rate), want, "{rate}");
        }
        assert_eq!(bits_per_second(425e6), "3.4 Gbit/s");
    }

    #[test]
    fn totals_fit_up_to_the_last_counter_value() {
        for (number, want) in
            [(0, "0"), (999, "999"), (1_000, "1.0 k"), (1_250_000_000, "1.2 G"), (u64::MAX, "18 E")]
        {
            assert_eq!(count(number), want, "{number}");
        }
        assert_eq!(bytes(3_400_000_000), "3.4 GB");
        assert_eq!(bytes(12), "12 B");
    }

    #[test]
    fn durations_take_the_largest_unit() {
        for (seconds, want) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (3_600, "1h"),
            (86_399, "23h"),
            (432_000, "5d"),
        ] {
            assert_eq!(duration(seconds), want);
        }
    }

    #[test]
    fn shares() {
        for (share, want) in
            [(0.0, "0%"), (0.01, "<0.1%"), (0.1, "0.1%"), (66.666, "66.7%"), (99.96, "100%"), (100.0, "100%")]
        {
            assert_eq!(percent(share), want);
        }
    }
}
