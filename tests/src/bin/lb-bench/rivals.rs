//! Whole connections, through lb and through what a user would take instead: real clients and servers in a lab, everything
//! on one CPU, so that what a request costs in all is what limits their number.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::{
    datapath::sh,
    lab::{
        Backend, Config, Daemon, Lab, Process,
        addresses::VIPS,
        client::{self, Ask},
        namespace, wait,
    },
};
use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_gettime},
};

use crate::{
    Effort,
    report::{Basis, Figure, Report},
};

const PART: &str = "rivals";

/// Clients that ask at once.
const CLIENTS: usize = 8;

/// The address that is asked for.
const VIP: std::net::IpAddr = VIPS[0];

/// Who stands between the client and the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    /// Nobody: the router knows the way to one server.
    Nobody,
    /// lb, to servers next to it.
    Ours,
    /// lb, to servers behind a tunnel.
    OursTunnelled,
    /// The kernel's own forwarding, to one server.
    Forwarding,
    /// nftables: destinations and sources translated, both ways through it.
    Nat,
    /// `HAProxy`, passing bytes on.
    Haproxy,
}

const ALL: [Rival; 6] =
    [Rival::Nobody, Rival::Ours, Rival::OursTunnelled, Rival::Forwarding, Rival::Nat, Rival::Haproxy];

impl Rival {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody between",
            Self::Ours => "lb, L2",
            Self::OursTunnelled => "lb, IPv4 in IPv4",
            Self::Forwarding => "IP forwarding",
            Self::Nat => "nftables, both ways",
            Self::Haproxy => "HAProxy, TCP",
        }
    }
}

/// What runs for the time of a measurement, ended when it is dropped.
enum Running {
    Nothing,
    Daemon { _daemon: Daemon },
    Process { _process: Process },
}

/// What was measured of one.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Requests each second, each on a connection of its own.
    rate: f64,
    /// CPU seconds for 10,000 of them, those of clients and servers included.
    requests: f64,
    /// CPU seconds for a gigabyte (10^9 bytes) that a client downloads.
    gigabyte: f64,
}

/// Measures all of them.
pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let (rounds, time) = if effort.quick { (1, Duration::from_secs(1)) } else { (3, Duration::from_secs(2)) };
    println!(
        "\nWhole connections: {CLIENTS} clients, 2 servers, everything on one CPU; the best of {rounds} rounds"
    );
    println!(
        "{:<24}{:>12}{:>26}{:>20}",
        "between", "requests/s", "CPU s, 10,000 requests", "CPU s, gigabyte"
    );
    let mut best: Vec<(Rival, Cost)> = Vec::new();
    for round in 0..rounds {
        for rival in ALL {
            if !effort.wants(rival.name(), true) {
                continue;
            }
            let cost = measure(rival, time).with_context(|| rival.name())?;
            match best.iter_mut().find(|(known, _)| *known == rival) {
                Some((_, known)) => {
                    *known = Cost {
                        rate: known.rate.max(cost.rate),
                        requests: known.requests.min(cost.requests),
                        gigabyte: known.gigabyte.min(cost.gigabyte),
                    }
                }
                None => best.push((rival, cost)),
            }
        }
        if round + 1 == rounds {
            for (rival, cost) in &best {
                say(*rival, *cost, report);
            }
        }
    }
    Ok(())
}

fn say(rival: Rival, Cost { rate, requests, gigabyte }: Cost, report: &mut Report) {
    println!("{:<24}{rate:>12.0}{requests:>26.2}{gigabyte:>20.2}", rival.name());
    for (figure, value) in [
        ("requests each second", rate),
        ("CPU seconds for 10,000 requests", requests),
        ("CPU seconds for a gigabyte", gigabyte),
    ] {
        let case = rival.name().to_owned();
        report.add(Figure { part: PART, case, figure, value, goal: None, basis: Basis::Absolute });
    }
}

fn measure(rival: Rival, time: Duration) -> Result<Cost> {
    let builder = Lab::builder().balancer(rival != Rival::Nobody);
    let lab = match rival {
        Rival::OursTunnelled => builder.l2_backends(0).tunnel_backends(2).build()?,
        _ => builder.l2_backends(2).tunnel_backends(0).build()?,
    };
    let running = start(rival, &lab)?;
    // The way is there and everybody has warmed up.
    let first = lab.ask(Ask::Http, VIP, 200)?;
    ensure!(first.failed() == 0, "of the first requests: {first}");

    let (done, cost, took) = load(&lab, time, || Ask::Http.once(VIP).map(|_| 1))?;
    let (bytes, copied, _) = load(&lab, time, || client::fetch(VIP))?;
    drop(running);
    Ok(Cost {
        rate: done as f64 / took.as_secs_f64(),
        requests: cost.as_secs_f64() / done as f64 * 1e4,
        gigabyte: copied.as_secs_f64() / bytes as f64 * 1e9,
    })
}

