//! Asks a backend's agent: connects to it and reads one line. What the line means is the model's business.

use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{
    network_failure,
    tcp::{self, End},
};
use crate::model::probe::{ProbeFailure, ProbeSpec};

/// Longest line, bytes.
const MAX_LINE: usize = 1024;

/// The line that the agent says.
pub(super) async fn ask(spec: &ProbeSpec, deadline: Instant) -> Result<String, ProbeFailure> {
    let target = spec.target;
    let mut stream = tcp::connect(spec, deadline, End::Orderly).await?;
    let line = async {
        let mut line = Vec::new();
        let mut buffer = [0; MAX_LINE];
        while !line.contains(&b'\n') && line.len() < MAX_LINE {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => line.extend_from_slice(&buffer[..length]),
            }
        }
        Ok::<_, std::io::Error>(line)
    };
    match timeout_at(deadline, line).await {
        Ok(Ok(line)) => {
            let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
            Ok(String::from_utf8_lossy(line).trim().to_owned())
        }
        Ok(Err(error)) => Err(network_failure(spec, &error)),
        Err(_) => Err(ProbeFailure::NoAnswer { target, after: spec.timeout }),
    }
}
