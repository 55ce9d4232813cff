//! Times as people and their tools read them.

use std::time::Duration;

use toml_edit::{Datetime, Offset};

/// RFC 3339 in UTC, to the millisecond, from the time since 1970-01-01.
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The time since 1970-01-01 of an RFC 3339 date and time with its offset; `None` for anything else, and for times before
/// that day.
pub fn from_rfc3339(text: &str) -> Option<Duration> {
    let Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = text.parse().ok()? else {
        return None;
    };
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let of_day =
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let days = days(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let seconds = u64::try_from(days * 86_400 + of_day - minutes * 60).ok()?;
    Some(Duration::new(seconds, time.nanosecond.unwrap_or(0)))
}

/// Days from 1970-01-01 to a date: the way back of [`date`].
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let month = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date that lies so many days after 1970-01-01. Years begin in March here, so that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days of 400 years.
    const ERA: u64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const OFFSET: u64 = 719_468;
    let days = days + OFFSET;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March have 153 days, and so have the next five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096, "2024-02-29T12:34:56.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
            assert_eq!(from_rfc3339(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for days in (0..60_000).step_by(17) {
            let time = Duration::from_secs(86_400 * days + 7);
            assert_eq!(from_rfc3339(&rfc3339(time)), Some(time), "day {days}");
        }
        assert_eq!(rfc3339(Duration::from_millis(1234)), "1970-01-01T00:00:01.234Z");
        assert_eq!(from_rfc3339("2024-02-29T14:34:56+02:00"), Some(Duration::from_secs(1_709_210_096)));
        for text in [
            "",
            "soon",
            "2024-02-29",
            "2024-02-29T12:34:56",
            "12:34:56",
            "1969-12-31T23:59:59Z",
            "2024-13-01T00:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }
}
