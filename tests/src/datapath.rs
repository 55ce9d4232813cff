//! The programs on single frames: the real ones in the kernel, by `BPF_PROG_TEST_RUN`, over tables that real plans
//! filled. Beside them the same tables in memory, for the model.
//!
//! Everything happens in a network namespace of its own, because the programs ask for interfaces that exist.

pub mod agree;
pub mod corpus;
pub mod fixture;
pub mod fuzz;
pub mod namespace;
pub mod target;
pub mod ways;
pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::{Context, bail, ensure};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use lb_common::abi::{Bucket, Counter, Features, Flow, Limits, Reason, name};
use lb_user::{
    edge::kernel::{Kernel, LoadOptions},
    model::{
        layout::Layout,
        memory::Memory,
        plan::{Change, TableCache, Target, plan},
        service::Name,
        simulate,
        traffic::Counters,
    },
};

pub use self::namespace::{sh, within};
use crate::packets::ETHERNET_LEN;

/// Index of the interface that frames come in by, unless a test says otherwise: the namespace's loopback.
pub const INGRESS: u32 = 1;
/// Index of another interface.
pub const EGRESS: u32 = 2;
/// Index of a third: the second one's peer.
pub const THIRD: u32 = 3;

/// Sizes of the tables: small, so that they are quickly read back whole.
pub const LIMITS: Limits = Limits {
    index: 512,
    services: 128,
    slots: 4096,
    backends: 4096,
    counters: 8192,
    flow_buckets: 256,
    limiters: 64,
    prefixes: 1 << 12,
};

/// The longest frame that a test may send: what fits a page beside headroom and tail.
pub const LONGEST: usize = 3400;

/// Bytes that a program can push before a frame: 256, less the kernel's own `struct xdp_frame`.
pub const HEADROOM: usize = 216;

/// What a program said about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `XDP_ABORTED`: never wanted.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Transmit,
    /// `XDP_REDIRECT`.
    Redirect,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame as it goes on; of a dropped one nothing.
    pub frame: Vec<u8>,
}

/// What the model says about a frame, in the terms that can be compared with the kernel.
pub fn answer_of(outcome: &simulate::Outcome, frame: &[u8]) -> Answer {
    let (verdict, frame) = match &outcome.verdict {
        simulate::Verdict::Pass => (Verdict::Pass, frame.to_vec()),
        simulate::Verdict::Drop => (Verdict::Drop, Vec::new()),
        simulate::Verdict::Transmit(out) => (Verdict::Transmit, out.clone()),
        simulate::Verdict::Redirect(_, out) => (Verdict::Redirect, out.clone()),
    };
    Answer { verdict, frame }
}

/// What a tc program said about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcAnswer {
    /// `TC_ACT_OK` is 0, `TC_ACT_SHOT` 2, `TC_ACT_REDIRECT` 7 (linux/pkt_cls.h).
    pub verdict: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The mark afterwards.
    pub mark: u32,
}

/// Where something was counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At a service's backend.
    Forwarded {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: String,
    },
    /// At a counter that no service owns.
    Nobody(u32),
    /// At a reason.
    Reason(&'static str),
}

/// The balancer in the kernel and its tables in memory.
pub struct Rig {
    kernel: Kernel,
    /// The tables as they should be.
    pub memory: Memory,
    layout: Layout,
    cache: TableCache,
    counted: Counters,
}

/// Runs a test with a rig in a namespace of its own, see [`within`].
///
/// # Panics
/// If the test fails, or the rig cannot be set up.
pub fn with_rig(test: impl FnOnce(&mut Rig) -> anyhow::Result<()> + Send + 'static) {
    within(|| test(&mut Rig::load(Features::ALL, false)?));
}

impl Rig {
    /// Loads every program, over empty tables: those that have these features, and with `log_packets` those that log
    /// every packet. The verifier sees each as other programs.
    ///
    /// # Errors
    /// What the kernel edge says.
    pub fn load(features: Features, log_packets: bool) -> anyhow::Result<Self> {
        let options =
            LoadOptions { limits: LIMITS, features, log_packets, pins: PathBuf::from("/nonexistent") };
        let mut rig = Self::load_with(&options)?;
        xdp(&mut rig.kernel, name::DECAP)?.load()?;
        Ok(rig)
    }

