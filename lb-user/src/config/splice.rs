//! Surgery on the text of a TOML file: set, add and remove keys and tables where they stand. What is not
//! touched stays as it is, byte for byte, because it is never printed anew. Knows TOML and layout, not what
//! the keys mean.

mod items;
mod lines;
mod sections;

use std::ops::Range;

use toml_edit::{Array, Document, InlineTable, Item, Table, TableLike, Value};

use self::{
    items::{append_item, element_spans, pair_spans, remove_item},
    lines::{Comments, end_of_line, eol, indent_at, insert_line, remove_lines},
    sections::{add_section, last_pair, remove_sections},
};

/// One step from a table to a table below it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// Into the list of that key, to the table whose `name` is this.
    Named(&'static str, &'a str),
    /// To the table under that key.
    Key(&'static str),
}

/// Keys and their values, in order.
pub(super) type Fields = Vec<(&'static str, Value)>;

/// A valid TOML text under the knife. Each operation reads the text anew, so that places are never stale.
pub(super) struct Text(pub(super) String);

/// A table as it is written.
#[derive(Clone, Copy)]
enum Written<'d> {
    /// Under a `[header]`, or made of dotted keys within such a table; or the file itself.
    Section(&'d Table),
    /// Between braces, or made of dotted keys between braces.
    Inline(&'d InlineTable),
}

impl<'d> Written<'d> {
    fn table(self) -> &'d dyn TableLike {
        match self {
            Self::Section(table) => table,
            Self::Inline(table) => table,
        }
    }
}

/// A replacement of a part of the text.
type Splice = (Range<usize>, String);

impl Text {
    /// Sets a key of the table at `path`, or removes it.
    pub(super) fn set(&mut self, path: &[Step<'_>], key: &str, value: Option<&Value>) {
        self.operate(|text, document| {
            let Some(written) = find(document, path) else {
                return Vec::new();
            };
            match (written.table().get(key), value) {
                (None, None) => Vec::new(),
                (Some(old), None) => remove_key(text, written, key, old),
                (Some(old), Some(new)) => match old.span() {
                    Some(_) if same(old, new) => Vec::new(),
                    Some(span) => vec![(span, new.to_string())],
                    None => Vec::new(),
                },
                (None, Some(new)) => {
                    let dotted = path.last().filter(|_| written.table().is_dotted());
                    let key = match dotted {
                        Some(Step::Key(parent)) => format!("{parent}.{key}"),
                        _ => key.to_owned(),
                    };
                    add_key(text, document, path, written, &format!("{key} = {new}"))
                }
            }
        });
    }

    /// Sets an array of strings, changing only the elements that differ, so that comments between them stay.
    pub(super) fn set_texts(&mut self, path: &[Step<'_>], key: &str, wanted: &[String]) {
        let Some(old) = self.texts(path, key) else {
            return self.set(path, key, Some(&Value::from(wanted.iter().collect::<Array>())));
        };
        let same_head = old.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        let most = old.len().min(wanted.len()) - same_head;
        let same_tail =
            old.iter().rev().zip(wanted.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
        // Where elements only go away, those after them keep their place (and their comments).
        let shrinks = wanted.len() == same_head + same_tail;
        let keep = if shrinks { same_head } else { wanted.len().min(old.len()) };
        for (index, text) in wanted.iter().enumerate().take(keep) {
            self.operate(|_, document| match array(document, path, key).and_then(|array| array.get(index)) {
                Some(value) if value.as_str() != Some(text) => {
                    value.span().map(|span| (span, Value::from(text).to_string())).into_iter().collect()
                }
                _ => Vec::new(),
            });
        }
        for _ in wanted.len()..old.len() {
            self.operate(|text, document| {
                let spans = array(document, path, key).map(element_spans).unwrap_or_default();
                remove_item(text, &spans, keep, Comments::Keep)
            });
        }
        for text_wanted in wanted.iter().skip(old.len()) {
            self.operate(|text, document| match array(document, path, key) {
                Some(array) => append_item(text, array.span(), &element_spans(array), &quoted(text_wanted)),
                None => Vec::new(),
            });
        }
    }

    /// Adds a table to the list `list` of the table at `path`, after its siblings and in their style.
    pub(super) fn add(&mut self, path: &[Step<'_>], list: &'static str, fields: &Fields) {
        self.operate(|text, document| {
            let Some(parent) = find(document, path) else {
                return Vec::new();
            };
            let inline = || inline_table(fields);
            match (parent.table().get(list), parent) {
                (Some(Item::Value(Value::Array(array))), _) => {
                    append_item(text, array.span(), &element_spans(array), &inline())
                }
                (None, Written::Inline(_)) => {
                    add_key(text, document, path, parent, &format!("{list} = [{}]", inline()))
                }
                (None, Written::Section(_)) if cousins_are_inline(document, path, list) => {
                    let array = format!("{list} = [{}    {},{}]", eol(text), inline(), eol(text));
                    add_key(text, document, path, parent, &array)
                }
                (siblings, Written::Section(table)) => {
                    let siblings = siblings.and_then(Item::as_array_of_tables);
                    let sibling = siblings.and_then(|siblings| siblings.get(siblings.len().checked_sub(1)?));
                    add_section(text, table, sibling, &header(path, list), fields)
                }
                (Some(_), Written::Inline(_)) => Vec::new(),
            }
        });
    }

    /// Removes the table at `path` (whose last step is by name) with all below it.
    pub(super) fn remove(&mut self, path: &[Step<'_>]) {
        self.operate(|text, document| {
            let Some((Step::Named(list, name), above)) = path.split_last() else {
                return Vec::new();
            };
            let Some(parent) = find(document, above) else {
                return Vec::new();
            };
            match parent.table().get(list) {
                Some(Item::ArrayOfTables(tables)) => {
                    let table = tables.iter().find(|table| is_named(*table, name));
                    table.map(|table| remove_sections(text, table)).unwrap_or_default()
                }
                Some(Item::Value(Value::Array(array))) => {
                    let is_it =
                        |value: &Value| value.as_inline_table().is_some_and(|table| is_named(table, name));
                    let spans = element_spans(array);
                    let index = array.iter().position(is_it);
                    index.map(|index| remove_item(text, &spans, index, Comments::Drop)).unwrap_or_default()
                }
                _ => Vec::new(),
            }
        });
    }

    fn texts(&self, path: &[Step<'_>], key: &str) -> Option<Vec<String>> {
        let document = Document::parse(self.0.as_str()).ok()?;
        let array = array(&document, path, key)?;
        Some(array.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    fn operate(&mut self, operation: impl FnOnce(&str, &Document<&str>) -> Vec<Splice>) {
        // An operation before this one may have broken the text only if the new values broke it; the
        // caller parses the result and says so.
        let Ok(document) = Document::parse(self.0.as_str()) else {
            return;
        };
        let mut splices = operation(&self.0, &document);
        splices.sort_by_key(|(range, _)| range.start);
        let mut text = self.0.clone();
        for (range, new) in splices.into_iter().rev() {
            text.replace_range(range, &new);
        }
        self.0 = text;
    }
}

fn find<'d>(document: &'d Document<&str>, path: &[Step<'_>]) -> Option<Written<'d>> {
    path.iter().try_fold(Written::Section(document.as_table()), |written, step| match *step {
        Step::Key(key) => match written.table().get(key)? {
            Item::Table(table) => Some(Written::Section(table)),
            Item::Value(Value::InlineTable(table)) => Some(Written::Inline(table)),
            _ => None,
        },
        Step::Named(list, name) => match written.table().get(list)? {
            Item::ArrayOfTables(tables) => {
                tables.iter().find(|table| is_named(*table, name)).map(Written::Section)
            }
            Item::Value(Value::Array(array)) => array
                .iter()
                .filter_map(Value::as_inline_table)
                .find(|table| is_named(*table, name))
                .map(Written::Inline),
            _ => None,
        },
    })
}

fn is_named(table: &dyn TableLike, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn array<'d>(document: &'d Document<&str>, path: &[Step<'_>], key: &str) -> Option<&'d Array> {
    find(document, path)?.table().get(key)?.as_array()
}

fn same(old: &Item, new: &Value) -> bool {
    match new {
        Value::String(new) => old.as_str() == Some(new.value()),
        Value::Integer(new) => old.as_integer() == Some(*new.value()),
        _ => false,
    }
}

/// Whether the same list is written between brackets everywhere else, as in `backend = [{ … }]`.
fn cousins_are_inline(document: &Document<&str>, path: &[Step<'_>], list: &str) -> bool {
    let Some((Step::Named(parents, _), above)) = path.split_last() else {
        return false;
    };
    let uncles = find(document, above).and_then(|above| above.table().get(parents));
    let Some(tables) = uncles.and_then(Item::as_array_of_tables) else {
        return false;
    };
    let mut cousins = tables.iter().filter_map(|table| table.get(list)).peekable();
    cousins.peek().is_some() && cousins.all(Item::is_array)
}

fn header(path: &[Step<'_>], list: &str) -> String {
    let names = path.iter().map(|step| match step {
        Step::Named(key, _) | Step::Key(key) => *key,
    });
    names.chain([list]).collect::<Vec<_>>().join(".")
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `{ key = value, … }`
pub(super) fn inline_table(fields: &Fields) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(key, value)| format!("{key} = {}", one_line(value))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn one_line(value: &Value) -> String {
    value.to_string().trim().to_owned()
}

fn add_key(
    text: &str,
    document: &Document<&str>,
    path: &[Step<'_>],
    written: Written<'_>,
    pair: &str,
) -> Vec<Splice> {
    match written {
        Written::Section(table) => {
            let Some(last) = last_pair(table).or_else(|| table.span()) else {
                return Vec::new();
            };
            let indent = indent_at(text, last.start);
            vec![insert_line(text, end_of_line(text, last.end), &format!("{indent}{pair}"))]
        }
        Written::Inline(table) if table.is_dotted() => {
            // The braces are those of the table above.
            let above = path.split_last().and_then(|(_, above)| find(document, above));
            let Some(Written::Inline(above)) = above else {
                return Vec::new();
            };
            append_item(text, above.span(), &pair_spans(text, above), pair)
        }
        Written::Inline(table) => append_item(text, table.span(), &pair_spans(text, table), pair),
    }
}

fn remove_key(text: &str, written: Written<'_>, key: &str, old: &Item) -> Vec<Splice> {
    let Some(end) = old.span().map(|span| span.end) else {
        return Vec::new();
    };
    match written {
        Written::Section(table) => {
            let Some(start) = table.key(key).and_then(toml_edit::Key::span).map(|span| span.start) else {
                return Vec::new();
            };
            vec![remove_lines(text, start..end, Comments::Keep)]
        }
        Written::Inline(table) => {
            let spans = pair_spans(text, table);
            let index = spans.iter().position(|span| span.end == end);
            index.map(|index| remove_item(text, &spans, index, Comments::Keep)).unwrap_or_default()
        }
    }
}
