//! The network namespace that programs run in: its interfaces exist, and it is gone with its thread.

use std::{process::Command, thread};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};

use super::{EGRESS, THIRD};

/// Runs a test in a new network namespace: `lo` is [`INGRESS`](super::INGRESS), and a veth pair
/// [`EGRESS`] and [`THIRD`].
///
/// Without the privilege it says so and does nothing, or fails if `LB_REQUIRE_ROOT=1`.
///
/// # Panics
/// If the test fails, or the namespace cannot be set up.
pub fn within(test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let required = std::env::var_os("LB_REQUIRE_ROOT").is_some_and(|value| value == "1");
            ensure!(!required, "cannot make a network namespace: {error}");
            eprintln!("SKIPPED: cannot make a network namespace: {error}");
            return Ok(());
        }
        interfaces()?;
        test()
    };
    match thread::spawn(run).join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Makes the interfaces that frames come in by and leave by, in the namespace of this thread.
///
/// # Errors
/// It is not a new namespace, or not ours.
pub fn interfaces() -> anyhow::Result<()> {
    sh("ip link set lo up")?;
    sh(&format!("ip link add egress index {EGRESS} type veth peer name third index {THIRD}"))?;
    sh("ip link set egress up && ip link set third up")
}

/// Runs a command line in the namespace of this thread.
///
/// # Errors
/// It cannot be started, or fails.
pub fn sh(script: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-e", "-c", script]).output().with_context(|| script.to_owned())?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
