//! The bookkeeping: who is wanted, what was heard, what to ask next and when. No I/O, no clock.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    net::IpAddr,
    time::{Duration, Instant},
};

use rtnetlink::packet_route::neighbour::NeighbourState;

use super::interpret::{self, Heard, Neighbour, Resolution, Route};
use crate::model::next_hop::{Link, NextHop, Unreachable};

/// A resolved neighbour is used again after this time and up to as much more. Nothing else would:
/// forwarded packets pass the kernel's neighbour table by.
const REFRESH: Duration = Duration::from_secs(15);

/// A stale entry is used within this time, so that many do not probe at once.
const STALE: Duration = Duration::from_secs(5);

/// A neighbour that does not answer is asked again after this time, then twice it and so on up to
/// [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);

/// The longest pause between two attempts at a neighbour that does not answer; also the time after
/// which an attempt that ended without a notification is repeated.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What is known, and what there is to do about it.
#[derive(Default)]
pub(super) struct Table {
    links: HashMap<u32, Link>,
    targets: BTreeMap<IpAddr, Target>,
    entries: HashMap<Neighbour, Entry>,
    /// Entries by the time of their next use.
    schedule: BTreeSet<(Instant, Neighbour)>,
    /// Targets whose route must be looked up.
    unrouted: BTreeSet<IpAddr>,
    /// Neighbours whose entry must be read.
    unread: BTreeSet<Neighbour>,
    /// Targets that may have changed.
    unreported: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Target {
    route: Option<Route>,
    /// The interface of the last route there was.
    interface: Option<u32>,
    reported: Option<Result<NextHop, Unreachable>>,
}

#[derive(Default)]
struct Entry {
    resolution: Resolution,
    next_use: Option<Instant>,
    /// Attempts in a row without an answer.
    failures: u32,
    targets: BTreeSet<IpAddr>,
}

impl Table {
    /// Takes the full set of wanted targets.
    pub(super) fn want(&mut self, wanted: &BTreeSet<IpAddr>) {
        let gone: Vec<_> = self.targets.keys().filter(|target| !wanted.contains(target)).copied().collect();
        for target in gone {
            self.leave(target);
            self.targets.remove(&target);
            self.unrouted.remove(&target);
            self.unreported.remove(&target);
        }
        for target in wanted {
            if !self.targets.contains_key(target) {
                self.targets.insert(*target, Target::default());
                self.unrouted.insert(*target);
            }
        }
    }

    /// Takes the state of an interface. Says whether it is news.
    pub(super) fn link(&mut self, link: &Link) -> bool {
        let before = self.links.insert(link.index, link.clone());
        if before.as_ref() == Some(link) {
            return false;
        }
        // The kernel tells nothing of IPv4 routes that go and come with their interface.
        self.routes_changed(None);
        // The targets that lost their route to the interface name it as the cause.
        let here = self.targets.iter().filter(|(_, target)| target.interface == Some(link.index));
        self.unreported.extend(here.map(|(address, _)| *address));
        if before.is_some_and(|before| before.up) != link.up {
            self.forget(link.index, link.up);
        }
        true
    }

    /// An interface is gone. Gives what was known of it.
    pub(super) fn link_gone(&mut self, index: u32) -> Option<Link> {
        let link = self.links.remove(&index)?;
        self.forget(index, false);
        self.routes_changed(None);
        Some(link)
    }

    /// The interfaces known but not in `present`.
    pub(super) fn links_without(&self, present: &BTreeSet<u32>) -> Vec<u32> {
        self.links.keys().filter(|index| !present.contains(index)).copied().collect()
    }

    /// Routes changed: those to a range of addresses, or any.
    pub(super) fn routes_changed(&mut self, range: Option<(IpAddr, IpAddr)>) {
        match range {
            Some((first, last)) => {
                self.unrouted.extend(self.targets.range(first..=last).map(|(target, _)| *target));
            }
            None => self.unrouted.extend(self.targets.keys()),
        }
    }

    /// Everything may have changed: look at all routes and entries again.
    pub(super) fn doubt_everything(&mut self) {
        self.routes_changed(None);
        self.unread.extend(self.entries.keys());
    }

    /// Takes a target's route.
    pub(super) fn routed(&mut self, address: IpAddr, route: Route) {
        let Some(target) = self.targets.get(&address) else {
            return;
        };
        self.unreported.insert(address);
        if target.route == Some(route) {
            return;
        }
        self.leave(address);
        if let Some(target) = self.targets.get_mut(&address) {
            target.route = Some(route);
            if let Route::Out { neighbour, .. } = route {
                target.interface = Some(neighbour.interface);
            }
        }
        if let Route::Out { neighbour, .. } = route {
            let entry = match self.entries.entry(neighbour) {
                hash_map::Entry::Occupied(entry) => entry.into_mut(),
                hash_map::Entry::Vacant(entry) => {
                    self.unread.insert(neighbour);
                    entry.insert(Entry::default())
                }
            };
            entry.targets.insert(address);
        }
    }

    /// The route look-up itself failed. What was known of the route holds.
    pub(super) fn not_routed(&mut self, address: IpAddr) {
        if self.targets.get(&address).is_some_and(|target| target.route.is_none()) {
            self.routed(address, Route::None);
        }
    }

