//! What was written is read back: the kernel's yes is one thing, what stands there another, and others may write there, too.
//! Should it be otherwise, what stands there is believed, and the next plan mends it.

use std::time::Duration;

use super::{Action, Controller};
use crate::model::{layout::PoolPlace, plan::Change};

impl Controller {
    /// Has read back what a plan wrote, and no later step of it removed.
    pub(super) fn read_back(&self, mut plan: Vec<Change>, actions: &mut Vec<Action>) {
        for change in &mut plan {
            if let Change::Prefixes { set, remove } = change {
                // One that is not there is given the value of one that contains it: that it is gone cannot be seen.
                set.retain(|(key, _)| self.installed.prefixes.contains_key(key));
                remove.clear();
            }
        }
        if !plan.is_empty() {
            actions.push(Action::ReadBack(plan));
        }
    }

    /// Has the tables looked at without a change of theirs: each time one pool's part, after the last one what is common.
    pub(super) fn watch_tables(&mut self, actions: &mut Vec<Action>) {
        if !self.pending.is_empty() {
            return;
        }
        let place = self.layout.pools().nth(self.looked_at).map(|(_, place)| place);
        let entries = place.map_or_else(|| self.common_entries(), |place| self.entries_of(place));
        self.looked_at = if place.is_some() { self.looked_at + 1 } else { 0 };
        actions.push(Action::ReadBack(entries));
    }

    fn entries_of(&self, place: &PoolPlace) -> Vec<Change> {
        let slots = place.slot_base..place.slot_base + place.slots;
        let backends = place.numbers.values().map(|&number| place.backend_base + u32::from(number));
        let mut entries: Vec<Change> = backends
            .map(|index| Change::Backend {
                index,
                backend: Box::new(self.installed.backends[index as usize]),
            })
            .collect();
        let values = |table: &[_]| slots.clone().map(|at| (at, table[at as usize])).collect();
        entries.push(Change::Slots(values(&self.installed.slots)));
        entries.push(Change::Previous(values(&self.installed.previous)));
        entries
    }

    fn common_entries(&self) -> Vec<Change> {
        let services = self.layout.services().map(|(_, place)| Change::Service {
            number: place.number,
            service: self.installed.services[place.number as usize],
        });
        let capacity = self.installed.limits.index as usize;
        let index = self.installed.index.chunks(capacity).zip(0..).map(|(copy, number)| {
            let used = copy.iter().copied().zip(0..).filter(|(entry, _)| *entry != Default::default());
            Change::Index { copy: number, entries: used.map(|(entry, at)| (at, entry)).collect() }
        });
        services.chain(index).chain([Change::Config(self.installed.config)]).collect()
    }

    pub(super) fn take_read_back(&mut self, now: Duration, read: &[Change], actions: &mut Vec<Action>) {
        let strange: Vec<&Change> =
            read.iter().filter(|&change| change.read(&self.installed).as_ref() != Some(change)).collect();
        if strange.is_empty() {
            return;
        }
        let mut tables: Vec<&str> = strange.iter().map(|change| change.table()).collect();
        tables.sort_unstable();
        tables.dedup();
        strange.into_iter().for_each(|change| self.installed.apply(change));
        let said = format!("the tables ({}) are not what lb wrote", tables.join(", "));
        // Not at once: whatever does this may do it each time.
        self.fail(now, said, actions);
    }
}
