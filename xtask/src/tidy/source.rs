//! A file as the rules see it: its text, and for Rust its code without comments and literals, the literals, and
//! the paths it names, imports taken apart.
//!
//! No full parser: enough of the language that a comment or a string is never taken for code.

use std::ops::Range;

/// A file. Lines are counted from 1.
pub(crate) struct Source {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// The code: as long as the text, but comments and the insides of literals are blank. Empty if not Rust.
    pub(crate) code: String,
    /// String literals: line, content as written, without quotes.
    pub(crate) strings: Vec<(usize, String)>,
    /// Paths in `use` declarations, one for each name: line and path, `super` and `self` resolved.
    pub(crate) imports: Vec<(usize, String)>,
    /// Beginnings of the paths of `#[cfg(test)]` modules that are files of their own.
    pub(crate) test_files: Vec<String>,
    /// Lines of `#[cfg(test)]` modules within this file.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Takes a file apart.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: String::new(),
            strings: Vec::new(),
            imports: Vec::new(),
            test_files: Vec::new(),
            tests: Vec::new(),
        };
        if path.ends_with(".rs") {
            (source.code, source.strings) = strip(text);
            (source.tests, source.test_files) = test_modules(&source.code, path);
            source.imports = imports(&source.code, &module(path));
        }
        source
    }

    /// Whether a line belongs to unit tests.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }
}

/// The line that a byte offset is in.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The end of the block that opens at or after `start`: the offset behind its closing brace.
pub(crate) fn block_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return offset + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether this byte may be part of a name.
pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Blanks comments and the insides of literals, and collects the string literals.
fn strip(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_name = at > 0 && is_name_byte(bytes[at - 1]);
        let (end, inside) = if rest.starts_with(b"//") {
            let end = at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            (end, at..end)
        } else if rest.starts_with(b"/*") {
            let end = comment_end(bytes, at);
            (end, at..end)
        } else if let Some(hashes) = raw_string(rest).filter(|_| !after_name) {
            let start = at + rest.iter().position(|&byte| byte == b'"').unwrap_or(0) + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let end = text
                .get(start..)
                .and_then(|rest| rest.find(&close))
                .map_or(bytes.len(), |found| start + found);
            strings.push((line_at(text, at), text[start..end].to_owned()));
            (bytes.len().min(end + close.len()), start..end)
        } else if rest[0] == b'"' {
            let end = quote_end(bytes, at + 1, b'"');
            strings.push((line_at(text, at), text[at + 1..end].to_owned()));
            (bytes.len().min(end + 1), at + 1..end)
        } else if rest[0] == b'\'' && is_char(rest) {
            let end = quote_end(bytes, at + 1, b'\'');
            (bytes.len().min(end + 1), at + 1..end)
        } else {
            (at + 1, at..at)
        };
        for byte in &mut code[inside] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    (String::from_utf8_lossy(&code).into_owned(), strings)
}

/// Comments nest.
fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The number of hashes, if a raw string starts here: `r"`, `r#"`, `br"`, `cr"`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"b").or_else(|| rest.strip_prefix(b"c")).unwrap_or(rest);
    let rest = rest.strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn quote_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// A character, not a lifetime: it is escaped, or closes after one character.
fn is_char(rest: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]);
    let mut chars = text.chars();
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

/// The modules under `#[cfg(test)]`: lines of those in this file, paths (without `.rs`) of the others.
fn test_modules(code: &str, path: &str) -> (Vec<Range<usize>>, Vec<String>) {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let (dir, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let dir = if ["lib", "main", "mod"].contains(&name) { dir } else { stem };
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let item = &code[at + attribute.len()..];
        let Some(end) = item.find([';', '{']) else {
            continue;
        };
        let mut words = item[..end].split_whitespace();
        if !words.any(|word| word == "mod") {
            continue;
        }
        if item[end..].starts_with('{') {
            lines.push(line_at(code, at)..line_at(code, block_end(code, at)) + 1);
        } else {
            files.extend(words.next().map(|name| format!("{dir}/{name}")));
        }
    }
    (lines, files)
}