    /// Takes the kernel's entry for a neighbour, `None` if there is none. Those that no target
    /// needs are passed over.
    pub(super) fn heard(&mut self, now: Instant, neighbour: Neighbour, heard: Option<Heard>) {
        use NeighbourState as S;
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        let resolution = entry.resolution.after(heard);
        if resolution != entry.resolution {
            entry.resolution = resolution;
            self.unreported.extend(&entry.targets);
        }
        entry.failures = match resolution {
            Resolution::Mac(_) => 0,
            _ => entry.failures,
        };
        let next = match heard.map(|heard| heard.state) {
            None | Some(S::None) => Some(now),
            // `NTF_USE` would take the permanence away; and there is nothing to resolve.
            Some(S::Permanent | S::Noarp) => None,
            Some(S::Failed) => {
                entry.failures += 1;
                Some(now + (RETRY * entry.failures).min(RETRY_MAX))
            }
            Some(S::Incomplete) => Some(now + RETRY_MAX),
            Some(S::Stale) => Some(now + part_of(STALE, neighbour)),
            Some(_) => Some(now + REFRESH + part_of(REFRESH, neighbour)),
        };
        self.schedule_use(neighbour, next);
    }

    /// The neighbours to use now, at most `limit` of them. Each is scheduled anew.
    pub(super) fn due(&mut self, now: Instant, limit: usize) -> Vec<Neighbour> {
        let due: Vec<_> =
            self.schedule.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, who)| *who).collect();
        for neighbour in &due {
            let pause = match self.entries.get(neighbour).map(|entry| entry.resolution) {
                Some(Resolution::Mac(_)) => REFRESH + part_of(REFRESH, *neighbour),
                _ => RETRY_MAX,
            };
            self.schedule_use(*neighbour, Some(now + pause));
        }
        due
    }

    /// When the next neighbour is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// Whether routes wait to be looked up.
    pub(super) fn has_unrouted(&self) -> bool {
        !self.unrouted.is_empty()
    }

    /// At most `limit` targets whose routes are to be looked up.
    pub(super) fn take_unrouted(&mut self, limit: usize) -> Vec<IpAddr> {
        std::iter::from_fn(|| self.unrouted.pop_first()).take(limit).collect()
    }

    /// The neighbours whose entries are to be read.
    pub(super) fn take_unread(&mut self) -> BTreeSet<Neighbour> {
        std::mem::take(&mut self.unread)
    }

    /// The targets whose state differs from what was last said about them.
    pub(super) fn take_news(&mut self) -> Vec<(IpAddr, Result<NextHop, Unreachable>)> {
        let mut news = Vec::new();
        for address in std::mem::take(&mut self.unreported) {
            let Some(target) = self.targets.get_mut(&address) else {
                continue;
            };
            let Some(route) = target.route else { continue };
            let link = target.interface.and_then(|index| self.links.get(&index));
            let resolution = match route {
                Route::Out { neighbour, .. } => self.entries.get(&neighbour).map(|entry| entry.resolution),
                Route::Local | Route::None | Route::Bad(_) => None,
            };
            let state = interpret::next_hop(address, route, link, resolution.unwrap_or_default());
            if target.reported.as_ref() != Some(&state) {
                target.reported = Some(state.clone());
                news.push((address, state));
            }
        }
        news
    }

    /// A target no longer needs its neighbour.
    fn leave(&mut self, address: IpAddr) {
        let route = self.targets.get(&address).and_then(|target| target.route);
        let Some(Route::Out { neighbour, .. }) = route else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        entry.targets.remove(&address);
        if entry.targets.is_empty() {
            self.schedule_use(neighbour, None);
            self.entries.remove(&neighbour);
            self.unread.remove(&neighbour);
        }
    }

    /// An interface went down or came up: the kernel flushed its neighbours.
    fn forget(&mut self, interface: u32, read_again: bool) {
        let here: Vec<_> = self.entries.keys().filter(|who| who.interface == interface).copied().collect();
        for neighbour in here {
            self.schedule_use(neighbour, None);
            if let Some(entry) = self.entries.get_mut(&neighbour) {
                entry.resolution = Resolution::Unknown;
                entry.failures = 0;
                self.unreported.extend(&entry.targets);
            }
            if read_again {
                self.unread.insert(neighbour);
            }
        }
    }

    /// Sets the time of a neighbour's next use; never on an interface that is down.
    fn schedule_use(&mut self, neighbour: Neighbour, next: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        let up = self.links.get(&neighbour.interface).is_some_and(|link| link.up && link.mac.is_some());
        let next = next.filter(|_| up);
        if let Some(before) = std::mem::replace(&mut entry.next_use, next) {
            self.schedule.remove(&(before, neighbour));
        }
        self.schedule.extend(next.map(|at| (at, neighbour)));
    }
}

/// A part of `whole`, another for each neighbour, so that many do not act at once.
fn part_of(whole: Duration, neighbour: Neighbour) -> Duration {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(neighbour);
    whole * u32::from(hash as u16) / u32::from(u16::MAX)
}
