//! Live frames: what a packet costs on its whole way from one namespace through the balancer into another, by native XDP on
//! veth pairs. Beside lb the least balancer, and what a user would take instead, in the same rounds.
//!
//! Sender, balancer and receiver are one chain of soft interrupts on one CPU: nobody runs ahead, and the CPU time of the
//! sending thread is that of all of them. So figures are of the way, not of a throughput that a network would have.

mod road;

use std::{
    fs,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    maps::Map,
    programs::{TestRun, TestRunAttrs, TestRunOptions},
};
use lb_common::abi::bench::{Rehearsal, name};
use lb_tests::{
    datapath::ways::endpoint,
    packets::{ETHERNET_LEN, Packet},
};
use lb_user::edge::kernel::mapped::MappedArray;
use nix::{
    sched::sched_getcpu,
    time::{ClockId, clock_gettime},
};

use self::road::{Forwarder, Roads};
use crate::{
    Effort,
    report::{Basis, Figure, Report, least, median},
    stand::{self, Scene},
    worlds::{IN_4, L2, REDIRECT},
};

/// Frames that the kernel makes at once, and passes on before the next.
const BATCH: u32 = 64;

/// Flows that take turns.
const MANY: u64 = 1 << 16;

/// Frame lengths without the checksum; bytes.
const SHORT: usize = 64;
const LONG: usize = 1400;

/// What the clock of this machine tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Time.
    Time,
    /// Instructions: see `cargo xtask instructions`.
    Instructions,
}

struct Case {
    name: &'static str,
    forwarder: Forwarder,
    vip: &'static str,
    length: usize,
    flows: u64,
    /// The case that it is held against.
    base: Option<&'static str>,
    /// At most so many times that, in time and in instructions.
    goals: [Option<f64>; 2],
}

/// The cases that the others are held against.
const SWAP: &str = "MAC swap, back out";
const SWAP_MANY: &str = "MAC swap, back out, 64 Ki flows";
const SWAP_LONG: &str = "MAC swap, back out, 1400 bytes";
const OVER: &str = "MAC swap, another interface";
const OURS: &str = "lb L2, back out";
const OURS_LONG: &str = "lb L2, back out, 1400 bytes";
const OURS_MANY: &str = "lb L2, back out, 64 Ki flows";
const OURS_IN_4: &str = "lb IPv4 in IPv4";

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Forwarder::{Balancer, Dnat, Forwarding, IpvsDr, IpvsTun, Nobody, Swap, SwapOver};
    let case = |name, forwarder, vips: [&'static str; 2], length, flows, base: &'static str, goals: [f64; 2]| Case {
        name, forwarder, vip: vips[0], length, flows,
        base: (!base.is_empty()).then_some(base),
        goals: goals.map(|goal| (goal > 0.0).then_some(goal)),
    };
    vec![
        case("dropped on arrival",              Nobody,     L2, SHORT, 1,    "",        [0.0, 0.0]),
        case(SWAP,                              Swap,       L2, SHORT, 1,    "",        [0.0, 0.0]),
        case(SWAP_MANY,                         Swap,       L2, SHORT, MANY, "",        [0.0, 0.0]),
        case(SWAP_LONG,                         Swap,       L2, LONG,  1,    "",        [0.0, 0.0]),
        case(OVER,                              SwapOver,   L2, SHORT, 1,    "",        [0.0, 0.0]),
        case(OURS,                              Balancer,   L2, SHORT, 1,    SWAP,      [1.15, 1.18]),
        case(OURS_MANY,                         Balancer,   L2, SHORT, MANY, SWAP_MANY, [0.0, 0.0]),
        case(OURS_LONG,                         Balancer,   L2, LONG,  1,    SWAP_LONG, [0.0, 0.0]),
        case("lb L2, another interface",        Balancer,   REDIRECT, SHORT, 1, OVER,   [0.0, 0.0]),
        case(OURS_IN_4,                         Balancer,   IN_4, SHORT, 1,    SWAP,      [1.4, 0.0]),
        case("lb IPv4 in IPv4, 64 Ki flows",    Balancer,   IN_4, SHORT, MANY, SWAP_MANY, [0.0, 0.0]),
        case("lb IPv4 in IPv4, 1400 bytes",     Balancer,   IN_4, LONG,  1,    SWAP_LONG, [0.0, 0.0]),
        case("IP forwarding",                   Forwarding, L2, SHORT, 1,    OURS,      [0.0, 0.0]),
        case("IP forwarding, 64 Ki flows",      Forwarding, L2, SHORT, MANY, OURS_MANY, [0.0, 0.0]),
        case("IP forwarding, 1400 bytes",       Forwarding, L2, LONG,  1,    OURS_LONG, [0.0, 0.0]),
        case("nftables DNAT",                   Dnat,       L2, SHORT, 1,    OURS,      [0.0, 0.0]),
        case("nftables DNAT, 64 Ki flows",      Dnat,       L2, SHORT, MANY, OURS_MANY, [0.0, 0.0]),
        case("nftables DNAT, 1400 bytes",       Dnat,       L2, LONG,  1,    OURS_LONG, [0.0, 0.0]),
        case("IPVS, direct routing",            IpvsDr,     L2, SHORT, 1,    OURS,      [0.0, 0.0]),
        case("IPVS, IPv4 in IPv4",              IpvsTun,    L2, SHORT, 1,    OURS_IN_4, [0.0, 0.0]),
    ]
}

