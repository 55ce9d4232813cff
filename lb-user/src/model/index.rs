//! The service index: a perfect hash over (VIP, protocol, port), built here and read by the data plane at
//! the places [`index_positions`] names. How a copy gets into the kernel and goes live stands elsewhere.
//!
//! It is a cuckoo table (Pagh and Rodler 2004) with two choices and one entry a place. That works for most
//! salts while under half of the places are taken; we stay below [`LOAD`] and look for a salt that fits.

use std::mem;

use lb_common::{
    abi::{IndexEntry, Selector, ServiceKey},
    select::index_positions,
};

/// One copy of the service index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The number of entries is 2 to this power.
    pub bits: u32,
    /// Mixed into the hash of a key.
    pub salt: u32,
    /// The entries, empty ones included.
    pub entries: Vec<IndexEntry>,
}

/// Why there is no index of some keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A key may mean one service only.
    #[error("cannot index the services: {} port {} (protocol {}) belongs to services {first} and {second}; remove one",
        std::net::IpAddr::from(key.vip), key.port, key.protocol)]
    Duplicate {
        /// The key that was given twice.
        key: ServiceKey,
        /// The lower of the service numbers.
        first: u32,
        /// The other one; the same if the very pair was given twice.
        second: u32,
    },
    /// The map is too small.
    #[error(
        "cannot index {keys} VIP ports: {fit} fit into the {capacity} entries of the index; \
         make the index larger, or use fewer VIPs and ports"
    )]
    TooMany {
        /// How many there are.
        keys: usize,
        /// How many fit.
        fit: usize,
        /// Entries of one copy.
        capacity: u32,
    },
    /// Keys that collide under every salt that was tried. Chance does not do this.
    #[error("cannot index {keys} VIP ports: they collide in {entries} entries under each of {SALTS} salts")]
    Collision {
        /// How many there are.
        keys: usize,
        /// Entries of the largest table tried.
        entries: usize,
    },
}

/// Tables are not smaller than 2 to this power, unless the capacity is.
const LEAST_BITS: u32 = 4;

/// At most this part of the places is taken: numerator and denominator.
const LOAD: (usize, usize) = (2, 5);

/// Salts tried for one size. Most fit; small tables need a second one more often than large ones.
const SALTS: u32 = 64;

/// The most bits that an `abi::Selector` can say.
const MOST_BITS: u32 = 31;

impl Index {
    /// Builds the index of `services`, pairs of a key (of [`ServiceKey::new`]) and a service number, in the
    /// smallest table that takes them, of at most `capacity` entries (at least 1; rounded down to a power of
    /// two). The same pairs give the same index, in whatever order they come.
    ///
    /// # Errors
    /// [`IndexError`]: a key was given twice, or the table would be larger than `capacity`.
    pub fn build(services: &[(ServiceKey, u32)], capacity: u32) -> Result<Self, IndexError> {
        let mut services = services.to_vec();
        services.sort_unstable();
        if let Some([(key, first), (_, second)]) = services.array_windows().find(|[a, b]| a.0 == b.0) {
            return Err(IndexError::Duplicate { key: *key, first: *first, second: *second });
        }

        let keys = services.len();
        let most_bits = capacity.max(1).ilog2().min(MOST_BITS);
        let least_bits = LEAST_BITS.min(most_bits);
        if fit(most_bits) < keys {
            return Err(IndexError::TooMany { keys, fit: fit(most_bits), capacity });
        }
        (least_bits..=most_bits)
            .filter(|&bits| fit(bits) >= keys)
            .flat_map(|bits| (0..SALTS).map(move |salt| (bits, salt)))
            .find_map(|(bits, salt)| Self::place(&services, bits, salt))
            .ok_or(IndexError::Collision { keys, entries: 1 << most_bits })
    }

    /// What leads packets to it, once it is that copy.
    pub const fn selector(&self, copy: u32) -> Selector {
        Selector::new(copy, self.bits, self.salt)
    }

    /// The service that a key means.
    pub fn lookup(&self, key: &ServiceKey) -> Option<u32> {
        index_positions(key, self.selector(0))
            .map(|position| &self.entries[position as usize])
            .into_iter()
            .find(|entry| entry.matches(key))
            .map(|entry| entry.service)
    }

