//! The daemon under test: its configuration, its process, and questions to it by the command line.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lb_user::api::{BackendView, ServiceView, State, Stats, Status};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        signal::Signal,
        statfs::{BPF_FS_MAGIC, statfs},
    },
};

use super::{Config, Lab, Namespace, Process, namespace, process, root, wait};

/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// How long the daemon may take from its start to its first answer.
const START: Duration = Duration::from_secs(10);

/// A running `lb run`. Dropping it ends it and removes its pins.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    namespace: Namespace,
    lb: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
    /// Its directory in bpffs.
    pub pins: PathBuf,
    log: PathBuf,
    owned: bool,
    /// The test itself writes in its tables. Else a daemon that finds others than it wrote fails the test.
    pub tampered: bool,
}

impl Daemon {
    /// Starts it in a lab and waits until it answers.
    ///
    /// # Errors
    /// If it does not start, with what it said.
    pub fn start(lab: &Lab, config: &Config) -> Result<Self> {
        Self::start_with(lab, config, &[])
    }

    /// The same, with more arguments for `lb run`.
    ///
    /// # Errors
    /// If it does not start, with what it said.
    pub fn start_with(lab: &Lab, config: &Config, arguments: &[&str]) -> Result<Self> {
        Self::start_under(lab, config, arguments, &[], &[])
    }

    /// The same under a wrapper, a command that runs the command behind it, and with more environment.
    ///
    /// # Errors
    /// If it does not start, with what it said.
    pub fn start_under(
        lab: &Lab,
        config: &Config,
        arguments: &[&str],
        wrapper: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        mount_bpffs()?;
        let lb = process::binary("lb")?;
        let namespace = Namespace::find(lab.balancer.name())?;
        let file = lab.directory().join("lb.toml");
        let socket = lab.directory().join("lb.sock");
        let log = lab.directory().join("lb.log");
        let pins = Path::new(BPFFS).join(&lab.prefix);
        std::fs::write(&file, config.text()).with_context(|| format!("writing {}", file.display()))?;
        let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([lb.as_os_str()]);
        let mut command = namespace.command(words.next().unwrap_or(lb.as_os_str()));
        command.args(words).envs(environment.iter().copied());
        let process = launch(command, [&file, &socket, &pins, &log], arguments)?;
        let mut daemon =
            Self { process, namespace, lb, config: file, socket, pins, log, owned: true, tampered: false };
        daemon.answers()?;
        Ok(daemon)
    }

