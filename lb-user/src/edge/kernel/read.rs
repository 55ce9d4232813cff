//! Reads the tables back out of the kernel.

use std::collections::BTreeMap;

use aya::maps::{LpmTrie, MapData, MapError, lpm_trie::Key};
use lb_common::abi::{Bucket, Counter, Flow, PrefixKey, Reason, name};

use super::{Kernel, KernelError};
use crate::model::memory::{Flows, Memory};

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
