//! Steady traffic while something is done to the lab: connections that are held and kept busy, and clients that ask
//! without a pause.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    Lab, Stream, Tally,
    addresses::VIPS,
    client::{Ask, Held},
    stream,
};

/// Connections that are held all the while.
pub const HELD: usize = 200;

/// Requests each second that the clients come to at least, over the whole of the time.
const RATE: f64 = 2000.0;

/// What became of the traffic.
#[derive(Debug)]
pub struct Outcome {
    /// How long it lasted.
    pub took: Duration,
    /// Requests by HTTP over IPv4, each a new connection.
    pub http: Tally,
    /// Requests by UDP over IPv6.
    pub datagrams: Tally,
    /// How often each held connection was used.
    pub rounds: usize,
    /// Held connections that broke, and how.
    pub lost: Vec<String>,
    /// How many connections each backend had.
    pub held: usize,
}

impl Outcome {
    /// Requests that were not answered.
    pub fn failed(&self) -> u64 {
        self.http.failed() + self.datagrams.failed()
    }

    /// Requests that were answered, each second.
    pub fn rate(&self) -> f64 {
        (self.http.answered() + self.datagrams.answered()) as f64 / self.took.as_secs_f64()
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {:.1} s, {:.0} requests/s ({} by HTTP), {} failed; {} held connections, {} rounds, {} lost",
            self.took.as_secs_f64(),
            self.rate(),
            self.http.answered(),
            self.failed(),
            self.held,
            self.rounds,
            self.lost.len(),
        );
    }
}

/// Keeps traffic up while something is done, and prints what became of it. Services on TCP 80 and 7000 and UDP 7000 of the
/// first VIPs of both families are needed.
///
/// # Errors
/// What `act` says, or that there was too little traffic.
pub fn load(lab: &Lab, what: &str, act: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let mut held: Vec<Held> = (0..HELD)
        .map(|number| Held::open(&lab.client, VIPS[if number % 2 == 0 { 0 } else { 3 }]))
        .collect::<Result<_>>()?;
    let web = Stream::start(&lab.client, Ask::Http, VIPS[0], 3, Duration::from_millis(1))?;
    let datagrams = Stream::start(&lab.client, Ask::Udp, VIPS[3], 2, Duration::ZERO)?;
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let (acted, used) = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let (mut rounds, mut lost) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) || rounds == 0 {
                held.retain_mut(|held| {
                    let result = held.ping().with_context(|| format!("to {}, round {rounds}", held.backend));
                    lost.extend(result.as_ref().err().map(|error| format!("{error:#}")));
                    result.is_ok()
                });
                rounds += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            (rounds, lost)
        });
        let acted = act();
        stop.store(true, Ordering::Relaxed);
        (acted, busy.join().map_err(|_| anyhow!("the client panicked")))
    });
    let took = start.elapsed();
    let (http, datagrams) = (stream::tally(&web.stop()?), stream::tally(&datagrams.stop()?));
    acted?;
    let (rounds, lost) = used?;
    let outcome = Outcome { took, http, datagrams, rounds, lost, held: HELD };
    outcome.print(what);
    ensure!(outcome.rate() > RATE, "{what}: only {:.0} requests/s", outcome.rate());
    Ok(outcome)
}

/// The same, and nothing may fail.
///
/// # Errors
/// What failed.
pub fn under_load(lab: &Lab, what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let outcome = load(lab, what, act)?;
    let Outcome { http, datagrams, lost, .. } = &outcome;
    ensure!(outcome.failed() == 0, "{what}: HTTP {http}; UDP {datagrams}");
    ensure!(lost.is_empty(), "{what}: held connections broke: {}", lost.join("; "));
    Ok(())
}
