//! Every map, and the decision's view of them. No map is declared anywhere else.
#![allow(non_upper_case_globals, reason = "the name of a static is the name of its map")]

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, xdp_md},
    helpers::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::{bpf_jiffies64, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    },
    macros::map,
    maps::{Array, DevMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        ANSWERS, Backend, Bucket, CAPTURE_BYTES, CAPTURES, CaptureFilter, Config, Counter, EVENT_BYTES,
        Event, Features, Flow, GUE_DEFAULT_PORT, IndexEntry, Limits, MAX_PORTS, Note, Port, PrefixKey,
        Reason, SLOTS_PER_LINE, Service, ServiceKey, Slot, SlotLine, Stage, Ticks, WAYS, Window,
    },
    addr::Addr,
    admit,
    decide::Decided,
    find,
    opaque::opaque,
    packet::Packet,
    tables::{FlowBucket, Tables},
    track::{self, PacketTraits, Question},
};

/// Declares the tables that the daemon has in its memory, too: it fills them by aligned stores and reads counters by
/// loads. Each is one value of a map, of as many elements as the loader gives it, and what the compiler sees of it is its
/// address: to get at an element is arithmetic. A look-up by helper is one for the kernel as well, but a call for the
/// compiler, which then saves and fetches all it has in registers.
macro_rules! table {
    ($table:ident = $name:ident $section:literal: [$element:ty; any & $mask:expr]) => {
        table!($table = $name $section: $element);

        impl $table {
            /// The element of a number. There is one for every number, by its low bits: a comparison would be a branch, and
            /// what the verifier learns by it is lost as soon as the number is put aside.
            #[inline(always)]
            fn at(number: u32) -> *mut $element {
                Self::first().wrapping_add((number & $mask) as usize)
            }
        }
    };
    ($table:ident = $name:ident $section:literal: $element:ty) => {
        // Its size is the loader's business.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        static mut $name: u64 = 0;

        struct $table;

        impl $table {
            /// The first element. It lives as long as the program.
            #[inline(always)]
            fn first() -> *mut $element {
                #[cfg(target_arch = "bpf")]
                {
                    let address: usize;
                    // SAFETY: an address is loaded.
                    unsafe {
                        core::arch::asm!(
                            concat!("{0} = ", stringify!($name), " ll"),
                            out(reg) address,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                    }
                    address as *mut $element
                }
                #[cfg(not(target_arch = "bpf"))]
                (&raw mut $name).cast()
            }
        }
    };
}

table!(ConfigTable = lb_config ".bss.lb_config": Config);
table!(IndexTable = lb_index ".bss.lb_index": [IndexEntry; any & INDEX_MASK.load()]);
table!(ServiceTable = lb_services ".bss.lb_services": [Service; any & SERVICE_MASK.load()]);
table!(SlotTable = lb_slots ".bss.lb_slots": [SlotLine; any & SLOT_LINE_MASK.load()]);
table!(PreviousTable = lb_previous ".bss.lb_previous": [SlotLine; any & SLOT_LINE_MASK.load()]);
table!(FlowTable = lb_flows ".bss.lb_flows": [Bucket; any & FLOW_MASK.load()]);
table!(BackendTable = lb_backends ".bss.lb_backends": [Backend; any & BACKEND_MASK.load()]);
table!(PortTable = lb_ports ".bss.lb_ports": [Port; any & MAX_PORTS - 1]);
table!(CounterTable = lb_counters ".bss.lb_counters": [Counter; any & COUNTER_MASK.load()]);
table!(ReasonTable = lb_reasons ".bss.lb_reasons": [Counter; any & REASON_MASK.load()]);
table!(LimiterTable = lb_limiters ".bss.lb_limiters": [Bucket; any & LIMITER_MASK.load()]);
table!(CaptureTable = lb_capture ".bss.lb_capture": CaptureFilter);

#[map]
static lb_prefixes: LpmTrie<[u32; 5], u32> =
    LpmTrie::with_max_entries(Limits::DEFAULT.prefixes, BPF_F_NO_PREALLOC);
#[map]
static lb_events: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
#[map]
static lb_kept: PerCpuArray<Kept> = PerCpuArray::with_max_entries(1, 0);
#[map]
static lb_devices: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);
#[map]
static lb_programs: ProgramArray = ProgramArray::with_max_entries(Stage::COUNT, 0);
#[map]
static lb_handed: PerCpuArray<Handed> = PerCpuArray::with_max_entries(Stage::COUNT, 0);
#[map]
static lb_budgets: Array<Budget> = Array::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static INDEX_ENTRIES: Global<u32> = Global::new(Limits::DEFAULT.index);
#[unsafe(no_mangle)]
static COUNTERS_PER_CPU: Global<u32> = Global::new(Limits::DEFAULT.counters);

