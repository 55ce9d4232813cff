//! The program in the kernel and the model in memory agree: on random packets, over random balancers that evolve by
//! plans. A failure names the seed that repeats it.
//!
//! `LB_TEST_SEED` repeats a run, `LB_TEST_PACKETS` makes it longer or shorter.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, ensure};
use lb_common::{
    abi::{Backend, Counter, Flow, IndexEntry, Note, Reason, Service, Slot, Ticks},
    addr::Addr,
};
use lb_tests::{
    datapath::{
        Answer, EGRESS, INGRESS, LIMITS, Rig, THIRD, answer_of, can_run,
        target::{blank, hop, ipip, l2, pool, service},
        with_rig, within,
        world::{World, damage},
    },
    packets::{
        Packet, generate, hex,
        random::{Random, from_environment, seed_of_run},
    },
};
use lb_user::model::{
    plan::{Change, Target},
    simulate::process,
    traffic::Counters,
};

const PACKETS: usize = 200_000;
/// Packets for the program that logs.
const LOGGED: usize = 20_000;
/// Packets between two changes of the balancer.
const BATCH: usize = 400;
/// Batches until a new balancer takes the place of the old one, over the same maps.
const LIFE: usize = 25;

/// Reasons that test runs never meet.
const NEVER: [&str; 8] = [
    "no_headroom",
    "no_rare_program",
    "flow_not_remembered_limited",
    // Not generated yet.
    "looped",
    "denied",
    "packet_limit",
    "flow_limit",
    "limiter_full",
];

/// One frame and the interface it came in by.
#[derive(Clone, Debug)]
struct Arrival {
    ingress: u32,
    frame: Vec<u8>,
}

/// What a batch met, to show that it met everything.
#[derive(Default)]
struct Tally {
    packets: usize,
    verdicts: [usize; 5],
    reasons: BTreeMap<&'static str, u64>,
}

#[test]
fn the_kernel_and_the_model_agree() {
    let seed = seed_of_run();
    let packets = from_environment("LB_TEST_PACKETS").unwrap_or(PACKETS);
    with_rig(move |rig| {
        let mut tally = Tally::default();
        evolve(rig, seed, packets, &mut tally).with_context(|| format!("with LB_TEST_SEED={seed}"))?;
        println!("{} packets; {:?}; {:?}", tally.packets, tally.verdicts, tally.reasons);
        // A run of the usual length meets every verdict and every reason but three: test runs always have headroom and both programs, and
        // they are too slow to use up what may be remembered in a tick.
        if packets >= PACKETS {
            ensure!(tally.verdicts[1..].iter().all(|&count| count > 100), "not every verdict came up");
            for reason in Reason::all().map(Reason::name).filter(|name| !NEVER.contains(name)) {
                ensure!(tally.reasons.contains_key(reason), "no packet had the reason {reason}");
            }
        }
        Ok(())
    });
}

/// The program that logs is another one to the verifier and the JIT.
#[test]
fn the_program_that_logs_agrees_as_well() {
    let seed = seed_of_run();
    within(move || {
        let mut rig = Rig::load(true)?;
        evolve(&mut rig, seed, LOGGED, &mut Tally::default())
            .with_context(|| format!("with LB_TEST_SEED={seed}"))
    });
}

fn evolve(rig: &mut Rig, seed: u64, packets: usize, tally: &mut Tally) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    for batch in 0.. {
        if tally.packets >= packets {
            break;
        }
        if batch % LIFE == LIFE - 1 {
            world = World::new(&mut random);
        } else {
            world.evolve(&mut random);
        }
        world.settle(&rig.memory, &mut random);
        rig.install(&world.target).with_context(|| format!("batch {batch}: {:#?}", world.target))?;
        same_tables(rig).with_context(|| format!("batch {batch}: {:#?}", world.target))?;
        let damaged: Vec<Change> = (0..random.below(4) / 2).map(|_| damage(rig, &mut random)).collect();
        for change in &damaged {
            rig.apply(change)?;
        }
        let services: Vec<(SocketAddr, u8)> = world
            .keys()
            .iter()
            .map(|key| (SocketAddr::new(key.vip.into(), key.port), key.protocol))
            .collect();
        let arrivals: Vec<Arrival> = (0..BATCH)
            .map(|_| Arrival {
                ingress: random.pick(&[INGRESS, EGRESS, THIRD]),
                frame: generate::frame(&mut random, &services),
            })
            .collect();
        agree(rig, &arrivals, tally)
            .with_context(|| format!("batch {batch}: {:#?}\nand damage {damaged:?}", world.target))?;
        // Plans repair what they own. The rest of the damage was done to places that nobody owns.
        rig.install(&world.target)?;
    }
    Ok(())
}

