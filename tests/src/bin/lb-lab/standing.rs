//! The laboratory that is left standing: fixed names, its state in `/run/lb-lab`.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use lb_tests::lab::{
    Config, Daemon, Lab, Namespace,
    addresses::{VIP4, VIP6},
    namespace, process,
};
use serde::{Deserialize, Serialize};

/// Where its files are.
const DIRECTORY: &str = "/run/lb-lab";

/// What its namespaces' names start with.
const PREFIX: &str = "lb";

/// How long its backends may take to be `UP`.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);

/// nginx, and the echo server.
const PORTS: [&str; 3] = ["tcp/80", "tcp/7000", "udp/7000"];

/// What `down` needs to know.
#[derive(Serialize, Deserialize)]
struct State {
    namespaces: Vec<String>,
    processes: Vec<Recorded>,
    pins: PathBuf,
}

/// A process that was left running. Its start time tells it from a later one with the same id.
#[derive(Serialize, Deserialize)]
struct Recorded {
    id: u32,
    started: u64,
}

impl Recorded {
    fn now(id: u32) -> Result<Self> {
        let started =
            process::started(id).with_context(|| format!("process {id} of the laboratory has ended"))?;
        Ok(Self { id, started })
    }

    fn runs(&self) -> bool {
        process::started(self.id) == Some(self.started)
    }
}

/// Builds it with its daemon; still owned.
pub(crate) fn build() -> Result<(Lab, Daemon)> {
    if state_file().exists() {
        bail!(
            "a laboratory stands already: `cargo xtask lab status` shows it, `cargo xtask lab down` removes it"
        );
    }
    let lab = Lab::builder().standing(PREFIX, Path::new(DIRECTORY)).build()?;
    let daemon = Daemon::start(&lab, &config(&lab))?;
    daemon.wait_up(SETTLE)?;
    Ok((lab, daemon))
}

/// Services `www` by IPv4 and `www6` by IPv6, HTTP and echo, on one pool; the tunnelled backend has half the weight.
pub(crate) fn config(lab: &Lab) -> Config {
    let weight = |tunnelled| if tunnelled { 50 } else { 100 };
    let members: Vec<_> =
        lab.backends.iter().map(|backend| backend.member().weight(weight(backend.tunnelled))).collect();
    let check = "type = \"http\", path = \"/healthz\", expect = 200, \
                 interval = \"500ms\", timeout = \"400ms\", rise = 2, fall = 2";
    Config::new()
        .pool("web", check, &members)
        .service("www", VIP4, &PORTS, "web")
        .service("www6", VIP6, &PORTS, "web")
}

/// Leaves it standing.
pub(crate) fn leave(lab: Lab, daemon: Daemon) -> Result<()> {
    let namespaces = [&lab.client, &lab.router, &lab.balancer]
        .into_iter()
        .chain(lab.backends.iter().map(|backend| &backend.namespace))
        .map(|namespace| namespace.name().to_owned())
        .collect();
    let pins = daemon.pins.clone();
    let mut ids = vec![daemon.leave()];
    ids.extend(lab.leave());
    let processes = ids.into_iter().map(Recorded::now).collect::<Result<_>>()?;
    let state = State { namespaces, processes, pins };
    let file = state_file();
    std::fs::write(&file, serde_json::to_vec_pretty(&state)?)
        .with_context(|| format!("writing {}", file.display()))
}

/// `lb-lab up`
pub(crate) fn up() -> Result<()> {
    let (lab, daemon) = build()?;
    leave(lab, daemon)?;
    say!("The laboratory stands, with lb running in it.\n");
    how_to_play()
}

/// Commands for a person to paste.
pub(crate) fn how_to_play() -> Result<()> {
    let lb = process::binary("lb")?;
    let lb = shorten(&lb);
    let lab = "cargo xtask lab";
    say!("  ask for a page            {lab} exec client curl http://{VIP4}/");
    say!("  by IPv6                   {lab} exec client curl 'http://[{VIP6}]/'");
    say!("  see the balancer          {lb} --socket {DIRECTORY}/lb.sock status");
    say!("  drain a backend           {lb} --socket {DIRECTORY}/lb.sock backend drain web b1");
    say!("  edit the configuration    $EDITOR {DIRECTORY}/lb.toml     (taken over when saved)");
    say!("  read the log              tail -f {DIRECTORY}/lb.log");
    say!("  a shell on a backend      {lab} exec b2 bash");
    say!("  remove it all             {lab} down");
    Ok(())
}

/// A path as it reads from here.
fn shorten(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// `lb-lab down`
pub(crate) fn down() -> Result<()> {
    let Some(state) = state()? else {
        say!("No laboratory stands.");
        return Ok(());
    };
    for process in state.processes.iter().filter(|process| process.runs()) {
        process::terminate(process.id)?;
    }
    for name in &state.namespaces {
        namespace::delete(name)?;
    }
    namespace::remove(&state.pins)?;
    namespace::remove(Path::new(DIRECTORY))?;
    say!("The laboratory is gone.");
    Ok(())
}

/// Namespaces of the standing laboratory whose state was never written, because its builder was killed.
pub(crate) fn sweep() -> Result<Vec<String>> {
    let mut left = namespace::names(&format!("{PREFIX}-"))?;
    left.retain(|name| {
        let role = &name[PREFIX.len() + 1..];
        let backend = role.strip_prefix('b').is_some_and(|number| number.parse::<u8>().is_ok());
        backend || ["client", "router", "lb"].contains(&role)
    });
    for name in &left {
        namespace::delete(name)?;
    }
    namespace::remove(Path::new(DIRECTORY))?;
    Ok(left)
}

/// `lb-lab status`
pub(crate) fn status() -> Result<()> {
    let Some(state) = state()? else {
        say!("No laboratory stands.");
        return Ok(());
    };
    say!("namespaces  {}", state.namespaces.join(" "));
    let running = state.processes.iter().filter(|process| process.runs()).count();
    say!("processes   {running} of {} run", state.processes.len());
    say!("files       {DIRECTORY}\n");
    how_to_play()
}

/// `lb-lab exec`
pub(crate) fn exec(role: &str, command: &[String]) -> Result<ExitCode> {
    let namespace = Namespace::find(&format!("{PREFIX}-{role}"))
        .context("is a laboratory standing? `cargo xtask lab up` builds one")?;
    let [program, arguments @ ..] = command else { bail!("no command given") };
    let error = namespace.foreground(program).args(arguments).exec();
    Err(error).context("starting nsenter")
}

fn state() -> Result<Option<State>> {
    let file = state_file();
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
            format!("{} is damaged; remove its namespaces with `ip netns delete`", file.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn state_file() -> PathBuf {
    Path::new(DIRECTORY).join("state.json")
}
