//! What health checks cost the daemon: its probes edge, ten thousand backends, and a responder that accepts and closes.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::datapath::sh;
use lb_user::{
    edge::probe::Probes,
    model::{
        check::{CheckKind, Pace},
        probe::{BackendId, ProbeId, ProbeKind, ProbeSpec, Purpose},
        service::Name,
    },
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::resource::{UsageWho, getrusage},
    unistd::Pid,
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    Effort,
    control::resident,
    report::{Basis, Figure, Report},
};

const PART: &str = "checks";
const INTERVAL: Duration = Duration::from_secs(2);
const PORT: u16 = 8080;

/// Measures.
pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    // Each connection leaves a port of this machine waiting for a minute.
    sh("ip link set lo up; sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1")?;
    println!(
        "\nHealth checks (TCP, every 2 s)\n{:<24}{:>12}{:>10}{:>12}{:>10}  goals",
        "backends", "probes/s", "failed", "CPU, cores", "MB"
    );
    let counts: &[u32] = if effort.quick { &[10_000] } else { &[100, 1000, 10_000] };
    for &backends in counts {
        measure(backends, report)?;
    }
    Ok(())
}

/// Accepts and closes until told to stop.
fn respond(stop: &AtomicBool) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen for the probes")?;
    listener.set_nonblocking(true)?;
    // The backlog of the standard library is small, and ten thousand probes come at once at first.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096)?)?;
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(500)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The first CPU: the daemon's side is on the last.
fn elsewhere() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("move to the first CPU")
}

fn probes(backends: u32) -> Result<BTreeMap<ProbeId, Arc<ProbeSpec>>> {
    let kind = Arc::new(CheckKind::Tcp);
    let pace = Pace { interval: INTERVAL, fast: INTERVAL, jitter: Pace::JITTER, rise: 2, fall: 3 };
    let pool = Name::new("p")?;
    let probe = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, 1 + high, middle, low));
        let backend = BackendId { pool: pool.clone(), backend: Name::new(&format!("b{number}"))? };
        let spec = ProbeSpec {
            target: SocketAddr::new(address, PORT),
            backend: address,
            mark: None,
            kind: ProbeKind::Check(Arc::clone(&kind)),
            pace,
            timeout: Duration::from_secs(1),
            max_segment: None,
        };
        Ok((ProbeId { backend, purpose: Purpose::Check }, Arc::new(spec)))
    };
    (1..=backends).map(probe).collect()
}

/// CPU time of this thread; seconds.
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn measure(backends: u32, report: &mut Report) -> Result<()> {
    let stop = AtomicBool::new(false);
    let before = resident()?;
    let (ended, failed, cores, seconds, grown) = thread::scope(|scope| -> Result<_> {
        let responder = scope.spawn(|| elsewhere().and_then(|()| respond(&stop)));
        let measured = (|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (events, mut outcomes) = mpsc::unbounded_channel();
                let mut probes_edge = Probes::start(events);
                probes_edge.set(probes(backends)?);
                // All of them once, so that what follows is the steady state.
                let warm = Instant::now() + 2 * INTERVAL;
                while let Ok(Some(_)) =
                    timeout(warm.saturating_duration_since(Instant::now()), outcomes.recv()).await
                {
                }
                let (start, start_cpu) = (Instant::now(), cpu()?);
                let end = start + 4 * INTERVAL;
                let (mut ended, mut failed) = (0u64, 0u64);
                while let Ok(Some(outcome)) =
                    timeout(end.saturating_duration_since(Instant::now()), outcomes.recv()).await
                {
                    ended += 1;
                    failed += u64::from(outcome.result.is_err());
                }
                let seconds = start.elapsed().as_secs_f64();
                Ok((
                    ended,
                    failed,
                    (cpu()? - start_cpu) / seconds,
                    seconds,
                    resident()?.saturating_sub(before),
                ))
            })
        })();
        stop.store(true, Ordering::Relaxed);
        responder.join().map_err(|_| anyhow!("the responder panicked"))??;
        measured
    })?;
    let rate = ended as f64 / seconds;
    let wanted = f64::from(backends) / INTERVAL.as_secs_f64();
    ensure!(rate > 0.8 * wanted, "{rate:.0} probes each second in place of {wanted:.0}");
    ensure!(failed * 100 <= ended, "{failed} of {ended} probes failed, though everybody answers");
    let met = |value: f64, goal: f64, what: &str| {
        if backends < 10_000 {
            String::new()
        } else {
            format!("{what} {goal} {}", if value <= goal { "met" } else { "MISSED" })
        }
    };
    println!(
        "{backends:<24}{rate:>12.0}{failed:>10}{cores:>12.3}{grown:>10}  {}  {}",
        met(cores, 0.5, "cores"),
        met(grown as f64, 300.0, "MB")
    );
    let case = format!("{backends} backends every 2 s");
    let is_goal = backends >= 10_000;
    for (figure, value, goal) in
        [("probes/s", rate, None), ("cores", cores, Some(0.5)), ("MB", grown as f64, Some(300.0))]
    {
        let goal = goal.filter(|_| is_goal);
        report.add(Figure { part: PART, case: case.clone(), figure, value, goal, basis: Basis::Absolute });
    }
    Ok(())
}
