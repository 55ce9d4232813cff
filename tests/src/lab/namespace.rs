//! Network namespaces with a guard, and what runs in them.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps its handles.
const HANDLES: &str = "/run/netns";

/// What names of namespaces start with whose lab lives and dies with a process: `lbt-PID-NUMBER-ROLE`.
pub const PASSING: &str = "lbt-";

/// A network namespace. Dropping it deletes it, unless it was [left](Namespace::leave) or only [found](Namespace::find).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    owned: bool,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// If it exists already, or `ip netns add` fails (it needs root).
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned(), owned: true };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// One that somebody else made and will delete.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn find(name: &str) -> Result<Self> {
        let namespace = Self { name: name.to_owned(), owned: false };
        ensure!(
            namespace.handle().exists(),
            "no network namespace {name} (`ip netns list` shows those there are)"
        );
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its handle in the file system.
    pub fn handle(&self) -> PathBuf {
        Path::new(HANDLES).join(&self.name)
    }

    /// Gives up ownership: it stays when this value is dropped.
    pub fn leave(&mut self) {
        self.owned = false;
    }

    /// A command that will run inside, in a process group of its own so that the terminal's Ctrl-C does not reach it.
    ///
    /// `ip netns exec` would not do: it mounts a new `/sys`, which hides bpffs.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.foreground(program);
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// A command that will run inside and shares the terminal.
    pub fn foreground(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.handle().display())).arg("--").arg(program);
        command
    }

    /// Runs a command inside to its end and gives what it printed.
    ///
    /// # Errors
    /// If it cannot start or fails: the command, its status and what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// `ip` with this namespace.
    ///
    /// # Errors
    /// If it fails, with its words.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Runs a closure on a thread that is inside: sockets made there stay in this namespace, `/proc/sys/net` is its own.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If the closure does.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        let handle =
            File::open(self.handle()).with_context(|| format!("opening network namespace {}", self.name))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || setns(handle, CloneFlags::CLONE_NEWNET).map(|()| inside()));
            match thread.join() {
                Ok(result) => result.with_context(|| format!("entering network namespace {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Writes sysctls below `net.`, given as paths: `("ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    /// The first that cannot be written.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/net/{key}");
                std::fs::write(&path, value)
                    .with_context(|| format!("writing {value} to {path} in namespace {}", self.name))?;
            }
            Ok(())
        })?
    }

    /// Whether somebody listens on this TCP port (or has bound this UDP port) here.
    ///
    /// # Errors
    /// If `ss` fails.
    pub fn listens(&self, port: u16) -> Result<bool> {
        let listing = self.run("ss", &["-Hltun", &format!("sport = :{port}")])?;
        Ok(!listing.trim().is_empty())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = delete(&self.name)
        {
            eprintln!("left behind: network namespace {}: {error:#}", self.name);
        }
    }
}

/// Ends the processes inside a namespace that a lab made, and deletes it. One that is not there is fine.
///
/// # Errors
/// If `ip` fails.
pub fn delete(name: &str) -> Result<()> {
    if !Path::new(HANDLES).join(name).exists() {
        return Ok(());
    }
    // The namespace is a lab's own, so whatever still runs in it was started for that lab.
    let pids = run(Command::new("ip").args(["netns", "pids", name]))?;
    for pid in
        pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|&pid| pid != std::process::id())
    {
        super::process::kill(pid);
    }
    run(Command::new("ip").args(["netns", "delete", name])).map(drop)
}

/// Names of all namespaces that start with a prefix.
///
/// # Errors
/// If their directory cannot be read.
pub fn names(prefix: &str) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(HANDLES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {HANDLES}")),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// Removes what labs left whose process is gone (namespaces, pins, files), and says which namespaces.
///
/// # Errors
/// If something cannot be removed.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = names(PASSING)?;
    swept.retain(|name| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()));
    for name in &swept {
        delete(name)?;
        if let Some((prefix, _role)) = name.rsplit_once('-') {
            for directory in [Path::new(super::daemon::BPFFS).join(prefix), std::env::temp_dir().join(prefix)]
            {
                remove(&directory)?;
            }
        }
    }
    Ok(swept)
}

/// Removes a directory with what is in it; none is fine.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The process a namespace's lab belongs to.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PASSING)?.split('-').next()?.parse().ok()
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// If it cannot start or fails: the command, its status and what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}`: {}: {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as a person would type it.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner("lbt-4711-2-client"), Some(4711));
        assert_eq!(owner("lb-client"), None);
        assert_eq!(owner("lbt-x-2-client"), None);
    }
}
