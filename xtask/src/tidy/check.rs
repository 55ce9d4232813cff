//! How each kind of rule is checked, and the violations found.

use std::{collections::BTreeSet, fmt};

use super::{
    rules::{Forbidden, RULES, Rule},
    source::{Source, block_end, is_name_byte, line_at},
};

/// A rule broken at a line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    found: String,
    why: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, found, why } = self;
        write!(f, "{path}:{line}: {rule}: {found}: {why}")
    }
}

/// Holds all rules against all files. Violations are in order of path and line.
pub(crate) fn violations(sources: &[Source]) -> Vec<Violation> {
    let test_files: Vec<_> = sources.iter().flat_map(|source| &source.test_files).collect();
    let is_test_file = |path: &str| {
        let mut rests = test_files.iter().filter_map(|file| path.strip_prefix(file.as_str()));
        rests.any(|rest| rest.starts_with(['.', '/']))
    };
    let mut found = BTreeSet::new();
    for rule in RULES {
        for source in sources.iter().filter(|source| rule.holds_for(&source.path)) {
            let hits = rule.forbids.hits(source, sources).into_iter();
            let excused = |line| !rule.tests && (source.is_test(line) || is_test_file(&source.path));
            let hits = hits.filter(|(line, _)| !excused(*line));
            found.extend(hits.map(|(line, found)| Violation {
                path: source.path.clone(),
                line,
                rule: rule.name,
                found,
                why: rule.why,
            }));
        }
    }
    found.into_iter().collect()
}

impl Rule {
    fn holds_for(&self, path: &str) -> bool {
        let begins = |starts: &[&str]| starts.iter().any(|start| path.starts_with(start));
        (self.within.is_empty() || begins(self.within)) && !begins(self.except)
    }
}

/// A line and what was found there.
type Hit = (usize, String);

impl Forbidden {
    fn hits(&self, source: &Source, all: &[Source]) -> Vec<Hit> {
        let rust = source.path.ends_with(".rs");
        match self {
            Self::Names(names) => names.iter().flat_map(|name| named(source, name)).collect(),
            Self::OtherEdges => other_edges(source),
            Self::MapNames { declared_in, prefix } => map_names(source, all, declared_in, prefix),
            Self::WildcardOver(enums) => wildcards(source, enums),
            Self::Texts(texts) => lines_with(source, |line| texts.iter().find(|text| line.contains(**text))),
            Self::LineStarts(starts) => {
                lines_with(source, |line| starts.iter().find(|start| line.starts_with(**start)))
            }
            Self::FileNames(names) => file_name(source, names),
            Self::NoHeading if rust && !source.text.starts_with("//!") => vec![(1, "no heading".to_owned())],
            Self::MoreLinesThan(most) if rust && source.text.lines().count() > *most => {
                vec![(*most + 1, format!("{} lines", source.text.lines().count()))]
            }
            Self::NoHeading | Self::MoreLinesThan(_) => Vec::new(),
        }
    }
}

/// Where a file names this path or word: in an import, or in code.
fn named(source: &Source, name: &str) -> Vec<Hit> {
    let is_it = |path: &str| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            || path.ends_with(&format!("::{name}"))
    };
    let imports = source.imports.iter().filter(|(_, path)| is_it(path)).map(|(line, _)| *line);
    let code = occurrences(&source.code, name).map(|at| line_at(&source.code, at));
    let lines: BTreeSet<usize> = imports.chain(code).collect();
    lines.into_iter().map(|line| (line, format!("`{name}`"))).collect()
}

/// Offsets of a path or word in code; a part of a longer name is none.
fn occurrences<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    let word = name.bytes().all(|byte| is_name_byte(byte) && !byte.is_ascii_uppercase());
    // Where two name bytes meet, a name goes on.
    let joined =
        move |at: usize| at > 0 && at < bytes.len() && is_name_byte(bytes[at - 1]) && is_name_byte(bytes[at]);
    code.match_indices(name).map(|(at, _)| at).filter(move |&at| {
        // `config::nix` is a module of ours; but `std::time::Instant::now` is what `Instant::now` means.
        let own = word && code[..at].ends_with("::");
        !joined(at) && !joined(at + name.len()) && !own
    })
}

fn other_edges(source: &Source) -> Vec<Hit> {
    const EDGE: &str = "crate::edge::";
    let own = source.path.rsplit_once("/src/edge/").map_or("", |(_, path)| path);
    let own = own.split(['/', '.']).next().unwrap_or(own);
    let edge_of = |path: &str| {
        let name: String = path.chars().take_while(|&c| c == '_' || c.is_alphanumeric()).collect();
        // Capitals are items of the parent itself.
        (name.starts_with(char::is_lowercase) && name != own && name != "self").then_some(name)
    };
    let imports =
        source.imports.iter().filter_map(|(line, path)| Some((*line, edge_of(path.strip_prefix(EDGE)?)?)));
    let code = source
        .code
        .match_indices(EDGE)
        .filter_map(|(at, _)| Some((line_at(&source.code, at), edge_of(&source.code[at + EDGE.len()..])?)));
    let hits: BTreeSet<_> = imports.chain(code).collect();
    hits.into_iter().map(|(line, edge)| (line, format!("edge `{own}` names edge `{edge}`"))).collect()
}

fn map_names(source: &Source, all: &[Source], declared_in: &str, prefix: &str) -> Vec<Hit> {
    let declaring = all.iter().find(|source| source.path == declared_in);
    let names: BTreeSet<_> = declaring
        .iter()
        .flat_map(|source| &source.strings)
        .map(|(_, text)| text)
        .filter(|text| text.starts_with(prefix))
        .collect();
    let literals = source.strings.iter().filter(|(_, text)| names.contains(text));
    literals.map(|(line, text)| (*line, format!("\"{text}\""))).collect()
}

fn wildcards(source: &Source, enums: &[&str]) -> Vec<Hit> {
    let code = &source.code;
    let mut hits = Vec::new();
    for at in occurrences(code, "match ") {
        let Some(open) = code[at..].find('{').map(|found| at + found) else {
            continue;
        };
        let end = block_end(code, open);
        let arms = top_level(&code[open..end]);
        let over = enums.iter().find(|name| occurrences(&arms, &format!("{name}::")).next().is_some());
        let wildcard = occurrences(&arms, "_").find(|&at| {
            let rest = arms[at + 1..].trim_start();
            rest.starts_with("=>") || rest.starts_with("if ")
        });
        if let (Some(name), Some(wildcard)) = (over, wildcard) {
            hits.push((line_at(code, open + wildcard), format!("`_` in a match over `{name}`")));
        }
    }
    hits
}

/// A block with the insides of all blocks and groups in it blanked, so that only arms are left.
fn top_level(block: &str) -> String {
    let mut depth = 0_usize;
    let mut blank = |c: char| {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        // All are one byte, so that offsets stay.
        if depth == 1 || c == '\n' || !c.is_ascii() { c } else { ' ' }
    };
    block.chars().map(&mut blank).collect()
}

fn lines_with<'a>(source: &Source, find: impl Fn(&str) -> Option<&'a &'a str>) -> Vec<Hit> {
    let lines = source.text.lines().enumerate();
    lines.filter_map(|(index, line)| Some((index + 1, format!("\"{}\"", find(line)?)))).collect()
}

fn file_name(source: &Source, names: &[&str]) -> Vec<Hit> {
    let modules = source.path.strip_suffix(".rs").into_iter().flat_map(|path| path.split('/'));
    modules.filter(|module| names.contains(module)).map(|module| (1, format!("`{module}`"))).collect()
}

#[cfg(test)]
mod tests;
