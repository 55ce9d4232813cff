//! The tables of the packet path: how large each is, how they are made, and how the programs are told.

use std::io;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
};
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use lb_common::{
    abi::{
        Backend, Bucket, CaptureFilter, Config, Counter, IndexEntry, Limits, MAX_PORTS, Port, Reason,
        SLOTS_PER_LINE, Service, SlotLine, name,
    },
    wire::pod::Pod,
};

use super::{
    KernelError,
    mapped::MappedArray,
    programs::{SharedMaps, place},
};

/// How many elements each table has: powers of two. The programs have the same numbers as constants, most of them as
/// masks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    index_copy: u32,
    counters_of_cpu: u32,
    index: Size,
    services: Size,
    slot_lines: Size,
    flows: Size,
    backends: Size,
    counters: Size,
    reasons: Size,
    limiters: Size,
}

/// The number of elements of a table.
#[derive(Clone, Copy, Debug)]
struct Size {
    mask: u32,
}

impl Size {
    /// At least so many.
    const fn of(elements: u32) -> Self {
        Self { mask: elements.next_power_of_two() - 1 }
    }

    const fn elements(self) -> u32 {
        self.mask + 1
    }
}

impl Sizes {
    /// Those for tables of these limits.
    pub(super) fn new(limits: &Limits, cpus: u32) -> Self {
        Self {
            index_copy: limits.index,
            counters_of_cpu: limits.counters,
            index: Size::of(2 * limits.index),
            services: Size::of(limits.services),
            slot_lines: Size::of(limits.slots / SLOTS_PER_LINE),
            flows: Size::of(limits.flow_buckets),
            backends: Size::of(limits.backends),
            counters: Size::of(limits.counters * cpus),
            reasons: Size::of(Reason::COUNT * cpus),
            limiters: Size::of(limits.limiters),
        }
    }

    /// Tells the programs. Those that are compiled without some features have no use for some of them.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>, all: bool) {
        let globals = [
            (name::INDEX_ENTRIES, &self.index_copy),
            (name::COUNTERS_PER_CPU, &self.counters_of_cpu),
            (name::INDEX_MASK, &self.index.mask),
            (name::SERVICE_MASK, &self.services.mask),
            (name::SLOT_LINE_MASK, &self.slot_lines.mask),
            (name::FLOW_MASK, &self.flows.mask),
            (name::BACKEND_MASK, &self.backends.mask),
            (name::COUNTER_MASK, &self.counters.mask),
            (name::REASON_MASK, &self.reasons.mask),
            (name::LIMITER_MASK, &self.limiters.mask),
        ];
        for (global, value) in globals {
            loader.override_global(global, value, all);
        }
    }

    /// Makes the tables, all zero.
    ///
    /// # Errors
    /// [`KernelError::Map`]: no memory, or more than the kernel lets a map have.
    pub(super) fn make(&self) -> Result<SharedMaps, KernelError> {
        let tables = [
            table::<Config>(name::CONFIG, 1),
            table::<IndexEntry>(name::INDEX, self.index.elements()),
            table::<Service>(name::SERVICES, self.services.elements()),
            table::<SlotLine>(name::SLOTS, self.slot_lines.elements()),
            table::<SlotLine>(name::PREVIOUS, self.slot_lines.elements()),
            table::<Bucket>(name::FLOWS, self.flows.elements()),
            table::<Backend>(name::BACKENDS, self.backends.elements()),
            table::<Port>(name::PORTS, MAX_PORTS),
            table::<Counter>(name::COUNTERS, self.counters.elements()),
            table::<Counter>(name::REASONS, self.reasons.elements()),
            table::<Bucket>(name::LIMITERS, self.limiters.elements()),
            table::<CaptureFilter>(name::CAPTURE, 1),
        ];
        SharedMaps::made(tables.into_iter().collect::<Result<_, _>>()?)
    }
}

/// Makes one.
fn table<T: Pod>(map: &'static str, elements: u32) -> Result<(&'static str, MapData), KernelError> {
    let failed = |source| KernelError::Map { map, source };
    let bytes = u64::from(elements) * size_of::<T>() as u64;
    let Ok(bytes) = i32::try_from(bytes) else {
        let why = format!("{bytes} bytes are more than a map may have");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
    };
    let key = size_of::<u32>() as u32;
    let definition = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        key,
        bytes.unsigned_abs(),
        1,
        BPF_F_MMAPABLE,
    );
    let made = MapData::create(definition, map, None).map_err(|error| failed(io::Error::other(error)))?;
    Ok((map, made))
}

/// The tables in this process' memory.
pub(super) struct MappedTables {
    pub(super) config: MappedArray<Config>,
    pub(super) index: MappedArray<IndexEntry>,
    pub(super) services: MappedArray<Service>,
    pub(super) slots: MappedArray<SlotLine>,
    pub(super) previous: MappedArray<SlotLine>,
    pub(super) flows: MappedArray<Bucket>,
    pub(super) backends: MappedArray<Backend>,
    pub(super) ports: MappedArray<Port>,
    pub(super) limiters: MappedArray<Bucket>,
    pub(super) capture: MappedArray<CaptureFilter>,
    pub(super) counters: MappedArray<Counter>,
    pub(super) reasons: MappedArray<Counter>,
}

impl MappedTables {
    /// Those of a loaded object, once they have taken their places.
    ///
    /// # Errors
    /// [`KernelError::Missing`] and [`KernelError::Map`].
    pub(super) fn of(ebpf: &Ebpf, sizes: &Sizes) -> Result<Self, KernelError> {
        Ok(Self {
            config: mapped(ebpf, name::CONFIG, 1)?,
            index: mapped(ebpf, name::INDEX, sizes.index.elements())?,
            services: mapped(ebpf, name::SERVICES, sizes.services.elements())?,
            slots: mapped(ebpf, name::SLOTS, sizes.slot_lines.elements())?,
            previous: mapped(ebpf, name::PREVIOUS, sizes.slot_lines.elements())?,
            flows: mapped(ebpf, name::FLOWS, sizes.flows.elements())?,
            backends: mapped(ebpf, name::BACKENDS, sizes.backends.elements())?,
            ports: mapped(ebpf, name::PORTS, MAX_PORTS)?,
            limiters: mapped(ebpf, name::LIMITERS, sizes.limiters.elements())?,
            capture: mapped(ebpf, name::CAPTURE, 1)?,
            counters: mapped(ebpf, name::COUNTERS, sizes.counters.elements())?,
            reasons: mapped(ebpf, name::REASONS, sizes.reasons.elements())?,
        })
    }
}

fn mapped<T: Pod>(ebpf: &Ebpf, map: &'static str, elements: u32) -> Result<MappedArray<T>, KernelError> {
    let Some(Map::Array(data)) = place(ebpf, map) else { return Err(KernelError::Missing(map)) };
    MappedArray::map(data.fd(), elements).map_err(|source| KernelError::Map { map, source })
}
