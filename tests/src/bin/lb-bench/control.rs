//! What a change costs: lookup tables, a reload of a large configuration from its text to the last write into the kernel's
//! maps, and the memory it takes. The controller is the daemon's own; what it orders is carried out at once.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{Features, Limits, Slot};
use lb_user::{
    controller::{Action, Applied, Controller, Event, Identity},
    edge::kernel::{Kernel, LoadOptions},
    model::{
        maglev::{self, Member},
        next_hop::NextHop,
        plan::Change,
        source::Source,
    },
};

use crate::{
    Effort,
    report::{Basis, Figure, Report, least, median},
};

const PART: &str = "control";

/// Measures everything.
pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    tables(effort, report);
    reloads(effort, report)?;
    one_weight_of_many(report)
}

/// How long lookup tables take.
fn tables(effort: &Effort, report: &mut Report) {
    println!("\nControl plane\n{:<44}{:>10}{:>10}  goal", "a lookup table, ms", "least", "median");
    let times = if effort.quick { 5 } else { 15 };
    for slots in [16_381, 65_537] {
        for count in [10u16, 100, 1000] {
            let names: Vec<String> =
                (0..count).map(|number| format!("10.1.{}.{}", number >> 8, number & 255)).collect();
            let members: Vec<Member<'_>> = (0..count)
                .zip(&names)
                .map(|(number, identity)| Member { identity, number, weight: 100 })
                .collect();
            let took: Vec<f64> = (0..times)
                .map(|_| {
                    let start = Instant::now();
                    std::hint::black_box(maglev::build(std::hint::black_box(&members), slots));
                    milliseconds(start.elapsed())
                })
                .collect();
            let goal = (count == 1000 && slots == 65_537).then_some(15.0);
            let case = format!("{count} backends, {slots} slots");
            say(&case, &took, goal, report);
        }
    }
}

fn say(case: &str, took: &[f64], goal: Option<f64>, report: &mut Report) {
    let (shortest, middle) = (least(took), median(took));
    let met = match goal {
        Some(goal) if middle <= goal => format!("{goal} met"),
        Some(goal) => format!("{goal} MISSED"),
        None => String::new(),
    };
    println!("{case:<44}{shortest:>10.2}{middle:>10.2}  {met}");
    let mut add = |figure, value, goal| {
        report.add(Figure { part: PART, case: case.to_owned(), figure, value, goal, basis: Basis::Absolute });
    };
    add("median ms", middle, goal);
    add("least ms", shortest, None);
}

/// A controller over real maps, to whose backends there is always a way.
struct Daemon {
    controller: Controller,
    kernel: Kernel,
    now: Duration,
}

/// What a change took.
#[derive(Clone, Copy, Default)]
struct Cost {
    took: Duration,
    steps: usize,
    /// Slots written, their previous owners not counted.
    slots: usize,
}

impl Daemon {
    fn new(limits: Limits) -> Result<Self> {
        let options =
            LoadOptions { limits, features: Features::NONE, log_packets: false, pins: "/nonexistent".into() };
        let identity = Identity {
            version: "bench".to_owned(),
            pid: std::process::id(),
            config_path: "bench.toml".to_owned(),
            ticks_per_second: 1000,
            epoch: Duration::ZERO,
        };
        let kernel = Kernel::load(&options)?;
        Ok(Self {
            controller: Controller::new(Duration::ZERO, limits, identity),
            kernel,
            now: Duration::ZERO,
        })
    }

    /// Somebody saves the file: until the last write that follows is read back.
    fn reload(&mut self, text: &str) -> Result<Cost> {
        self.now += Duration::from_secs(1);
        let mut cost = Cost::default();
        let start = Instant::now();
        let mut events = vec![Event::ConfigText(Source::of(text))];
        while !events.is_empty() {
            for action in self.controller.handle(self.now, std::mem::take(&mut events)) {
                match action {
                    Action::Apply(changes) => {
                        for change in &changes {
                            self.kernel.apply(change).with_context(|| format!("{change:?}"))?;
                            if let Change::Slots(slots) = change {
                                cost.slots += slots.len();
                            }
                        }
                        cost.steps += changes.len();
                        events.push(Event::Applied(Applied { done: changes.len(), error: None }));
                    }
                    Action::Resolve(wanted) => {
                        events.extend(
                            wanted
                                .into_iter()
                                .map(|target| Event::NextHop { target, state: Ok(way(target)) }),
                        );
                    }
                    Action::ReadBack(changes) => {
                        let read = changes.iter().filter_map(|change| change.read(&self.kernel));
                        events.push(Event::ReadBack(read.collect()));
                    }
                    Action::Probe(_)
                    | Action::WriteConfig { .. }
                    | Action::ReadNamed { .. }
                    | Action::Keep(_)
                    | Action::ReadFlows
                    | Action::Trace { .. }
                    | Action::Reply { .. }
                    | Action::Stream { .. }
                    | Action::EndStream { .. }
                    | Action::State(_)
                    | Action::Log(..) => {}
                }
            }
        }
        cost.took = start.elapsed();
        if let Some(error) = self.controller.config_errors().first() {
            bail!("the configuration is wrong: {error}");
        }
        Ok(cost)
    }

    fn slots(&self) -> Vec<Slot> {
        self.kernel.read().slots
    }
}

/// Every address is next door.
fn way(target: IpAddr) -> NextHop {
    let last = match target {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    NextHop {
        via: target,
        interface: lb_tests::datapath::INGRESS,
        interface_name: "lo".to_owned(),
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 1, last],
        mtu: 1500,
        local: None,
    }
}

fn config(services: u32, backends: u32, slots: u32, special_weight: u32) -> Result<String> {
    Ok("[lb]\ninterfaces = [\"lo\"]\n".to_owned()
        + &self::services(services, backends, slots, special_weight)?)
}

