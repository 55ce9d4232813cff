//! Kernel against model: builds `lb-fuzz` and becomes it. What it sends and compares is the business of `lb-tests`.

use std::process::Command;

use anyhow::Result;

use crate::{
    process,
    setup::{self, Mode},
    workspace::{Profile, Workspace},
};

/// How long, and what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many packets to send (5,000,000 unless told otherwise).
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    packets: Option<u64>,
    /// Send for so many minutes instead.
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Repeat the run that said it had this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only look for frames with a new way through the parser, and keep them.
    #[arg(long)]
    collect: bool,
}

/// Runs it; returns only on failure.
///
/// # Errors
/// Not root, set-up or build fail, or it cannot be started.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !options.collect {
        process::require_root(
            "fuzz-datapath",
            "it loads programs into the kernel and makes a network namespace",
        )?;
    }
    setup::run(workspace, Mode::Install)?;
    let fuzz = workspace.build("lb-tests", "lb-fuzz", Profile::Release)?;
    process::become_command(Command::new(fuzz).args(arguments(options)))
}

fn arguments(options: &Options) -> Vec<String> {
    let Options { packets, minutes, seed, collect } = options;
    let option = |name: &str, value: Option<String>| value.map(|value| [format!("--{name}"), value]);
    let options = [
        option("packets", packets.map(|number| number.to_string())),
        option("minutes", minutes.map(|number| number.to_string())),
        option("seed", seed.map(|number| number.to_string())),
    ];
    options.into_iter().flatten().flatten().chain(collect.then(|| "--collect".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_passed_on() {
        let options = Options { packets: Some(7), minutes: None, seed: Some(3), collect: true };
        assert_eq!(arguments(&options), ["--packets", "7", "--seed", "3", "--collect"]);
    }
}