// The number of elements less one, of each table: a power of two less one.
#[unsafe(no_mangle)]
static INDEX_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SERVICE_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SLOT_LINE_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static BACKEND_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static COUNTER_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REASON_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static LIMITER_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FLOW_MASK: Global<u32> = Global::new(0);

/// What the configuration uses: the verifier removes the rest.
#[unsafe(no_mangle)]
static FEATURES: Global<u32> = Global::new(Features::ALL.0);
/// How many flows a CPU may remember in one tick.
#[unsafe(no_mangle)]
static FLOWS_PER_TICK: Global<u32> = Global::new(1000);
/// On a backend: the UDP port whose packets are taken for GUE.
#[unsafe(no_mangle)]
static GUE_PORT: Global<u16> = Global::new(GUE_DEFAULT_PORT);

/// What a CPU has done in the present windows; a cache line for each.
#[repr(C, align(64))]
pub struct Budget {
    window: u64,
    used: u32,
}

/// On a backend: the UDP port whose packets are taken for GUE, host byte order.
#[inline(always)]
pub fn gue_port() -> u16 {
    GUE_PORT.load()
}

/// Coarse time. Inlined by the kernel: a load.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

/// The decision's tables, in BPF maps.
pub struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> Config {
        let config = ConfigTable::first();
        // SAFETY: the element lives as long as the program. Volatile: the daemon stores new words at any time.
        unsafe {
            Config {
                selector: (&raw const (*config).selector).read_volatile(),
                seed: (&raw const (*config).seed).read_volatile(),
                fragment_idle: (&raw const (*config).fragment_idle).read_volatile(),
                ..Config::default()
            }
        }
    }

    #[inline(always)]
    fn features(&self) -> Features {
        features()
    }

    #[inline(always)]
    fn gue_port(&self) -> u16 {
        // SAFETY: as above.
        unsafe { (&raw const (*ConfigTable::first()).gue_port).read_volatile() as u16 }
    }

    #[inline(always)]
    fn limiter(&self, hash: u32) -> Option<MapBucket> {
        Some(MapBucket(LimiterTable::at(hash)))
    }

    #[inline(always)]
    fn prefix(&self, list: u32, address: Addr) -> Option<u32> {
        let PrefixKey { bits, list, address: [a, b, c, d] } = PrefixKey::of(list, address);
        lb_prefixes.get(Key::new(bits, [list, a, b, c, d])).copied()
    }

    #[inline(always)]
    fn index_entry(&self, copy: u32, position: u32) -> Option<&IndexEntry> {
        Some(whole(IndexTable::at(opaque(u64::from(copy)) as u32 * INDEX_ENTRIES.load() + position)))
    }

    #[inline(always)]
    fn service(&self, number: u32) -> Option<&Service> {
        Some(whole(ServiceTable::at(number)))
    }

    #[inline(always)]
    fn slot(&self, place: u32) -> Option<Slot> {
        Some(slot(SlotTable::at(place / SLOTS_PER_LINE), place))
    }

    #[inline(always)]
    fn previous(&self, place: u32) -> Option<Slot> {
        Some(slot(PreviousTable::at(place / SLOTS_PER_LINE), place))
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        Some(whole(BackendTable::at(index)))
    }

    type Bucket<'t> = MapBucket;

    #[inline(always)]
    fn bucket(&self, hash: u32) -> Option<MapBucket> {
        Some(MapBucket(FlowTable::at(hash)))
    }

    #[inline(always)]
    fn may(&self, what: Window) -> bool {
        let most = match what {
            Window::Remember => FLOWS_PER_TICK.load(),
            Window::Answer => ANSWERS,
            Window::DropEvents | Window::FlowEvents => events(what),
            Window::Capture => CAPTURES,
        };
        let Some(budget) = lb_budgets.get_ptr_mut(cpu() * Window::COUNT + what as u32) else { return false };
        let now = jiffies() >> what.bits();
        // SAFETY: the element lives as long as the program, and only this CPU writes it.
        unsafe {
            if (*budget).window != now {
                (*budget).window = now;
                (*budget).used = 0;
            }
            (*budget).used += 1;
            (*budget).used <= most
        }
    }

    #[inline(always)]
    fn refusal(&self, service: u32, source: Addr, packet: PacketTraits, now: Ticks) -> u32 {
        let [high, low] = source.words();
        lb_refusal(high, low, service, packet.0, now.to_bits())
    }

    #[inline(always)]
    fn wider(&self, selector: u64, key: ServiceKey) -> u32 {
        let [high, low] = key.vip.words();
        lb_wider(selector, high, low, key.tail())
    }

    #[inline(always)]
    fn named(&self, selector: u64, service: u32, head: u16, id: u64) -> u32 {
        lb_named(selector, id, service, u32::from(head))
    }

    #[inline(always)]
    fn remembered(&self, question: Question) -> u32 {
        let Question { service, place, flow, packet: PacketTraits(packet), now } = question;
        lb_remembered(flow, service, place, packet, now.to_bits())
    }

    #[inline(always)]
    fn note(&self, note: Note) {
        count_reason(Reason::Note(note).counter(), 0);
    }
}

