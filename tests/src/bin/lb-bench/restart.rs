//! How long a daemon takes from its start to its first answer: from nothing, and when it goes on with the tables of the one
//! before, which was killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::{Config, Daemon, Lab};

use crate::{
    Effort, control,
    report::{Basis, Figure, Report, least, median},
};

const PART: &str = "restart";

/// Measures.
pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    println!("\n{:<44}{:>10}{:>10}", "a start to the first answer, ms", "least", "median");
    for services in if effort.quick { &[1000][..] } else { &[10, 100, 1000] } {
        let lab = Lab::builder().l2_backends(0).tunnel_backends(0).build()?;
        let config = Config::new().lines(&control::services(*services, 10, 1021, 100)?);
        let start = Instant::now();
        let mut daemon = Daemon::start(&lab, &config)?;
        say(&format!("{services} services x 10, from nothing"), &[start.elapsed()], report);
        let mut took = Vec::new();
        for _ in 0..if effort.quick { 2 } else { 5 } {
            daemon.crash()?;
            let start = Instant::now();
            daemon.restart(&[])?;
            took.push(start.elapsed());
        }
        ensure!(daemon.log().contains("going on with"), "it began anew: {}", daemon.log());
        say(&format!("{services} services x 10, going on"), &took, report);
    }
    Ok(())
}

fn say(case: &str, took: &[Duration], report: &mut Report) {
    let took: Vec<f64> = took.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    println!("{case:<44}{:>10.0}{:>10.0}", least(&took), median(&took));
    let (case, value) = (case.to_owned(), median(&took));
    report.add(Figure { part: PART, case, figure: "median ms", value, goal: None, basis: Basis::Absolute });
}
