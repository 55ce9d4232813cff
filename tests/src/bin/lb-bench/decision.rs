//! What the program costs for each packet: against an empty program and against the least balancer, under the same
//! wrapper and in the same round.

use anyhow::{Context, Result, ensure};
use lb_common::abi::{PassReason, Reason, name};
use lb_tests::{
    datapath::{Rig, ways::endpoint, xdp},
    packets::{Packet, flag},
};

use crate::{
    Effort,
    report::{Basis, Figure, Report, least, median},
    stand::{Rounds, Scene, Stand},
    worlds::{GUE, IN_4, IN_6, L2, NOBODYS, REDIRECT, World},
};

const PART: &str = "decision";

/// Flows that take turns.
const MANY: u64 = 1 << 16;
const MORE: u64 = 1 << 20;

/// What becomes of every packet of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is forwarded: back out.
    Transmitted,
    /// It is forwarded by another interface.
    Redirected,
    /// It is none of a service's.
    Passed,
}

impl Fate {
    /// The XDP verdict (`enum xdp_action`, linux/bpf.h).
    const fn verdict(self) -> u32 {
        match self {
            Self::Passed => 2,
            Self::Transmitted => 3,
            Self::Redirected => 4,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Established,
    Syn,
    Datagram,
}
use Kind::{Datagram, Established, Syn};

struct Case {
    name: &'static str,
    world: World,
    /// The VIPs of both families, and which.
    vips: [&'static str; 2],
    family: usize,
    kind: Kind,
    flows: u64,
    fate: Fate,
    /// At most so many times the least balancer.
    goal: Option<f64>,
    is_quick: bool,
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Fate::{Passed, Redirected, Transmitted};
    use World::{Always, EveryFeature, Gue, Limited, Listed, Plain, Services, Transition};
    let case = |name, world, vips, family, kind, flows, fate, goal: f64, is_quick| Case {
        name, world, vips, family, kind, flows, fate, goal: (goal > 0.0).then_some(goal), is_quick,
    };
    vec![
        case("L2, TCP/IPv4, 1 flow",              Plain, L2, 0, Established, 1,    Transmitted, 1.5, true),
        case("L2, TCP/IPv4, 64 Ki flows",         Plain, L2, 0, Established, MANY, Transmitted, 0.0, true),
        case("L2, TCP/IPv4, 1 Mi flows",          Plain, L2, 0, Established, MORE, Transmitted, 0.0, true),
        case("L2, SYN/IPv4, 1 flow",              Plain, L2, 0, Syn,         1,    Transmitted, 1.5, true),
        case("L2, SYN/IPv4, 1 Mi flows",          Plain, L2, 0, Syn,         MORE, Transmitted, 0.0, false),
        case("L2, UDP/IPv4, 1 flow",              Plain, L2, 0, Datagram,    1,    Transmitted, 1.5, true),
        case("L2, TCP/IPv6, 1 flow",              Plain, L2, 1, Established, 1,    Transmitted, 1.7, true),
        case("L2, TCP/IPv6, 1 Mi flows",          Plain, L2, 1, Established, MORE, Transmitted, 0.0, false),
        case("L2, another interface, TCP/IPv4",   Plain, REDIRECT, 0, Established, 1, Redirected, 0.0, false),
        case("IPv4 in IPv4, TCP, 1 flow",         Plain, IN_4, 0, Established, 1,    Transmitted, 2.0, true),
        case("IPv4 in IPv4, TCP, 64 Ki flows",    Plain, IN_4, 0, Established, MANY, Transmitted, 0.0, false),
        case("IPv4 in IPv4, TCP, 1 Mi flows",     Plain, IN_4, 0, Established, MORE, Transmitted, 0.0, true),
        case("IPv4 in IPv4, SYN, 1 Mi flows",     Plain, IN_4, 0, Syn,         MORE, Transmitted, 0.0, true),
        case("IPv4 in IPv4, UDP, 1 flow",         Plain, IN_4, 0, Datagram,    1,    Transmitted, 2.0, false),
        case("IPv6 in IPv4, TCP, 1 flow",         Plain, IN_4, 1, Established, 1,    Transmitted, 2.0, false),
        case("IPv4 in IPv6, TCP, 1 flow",         Plain, IN_6, 0, Established, 1,    Transmitted, 2.3, false),
        case("IPv6 in IPv6, TCP, 1 flow",         Plain, IN_6, 1, Established, 1,    Transmitted, 2.3, true),
        case("not for a VIP, TCP/IPv4",           Plain, NOBODYS, 0, Established, 1,    Passed, 1.3, true),
        case("not for a VIP, TCP/IPv4, 1 Mi flows", Plain, NOBODYS, 0, Established, MORE, Passed, 0.0, false),
        case("not for a VIP, TCP/IPv6",           Plain, NOBODYS, 1, Established, 1,    Passed, 1.3, false),
        case("IPv4 in GUE over IPv4, TCP, 1 flow",  Gue, GUE, 0, Established, 1, Transmitted, 2.6, true),
        case("IPv6 in GUE over IPv4, TCP, 1 flow",  Gue, GUE, 1, Established, 1, Transmitted, 2.6, false),
        case("every feature, none used",          EveryFeature, L2, 0, Established, 1,  Transmitted, 0.0, false),
        case("list of 10,000 prefixes, 1 flow",   Listed,  L2, 0, Established, 1,    Transmitted, 0.0, true),
        case("list of 10,000 prefixes, 1 Mi flows", Listed, L2, 0, Established, MORE, Transmitted, 0.0, false),
        case("limits for each source, 1 flow",    Limited, L2, 0, Established, 1,    Transmitted, 0.0, true),
        case("limits for each source, SYN, 1 Mi flows", Limited, L2, 0, Syn, MORE, Transmitted, 0.0, false),
        case("tracking always, 1 flow",           Always,  L2, 0, Established, 1,    Transmitted, 0.0, true),
        case("tracking always, 64 Ki flows",      Always,  L2, 0, Established, MANY, Transmitted, 0.0, false),
        case("tracking always, SYN, 1 Mi flows",  Always,  L2, 0, Syn,         MORE, Transmitted, 0.0, false),
        case("slot in transition, 1 flow",        Transition, L2, 0, Established, 1,    Transmitted, 0.0, true),
        case("slot in transition, 64 Ki flows",   Transition, L2, 0, Established, MANY, Transmitted, 0.0, false),
        case("slot in transition, SYN, 1 Mi flows", Transition, L2, 0, Syn,      MORE, Transmitted, 0.0, false),
        case("1 service, 1 Mi flows",             Services(1),      L2, 0, Established, MORE, Transmitted, 0.0, false),
        case("500 services, 1 Mi flows",          Services(500),    L2, 0, Established, MORE, Transmitted, 0.0, false),
        case("10,000 services, 1 Mi flows",       Services(10_000), L2, 0, Established, MORE, Transmitted, 0.0, false),
    ]
}

/// Figures of one case that later ones are held against.
struct Done {
    name: &'static str,
    least: f64,
    net: f64,
}

/// Counts the instructions of every case with one flow: where the clock counts instructions, and only there.
pub(crate) fn count(effort: &Effort, report: &mut Report) -> Result<()> {
    /// Interrupts come between; of some rounds one is without.
    const ROUNDS: usize = 15;
    let mut stand = Stand::load()?;
    let mut loaded = Loaded::default();
    println!("Instructions for each packet, less those of an empty program");
    println!("{:<41}{:>7}{:>7}  goal", "case", "lb", "swap");
    for case in cases() {
        if case.flows > 1 || !effort.wants(case.name, true) {
            continue;
        }
        let rig = loaded.world(case.world)?;
        let measured = measure(&mut stand, rig, &case, ROUNDS).with_context(|| case.name)?;
        let empty = least(&measured.empty);
        let (net, swap) = (least(&measured.subject) - empty, least(&measured.swap) - empty);
        let goal = match (case.world, case.vips) {
            (World::Plain, vips) if vips == L2 => Some(250.0),
            (World::Plain, vips) if vips == IN_4 || vips == IN_6 => Some(380.0),
            _ => None,
        };
        println!("{:<41}{net:>7.0}{swap:>7.0}  {}", case.name, verdict(net, goal));
        report.add(Figure {
            part: "instructions",
            case: case.name.to_owned(),
            figure: "net",
            value: net.round(),
            goal,
            basis: Basis::Count,
        });
    }
    Ok(())
}

/// How a figure stands to its goal.
fn verdict(value: f64, goal: Option<f64>) -> String {
    match goal {
        Some(goal) if value <= goal => format!("{goal} met"),
        Some(goal) => format!("{goal} MISSED"),
        None => String::new(),
    }
}

/// The tables that are loaded: one world at a time, because they are large.
#[derive(Default)]
struct Loaded(Option<(World, Rig)>);

impl Loaded {
    fn world(&mut self, world: World) -> Result<&mut Rig> {
        if self.0.as_ref().is_none_or(|(known, _)| *known != world) {
            drop(self.0.take());
            let rig = world.load().with_context(|| format!("make the tables of {world:?}"))?;
            return Ok(&mut self.0.insert((world, rig)).1);
        }
        self.0.as_mut().map(|(_, rig)| rig).context("no tables")
    }
}

/// Measures every case.
pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let rounds = if effort.quick { 40 } else { 100 };
    let mut stand = Stand::load()?;
    let mut loaded = Loaded::default();
    let mut done: Vec<Done> = Vec::new();
    println!(
        "Decision: {rounds} rounds of {} iterations, 64-byte frames (IPv6 74), ns",
        crate::stand::ITERATIONS
    );
    println!("{:<41}{:>7}{:>8}{:>8}{:>10}{:>9}  goal", "case", "least", "median", "net", "x empty", "x swap");
    for case in cases() {
        if !effort.wants(case.name, case.is_quick) {
            continue;
        }
        let rig = loaded.world(case.world)?;
        let measured = measure(&mut stand, rig, &case, rounds).with_context(|| case.name)?;
        say(&case, &measured, report, &mut done);
    }
    relate(&done, report);
    Ok(())
}

fn measure(stand: &mut Stand, rig: &mut Rig, case: &Case, rounds: usize) -> Result<Rounds> {
    let (client, length) = [("198.51.100.7", 50), ("2001:db8:c::7", 60)][case.family];
    // IPv6 addresses end in words that the wrapper changes, too.
    let client = endpoint(client, 40_000);
    let vip = endpoint(case.vips[case.family], 80);
    let packet = match case.kind {
        Established => Packet::tcp(client, vip),
        Syn => Packet::tcp(client, vip).flags(flag::SYN),
        Datagram => Packet::udp(client, vip),
    };
    let vips = if let World::Services(count) = case.world { u64::from(count) } else { 1 };
    let scene = Scene { frame: packet.ip_length(length).frame(), flows: case.flows, vips };
    let program = xdp(rig.kernel(), name::PROGRAM)?.fd()?.try_clone()?;
    stand.subject(&program)?;
    rig.gained();
    let measured = stand.rounds(&scene, rounds, case.fate.verdict())?;
    // Honest only if the balancer's own counters say that every iteration did the work.
    let gained = rig.gained();
    let forwarded: u64 = gained.forwarded.iter().map(|counter| counter.packets).sum();
    let of = |reason: Reason| gained.reasons[reason.counter() as usize].packets;
    let stray: Vec<_> = Reason::all()
        .filter(|reason| !matches!(reason, Reason::Note(_)))
        .filter(|reason| case.fate != Fate::Passed || *reason != Reason::Pass(PassReason::NotForService))
        .filter(|reason| of(*reason) > 0)
        .map(|reason| format!("{} {}", of(reason), reason.name()))
        .collect();
    ensure!(stray.is_empty(), "packets met another fate: {}", stray.join(", "));
    let counted =
        if case.fate == Fate::Passed { of(Reason::Pass(PassReason::NotForService)) } else { forwarded };
    ensure!(
        counted == measured.iterations,
        "{counted} packets were counted of {} iterations",
        measured.iterations
    );
    Ok(measured)
}

fn say(case: &Case, measured: &Rounds, report: &mut Report, done: &mut Vec<Done>) {
    let ratios = |base: &[f64]| -> Vec<f64> {
        measured.subject.iter().zip(base).map(|(subject, base)| subject / base).collect()
    };
    let (to_empty, to_swap) = (median(&ratios(&measured.empty)), median(&ratios(&measured.swap)));
    let (shortest, middle) = (least(&measured.subject), median(&measured.subject));
    let net = shortest - least(&measured.empty);
    let goal = verdict(to_swap, case.goal);
    println!("{:<41}{shortest:>7.1}{middle:>8.1}{net:>8.1}{to_empty:>10.2}{to_swap:>9.2}  {goal}", case.name);
    let mut add = |figure, value, goal, basis| {
        report.add(Figure { part: PART, case: case.name.to_owned(), figure, value, goal, basis });
    };
    add("times the least balancer", to_swap, case.goal, Basis::Ratio);
    add("times an empty program", to_empty, None, Basis::Ratio);
    add("least ns", shortest, None, Basis::Absolute);
    add("median ns", middle, None, Basis::Absolute);
    add("net ns", net, None, Basis::Absolute);
    add("least ns of an empty program", least(&measured.empty), None, Basis::Absolute);
    add("least ns of the least balancer", least(&measured.swap), None, Basis::Absolute);
    done.push(Done { name: case.name, least: shortest, net });
}

/// Holds cases against each other, and against figures of another balancer.
fn relate(done: &[Done], report: &mut Report) {
    let find = |name: &str| done.iter().find(|known| known.name == name);
    let one = "L2, TCP/IPv4, 1 flow";
    let pairs = [
        ("L2, TCP/IPv4, 64 Ki flows", one, 1.6),
        ("L2, TCP/IPv4, 1 Mi flows", one, 1.6),
        ("L2, SYN/IPv4, 1 flow", one, 1.1),
        ("L2, SYN/IPv4, 1 Mi flows", one, 1.6),
        ("L2, TCP/IPv6, 1 Mi flows", "L2, TCP/IPv6, 1 flow", 1.6),
        ("IPv4 in IPv4, TCP, 64 Ki flows", "IPv4 in IPv4, TCP, 1 flow", 1.6),
        ("IPv4 in IPv4, TCP, 1 Mi flows", "IPv4 in IPv4, TCP, 1 flow", 1.6),
        ("every feature, none used", one, 1.3),
        ("slot in transition, 1 flow", one, 2.0),
        ("tracking always, 1 flow", one, 2.0),
    ];
    println!("\n{:<44}{:<30}{:>6}  goal", "least ns of", "against", "times");
    for (case, base, goal) in pairs {
        let (Some(case), Some(base)) = (find(case), find(base)) else { continue };
        let value = case.least / base.least;
        let met = if value <= goal { "met" } else { "MISSED" };
        println!("{:<44}{:<30}{value:>6.2}  {goal:.1} {met}", case.name, base.name);
        let name = format!("{} against {}", case.name, base.name);
        report.add(Figure {
            part: PART,
            case: name,
            figure: "times",
            value,
            goal: Some(goal),
            basis: Basis::Ratio,
        });
    }
    // Least ns of Katran with a connection table of its own for each CPU, on this class of machine under a wrapper of
    // the same kind, whose own cost is taken off.
    let katran = [
        ("IPv4 in IPv4, TCP, 1 flow", 143.0 - 37.0, 3.0),
        ("IPv4 in IPv4, TCP, 1 Mi flows", 378.0 - 37.0, 6.0),
        ("IPv4 in IPv4, SYN, 1 Mi flows", 1054.0 - 37.0, 15.0),
    ];
    for (case, theirs, goal) in katran {
        let Some(case) = find(case) else { continue };
        let times = theirs / case.net;
        let met = if times >= goal { "met" } else { "MISSED" };
        println!("{:<44}{:<30}{times:>6.2}  at least {goal:.0} {met}", "Katran, net", case.name);
        let name = format!("{} against Katran", case.name);
        let (value, goal) = (case.net / theirs, Some(1.0 / goal));
        report.add(Figure {
            part: PART,
            case: name,
            figure: "part of its net ns",
            value,
            goal,
            basis: Basis::Absolute,
        });
    }
}
