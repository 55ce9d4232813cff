//! schemathesis, which thinks up requests from the API's description: a Python program in an environment of its own,
//! below the build directory.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::{apt::Apt, found, installing};
use crate::{process, workspace::Workspace};

/// The version whose options the test knows.
const VERSION: &str = "4.32.5";

/// Finds or installs it, and says where it is.
///
/// # Errors
/// There is no Python and it cannot be installed, or the package index gives nothing.
pub(crate) fn install(workspace: &Workspace) -> Result<PathBuf> {
    let home = workspace.target().join("tools/schemathesis");
    let program = home.join("bin/schemathesis");
    if !is_there(&program) {
        installing("schemathesis", &format!("python3 -m venv, pip install schemathesis=={VERSION}"));
        if !has_venv() {
            Apt::default().install(&["python3-venv"])?;
        }
        process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
        let mut pip = Command::new(home.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        process::run(pip.arg(format!("schemathesis=={VERSION}")))?;
        if !is_there(&program) {
            bail!(
                "schemathesis {VERSION} is installed, but `{} --version` does not say so",
                program.display()
            );
        }
    }
    found("schemathesis", VERSION);
    Ok(program)
}

fn is_there(program: &Path) -> bool {
    let version = process::output(Command::new(program).arg("--version"));
    version.is_ok_and(|version| version.trim_end().ends_with(VERSION))
}

/// Whether Python can make an environment: Debian has that in a package of its own.
fn has_venv() -> bool {
    let tried = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    tried.is_ok_and(|output| output.status.success())
}
