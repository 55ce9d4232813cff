//! Reads the tables back out of the kernel.

use std::collections::BTreeMap;

use aya::maps::{LpmTrie, MapData, MapError, lpm_trie::Key};
use lb_common::{
    abi::{
        Backend, Bucket, CaptureFilter, Config, Counter, Features, Flow, IndexEntry, Limits, Port, PrefixKey,
        Reason, SLOTS_PER_LINE, Service, Slot, SlotLine, name,
    },
    addr::Addr,
};

use super::{Kernel, KernelError, lpm_key, mapped::MappedArray};
use crate::model::{
    memory::{Flows, Memory},
    plan::Entries,
    trace::snapshot::View,
};

impl Kernel {
    /// The tables as they are in the kernel at this moment. The device map is not read: it has what the ports have.
    pub fn read(&self) -> Memory {
        let tables = &self.tables;
        Memory {
            limits: self.options.limits,
            config: tables.config.load(0),
            index: (0..tables.index.len()).map(|at| tables.index.load(at)).collect(),
            services: (0..tables.services.len()).map(|at| tables.services.load(at)).collect(),
            slots: (0..tables.slots.len()).flat_map(|at| tables.slots.load(at).0).collect(),
            previous: (0..tables.previous.len()).flat_map(|at| tables.previous.load(at).0).collect(),
            flows: Flows::of((0..tables.flows.len()).flat_map(|at| tables.flows.load(at).0)),
            backends: (0..tables.backends.len()).map(|at| tables.backends.load(at)).collect(),
            ports: (0..tables.ports.len()).map(|at| tables.ports.load(at)).collect(),
            features: self.path.features(),
            prefixes: self.prefixes(),
            capture: tables.capture.load(0),
            limiters: Flows::of((0..tables.limiters.len()).flat_map(|at| tables.limiters.load(at).0)),
            allowances: Memory::unlimited(),
        }
    }

    /// Every entry of every list of prefixes. An entry that is removed meanwhile may be missing or not.
    fn prefixes(&self) -> BTreeMap<PrefixKey, u32> {
        let Ok(trie) = self.trie() else { return BTreeMap::new() };
        let entry = |entry: Result<(Key<[u32; 5]>, u32), MapError>| {
            let (key, value) = entry.ok()?;
            let [list, address @ ..] = key.data();
            Some((PrefixKey { bits: key.prefix_len(), list, address }, value))
        };
        trie.iter().filter_map(entry).collect()
    }

    fn trie(&self) -> Result<LpmTrie<&MapData, [u32; 5], u32>, KernelError> {
        let map = self.ebpf.map(name::PREFIXES).ok_or(KernelError::Missing(name::PREFIXES))?;
        map.try_into().map_err(|_| KernelError::Missing(name::PREFIXES))
    }

    /// One forwarding counter, or one reason's, summed over the CPUs.
    pub fn counter(&self, is_reason: bool, number: u32) -> Counter {
        let tables = &self.tables;
        let (array, stride) = match is_reason {
            true => (&tables.reasons, Reason::COUNT),
            false => (&tables.counters, self.options.limits.counters),
        };
        let of_cpu = |cpu| array.load((cpu * stride + number) as usize);
        (0..self.cpus).map(of_cpu).fold(Counter::default(), |sum, counter| sum + counter)
    }

    /// One bucket of the flow table.
    pub fn flow_bucket(&self, number: u32) -> Bucket {
        self.tables.flows.load(number as usize)
    }

    /// One bucket of limited sources.
    pub fn limiter(&self, number: u32) -> Bucket {
        self.tables.limiters.load(number as usize)
    }

    /// Every remembered flow.
    pub fn flows(&self) -> Vec<Flow> {
        let buckets = (0..self.tables.flows.len()).map(|at| self.tables.flows.load(at));
        buckets.flat_map(|bucket| bucket.0).filter(|flow| flow.id != 0).collect()
    }
}

/// One element at a time: a trace needs few of them.
impl View for Kernel {
    fn limits(&self) -> Limits {
        self.options.limits
    }

    fn features(&self) -> Features {
        self.path.features()
    }

    fn config(&self) -> Config {
        self.tables.config.load(0)
    }

    fn index_entry(&self, copy: u32, position: u32) -> Option<IndexEntry> {
        self.tables.index.get((copy * self.options.limits.index).wrapping_add(position))
    }

    fn service(&self, number: u32) -> Option<Service> {
        self.tables.services.get(number)
    }

    fn slot(&self, place: u32) -> Option<Slot> {
        slot_of(&self.tables.slots, place)
    }

    fn previous(&self, place: u32) -> Option<Slot> {
        slot_of(&self.tables.previous, place)
    }

    fn backend(&self, index: u32) -> Option<Backend> {
        self.tables.backends.get(index)
    }

    fn flows(&self, bucket: u32) -> Option<Bucket> {
        self.tables.flows.get(bucket)
    }

    fn limiters(&self, bucket: u32) -> Option<Bucket> {
        self.tables.limiters.get(bucket)
    }

    fn prefix(&self, list: u32, address: Addr) -> Option<u32> {
        self.trie().ok()?.get(&lpm_key(&PrefixKey::of(list, address)), 0).ok()
    }

    fn port(&self, number: u16) -> Port {
        self.tables.ports.get(u32::from(number)).unwrap_or_default()
    }
}

fn slot_of(lines: &MappedArray<SlotLine>, place: u32) -> Option<Slot> {
    let SlotLine(slots) = lines.get(place / SLOTS_PER_LINE)?;
    slots.get((place % SLOTS_PER_LINE) as usize).copied()
}

impl Entries for Kernel {
    fn config(&self) -> Config {
        self.tables.config.load(0)
    }

    fn capture(&self) -> CaptureFilter {
        self.tables.capture.load(0)
    }

    fn port(&self, number: u32) -> Port {
        self.tables.ports.load(number as usize)
    }

    fn backend(&self, index: u32) -> Backend {
        self.tables.backends.load(index as usize)
    }

    fn service(&self, number: u32) -> Service {
        self.tables.services.load(number as usize)
    }

    fn index_entry(&self, copy: u32, position: u32) -> IndexEntry {
        self.tables.index.load((copy * self.options.limits.index + position) as usize)
    }

    fn slot(&self, place: u32) -> Slot {
        slot(&self.tables.slots, place)
    }

    fn previous(&self, place: u32) -> Slot {
        slot(&self.tables.previous, place)
    }

    fn prefix_value(&self, key: &PrefixKey) -> Option<u32> {
        self.trie().ok()?.get(&lpm_key(key), 0).ok()
    }
}

fn slot(table: &MappedArray<SlotLine>, place: u32) -> Slot {
    table.load((place / SLOTS_PER_LINE) as usize).0[(place % SLOTS_PER_LINE) as usize]
}