    /// The same for tables and programs of the caller's choice.
    ///
    /// # Errors
    /// What the kernel edge says.
    pub fn load_with(options: &LoadOptions) -> anyhow::Result<Self> {
        let kernel = Kernel::load(options)?;
        let limits = options.limits;
        Ok(Self {
            counted: kernel.counters(limits.counters),
            kernel,
            memory: Memory { features: options.features, ..Memory::new(limits) },
            layout: Layout::new(&limits),
            cache: TableCache::default(),
        })
    }

    /// The kernel edge itself.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Plans the way to a target and goes it, in the kernel and in memory.
    ///
    /// # Errors
    /// The target does not fit the tables, or the kernel refuses a step.
    pub fn install(&mut self, target: &Target) -> anyhow::Result<()> {
        self.install_watched(target, |_, _| Ok(()))
    }

    /// The same, and after every step `watch` may look at what the balancer does.
    ///
    /// # Errors
    /// As [`Rig::install`], and what `watch` says.
    pub fn install_watched(
        &mut self,
        target: &Target,
        watch: impl FnMut(&mut Self, &Change) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.begin(target, usize::MAX, watch)?;
        self.layout.release();
        // A slot that settled and moved again in one plan is in transition anew.
        let target = Target { settled: BTreeSet::new(), ..target.clone() };
        let more = plan(&self.memory, &self.layout, &target, &mut self.cache)?;
        ensure!(more.is_empty(), "a plan carried out leaves something to do: {more:?}");
        Ok(())
    }

    /// Goes the first so many steps of the way to a target and leaves it at that, as when the kernel refuses one.
    ///
    /// # Errors
    /// As [`Rig::install_watched`].
    pub fn begin(
        &mut self,
        target: &Target,
        steps: usize,
        mut watch: impl FnMut(&mut Self, &Change) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.layout = self.layout.placed(target)?;
        let changes = plan(&self.memory, &self.layout, target, &mut self.cache)?;
        for change in changes.iter().take(steps) {
            self.apply(change)?;
            watch(self, change)?;
        }
        Ok(())
    }

