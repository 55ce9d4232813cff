//! The network namespace that programs run in: its interfaces exist, and it is gone with its thread.

use std::{process::Command, thread};

use anyhow::{Context, ensure};
use nix::{
    sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare},
    unistd::Pid,
};

use super::{EGRESS, THIRD};

/// Runs a test in a new network namespace: `lo` is [`INGRESS`](super::INGRESS), and a veth pair
/// [`EGRESS`] and [`THIRD`].
///
/// Without the privilege it says so and does nothing, or fails if `LB_REQUIRE_ROOT=1`.
///
/// # Panics
/// If the test fails, or the namespace cannot be set up.
pub fn within(test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) {
    let required = std::env::var_os("LB_REQUIRE_ROOT").is_some_and(|value| value == "1");
    if !required && let Err(error) = isolated(|| Ok(())) {
        eprintln!("SKIPPED: {error:#}");
        return;
    }
    isolated(test).unwrap_or_else(|error| panic!("{error:#}"));
}

/// The same, without a word about privileges.
///
/// # Errors
/// The namespace cannot be set up, or what the run says.
///
/// # Panics
/// If the run does.
pub fn isolated(run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
        interfaces()?;
        run()
    };
    thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Keeps this thread on the CPU it is on: the kernel counts by CPU what may not be done at any rate.
///
/// # Errors
/// The kernel refuses.
pub fn on_one_cpu() -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
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