/// The module that a file is: `crate::edge::probe` for `lb-user/src/edge/probe.rs`.
fn module(path: &str) -> Vec<String> {
    let path = path.split_once("/src/").map_or(path, |(_, path)| path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let inner = path.split('/').filter(|name| !["lib", "main", "mod"].contains(name));
    std::iter::once("crate").chain(inner).map(str::to_owned).collect()
}

fn imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("use ") {
        let starts = at == 0 || !is_name_byte(code.as_bytes()[at - 1]);
        let Some(length) = code[at..].find(';').filter(|_| starts) else {
            continue;
        };
        let tree: String =
            code[at + word.len()..at + length].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut paths = Vec::new();
        expand("", &tree, &mut paths);
        let line = line_at(code, at);
        found.extend(paths.into_iter().map(|path| (line, resolve(&path, module))));
    }
    found
}

/// Takes `a::{b, c::{d, e}}` apart into `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or(tree).trim();
        if !name.is_empty() {
            paths.push(format!("{prefix}{name}"));
        }
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut start, mut depth) = (0, 0_usize);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                expand(&prefix, &group[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, &group[start..], paths);
}

/// Writes `self::` and `super::` as `crate::…`.
fn resolve(path: &str, module: &[String]) -> String {
    let mut rest = path.trim_start_matches("::");
    let mut base = module;
    let mut relative = false;
    if let Some(after) = rest.strip_prefix("self::") {
        (rest, relative) = (after, true);
    }
    while let Some(after) = rest.strip_prefix("super::") {
        (rest, relative) = (after, true);
        base = &base[..base.len().saturating_sub(1)];
    }
    if relative { format!("{}::{rest}", base.join("::")) } else { rest.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x\"y", 'q', '\'')"#, r#"f("    ", ' ', '  ')"#),
            ("g::<'a>(r#\"a\"b\"#)", "g::<'a>(r#\"   \"#)"),
            ("\"// no comment\" x", "\"             \" x"),
            ("for \"a\"", "for \" \""),
        ];
        for (text, code) in cases {
            assert_eq!(Source::new("a.rs", text).code, code, "{text}");
        }
    }

    #[test]
    fn a_file_that_breaks_off_is_read_to_its_end() {
        for text in ["\"a", "'\\", "/* a", "r#\"a", "use a::{b", "#[cfg(test)]\nmod tests {", "\"a\\"] {
            assert_eq!(Source::new("a.rs", text).code.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn strings_come_with_their_line() {
        let source = Source::new("a.rs", "\n\"a\" // \"b\"\nr\"c\"");
        assert_eq!(source.strings, [(2, "a".to_owned()), (3, "c".to_owned())]);
    }

    #[test]
    fn imports_are_taken_apart() {
        let text =
            "use std::{\n    fs as files,\n    io::{self, Read},\n};\nuse super::{a, b::C};\nuse self::d;";
        let source = Source::new("lb-user/src/edge/probe.rs", text);
        let paths: Vec<_> = source.imports.iter().map(|(line, path)| (*line, path.as_str())).collect();
        let expected = [
            (1, "std::fs"),
            (1, "std::io::self"),
            (1, "std::io::Read"),
            (5, "crate::edge::a"),
            (5, "crate::edge::b::C"),
            (6, "crate::edge::probe::d"),
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn unit_tests_are_told_from_code() {
        let source =
            Source::new("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n");
        let tests: Vec<_> = (1..=6).filter(|&line| source.is_test(line)).collect();
        assert_eq!(tests, [2, 3, 4, 5]);

        let apart = "#[cfg(test)]\npub(crate) mod lab;\nfn a() { b(); }\n";
        for (path, file) in
            [("x/src/lib.rs", "x/src/lab"), ("x/src/a/mod.rs", "x/src/a/lab"), ("x/src/a.rs", "x/src/a/lab")]
        {
            let source = Source::new(path, apart);
            assert_eq!(source.test_files, [file]);
            assert!(!source.is_test(3));
        }
    }
}
