//! What the demo prints: headlines, commands with their output, and the table of claims at the end.

use std::{
    fmt::{Arguments, Write as _},
    io::{self, Write as _},
};

/// What `say!` does. A reader that went away must not keep the laboratory from being cleaned up.
pub(crate) fn line(text: Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => eprintln!("cannot print: {error}"),
        _ => {}
    }
}

/// Collects claims and prints as it goes.
#[derive(Default)]
pub(crate) struct Report {
    step: u32,
    claims: Vec<Claim>,
}

struct Claim {
    what: String,
    expected: String,
    seen: String,
    holds: bool,
}

impl Report {
    /// Begins a step.
    pub(crate) fn headline(&mut self, text: &str) {
        self.step += 1;
        say!("\n{}. {text}", self.step);
    }

    /// A sentence about what happens.
    pub(crate) fn say(&self, text: &str) {
        say!("   {text}");
    }

    /// A command and what it printed.
    pub(crate) fn shown(&self, command: &str, output: &str) {
        say!("   $ {command}");
        for line in output.trim_end().lines() {
            say!("{}", format!("     {line}").trim_end());
        }
    }

    /// Something measured, against what it should be.
    pub(crate) fn claim(&mut self, what: &str, expected: &impl ToString, seen: &impl ToString, holds: bool) {
        let (expected, seen) = (expected.to_string(), seen.to_string());
        say!("   {} {what}: {seen} (expected {expected})", if holds { "ok" } else { "FAILED" });
        self.claims.push(Claim { what: what.to_owned(), expected, seen, holds });
    }

    /// Whether all claims held.
    pub(crate) fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    /// All claims as a table.
    pub(crate) fn table(&self) -> String {
        let width = |column: fn(&Claim) -> &str, title: &str| {
            self.claims
                .iter()
                .map(|claim| column(claim).chars().count())
                .chain([title.len()])
                .max()
                .unwrap_or(0)
        };
        let (what, expected) = (width(|c| &c.what, "claim"), width(|c| &c.expected, "expected"));
        let seen = width(|c| &c.seen, "seen");
        let mut table = String::new();
        let mut row = |cells: [&str; 4]| {
            let [a, b, c, d] = cells;
            let line = format!("{a:what$}  {b:expected$}  {c:seen$}  {d}");
            writeln!(table, "{}", line.trim_end()).expect("a String takes everything");
        };
        row(["claim", "expected", "seen", ""]);
        row([&"-".repeat(what), &"-".repeat(expected), &"-".repeat(seen), "------"]);
        for claim in &self.claims {
            row([&claim.what, &claim.expected, &claim.seen, if claim.holds { "ok" } else { "FAILED" }]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_false_claim_makes_the_report_false() {
        let mut report = Report::default();
        report.claim("water is wet", &"yes", &"yes", true);
        assert!(report.holds());
        report.claim("the moon is cheese", &"yes", &"rock", false);
        assert!(!report.holds());
        let table = report.table();
        let last = table.lines().last().expect("three lines");
        assert!(last.contains("rock") && last.ends_with("FAILED"), "{table}");
    }
}
