//! Tests that need root: they run, or they say aloud that they did not.

use anyhow::Result;

/// Runs a test that needs root. Without root it says so, and fails if `LB_REQUIRE_ROOT=1`.
///
/// # Panics
/// If the test fails, with the whole chain of its error.
pub fn required(test: impl FnOnce() -> Result<()>) {
    if nix::unistd::geteuid().is_root() {
        test().unwrap_or_else(|error| panic!("{error:#}"));
    } else {
        let strict = std::env::var_os("LB_REQUIRE_ROOT").is_some_and(|value| value == "1");
        assert!(!strict, "this test needs root, and LB_REQUIRE_ROOT=1 forbids to skip it");
        println!("SKIPPED: network namespaces and XDP need root");
    }
}
