//! What the documents say about the code: names that must occur in them.

use lb_common::abi::{DropReason, Note, PassReason, Reason};

const PACKET_PATH: &str = include_str!("../../docs/packet-path.md");

/// The rows of the table under a heading, up to the next one: the name in the first cell, and the whole line.
fn rows(heading: &str) -> Vec<(&'static str, &'static str)> {
    PACKET_PATH
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| Some((line.strip_prefix("| `")?.split_once('`')?.0, line)))
        .collect()
}

#[test]
fn every_reason_is_described_where_operators_look_and_no_other() {
    let pass: Vec<Reason> = PassReason::ALL.iter().copied().map(Reason::Pass).collect();
    let drop: Vec<Reason> = DropReason::ALL.iter().copied().map(Reason::Drop).collect();
    let note: Vec<Reason> = Note::ALL.iter().copied().map(Reason::Note).collect();
    for (heading, reasons) in
        [("## Passed: `pass`", pass), ("## Dropped: `drop`", drop), ("## Beside the verdict: `note`", note)]
    {
        let rows = rows(heading);
        let described: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        let named: Vec<&str> = reasons.iter().map(|reason| reason.name()).collect();
        assert_eq!(described, named, "docs/packet-path.md, {heading}");
        for (reason, (_, row)) in reasons.iter().zip(rows) {
            assert!(row.contains(reason.text()), "{row}\nshould say: {}", reason.text());
        }
    }
}
