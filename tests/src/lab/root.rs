//! Tests that need root: they run, or they say aloud that they did not.

use std::{cell::RefCell, panic};

use anyhow::Result;

thread_local! {
    /// What helps to understand a failure, of what the running test has left behind already.
    static LEFT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Prints `text` if the test that runs in this thread fails later, by an error as by a panic.
///
/// A test that returns an error has dropped its daemons before anybody knows that it failed.
pub fn shown_on_failure(text: String) {
    LEFT.with_borrow_mut(|left| left.push(text));
}

/// Runs a test that needs root. Without root it says so, and fails if `LB_REQUIRE_ROOT=1`.
///
/// # Panics
/// If the test fails, with the whole chain of its error.
pub fn required(test: impl FnOnce() -> Result<()>) {
    if nix::unistd::geteuid().is_root() {
        reported(test);
    } else {
        let strict = std::env::var_os("LB_REQUIRE_ROOT").is_some_and(|value| value == "1");
        assert!(!strict, "this test needs root, and LB_REQUIRE_ROOT=1 forbids to skip it");
        println!("SKIPPED: network namespaces and XDP need root");
    }
}

/// Runs `test`; if it fails, prints what it left and panics.
fn reported(test: impl FnOnce() -> Result<()>) {
    LEFT.with_borrow_mut(Vec::clear);
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(test));
    if !matches!(ended, Ok(Ok(()))) {
        LEFT.take().iter().for_each(|text| eprintln!("{text}"));
    }
    match ended {
        Ok(passed) => passed.unwrap_or_else(|error| panic!("{error:#}")),
        Err(panicked) => panic::resume_unwind(panicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_fails_keeps_its_panic_and_a_next_one_begins_with_nothing_left() {
        let failed = panic::catch_unwind(|| {
            reported(|| {
                shown_on_failure("the log of a test that fails on purpose".into());
                anyhow::bail!("on purpose")
            });
        });
        let message = failed.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(*message, "on purpose");
        reported(|| {
            assert!(LEFT.with_borrow(Vec::is_empty));
            Ok(())
        });
    }
}