/// [`track::remembered`] behind a call: its many ways are verified once and alone. A call costs some nanoseconds, and
/// only packets of remembered flows make it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_remembered(flow: u64, service: u32, place: u32, packet: u32, now: u32) -> u32 {
    let (packet, now) = (PacketTraits(packet), Ticks::from_bits(now));
    track::remembered(&Maps, Question { service, place, flow, packet, now })
}

/// [`find::wider`] behind a call, for the same reason: only packets that no service has by their address and port make it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_wider(selector: u64, vip_high: u64, vip_low: u64, tail: u32) -> u32 {
    find::wider(&Maps, selector, ServiceKey::from_parts(Addr::from_words([vip_high, vip_low]), tail))
}

/// [`find::named`] behind a call, for the same reason: only packets of services with QUIC server IDs make it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_named(selector: u64, id: u64, service: u32, head: u32) -> u32 {
    match Maps.service(service) {
        Some(service) => find::named(&Maps, selector, service, head as u16, id),
        None => track::NOBODY,
    }
}

/// [`admit::refusal`] behind a call, for the same reason: only packets of services with a list or limits make it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_refusal(source_high: u64, source_low: u64, service: u32, packet: u32, now: u32) -> u32 {
    let source = Addr::from_words([source_high, source_low]);
    admit::refusal(&Maps, service, source, PacketTraits(packet), Ticks::from_bits(now))
}

/// How many packets a CPU tells of in one window.
#[inline(always)]
fn events(what: Window) -> u32 {
    let config = ConfigTable::first();
    // SAFETY: the element lives as long as the program. Volatile: the daemon stores new words at any time.
    unsafe {
        match what {
            Window::DropEvents => (&raw const (*config).drop_events).read_volatile(),
            _ => (&raw const (*config).flow_events).read_volatile(),
        }
    }
}

/// Whether these are the lean programs: see [`Features::LEAN`].
pub const LEAN: bool = cfg!(feature = "lean");

/// What the configuration uses.
#[inline(always)]
pub fn features() -> Features {
    if LEAN { Features::NONE } else { Features(FEATURES.load()) }
}

/// Those by which packets are told of. Of these the lean programs have some, which only packets meet that are dropped.
#[inline(always)]
pub fn telling() -> Features {
    let here = if LEAN { Features::LEAN } else { Features::TELLING };
    Features(FEATURES.load() & here.0)
}

/// A zero that the verifier does not know: see [`lb_common::packet::Packet::blurred`]. The lean programs are small enough
/// to be verified way by way.
#[inline(always)]
pub fn zero() -> u32 {
    // The clock's highest bit: a load, where a map would cost a look-up.
    if LEAN { 0 } else { (jiffies() >> 63) as u32 }
}

