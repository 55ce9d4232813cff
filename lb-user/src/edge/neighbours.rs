//! Next hops by netlink: for each wanted address its route, its neighbour's MAC, and every change.
//!
//! The kernel resolves neighbours, this edge only makes it do so: packets forwarded by XDP pass
//! the neighbour table by, so entries would go cold, and new ones would never be asked for.
//! `netlink` talks, `interpret` understands, `table` remembers and schedules; only this file
//! waits.
//!
//! A machine with more than some 500 backends on connected subnets needs
//! `net.ipv4.neigh.default.gc_thresh1` to `gc_thresh3` (and those of IPv6) above their number.

mod interpret;
mod netlink;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    task::JoinHandle,
};

use self::{
    netlink::{Error, Kernel, Notice},
    table::Table,
};
use crate::model::next_hop::{Link, NextHop, Unreachable};

/// What the neighbours edge tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighbourEvent {
    /// The state of a wanted target: told once it is first known and whenever it changes.
    Target {
        /// The target.
        target: IpAddr,
        /// How it is reached, or why it is not.
        state: Result<NextHop, Unreachable>,
    },
    /// An interface is there, in this state: told for each at the start and whenever it changes.
    Link(Link),
    /// An interface is gone (or left this network namespace).
    LinkGone {
        /// Its index.
        index: u32,
        /// Its last name.
        name: String,
    },
}

/// The neighbours edge. It ends when this is dropped.
#[derive(Debug)]
pub struct Neighbours {
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    task: JoinHandle<()>,
}

impl Neighbours {
    /// Starts to watch the network namespace of the calling thread; within a tokio runtime.
    ///
    /// # Errors
    /// The netlink sockets cannot be opened.
    pub fn start(events: UnboundedSender<NeighbourEvent>) -> io::Result<Self> {
        let kernel = Kernel::connect()?;
        let (wanted, wants) = watch::channel(BTreeSet::new());
        let watcher = Watcher { table: Table::default(), events, recheck_at: Instant::now(), warned: false };
        let task = tokio::spawn(run(kernel, watcher, wants));
        Ok(Self { wanted, task })
    }

