//! Kernel and model side by side: the same frames through both, and everything compared.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use lb_common::abi::{ANSWERS, Bucket, Counter, Features, Note, Reason, Ticks, Window};
use lb_user::model::{
    memory::{Flows, Memory},
    simulate::process,
    traffic::Counters,
};

use super::{Answer, LIMITS, Rig, answer_of, can_run, namespace::on_one_cpu};
use crate::packets::hex;

/// One frame and the interface it came in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Index of the interface.
    pub ingress: u32,
    /// The frame, from its Ethernet header on.
    pub frame: Vec<u8>,
}

/// Of so many packets one is tried without each feature.
const TRIED: usize = 16;

/// Features that change no verdict.
const SILENT: Features = Features(Features::DROP_EVENTS.0 | Features::FLOW_EVENTS.0 | Features::CAPTURE.0);

/// Every feature that may change one, with its name.
pub const FEATURES: [(Features, &str); 7] = [
    (Features::ANY_PORT, "any_port"),
    (Features::PREFIX_VIP, "prefix_vip"),
    (Features::AFFINITY, "affinity"),
    (Features::QUIC, "quic"),
    (Features::ACL, "acl"),
    (Features::LIMITS, "limits"),
    (Features::GUE, "gue"),
];

const _: () = {
    let mut all = SILENT;
    let mut at = 0;
    while at < FEATURES.len() {
        all = all.with(FEATURES[at].0);
        at += 1;
    }
    assert!(all.0 == Features::ALL.0);
};

/// What a run met, to show that it met everything.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets.
    pub packets: usize,
    /// Packets by verdict.
    pub verdicts: [usize; 5],
    /// How often each reason and note came up.
    pub reasons: BTreeMap<&'static str, u64>,
    /// How often a packet would have fared otherwise without a feature, of those that were tried.
    pub features: BTreeMap<&'static str, u64>,
}

/// Where a packet is counted: whether it is a reason's, number, and by how much.
type Counted = (bool, u32, Counter);

/// What the model says about a frame.
struct Told {
    answer: Answer,
    counted: Vec<Counted>,
    reasons: Vec<&'static str>,
}

/// Compares, from frame to frame.
pub struct Comparison {
    /// The clock cannot have been earlier than this.
    earliest: u32,
    windows: [Spent; 2],
}

/// What the kernel's programs have done of what they may not do at any rate.
#[derive(Clone, Copy, Default)]
struct Spent {
    window: u32,
    used: u32,
    /// What may have been done besides: the clock ticked from one window to the next while a packet was handled.
    unsure: u32,
}

/// The windows that matter to verdicts, and how much may be done in each.
const WINDOWS: [(Window, u32); 2] = [(Window::Remember, 1000), (Window::Answer, ANSWERS)];

impl Comparison {
    /// Begins, on a rig whose memory watches from now on what packets look up. All on this CPU: the kernel counts by CPU
    /// what may not be done at any rate.
    ///
    /// # Errors
    /// The kernel does not run the program that tells the time.
    pub fn begin(rig: &mut Rig) -> anyhow::Result<Self> {
        on_one_cpu()?;
        rig.memory.flows.watch();
        rig.memory.limiters.watch();
        Ok(Self { earliest: rig.jiffies()?, windows: [Spent::default(); 2] })
    }

    /// Sends every frame to both and compares, one by one: the answers, what is remembered, and what is counted. Frames
    /// that the kernel cannot run are left out.
    ///
    /// # Errors
    /// What differs.
    pub fn agree(&mut self, rig: &mut Rig, arrivals: &[Arrival], tally: &mut Tally) -> anyhow::Result<()> {
        rig.gained();
        let mut expected = nothing();
        let frames = arrivals.iter().filter(|arrival| can_run(&arrival.frame));
        for (number, arrival) in frames.enumerate() {
            let counted = self.one(rig, arrival, &expected, tally).with_context(|| {
                format!("frame {number}, in by {}: {}", arrival.ingress, hex::encode(&arrival.frame))
            })?;
            counted.iter().for_each(|counted| add(&mut expected, counted));
        }
        same_flows(rig)?;
        let gained = rig.gained();
        ensure!(
            gained == expected,
            "the counters of a batch differ\n  model  {:?}\n  kernel {:?}",
            nonzero(&expected),
            nonzero(&gained)
        );
        Ok(())
    }

