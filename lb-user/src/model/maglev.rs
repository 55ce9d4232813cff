//! Lookup tables: which backend owns which slot of a pool. Nothing here knows health, plans or the kernel.
//!
//! The idea is Maglev's (Eisenbud et al., NSDI 2016): every backend has its own order of preference over
//! the slots, derived from its identity alone, and a number of slots in proportion to its weight. Where
//! Maglev lets backends pick in turns, here a slot goes to the backend that would *reach it first*, if all
//! of them walked their orders at a speed in proportion to their weight and stopped when they have their
//! share. That is a stable matching: there is exactly one, whatever the order of the members, and little of
//! it changes when a backend comes or goes. Figures are in `docs/decisions/0002-maglev.md`.
//!
//! Balancers must agree on tables across versions, so the result is part of the interface: only integer
//! and IEEE 754 basic operations decide, the hashes are written out here, and a test pins a table.

use std::cmp::Reverse;

/// A backend that takes part in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// What all balancers know it by, unique in the pool and unchanged for its life: decides its slots.
    pub identity: &'a str,
    /// What is written into its slots; has no influence on which these are.
    pub number: u16,
    /// Its share relative to the other members'; 0 takes no slot.
    pub weight: u32,
}

/// The table of a pool: for each of `slots` slots the owner's number, or `None` everywhere if no member
/// has weight.
///
/// A member owns `slots * weight / total weight` slots, rounded up or down (largest remainder first). So
/// with more members than slots some have none. `slots` should be prime, as then the members' orders
/// differ the most; other sizes work, with more disruption.
pub fn build(members: &[Member<'_>], slots: u32) -> Vec<Option<u16>> {
    let mut walkers = walkers(members, slots);
    let owners = settle(&mut walkers, slots);
    owners.iter().map(|owner| walkers.get(owner.walker as usize).map(|walker| walker.number)).collect()
}

/// A member on its way through its order of preference: `first`, `first + skip`, ... modulo the slots.
struct Walker {
    number: u16,
    /// Time it takes for a slot, against a walker of weight 1.
    pace: f64,
    skip: u32,
    /// The slot it asks for next.
    next: u32,
    /// How many it asked for already.
    asked: usize,
    /// How many it is short of its share.
    short: u32,
}

/// What a slot remembers of the best walker so far.
#[derive(Clone, Copy)]
struct Owner {
    /// When it got here.
    arrival: f64,
    /// Its place among the walkers, [`Owner::NOBODY`] before anyone came.
    walker: u32,
}

impl Owner {
    const NOBODY: Self = Self { arrival: f64::INFINITY, walker: u32::MAX };
}

/// The members with weight, at their start, in an order that only their identities decide.
fn walkers(members: &[Member<'_>], slots: u32) -> Vec<Walker> {
    let mut members: Vec<(u64, &Member<'_>)> = members
        .iter()
        .filter(|member| member.weight > 0 && slots > 0)
        .map(|member| (hash(member.identity), member))
        .collect();
    members.sort_unstable_by_key(|(hash, member)| (*hash, member.identity, member.weight, member.number));

    let weights: Vec<u32> = members.iter().map(|(_, member)| member.weight).collect();
    let shares = shares(&weights, slots);
    members
        .iter()
        .zip(shares)
        .map(|(&(hash, member), short)| Walker {
            number: member.number,
            pace: 1.0 / f64::from(member.weight),
            skip: skip(scramble(hash ^ SKIP), slots),
            next: (hash % u64::from(slots)) as u32,
            asked: 0,
            short,
        })
        .collect()
}

/// Splits `slots` in proportion to the weights; what is left after rounding down goes, one each, to the
/// largest remainders, of equal ones to the earlier.
fn shares(weights: &[u32], slots: u32) -> Vec<u32> {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    let exact = |weight: u32| u64::from(slots) * u64::from(weight);
    let mut shares: Vec<u32> = weights.iter().map(|&weight| (exact(weight) / total) as u32).collect();

    let left = slots.saturating_sub(shares.iter().sum());
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&place| Reverse(exact(weights[place]) % total));
    for &place in by_remainder.iter().take(left as usize) {
        shares[place] += 1;
    }
    shares
}

/// Lets the walkers ask for slots until all have their share (Gale and Shapley 1962: deferred acceptance).
///
/// A slot keeps whoever arrives first, of two at the same time the earlier walker. Who is turned out walks
/// on. The shares add up to the slots, so nobody runs out of slots to ask for.
fn settle(walkers: &mut [Walker], slots: u32) -> Vec<Owner> {
    let mut owners = vec![Owner::NOBODY; slots as usize];
    let arrivals = arrivals(slots);
    let mut waiting: Vec<u32> = (0..walkers.len() as u32).collect();
    while let Some(me) = waiting.pop() {
        let Walker { pace, skip, mut next, mut asked, mut short, .. } = walkers[me as usize];
        while short > 0 {
            let arrival = arrivals[asked] * pace;
            let owner = &mut owners[next as usize];
            asked += 1;
            next = step(next, skip, slots);
            if (arrival, me) >= (owner.arrival, owner.walker) {
                continue;
            }
            let out = std::mem::replace(owner, Owner { arrival, walker: me });
            short -= 1;
            if let Some(out_walker) = walkers.get_mut(out.walker as usize) {
                if out_walker.short == 0 {
                    waiting.push(out.walker);
                }
                out_walker.short += 1;
            }
        }
        let walker = &mut walkers[me as usize];
        (walker.next, walker.asked, walker.short) = (next, asked, 0);
    }
    owners
}

/// When a walker of weight 1 reaches the first, second, ... slot of its order.
///
/// Not evenly in time, but as the arrivals of a Poisson process fall on average (Rényi 1953: the k-th of n
/// exponential variables): only then does a walker of twice the weight come first twice as often, also
/// where it owns much of the table.
fn arrivals(slots: u32) -> Vec<f64> {
    (0..slots)
        .scan(0.0, |time, asked| {
            *time += 1.0 / f64::from(slots - asked);
            Some(*time)
        })
        .collect()
}

/// A stride that visits every slot before it comes back to the first.
fn skip(hash: u64, slots: u32) -> u32 {
    let last = slots.saturating_sub(1).max(1);
    let mut skip = (hash % u64::from(last)) as u32 + 1;
    // Never true for a prime; ends at `slots - 1` at the latest.
    while gcd(skip, slots) != 1 {
        skip += 1;
    }
    skip
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[inline(always)]
fn step(slot: u32, skip: u32, slots: u32) -> u32 {
    // A comparison, not a modulo; and no overflow for any number of slots.
    let room = slots - slot;
    if skip >= room { skip - room } else { slot + skip }
}

/// Makes the stride's hash another one than the start's.
const SKIP: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a of the bytes (64 bit), scrambled, as FNV leaves the high bits of short texts alike.
fn hash(identity: &str) -> u64 {
    let fnv = identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    scramble(fnv)
}

/// The output function of `SplitMix64` (Steele, Lea and Flood 2014): a bijection whose every output bit
/// depends on every input bit.
fn scramble(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests;
