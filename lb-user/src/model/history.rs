//! Configurations that were in force: the last few, the youngest last.

use std::collections::VecDeque;

use super::source::Source;

/// So many are kept.
pub const KEPT: usize = 20;

/// A configuration that came into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Counts on over restarts.
    pub number: u64,
    /// When: RFC 3339, UTC.
    pub time: String,
    /// How, one sentence.
    pub said: String,
    /// The file's text. Files that it names are not kept.
    pub text: String,
}

impl Past {
    /// As it is kept in a file: a line of comment, then the text.
    pub fn to_file(&self) -> String {
        let said: String = self.said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("# {} {said}\n{}", self.time, self.text)
    }

    /// From a file; `None` if none wrote it.
    pub fn of_file(number: u64, file: &str) -> Option<Self> {
        let (comment, text) = file.split_once('\n')?;
        let (time, said) = comment.strip_prefix("# ")?.split_once(' ')?;
        Some(Self { number, time: time.to_owned(), said: said.to_owned(), text: text.to_owned() })
    }
}

/// The last configurations.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Past>);

impl History {
    /// Those that an earlier daemon kept.
    pub fn of(mut past: Vec<Past>) -> Self {
        past.sort_by_key(|past| past.number);
        let surplus = past.len().saturating_sub(KEPT);
        Self(past.into_iter().skip(surplus).collect())
    }

    /// A configuration came into force. Gives it as it is to be kept; `None` if it is the one that was in force anyway.
    pub fn add(&mut self, time: String, said: String, source: &Source) -> Option<&Past> {
        if self.0.back().is_some_and(|last| last.text == source.text) {
            return None;
        }
        let number = self.0.back().map_or(1, |last| last.number + 1);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Past { number, time, said, text: source.text.clone() });
        self.0.back()
    }

    /// All, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Past> {
        self.0.iter()
    }

    /// The one with this number; without one that before the last.
    pub fn get(&self, number: Option<u64>) -> Option<&Past> {
        match number {
            Some(number) => self.0.iter().find(|past| past.number == number),
            None => self.0.iter().rev().nth(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_force_is_kept_for_a_while() {
        let mut history = History::default();
        assert_eq!(history.get(None), None);
        for n in 1..=2 * KEPT {
            let source = Source::of(format!("# {n}\n"));
            let kept = history.add("t".to_owned(), format!("said {n}\nand\tmore"), &source).cloned().unwrap();
            assert_eq!(kept.number, n as u64);
            let read = Past::of_file(kept.number, &kept.to_file()).unwrap();
            assert_eq!((read.text, read.said), (kept.text, format!("said {n} and more")));
            assert!(history.add("t".to_owned(), "again".to_owned(), &source).is_none());
        }
        assert_eq!(history.iter().count(), KEPT);
        assert_eq!(history.get(None).map(|past| past.number), Some(2 * KEPT as u64 - 1));
        assert_eq!(history.get(Some(3)), None, "long ago");
        let restarted = History::of(history.iter().cloned().rev().collect());
        assert!(restarted.iter().eq(history.iter()));
        assert_eq!(Past::of_file(1, "[lb]\n"), None);
    }
}
