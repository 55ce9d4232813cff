//! Surgery on the text of a TOML file: set, add and remove keys and tables where they stand. What is not
//! touched stays as it is, byte for byte, because it is never printed anew. Knows TOML and layout, not what
//! the keys mean.

use std::ops::Range;

use toml_edit::{Array, Document, InlineTable, Item, Table, TableLike, Value};

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

fn element_spans(array: &Array) -> Vec<Range<usize>> {
    array.iter().filter_map(Value::span).collect()
}

/// The places of the keys with their values that are written between these braces, dotted ones included.
fn pair_spans(text: &str, table: &dyn TableLike) -> Vec<Range<usize>> {
    let pair = |(keys, value): (Vec<&toml_edit::Key>, &Value)| {
        let leaf = keys.last()?.span()?.start;
        // Back over the parents of a dotted key.
        let bound = text[..leaf].rfind([',', '{', '\n']).map_or(0, |at| at + 1);
        let start = bound + (text[bound..leaf].len() - text[bound..leaf].trim_start().len());
        Some(start..value.span()?.end)
    };
    let mut spans: Vec<_> = table.get_values().into_iter().filter_map(pair).collect();
    spans.sort_by_key(|span| span.start);
    spans
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

/// What becomes of a comment on the line of something that is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comments {
    /// It gets a line of its own.
    Keep,
    /// It goes, too.
    Drop,
}

/// Removes whole lines, from the first to the last of `range`.
fn remove_lines(text: &str, range: Range<usize>, comments: Comments) -> Splice {
    let start = start_of_line(text, range.start);
    let end = end_of_line(text, range.end);
    match text[range.end..end].find('#') {
        Some(comment) if comments == Comments::Keep => {
            (start + indent_at(text, range.start).len()..range.end + comment, String::new())
        }
        _ => (start..end, String::new()),
    }
}

/// Removes one of the items between brackets or braces, and a comma with it.
fn remove_item(text: &str, spans: &[Range<usize>], index: usize, comments: Comments) -> Vec<Splice> {
    let Some(span) = spans.get(index).cloned() else {
        return Vec::new();
    };
    let next = skip_blanks(text, span.end);
    let comma = text[next..].starts_with(',').then_some(next);
    let end = comma.map_or(span.end, |comma| comma + 1);
    let line_end = end_of_line(text, end);
    let rest = text[end..line_end].trim();
    let alone = text[start_of_line(text, span.start)..span.start].trim().is_empty()
        && (rest.is_empty() || rest.starts_with('#'))
        && line_end > end;
    if alone {
        // The comma before it, if it was the last, stays as a trailing comma.
        return vec![remove_lines(text, span.start..end, comments)];
    }
    match (comma, index.checked_sub(1).and_then(|before| spans.get(before))) {
        (Some(comma), _) => {
            let blanks = text[end..].len() - text[end..].trim_start_matches([' ', '\t']).len();
            let after = if span.end == comma || text[span.end..comma].trim().is_empty() {
                return vec![(span.start..end + blanks, String::new())];
            } else {
                comma..comma + 1
            };
            vec![(span, String::new()), (after, String::new())]
        }
        (None, Some(before)) => {
            let comma = skip_blanks(text, before.end);
            if text[comma..span.start].contains('\n') {
                vec![(span, String::new())]
            } else {
                vec![(comma..span.end, String::new())]
            }
        }
        (None, None) => vec![(span, String::new())],
    }
}

/// Adds an item after the last between brackets or braces, on a line of its own if the last one has one.
fn append_item(
    text: &str,
    container: Option<Range<usize>>,
    spans: &[Range<usize>],
    item: &str,
) -> Vec<Splice> {
    let Some(container) = container else {
        return Vec::new();
    };
    let close = container.end - 1;
    let Some(last) = spans.last() else {
        let inner = container.start + 1..close;
        if text[inner.clone()].contains('\n') {
            let indent = indent_at(text, close);
            return vec![insert_line(text, start_of_line(text, close), &format!("{indent}    {item},"))];
        }
        let padding = if text[container.start..].starts_with('{') { " " } else { "" };
        return vec![(inner, format!("{padding}{item}{padding}"))];
    };
    let next = skip_blanks(text, last.end);
    let has_comma = text[next..].starts_with(',');
    let end = if has_comma { next + 1 } else { last.end };
    let line_end = end_of_line(text, end);
    if line_end > close {
        return if has_comma {
            vec![(end..end, format!(" {item}"))]
        } else {
            vec![(end..end, format!(", {item}"))]
        };
    }
    let indent = indent_at(text, last.start);
    if has_comma {
        vec![insert_line(text, line_end, &format!("{indent}{item},"))]
    } else {
        vec![(last.end..last.end, ",".to_owned()), insert_line(text, line_end, &format!("{indent}{item}"))]
    }
}

