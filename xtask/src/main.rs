//! `cargo xtask`: everything a person or CI does with this repository.
//!
//! Here: the command line and which module answers which word. What is done lives in the modules; nothing
//! of lb itself is imported, so this compiles where lb does not yet.
#![forbid(unsafe_code)]

mod attach;
mod bench;
mod check;
mod daemon;
mod dist;
mod fuzz;
mod kernels;
mod lab;
mod process;
mod setup;
mod steps;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{setup::Mode, workspace::Workspace};

/// Set up, build, test, try and attach lb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "Examples:
  cargo xtask setup --check          what is missing on this machine
  cargo xtask check                  before every commit; needs no root
  cargo xtask test                   all tests, as CI runs them; needs root
  cargo xtask demo                   a balancer, two servers and a client in namespaces
  cargo xtask attach --iface eth0    build lb and run it on eth0
  cargo xtask dist                   a Debian package
  cargo xtask detach                 stop it and take it off the interface";

#[derive(Subcommand)]
enum Task {
    /// Find or install what building, the demo and the tests need.
    Setup {
        /// Only say what is missing; exit status 1 if anything is.
        #[arg(long)]
        check: bool,
    },
    /// Set up and build `lb` with its kernel programs.
    Build {
        /// Optimised; the default, named for symmetry with cargo.
        #[arg(long, conflicts_with = "debug")]
        release: bool,
        /// Not optimised: compiles faster.
        #[arg(long)]
        debug: bool,
    },
    /// The quick part that needs no root: format, clippy, tidy, documentation, unit tests.
    Check,
    /// Set up, then check and run every test. Needs root: many tests make network namespaces.
    #[command(after_help = "Examples:
  cargo xtask test
  cargo xtask test -- drain          only tests with `drain` in their name")]
    Test {
        /// Passed on to the test runner.
        #[arg(last = true, value_name = "ARGS")]
        runner_args: Vec<String>,
    },
    /// Send random packets to the kernel programs and to the model, and compare everything. Needs root.
    #[command(
        name = "fuzz-datapath",
        after_help = "Examples:
  cargo xtask fuzz-datapath                    five million packets
  cargo xtask fuzz-datapath --minutes 30
  cargo xtask fuzz-datapath --seed 7           the run that said it had seed 7
  cargo xtask fuzz-datapath --collect          look for new ways through the parser; needs no root

What kernel and model differ on is made small, and kept under tests/corpus/: `cargo xtask test` tries it first."
    )]
    FuzzDatapath(fuzz::Options),
    /// Test the packet path on Debian's kernels 6.1 and 6.12, under software emulation. Needs root.
    Kernels(kernels::Options),
    /// Count the instructions that a packet takes, under software emulation. Needs root.
    Instructions(kernels::CountOptions),
    /// Make a Debian package, and see that it installs and purges. Needs root.
    #[command(after_help = "Examples:
  cargo xtask dist                       target/dist/lb_VERSION_ARCHITECTURE.deb")]
    Dist(dist::Options),
    /// Check the structural rules: what may import what, where things may stand.
    Tidy,
    /// Build lb and run it on an interface. Needs root.
    #[command(after_help = "Examples:
  cargo xtask attach --iface eth0
  cargo xtask attach --iface eth0 --config my.toml --foreground")]
    Attach(attach::Options),
    /// Stop the lb that runs here and take it off its interfaces. Needs root.
    Detach {
        /// Stop the daemon only: the kernel goes on forwarding, and the next `lb run` takes over.
        #[arg(long)]
        keep_forwarding: bool,
    },
    /// See it work: a client, lb and servers in network namespaces of their own. Needs root.
    Demo {
        /// Leave the namespaces in place afterwards; `cargo xtask lab down` removes them.
        #[arg(long)]
        keep: bool,
        /// Passed on to `lb-lab demo`.
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// The demo's network to play with: put it up, look at it, run commands in it, take it down. Needs root.
    #[command(after_help = "Examples:
  cargo xtask lab up
  cargo xtask lab exec client curl http://192.0.2.10/
  cargo xtask lab exec b2 bash
  cargo xtask lab down")]
    Lab {
        /// What to do with it.
        #[arg(value_enum)]
        action: lab::Action,
        /// Passed on to `lb-lab`: for `exec`, a role (client, router, lb, b1, b2, b3) and a command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Measure what a packet costs, against the least that a balancer can do. Needs root.
    #[command(after_help = "Examples:
  cargo xtask bench                      everything
  cargo xtask bench --quick              under a minute
  cargo xtask bench --only decision --json figures.json
  cargo xtask bench --check              fail if a ratio is far above the checked-in one
  cargo xtask bench -- --help            what else it takes")]
    Bench {
        /// Passed on to `lb-bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let done = match task {
        Task::Instructions(options) => return kernels::instructions(&workspace, &options),
        Task::Kernels(options) => return kernels::run(&workspace, &options),
        Task::Setup { check } => setup::run(&workspace, if check { Mode::Check } else { Mode::Install }),
        Task::Build { release: _, debug } => {
            setup::run(&workspace, Mode::Install)?;
            let profile = if debug { workspace::Profile::Debug } else { workspace::Profile::Release };
            let lb = workspace.build("lb-user", "lb", profile)?;
            println!("{}", lb.display());
            Ok(())
        }
        Task::Check => check::check(&workspace),
        Task::Test { runner_args } => check::test(&workspace, &runner_args),
        Task::FuzzDatapath(options) => fuzz::run(&workspace, &options),
        Task::Dist(options) => dist::run(&workspace, &options),
        Task::Tidy => tidy::run(&workspace),
        Task::Attach(options) => attach::attach(&workspace, &options),
        Task::Detach { keep_forwarding } => attach::detach(keep_forwarding),
        Task::Demo { keep, args } => lab::demo(&workspace, keep, &args),
        Task::Bench { args } => bench::run(&workspace, &args),
        Task::Lab { action, args } => lab::run(&workspace, action, &args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory;

    #[test]
    fn a_command_for_the_lab_is_passed_on_as_it_is() {
        let line = "cargo-xtask lab exec client curl --max-time 5 http://192.0.2.10/";
        let Ok(Cli { task: Task::Lab { args, .. } }) = Cli::try_parse_from(line.split(' ')) else {
            panic!("{line} is not understood");
        };
        assert_eq!(args.join(" "), "client curl --max-time 5 http://192.0.2.10/");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
