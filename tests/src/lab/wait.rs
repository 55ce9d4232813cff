//! Waiting for a condition with a deadline.

use std::{
    fmt::Display,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::interrupt;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until the look succeeds, and gives what it found. A look's error says what it saw instead.
///
/// # Errors
/// What was awaited, for how long, and what was last seen; or that the process was interrupted.
pub fn until<T, E: Display>(
    what: impl Display,
    within: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match look() {
            Ok(found) => return Ok(found),
            Err(seen) => seen,
        };
        interrupt::check()?;
        if start.elapsed() >= within {
            bail!("waited {within:?} for {what}; last seen: {seen:#}");
        }
        sleep(PAUSE);
    }
}

/// Lets time pass.
///
/// # Errors
/// If the process was interrupted meanwhile.
pub fn rest(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        interrupt::check()?;
        sleep(PAUSE.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_says_what_was_awaited_and_what_was_seen() {
        let mut looks = 0;
        let error = until::<(), _>("the rain", Duration::from_millis(50), || {
            looks += 1;
            Err(format!("sun {looks}"))
        })
        .expect_err("it never rains")
        .to_string();
        assert!(error.contains("the rain") && error.contains(&format!("sun {looks}")), "{error}");
        assert!(looks >= 2);
    }

    #[test]
    fn a_wait_ends_with_what_was_found() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet") }
        });
        assert_eq!(found.expect("found"), 3);
    }
}
