//! The lines of a text: where they start and end, their indentation, and what stands between tokens.

use std::ops::Range;

use super::Splice;

/// What becomes of a comment on the line of something that is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Comments {
    /// It gets a line of its own.
    Keep,
    /// It goes, too.
    Drop,
}

/// Removes whole lines, from the first to the last of `range`.
pub(super) fn remove_lines(text: &str, range: Range<usize>, comments: Comments) -> Splice {
    let start = start_of_line(text, range.start);
    let end = end_of_line(text, range.end);
    match text[range.end..end].find('#') {
        Some(comment) if comments == Comments::Keep => {
            (start + indent_at(text, range.start).len()..range.end + comment, String::new())
        }
        _ => (start..end, String::new()),
    }
}

/// Inserts lines at a place where a line starts, or at the end of the text.
pub(super) fn insert_line(text: &str, at: usize, lines: &str) -> Splice {
    let newline = eol(text);
    if at == 0 || text[..at].ends_with('\n') {
        (at..at, format!("{lines}{newline}"))
    } else {
        (at..at, format!("{newline}{lines}{newline}"))
    }
}

/// The first byte after `at` that is no blank, newline or comment.
pub(super) fn skip_blanks(text: &str, mut at: usize) -> usize {
    loop {
        at = text.len() - text[at..].trim_start().len();
        if !text[at..].starts_with('#') {
            return at;
        }
        at = end_of_line(text, at);
    }
}

pub(super) fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// After the newline that ends the line of `at`.
pub(super) fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

pub(super) fn indent_at(text: &str, at: usize) -> &str {
    let line = &text[start_of_line(text, at)..at];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// How the file ends its lines.
pub(super) fn eol(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Where something can be added after an entry that ends at `end`: after its last line and the comments right
/// below, unless these belong to what follows.
pub(super) fn end_of_entry(text: &str, end: usize) -> usize {
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
