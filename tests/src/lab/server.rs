//! The servers of a backend: nginx, and the echo server as a process of its own.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Namespace, Process, client, echo, process, wait};

/// Where nginx listens.
pub const HTTP_PORT: u16 = 80;

/// The port of iperf3, both of its control connection and of those it measures.
pub const IPERF3_PORT: u16 = 5201;

/// Length of `/blob`.
pub const BLOB: usize = 12 * 1024 * 1024;

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(5);

/// Starts nginx: `/` answers with the backend's name, `/healthz` with "ok", `/blob` with [`BLOB`] patterned bytes.
///
/// # Errors
/// If it cannot be started or does not listen within five seconds.
pub fn nginx(namespace: &Namespace, name: &str, directory: &Path) -> Result<Process> {
    let prefix = directory.join(format!("nginx-{name}"));
    std::fs::create_dir_all(&prefix).with_context(|| format!("making {}", prefix.display()))?;
    blob(directory)?;
    let file = prefix.join("nginx.conf");
    std::fs::write(&file, configuration(name, &prefix, directory))
        .with_context(|| format!("writing {}", file.display()))?;
    let mut command = namespace.command("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(&prefix).arg("-c").arg(&file);
    listening(namespace, Process::spawn(&mut command, &prefix.join("log"))?, HTTP_PORT)
}

/// Starts the echo server of a backend (`lb-lab serve`), TCP and UDP on port 7000.
///
/// # Errors
/// If it cannot be started or does not listen within five seconds.
pub fn echo(namespace: &Namespace, name: &str, addresses: &[IpAddr], directory: &Path) -> Result<Process> {
    let mut command = namespace.command(process::binary("lb-lab")?);
    command.args(["serve", name]).args(addresses.iter().map(ToString::to_string));
    let log = directory.join(format!("echo-{name}.log"));
    listening(namespace, Process::spawn(&mut command, &log)?, echo::PORT)
}

/// Starts iperf3's server.
///
/// # Errors
/// If it cannot be started or does not listen within five seconds.
pub fn iperf3(namespace: &Namespace, directory: &Path) -> Result<Process> {
    let mut command = namespace.command("iperf3");
    command.args(["--server", "--port", &IPERF3_PORT.to_string()]);
    listening(namespace, Process::spawn(&mut command, &directory.join("iperf3.log"))?, IPERF3_PORT)
}

fn listening(namespace: &Namespace, mut process: Process, port: u16) -> Result<Process> {
    let what = format!("a listener on port {port} in {}", namespace.name());
    let mut ended = None;
    wait::until(what, START, || {
        if let Err(error) = process.check() {
            ended = Some(error);
            return Ok(());
        }
        if namespace.listens(port)? { Ok(()) } else { Err(anyhow::anyhow!("nobody listens")) }
    })?;
    match ended {
        Some(error) => Err(error),
        None => Ok(process),
    }
}

/// The file behind `/blob`, one for all backends.
fn blob(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("blob");
    if !path.exists() {
        std::fs::write(&path, client::pattern(BLOB))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

fn configuration(name: &str, prefix: &Path, root: &Path) -> String {
    let (prefix, root) = (prefix.display(), root.display());
    format!(
        "\
daemon off;
user root;
worker_processes 1;
pid {prefix}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        listen {HTTP_PORT} backlog=1024;
        listen [::]:{HTTP_PORT} backlog=1024;
        location = / {{ default_type text/plain; return 200 \"{name}\\n\"; }}
        location = /healthz {{ default_type text/plain; return 200 \"ok\\n\"; }}
        location = /blob {{ root {root}; }}
    }}
}}
"
    )
}
