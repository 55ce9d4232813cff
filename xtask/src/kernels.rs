//! The packet path on other kernels: boots Debian's under software emulation and runs tests there.
//!
//! Slow (a minute or more for each kernel), and of no use where QEMU or a kernel cannot be had: then it says so and ends with
//! [`SKIPPED`], which is neither success nor failure.

mod guest;
mod package;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::{guest::Guest, package::Kernel};
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
    process::require_root("kernels", "it unpacks kernels, and their modules must be under /lib/modules")?;
    setup::run(workspace, Mode::Install)?;
    let directory = workspace.binary("kernels", Profile::Debug);
    let directory =
        directory.parent().and_then(|debug| debug.parent()).context("no target directory")?.join("kernels");

    let emulator = match guest::prepare(&directory) {
        Ok(emulator) => emulator,
        Err(error) => return Ok(skipped(&format!("kernels cannot be emulated here: {error:#}"))),
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
            let ran = guest.run(binary, Duration::from_secs(60 * options.minutes))?;
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