    /// Sends one frame to both. The kernel's clock may have ticked meanwhile: then the model must agree at one of the
    /// moments that the packet may have seen.
    fn one(
        &mut self,
        rig: &mut Rig,
        arrival: &Arrival,
        counted: &Counters,
        tally: &mut Tally,
    ) -> anyhow::Result<Vec<Counted>> {
        let got = rig.run_from(arrival.ingress, &arrival.frame)?;
        let end = rig.jiffies()?;
        let start = std::mem::replace(&mut self.earliest, end);
        let mut first = None;
        for tick in 0..=end.wrapping_sub(start) {
            let tick = start.wrapping_add(tick);
            let unsure = self.windows.iter().any(|spent| spent.unsure > 0);
            for spends_unsure in [false, true].into_iter().take(1 + usize::from(unsure)) {
                rewind(&rig.memory);
                let granted = self.grant(&rig.memory, tick, spends_unsure);
                let told = told(&rig.memory, arrival, tick);
                if told.answer == got && remembers_alike(rig) && counts_alike(rig, counted, &told) {
                    self.spend(&rig.memory, granted, tick, end);
                    tally.take(&told);
                    if tally.packets.is_multiple_of(TRIED) {
                        let allowances = rig.memory.allowances.clone();
                        try_without(&mut rig.memory, arrival, tick, &told, tally);
                        rig.memory.allowances = allowances;
                    }
                    forget(&rig.memory);
                    return Ok(told.counted);
                }
                first.get_or_insert_with(|| (told.answer, difference(rig), told.counted));
            }
        }
        rewind(&rig.memory);
        let Some((answer, difference, counted)) = first else { bail!("the clock stands still") };
        let gained = nonzero(&rig.gained());
        bail!(
            "model  {:?} {}, counts {counted:?}\nkernel {:?} {}, counts {gained:?} with those before it\n  {difference}",
            answer.verdict,
            hex::encode(&answer.frame),
            got.verdict,
            hex::encode(&got.frame)
        )
    }

    /// Sets what the model may still do at a moment, and returns what of it is used up.
    fn grant(&self, memory: &Memory, tick: u32, spends_unsure: bool) -> [Spent; 2] {
        let mut granted = self.windows;
        for (spent, (window, most)) in granted.iter_mut().zip(WINDOWS) {
            let now = tick >> window.bits();
            if spent.window != now {
                *spent = Spent { window: now, ..Spent::default() };
            } else if spends_unsure {
                spent.used += std::mem::take(&mut spent.unsure);
            }
            memory.allowances[window as usize].set(most.saturating_sub(spent.used));
        }
        granted
    }

    /// Takes note of what a packet did of that.
    fn spend(&mut self, memory: &Memory, granted: [Spent; 2], tick: u32, end: u32) {
        for ((spent, granted), (window, most)) in self.windows.iter_mut().zip(granted).zip(WINDOWS) {
            let left = memory.allowances[window as usize].get();
            let done = most.saturating_sub(granted.used) - left;
            *spent = Spent { used: granted.used + done, ..granted };
            let now = end >> window.bits();
            if done > 0 && now != tick >> window.bits() {
                *spent = Spent { window: now, used: 0, unsure: done };
            }
        }
    }
}

