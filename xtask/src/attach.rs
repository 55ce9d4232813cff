//! Running the built lb on an interface of this machine, and taking it off again.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::Pid;

use crate::{
    daemon::{self, Forwarding},
    process,
    setup::{self, Mode},
    workspace::{Profile, Workspace},
};

/// Where the configuration is if none is named.
const CONFIG: &str = "/etc/lb/lb.toml";

/// How long the daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `attach` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// The interface that packets for the VIPs arrive on.
    #[arg(long)]
    iface: String,
    /// The configuration; without one, /etc/lb/lb.toml, written as a start if it is not there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the daemon's messages go.
    #[arg(long, value_name = "FILE", default_value = "/var/log/lb.log")]
    log: PathBuf,
    /// Stay in the foreground; Ctrl-C stops lb.
    #[arg(long)]
    foreground: bool,
    /// Run this binary instead of building one.
    #[arg(long, value_name = "FILE", env = "LB_BIN")]
    lb: Option<PathBuf>,
}

/// Builds lb and runs it.
///
/// # Errors
/// Not root, no such interface, lb runs already, the build fails, or lb does not come up.
pub(crate) fn attach(workspace: &Workspace, options: &Options) -> Result<()> {
    process::require_root("attach", "it puts a program on an interface")?;
    check_interface(&options.iface)?;
    if let Some(pid) = daemon::running(Path::new(daemon::PID_FILE))? {
        bail!("lb runs already, as process {pid}: `lb status` shows it, `cargo xtask detach` stops it");
    }
    let lb = match &options.lb {
        Some(lb) => std::path::absolute(lb).with_context(|| format!("find {}", lb.display()))?,
        None => {
            setup::run(workspace, Mode::Install)?;
            workspace.build("lb-user", "lb", Profile::Release)?
        }
    };
    let config = config(options)?;

    let words = ["run", "--config"].map(Path::new);
    if options.foreground {
        let mut command = Command::new(&lb);
        command.args(words).arg(&config).args(["--interface", &options.iface]);
        return process::become_command(&mut command);
    }

    let log = open_log(&options.log)?;
    let written_before = log.metadata().map_or(0, |file| file.len());
    // A session of its own: closing this terminal does not stop it.
    let mut command = Command::new("setsid");
    command.arg(&lb).args(words).arg(&config).args(["--interface", &options.iface]).stdin(Stdio::null());
    command.stdout(log.try_clone().context("share the log")?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("start `{}`", process::line(&command)))?;

    match wait_until_it_answers(&lb, &mut child) {
        Ok(status) => {
            print!("{status}");
            println!(
                "\nlb runs on {} as process {}, log {}",
                options.iface,
                child.id(),
                options.log.display()
            );
            println!("  look    {} status", lb.display());
            println!("  change  edit {}: it is read again by itself", config.display());
            println!("  stop    cargo xtask detach [--keep-forwarding]");
            Ok(())
        }
        Err(error) => {
            let messages = log_since(&options.log, written_before);
            eprintln!("{} says:\n{messages}", options.log.display());
            Err(error.context("lb did not come up"))
        }
    }
}

/// Stops the daemon and, unless told otherwise, the forwarding.
///
/// # Errors
/// Not root, the daemon does not end, or its pins cannot be removed.
pub(crate) fn detach(keep_forwarding: bool) -> Result<()> {
    process::require_root("detach", "it takes a program off an interface")?;
    match daemon::running(Path::new(daemon::PID_FILE))? {
        Some(pid) => {
            daemon::stop(pid, if keep_forwarding { Forwarding::GoesOn } else { Forwarding::Ends })?;
            println!("lb (process {pid}) has stopped");
        }
        None => println!("no lb runs here"),
    }
    let pins = Path::new(daemon::PINS);
    if keep_forwarding {
        if pins.exists() {
            println!(
                "packets are still forwarded; `cargo xtask detach` ends that, `cargo xtask attach` takes over"
            );
        }
    } else if daemon::unpin(pins)? {
        println!("its programs are off the interfaces");
    }
    Ok(())
}