    /// Sets the full set of wanted targets.
    pub fn want(&self, targets: BTreeSet<IpAddr>) {
        self.wanted.send_if_modified(|wanted| {
            let news = *wanted != targets;
            *wanted = targets;
            news
        });
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Routes change in bursts: wait this long for the rest.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// All that is known is compared with the kernel this often: not every change is notified (nexthop
/// objects, path MTUs).
const RECHECK: Duration = Duration::from_secs(30);

/// Pause before a failed connection is replaced.
const RECONNECT: Duration = Duration::from_secs(1);

/// Requests between two looks at the notifications.
const BATCH: usize = 256;

/// From this many unread neighbours on, the whole table is read at once.
const DUMP_FROM: usize = 64;

/// Keeps a watcher running until its owner is gone, over as many connections as it takes.
async fn run(mut kernel: Kernel, mut watcher: Watcher, mut wants: watch::Receiver<BTreeSet<IpAddr>>) {
    loop {
        match watcher.watch(&mut kernel, &mut wants).await {
            Ok(()) => return,
            Err(error) => tracing::warn!("watching next hops: {error}; connecting anew"),
        }
        kernel = loop {
            tokio::time::sleep(RECONNECT).await;
            match Kernel::connect() {
                Ok(kernel) => break kernel,
                Err(error) => tracing::warn!("cannot open a netlink socket: {error}; trying again"),
            }
        };
    }
}

struct Watcher {
    table: Table,
    events: UnboundedSender<NeighbourEvent>,
    /// When all that is known is compared with the kernel.
    recheck_at: Instant,
    /// Whether a failed use of a neighbour was logged.
    warned: bool,
}

impl Watcher {
    /// Watches until the owner is gone.
    ///
    /// # Errors
    /// The connection is of no more use.
    async fn watch(
        &mut self,
        kernel: &mut Kernel,
        wants: &mut watch::Receiver<BTreeSet<IpAddr>>,
    ) -> Result<(), Error> {
        self.table.want(&wants.borrow_and_update());
        self.recheck_at = Instant::now();
        let mut routes_at = self.recheck_at;
        let mut rest_until = self.recheck_at;
        loop {
            let started = Instant::now();
            if self.recheck_at <= started {
                self.check_everything(kernel).await?;
                self.recheck_at = started + RECHECK;
                routes_at = started;
            }
            if routes_at <= started {
                self.look_up_routes(kernel).await?;
                // Under a storm of changes look-ups take a third of the time at most.
                rest_until = rest_until.max(started) + 3 * started.elapsed();
            }
            self.read_neighbours(kernel).await?;
            self.use_neighbours(kernel).await?;
            self.tell();

            let routes_due = self.table.has_unrouted().then_some(routes_at);
            let next =
                [routes_due, self.table.next_due()].into_iter().flatten().fold(self.recheck_at, Instant::min);
            tokio::select! {
                notice = kernel.notice() => {
                    let quiet = !self.table.has_unrouted();
                    self.hear(notice?);
                    // All that is there belongs together.
                    while let Some(notice) = kernel.notice().now_or_never() {
                        self.hear(notice?);
                    }
                    if quiet && self.table.has_unrouted() {
                        routes_at = rest_until.max(Instant::now() + DEBOUNCE);
                    }
                }
                changed = wants.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.table.want(&wants.borrow_and_update());
                    routes_at = Instant::now();
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Link(link) => {
                if self.table.link(&link) {
                    self.send(NeighbourEvent::Link(link));
                }
            }
            Notice::LinkGone(index) => self.link_gone(index),
            Notice::Neighbour(neighbour, heard) => self.table.heard(Instant::now(), neighbour, heard),
            Notice::Routes(range) => self.table.routes_changed(range),
            Notice::Lost => {
                tracing::warn!("netlink notifications were lost; comparing everything with the kernel");
                self.recheck_at = self.recheck_at.min(Instant::now() + DEBOUNCE);
            }
        }
    }

    /// Reads all interfaces and marks all else to be read.
    async fn check_everything(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        let links = kernel.links().await?;
        let present = links.iter().map(|link| link.index).collect();
        for index in self.table.links_without(&present) {
            self.link_gone(index);
        }
        for link in links {
            self.hear(Notice::Link(link));
        }
        self.table.doubt_everything();
        Ok(())
    }

    async fn look_up_routes(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        for target in self.table.take_unrouted(BATCH) {
            match kernel.route(target).await {
                Ok(route) => self.table.routed(target, route),
                // Memory, for example. The next check of everything tries again.
                Err(Error::Refused { what, error }) => {
                    tracing::warn!("cannot {what} to {target}: {error}");
                    self.table.not_routed(target);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_neighbours(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        let mut unread = self.table.take_unread();
        if unread.len() >= DUMP_FROM {
            for (neighbour, heard) in kernel.neighbours().await? {
                if unread.remove(&neighbour) {
                    self.table.heard(Instant::now(), neighbour, Some(heard));
                }
            }
            for neighbour in unread {
                self.table.heard(Instant::now(), neighbour, None);
            }
        } else {
            for neighbour in unread {
                let heard = kernel.neighbour(neighbour).await?;
                self.table.heard(Instant::now(), neighbour, heard);
            }
        }
        Ok(())
    }

    async fn use_neighbours(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        for neighbour in self.table.due(Instant::now(), BATCH) {
            match kernel.use_neighbour(neighbour).await {
                // It is tried again. An interface that is going says so itself.
                Err(Error::Refused { what, error })
                    if !self.warned
                        && !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENETDOWN)) =>
                {
                    self.warned = true;
                    tracing::warn!(
                        "cannot {what} ({} on interface {}): {error}; if the neighbour table is full, raise \
                         net.ipv4.neigh.default.gc_thresh3 (ipv6 likewise); further ones are not logged",
                        neighbour.address,
                        neighbour.interface,
                    );
                }
                Ok(()) | Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn link_gone(&mut self, index: u32) {
        if let Some(link) = self.table.link_gone(index) {
            self.send(NeighbourEvent::LinkGone { index, name: link.name });
        }
    }

    fn tell(&mut self) {
        for (target, state) in self.table.take_news() {
            self.send(NeighbourEvent::Target { target, state });
        }
    }

    fn send(&self, event: NeighbourEvent) {
        // Without a listener the daemon is ending, and this task with it.
        self.events.send(event).ok();
    }
}
