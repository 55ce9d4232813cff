//! How figures grow, as pictures: one SVG for each question, of the figures of this run.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use plotters::prelude::{
    ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, Palette, Palette99, RGBColor,
    SVGBackend, SeriesLabelPosition, ShapeStyle, WHITE,
};

use crate::report::Report;

/// A question and its answers.
struct Plot {
    file: &'static str,
    title: &'static str,
    /// What grows.
    x: &'static str,
    /// What is measured.
    y: &'static str,
    lines: Vec<Line>,
}

/// Cases that belong together.
struct Line {
    label: &'static str,
    part: &'static str,
    figure: &'static str,
    /// How large, and the case.
    points: Vec<(f64, String)>,
}

/// What each plot shows.
fn plots() -> Vec<Plot> {
    let flows = |label, cases: [&str; 3]| Line {
        label,
        part: "decision",
        figure: "least ns",
        points: [1.0, 65_536.0, 1_048_576.0].into_iter().zip(cases.map(str::to_owned)).collect(),
    };
    let reload = |label, what: &str| Line {
        label,
        part: "control",
        figure: "median ms",
        points: [10, 100, 1000]
            .map(|services| (f64::from(services), format!("{services} services x 10, {what}")))
            .to_vec(),
    };
    let start = |label, what: &str| Line {
        label,
        part: "restart",
        figure: "median ms",
        points: [10, 100, 1000]
            .map(|services| (f64::from(services), format!("{services} services x 10, {what}")))
            .to_vec(),
    };
    vec![
        Plot {
            file: "flows.svg",
            title: "A packet's decision, harness included",
            x: "flows that take turns",
            y: "least ns",
            lines: vec![
                flows(
                    "L2",
                    ["L2, TCP/IPv4, 1 flow", "L2, TCP/IPv4, 64 Ki flows", "L2, TCP/IPv4, 1 Mi flows"],
                ),
                flows(
                    "IPv4 in IPv4",
                    [
                        "IPv4 in IPv4, TCP, 1 flow",
                        "IPv4 in IPv4, TCP, 64 Ki flows",
                        "IPv4 in IPv4, TCP, 1 Mi flows",
                    ],
                ),
                flows(
                    "L2, tracking always",
                    [
                        "tracking always, 1 flow",
                        "tracking always, 64 Ki flows",
                        "tracking always, SYN, 1 Mi flows",
                    ],
                ),
                flows(
                    "L2, slot in transition",
                    [
                        "slot in transition, 1 flow",
                        "slot in transition, 64 Ki flows",
                        "slot in transition, SYN, 1 Mi flows",
                    ],
                ),
            ],
        },
        Plot {
            file: "services.svg",
            title: "A packet's decision, 1 Mi flows over all services",
            x: "services",
            y: "least ns",
            lines: vec![Line {
                label: "L2",
                part: "decision",
                figure: "least ns",
                points: [(1.0, "1 service"), (500.0, "500 services"), (10_000.0, "10,000 services")]
                    .map(|(count, name)| (count, format!("{name}, 1 Mi flows")))
                    .to_vec(),
            }],
        },
        Plot {
            file: "changes.svg",
            title: "A change of the configuration, ten backends for each service",
            x: "services",
            y: "ms",
            lines: vec![
                reload("from nothing", "from nothing"),
                reload("one weight", "one weight"),
                reload("one service more", "one service more"),
                reload("nothing changed", "nothing changed"),
                start("a daemon's start", "from nothing"),
                start("a daemon goes on", "going on"),
            ],
        },
        Plot {
            file: "checks.svg",
            title: "Health checks by TCP every 2 s",
            x: "backends",
            y: "CPU, cores",
            lines: vec![Line {
                label: "the daemon's probes",
                part: "checks",
                figure: "cores",
                points: [100, 1000, 10_000]
                    .map(|count| (f64::from(count), format!("{count} backends every 2 s")))
                    .to_vec(),
            }],
        },
    ]
}

/// Draws every plot whose figures were measured into a directory.
///
/// # Errors
/// It cannot be written, or this run has not measured what any plot needs.
pub(crate) fn draw(report: &Report, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut drawn = Vec::new();
    for plot in plots() {
        let lines: Vec<(&str, Vec<(f64, f64)>)> = plot
            .lines
            .iter()
            .map(|line| (line.label, line.values(report)))
            .filter(|(_, points)| points.len() > 1)
            .collect();
        if !lines.is_empty() {
            let path = directory.join(plot.file);
            plot.draw(&lines, &path).with_context(|| format!("draw {}", path.display()))?;
            drawn.push(plot.file);
        }
    }
    ensure!(!drawn.is_empty(), "nothing was measured that a plot shows: run every part, and not --quick");
    println!("drawn in {}: {}", directory.display(), drawn.join(", "));
    Ok(())
}

impl Line {
    /// What this run measured of it.
    fn values(&self, report: &Report) -> Vec<(f64, f64)> {
        let value = |case: &str| {
            let figure = report.figures.iter().find(|figure| {
                figure.part == self.part && figure.case == case && figure.figure == self.figure
            });
            figure.map(|figure| figure.value)
        };
        self.points.iter().filter_map(|(size, case)| Some((*size, value(case)?))).collect()
    }
}

impl Plot {
    fn draw(&self, lines: &[(&str, Vec<(f64, f64)>)], path: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
        let points = || lines.iter().flat_map(|(_, points)| points);
        let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(f64::MIN, f64::max);
        let least = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(f64::MAX, f64::min);
        let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (least(|point| point.0)..most(|point| point.0)).log_scale(),
                0.0..most(|point| point.1) * 1.1,
            )
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(&error))?;
        for (number, (label, points)) in lines.iter().enumerate() {
            let (red, green, blue) = Palette99::COLORS[number % Palette99::COLORS.len()];
            let style = ShapeStyle::from(RGBColor(red, green, blue)).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))
                .map_err(|error| failed(&error))?
                .label(*label)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, style.filled()));
            let dots = points.iter().map(|point| Circle::new(*point, 4, style.filled()));
            chart.draw_series(dots).map_err(|error| failed(&error))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))
    }
}