/// So many services, each with a pool of its own of so many backends, with so many slots.
pub(crate) fn services(services: u32, backends: u32, slots: u32, special_weight: u32) -> Result<String> {
    let mut text = String::new();
    for service in 0..services {
        let [_, _, high, low] = service.to_be_bytes();
        writeln!(text, "\n[[pool]]\nname = \"p{service}\"\nslots = {slots}")?;
        for backend in 0..backends {
            let weight = if service == services / 2 && backend == 3 { special_weight } else { 100 };
            let address = format!("10.{}.{low}.{}", 100 + high, backend + 1);
            writeln!(
                text,
                "[[pool.backend]]\nname = \"b{backend}\"\naddress = \"{address}\"\nweight = {weight}"
            )?;
        }
        writeln!(
            text,
            "[[service]]\nname = \"s{service}\"\nvip = \"192.168.{high}.{low}\"\nports = [\"tcp/80\"]\npool = \"p{service}\""
        )?;
    }
    Ok(text)
}

/// A thousand services of ten backends: from nothing, and then as little as one weight.
fn reloads(effort: &Effort, report: &mut Report) -> Result<()> {
    println!("\n{:<44}{:>10}{:>10}{:>8}{:>9}  goal", "a reload, ms", "least", "median", "steps", "slots");
    let limits = Limits { counters: 1 << 18, ..Limits::DEFAULT };
    let times = if effort.quick { 3 } else { 7 };
    let before = resident()?;
    for services in [10, 100, 1000] {
        let text = config(services, 10, 1021, 100)?;
        let other = config(services, 10, 1021, 50)?;
        let more = config(services + 1, 10, 1021, 100)?;
        let mut daemon = Daemon::new(limits)?;
        let goal = (services == 1000).then_some(1000.0);
        let first = daemon.reload(&text)?;
        tell(&format!("{services} services x 10, from nothing"), &[first], goal, report);
        let mut weight = Vec::new();
        let mut same = Vec::new();
        let mut one_more = Vec::new();
        for _ in 0..times {
            weight.push(daemon.reload(&other)?);
            weight.push(daemon.reload(&text)?);
            same.push(daemon.unchanged(&text)?);
            one_more.push(daemon.reload(&more)?);
            daemon.reload(&text)?;
        }
        tell(&format!("{services} services x 10, nothing changed"), &same, goal, report);
        tell(&format!("{services} services x 10, one weight"), &weight, goal, report);
        tell(&format!("{services} services x 10, one service more"), &one_more, goal, report);
        if services == 1000 {
            let (after, maps) = (resident()?, map_memory()?);
            println!(
                "memory: the process grew from {before} MB to {after} MB (its mapped tables included), maps take {maps} MB"
            );
            for (figure, value) in [("resident MB", after), ("maps MB", maps)] {
                let case = "1000 services x 10, memory".to_owned();
                report.add(Figure {
                    part: PART,
                    case,
                    figure,
                    value: value as f64,
                    goal: None,
                    basis: Basis::Absolute,
                });
            }
        }
    }
    Ok(())
}

impl Daemon {
    /// The same text again: nothing is written.
    fn unchanged(&mut self, text: &str) -> Result<Cost> {
        let start = Instant::now();
        let cost = self.reload(text)?;
        ensure!(cost.steps == 0, "{} steps for a configuration that did not change", cost.steps);
        Ok(Cost { took: start.elapsed(), ..cost })
    }
}

fn tell(case: &str, costs: &[Cost], goal: Option<f64>, report: &mut Report) {
    let took: Vec<f64> = costs.iter().map(|cost| milliseconds(cost.took)).collect();
    let (shortest, middle) = (least(&took), median(&took));
    let Cost { steps, slots, .. } = costs.last().copied().unwrap_or_default();
    let met = match goal {
        Some(goal) if middle <= goal => format!("{goal} met"),
        Some(goal) => format!("{goal} MISSED"),
        None => String::new(),
    };
    println!("{case:<44}{shortest:>10.2}{middle:>10.2}{steps:>8}{slots:>9}  {met}");
    let mut add = |figure, value, goal| {
        report.add(Figure { part: PART, case: case.to_owned(), figure, value, goal, basis: Basis::Absolute });
    };
    add("median ms", middle, goal);
    add("steps", steps as f64, None);
    add("slots written", slots as f64, None);
}

/// One weight of a pool of a hundred: only slots that change are written, each once.
fn one_weight_of_many(report: &mut Report) -> Result<()> {
    let mut daemon = Daemon::new(Limits::DEFAULT)?;
    daemon.reload(&config(1, 100, 16_381, 100)?)?;
    let before = daemon.slots();
    let cost = daemon.reload(&config(1, 100, 16_381, 50)?)?;
    let after = daemon.slots();
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    println!(
        "one weight of a pool of 100 from 100 to 50: {changed} of 16381 slots change, {} are written, {:.2} ms",
        cost.slots,
        milliseconds(cost.took)
    );
    ensure!(cost.slots == changed, "{} slots are written, {changed} change", cost.slots);
    let case = "one weight of 100, 16381 slots".to_owned();
    report.add(Figure {
        part: PART,
        case,
        figure: "slots written",
        value: changed as f64,
        goal: None,
        basis: Basis::Absolute,
    });
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Memory of this process that is there; megabytes.
pub(crate) fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.context("no VmRSS in /proc/self/status")? / 1024)
}

/// Memory of the maps that this process holds; megabytes.
fn map_memory() -> Result<u64> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // Some are gone again: that of this directory.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(map), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(map, bytes);
        }
    }
    Ok(maps.values().sum::<u64>() >> 20)
}
