//! What was measured: tables for people, JSON for programs, and whether it is within the checked-in limits.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Everything measured in this run.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    /// Kernel and processor.
    pub(crate) machine: String,
    /// By part.
    pub(crate) figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Serialize)]
pub(crate) struct Figure {
    /// The part that measured it.
    pub(crate) part: &'static str,
    /// What was measured.
    pub(crate) case: String,
    /// What the figure says of it.
    pub(crate) figure: &'static str,
    /// How much.
    pub(crate) value: f64,
    /// At most so much is the goal, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<f64>,
    /// What it can be held against.
    pub(crate) basis: Basis,
}

/// What a figure can be held against.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Basis {
    /// Figures of the same run only.
    Absolute,
    /// Other machines' too: a ratio of two things measured in one run.
    Ratio,
    /// Any other run's: it does not depend on the machine.
    Count,
}

impl Basis {
    /// How many times the checked-in figure it may be; `None` if it is not checked. Machines differ more than versions
    /// should, counts do not.
    const fn margin(self) -> Option<f64> {
        match self {
            Self::Absolute => None,
            Self::Ratio => Some(1.25),
            Self::Count => Some(1.01),
        }
    }
}

impl Report {
    /// Adds a figure.
    pub(crate) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Writes it as JSON.
    pub(crate) fn write(&mut self, path: &Path) -> Result<()> {
        self.machine = machine();
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// Says which goals were missed.
    pub(crate) fn print_goals(&self) {
        let with_goal = self.figures.iter().filter_map(|figure| Some((figure, figure.goal?)));
        let (met, missed): (Vec<_>, Vec<_>) = with_goal.partition(|(figure, goal)| figure.value <= *goal);
        println!("\nGoals: {} met, {} missed", met.len(), missed.len());
        for (figure, goal) in missed {
            println!(
                "  missed: {}, {}: {} {:.2}, at most {goal:.2} wanted",
                figure.part, figure.case, figure.figure, figure.value
            );
        }
    }

    /// Fails if a ratio is far above the checked-in one, or a count above it at all.
    pub(crate) fn check(&self) -> Result<()> {
        let known: toml_edit::DocumentMut = include_str!("../../../bench-ratios.toml").parse()?;
        let mut beyond = Vec::new();
        let mut checked = 0;
        for figure in &self.figures {
            let Some(margin) = figure.basis.margin() else { continue };
            let limit = known.get(figure.part).and_then(|part| part.get(&figure.case));
            let Some(limit) =
                limit.and_then(|limit| limit.get(figure.figure)).and_then(toml_edit::Item::as_float)
            else {
                continue;
            };
            checked += 1;
            if figure.value > limit * margin {
                let Figure { case, figure, value, .. } = figure;
                beyond.push(format!("{case}, {figure}: {value:.2}, at most {margin} times {limit:.2}"));
            }
        }
        ensure!(checked > 0, "none of these figures is in tests/bench-ratios.toml");
        ensure!(beyond.is_empty(), "above the checked-in figures: {}", beyond.join("; "));
        println!("{checked} figures are within their margins of the checked-in ones");
        Ok(())
    }
}

/// Kernel and processor.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("Linux {}, {}", read("/proc/sys/kernel/osrelease").trim(), model)
}

/// The least of some values.
pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The middle one of some values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