/// The tables in the kernel are those in memory.
fn same_tables(rig: &Rig) -> anyhow::Result<()> {
    let kernel = rig.read();
    ensure!(kernel.config == rig.memory.config, "config: {:?}, not {:?}", kernel.config, rig.memory.config);
    ensure!(kernel.index == rig.memory.index, "the indexes differ");
    ensure!(kernel.services == rig.memory.services, "the services differ");
    ensure!(kernel.slots == rig.memory.slots, "the slots differ");
    ensure!(kernel.previous == rig.memory.previous, "the previous owners differ");
    ensure!(kernel.flows == rig.memory.flows, "the remembered flows differ");
    ensure!(kernel.backends == rig.memory.backends, "the backends differ");
    ensure!(kernel.ports == rig.memory.ports, "the ports differ");
    Ok(())
}

/// Sends every frame to both and compares, one by one: the answers, what is remembered, and what is counted.
fn agree(rig: &mut Rig, arrivals: &[Arrival], tally: &mut Tally) -> anyhow::Result<()> {
    rig.gained();
    let mut expected = nothing();
    let frames = arrivals.iter().filter(|arrival| can_run(&arrival.frame));
    for (number, arrival) in frames.clone().enumerate() {
        let counted = one_agrees(rig, arrival, tally).with_context(|| {
            format!("frame {number}, in by {}: {}", arrival.ingress, hex::encode(&arrival.frame))
        })?;
        counted.iter().for_each(|counted| add(&mut expected, counted));
    }
    let gained = rig.gained();
    ensure!(
        gained == expected,
        "the counters of a batch differ\n  model  {:?}\n  kernel {:?}",
        nonzero(&expected),
        nonzero(&gained)
    );
    Ok(())
}

/// Where a packet is counted: whether it is a reason's, number, and by how much.
type Counted = (bool, u32, Counter);

/// Sends one frame to both. The kernel's clock may have ticked meanwhile: then the model must agree at one of the
/// moments that the packet may have seen.
fn one_agrees(rig: &mut Rig, arrival: &Arrival, tally: &mut Tally) -> anyhow::Result<Vec<Counted>> {
    let before = rig.memory.flows.clone();
    let start = rig.jiffies()?;
    let got = rig.run_from(arrival.ingress, &arrival.frame)?;
    let ticks = rig.jiffies()?.wrapping_sub(start);
    let remembered = rig.flows();
    let mut first = None;
    for tick in 0..=ticks {
        rig.memory.flows = before.clone();
        let now = Ticks::new(u64::from(start.wrapping_add(tick)));
        let (answer, counted, reasons) = model(rig, arrival, now);
        let flows: Vec<Flow> = rig.memory.flows.iter().collect();
        if (&answer, &flows) == (&got, &remembered) {
            tally.packets += 1;
            tally.verdicts[answer.verdict as usize] += 1;
            for reason in reasons {
                *tally.reasons.entry(reason.name()).or_default() += 1;
            }
            return Ok(counted);
        }
        first.get_or_insert((answer, flows));
    }
    let Some((answer, flows)) = first else { anyhow::bail!("the clock stands still") };
    let differ = |a: &[Flow], b: &[Flow]| -> Vec<Flow> {
        a.iter().filter(|flow| !b.contains(flow)).copied().collect()
    };
    anyhow::bail!(
        "model  {:?} {}\n  remembers {:x?}\nkernel {:?} {}\n  remembers {:x?}",
        answer.verdict,
        hex::encode(&answer.frame),
        differ(&flows, &remembered),
        got.verdict,
        hex::encode(&got.frame),
        differ(&remembered, &flows)
    )
}