/// Lets the clients do something for some time: the sum of what they did, the CPU time that everybody took, the time.
fn load(
    lab: &Lab,
    time: Duration,
    what: impl Fn() -> std::io::Result<u64> + Sync,
) -> Result<(u64, Duration, Duration)> {
    let (stop, sum) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = || -> std::io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            sum.fetch_add(what()?, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let before = consumed(lab)?;
        let start = Instant::now();
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| lab.client.enter(work))).collect();
        wait::rest(time)?;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))???;
        }
        let took = start.elapsed();
        Ok((sum.load(Ordering::Relaxed), consumed(lab)?.saturating_sub(before), took))
    })
}

/// CPU time that this process, what it started in the lab, and the kernel's threads for soft interrupts took so far.
fn consumed(lab: &Lab) -> Result<Duration> {
    let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    let mut nanoseconds = (own.tv_sec() * 1_000_000_000 + own.tv_nsec()).unsigned_abs();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    for time in [usage.user_time(), usage.system_time()] {
        nanoseconds += (time.tv_sec() * 1_000_000_000 + time.tv_usec() * 1000).unsigned_abs();
    }
    let mut pids = Vec::new();
    let backends = lab.backends.iter().map(|backend| &backend.namespace);
    for inside in backends.chain([&lab.balancer]) {
        let listed = namespace::run(Command::new("ip").args(["netns", "pids", inside.name()]))?;
        pids.extend(listed.split_whitespace().map(str::to_owned));
    }
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with("ksoftirqd/")) {
            pids.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    for pid in pids {
        // Threads that have ended are not counted; none of these ends one while it works.
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads {
            let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Starts who stands between.
fn start(rival: Rival, lab: &Lab) -> Result<Running> {
    let first = lab.backends[0].address4;
    let inside = |script: &str| lab.balancer.enter(|| sh(script))?;
    const FORWARD: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
                           net.ipv4.conf.default.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0";
    match rival {
        Rival::Nobody => {}
        Rival::Ours | Rival::OursTunnelled => {
            let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
            let config = Config::new().pool("web", "type = \"tcp\"", &members);
            let daemon = Daemon::start(lab, &config.service("web", VIP, &["tcp/80"], "web"))?;
            daemon.wait_up(Duration::from_secs(20))?;
            return Ok(Running::Daemon { _daemon: daemon });
        }
        Rival::Forwarding => inside(&format!("{FORWARD}\nip route add {VIP} via {first}"))?,
        Rival::Nat => inside(&format!(
            "{FORWARD}\n\
             nft add table ip bench\n\
             nft 'add chain ip bench pre {{ type nat hook prerouting priority dstnat; }}'\n\
             nft 'add chain ip bench post {{ type nat hook postrouting priority srcnat; }}'\n\
             nft add rule ip bench pre ip daddr {VIP} tcp dport 80 dnat to \
                 numgen inc mod 2 map {{ 0 : {first}, 1 : {} }}\n\
             nft add rule ip bench post masquerade",
            lab.backends[1].address4,
        ))?,
        Rival::Haproxy => {
            inside(&format!("ip addr add {VIP}/32 dev lo"))?;
            return Ok(Running::Process { _process: haproxy(lab, lab.directory())? });
        }
    }
    Ok(Running::Nothing)
}

fn haproxy(lab: &Lab, directory: &Path) -> Result<Process> {
    let mut text = "global\n  maxconn 4000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\nlisten web\n"
        .to_owned();
    text.push_str(&format!("  bind {VIP}:80\n  balance roundrobin\n"));
    for backend in &lab.backends {
        text.push_str(&format!("  server {} {}:80\n", backend.name, backend.address4));
    }
    let file = directory.join("haproxy.cfg");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let mut command = lab.balancer.command("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let process = Process::spawn(&mut command, &directory.join("haproxy.log"))?;
    wait::until("HAProxy to listen", Duration::from_secs(5), || match lab.balancer.listens(80)? {
        true => Ok(()),
        false => Err(anyhow!("nobody listens; it said: {}", process.log())),
    })?;
    Ok(process)
}
