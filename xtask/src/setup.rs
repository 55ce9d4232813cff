//! What building the kernel programs, the demo and the tests need: found, or installed.
//!
//! One line for each thing, whether found, missing or installed. Nothing is installed that is there.

mod apt;
mod compiler;
mod linker;
mod schemathesis;
mod tools;

pub(crate) use apt::Apt;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// What to do about what is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Install it.
    Install,
    /// Say it.
    Check,
}

/// Finds or installs everything.
///
/// # Errors
/// Something is missing and could not, or should not, be installed; the message says what to do.
pub(crate) fn run(workspace: &Workspace, mode: Mode) -> Result<()> {
    let mut missing = 0;
    let mut apt = Apt::default();

    let compiler = match compiler::find() {
        Some(compiler) => Some(compiler),
        None if mode == Mode::Install => Some(compiler::install(&mut apt)?),
        None => None,
    };
    match &compiler {
        Some(compiler) => found("compiler", &compiler.to_string()),
        None => {
            missing += 1;
            lacking("compiler", compiler::LACKING);
        }
    }

    match linker::find() {
        Some(linker) => found("bpf-linker", &linker),
        None if mode == Mode::Install => found("bpf-linker", &linker::install(workspace, compiler.as_ref())?),
        None => {
            missing += 1;
            lacking("bpf-linker", &format!("version {} or later", linker::VERSION));
        }
    }

    let absent = tools::absent();
    if absent.is_empty() {
        found("tools", &tools::names());
    } else if mode == Mode::Install {
        tools::install(&mut apt, &absent)?;
        found("tools", &tools::names());
    } else {
        missing += 1;
        lacking("tools", &tools::list(&absent));
    }

    if missing > 0 {
        bail!("not everything is here: `cargo xtask setup` installs it");
    }
    Ok(())
}

/// Finds or installs what the bench compares lb with.
///
/// # Errors
/// One of them cannot be installed.
pub(crate) fn rivals() -> Result<()> {
    let absent = tools::absent_rivals();
    if absent.is_empty() { Ok(()) } else { tools::install(&mut Apt::default(), &absent) }
}

/// Finds or installs what thinks up requests for the test of the API, and says where it is.
///
/// # Errors
/// It cannot be installed.
pub(crate) fn fuzzer(workspace: &Workspace) -> Result<PathBuf> {
    schemathesis::install(workspace)
}

fn found(what: &str, which: &str) {
    println!("ok       {what:<11} {which}");
}

fn lacking(what: &str, which: &str) {
    println!("missing  {what:<11} {which}");
}

/// Says what is about to be installed, and how: it may take a while.
fn installing(what: &str, how: &str) {
    println!("install  {what:<11} {how}");
}

/// Says what went otherwise than planned.
fn note(what: &str, text: &str) {
    println!("         {what:<11} {text}");
}