    /// Carries out one change, in the kernel and in memory.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn apply(&mut self, change: &Change) -> anyhow::Result<()> {
        self.corrupt(change)?;
        self.memory.apply(change);
        Ok(())
    }

    /// Carries out a change in the kernel only: from then on the two differ.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn corrupt(&mut self, change: &Change) -> anyhow::Result<()> {
        self.kernel.apply(change).with_context(|| format!("{change:?}"))
    }

    /// The tables as they are in the kernel.
    pub fn read(&self) -> Memory {
        self.kernel.read()
    }

    /// The clock that flows are remembered by: jiffies.
    ///
    /// # Errors
    /// The kernel does not run the program that tells it.
    pub fn jiffies(&mut self) -> anyhow::Result<u32> {
        let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() };
        Ok(xdp(&mut self.kernel, name::CLOCK)?.test_run(options)?.return_value)
    }

    /// A bucket of the kernel's flow table.
    pub fn flow_bucket(&self, number: u32) -> Bucket {
        self.kernel.flow_bucket(number)
    }

    /// A bucket of the kernel's limited sources.
    pub fn limiter(&self, number: u32) -> Bucket {
        self.kernel.limiter(number)
    }

    /// Flows that the kernel remembers.
    pub fn flows(&self) -> Vec<Flow> {
        self.kernel.flows()
    }

    /// Where things stand.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sends a frame in by [`INGRESS`].
    ///
    /// # Errors
    /// As [`Rig::run_from`].
    pub fn run(&mut self, frame: &[u8]) -> anyhow::Result<Answer> {
        self.run_from(INGRESS, frame)
    }

    /// Sends a frame to the balancer as if it came in by an interface.
    ///
    /// # Errors
    /// The kernel runs no program on it: it is shorter than an Ethernet header, or longer than [`LONGEST`].
    pub fn run_from(&mut self, ingress: u32, frame: &[u8]) -> anyhow::Result<Answer> {
        run_xdp(&mut self.kernel, name::PROGRAM, ingress, 0, frame)
    }

    /// Sends a frame in by [`INGRESS`] so many times, in one go: one that is left as it is, because nothing puts back what
    /// the program changes.
    ///
    /// # Errors
    /// As [`Rig::run_from`].
    pub fn run_repeatedly(&mut self, frame: &[u8], times: u32) -> anyhow::Result<()> {
        let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
        let result = xdp(&mut self.kernel, name::PROGRAM)?.test_run(options);
        result.map(drop).with_context(|| format!("the kernel does not run {times} times"))
    }

    /// Sends a frame in by [`INGRESS`] that is longer than [`LONGEST`]: the kernel lays it into several buffers.
    ///
    /// # Errors
    /// As [`Rig::run_from`]; kernels before 5.18 have no such frames.
    pub fn run_jumbo(&mut self, frame: &[u8]) -> anyhow::Result<Answer> {
        // Without a context: older kernels want it to end where the frame does.
        let mut out = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = xdp(&mut self.kernel, name::PROGRAM)?
            .test_run(options)
            .with_context(|| format!("the kernel does not run on {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        answer(result.return_value, out)
    }

    /// Sends a frame in by [`INGRESS`] with so many bytes free before it: at most [`HEADROOM`], a multiple of 4.
    ///
    /// # Errors
    /// As [`Rig::run_from`]; older kernels let metadata take no more than 32 bytes of it.
    pub fn run_with_headroom(&mut self, headroom: usize, frame: &[u8]) -> anyhow::Result<Answer> {
        run_xdp(&mut self.kernel, name::PROGRAM, INGRESS, HEADROOM - headroom, frame)
    }

    /// Sends a frame to the program that strips outer headers.
    ///
    /// # Errors
    /// As [`Rig::run_from`].
    pub fn decapsulate(&mut self, frame: &[u8]) -> anyhow::Result<Answer> {
        run_xdp(&mut self.kernel, name::DECAP, INGRESS, 0, frame)
    }

    /// Sends a marked packet out by [`EGRESS`], past the program that steers probes.
    ///
    /// # Errors
    /// The kernel runs no program on it.
    pub fn probe(&mut self, mark: u32, frame: &[u8]) -> anyhow::Result<TcAnswer> {
        // struct __sk_buff (linux/bpf.h): mark is its third word, ifindex its eleventh.
        const WORDS: usize = 48;
        const MARK: usize = 2;
        const IFINDEX: usize = 10;
        let mut words = [0u32; WORDS];
        words[MARK] = mark;
        words[IFINDEX] = EGRESS;
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let program: &mut SchedClassifier =
            self.kernel.ebpf().program_mut(name::PROBE).context("no such program")?.try_into()?;
        let mut out = vec![0; frame.len() + 64];
        let mut context_out = vec![0; context.len()];
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ctx_out: Some(&mut context_out),
                ..TestRunOptions::new()
            })
            .context("the kernel does not run lb_probe on this")?;
        out.truncate(result.data_size_out as usize);
        let mark = context_out[4 * MARK..][..4].try_into().map(u32::from_ne_bytes)?;
        Ok(TcAnswer { verdict: result.return_value, frame: out, mark })
    }

    /// What was counted since the last call, by counter number and by reason.
    pub fn gained(&mut self) -> Counters {
        let now = self.kernel.counters(self.kernel.limits().counters);
        let before = std::mem::replace(&mut self.counted, now.clone());
        let gain = |now: &[Counter], before: &[Counter]| {
            now.iter().zip(before).map(|(now, before)| minus(now, before)).collect()
        };
        Counters {
            forwarded: gain(&now.forwarded, &before.forwarded),
            reasons: gain(&now.reasons, &before.reasons),
        }
    }

    /// What one counter, a reason's or not, was given since the last call of [`Self::gained`].
    pub fn gained_at(&self, is_reason: bool, number: u32) -> Counter {
        let table = if is_reason { &self.counted.reasons } else { &self.counted.forwarded };
        let Some(before) = table.get(number as usize) else { return Counter::default() };
        minus(&self.kernel.counter(is_reason, number), before)
    }

    /// What was counted since the last call, by whom it belongs to. Zeros are left out.
    pub fn counted(&mut self) -> BTreeMap<Place, Counter> {
        let gained = self.gained();
        let forwarded = (0u32..)
            .zip(gained.forwarded)
            .filter(|(_, counter)| *counter != Counter::default())
            .map(|(number, counter)| (self.owner(number).unwrap_or(Place::Nobody(number)), counter));
        let reasons = (0u32..).zip(gained.reasons).map(|(number, counter)| {
            let known = Reason::all().find(|reason| reason.counter() == number);
            (Place::Reason(known.map_or("unknown", Reason::name)), counter)
        });
        let mut counted = BTreeMap::new();
        for (place, counter) in forwarded.chain(reasons).filter(|(_, counter)| *counter != Counter::default())
        {
            // Several services may have counted for the same reason.
            let sum: &mut Counter = counted.entry(place).or_default();
            *sum = *sum + counter;
        }
        counted
    }

    /// The service and backend that a counter belongs to, or its reason.
    fn owner(&self, counter: u32) -> Option<Place> {
        self.layout.services().find_map(|(service, place)| {
            let reason = |reason: &Reason| {
                let number = reason.of_service();
                number.is_some_and(|number| place.record.reason_base() + number == counter)
            };
            if let Some(reason) = Reason::all().find(reason) {
                return Some(Place::Reason(reason.name()));
            }
            let number = u16::try_from(counter.checked_sub(place.record.counter_base)?).ok()?;
            let pool = self.layout.pool(&place.pool)?;
            let (backend, _) = pool.numbers.iter().find(|(_, own)| **own == number)?;
            Some(Place::Forwarded { service: service.to_string(), backend: backend.address.to_string() })
        })
    }

    /// Index of a backend in the table of all backends.
    ///
    /// # Errors
    /// The pool has none of that address.
    pub fn backend(&self, pool: &str, address: IpAddr) -> anyhow::Result<u32> {
        let place = self.layout.pool(&Name::new(pool)?).context("no such pool")?;
        let identity = place.numbers.keys().find(|identity| identity.address == address);
        identity.and_then(|identity| place.index_of(identity)).context("no such backend")
    }
}

