//! What a table owes its users: shares by weight, little disruption, agreement. Sizes are those of the
//! decision record, `docs/decisions/0002-maglev.md`.

use std::{collections::HashMap, time::Instant};

use proptest::prelude::*;

use super::*;

/// Identities as operators write them: their hashes must not fall into a pattern.
const NAMES: [fn(usize) -> String; 4] = [
    |i| format!("w{i}"),
    |i| format!("10.1.{}.{}", i / 256, i % 256),
    |i| format!("web-{i:04}.fra.example.net"),
    |i| format!("2001:db8::{i:x}"),
];

type Weight = fn(usize) -> u32;

/// Weights as operators set them.
const WEIGHTS: [(&str, Weight); 4] = [
    ("equal", |_| 100),
    ("1:10:100", |i| [1, 10, 100][i % 3]),
    ("1:100", |i| [1, 100][i % 2]),
    ("1 to 100", |i| scramble(i as u64) as u32 % 100 + 1),
];

fn names(name: fn(usize) -> String, count: usize) -> Vec<String> {
    (0..count).map(name).collect()
}

fn members(names: &[String], weight: Weight) -> Vec<Member<'_>> {
    (0..).zip(names).map(|(i, identity)| Member { identity, number: i, weight: weight(i.into()) }).collect()
}

fn owned(table: &[Option<u16>], number: u16) -> usize {
    table.iter().filter(|slot| **slot == Some(number)).count()
}

/// Each count within one slot of the weight's exact share, which is better than 1% from 100 slots up.
fn assert_fair(members: &[Member<'_>], table: &[Option<u16>]) {
    let mut counts = HashMap::<u16, u32>::new();
    for slot in table {
        *counts.entry(slot.expect("every slot is owned")).or_default() += 1;
    }
    let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    for member in members {
        let exact = table.len() as f64 * f64::from(member.weight) / total;
        let count = f64::from(counts.remove(&member.number).unwrap_or(0));
        assert!((count - exact).abs() < 1.0, "{member:?} owns {count} slots instead of {exact}");
    }
    assert!(counts.is_empty(), "slots of strangers: {counts:?}");
}

/// Slots that changed hands although neither their old nor their new owner is `changed`, in percent of
/// the slots that are not `changed`'s before.
fn disruption(before: &[Option<u16>], after: &[Option<u16>], changed: u16) -> f64 {
    let others = before.len() - owned(before, changed);
    let moved = before
        .iter()
        .zip(after)
        .filter(|(b, a)| b != a && **b != Some(changed) && **a != Some(changed))
        .count();
    100.0 * moved as f64 / others as f64
}

#[derive(Default)]
struct Percent {
    max: f64,
    sum: f64,
    count: f64,
}

impl Percent {
    fn add(&mut self, value: f64) {
        self.max = self.max.max(value);
        self.sum += value;
        self.count += 1.0;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "max {:.2}%, mean {:.2}%", self.max, self.mean())
    }
}

#[test]
fn shares_follow_the_weights() {
    for (text, weight) in WEIGHTS {
        for name in NAMES {
            for (count, slots) in [(1, 11), (3, 16_381), (100, 16_381), (100, 101), (500, 65_537)] {
                let names = names(name, count);
                let members = members(&names, weight);
                println!("{count} backends ({text}) on {slots} slots");
                assert_fair(&members, &build(&members, slots));
            }
        }
    }
}

/// A backend that goes leaves its slots behind and the others' nearly alone; read the other way round, a
/// backend that comes takes its slots and little else moves. Halving a weight lies in between.
#[test]
fn one_change_moves_few_slots_of_the_others() {
    for (text, weight) in WEIGHTS {
        let (mut removed, mut added, mut halved) = <(Percent, Percent, Percent)>::default();
        for name in NAMES {
            let names = names(name, 100);
            let all = members(&names, weight);
            let full = build(&all, 16_381);
            for changed in 0..100u16 {
                let mut members = all.clone();
                members[usize::from(changed)].weight = 0;
                let without = build(&members, 16_381);
                assert_eq!(owned(&without, changed), 0);
                removed.add(disruption(&full, &without, changed));
                added.add(disruption(&without, &full, changed));
                if changed % 7 == 0 {
                    members[usize::from(changed)].weight = all[usize::from(changed)].weight.div_ceil(2);
                    halved.add(disruption(&full, &build(&members, 16_381), changed));
                }
            }
        }
        println!("{text:8} | removed {removed} | added {added} | halved {halved}");
        assert!(removed.max <= 2.0 && added.max <= 2.0 && halved.max <= 1.5, "{text}");
    }
}

/// Few backends own much of the table each; there the walkers' timing matters most. Two orders of
/// preference may resemble each other (strides 1:2, say), which shows in the worst case.
#[test]
fn small_pools_are_as_calm() {
    for count in [2, 3, 5, 10] {
        for (text, weight) in WEIGHTS {
            let mut removed = Percent::default();
            for name in NAMES {
                let names = names(name, count);
                let all = members(&names, weight);
                let full = build(&all, 16_381);
                for changed in 0..count as u16 {
                    let mut members = all.clone();
                    members[usize::from(changed)].weight = 0;
                    removed.add(disruption(&full, &build(&members, 16_381), changed));
                }
            }
            println!("{count} backends ({text}): removed {removed}");
            assert!(removed.max <= 5.0 && removed.mean() <= 0.6, "{count} backends ({text}): {removed}");
        }
    }
}

