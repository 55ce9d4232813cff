//! `lb-bench`: what a packet costs, and what a change. `cargo xtask bench` runs it.
//!
//! Every part measures pairs in one run and says how they relate; figures of different runs or machines do not compare.
//! A part fails if what it measured did not do its work: counters must agree with iterations, verdicts with what a
//! case expects.

mod checks;
mod control;
mod decision;
mod live;
mod plots;
mod report;
mod restart;
mod rivals;
mod stand;
mod worlds;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::{Pid, geteuid},
};

use crate::report::Report;

/// Measure lb against the least that a balancer can do.
#[derive(Parser)]
#[command(name = "lb-bench")]
struct Arguments {
    /// Fewer rounds and cases: under a minute.
    #[arg(long)]
    quick: bool,
    /// Write the figures here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw here how figures grow, as SVG.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Fail if a ratio is beyond its checked-in limit.
    #[arg(long)]
    check: bool,
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Only cases with this in their name.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the program costs for each packet.
    Decision,
    /// What a packet costs on its whole way, and what it would with others.
    Live,
    /// What a request costs through lb, and through what a user would take instead.
    Rivals,
    /// What a change costs: lookup tables, reloads, memory.
    Control,
    /// How long a daemon takes to start.
    Restart,
    /// What health checks cost the daemon.
    Checks,
    /// Instructions for each packet: only where the clock counts them, see `cargo xtask instructions`.
    Instructions,
}

/// How thorough to be.
pub(crate) struct Effort {
    quick: bool,
    case: Option<String>,
}

impl Effort {
    /// Whether to run a case, which is part of a quick run or not.
    fn wants(&self, name: &str, is_quick: bool) -> bool {
        match &self.case {
            Some(text) => name.contains(text.as_str()),
            None => is_quick || !self.quick,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "the bench loads kernel programs and makes network namespaces: run it as root"
    );
    let effort = Effort { quick: arguments.quick, case: arguments.case };
    pin()?;
    let mut report = Report::default();
    let wants = |part| arguments.only.is_none_or(|only| only == part);
    // The programs' interfaces exist in a namespace of their own, which goes with this process.
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
    lb_tests::datapath::namespace::interfaces()?;
    if arguments.only == Some(Part::Instructions) {
        decision::count(&effort, &mut report)?;
        live::run(&effort, live::Clock::Instructions, &mut report)?;
    }
    if wants(Part::Decision) {
        decision::run(&effort, &mut report)?;
    }
    if wants(Part::Live) {
        live::run(&effort, live::Clock::Time, &mut report)?;
    }
    if wants(Part::Rivals) {
        rivals::run(&effort, &mut report)?;
    }
    if wants(Part::Control) {
        control::run(&effort, &mut report)?;
    }
    if wants(Part::Restart) {
        restart::run(&effort, &mut report)?;
    }
    if wants(Part::Checks) {
        checks::run(&effort, &mut report)?;
    }
    report.print_goals();
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if let Some(directory) = &arguments.plots {
        plots::draw(&report, directory)?;
    }
    if arguments.check {
        report.check()?;
    }
    Ok(())
}

/// Stays on one CPU, the last: interrupts of devices prefer the first.
fn pin() -> Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut cpus = CpuSet::new();
    cpus.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("pin to one CPU")
}
