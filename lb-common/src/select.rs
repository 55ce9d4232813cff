//! Hashes and what is chosen by them: places in the service index, slots of a lookup table.

use crate::{
    abi::{Flow, Selector, ServiceKey},
    addr::Addr,
};

/// Odd, with bits spread evenly: 2^64 divided by the golden ratio (Knuth, TAOCP vol. 3, 6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One multiply-mix round. The product carries every low bit upwards; folding brings the high half
/// back down for the next round.
#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}

/// The two places of the service index that may hold `key`: entries of the live copy.
#[inline(always)]
pub const fn index_positions(key: &ServiceKey, selector: Selector) -> [u32; 2] {
    let [high, low] = key.vip.words();
    // Of an IPv4 address the high word is zero. The second round is for keys that differ in their highest bits only: what a
    // product has in those it has nowhere else.
    let vip = low ^ high.wrapping_mul(MULTIPLIER).rotate_left(32);
    let hash = mix(mix((selector.salt as u64) << 32 | key.tail() as u64, vip), 0);
    // From both ends: neighbouring bits of a product are alike for keys that are alike.
    [hash as u32 & selector.mask, (hash >> 40) as u32 & selector.mask]
}

/// Hash of a flow: what every packet of it has in common, under the fleet's seed.
///
/// Ports are in host byte order. Balancers with the same seed agree whatever their byte order is not:
/// the address words are read in native order, so a fleet must not mix endianness.
#[inline(always)]
pub const fn flow_hash(
    seed: u64,
    source: &Addr,
    destination: &Addr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
) -> u64 {
    let [source_high, source_low] = source.words();
    let [destination_high, destination_low] = destination.words();
    // As packets have them.
    let ports = source_port.to_be() as u64 | (destination_port.to_be() as u64) << 16;
    let hash = mix(mix(seed, source_high ^ ports ^ (protocol as u64) << 32), source_low);
    mix(hash, folded(destination_high, destination_low))
}

/// The words of a virtual address in one. Of an IPv4 address the high one is zero.
#[inline(always)]
const fn folded(high: u64, low: u64) -> u64 {
    low ^ high.rotate_left(32)
}

/// Hash of a source, or a prefix of them, for one purpose. Never 0.
#[inline(always)]
pub const fn source_hash(seed: u64, source: &Addr, purpose: u32) -> u64 {
    let [high, low] = source.words();
    // The mark keeps them apart from flows, which have an address in this place.
    mix(mix(mix(seed, high), low), purpose as u64 | 1 << 63) | 1
}

/// Hash of a flow that shares its slot with all others from the same source to the same VIP: the high half, which
/// chooses the slot, is theirs, the low half its own.
#[inline(always)]
pub const fn affine_hash(seed: u64, source: &Addr, destination: &Addr, flow: u64) -> u64 {
    let shared = flow_hash(seed, source, destination, 0, 0, 0);
    shared & !0xffff_ffff | flow & 0xffff_ffff
}

/// The identity that all flows with the same high half of their hash share, see [`affine_hash`]: with [`Flow::BESIDE`].
#[inline(always)]
pub const fn shared_identity(flow: u64) -> u64 {
    let high = flow & !0xffff_ffff;
    high | mix(high, !0) & 0xffff_ffff | Flow::BESIDE
}

/// Hash of what the fragments of one packet have in common: with [`Flow::BESIDE`].
#[inline(always)]
pub const fn fragment_hash(seed: u64, source: &Addr, destination: &Addr, protocol: u8, id: u32) -> u64 {
    let [source_high, source_low] = source.words();
    let [destination_high, destination_low] = destination.words();
    // The mark keeps them apart from flows of the same addresses.
    let what = id as u64 | (protocol as u64) << 32 | 1 << 63;
    let hash = mix(mix(seed, source_high ^ what), source_low);
    mix(hash, folded(destination_high, destination_low)) | Flow::BESIDE
}

