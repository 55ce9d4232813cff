//! Tables under headers: adding one in the style of its siblings, removing one with all below it.

use std::ops::Range;

use toml_edit::{Item, Table};

use super::{
    Fields, Splice,
    lines::{
        Comments, end_of_entry, end_of_line, eol, indent_at, insert_line, remove_lines, skip_blanks,
        start_of_line,
    },
    one_line,
};

/// Adds a `[[header]]` with its keys after `sibling` and all below it, or else after `parent`.
pub(super) fn add_section(
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
    let above = text[..at].lines().next_back().unwrap_or("");
    if blank_line && !above.trim().is_empty() {
        lines.push(String::new());
    }
    lines.push(format!("{header_indent}[[{header}]]"));
    for (key, value) in fields {
        lines.push(format!("{key_indent}{key:<key_width$} = {}", one_line(value)));
    }
    vec![insert_line(text, at, &lines.join(eol(text)))]
}

/// How a section is laid out.
pub(super) struct Layout<'t> {
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
pub(super) fn collect_sections(table: &Table, sections: &mut Vec<Range<usize>>) {
    if let Some(header) = table.span().filter(|_| !table.is_implicit()) {
        let end = last_pair(table).map_or(header.end, |pair| pair.end);
        sections.push(header.start..end.max(header.end));
    }
    for (_, item) in table {
        match item {
            Item::Table(below) if !below.is_dotted() => collect_sections(below, sections),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|below| collect_sections(below, sections)),
            _ => {}
        }
    }
}

/// The last key written right under the table's header, with its value.
pub(super) fn last_pair(table: &Table) -> Option<Range<usize>> {
    let pairs = table.get_values().into_iter();
    let spans = pairs.filter_map(|(keys, value)| Some(keys.last()?.span()?.start..value.span()?.end));
    spans.max_by_key(|span| span.end)
}

/// Removes all sections of a table. Comments between them go, those above the first stay.
pub(super) fn remove_sections(text: &str, table: &Table) -> Vec<Splice> {
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
        // Of the blank lines around it one is enough; none at either end of the file.
        let newline = eol(text).len();
        let above = &text[..lines.start];
        let blank = above.len() - above.trim_end_matches(['\n', '\r']).len();
        let below_is_blank = text[lines.end..].lines().next().is_none_or(|line| line.trim().is_empty());
        if below_is_blank && blank >= 2 * newline {
            lines.start -= newline;
        } else if below_is_blank && lines.start == 0 {
            lines.end = end_of_line(text, lines.end);
        }
        (lines, nothing)
    };
    runs.into_iter().map(splice).collect()
}
