//! Who takes a pool's new flows when too few of its own backends can.

use std::fmt;

use super::service::Name;

/// What a pool does about too few backends that are up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Fewer backends that are up are too few.
    pub min_up: u32,
    /// The pool whose backends take the flows then, if any of them is up.
    pub fallback: Option<Name>,
    /// What is done where there is none.
    pub then: OnAllDown,
}

impl Shortage {
    /// Least number where the file names none: a pool does with one.
    pub const MIN_UP: u32 = 1;
}

impl Default for Shortage {
    fn default() -> Self {
        Self { min_up: Self::MIN_UP, fallback: None, then: OnAllDown::Drop }
    }
}

/// What is done where too few backends are up and no other pool helps. In the file: `on_all_down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnAllDown {
    /// Nothing: those that are up take the flows; without any, packets are dropped.
    #[default]
    Drop,
    /// Those that were up when there last were enough take them.
    KeepLast,
    /// All that can be reached take them, whatever their checks say.
    All,
}

impl OnAllDown {
    /// Each with its word in the file.
    pub const WORDS: [(&str, Self); 3] =
        [("drop", Self::Drop), ("keep-last", Self::KeepLast), ("all", Self::All)];
}

/// Who takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takers {
    /// The pool's backends that are up.
    Up,
    /// The other pool's.
    Fallback,
    /// The pool's that last were up in number.
    Last,
    /// All of the pool's that can be reached.
    All,
}

impl Shortage {
    /// Whether so many that are up are too few.
    pub const fn is_short(&self, up: usize) -> bool {
        up < self.min_up as usize
    }

    /// Who takes new flows, if so many backends of the pool and so many of the other one are up.
    pub const fn takers(&self, up: usize, of_fallback: usize) -> Takers {
        match self.then {
            _ if !self.is_short(up) => Takers::Up,
            _ if of_fallback > 0 => Takers::Fallback,
            OnAllDown::Drop => Takers::Up,
            OnAllDown::KeepLast => Takers::Last,
            OnAllDown::All => Takers::All,
        }
    }
}

/// `drop`, `keep-last`, `all`.
impl fmt::Display for OnAllDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::WORDS.iter().find(|(_, word)| word == self).map_or("", |(word, _)| word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_help_only_while_too_few_are_up() {
        let shortage = |min_up, then| Shortage { min_up, fallback: None, then };
        for (min_up, then, up, of_fallback, expected) in [
            (1, OnAllDown::Drop, 1, 5, Takers::Up),
            (1, OnAllDown::Drop, 0, 5, Takers::Fallback),
            (1, OnAllDown::Drop, 0, 0, Takers::Up),
            (1, OnAllDown::All, 0, 0, Takers::All),
            (1, OnAllDown::KeepLast, 0, 0, Takers::Last),
            (3, OnAllDown::KeepLast, 2, 0, Takers::Last),
            (3, OnAllDown::KeepLast, 3, 0, Takers::Up),
            (3, OnAllDown::All, 2, 1, Takers::Fallback),
            (0, OnAllDown::All, 0, 1, Takers::Up),
        ] {
            assert_eq!(shortage(min_up, then).takers(up, of_fallback), expected, "{min_up} {then} {up}");
        }
    }
}
