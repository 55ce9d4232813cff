//! The tables in ordinary memory: what the daemon believes to be installed, and what the simulator runs on.

use lb_common::{
    abi::{Backend, Config, IndexEntry, Limits, MAX_PORTS, Service, Slot},
    tables::Tables,
};

use super::plan::Change;

/// A copy of every table. Applying the same changes to it and to the kernel keeps the two equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Sizes of the tables.
    pub limits: Limits,
    /// See [`Tables::config`].
    pub config: Config,
    /// Both copies of the service index, one after the other.
    pub index: Vec<IndexEntry>,
    /// By service number.
    pub services: Vec<Service>,
    /// All pools' slots.
    pub slots: Vec<Slot>,
    /// By backend index.
    pub backends: Vec<Backend>,
    /// Interface index by port.
    pub ports: Vec<u32>,
}

impl Memory {
    /// Tables as they are when made: zero bytes, which mean no service and empty slots.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            config: Config::default(),
            index: vec![IndexEntry::default(); 2 * limits.index as usize],
            services: vec![Service::default(); limits.services as usize],
            slots: vec![Slot::EMPTY; limits.slots as usize],
            backends: vec![Backend::default(); limits.backends as usize],
            ports: vec![0; MAX_PORTS as usize],
        }
    }

    /// Carries out one change.
    ///
    /// # Panics
    /// If the change is outside the tables: plans are made for these limits.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Port { number, ifindex } => self.ports[*number as usize] = *ifindex,
            Change::Backend { index, backend } => self.backends[*index as usize] = **backend,
            Change::Hop { index, hop } => self.backends[*index as usize].hop = hop.to_words(),
            Change::Slots(slots) => {
                for &(place, slot) in slots {
                    self.slots[place as usize] = slot;
                }
            }
            Change::Service { number, service } => self.services[*number as usize] = *service,
            Change::Index { copy, entries } => {
                let base = copy * self.limits.index;
                for &(position, entry) in entries {
                    self.index[(base + position) as usize] = entry;
                }
            }
            Change::Config(config) => self.config = *config,
            Change::Settle => {}
        }
    }
}

impl Tables for Memory {
    fn config(&self) -> Config {
        self.config
    }

    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry> {
        self.index.get((copy * self.limits.index).checked_add(position)? as usize)
    }

    fn service(&self, number: u32) -> Option<&Service> {
        self.services.get(number as usize)
    }

    fn slot(&self, place: u32) -> Option<Slot> {
        self.slots.get(place as usize).copied()
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }
}

#[cfg(test)]
pub(crate) mod audit;
