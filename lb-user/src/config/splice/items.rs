//! Items between brackets or braces, with their commas.

use std::ops::Range;

use toml_edit::{Array, TableLike, Value};

use super::{
    Splice,
    lines::{Comments, end_of_line, indent_at, insert_line, remove_lines, skip_blanks, start_of_line},
};

pub(super) fn element_spans(array: &Array) -> Vec<Range<usize>> {
    array.iter().filter_map(Value::span).collect()
}

/// The places of the keys with their values that are written between these braces, dotted ones included.
pub(super) fn pair_spans(text: &str, table: &dyn TableLike) -> Vec<Range<usize>> {
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

/// Removes one of the items between brackets or braces, and a comma with it.
pub(super) fn remove_item(
    text: &str,
    spans: &[Range<usize>],
    index: usize,
    comments: Comments,
) -> Vec<Splice> {
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
pub(super) fn append_item(
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
