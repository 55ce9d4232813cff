//! An emulated machine with this one's files, for the time of one command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{package::Kernel, quiet};
use crate::{process, setup::Apt};

/// What makes the machine: `virtme-run`.
pub(super) struct Emulator(PathBuf);

/// Version of virtme-ng (PyPI).
const VIRTME: &str = "virtme-ng==1.42";

/// Finds or installs QEMU and virtme-ng.
///
/// # Errors
/// One of them cannot be had.
pub(super) fn prepare(directory: &Path) -> Result<Emulator> {
    let programs = [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("depmod", "kmod"),
        ("busybox", "busybox-static"),
        ("python3", "python3"),
    ];
    let mut missing: Vec<&str> = programs
        .into_iter()
        .filter(|(program, _)| process::find_program(program).is_none())
        .map(|(_, package)| package)
        .collect();
    let virtme = directory.join("venv/bin/virtme-run");
    if !virtme.exists() {
        missing.push("python3-venv");
    }
    if !missing.is_empty() {
        Apt::default().install(&missing)?;
    }
    if !virtme.exists() {
        println!("install  emulator    pip install {VIRTME}");
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let venv = directory.join("venv");
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        quiet(Command::new(venv.join("bin/pip")).args(["install", "--quiet", VIRTME]))?;
    }
    Ok(Emulator(virtme))
}

/// A kernel, and where what it says is written.
pub(super) struct Guest<'a> {
    emulator: &'a Emulator,
    kernel: &'a Kernel,
    directory: &'a Path,
    workspace: &'a Path,
}

/// What became of a command.
pub(super) struct Ran {
    /// Its exit status; `None` if it did not end.
    status: Option<i32>,
    /// How long it took, the boot with it.
    pub(super) seconds: u64,
    /// What it wrote.
    pub(super) output: String,
}

impl<'a> Guest<'a> {
    /// A guest with this kernel.
    pub(super) fn new(
        emulator: &'a Emulator,
        kernel: &'a Kernel,
        directory: &'a Path,
        workspace: &'a Path,
    ) -> Self {
        Self { emulator, kernel, directory, workspace }
    }

    /// Boots, runs a test as root, and halts.
    ///
    /// # Errors
    /// The emulator cannot be started, or its files not be written.
    pub(super) fn test(&self, test: &Path, longest: Duration) -> Result<Ran> {
        let command =
            format!("LB_REQUIRE_ROOT=1 RUST_BACKTRACE=0 {} --nocapture --test-threads=1", quoted(test));
        self.run(&command, Clock::Time, longest)
    }

    /// Boots, runs a command as root in the directory of the tests, and halts.
    ///
    /// # Errors
    /// The emulator cannot be started, or its files not be written.
    pub(super) fn run(&self, command: &str, clock: Clock, longest: Duration) -> Result<Ran> {
        let [script, output, status] = ["script", "output", "status"].map(|name| self.directory.join(name));
        for file in [&output, &status] {
            // One that is left would be taken for this run's.
            drop(fs::remove_file(file));
        }
        // Standard output may not come back from there: files do.
        let text = format!(
            "mount -t bpf bpf /sys/fs/bpf\n\
             mount -t tmpfs tmpfs /tmp\n\
             ip link set lo up\n\
             cd {}\n\
             {command} > {} 2>&1\n\
             echo $? > {}\n\
             sync\n",
            quoted(&self.workspace.join("tests")),
            quoted(&output),
            quoted(&status),
        );
        fs::write(&script, text).with_context(|| format!("write {}", script.display()))?;
        let start = Instant::now();
        let mut machine = Command::new("timeout");
        machine.arg("--kill-after=5").arg(longest.as_secs().to_string()).arg(&self.emulator.0);
        machine.arg("--kimg").arg(self.kernel.image()).args(["--mods=auto", "--disable-kvm"]);
        machine.args(["--disable-microvm", "--memory", "2048", "--cpus", "1", "--rw", "--force-9p"]);
        machine.arg("--script-sh").arg(format!("bash {}", quoted(&script)));
        machine.args(["--qemu-opts", "-cpu", "max"]).args(clock.options());
        machine.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its own status tells nothing of the command's.
        machine.status().with_context(|| format!("start `{}`", process::line(&machine)))?;
        Ok(Ran {
            status: fs::read_to_string(&status).ok().and_then(|status| status.trim().parse().ok()),
            seconds: start.elapsed().as_secs(),
            output: fs::read_to_string(&output).unwrap_or_default(),
        })
    }
}

/// What the guest's clock goes by.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    /// Time.
    Time,
    /// Instructions that the guest executes: a nanosecond each.
    Instructions,
}

impl Clock {
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Time => &[],
            Self::Instructions => &["-icount", "shift=0,sleep=off"],
        }
    }
}

/// A path as the guest's shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

impl Ran {
    /// Whether the command ended well.
    pub(super) fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// Whether the test ended well, having tested something.
    pub(super) fn passed(&self) -> bool {
        self.succeeded()
            && self.summary().contains("test result: ok. ")
            && !self.summary().contains(" 0 passed")
    }

    pub(super) fn verdict(&self) -> &'static str {
        if self.passed() { "ok" } else { "FAIL" }
    }

    /// The test runner's last word.
    pub(super) fn summary(&self) -> &str {
        let last = self.output.lines().rev().find(|line| line.starts_with("test result: "));
        last.unwrap_or(if self.status.is_none() {
            "did not end: too slow, or the kernel did not boot"
        } else {
            ""
        })
    }

    /// The rows of a table in the output: lines of words and numbers between the runner's own.
    pub(super) fn table(&self) -> String {
        let rows = self.output.lines().filter(|line| !line.is_empty() && !line.starts_with("test"));
        rows.filter(|line| !line.starts_with("running")).map(|line| format!("       {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_test_that_tested_something_passes() {
        let ran = |status, output: &str| Ran { status, seconds: 1, output: output.to_owned() };
        let good = "running 2 tests\ntest result: ok. 2 passed; 0 failed; finished in 1 s\n";
        assert!(ran(Some(0), good).passed());
        assert!(!ran(Some(101), good).passed());
        assert!(!ran(None, good).passed() && !ran(None, "").passed());
        assert!(!ran(Some(0), "test result: ok. 0 passed; 0 failed\n").passed());
        assert!(!ran(Some(0), "").passed());
    }
}