impl Tally {
    /// Takes note of a packet on which both agreed.
    fn take(&mut self, told: &Told) {
        self.packets += 1;
        self.verdicts[told.answer.verdict as usize] += 1;
        for reason in &told.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

/// Takes note of each feature without which a packet would have fared otherwise. Leaves the memory as the packet did.
fn try_without(memory: &mut Memory, arrival: &Arrival, tick: u32, told: &Told, tally: &mut Tally) {
    let features = memory.features;
    let after: Vec<_> = [&memory.flows, &memory.limiters].map(Flows::looked_up).into_iter().collect();
    for (feature, name) in FEATURES.into_iter().filter(|(feature, _)| features.has(*feature)) {
        rewind(memory);
        memory.features = Features(features.0 & !feature.0);
        let without = self::told(memory, arrival, tick);
        if (&without.answer, &without.reasons) != (&told.answer, &told.reasons) {
            *tally.features.entry(name).or_default() += 1;
        }
    }
    rewind(memory);
    memory.features = features;
    for (flows, after) in [&memory.flows, &memory.limiters].into_iter().zip(after) {
        after.into_iter().for_each(|(at, bucket)| flows.put(at, bucket));
    }
}

/// What the model says about a frame, and where it counts.
fn told(memory: &Memory, arrival: &Arrival, tick: u32) -> Told {
    let noted = || Note::ALL.iter().map(|&note| memory.flows.noted(note)).collect::<Vec<_>>();
    let before = noted();
    let outcome = process(memory, &arrival.frame, arrival.ingress, Ticks::new(u64::from(tick)));
    let notes = Note::ALL.iter().zip(noted().into_iter().zip(before));
    let mut reasons: Vec<&'static str> = outcome.reason.iter().map(|reason| reason.name()).collect();
    let mut counted = Vec::new();
    for (note, (now, before)) in notes.filter(|(_, (now, before))| now > before) {
        reasons.push(note.name());
        counted.push((true, note.counter(), Counter { packets: now - before, bytes: 0 }));
    }
    let once = Counter { packets: 1, bytes: outcome.bytes };
    counted.push(match (outcome.counter, outcome.reason) {
        (Some(counter), _) => (false, counter, once),
        (None, Some(reason)) => (true, reason.counter(), once),
        (None, None) => panic!("a packet that nobody counts"),
    });
    Told { answer: answer_of(&outcome, &arrival.frame), counted, reasons }
}

fn rewind(memory: &Memory) {
    memory.flows.rewind();
    memory.limiters.rewind();
}

fn forget(memory: &Memory) {
    memory.flows.forget();
    memory.limiters.forget();
}

/// Whether kernel and memory have the same in every bucket that the last packet looked up.
fn remembers_alike(rig: &Rig) -> bool {
    rig.memory.flows.looked_up().iter().all(|(at, bucket)| rig.flow_bucket(*at) == *bucket)
        && rig.memory.limiters.looked_up().iter().all(|(at, bucket)| rig.limiter(*at) == *bucket)
}

/// Whether the kernel has counted a packet where the model did, after all that was counted before.
fn counts_alike(rig: &Rig, before: &Counters, told: &Told) -> bool {
    told.counted.iter().all(|&(is_reason, number, counter)| {
        let table = if is_reason { &before.reasons } else { &before.forwarded };
        let Some(before) = table.get(number as usize) else { return true };
        rig.gained_at(is_reason, number) == *before + counter
    })
}

/// The buckets that differ.
fn difference(rig: &Rig) -> String {
    let of = |what: &str, looked_up: Vec<(u32, Bucket)>, kernel: &dyn Fn(u32) -> Bucket| {
        let differ = looked_up.into_iter().filter(|(at, bucket)| kernel(*at) != *bucket);
        differ
            .map(|(at, bucket)| format!("{what} {at}: model {bucket:x?}, kernel {:x?}\n", kernel(at)))
            .collect()
    };
    let flows: String = of("flows", rig.memory.flows.looked_up(), &|at| rig.flow_bucket(at));
    let limiters: String = of("limiter", rig.memory.limiters.looked_up(), &|at| rig.limiter(at));
    flows + &limiters
}

/// Everything that packets wrote is the same in the kernel and in memory.
fn same_flows(rig: &Rig) -> anyhow::Result<()> {
    let kernel = rig.read();
    ensure!(kernel.flows == rig.memory.flows, "the remembered flows differ");
    ensure!(kernel.limiters == rig.memory.limiters, "the limited sources differ");
    Ok(())
}

/// The tables in the kernel are those in memory.
///
/// # Errors
/// Which differs.
pub fn same_tables(rig: &Rig) -> anyhow::Result<()> {
    let (kernel, memory) = (rig.read(), &rig.memory);
    ensure!(kernel.features == memory.features, "features: {:?}, not {:?}", kernel.features, memory.features);
    ensure!(kernel.config == memory.config, "config: {:?}, not {:?}", kernel.config, memory.config);
    ensure!(kernel.index == memory.index, "the indexes differ");
    ensure!(kernel.services == memory.services, "the services differ");
    ensure!(kernel.slots == memory.slots, "the slots differ");
    ensure!(kernel.previous == memory.previous, "the previous owners differ");
    ensure!(kernel.flows == memory.flows, "the remembered flows differ");
    ensure!(kernel.backends == memory.backends, "the backends differ");
    ensure!(kernel.ports == memory.ports, "the ports differ");
    ensure!(
        kernel.prefixes == memory.prefixes,
        "the prefixes differ: {:?}, not {:?}",
        kernel.prefixes,
        memory.prefixes
    );
    ensure!(kernel.limiters == memory.limiters, "the limited sources differ");
    Ok(())
}

fn nothing() -> Counters {
    let zeros = |count: u32| vec![Counter::default(); count as usize];
    Counters { forwarded: zeros(LIMITS.counters), reasons: zeros(Reason::COUNT) }
}

fn add(counters: &mut Counters, &(is_reason, number, counter): &Counted) {
    let table = if is_reason { &mut counters.reasons } else { &mut counters.forwarded };
    // A counter outside its table counts nothing.
    if let Some(place) = table.get_mut(number as usize) {
        *place = *place + counter;
    }
}

fn nonzero(counters: &Counters) -> Vec<Counted> {
    let of = |is_reason, table: &[Counter]| -> Vec<Counted> {
        (0..).zip(table).filter(|(_, c)| **c != Counter::default()).map(|(n, c)| (is_reason, n, *c)).collect()
    };
    [of(false, &counters.forwarded), of(true, &counters.reasons)].concat()
}
