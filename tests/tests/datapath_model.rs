//! The program in the kernel and the model in memory agree: on random packets, over random balancers that evolve by
//! plans. A failure names the seed that repeats it.
//!
//! `LB_TEST_SEED` repeats a run, `LB_TEST_PACKETS` makes it longer or shorter.

use anyhow::{Context, ensure};
use lb_common::{
    abi::{Backend, IndexEntry, Reason, Service, Slot},
    addr::Addr,
};
use lb_tests::{
    datapath::{
        EGRESS, INGRESS, LIMITS, Rig, THIRD,
        agree::{Arrival, Comparison, FEATURES, Tally, same_tables},
        corpus::{self, Case, Ways},
        fuzz::{self, Course},
        target::{blank, hop, ipip, l2, pool, service},
        with_rig, within,
    },
    packets::{
        Packet, hex,
        random::{from_environment, seed_of_run},
    },
};
use lb_user::model::plan::{Change, Target};

const PACKETS: usize = 120_000;
/// Packets for the program that logs.
const LOGGED: usize = 20_000;
/// Packets between two changes of the balancer.
const BATCH: usize = 400;
/// Batches with the same programs.
const CHAPTER: usize = 10;

/// Reasons that test runs need not meet: they always have headroom and every program, are too slow to use up what may be remembered
/// in a tick, and rarely fill a bucket of the flow table, which `datapath_tracking` does. Nobody is told of their
/// packets, which `datapath_telling` is about.
const NEVER: [&str; 6] = [
    "no_headroom",
    "no_rare_program",
    "flow_not_remembered_limited",
    "flow_not_remembered_full",
    "event_lost",
    "capture_limited",
];

#[test]
fn the_kernel_and_the_model_agree() {
    let seed = seed_of_run();
    let packets = from_environment("LB_TEST_PACKETS").unwrap_or(PACKETS);
    within(move || {
        // First what once differed.
        for (file, case) in corpus::cases()? {
            case.replay().with_context(|| format!("{file}: {}", case.about))?;
        }
        let mut tally = Tally::default();
        let course = Course { batch: BATCH, chapter: CHAPTER, log_packets: false };
        fuzz::run(seed, course, &mut tally, |tally| tally.packets < packets)
            .map_err(|failure| failure.error.context(format!("with LB_TEST_SEED={seed}")))?;
        println!("{tally:?}");
        if packets >= PACKETS {
            ensure!(tally.verdicts[1..].iter().all(|&count| count > 100), "not every verdict came up");
            for reason in Reason::all().map(Reason::name).filter(|name| !NEVER.contains(name)) {
                ensure!(tally.reasons.contains_key(reason), "no packet had the reason {reason}");
            }
            for (_, feature) in FEATURES {
                ensure!(tally.features.contains_key(feature), "no packet would have missed {feature}");
            }
        }
        Ok(())
    });
}

/// One frame for every way through the parser, and all beginnings of it.
#[test]
fn parsers_know_every_way() {
    let ways = ways();
    assert!(ways.iter().count() > 300, "only {} ways", ways.iter().count());
    for (way, frame) in ways.iter() {
        assert_eq!(corpus::way(frame), way, "{}", hex::encode(frame));
        corpus::parsers_agree(frame).unwrap();
    }
}

#[test]
fn the_kernel_and_the_model_agree_on_every_way_through_the_parser() {
    within(|| {
        let ways = ways();
        let arrivals = ways.iter().map(|(_, frame)| Arrival { ingress: EGRESS, frame: frame.to_vec() });
        let about = "every way through the parser".to_owned();
        Case { about, chapter: None, arrivals: arrivals.collect() }.replay()
    });
}

fn ways() -> Ways {
    Ways::parse(include_str!("../corpus/parser.txt")).expect("a corpus")
}

/// The program that logs is another one to the verifier and the JIT.
#[test]
fn the_program_that_logs_agrees_as_well() {
    let seed = seed_of_run();
    within(move || {
        let course = Course { batch: BATCH, chapter: CHAPTER, log_packets: true };
        fuzz::run(seed, course, &mut Tally::default(), |tally| tally.packets < LOGGED)
            .map_err(|failure| failure.error.context(format!("with LB_TEST_SEED={seed}")))
    });
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
        let mut comparison = Comparison::begin(rig)?;
        let mut agree = |rig: &mut Rig| comparison.agree(rig, &arrivals, &mut Tally::default());
        agree(rig).context("before any fault")?;

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
                    let mut octets = b.address.octets();
                    octets[15] ^= 1;
                    b.address = Addr::v6(octets);
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
            let noticed = agree(rig).is_err();
            ensure!(noticed, "a fault in {about} was not noticed: {fault:?}");
            ensure!(same_tables(rig).is_err(), "a fault in {about} does not show in the tables");
            repair(rig, &fault)?;
            same_tables(rig).with_context(|| format!("after {about}"))?;
        }
        agree(rig).context("after every fault")
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
