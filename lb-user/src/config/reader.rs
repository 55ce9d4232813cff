//! Typed access to the tables of a file that notes every error with its place and goes on reading.
//! It knows tables, keys and TOML types, and nothing of balancers.

use std::{cell::RefCell, ops::RangeInclusive};

use toml_edit::{Item, TableLike, Value};

use super::{
    error::{ConfigError, ConfigErrors, Problem},
    keys::{TableKeys, nearest},
};

/// A value and the byte of the file where it starts.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// The errors found so far.
pub(super) struct Report<'a> {
    text: &'a str,
    /// Where each line starts.
    lines: Vec<usize>,
    errors: RefCell<Vec<(usize, ConfigError)>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1).filter(|&at| at < text.len());
        Self { text, lines: std::iter::once(0).chain(newlines).collect(), errors: RefCell::default() }
    }

    /// Notes an error that starts at a byte of the file.
    pub(super) fn add(&self, at: usize, path: &str, problem: Problem) {
        self.add_with(at, path, problem, None);
    }

    /// Notes an error that involves another place, too.
    pub(super) fn add_with(&self, at: usize, path: &str, problem: Problem, other: Option<usize>) {
        let (line, column) = self.place(at);
        let other_line = other.map(|at| self.place(at).0);
        self.errors
            .borrow_mut()
            .push((at, ConfigError { line, column, path: path.to_owned(), problem, other_line }));
    }

    /// Line and column of a byte, both from 1. The end of the file is the end of its last line.
    fn place(&self, at: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|&start| start <= at);
        let start = self.lines[line - 1];
        let before = self.text.get(start..at).unwrap_or("");
        let column = before.trim_end_matches(['\r', '\n']).trim_start_matches('\u{feff}').chars().count();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(line), number(column + 1))
    }

    /// What was read, if there was no error at all.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        let mut errors = self.errors.into_inner();
        if errors.is_empty() {
            return Ok(value);
        }
        errors.sort_by_key(|(at, _)| *at);
        Err(ConfigErrors(errors.into_iter().map(|(_, error)| error).collect()))
    }
}

/// A table being read.
pub(super) struct Node<'a> {
    pub(super) report: &'a Report<'a>,
    table: &'a dyn TableLike,
    keys: &'static TableKeys,
    /// Where the table starts: errors about what is missing in it go there.
    pub(super) at: usize,
    /// How errors call it; empty for the file.
    pub(super) path: String,
}

impl<'a> Node<'a> {
    /// Starts reading a table: complains about every key it should not have.
    pub(super) fn new(
        report: &'a Report<'a>,
        table: &'a dyn TableLike,
        keys: &'static TableKeys,
        at: usize,
        path: String,
    ) -> Self {
        let node = Self { report, table, keys, at, path };
        for (name, item) in table.iter() {
            if !keys.names().any(|known| known == name) {
                let problem = Problem::UnknownKey {
                    key: name.escape_debug().to_string(),
                    suggestion: nearest(name, keys.names()).map(str::to_owned),
                    known: keys.names().collect(),
                };
                report.add(node.key_at(name, item), &node.path, problem);
            }
        }
        node
    }

    /// How errors call something in this table.
    pub(super) fn path_of(&self, what: &str) -> String {
        if self.path.is_empty() { what.to_owned() } else { format!("{}, {what}", self.path) }
    }

    /// Whether the key is there, well written or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key stands.
    pub(super) fn key_position(&self, key: &str) -> Option<usize> {
        self.table.get(key).map(|item| self.key_at(key, item))
    }

    fn key_at(&self, key: &str, item: &Item) -> usize {
        let span = self.table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
        span.map_or(self.at, |span| span.start)
    }