    /// Starts it again after [`Daemon::stop`] or [`Daemon::crash`], with the same files.
    ///
    /// # Errors
    /// If it does not start, with what it said.
    pub fn restart(&mut self, arguments: &[&str]) -> Result<()> {
        let files = [&self.config, &self.socket, &self.pins, &self.log];
        self.process = launch(self.namespace.command(&self.lb), files, arguments)?;
        self.answers()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it does not end in five seconds.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.stop()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it was gone.
    pub fn crash(&mut self) -> Result<()> {
        self.process.crash()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Runs the command line against it and gives what that printed.
    ///
    /// # Errors
    /// If the command fails, with its words.
    pub fn lb(&self, arguments: &[&str]) -> Result<String> {
        namespace::run(self.namespace.command(&self.lb).arg("--socket").arg(&self.socket).args(arguments))
    }

    /// The command line against it, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(&self.lb);
        command.arg("--socket").arg(&self.socket).args(arguments);
        command
    }

    /// Runs the command line against it, whatever comes of it.
    ///
    /// # Errors
    /// If the command cannot start.
    pub fn try_lb(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(&self.lb);
        command.arg("--socket").arg(&self.socket).args(arguments).output().context("starting `lb`")
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Status> {
        let json = self.lb(&["status", "-j"])?;
        serde_json::from_str(&json).with_context(|| format!("`lb status -j` printed no status: {json}"))
    }

    /// Packets that it has counted for a reason, those of all services together.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn counted(&self, reason: &str) -> Result<u64> {
        let json = self.lb(&["stats", "-j"])?;
        let stats: Stats = serde_json::from_str(&json)
            .with_context(|| format!("`lb stats -j` printed no counters: {json}"))?;
        Ok(stats.reasons.iter().find(|known| known.reason == reason).map_or(0, |known| known.traffic.packets))
    }

    /// A service as `lb status` shows it.
    ///
    /// # Errors
    /// If the daemon does not answer or has no such service.
    pub fn service(&self, name: &str) -> Result<ServiceView> {
        let mut services = self.status()?.services.into_iter();
        services
            .find(|service| service.name == name)
            .with_context(|| format!("no service {name} in `lb status`"))
    }

    /// A backend of a service as `lb status` shows it.
    ///
    /// # Errors
    /// If the daemon does not answer or has no such service or backend.
    pub fn backend(&self, service: &str, name: &str) -> Result<BackendView> {
        let mut backends = self.service(service)?.backends.into_iter();
        backends
            .find(|backend| backend.name == name)
            .with_context(|| format!("{service} has no backend {name}"))
    }

    /// Waits until every backend of every service is `UP`.
    ///
    /// # Errors
    /// Those that are not, and why.
    pub fn wait_up(&self, within: Duration) -> Result<()> {
        wait::until("all backends UP", within, || {
            let status = self.status()?;
            ensure!(!status.services.is_empty(), "no services");
            let missing: Vec<String> = status
                .services
                .iter()
                .flat_map(|service| service.backends.iter().map(move |backend| (&service.name, backend)))
                .filter(|(_, backend)| backend.state != State::Up)
                .map(|(service, b)| format!("{service}/{} is {}: {}", b.name, b.state, b.reason))
                .collect();
            ensure!(missing.is_empty(), "{}", missing.join("; "));
            Ok(())
        })
        .map_err(|error| self.explain(&error))
    }

    /// Waits until a backend of a service is in a state, and for anything but `UP` out of the table too.
    ///
    /// # Errors
    /// The state it is in instead, and why.
    pub fn wait_state(
        &self,
        service: &str,
        name: &str,
        state: State,
        within: Duration,
    ) -> Result<BackendView> {
        wait::until(format_args!("{service}/{name} to be {state}"), within, || {
            let backend = self.backend(service, name)?;
            ensure!(backend.state == state, "it is {} ({})", backend.state, backend.reason);
            ensure!(
                (backend.slots > 0) == (state == State::Up),
                "{state}, but it has {} slots",
                backend.slots
            );
            Ok(backend)
        })
        .map_err(|error| self.explain(&error))
    }

    /// Replaces the configuration file at once, as a careful editor does.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let new = self.config.with_extension("new");
        std::fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        std::fs::rename(&new, &self.config).with_context(|| format!("replacing {}", self.config.display()))
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Leaves it running and gives its process id.
    pub fn leave(mut self) -> u32 {
        self.owned = false;
        self.process.leave();
        self.process.id()
    }

    fn answers(&mut self) -> Result<()> {
        let ended = wait::until("an answer of `lb run`", START, || match self.process.check() {
            Ok(()) => self.status().map(|_| None),
            Err(ended) => Ok(Some(ended)),
        });
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(ended)) => Err(ended),
            Err(silent) => Err(self.explain(&silent)),
        }
    }

    fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}\nthe last the daemon logged:\n{}", self.process.last_words())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Err(error) = self.process.stop() {
            eprintln!("{error:#}");
        }
        if let Err(error) = namespace::remove(&self.pins) {
            eprintln!("left behind: {error:#}");
        }
        let log = self.log();
        let strange = !self.tampered && log.contains("are not what lb wrote");
        root::shown_on_failure(format!("--- the daemon logged:\n{log}---"));
        assert!(!strange || std::thread::panicking(), "the tables were not what the daemon wrote");
    }
}

/// Runs `lb run` for what must fail at its start: its status and what it said.
///
/// # Errors
/// If it cannot start, or is still running after ten seconds.
pub fn refused(lab: &Lab, config: &str) -> Result<(ExitStatus, String)> {
    mount_bpffs()?;
    let file = lab.directory().join("refused.toml");
    let log = lab.directory().join("refused.log");
    let socket = lab.directory().join("refused.sock");
    let pins = Path::new(BPFFS).join(format!("{}-refused", lab.prefix));
    std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    let lb = process::binary("lb")?;
    let mut process = launch(lab.balancer.command(&lb), [&file, &socket, &pins, &log], &[])?;
    let status = process.wait(START);
    let said = process.log();
    drop(process);
    namespace::remove(&pins)?;
    match status {
        Ok(status) => Ok((status, said)),
        Err(error) => bail!("{error:#}; it said:\n{said}"),
    }
}

fn launch(
    mut command: Command,
    [config, socket, pins, log]: [&PathBuf; 4],
    arguments: &[&str],
) -> Result<Process> {
    command.arg("run").arg("--config").arg(config).arg("--socket").arg(socket).arg("--pins").arg(pins);
    command.arg("--state").arg(config.with_file_name("state"));
    Process::spawn(command.args(arguments), log)
}

/// Mounts bpffs where it belongs, unless it is there.
///
/// # Errors
/// If it cannot be mounted.
pub fn mount_bpffs() -> Result<()> {
    let mounted = statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting bpffs at {BPFFS}"))
}