#[test]
fn odd_inputs_give_sensible_tables() {
    let names = names(NAMES[0], 40);
    let many = members(&names, |_| 1);
    assert_eq!(build(&[], 11), [None; 11]);
    assert_eq!(build(&many, 0), []);
    assert_eq!(build(&[Member { weight: 0, ..many[0] }], 11), [None; 11]);
    assert_eq!(build(&[Member { weight: u32::MAX, ..many[7] }], 11), [Some(7); 11]);
    // More members than slots: one slot each for some.
    let table = build(&many, 11);
    assert!((0..40).all(|number| owned(&table, number) <= 1));
    // Sizes that are not prime, down to one slot.
    for slots in [1, 2, 4, 12, 1000, 16_384] {
        assert_fair(&many, &build(&many, slots));
    }
    // A heavyweight among featherweights.
    let heavy: Vec<Member<'_>> = many
        .iter()
        .map(|member| Member { weight: if member.number == 0 { u32::MAX } else { 1 }, ..*member })
        .collect();
    assert_eq!(build(&heavy, 11), [Some(0); 11]);
    // An identity used twice is the caller's mistake, but gets its share.
    assert_fair(
        &[many[1], Member { number: 99, ..many[1] }],
        &build(&[many[1], Member { number: 99, ..many[1] }], 101),
    );
}

/// Another table here means that balancers of two versions disagree about every flow: if that is
/// meant, it is a breaking change and belongs into the change log.
#[test]
fn the_table_is_the_same_in_every_version() {
    let names = names(NAMES[0], 100);
    let small = build(&members(&names[..3], |i| [1, 2, 3][i]), 23);
    let small: Vec<u16> = small.into_iter().map(Option::unwrap).collect();
    assert_eq!(small, [1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 0, 2, 2]);

    // Equal weights meet at the same time often: that pins who wins then.
    for (weight, pinned) in [(WEIGHTS[0].1, 0x461d60dc1c34bc0a), (WEIGHTS[3].1, 0xf230_629d_103e_0b5e)] {
        let table = build(&members(&names, weight), 16_381);
        let sum = table.iter().fold(0u64, |sum, slot| scramble(sum ^ u64::from(slot.unwrap())));
        assert_eq!(sum, pinned, "{sum:#x}");
    }
}

proptest! {
    #[test]
    fn balancers_agree(
        weights in proptest::collection::vec(0u32..1000, 1..60),
        slots in proptest::sample::select(vec![11u32, 13, 251, 1009, 4093, 100]),
        seed: u64,
    ) {
        let names = names(NAMES[1], weights.len());
        let here: Vec<Member<'_>> = (0..)
            .zip(&names)
            .zip(&weights)
            .map(|((number, identity), &weight)| Member { identity, number, weight })
            .collect();
        // Another balancer read the backends in another order and gave them other numbers.
        let mut there: Vec<Member<'_>> =
            here.iter().map(|member| Member { number: 1000 - member.number, ..*member }).collect();
        there.sort_by_key(|member| scramble(seed ^ u64::from(member.number)));

        let table = build(&here, slots);
        let renumbered: Vec<Option<u16>> = table.iter().map(|slot| slot.map(|number| 1000 - number)).collect();
        prop_assert_eq!(build(&there, slots), renumbered);
        prop_assert_eq!(table.len(), slots as usize);
        if weights.iter().any(|&weight| weight > 0) {
            assert_fair(&here, &table);
        } else {
            prop_assert!(table.iter().all(Option::is_none));
        }
    }

    #[test]
    fn strides_visit_every_slot(slots in 1u32..3000, hash: u64) {
        let skip = skip(hash, slots);
        let mut slot = 0;
        let mut seen = vec![false; slots as usize];
        for _ in 0..slots {
            prop_assert!(!std::mem::replace(&mut seen[slot as usize], true));
            slot = step(slot, skip, slots);
        }
        prop_assert_eq!(slot, 0);
    }
}

/// `cargo test --release -p lb-user --lib maglev -- --ignored --nocapture`
#[test]
#[ignore = "prints timings; meaningful in release only"]
fn timings() {
    for (count, slots) in [(100, 16_381), (1_000, 65_537), (1_000, 1_048_573), (30_000, 65_537)] {
        for (text, weight) in WEIGHTS {
            let names = names(NAMES[0], count);
            let members = members(&names, weight);
            let mut runs: Vec<_> = (0..21)
                .map(|_| {
                    let start = Instant::now();
                    std::hint::black_box(build(&members, slots));
                    start.elapsed()
                })
                .collect();
            runs.sort_unstable();
            println!("{count} x {slots} ({text}): minimum {:.2?}, median {:.2?}", runs[0], runs[10]);
        }
    }
}
