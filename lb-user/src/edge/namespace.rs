//! For tests: a network namespace of their own, with peers behind veth pairs.

use std::{
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread and a current-thread runtime in a new network namespace, which is gone
/// afterwards. `loopback` is up in it.
///
/// Without the privilege it says so and does nothing, or fails if `LB_REQUIRE_ROOT=1`.
pub(super) fn within<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let required = std::env::var_os("LB_REQUIRE_ROOT").is_some_and(|value| value == "1");
            assert!(!required, "cannot make a network namespace: {error}");
            eprintln!("SKIPPED: cannot make a network namespace: {error}");
            return;
        }
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(test());
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs commands, one a line, in the namespace of this thread. Panics if one fails.
pub(super) fn sh(script: &str) {
    run(Command::new("sh").args(["-e", "-c", script]), script);
}

/// Another machine: a namespace that lives as long as this does.
pub(super) struct Peer(Child);

impl Peer {
    /// Makes one with `loopback` up.
    pub(super) fn new() -> Self {
        // The sleep is an end for the namespace even if this process is killed.
        let child = Command::new("unshare").args(["--net", "sleep", "120"]).spawn().expect("unshare");
        let peer = Self(child);
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("own namespace");
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::read_link(format!("/proc/{}/ns/net", peer.pid())).is_ok_and(|theirs| theirs == own) {
            assert!(Instant::now() < deadline, "no namespace for a peer");
            thread::sleep(Duration::from_millis(2));
        }
        peer.sh("ip link set lo up");
        peer
    }

    /// A process in it, for `ip link set DEV netns PID`.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs commands, one a line, in it. Panics if one fails.
    pub(super) fn sh(&self, script: &str) {
        let net = format!("--net=/proc/{}/ns/net", self.pid());
        run(Command::new("nsenter").args([&net, "sh", "-e", "-c", script]), script);
    }

    /// Joins it to this thread's namespace by a veth pair: `here` with these addresses on this
    /// side, `eth0` with those on the other.
    pub(super) fn join(&self, here: &str, ours: &[&str], theirs: &[&str]) {
        let pid = self.pid();
        sh(&format!("ip link add {here} type veth peer name eth0 netns {pid}"));
        let add = |dev: &str, addresses: &[&str]| {
            let mut script = String::new();
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                script += &format!("ip addr add {address} dev {dev} {nodad}\n");
            }
            script + &format!("ip link set {dev} up")
        };
        sh(&add(here, ours));
        self.sh(&add("eth0", theirs));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(command: &mut Command, script: &str) {
    let output = command.output().expect(script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}
