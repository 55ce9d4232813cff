//! What `lb trace` tells is what the program in the kernel then does: over random balancers and random packets. And
//! asking changes nothing.
//!
//! `LB_TEST_SEED` repeats a run, `LB_TEST_PACKETS` makes it longer or shorter.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use lb_common::abi::{Flow, Note, Reason, Ticks};
use lb_tests::{
    datapath::{
        LIMITS, Rig, Verdict, agree::Arrival, answer_of, can_run, fuzz::Chapter, namespace::on_one_cpu,
        within,
    },
    packets::{
        hex,
        random::{Random, from_environment, seed_of_run},
    },
};
use lb_user::model::{
    memory::Memory,
    trace::{Trace, trace},
};

const PACKETS: usize = 20_000;
/// Packets between two changes of the balancer.
const BATCH: usize = 200;
/// Batches with the same programs.
const CHAPTER: usize = 10;
/// A packet takes fewer ticks than this.
const TICKS: u32 = 8;

#[test]
fn a_trace_tells_what_the_kernel_does() {
    let seed = seed_of_run();
    let packets = from_environment("LB_TEST_PACKETS").unwrap_or(PACKETS);
    within(move || {
        on_one_cpu()?;
        let mut tally = BTreeMap::new();
        let mut chapters = Random::new(seed);
        let mut sent = 0;
        while sent < packets {
            let mut chapter = Chapter::begin(chapters.next(), false)?;
            for _ in 0..CHAPTER {
                chapter.turn()?;
                let mut arrivals = chapter.arrivals(BATCH);
                arrivals.retain(|arrival| can_run(&arrival.frame));
                sent += arrivals.len();
                batch(chapter.rig(), &arrivals, &mut tally)
                    .with_context(|| chapter.describe())
                    .with_context(|| format!("with LB_TEST_SEED={seed}"))?;
            }
        }
        println!("{sent} packets: {tally:?}");
        let interrupted = tally.get("interrupted").copied().unwrap_or(0);
        ensure!(interrupted * 10 < sent, "too many packets were interrupted: {interrupted} of {sent}");
        if packets >= PACKETS {
            // Most of the time all six.
            let whys = ["Owner", "Remembered", "Previous", "Others", "Named", "Fragment"];
            let met = whys.into_iter().filter(|&why| tally.contains_key(why)).count();
            ensure!(met > 4, "too few ways to a backend were met: {tally:?}");
        }
        Ok(())
    });
}

fn batch(rig: &mut Rig, arrivals: &[Arrival], tally: &mut BTreeMap<String, usize>) -> anyhow::Result<()> {
    let before = rig.read();
    for arrival in arrivals {
        traces(rig, arrival)?;
    }
    ensure!(rig.read() == before, "asking changed something");
    for arrival in arrivals {
        let what = || format!("in by {}: {}", arrival.ingress, hex::encode(&arrival.frame));
        let trace = one(rig, arrival).with_context(what)?;
        let why = match trace {
            None => "interrupted".to_owned(),
            Some(trace) => {
                trace.choice.map_or_else(|| "None".to_owned(), |choice| format!("{:?}", choice.why))
            }
        };
        *tally.entry(why).or_default() += 1;
    }
    // Only the kernel met these packets.
    let Memory { flows, limiters, .. } = rig.read();
    (rig.memory.flows, rig.memory.limiters) = (flows, limiters);
    Ok(())
}

/// The trace now, and at the moments after, and the first of them.
fn traces(rig: &mut Rig, arrival: &Arrival) -> anyhow::Result<(u32, Vec<Trace>)> {
    let start = rig.jiffies()?;
    let at = |tick| Ticks::new(u64::from(start.wrapping_add(tick)));
    let kernel = rig.kernel();
    let traces = (0..TICKS).map(|tick| trace(kernel, &arrival.frame, arrival.ingress, at(tick)));
    Ok((start, traces.collect()))
}

/// Asks about a packet, and sends it.
fn one(rig: &mut Rig, arrival: &Arrival) -> anyhow::Result<Option<Trace>> {
    let (start, traces) = traces(rig, arrival)?;
    let counters = |rig: &mut Rig| -> Vec<u64> {
        let count = |trace: &Trace| match (trace.outcome.counter, trace.outcome.reason) {
            (Some(counter), _) if counter < LIMITS.counters => rig.kernel().counter(false, counter).packets,
            (Some(_), _) | (None, None) => 0,
            (None, Some(reason)) => rig.kernel().counter(true, reason.counter()).packets,
        };
        traces.iter().map(count).collect()
    };
    let before = counters(rig);
    let got = rig.run_from(arrival.ingress, &arrival.frame)?;
    let ticks = rig.jiffies()?.wrapping_sub(start);
    if ticks >= TICKS {
        // This machine had something else to do: what the clock said nobody knows.
        return Ok(None);
    }
    let after = counters(rig);
    for (tick, trace) in traces.iter().enumerate().take(ticks as usize + 1) {
        let answer = answer_of(&trace.outcome, &arrival.frame);
        // How often a CPU answers is not the tables' business.
        let unanswered =
            trace.outcome.reason == Some(Reason::Note(Note::TooBigAnswered)) && got.verdict == Verdict::Drop;
        let counted = trace.outcome.counter.is_some_and(|counter| counter >= LIMITS.counters)
            || after[tick] == before[tick] + 1;
        if (answer == got && counted || unanswered) && is_remembered(rig, trace) {
            consistent(trace)?;
            return Ok(Some(trace.clone()));
        }
    }
    anyhow::bail!("the kernel did {got:?}, {before:?} {after:?}\nthe trace says {:#?}", traces[0])
}

/// What a packet would have left behind is there.
fn is_remembered(rig: &mut Rig, trace: &Trace) -> bool {
    let limited = trace.notes.contains(&Note::FlowsLimited);
    let mask = LIMITS.flow_buckets - 1;
    let there = |flow: &Flow| rig.kernel().flow_bucket(flow.id as u32 & mask).0.contains(flow);
    limited || trace.remembered.iter().all(there)
}

/// The steps lead to the decision.
fn consistent(trace: &Trace) -> anyhow::Result<()> {
    let Trace { steps, choice, way, outcome, .. } = trace;
    let reason = outcome.reason.map(Reason::name);
    if let (None, Some(counter)) = (reason, outcome.counter) {
        let (found, choice) = (steps.service.context("no service")?, choice.context("no backend")?);
        let number = choice.index.wrapping_sub(found.record.backend_base);
        ensure!(
            found.record.counter_base.wrapping_add(number) == counter,
            "it is counted for another backend than was chosen: {trace:#?}"
        );
        ensure!(way.is_some(), "no way to the backend: {trace:#?}");
    }
    let refused = steps.admission.is_some_and(|admission| !admission.admitted);
    ensure!(refused == (reason == Some("denied")), "{trace:#?}");
    let limit =
        |connections| steps.limits.iter().any(|limit| limit.connections == connections && !limit.passes);
    ensure!(limit(false) == (reason == Some("packet_limit")), "{trace:#?}");
    ensure!(limit(true) == (reason == Some("flow_limit")), "{trace:#?}");
    if reason == Some("no_backend") || reason == Some("fragment_unknown") {
        ensure!(choice.is_none(), "{trace:#?}");
    }
    Ok(())
}
