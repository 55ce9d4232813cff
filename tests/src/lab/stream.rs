//! A client in the background that asks without a pause while a test does something to the lab.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{Namespace, Tally, client::Ask, interrupt};

/// One request of a [`Stream`].
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was sent.
    pub sent: Instant,
    /// How long it took.
    pub took: Duration,
    /// Who answered, or what went wrong.
    pub answer: std::result::Result<String, String>,
}

/// A client that asks without a pause until it is stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Stream {
    /// Starts `workers` that each ask, wait for the answer, rest for `pause`, and ask again.
    ///
    /// # Errors
    /// If the namespace is gone.
    pub fn start(client: &Namespace, how: Ask, vip: IpAddr, workers: usize, pause: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for _ in 0..workers {
            let (stop, records) = (Arc::clone(&stop), Arc::clone(&records));
            let client = Namespace::find(client.name())?;
            threads.push(std::thread::spawn(move || {
                client.enter(|| {
                    while !stop.load(Ordering::Relaxed) && !interrupt::requested() {
                        let sent = Instant::now();
                        let answer = how.once(vip).map_err(|error| error.to_string());
                        let record = Record { sent, took: sent.elapsed(), answer };
                        records.lock().expect("no client panicked").push(record);
                        std::thread::sleep(pause);
                    }
                })
            }));
        }
        Ok(Self { stop, records, threads })
    }

    /// Requests ended so far.
    ///
    /// # Panics
    /// If a client did.
    pub fn len(&self) -> usize {
        self.records.lock().expect("no client panicked").len()
    }

    /// Whether none ended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stops and gives every request in the order of sending.
    ///
    /// # Errors
    /// If the namespace could not be entered, or the process was interrupted.
    ///
    /// # Panics
    /// If a client did.
    pub fn stop(mut self) -> Result<Vec<Record>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        interrupt::check()?;
        let mut records = std::mem::take(&mut *self.records.lock().expect("no client panicked"));
        records.sort_by_key(|record| record.sent);
        Ok(records)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of a client has been printed; this drop may itself be part of an unwinding.
            drop(thread.join());
        }
    }
}

/// Puts records into a tally.
pub fn tally<'a>(records: impl IntoIterator<Item = &'a Record>) -> Tally {
    let mut tally = Tally::default();
    for record in records {
        tally.count(&record.answer.clone().map_err(io::Error::other), record.took);
    }
    tally
}
