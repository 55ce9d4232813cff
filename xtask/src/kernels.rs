//! Other kernels: boots Debian's under software emulation, runs the tests of the packet path there, and counts
//! instructions.
//!
//! Slow (a minute or more for each kernel), and of no use where QEMU or a kernel cannot be had: then it says so and ends with
//! [`SKIPPED`], which is neither success nor failure.

mod guest;
mod package;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::{
    guest::{Clock, Emulator, Guest},
    package::Kernel,
};
use crate::{
    process,
    setup::{self, Mode},
    workspace::{Profile, Workspace},
};

/// Exit status where nothing could be tested, as automake has it.
const SKIPPED: u8 = 77;

/// The package whose tests are run.
const PACKAGE: &str = "lb-tests";

/// The series that are tested unless told otherwise: the oldest that lb supports, and the newest of Debian 12.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The tests that are run unless told otherwise: every program loads and does what it should, and a daemon balances real
/// clients among real servers.
const TESTS: [&str; 10] = [
    "datapath_verifier",
    "datapath_fixtures",
    "datapath_headers",
    "datapath_icmp",
    "datapath_tunnels",
    "datapath_tracking",
    "datapath_selection",
    "datapath_probe",
    "datapath_decap",
    "netns_forwarding",
];

/// Which kernels and which tests.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask kernels
  cargo xtask kernels --kernel 6.1
  cargo xtask kernels --kernel 6.1 --test datapath_model --test datapath_verifier

Exit status 77: nothing could be tested here, and the output says why.")]
pub(crate) struct Options {
    /// A series of Debian's kernels; may be repeated [default: 6.1 and 6.12]
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// A test of lb-tests; may be repeated [default: those of the packet path]
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// How long one test may take on one kernel
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    minutes: u64,
}

