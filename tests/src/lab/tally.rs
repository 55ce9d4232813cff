//! Who answered how often, how fast, and what went wrong.

use std::{collections::BTreeMap, fmt, io, time::Duration};

/// The outcome of many requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers by the name of the backend.
    pub answers: BTreeMap<String, u64>,
    /// What went wrong, by its words.
    pub errors: BTreeMap<String, u64>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Tally {
    /// Requests answered.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Requests not answered, or wrongly.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Answers of one backend.
    pub fn of(&self, backend: &str) -> u64 {
        self.answers.get(backend).copied().unwrap_or(0)
    }

    /// Counts one more.
    pub fn count(&mut self, answer: &io::Result<String>, took: Duration) {
        match answer {
            Ok(name) => {
                *self.answers.entry(name.clone()).or_default() += 1;
                self.slowest = self.slowest.max(took);
            }
            Err(error) => *self.errors.entry(error.to_string()).or_default() += 1,
        }
    }

    /// Both together.
    pub fn merge(mut self, other: Self) -> Self {
        for (name, count) in other.answers {
            *self.answers.entry(name).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = self.answers.iter().map(|(name, count)| format!("{name} {count}"));
        let errors = self.errors.iter().map(|(error, count)| format!("{count} failed ({error})"));
        f.write_str(&answers.chain(errors).collect::<Vec<_>>().join(", "))
    }
}