fn check_interface(name: &str) -> Result<()> {
    let interfaces = fs::read_dir("/sys/class/net").context("list the interfaces in /sys/class/net")?;
    let mut names: Vec<_> =
        interfaces.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if !names.iter().any(|known| known == name) {
        names.sort();
        bail!("there is no interface \"{name}\" here; there are: {}", names.join(", "));
    }
    Ok(())
}

fn config(options: &Options) -> Result<PathBuf> {
    let Some(file) = &options.config else {
        let file = Path::new(CONFIG);
        if write_first_config(file, &options.iface)? {
            println!("wrote {CONFIG}: it forwards nothing until you add a pool and a service");
        }
        return Ok(file.to_owned());
    };
    if !file.is_file() {
        bail!("there is no configuration {}", file.display());
    }
    // The daemon reads it again later, from another directory perhaps.
    std::path::absolute(file).with_context(|| format!("find {}", file.display()))
}

/// Writes a configuration to start from; false if there is one.
fn write_first_config(file: &Path, iface: &str) -> Result<bool> {
    let write = || {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        match File::create_new(file) {
            Ok(mut new) => new.write_all(first_config(iface).as_bytes()).map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    };
    write().with_context(|| format!("write {}", file.display()))
}

fn first_config(iface: &str) -> String {
    format!(
        r#"# lb reads this file again whenever it changes; a file with mistakes changes nothing.
# `lb check {CONFIG}` shows all mistakes.

[lb]
interfaces = ["{iface}"]

# A pool: servers that do the same work. Each has the VIP on its loopback.
#
# [[pool]]
# name  = "web"
# check = {{ type = "http", path = "/healthz", expect = 200 }}
#
# [[pool.backend]]
# name    = "w1"
# address = "10.1.0.11"        # same subnet; `via = "ipip"` for any other
#
# A service: an address and ports that clients use.
#
# [[service]]
# name  = "www"
# vip   = "192.0.2.10"
# ports = ["tcp/80", "tcp/443"]
# pool  = "web"
"#
    )
}

fn open_log(file: &Path) -> Result<File> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("make the log's directory {}", dir.display()))?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(file)
        .with_context(|| format!("open the log {}", file.display()))
}

/// The daemon's status, once it tells. A daemon that does not tell in time is stopped.
fn wait_until_it_answers(lb: &Path, child: &mut Child) -> Result<String> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("look whether lb still runs")? {
            bail!("it ended at once: {status}");
        }
        let error = match process::output(Command::new(lb).arg("status")) {
            Ok(status) => return Ok(status),
            Err(error) => error,
        };
        if start.elapsed() > PATIENCE {
            daemon::stop(Pid::from_raw(i32::try_from(child.id())?), Forwarding::Ends)?;
            return Err(
                error.context(format!("stopped, as it did not answer within {} s", PATIENCE.as_secs()))
            );
        }
        sleep(Duration::from_millis(100));
    }
}

/// The last lines written to the log since it had this length.
fn log_since(file: &Path, before: u64) -> String {
    const LINES: usize = 20;
    let text = fs::read(file).unwrap_or_default();
    let new = text.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let lines: Vec<_> = new.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() { "  (nothing)".to_owned() } else { format!("  {}", last.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_are() {
        assert!(check_interface("lo").is_ok());
        let error = check_interface("no-such-if").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("lo"), "{error}");
    }

    #[test]
    fn a_configuration_that_is_there_stays() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("lb/lb.toml");
        assert!(write_first_config(&file, "eth7")?);
        assert!(fs::read_to_string(&file)?.contains("interfaces = [\"eth7\"]"));
        fs::write(&file, "mine")?;
        assert!(!write_first_config(&file, "eth7")?);
        assert_eq!(fs::read_to_string(&file)?, "mine");
        Ok(())
    }

    #[test]
    fn the_log_is_shown_from_this_start_on() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("lb.log");
        fs::write(&file, "old\nnew\n")?;
        assert_eq!(log_since(&file, 4), "  new");
        assert_eq!(log_since(&file, 8), "  (nothing)");
        assert_eq!(log_since(&file, 800), "  (nothing)", "the log was cut meanwhile");
        Ok(())
    }
}