/// Runs the tests on each kernel and prints how they went.
///
/// # Errors
/// Not root, a build fails, or a test fails on a kernel.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let (directory, emulator) = match prepare(workspace, "kernels")? {
        Ok(ready) => ready,
        Err(skipped) => return Ok(skipped),
    };
    let wanted = |given: &[String], default: &[&str]| -> Vec<String> {
        if given.is_empty() { default.iter().map(ToString::to_string).collect() } else { given.to_vec() }
    };
    let binaries = build(workspace, &wanted(&options.tests, &TESTS))?;

    let (mut failed, mut tested) = (Vec::new(), 0);
    for series in wanted(&options.kernels, &SERIES) {
        let kernel = match Kernel::fetch(&series, &directory) {
            Ok(kernel) => kernel,
            Err(error) => {
                eprintln!("SKIPPED: kernel {series} cannot be had here: {error:#}");
                continue;
            }
        };
        println!("\nkernel {} (emulated: be patient)", kernel.release());
        let guest = Guest::new(&emulator, &kernel, &directory, workspace.root());
        for (test, binary) in &binaries {
            let ran = guest.test(binary, Duration::from_secs(60 * options.minutes))?;
            println!("  {:<4} {test:<22} {:>4} s  {}", ran.verdict(), ran.seconds, ran.summary());
            tested += 1;
            if !ran.passed() {
                println!("{}", ran.output);
                failed.push(format!("{test} on {}", kernel.release()));
            } else if test == "datapath_verifier" {
                println!("{}", ran.table());
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if tested == 0 {
        return Ok(skipped("no kernel could be had"));
    }
    println!("\n{tested} tests passed on other kernels");
    Ok(ExitCode::SUCCESS)
}

/// What [`instructions`] takes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask instructions
  cargo xtask instructions -- --check             fail if a count is more than 1% above the checked-in one
  cargo xtask instructions -- --case L2           only cases with this in their name

Exit status 77: nothing could be counted here, and the output says why.")]
pub(crate) struct CountOptions {
    /// Passed on to `lb-bench`.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Counts the instructions that a packet takes: the bench on a machine whose clock counts them.
///
/// # Errors
/// Not root, a build fails, or the bench does.
pub(crate) fn instructions(workspace: &Workspace, options: &CountOptions) -> Result<ExitCode> {
    const SERIES: &str = "6.12";
    let (directory, emulator) = match prepare(workspace, "instructions")? {
        Ok(ready) => ready,
        Err(skipped) => return Ok(skipped),
    };
    setup::rivals()?;
    let bench = workspace.build("lb-tests", "lb-bench", Profile::Release)?;
    let kernel = match Kernel::fetch(SERIES, &directory) {
        Ok(kernel) => kernel,
        Err(error) => return Ok(skipped(&format!("kernel {SERIES} cannot be had here: {error:#}"))),
    };
    println!("kernel {} (emulated: a minute or more)", kernel.release());
    let mut command = format!("{} --only instructions", guest::quoted(&bench));
    for arg in &options.args {
        command.push_str(&format!(" {}", guest::quoted(Path::new(arg))));
    }
    let guest = Guest::new(&emulator, &kernel, &directory, workspace.root());
    let ran = guest.run(&command, Clock::Instructions, Duration::from_mins(20))?;
    println!("{}", ran.output);
    if !ran.succeeded() {
        bail!(
            "the bench failed on the emulated machine{}",
            if ran.output.is_empty() { ": it wrote nothing" } else { "" }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds or installs what emulation takes: where its files are and what does it, or that it cannot be had.
fn prepare(workspace: &Workspace, task: &str) -> Result<Result<(PathBuf, Emulator), ExitCode>> {
    process::require_root(task, "it unpacks kernels, and their modules must be under /lib/modules")?;
    setup::run(workspace, Mode::Install)?;
    let directory = workspace.binary("kernels", Profile::Debug);
    let directory =
        directory.parent().and_then(|debug| debug.parent()).context("no target directory")?.join("kernels");
    Ok(match guest::prepare(&directory) {
        Ok(emulator) => Ok((directory, emulator)),
        Err(error) => Err(skipped(&format!("kernels cannot be emulated here: {error:#}"))),
    })
}

fn skipped(why: &str) -> ExitCode {
    eprintln!("SKIPPED: {why}\nNothing was tested.");
    ExitCode::from(SKIPPED)
}

/// Builds tests and finds their binaries.
fn build(workspace: &Workspace, tests: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = workspace.cargo();
    // Optimised: under emulation every instruction counts.
    cargo.args(["test", "--release", "--package", PACKAGE, "--no-run", "--message-format", "json"]);
    for test in tests {
        cargo.args(["--test", test]);
    }
    println!("building the tests, and lb for those that start it");
    workspace.build("lb-user", "lb", Profile::Release)?;
    let messages = process::output(&mut cargo)?;
    let find = |test: &String| {
        let binary = messages.lines().find_map(|line| executable(line, test));
        Ok((test.clone(), binary.with_context(|| format!("cargo built no {test}"))?))
    };
    tests.iter().map(find).collect()
}

/// The executable that one of cargo's messages tells of, if it is this test's.
fn executable(message: &str, test: &str) -> Option<PathBuf> {
    if !message.contains(&format!("\"name\":\"{test}\"")) {
        return None;
    }
    let (_, rest) = message.split_once("\"executable\":\"")?;
    Some(PathBuf::from(rest.split('"').next()?))
}

/// A command whose output nobody wants to see unless it fails.
fn quiet(command: &mut Command) -> Result<()> {
    process::output(command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_a_test_is_found_among_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"datapath_icmp"},"executable":"/t/icmp-1","fresh":true}"#;
        assert_eq!(executable(message, "datapath_icmp"), Some(PathBuf::from("/t/icmp-1")));
        assert_eq!(executable(message, "datapath"), None);
        assert_eq!(executable(r#"{"name":"datapath_icmp","executable":null}"#, "datapath_icmp"), None);
    }
}
