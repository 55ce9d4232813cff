//! Processes with a guard, and where the workspace's own binaries are.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// How long a process may take to end after SIGTERM before it gets SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of what a process printed is shown when it ends unasked.
const LAST_LINES: usize = 30;

/// A running process, its output in a file. Dropping it ends it: SIGTERM, and SIGKILL if that does not help.
#[derive(Debug)]
pub struct Process {
    child: Child,
    shown: String,
    log: PathBuf,
    owned: bool,
}

impl Process {
    /// Starts a command with its output going to a file.
    ///
    /// # Errors
    /// If the file cannot be made or the command cannot start.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let shown = super::namespace::show(command);
        let output = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("opening {} twice", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting `{shown}`"))?;
        Ok(Self { child, shown, log: log.to_owned(), owned: true })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it printed so far.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Fails if it ended by itself, with what it printed.
    ///
    /// # Errors
    /// Its status and its last words.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("looking after `{}`", self.shown))? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended ({status}); it said:\n{}", self.shown, self.last_words()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(pid(self.child.id())?, signal)
            .with_context(|| format!("sending {signal} to `{}`", self.shown))
    }

    /// Sends SIGKILL to it and its process group, as a crash would, and waits for its end.
    ///
    /// # Errors
    /// If it is gone.
    pub fn crash(&mut self) -> Result<()> {
        kill_group(self.child.id());
        self.child.wait().map(drop).with_context(|| format!("waiting for `{}`", self.shown))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let shown = self.shown.clone();
        super::wait::until(format_args!("the end of `{shown}`"), within, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// SIGTERM, then up to five seconds of patience, then SIGKILL. A process that had ended already is fine.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait().ok().flatten() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("waiting for `{}`", self.shown))?
            {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.crash()?;
        bail!("`{}` did not end within {PATIENCE:?} of SIGTERM and was killed", self.shown)
    }

    /// Lets it run on when this value is dropped.
    pub fn leave(&mut self) {
        self.owned = false;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.stop()
        {
            eprintln!("{error:#}");
        }
    }
}

/// Whether a process ended by this signal.
pub fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal as i32)
}

/// When a running process started, in clock ticks since boot; nothing if it ended, even if nobody has taken notice
/// of its end. Tells a process from a later one with the same id.
pub fn started(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The command's name may hold blanks and brackets; after its last bracket come fields 3 (state), 4, … (proc(5)).
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let running = fields.next()? != "Z";
    let started = fields.nth(18)?.parse().ok()?;
    running.then_some(started)
}

/// Sends SIGKILL; a process that is gone already is fine.
pub fn kill(id: u32) {
    if let Ok(pid) = pid(id) {
        // The only failure is that it is gone, which was wanted.
        signal::kill(pid, Signal::SIGKILL).ok();
    }
}

/// Ends a process that is no child of this one: SIGTERM, and SIGKILL if it still runs after five seconds.
///
/// # Errors
/// If it cannot be signalled.
pub fn terminate(id: u32) -> Result<()> {
    signal::kill(pid(id)?, Signal::SIGTERM).with_context(|| format!("sending SIGTERM to process {id}"))?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if started(id).is_none() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(id);
    Ok(())
}

fn kill_group(id: u32) {
    if let Ok(pid) = pid(id) {
        // The only failure is that it is gone, which was wanted.
        signal::killpg(pid, Signal::SIGKILL).ok();
    }
}

fn pid(id: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(id).context("process ids are positive")?))
}

/// A binary of this workspace: the environment variable if set (`LB_BIN` for `lb`), else beside the running program.
///
/// # Errors
/// If it is in neither place: what to build.
pub fn binary(name: &str) -> Result<PathBuf> {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            bail!("{variable} names {}, which is no file", path.display())
        };
    }
    let own = std::env::current_exe().context("finding the running program")?;
    // Tests run from target/PROFILE/deps, binaries are one up.
    let found =
        own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("no `{name}` near {}: run `cargo build` first, or name it in {variable}", own.display())
    })
}
