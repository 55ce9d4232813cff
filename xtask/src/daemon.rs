//! The lb daemon of this machine, seen from outside: whether it runs, how to stop it, what it leaves behind.

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::Pid,
};

/// The daemon writes its process id here.
pub(crate) const PID_FILE: &str = "/run/lb/lb.pid";

/// The daemon pins programs, maps and links under this directory: what is pinned forwards without a daemon.
pub(crate) const PINS: &str = "/sys/fs/bpf/lb";

/// How long a daemon may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that the pid file names, if it lives and is `lb`.
///
/// # Errors
/// The file cannot be read or holds no number.
pub(crate) fn running(pid_file: &Path) -> Result<Option<Pid>> {
    let text = match fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", pid_file.display())),
    };
    let Some(number) = text.trim().parse().ok().filter(|&number: &i32| number > 1) else {
        bail!("{} holds \"{}\", which is no process id: remove it", pid_file.display(), text.trim());
    };
    let pid = Pid::from_raw(number);
    Ok((lives(pid) && is_lb(pid)).then_some(pid))
}

/// Whether a stopped daemon leaves its programs where they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// It takes them off, if it is asked to end and was not started with `--keep-forwarding`.
    Ends,
    /// Packets are forwarded as before; nothing is checked any more.
    GoesOn,
}

/// Ends a daemon and waits until it has.
///
/// # Errors
/// It may not be signalled, or does not end in time.
pub(crate) fn stop(pid: Pid, forwarding: Forwarding) -> Result<()> {
    // Pins outlive whoever made them: a daemon that gets no chance to take its programs off leaves them.
    let signal = match forwarding {
        Forwarding::GoesOn if !was_told_to_keep(pid) => Signal::SIGKILL,
        Forwarding::GoesOn | Forwarding::Ends => Signal::SIGTERM,
    };
    match kill(pid, signal) {
        Err(Errno::ESRCH) => return Ok(()),
        sent => sent.with_context(|| format!("send {signal} to process {pid}"))?,
    }
    let start = Instant::now();
    while lives(pid) {
        if start.elapsed() > PATIENCE {
            bail!("process {pid} still runs {} s after SIGTERM: look at its log", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Removes what the daemon pinned, which takes its programs off the interfaces; false if there was nothing.
///
/// # Errors
/// The directory is on no BPF file system, or something in it cannot be removed.
pub(crate) fn unpin(pins: &Path) -> Result<bool> {
    if !pins.exists() {
        return Ok(false);
    }
    let system = statfs(pins).with_context(|| format!("look at {}", pins.display()))?;
    if system.filesystem_type() != BPF_FS_MAGIC {
        bail!("{} is on no BPF file system: nothing removed", pins.display());
    }
    fs::remove_dir_all(pins).with_context(|| format!("remove the pins under {}", pins.display()))?;
    Ok(true)
}

/// Whether a process is there, and is no zombie.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold anything; the state is the next word.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Whether a daemon was started with `--keep-forwarding`.
fn was_told_to_keep(pid: Pid) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|&byte| byte == 0).any(|word| word == b"--keep-forwarding")
}

/// Whether a process is `lb`: a number of an old pid file may belong to anyone by now.
fn is_lb(pid: Pid) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end() == "lb"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_a_living_lb_is_running() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("lb.pid");
        assert_eq!(running(&file)?, None, "no file");

        for bad in ["", "x", "-1", "0", "1"] {
            fs::write(&file, bad)?;
            assert!(running(&file).is_err(), "{bad:?}");
        }
        fs::write(&file, format!("{}\n", std::process::id()))?;
        assert_eq!(running(&file)?, None, "a process that is not lb");

        let lb = dir.path().join("lb");
        fs::copy("/bin/sleep", &lb)?;
        let mut child = Command::new(&lb).arg("60").spawn()?;
        fs::write(&file, child.id().to_string())?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        // Its name is that of this test until it has become `lb`.
        let start = Instant::now();
        while running(&file)?.is_none() && start.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(5));
        }
        let found = running(&file)?;
        let stopped = stop(pid, Forwarding::Ends);
        child.wait()?;
        assert_eq!(found, Some(pid));
        stopped?;
        assert_eq!(running(&file)?, None, "a process that has ended");
        Ok(())
    }

    #[test]
    fn only_pins_are_unpinned() -> Result<()> {
        let dir = tempfile::tempdir()?;
        assert!(!unpin(&dir.path().join("absent"))?);
        assert!(unpin(dir.path()).is_err(), "an ordinary directory");
        assert!(dir.path().exists());
        Ok(())
    }
}