    /// Places every service, or gives up.
    fn place(services: &[(ServiceKey, u32)], bits: u32, salt: u32) -> Option<Self> {
        const EMPTY: u32 = u32::MAX;
        let positions: Vec<[u32; 2]> =
            services.iter().map(|(key, _)| index_positions(key, Selector::new(0, bits, salt))).collect();
        // Who stands where, as a place in `services`.
        let mut tenants = vec![EMPTY; 1 << bits];
        // Longer ways than this are so rare at our load that the next salt is cheaper.
        let patience = 16 * (bits + 1);
        for new in 0..services.len() as u32 {
            let mut homeless = new;
            let [first, second] = positions[new as usize];
            let mut position = if tenants[first as usize] == EMPTY { first } else { second };
            let mut moves = 0;
            loop {
                homeless = mem::replace(&mut tenants[position as usize], homeless);
                if homeless == EMPTY {
                    break;
                }
                if moves == patience {
                    return None;
                }
                moves += 1;
                // Its other place; the same one if its two coincide.
                let [first, second] = positions[homeless as usize];
                position = if position == first { second } else { first };
            }
        }

        let entry = |tenant: u32| match services.get(tenant as usize) {
            Some(&(key, service)) => IndexEntry { vip: key.vip, tail: key.tail(), service, reserved: 0 },
            None => IndexEntry::default(),
        };
        Some(Self { bits, salt, entries: tenants.into_iter().map(entry).collect() })
    }
}