#[inline(always)]
fn slot(line: *const SlotLine, place: u32) -> Slot {
    let within = (place % SLOTS_PER_LINE) as usize;
    // SAFETY: `within` is below the length of the line, which lives as long as the program. Volatile: the daemon
    // stores new slots at any time.
    unsafe { (&raw const (*line).0).cast::<Slot>().add(within).read_volatile() }
}

/// An element that packets read, and that does not change while they may.
#[inline(always)]
fn whole<'t, T>(element: *mut T) -> &'t T {
    // SAFETY: it lives as long as the program. What of it changes at any time is read as volatile, word by word.
    unsafe { &*element }
}

/// A bucket in the map. Other CPUs read and write it at the same time, each word whole.
pub struct MapBucket(*mut Bucket);

impl MapBucket {
    #[inline(always)]
    fn flow(&self, way: usize) -> *mut Flow {
        // SAFETY: the masked place lies within the bucket.
        unsafe { self.0.cast::<Flow>().add(way & (WAYS - 1)) }
    }
}

impl FlowBucket for MapBucket {
    #[inline(always)]
    fn load(&self, way: usize) -> Flow {
        let flow = self.flow(way);
        // SAFETY: the element lives as long as the program; volatile, because others write it.
        unsafe {
            Flow {
                id: (&raw const (*flow).id).read_volatile(),
                value: (&raw const (*flow).value).read_volatile(),
            }
        }
    }

    #[inline(always)]
    fn replace(&self, way: usize, new: Flow) {
        let flow = self.flow(way);
        // SAFETY: as above. In this order, so that nobody takes the new value for the old flow's.
        unsafe {
            (&raw mut (*flow).id).write_volatile(0);
            (&raw mut (*flow).value).write_volatile(new.value);
            (&raw mut (*flow).id).write_volatile(new.id);
        }
    }

    #[inline(always)]
    fn update(&self, way: usize, new: Flow) {
        let flow = self.flow(way);
        // SAFETY: as above.
        unsafe { (&raw mut (*flow).value).write_volatile(new.value) };
    }
}

/// Hands the packet over to another program. Returns only if there is none.
#[inline(always)]
pub fn go_on(ctx: &XdpContext, stage: Stage) {
    // SAFETY: the array holds nothing but XDP programs.
    unsafe { lb_programs.tail_call(ctx, stage as u32) };
}

/// What one program hands over to the next. It stays on this CPU, where no other packet comes between.
#[derive(Clone, Copy)]
pub struct Handed {
    /// The packet.
    pub packet: Packet,
    /// See [`Decided::service`].
    pub service: u32,
    /// See [`Decided::reasons`].
    pub reasons: u32,
    /// See [`lb_common::decide::Decision::TooBig`].
    pub room: u16,
}

impl Handed {
    /// A packet that nothing is decided about.
    #[inline(always)]
    pub const fn new(packet: Packet) -> Self {
        Self { packet, service: Decided::NOBODY, reasons: Decided::NOBODY, room: 0 }
    }

    /// A packet of a service.
    #[inline(always)]
    pub fn decided(packet: &Packet, decided: &Decided<'_>, room: u16) -> Self {
        Self { packet: *packet, service: decided.service, reasons: decided.reasons(), room }
    }
}

/// What was handed over to the program of this stage: every packet that comes there has it.
#[inline(always)]
pub fn handed<'t>(stage: Stage) -> Option<&'t Handed> {
    // SAFETY: the element lives as long as the program. Only this CPU uses it, and the program before wrote it whole.
    lb_handed.get_ptr(stage as u32).map(|handed| unsafe { &*handed })
}

/// Hands a packet over to the program of another stage. Returns only if there is none.
#[inline(always)]
pub fn hand_over(ctx: &XdpContext, stage: Stage, what: Handed) {
    if let Some(handed) = lb_handed.get_ptr_mut(stage as u32) {
        // SAFETY: the element lives as long as the program. Only this CPU uses it, and nobody reads it now: each stage
        // has its own.
        unsafe { handed.write(what) };
        go_on(ctx, stage);
    }
}

/// A port; an interface index of 0 if there is none.
#[inline(always)]
pub fn port(number: u32) -> Port {
    *whole(PortTable::at(number))
}