/// One burst of frames.
struct Burst {
    /// CPU time for each, in the sender and in the thread that soft interrupts may be left to; nanoseconds.
    cpu: f64,
    /// Frames each second.
    rate: f64,
    /// Frames that came to their end.
    arrived: u64,
}

/// The sender, and what counts at the end of the roads.
struct Sender {
    roads: Roads,
    rehearsal: MappedArray<Rehearsal>,
    sunk: MappedArray<u64>,
    /// The kernel's own thread of this CPU that soft interrupts may be left to.
    softirqs: String,
}

impl Sender {
    fn new() -> Result<Self> {
        let roads = Roads::build()?;
        let map = |name: &str| match roads.ebpf.map(name) {
            Some(Map::Array(map)) => Ok(map.fd().as_fd().try_clone_to_owned()?),
            _ => anyhow::bail!("no map {name}"),
        };
        let rehearsal = MappedArray::map(map(name::REHEARSAL)?.as_fd(), 1)?;
        let sunk = MappedArray::map(map(name::SUNK)?.as_fd(), 1)?;
        Ok(Self { roads, rehearsal, sunk, softirqs: softirqs()? })
    }

    /// Sends so many frames and waits until all have come to their end.
    fn burst(&mut self, gate: u32, scene: &Scene, count: u32) -> Result<Burst> {
        const PATIENCE: Duration = Duration::from_millis(500);
        self.rehearsal.store(0, &scene.rehearsal(0, u64::from(count))?);
        let before = self.sunk.load(0);
        // struct xdp_md (linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, u32::try_from(scene.frame.len())?, 0, gate, 0, 0].map(u32::to_ne_bytes).concat();
        let (ebpf, softirqs) = (&mut self.roads.ebpf, &self.softirqs);
        let sunk = &mut self.sunk;
        let send = move || -> Result<Burst> {
            let program = stand::xdp(ebpf, name::SEND)?;
            let (others, own, start) = (time_of(softirqs)?, thread_time()?, Instant::now());
            let sent = program
                .test_run(TestRunOptions {
                    data_in: Some(&scene.frame),
                    ctx_in: Some(&context),
                    repeat: count,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..TestRunOptions::new()
                })
                .context("send live frames")?;
            let own = thread_time()? - own;
            while sunk.load(0) - before < u64::from(count) && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_micros(50));
            }
            let cpu = own + time_of(softirqs)? - others;
            Ok(Burst {
                cpu: cpu as f64 / f64::from(count),
                rate: 1.0 / sent.duration.as_secs_f64(),
                arrived: 0,
            })
        };
        let burst = self.roads.far.enter(send)??;
        Ok(Burst { arrived: self.sunk.load(0) - before, ..burst })
    }
}