/// Adds a `[[header]]` with its keys after `sibling` and all below it, or else after `parent`.
fn add_section(
    text: &str,
    parent: &Table,
    sibling: Option<&Table>,
    header: &str,
    fields: &Fields,
) -> Vec<Splice> {
    let model = sibling.unwrap_or(parent);
    let mut sections = Vec::new();
    collect_sections(model, &mut sections);
    let is_file = sibling.is_none() && parent.position() == Some(0);
    let end = sections.iter().map(|section| section.end).max().filter(|_| !is_file);
    let at = end.map_or(text.len(), |end| end_of_entry(text, end));

    let layout = sibling.map(|sibling| Layout::of(text, sibling)).unwrap_or_default();
    let Layout { header_indent, key_indent, key_width, blank_line } = layout;
    let mut lines = Vec::new();
    if blank_line && !text[..at].trim().is_empty() && !text[..at].ends_with("\n\n") {
        lines.push(String::new());
    }
    lines.push(format!("{header_indent}[[{header}]]"));
    for (key, value) in fields {
        lines.push(format!("{key_indent}{key:<key_width$} = {}", one_line(value)));
    }
    vec![insert_line(text, at, &lines.join(eol(text)))]
}

/// How a section is laid out.
struct Layout<'t> {
    header_indent: &'t str,
    key_indent: &'t str,
    /// Keys are padded to this many characters.
    key_width: usize,
    /// A blank line stands before it.
    blank_line: bool,
}

impl Default for Layout<'_> {
    fn default() -> Self {
        Self { header_indent: "", key_indent: "", key_width: 0, blank_line: true }
    }
}

impl<'t> Layout<'t> {
    fn of(text: &'t str, table: &Table) -> Self {
        let default = Self::default();
        let Some(header) = table.span() else {
            return default;
        };
        let starts: Vec<Range<usize>> =
            table.iter().filter_map(|(key, item)| item.as_value().and(table.key(key)?.span())).collect();
        let equals = |key: &Range<usize>| text[key.start..].find('=');
        let column = starts.first().and_then(equals);
        let aligned = starts.iter().all(|key| equals(key) == column)
            && starts.iter().any(|key| Some(key.len()) != starts.first().map(ExactSizeIterator::len));
        let before = text[..start_of_line(text, header.start)].lines().next_back().unwrap_or("").trim();
        Self {
            header_indent: indent_at(text, header.start),
            key_indent: starts.first().map_or("", |key| indent_at(text, key.start)),
            key_width: column.filter(|_| aligned).map_or(0, |column| column.saturating_sub(1)),
            blank_line: before.is_empty() || before.starts_with('#'),
        }
    }
}

/// Each `[header]` of the table and of those below it, with the keys under it.
fn collect_sections(table: &Table, sections: &mut Vec<Range<usize>>) {
    if let Some(header) = table.span().filter(|_| !table.is_implicit()) {
        let end = last_pair(table).map_or(header.end, |pair| pair.end);
        sections.push(header.start..end.max(header.end));
    }
    for (_, item) in table.iter() {
        match item {
            Item::Table(below) if !below.is_dotted() => collect_sections(below, sections),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|below| collect_sections(below, sections)),
            _ => {}
        }
    }
}

/// The last key written right under the table's header, with its value.
fn last_pair(table: &Table) -> Option<Range<usize>> {
    let pairs = table.get_values().into_iter();
    let spans = pairs.filter_map(|(keys, value)| Some(keys.last()?.span()?.start..value.span()?.end));
    spans.max_by_key(|span| span.end)
}

/// Removes all sections of a table. Comments between them go, those above the first stay.
fn remove_sections(text: &str, table: &Table) -> Vec<Splice> {
    let mut sections = Vec::new();
    collect_sections(table, &mut sections);
    sections.sort_by_key(|section| section.start);
    let mut runs: Vec<Range<usize>> = Vec::new();
    for section in sections {
        match runs.last_mut() {
            Some(run) if skip_blanks(text, run.end) >= section.start => run.end = section.end,
            _ => runs.push(section),
        }
    }
    let splice = |run: Range<usize>| {
        let (mut lines, nothing) = remove_lines(text, run, Comments::Drop);
        // One of the two blank lines around it, or the one at the end of the file.
        let after = text[lines.end..].lines().next();
        if after.is_none_or(|line| line.trim().is_empty()) {
            let above = &text[..lines.start];
            let blank = above.len() - above.trim_end_matches(['\n', '\r']).len();
            let newline = eol(text).len();
            if blank >= 2 * newline {
                lines.start -= newline;
            }
        }
        (lines, nothing)
    };
    runs.into_iter().map(splice).collect()
}

/// Where something can be added after an entry that ends at `end`: after its last line and the comments right
/// below, unless these belong to what follows.
fn end_of_entry(text: &str, end: usize) -> usize {
    let line_end = end_of_line(text, end);
    let mut at = line_end;
    for line in text[line_end..].split_inclusive('\n') {
        match line.trim() {
            "" => return at,
            comment if comment.starts_with('#') => at += line.len(),
            _ => return line_end,
        }
    }
    at
}

/// Inserts lines at a place where a line starts, or at the end of the text.
fn insert_line(text: &str, at: usize, lines: &str) -> Splice {
    let newline = eol(text);
    if at == 0 || text[..at].ends_with('\n') {
        (at..at, format!("{lines}{newline}"))
    } else {
        (at..at, format!("{newline}{lines}{newline}"))
    }
}

/// The first byte after `at` that is no blank, newline or comment.
fn skip_blanks(text: &str, mut at: usize) -> usize {
    loop {
        at = text.len() - text[at..].trim_start().len();
        if !text[at..].starts_with('#') {
            return at;
        }
        at = end_of_line(text, at);
    }
}

fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// After the newline that ends the line of `at`.
fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

fn indent_at(text: &str, at: usize) -> &str {
    let line = &text[start_of_line(text, at)..at];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// How the file ends its lines.
fn eol(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
