//! Aligned columns with free lines in between, and colour. Knows nothing of what it shows.

use std::fmt::Display;

/// Whether text may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences at all.
    Plain,
    /// ANSI colours.
    Colour,
}

/// What a cell's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Normal,
    Strong,
    Good,
    Warn,
    Bad,
}

impl Style {
    /// SGR parameters (ECMA-48, 8.3.117).
    fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Normal => None,
            Self::Strong => Some("1"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("1;31"),
        }
    }
}

/// A piece of text in its column.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    pub(super) fn new(text: impl Display) -> Self {
        Self { text: printable(&text.to_string()), style: Style::Normal, right: false }
    }

    pub(super) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// Aligned to the right of its column.
    pub(super) fn right(self) -> Self {
        Self { right: true, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn painted(&self, paint: Paint) -> String {
        match self.style.sgr() {
            Some(sgr) if paint == Paint::Colour && !self.text.is_empty() => {
                format!("\x1b[{sgr}m{}\x1b[0m", self.text)
            }
            _ => self.text.clone(),
        }
    }
}

/// Text without control characters: a backend's answer quoted in a reason must not steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character })
        .collect()
}

enum Line {
    /// Cells in columns, two spaces apart.
    Row(Vec<Cell>),
    /// Cells one space apart, in no column.
    Free(Vec<Cell>),
}

/// Rows whose columns are aligned over the whole table. Columns that are empty everywhere are left out.
pub(super) struct Table {
    paint: Paint,
    lines: Vec<Line>,
}

impl Table {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, lines: Vec::new() }
    }

    /// Column titles; `>` before one aligns it to the right.
    pub(super) fn head<const N: usize>(&mut self, titles: [&str; N]) {
        self.row(titles.map(|title| match title.strip_prefix('>') {
            Some(title) => Cell::new(title).right(),
            None => Cell::new(title),
        }));
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.lines.push(Line::Row(cells.into_iter().collect()));
    }

    pub(super) fn line(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.lines.push(Line::Free(cells.into_iter().collect()));
    }

    pub(super) fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Row(cells) => self.render_row(cells, &widths, &mut text),
                Line::Free(cells) => {
                    let cells: Vec<String> = cells.iter().map(|cell| cell.painted(self.paint)).collect();
                    text.push_str(&cells.join(" "));
                }
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for line in &self.lines {
            let Line::Row(cells) = line else { continue };
            widths.resize(widths.len().max(cells.len()), 0);
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.width().max(*width);
            }
        }
        widths
    }

    fn render_row(&self, cells: &[Cell], widths: &[usize], text: &mut String) {
        let shown = cells.iter().zip(widths).filter(|&(_, &width)| width > 0);
        for (position, (cell, &width)) in shown.enumerate() {
            let gap = if position == 0 { "" } else { "  " };
            let padding = " ".repeat(width - cell.width());
            let painted = cell.painted(self.paint);
            let (left, right) = if cell.right { (padding, painted) } else { (painted, padding) };
            text.extend([gap, &left, &right]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_whatever_the_colour() {
        for (paint, want) in [
            (Paint::Plain, "A    N\nfree line\nbé  10\nc    5  last\n"),
            (Paint::Colour, "A    N\nfree line\n\x1b[32mbé\x1b[0m  10\nc    5  last\n"),
        ] {
            let mut table = Table::new(paint);
            table.head(["A", ">N"]);
            table.line([Cell::new("free"), Cell::new("line")]);
            table.row([Cell::new("bé").styled(Style::Good), Cell::new(10).right()]);
            table.row([Cell::new("c"), Cell::new(5).right(), Cell::new("last")]);
            assert_eq!(table.render(), want);
        }
    }

    #[test]
    fn empty_columns_vanish() {
        let mut table = Table::new(Paint::Plain);
        table.row([Cell::new("a"), Cell::new(""), Cell::new("b")]);
        assert_eq!(table.render(), "a  b\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let mut table = Table::new(Paint::Plain);
        table.row([Cell::new("HTTP \x1b[2J\n\u{9b}1m")]);
        assert_eq!(table.render(), "HTTP \u{fffd}[2J\u{fffd}\u{fffd}1m\n");
    }
}
