//! Every map, and the decision's view of them. No map is declared anywhere else.
#![allow(non_upper_case_globals, reason = "the name of a static is the name of its map")]

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, DevMap},
};
use lb_common::{
    abi::{
        Backend, Config, Counter, IndexEntry, Limits, MAX_PORTS, Reason, SLOTS_PER_LINE, Service, Slot,
        SlotLine,
    },
    tables::Tables,
};

// The daemon maps these arrays into its memory: it fills them by aligned stores and reads counters by loads.
#[map]
static lb_config: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static lb_index: Array<IndexEntry> = Array::with_max_entries(2 * Limits::DEFAULT.index, BPF_F_MMAPABLE);
#[map]
static lb_services: Array<Service> = Array::with_max_entries(Limits::DEFAULT.services, BPF_F_MMAPABLE);
#[map]
static lb_slots: Array<SlotLine> =
    Array::with_max_entries(Limits::DEFAULT.slots / SLOTS_PER_LINE, BPF_F_MMAPABLE);
#[map]
static lb_backends: Array<Backend> = Array::with_max_entries(Limits::DEFAULT.backends, BPF_F_MMAPABLE);
#[map]
static lb_ports: Array<u32> = Array::with_max_entries(MAX_PORTS, BPF_F_MMAPABLE);
#[map]
static lb_counters: Array<Counter> = Array::with_max_entries(Limits::DEFAULT.counters, BPF_F_MMAPABLE);
#[map]
static lb_reasons: Array<Counter> = Array::with_max_entries(Reason::COUNT, BPF_F_MMAPABLE);
#[map]
static lb_devices: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);

#[unsafe(no_mangle)]
static INDEX_ENTRIES: Global<u32> = Global::new(Limits::DEFAULT.index);
#[unsafe(no_mangle)]
static COUNTERS_PER_CPU: Global<u32> = Global::new(Limits::DEFAULT.counters);

/// The decision's tables, in BPF maps.
pub struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> Config {
        match lb_config.get_ptr(0) {
            // SAFETY: the map has one element, which lives as long as the program. Volatile: the daemon stores
            // new words at any time.
            Some(config) => unsafe {
                Config {
                    selector: (&raw const (*config).selector).read_volatile(),
                    seed: (&raw const (*config).seed).read_volatile(),
                }
            },
            None => Config::default(),
        }
    }

    #[inline(always)]
    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry> {
        lb_index.get(copy * INDEX_ENTRIES.load() + position)
    }

    #[inline(always)]
    fn service(&self, number: u32) -> Option<&Service> {
        lb_services.get(number)
    }

    #[inline(always)]
    fn slot(&self, place: u32) -> Option<Slot> {
        let line = lb_slots.get_ptr(place / SLOTS_PER_LINE)?;
        let within = (place % SLOTS_PER_LINE) as usize;
        // SAFETY: `within` is below the length of the line, which lives as long as the program. Volatile: the
        // daemon stores new slots at any time.
        Some(unsafe { (&raw const (*line).0).cast::<Slot>().add(within).read_volatile() })
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        lb_backends.get(index)
    }
}

/// Interface index of a port; 0 if there is none.
#[inline(always)]
pub fn port(number: u32) -> u32 {
    lb_ports.get(number).copied().unwrap_or(0)
}

/// Sends the frame out of a port. The verdict is `XDP_REDIRECT`; `None` if the port has no device.
#[inline(always)]
pub fn redirect(port: u32) -> Option<u32> {
    lb_devices.redirect(port, 0).ok()
}

/// Adds one packet to a counter of this CPU's run.
#[inline(always)]
pub fn count(counter: u32, bytes: u64) {
    add(lb_counters.get_ptr_mut(cpu() * COUNTERS_PER_CPU.load() + counter), bytes);
}

/// Adds one packet to a reason's counter.
#[inline(always)]
pub fn count_reason(reason: Reason, bytes: u64) {
    add(lb_reasons.get_ptr_mut(cpu() * Reason::COUNT + reason.counter()), bytes);
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: the element lives as long as the program. Only this CPU writes it, and packet programs of one
        // CPU do not interrupt each other, so plain additions lose nothing.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}
