//! The demo and the lab: builds `lb` and `lb-lab` and becomes the latter, so that Ctrl-C and the exit status
//! are its own. What the network looks like is `lb-lab`'s business, in the package `lb-tests`.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    process,
    setup::{self, Mode},
    workspace::{Profile, Workspace},
};

/// What to do with the lab.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Action {
    /// Make the namespaces and start everything in them.
    Up,
    /// Stop everything and remove the namespaces.
    Down,
    /// Show what is up.
    Status,
    /// Run a command in a namespace: exec client curl http://192.0.2.10/
    Exec,
    /// Take down what is up, and whatever killed tests left behind.
    Clean,
}

/// Runs the demo; returns only on failure.
///
/// # Errors
/// Not root, set-up or build fail, or `lb-lab` cannot be started.
pub(crate) fn demo(workspace: &Workspace, keep: bool, args: &[String]) -> Result<()> {
    let keep = keep.then(|| "--keep".to_owned());
    exec(workspace, "demo", keep.as_slice().iter().chain(args))
}

/// Runs one action; returns only on failure.
///
/// # Errors
/// As [`demo`].
pub(crate) fn run(workspace: &Workspace, action: Action, args: &[String]) -> Result<()> {
    let word = match action {
        Action::Up => "up",
        Action::Down => "down",
        Action::Status => "status",
        Action::Exec => "exec",
        Action::Clean => "clean",
    };
    let (lb, lab) = ["lb", "lb-lab"].map(|name| workspace.binary(name, Profile::Release)).into();
    if !matches!(action, Action::Up) && lb.is_file() && lab.is_file() {
        // What stands was built with these; and a command's output stays its own.
        process::require_root("lab", "it enters network namespaces")?;
        return process::become_command(Command::new(lab).arg(word).args(args).env("LB_BIN", lb));
    }
    exec(workspace, word, args)
}

fn exec<'a>(workspace: &Workspace, word: &str, args: impl IntoIterator<Item = &'a String>) -> Result<()> {
    process::require_root(if word == "demo" { word } else { "lab" }, "it makes network namespaces")?;
    setup::run(workspace, Mode::Install)?;
    let lb = workspace.build("lb-user", "lb", Profile::Release)?;
    let lab = workspace.build("lb-tests", "lb-lab", Profile::Release)?;
    process::become_command(Command::new(lab).arg(word).args(args).env("LB_BIN", lb))
}