fn minus(now: &Counter, before: &Counter) -> Counter {
    Counter { packets: now.packets.wrapping_sub(before.packets), bytes: now.bytes.wrapping_sub(before.bytes) }
}

/// A program of the balancer's object.
///
/// # Errors
/// There is none of that name.
pub fn xdp<'k>(kernel: &'k mut Kernel, program: &'static str) -> anyhow::Result<&'k mut Xdp> {
    Ok(kernel.program(program)?)
}

/// Runs a program on a frame, of whose headroom `metadata` takes some bytes away.
fn run_xdp(
    kernel: &mut Kernel,
    program: &'static str,
    ingress: u32,
    metadata: usize,
    frame: &[u8],
) -> anyhow::Result<Answer> {
    let data = [&vec![0; metadata], frame].concat();
    // struct xdp_md (linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let (start, end) = (u32::try_from(metadata)?, u32::try_from(data.len())?);
    let context = [start, end, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
    let mut out = vec![0; data.len() + 64];
    let result = xdp(kernel, program)?
        .test_run(TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })
        .with_context(|| format!("the kernel does not run {program} on {} bytes", frame.len()))?;
    out.truncate(result.data_size_out as usize);
    out.drain(..metadata.min(out.len()));
    answer(result.return_value, out)
}

/// What a program returned, and the frame as it left it.
fn answer(returned: u32, out: Vec<u8>) -> anyhow::Result<Answer> {
    let (verdict, frame) = match returned {
        0 => (Verdict::Aborted, out),
        1 => (Verdict::Drop, Vec::new()),
        2 => (Verdict::Pass, out),
        3 => (Verdict::Transmit, out),
        4 => (Verdict::Redirect, out),
        other => bail!("the program returned {other}"),
    };
    Ok(Answer { verdict, frame })
}

/// Whether the kernel runs a program on a frame of this length.
pub fn can_run(frame: &[u8]) -> bool {
    (ETHERNET_LEN..=LONGEST).contains(&frame.len())
}
