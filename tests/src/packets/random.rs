//! Random numbers that come again when the seed does.

use std::{
    env,
    fmt::Debug,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

/// A number from the environment.
///
/// # Panics
/// If the variable is set to something else.
pub fn from_environment<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// The seed of this run: `LB_TEST_SEED`, else always the same, so that a change is judged by what it changes; new ones
/// are for `cargo xtask fuzz-datapath`. Tells what it is.
pub fn seed_of_run() -> u64 {
    let seed = from_environment("LB_TEST_SEED").unwrap_or(1);
    println!("LB_TEST_SEED={seed}");
    seed
}

/// A seed that nobody chose.
pub fn any_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 >> 10)
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed, the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Sixteen bits.
    pub const fn half(&mut self) -> u16 {
        self.next() as u16
    }

    /// A byte.
    pub const fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Clone + Debug>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// As many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// An array of bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = super::Random::new(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
