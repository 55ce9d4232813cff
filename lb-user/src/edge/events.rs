//! The events edge: reads what the programs tell of single packets out of their ring buffer. It decides nothing.

use std::{
    io,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use lb_common::{abi::Event, wire::pod};
use nix::time::{ClockId, clock_gettime};
use tokio::{io::unix::AsyncFd, sync::mpsc, task::JoinHandle};

use crate::model::packet_event::PacketEvent;

/// Most events handed over at once; then others have their turn.
const BATCH: usize = 256;

/// A task that reads the ring buffer until it is dropped.
#[derive(Debug)]
pub struct Events(JoinHandle<()>);

impl Events {
    /// Begins to read. Times are told since `started`. While the receiver has no room the ring buffer fills, and the
    /// programs count what they lose.
    ///
    /// # Errors
    /// There is no clock.
    pub fn start(
        mut ring: AsyncFd<RingBuf<MapData>>,
        started: Instant,
        told: mpsc::Sender<Vec<PacketEvent>>,
    ) -> io::Result<Self> {
        // The same clock as the programs' (bpf_ktime_get_ns): what it said when the daemon started.
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let epoch = now.saturating_sub(started.elapsed());
        Ok(Self(tokio::spawn(async move {
            loop {
                let Ok(mut ready) = ring.readable_mut().await else { return };
                let batch = read(ready.get_inner_mut(), epoch);
                if batch.len() < BATCH {
                    ready.clear_ready();
                }
                if !batch.is_empty() && told.send(batch).await.is_err() {
                    return;
                }
            }
        })))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn read(ring: &mut RingBuf<MapData>, epoch: Duration) -> Vec<PacketEvent> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(record) = ring.next()
    {
        // A record that is no event is of another version: there is none, because maps are never shared by two.
        let Some(event) = pod::read::<Event>(&record, 0) else { continue };
        let at = Duration::from_nanos(event.time).saturating_sub(epoch);
        let frame = record.get(size_of::<Event>()..).unwrap_or_default().to_vec();
        batch.push(PacketEvent { at, event, frame });
    }
    batch
}