/// What the model says about a frame, where it counts, and for which reasons.
fn model(rig: &Rig, arrival: &Arrival, now: Ticks) -> (Answer, Vec<Counted>, Vec<Reason>) {
    let noted = || Note::ALL.iter().map(|&note| rig.memory.flows.noted(note)).collect::<Vec<_>>();
    let before = noted();
    let outcome = process(&rig.memory, &arrival.frame, arrival.ingress, now);
    let once = |bytes| Counter { packets: 1, bytes };
    let (mut counted, mut reasons): (Vec<Counted>, Vec<Reason>) = Note::ALL
        .iter()
        .zip(noted().iter().zip(&before))
        .filter(|(_, (now, before))| now > before)
        .map(|(&note, (now, before))| {
            ((true, note.counter(), Counter { packets: now - before, bytes: 0 }), Reason::Note(note))
        })
        .unzip();
    reasons.extend(outcome.reason);
    counted.push(match (outcome.counter, outcome.reason) {
        (Some(counter), _) => (false, counter, once(outcome.bytes)),
        (None, Some(reason)) => (true, reason.counter(), once(outcome.bytes)),
        (None, None) => panic!("a packet that nobody counts"),
    });
    (answer_of(&outcome, &arrival.frame), counted, reasons)
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

/// One service for each encap, and nothing random.
fn plain() -> Target {
    Target {
        seed: 5,
        pools: vec![pool(
            "p",
            31,
            vec![
                l2("10.0.0.1", hop(INGRESS, 1)),
                ipip("10.9.0.2", hop(EGRESS, 2)),
                ipip("2001:db8:9::3", hop(THIRD, 3)),
            ],
        )],
        services: vec![
            service("s4", "192.0.2.1", &["tcp/80"], "p"),
            service("s6", "2001:db8::1", &["tcp/80"], "p"),
        ],
        ..blank()
    }
}

/// Flows to both services of [`plain`]: enough to meet every slot.
fn arrivals() -> Vec<Arrival> {
    let to = |vip: &str, client: [u8; 2]| {
        let packet = match vip.parse().expect("an address") {
            std::net::IpAddr::V4(vip) => {
                let source = ([198, 51, client[0], client[1]], 4000).into();
                Packet::tcp(source, (vip, 80).into())
            }
            std::net::IpAddr::V6(vip) => {
                let source = ([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, u16::from_be_bytes(client)], 4000).into();
                Packet::tcp(source, (vip, 80).into())
            }
        };
        Arrival { ingress: INGRESS, frame: packet.ip_length(1400).frame() }
    };
    (0..400u16)
        .flat_map(|number| ["192.0.2.1", "2001:db8::1"].map(|vip| to(vip, number.to_be_bytes())))
        .collect()
}

/// Without this, a comparison that compares nothing would pass.
#[test]
fn one_wrong_bit_in_the_kernel_is_noticed() {
    with_rig(|rig| {
        let arrivals = arrivals();
        rig.install(&plain())?;
        same_tables(rig)?;
        agree(rig, &arrivals, &mut Tally::default()).context("before any fault")?;

        let layout = rig.layout().clone();
        let (_, place) = layout.services().next().context("a service")?;
        let record = place.record;
        let memory = rig.memory.clone();
        let backend = |number: u32| memory.backends[(record.backend_base + number) as usize];
        let broken = |number: u32, fault: &dyn Fn(&mut Backend)| {
            let mut backend = backend(number);
            fault(&mut backend);
            Change::Backend { index: record.backend_base + number, backend: Box::new(backend) }
        };
        let entry = (0u32..).zip(&memory.index).find(|(_, entry)| entry.tail != 0).context("an entry")?;
        let (copy, position) = (entry.0 / LIMITS.index, entry.0 % LIMITS.index);
        let index = |entry| Change::Index { copy, entries: vec![(position, entry)] };
        let slot = memory.slots[record.slot_base as usize];
        let mut seed = memory.config;
        seed.seed ^= 1 << 63;

        let faults = [
            ("a slot's owner", Change::Slots(vec![(record.slot_base, Slot(slot.0 ^ 1))])),
            ("the destination MAC", broken(0, &|b| b.hop[0] ^= 1)),
            ("the source MAC", broken(0, &|b| b.hop[1] ^= 1 << 40)),
            ("the way out", broken(0, &|b| b.hop[0] ^= 1 << 48)),
            ("the MTU", broken(1, &|b| b.hop[1] ^= 1 << 58)),
            ("the sum of the outer header", broken(1, &|b| b.standing ^= 1 << 16)),
            ("how many bits spread", broken(1, &|b| b.standing ^= 8 << 8)),
            ("the encap", broken(1, &|b| b.standing ^= 1)),
            (
                "the outer destination",
                broken(2, &|b| {
                    let mut octets = b.outer_destination.octets();
                    octets[15] ^= 1;
                    b.outer_destination = Addr::v6(octets);
                }),
            ),
            ("a key's port", index(IndexEntry { tail: entry.1.tail ^ 1, ..*entry.1 })),
            ("a key's service", index(IndexEntry { service: entry.1.service ^ 1, ..*entry.1 })),
            (
                "the counter",
                Change::Service {
                    number: place.number,
                    service: Service { counter_base: record.counter_base ^ 256, ..record },
                },
            ),
            ("the seed", Change::Config(seed)),
        ];
        for (about, fault) in faults {
            rig.corrupt(&fault)?;
            let noticed = agree(rig, &arrivals, &mut Tally::default()).is_err();
            ensure!(noticed, "a fault in {about} was not noticed: {fault:?}");
            ensure!(same_tables(rig).is_err(), "a fault in {about} does not show in the tables");
            repair(rig, &fault)?;
            same_tables(rig).with_context(|| format!("after {about}"))?;
        }
        agree(rig, &arrivals, &mut Tally::default()).context("after every fault")
    });
}

/// Writes into the kernel what memory has in the place of a change.
fn repair(rig: &mut Rig, fault: &Change) -> anyhow::Result<()> {
    let memory = &rig.memory;
    let change = match fault {
        Change::Slots(slots) => {
            Change::Slots(slots.iter().map(|&(at, _)| (at, memory.slots[at as usize])).collect())
        }
        Change::Backend { index, .. } => {
            Change::Backend { index: *index, backend: Box::new(memory.backends[*index as usize]) }
        }
        Change::Service { number, .. } => {
            Change::Service { number: *number, service: memory.services[*number as usize] }
        }
        Change::Index { copy, entries } => {
            let of = |position: u32| memory.index[(copy * LIMITS.index + position) as usize];
            Change::Index { copy: *copy, entries: entries.iter().map(|&(at, _)| (at, of(at))).collect() }
        }
        Change::Config(_) => Change::Config(memory.config),
        other => anyhow::bail!("no repair for {other:?}"),
    };
    rig.corrupt(&change)
}