/// How many keys a table of this size takes.
const fn fit(bits: u32) -> usize {
    (1usize << bits) * LOAD.0 / LOAD.1
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Instant,
    };

    use lb_common::addr::Addr;
    use proptest::prelude::*;

    use super::*;

    /// Keys as they come in life: a VIP with many ports, many VIPs with some, in both families.
    fn services(count: u32) -> Vec<(ServiceKey, u32)> {
        let key = |i: u32| {
            let (group, port) = (i / 4 / 50, 8000 + (i / 4 % 50) as u16);
            let [.., c, d] = group.to_be_bytes();
            match i % 4 {
                0 => ServiceKey::new(Addr::v4([192, 0, 2, 1]), 6, (i / 4) as u16),
                1 => ServiceKey::new(Addr::v4([198, 51, d, c]), 6, port),
                2 => ServiceKey::new(Addr::v4([198, 51, d, c]), 17, port),
                _ => ServiceKey::new(
                    Addr::v6([0x20, 1, 0xd, 0xb8, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
                    6,
                    port,
                ),
            }
        };
        (0..count).map(|i| (key(i), i)).collect()
    }

    fn assert_holds(index: &Index, services: &[(ServiceKey, u32)]) {
        assert_eq!(index.entries.len(), 1 << index.bits);
        assert_eq!(index.entries.iter().filter(|entry| entry.tail != 0).count(), services.len());
        for (key, service) in services {
            assert_eq!(index.lookup(key), Some(*service), "{key:?}");
        }
    }

    #[test]
    fn the_smallest_table_that_takes_the_keys_is_chosen() {
        for (keys, bits) in [(0, 4), (1, 4), (6, 4), (7, 5), (12, 5), (13, 6), (400, 10), (20_000, 16)] {
            let services = services(keys);
            let index = Index::build(&services, 1 << 16).unwrap();
            assert_eq!(index.bits, bits, "{keys} keys");
            assert_holds(&index, &services);
        }
    }

    /// A /18 of VIPs with one port each: keys that differ in little else than the address' last bytes.
    #[test]
    fn consecutive_vips_fit_like_any_others() {
        for vips in [100u32, 400, 1600, 6500, 16_384] {
            let vip = |i: u32| Addr::v4((0xc633_0000 | i).to_be_bytes());
            let services: Vec<_> = (0..vips).map(|i| (ServiceKey::new(vip(i), 6, 443), i)).collect();
            let capacity = (vips * LOAD.1 as u32 / LOAD.0 as u32).next_power_of_two();
            assert_holds(&Index::build(&services, capacity).unwrap(), &services);
        }
    }

    #[test]
    fn capacity_is_a_limit_that_says_how_many_fit() {
        for (keys, capacity, fit) in
            [(1, 0, 0), (1, 1, 0), (2, 4, 1), (7, 16, 6), (7, 31, 6), (500, 1024, 409)]
        {
            let error = Index::build(&services(keys), capacity).unwrap_err();
            assert_eq!(error, IndexError::TooMany { keys: keys as usize, fit, capacity });
        }
        for (keys, capacity) in [(0, 0), (0, 1), (1, 4), (6, 16), (409, 1024), (409, 2047)] {
            let services = services(keys);
            let index = Index::build(&services, capacity).unwrap();
            assert!(index.entries.len() <= capacity.max(1) as usize);
            assert_holds(&index, &services);
        }
    }

    #[test]
    fn a_key_belongs_to_one_service() {
        let key = ServiceKey::new(Addr::v4([192, 0, 2, 1]), 6, 80);
        let mut services = services(50);
        services.extend([(key, 9), (key, 7)]);
        services.retain(|&(k, service)| k != key || service < 10);
        let error = Index::build(&services, 1 << 10).unwrap_err();
        assert_eq!(error, IndexError::Duplicate { key, first: 7, second: 9 });
        assert_eq!(
            error.to_string(),
            "cannot index the services: 192.0.2.1 port 80 (protocol 6) belongs to services 7 and 9; remove one"
        );
    }

    /// Keys picked so that they crowd a few places under the first salt at the smallest size.
    #[test]
    fn keys_that_collide_get_another_salt() {
        let crowded = |key: &ServiceKey| {
            index_positions(key, Selector::new(0, 5, 0)).iter().all(|&position| position < 3)
        };
        let chosen: Vec<_> = services(60_000).into_iter().filter(|(key, _)| crowded(key)).take(12).collect();
        assert_eq!(chosen.len(), 12);
        let index = Index::build(&chosen, 1 << 16).unwrap();
        assert_eq!(index.bits, 5);
        assert_ne!(index.salt, 0);
        assert_holds(&index, &chosen);
    }

    proptest! {
        #[test]
        fn every_key_is_found_and_no_other(
            pairs in proptest::collection::btree_map((0u32..40, 0u8..2, 0u16..10), 0u32..1000, 0..200),
            seed: u64,
        ) {
            let key = |&(vip, protocol, port): &(u32, u8, u16)| {
                let [.., c, d] = vip.to_be_bytes();
                ServiceKey::new(Addr::v4([10, 0, c, d]), [6, 17][usize::from(protocol)], port)
            };
            let wanted: BTreeMap<ServiceKey, u32> = pairs.iter().map(|(k, service)| (key(k), *service)).collect();
            let mut services: Vec<_> = wanted.iter().map(|(k, service)| (*k, *service)).collect();
            let index = Index::build(&services, 1 << 12).unwrap();
            prop_assert!(index.bits <= 12);

            for vip in 0..41 {
                for protocol in 0..2 {
                    for port in 0..11 {
                        let key = key(&(vip, protocol, port));
                        prop_assert_eq!(index.lookup(&key), wanted.get(&key).copied());
                    }
                }
            }

            // The order does not matter.
            services.sort_by_key(|(key, _)| index_positions(key, Selector::new(0, 31, seed as u32)));
            prop_assert_eq!(Index::build(&services, 1 << 12).unwrap(), index);
        }
    }

    #[test]
    fn the_test_keys_differ() {
        let keys: BTreeSet<ServiceKey> = services(60_000).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 60_000);
    }

    /// `cargo test --release -p lb-user --lib index -- --ignored --nocapture`
    #[test]
    #[ignore = "prints timings; meaningful in release only"]
    fn timings() {
        for count in [500, 6_553, 20_000, 26_214, 60_000] {
            let services = services(count);
            let start = Instant::now();
            let index = Index::build(&services, 1 << 20).unwrap();
            println!("{count} keys: {:.2?}, {} bits, salt {}", start.elapsed(), index.bits, index.salt);
        }
    }
}
