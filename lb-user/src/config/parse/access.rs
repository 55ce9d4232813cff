//! `[[acl]]`: access lists, and the files that they are continued in.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::abi::Admission;

use super::{
    super::{
        error::Problem,
        reader::{Node, Placed, one_of, text},
        value,
    },
    name,
};
use crate::model::{acl::AccessList, prefix::Prefix, service::Name, source::Files};

/// Bad lines of a file that are told one by one.
const TOLD: usize = 10;

/// What a list says of its prefixes: the key, the key for a file, and what they mean.
const SIDES: [(&str, &str, Admission); 2] =
    [("allow", "allow_file", Admission::Allow), ("deny", "deny_file", Admission::Deny)];

/// A list as far as it could be read.
pub(super) struct ListDraft<'a> {
    pub(super) node: Node<'a>,
    pub(super) name: Option<Placed<Name>>,
    entries: BTreeMap<Prefix, Admission>,
    others: Admission,
}

impl ListDraft<'_> {
    pub(super) fn finish(self) -> Option<AccessList> {
        Some(AccessList::new(self.name?.value, self.entries, self.others))
    }
}

/// The files that a list is continued in.
pub(super) fn files_of(node: &Node<'_>) -> Vec<String> {
    let named = |(_, key, _)| Some(node.optional(key, text)?.value.to_owned());
    SIDES.into_iter().filter_map(named).collect()
}

pub(super) fn read<'a>(node: Node<'a>, files: &Files) -> ListDraft<'a> {
    let name = node.required("name", name);
    let mut entries = BTreeMap::new();
    for (key, file_key, admission) in SIDES {
        for Placed { value, at } in node.texts(key, value::client_prefix).unwrap_or_default() {
            enter(&mut entries, value, admission, (&node, at, key));
        }
        if let Some(Placed { value: file, at }) = node.optional(file_key, text) {
            read_lines(&node, (file, file_key, at), files, |prefix| {
                enter(&mut entries, prefix, admission, (&node, at, file_key));
            });
        }
    }

    let choices = &[("allow", Admission::Allow), ("deny", Admission::Deny)];
    let default = node.optional("default", one_of(choices));
    let [allows, denies] = SIDES.map(|(key, file_key, _)| node.has(key) || node.has(file_key));
    let others = match (allows, denies) {
        (true, false) => Admission::Deny,
        (false, true) => Admission::Allow,
        (true, true) => {
            if !node.has("default") {
                node.report.add(node.at, &node.path, Problem::NoDefault);
            }
            Admission::Deny
        }
        (false, false) => {
            node.report.add(node.at, &node.path, Problem::EmptyList);
            Admission::Deny
        }
    };
    ListDraft { name, entries, others: default.map_or(others, |default| default.value), node }
}

/// Enters a prefix, unless the list says the contrary of it already.
fn enter(
    entries: &mut BTreeMap<Prefix, Admission>,
    prefix: Prefix,
    admission: Admission,
    (node, at, key): (&Node<'_>, usize, &str),
) {
    let known = *entries.entry(prefix).or_insert(admission);
    if known != admission {
        node.report.add(at, &node.path_of(key), Problem::AllowedAndDenied(prefix));
    }
}

/// The prefixes of a file, one to a line. What stands behind `#` or `;` is a comment.
fn read_lines(
    node: &Node<'_>,
    (file, key, at): (&str, &str, usize),
    files: &Files,
    mut found: impl FnMut(Prefix),
) {
    let report = |problem| node.report.add(at, &node.path_of(key), problem);
    let text: &Arc<str> = match files.get(file) {
        Some(Ok(text)) => text,
        Some(Err(why)) => return report(Problem::UnreadableList { file: file.to_owned(), why: why.clone() }),
        // Whoever reads the configuration reads what it names.
        None => {
            let why = "it was not read".to_owned();
            return report(Problem::UnreadableList { file: file.to_owned(), why });
        }
    };
    let mut bad = 0;
    for (number, line) in (1u32..).zip(text.lines()) {
        let entry = line.split(['#', ';']).next().unwrap_or_default().trim().trim_start_matches('\u{feff}');
        if entry.is_empty() {
            continue;
        }
        match value::client_prefix(entry) {
            Ok(prefix) => found(prefix),
            Err(problem) => {
                bad += 1;
                if bad <= TOLD {
                    let problem = Box::new(problem);
                    report(Problem::BadListLine { file: file.to_owned(), number, problem });
                }
            }
        }
    }
    if bad > TOLD {
        report(Problem::MoreBadLines { file: file.to_owned(), count: bad - TOLD });
    }
}