/// Sends the frame out of a port. The verdict is `XDP_REDIRECT`; `None` if the port has no device.
#[inline(always)]
pub fn redirect(port: u32) -> Option<u32> {
    // As the table of ports has it.
    lb_devices.redirect(port & (MAX_PORTS - 1), 0).ok()
}

/// Adds one packet to a counter of this CPU's run.
#[inline(always)]
pub fn count(counter: u32, bytes: u64) {
    add(CounterTable::at(cpu() * COUNTERS_PER_CPU.load() + counter), bytes);
}

/// Adds one packet to a reason's counter.
#[inline(always)]
pub fn count_reason(reason: u32, bytes: u64) {
    add(ReasonTable::at(cpu() * Reason::COUNT + (reason & (Reason::COUNT - 1))), bytes);
}

/// Tells the daemon of a packet; if it does not listen fast enough, the event is lost.
#[inline(always)]
pub fn tell(event: &Event) {
    // An error is a full buffer.
    if lb_events.output::<Event>(event, 0).is_err() {
        count_reason(Reason::Note(Note::EventLost).counter(), 0);
    }
}

/// Kernel time; nanoseconds.
#[inline(always)]
pub fn nanoseconds() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// A frame that is being captured, and what is told of it. One for each CPU: a packet is done with before the next.
#[repr(C)]
pub struct Kept {
    /// Bytes of the frame that are kept; 0 if it is not wanted.
    length: u64,
    /// Bytes of the whole frame.
    whole: u64,
    /// What is told of it.
    pub event: Event,
    frame: [u8; CAPTURE_BYTES as usize],
}

/// Where this CPU keeps the frame that is captured.
#[inline(always)]
pub fn kept<'t>() -> Option<&'t mut Kept> {
    // SAFETY: the element lives as long as the program. Only this CPU uses it, one packet after the other, and nobody
    // holds two of these at a time.
    lb_kept.get_ptr_mut(0).map(|kept| unsafe { &mut *kept })
}

/// Which packets are captured.
#[inline(always)]
pub fn capture_filter<'t>() -> &'t CaptureFilter {
    // A mixture of an old and a new filter captures too much or too little for a moment.
    whole(CaptureTable::first())
}

impl Kept {
    /// Keeps so much of the frame as it is now. Nothing of it is kept if that cannot be.
    #[inline(always)]
    pub fn keep(&mut self, ctx: *mut xdp_md, most: u32) {
        // SAFETY: the context is the program's own.
        let whole = unsafe { bpf_xdp_get_buff_len(ctx) };
        // One less, because the verifier of kernel 6.1 learns nothing from a comparison with 0 and wants to see that
        // something is read.
        let but_one = opaque(whole.min(u64::from(most)).wrapping_sub(1));
        self.length = 0;
        self.whole = whole;
        if but_one >= u64::from(CAPTURE_BYTES) {
            return;
        }
        let length = but_one + 1;
        // SAFETY: `frame` has room for so many bytes.
        let error = unsafe { bpf_xdp_load_bytes(ctx, 0, self.frame.as_mut_ptr().cast(), length as u32) };
        if error == 0 {
            self.length = length;
        }
    }

    /// Whether anything is kept.
    #[inline(always)]
    pub fn holds_any(&self) -> bool {
        self.length != 0
    }

    /// Hands what is kept to the daemon, behind its event.
    #[inline(always)]
    pub fn hand_in(&mut self, stage: u32) {
        self.event.stage = stage;
        self.event.length = self.whole as u32;
        let length = opaque(self.length);
        if length == 0 || length > u64::from(CAPTURE_BYTES) {
            return;
        }
        let start = (&raw const self.event).cast::<u8>();
        // SAFETY: the frame stands right behind the event, and has so many bytes.
        let record = unsafe { core::slice::from_raw_parts(start, size_of::<Event>() + length as usize) };
        // An error is a full buffer.
        if lb_events.output::<[u8]>(record, 0).is_err() {
            count_reason(Reason::Note(Note::EventLost).counter(), 0);
        }
    }
}

#[inline(always)]
fn add(counter: *mut Counter, bytes: u64) {
    // SAFETY: the element lives as long as the program. Only this CPU writes it, and packet programs of one CPU do not
    // interrupt each other, so plain additions lose nothing.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += bytes;
    }
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}