    /// The value of a key that may be left out. `None` if it is, or if it is wrong (which is then noted).
    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'a Item) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        let item = self.table.get(self.keys.key(key).name)?;
        let at = self.value_at(key, item);
        match read(item) {
            Ok(value) => Some(Placed { value, at }),
            Err(problem) => {
                self.report.add(at, &self.path_of(key), problem);
                None
            }
        }
    }

    /// The value of a key that must be there. `None` if it is not, or if it is wrong; either is noted.
    pub(super) fn required<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'a Item) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        if !self.has(key) {
            let key = self.keys.key(key);
            let problem = Problem::Missing { key: key.name, example: key.example };
            self.report.add(self.at, &self.path, problem);
        }
        self.optional(key, read)
    }

    /// The texts of an array. `None` if the key is left out; texts that are wrong are noted and left out.
    pub(super) fn texts<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Vec<Placed<T>>> {
        let wrong = |found| Problem::WrongType { expected: "an array of strings", found };
        let array = self.optional(key, |item| item.as_array().ok_or(wrong(item.type_name())))?.value;
        let read_one = |(index, value): (usize, &Value)| {
            let at = value.span().map_or(self.at, |span| span.start);
            let text =
                value.as_str().ok_or(Problem::WrongType { expected: "a string", found: value.type_name() });
            match text.and_then(&read) {
                Ok(value) => Some(Placed { value, at }),
                Err(problem) => {
                    self.report.add(at, &self.path_of(&format!("{key}[{index}]")), problem);
                    None
                }
            }
        };
        Some(array.iter().enumerate().filter_map(read_one).collect())
    }

    /// The table under a key, read as one of another kind.
    pub(super) fn child(&self, key: &str, keys: &'static TableKeys) -> Option<Node<'a>> {
        let wrong = |found| Problem::WrongType { expected: "a table", found };
        let table = self.optional(key, |item| item.as_table_like().ok_or(wrong(item.type_name())))?;
        Some(Node::new(self.report, table.value, keys, table.at, self.path_of(key)))
    }

    /// The tables under a key, whether written as `[[key]]` or as an array of inline tables. Each is called
    /// by its name, or by its place (from 0) if it has none.
    pub(super) fn children(&self, key: &str, keys: &'static TableKeys) -> Vec<Node<'a>> {
        let Some(item) = self.table.get(self.keys.key(key).name) else {
            return Vec::new();
        };
        let label = |index: usize, table: &dyn TableLike| match table.get("name").and_then(Item::as_str) {
            Some(name) => self.path_of(&format!("{key} \"{}\"", name.escape_debug())),
            None => self.path_of(&format!("{key}[{index}]")),
        };
        let mut nodes = Vec::new();
        if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                let at = table.span().map_or(self.at, |span| span.start);
                nodes.push(Node::new(self.report, table, keys, at, label(index, table)));
            }
        } else if let Some(array) = item.as_array() {
            for (index, value) in array.iter().enumerate() {
                let at = value.span().map_or(self.at, |span| span.start);
                match value.as_inline_table() {
                    Some(table) => nodes.push(Node::new(self.report, table, keys, at, label(index, table))),
                    None => {
                        let problem = Problem::WrongType { expected: "a table", found: value.type_name() };
                        self.report.add(at, &self.path_of(&format!("{key}[{index}]")), problem);
                    }
                }
            }
        } else {
            let problem = Problem::NotTables { key: self.keys.key(key).example, found: item.type_name() };
            self.report.add(self.value_at(key, item), &self.path_of(key), problem);
        }
        nodes
    }

    fn value_at(&self, key: &str, item: &Item) -> usize {
        // A table made of dotted keys has no place of its own that means anything to people.
        let dotted = item.as_table_like().is_some_and(TableLike::is_dotted);
        match item.span() {
            Some(span) if !dotted => span.start,
            _ => self.key_at(key, item),
        }
    }
}

/// A string.
pub(super) fn text(item: &Item) -> Result<&str, Problem> {
    item.as_str().ok_or(Problem::WrongType { expected: "a string", found: item.type_name() })
}

/// A whole number.
pub(super) fn integer(item: &Item) -> Result<i64, Problem> {
    item.as_integer().ok_or(Problem::WrongType { expected: "an integer", found: item.type_name() })
}

/// `true` or `false`.
pub(super) fn boolean(item: &Item) -> Result<bool, Problem> {
    item.as_bool().ok_or(Problem::WrongType { expected: "true or false", found: item.type_name() })
}

/// A whole number of a range.
pub(super) fn integer_in<T>(range: RangeInclusive<T>) -> impl FnOnce(&Item) -> Result<T, Problem>
where
    T: Copy + PartialOrd + TryFrom<i64> + Into<i64>,
{
    move |item| {
        let value = integer(item)?;
        let (min, max) = ((*range.start()).into(), (*range.end()).into());
        let in_range = T::try_from(value).ok().filter(|value| range.contains(value));
        in_range.ok_or(Problem::OutOfRange { value, min, max })
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl FnOnce(&Item) -> Result<T, Problem> {
    move |item| {
        let found = text(item)?;
        let known = words.iter().find(|(word, _)| *word == found).map(|&(_, value)| value);
        known.ok_or_else(|| Problem::NotOneOf {
            found: found.escape_debug().to_string(),
            allowed: words.iter().map(|&(word, _)| word).collect(),
            suggestion: nearest(found, words.iter().map(|&(word, _)| word)).map(str::to_owned),
        })
    }
}
