//! The bench: builds `lb` and `lb-bench` and becomes the latter. What is measured and how is `lb-bench`'s business, in
//! the package `lb-tests`.

use std::process::Command;

use anyhow::Result;

use crate::{
    process,
    setup::{self, Mode},
    workspace::{Profile, Workspace},
};

/// Runs the bench; returns only on failure.
///
/// # Errors
/// Not root, set-up or build fail, or `lb-bench` cannot be started.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    process::require_root("bench", "it loads kernel programs and makes network namespaces")?;
    setup::run(workspace, Mode::Install)?;
    setup::rivals()?;
    let lb = workspace.build("lb-user", "lb", Profile::Release)?;
    let bench = workspace.build("lb-tests", "lb-bench", Profile::Release)?;
    // The servers of its labs.
    workspace.build("lb-tests", "lb-lab", Profile::Release)?;
    process::become_command(Command::new(bench).args(args).env("LB_BIN", lb))
}