/// Which of `count` slots a hash falls on: multiply-shift (Lemire 2016), no division.
#[inline(always)]
pub const fn slot_of(hash: u64, count: u32) -> u32 {
    (((hash >> 32) * count as u64) >> 32) as u32
}

/// The bits of a hash that spread outer source addresses: those that [`slot_of`] does not look at.
#[inline(always)]
pub const fn spread_of(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-square of `counts` against an even share, divided by its degrees of freedom: about 1 for a
    /// random function.
    fn unevenness(counts: &[u32]) -> f64 {
        let total: u32 = counts.iter().sum();
        let even = f64::from(total) / counts.len() as f64;
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - even).powi(2) / even).sum();
        chi / (counts.len() - 1) as f64
    }

    /// Clients as they come in life: few addresses with many ports, many addresses with few.
    fn flows() -> impl Iterator<Item = (Addr, u16)> {
        let few = (0..4u8).flat_map(|a| (1024..33_792u16).map(move |p| (Addr::v4([10, 0, 0, a]), p)));
        let many = (0..=255u8).flat_map(|a| {
            (0..=255u8).flat_map(move |b| (0..2u16).map(move |p| (Addr::v4([10, 1, a, b]), 40_000 + p)))
        });
        few.chain(many)
    }

    #[test]
    fn flows_spread_evenly_over_slots_and_over_outer_sources() {
        for seed in [0, 1, 0xfeed_beef_1234_5678] {
            let mut slots = [0u32; 251];
            let mut sources = [0u32; 256];
            for (source, port) in flows() {
                let hash = flow_hash(seed, &source, &Addr::v4([192, 0, 2, 1]), port, 443, 6);
                slots[slot_of(hash, 251) as usize] += 1;
                sources[(spread_of(hash) & 255) as usize] += 1;
            }
            assert!(unevenness(&slots) < 1.35, "slots {} with seed {seed}", unevenness(&slots));
            assert!(unevenness(&sources) < 1.35, "sources {} with seed {seed}", unevenness(&sources));
        }
    }

    #[test]
    fn what_is_no_flow_is_marked_and_flows_are_not() {
        for (source, port) in flows().step_by(97) {
            let vip = Addr::v4([192, 0, 2, 1]);
            let flow = Flow::identity(flow_hash(7, &source, &vip, port, 443, 6));
            assert_eq!(flow & Flow::BESIDE, 0);
            assert_ne!(shared_identity(flow) & Flow::BESIDE, 0);
            assert_eq!(shared_identity(flow) >> 32, flow >> 32, "it leads to the same slot");
            assert_ne!(fragment_hash(7, &source, &vip, 17, port.into()) & Flow::BESIDE, 0);
        }
        assert_ne!(Flow::identity(0), 0);
        assert_ne!(Flow::identity(Flow::BESIDE), 0);
    }

    #[test]
    fn each_field_of_the_tuple_counts() {
        let base = (Addr::v4([10, 0, 0, 1]), Addr::v4([192, 0, 2, 1]), 1000, 80, 6);
        let hash = |t: (Addr, Addr, u16, u16, u8)| flow_hash(7, &t.0, &t.1, t.2, t.3, t.4);
        let others = [
            (Addr::v4([10, 0, 0, 2]), base.1, 1000, 80, 6),
            (base.0, Addr::v4([192, 0, 2, 2]), 1000, 80, 6),
            (base.0, base.1, 1001, 80, 6),
            (base.0, base.1, 1000, 81, 6),
            (base.0, base.1, 1000, 80, 17),
        ];
        for other in others {
            assert_ne!(hash(base), hash(other));
        }
        assert_ne!(flow_hash(8, &base.0, &base.1, 1000, 80, 6), hash(base));
    }

    #[test]
    fn a_slot_is_always_within_the_table() {
        for hash in [0, u64::MAX, 1 << 63, u64::from(u32::MAX)] {
            for count in [1, 2, 16_381, 1_048_573] {
                assert!(slot_of(hash, count) < count);
            }
        }
    }
}
