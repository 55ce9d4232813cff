//! The check that runs a program: an argument vector, no shell, its time and output bounded.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, copy, sink},
    process::{Child, Command},
    sync::Semaphore,
    time::timeout,
};

use super::local_failure;
use crate::model::probe::{ProbeFailure, ProbeId, ProbeSpec};

/// So much of the output is kept; the rest is read and thrown away.
const MAX_OUTPUT: u64 = 4096;

/// The program ends with exit code 0.
pub(super) async fn check(
    id: &ProbeId,
    spec: &ProbeSpec,
    command: &[String],
    running: &Semaphore,
) -> Result<String, ProbeFailure> {
    let local = |error: String| ProbeFailure::Local { target: spec.target, error };
    let (program, arguments) =
        command.split_first().ok_or_else(|| local("the check names no program".to_owned()))?;
    // It does not count as the program's time that others run. The semaphore is never closed.
    let _running = running.acquire().await.map_err(|error| local(error.to_string()))?;
    let mut group = Group::start(id, spec, program, arguments)
        .map_err(|error| local(format!("running {program}: {error}")))?;
    let ended = timeout(spec.timeout, group.end()).await;
    match ended {
        Ok(Ok((status, said))) if status.success() => {
            Ok(if said.is_empty() { "exit code 0".to_owned() } else { said })
        }
        Ok(Ok((status, said))) => {
            Err(ProbeFailure::Command { program: program.clone(), end: ending(status), said })
        }
        Ok(Err(error)) => Err(local_failure(spec, &error)),
        Err(_) => Err(ProbeFailure::CommandTooSlow { program: program.clone(), after: spec.timeout }),
    }
}

/// A program and whatever it started, as far as that did not leave the group. Dropping it ends them all.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn start(id: &ProbeId, spec: &ProbeSpec, program: &str, arguments: &[String]) -> std::io::Result<Self> {
        let target = spec.target;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LB_POOL", id.backend.pool.as_str())
            .env("LB_BACKEND", id.backend.backend.as_str())
            .env("LB_ADDRESS", spec.backend.to_string())
            .env("LB_VIP", target.ip().to_string())
            .env("LB_PORT", target.port().to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, id })
    }

    /// Waits for its end, and gives the first line that it wrote.
    async fn end(&mut self) -> std::io::Result<(ExitStatus, String)> {
        let (output, errors) = (self.child.stdout.take(), self.child.stderr.take());
        let (status, output, errors) =
            tokio::try_join!(self.child.wait(), beginning(output), beginning(errors))?;
        Ok((status, first_line(&output).or_else(|| first_line(&errors)).unwrap_or_default()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may have ended by itself.
            killpg(id, Signal::SIGKILL).ok();
        }
    }
}

/// What a stream begins with; reads it to its end.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
        copy(&mut stream, &mut sink()).await?;
    }
    Ok(bytes)
}

/// The first line that says something, without what a terminal would obey.
fn first_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}
