//! Debian's packages: installed without questions, and without starting the daemons in them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

use super::{installing, note};
use crate::process;

/// apt-get, whose lists are brought up to date once.
#[derive(Default)]
pub(crate) struct Apt {
    updated: bool,
}

impl Apt {
    /// Installs packages.
    ///
    /// # Errors
    /// There is no apt-get, we are not root (both with what to do instead), or apt-get fails.
    pub(crate) fn install(&mut self, packages: &[&str]) -> Result<()> {
        let list = packages.join(" ");
        if process::find_program("apt-get").is_none() {
            bail!("{list} missing (Debian's names), and there is no apt-get: install them your system's way");
        }
        if !process::is_root() {
            bail!(
                "{list} missing, and only root may install: run `sudo apt-get update` and `sudo apt-get install -y {list}`"
            );
        }
        installing("packages", &format!("apt-get install {list}"));
        let _quiet = NoDaemons::start()?;
        if !self.updated {
            // Old lists may still do, and a mirror in trouble should not stop what needs no mirror.
            if let Err(error) = process::run(apt_get().arg("update")) {
                note("packages", &format!("{error:#}; going on with the lists that are here"));
            }
            self.updated = true;
        }
        process::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
    }
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    // Somebody else's apt may be at work: wait for it.
    apt.args(["-qq", "-o", "DPkg::Lock::Timeout=120"]).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Where Debian's packages ask whether they may start their daemon.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Answers "no".
const DENY: &str =
    "#!/bin/sh\n# Written by `cargo xtask setup`, for the time of an installation.\nexit 101\n";

/// As long as it lives, packages start no daemon, and Ctrl-C waits: the policy before must come back.
struct NoDaemons {
    // Dropped in this order: first the policy comes back, then a signal may end us.
    _policy: PolicyFile,
    _signals: SignalsWait,
}

impl NoDaemons {
    fn start() -> Result<Self> {
        let signals = SignalsWait::start()?;
        Ok(Self { _policy: PolicyFile::deny(Path::new(POLICY))?, _signals: signals })
    }
}

/// Holds back the signals that would end us. Children do not inherit it: Ctrl-C does reach apt-get.
struct SignalsWait {
    before: SigSet,
}

impl SignalsWait {
    fn start() -> Result<Self> {
        let before = SigSet::thread_get_mask().context("read the signal mask")?;
        let ending = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        ending.thread_block().context("block signals")?;
        Ok(Self { before })
    }
}

impl Drop for SignalsWait {
    fn drop(&mut self) {
        if let Err(error) = self.before.thread_set_mask() {
            eprintln!("warning: unblock signals: {error}");
        }
    }
}

/// A policy file that denies, and the one that comes back in its place.
struct PolicyFile {
    path: PathBuf,
    saved: PathBuf,
}

impl PolicyFile {
    fn deny(path: &Path) -> Result<Self> {
        let saved = path.with_extension("d.before-lb");
        // A copy that is already there is from a run that was killed: it is the true one.
        if path.exists() && !saved.exists() {
            fs::rename(path, &saved).with_context(|| format!("set {} aside", path.display()))?;
        }
        let file = Self { path: path.to_owned(), saved };
        let written =
            fs::write(path, DENY).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
        written.with_context(|| format!("write {}, so that no daemon starts", path.display()))?;
        Ok(file)
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        let restored = if self.saved.exists() {
            fs::rename(&self.saved, &self.path)
        } else {
            fs::remove_file(&self.path)
        };
        if let Err(error) = restored {
            eprintln!("warning: restore {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_before_comes_back() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("policy-rc.d");

        let none = PolicyFile::deny(&path)?;
        assert_eq!(Command::new(&path).status()?.code(), Some(101));
        drop(none);
        assert!(!path.exists());

        fs::write(&path, "mine")?;
        let mine = PolicyFile::deny(&path)?;
        assert_eq!(fs::read_to_string(&path)?, DENY);
        // As after a kill: nothing restored, and the next run must not take the denial for the original.
        std::mem::forget(mine);
        drop(PolicyFile::deny(&path)?);
        assert_eq!(fs::read_to_string(&path)?, "mine");
        Ok(())
    }
}
