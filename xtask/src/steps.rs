//! A run of named steps: a headline and a time for each, a stop at the first failure, a summary.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::process;

/// Steps done so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Does one step.
    ///
    /// # Errors
    /// The step's own, after saying which step it was and which were done before.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        what: &str,
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        println!("\n== {name}: {what}");
        let start = Instant::now();
        let result = step();
        let took = start.elapsed();
        if result.is_err() {
            self.print_done();
            println!("  FAILED {name:<8} {:>7.1} s", took.as_secs_f64());
            return result.with_context(|| format!("stopped at {name}"));
        }
        println!("== {name}: ok in {:.1} s", took.as_secs_f64());
        self.done.push((name, took));
        Ok(())
    }

    /// Does one step that is a command.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) fn command(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        let line = process::line(command);
        self.step(name, &line, || process::run(command))
    }

    /// Says what was done, once all is.
    pub(crate) fn finish(&self) {
        self.print_done();
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        println!("all {} steps ok in {:.1} s", self.done.len(), total.as_secs_f64());
    }

    fn print_done(&self) {
        println!();
        for (name, took) in &self.done {
            println!("  ok     {name:<8} {:>7.1} s", took.as_secs_f64());
        }
    }
}