/// Measures every case.
pub(crate) fn run(effort: &Effort, clock: Clock, report: &mut Report) -> Result<()> {
    let (rounds, count) = match (clock, effort.quick) {
        (Clock::Instructions, _) => (3, 2 * BATCH * 16),
        (Clock::Time, true) => (10, 10_000),
        (Clock::Time, false) => (40, 20_000),
    };
    let mut sender = Sender::new()?;
    let cases: Vec<(Case, u32, Scene)> = cases()
        .into_iter()
        .filter(|case| effort.wants(case.name, true))
        .filter(|case| clock == Clock::Time || case.flows == 1)
        .filter_map(|case| {
            let gate = sender.roads.gate(case.forwarder)?;
            let packet = Packet::tcp(endpoint("198.51.100.7", 40_000), endpoint(case.vip, 80));
            let frame = packet.ip_length(case.length - ETHERNET_LEN).frame();
            let scene = Scene { frame, flows: case.flows, vips: 1 };
            Some((case, gate, scene))
        })
        .collect();
    let mut bursts: Vec<Vec<Burst>> = cases.iter().map(|_| Vec::new()).collect();
    sender.roads.rig.gained();
    let mut balanced = 0;
    for round in 0..=rounds {
        for ((case, gate, scene), bursts) in cases.iter().zip(&mut bursts) {
            // First every flow once: what is remembered is, and caches are warm. A kernel that is new to it may lose some.
            let count = if round == 0 { count.max(case.flows as u32) } else { count };
            let burst = sender.burst(*gate, scene, count).with_context(|| case.name)?;
            if case.forwarder == Forwarder::Balancer {
                balanced += u64::from(count);
            }
            if round > 0 {
                ensure!(
                    burst.arrived == u64::from(count),
                    "{}: {} of {count} frames arrived",
                    case.name,
                    burst.arrived
                );
                bursts.push(burst);
            }
        }
    }
    // Honest only if lb's own counters say that it was lb that forwarded.
    let forwarded: u64 = sender.roads.rig.gained().forwarded.iter().map(|counter| counter.packets).sum();
    ensure!(forwarded == balanced, "lb forwarded {forwarded} of {balanced} frames");
    say(clock, rounds, count, &cases, &bursts, report);
    Ok(())
}

fn say(
    clock: Clock,
    rounds: u32,
    count: u32,
    cases: &[(Case, u32, Scene)],
    bursts: &[Vec<Burst>],
    report: &mut Report,
) {
    let (unit, part, basis) = match clock {
        Clock::Time => ("ns", "live", Basis::Absolute),
        Clock::Instructions => ("instructions", "live instructions", Basis::Count),
    };
    println!("\nLive frames, the whole way of a packet: {rounds} rounds of {count}");
    println!(
        "{:<34}{:>18}{:>8}{:>14}{:>8}  {:<24}goal",
        "case",
        format!("least {unit}"),
        "median",
        "frames/s",
        "times",
        "of"
    );
    for ((case, ..), own) in cases.iter().zip(bursts) {
        let cpu: Vec<f64> = own.iter().map(|burst| burst.cpu).collect();
        let rates: Vec<f64> = own.iter().map(|burst| burst.rate).collect();
        let base = case.base.and_then(|base| cases.iter().position(|(case, ..)| case.name == base));
        let times = base.map(|base| {
            let ratios: Vec<f64> =
                own.iter().zip(&bursts[base]).map(|(own, base)| own.cpu / base.cpu).collect();
            median(&ratios)
        });
        let goal = case.goals[usize::from(clock == Clock::Instructions)];
        let met = match (times, goal) {
            (Some(times), Some(goal)) if times <= goal => format!("{goal} met"),
            (Some(_), Some(goal)) => format!("{goal} MISSED"),
            _ => String::new(),
        };
        println!(
            "{:<34}{:>18.0}{:>8.0}{:>14.0}{:>8}  {:<24}{met}",
            case.name,
            least(&cpu),
            median(&cpu),
            median(&rates),
            times.map(|times| format!("{times:.2}")).unwrap_or_default(),
            case.base.unwrap_or_default(),
        );
        let mut add = |figure, value: f64, goal, basis| {
            report.add(Figure { part, case: case.name.to_owned(), figure, value, goal, basis });
        };
        add("least for a packet", least(&cpu).round(), None, basis);
        if let Some(times) = times {
            add("times its base", times, goal, Basis::Ratio);
        }
        if clock == Clock::Time {
            add("frames each second", median(&rates), None, Basis::Absolute);
        }
    }
}

/// CPU time of this thread; nanoseconds.
fn thread_time() -> Result<i64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// CPU time of a process of one thread; nanoseconds (Documentation/scheduler/sched-stats.rst).
fn time_of(pid: &str) -> Result<i64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let first = text.split_whitespace().next().with_context(|| format!("{path} is empty"))?;
    first.parse().with_context(|| format!("{path}: {first}"))
}

/// The id of the kernel's thread for soft interrupts of this CPU.
fn softirqs() -> Result<String> {
    let wanted = format!("ksoftirqd/{}\n", sched_getcpu()?);
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == wanted) {
            return Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no thread {} in /proc", wanted.trim())
}
