//! The structural rules of this repository as a checker: what may name what, and where things may stand.
//!
//! The rules are a table in [`rules`]; [`source`] is what a rule sees of a file. The compiler and clippy check
//! the rest: nothing they can say stands here.

mod check;
mod rules;
mod source;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use self::source::Source;
use crate::{process, workspace::Workspace};

/// Checks every file of the repository and prints each violation as `path:line: rule: why`.
///
/// # Errors
/// Files cannot be listed or read, or there are violations.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let sources = read(workspace.root())?;
    let violations = check::violations(&sources);
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} of the rules in xtask/src/tidy/rules.rs are broken", violations.len());
    }
    println!("{} files keep all {} rules", sources.len(), rules::RULES.len());
    Ok(())
}

/// Every text file that is, or could be, committed.
fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in list(root)? {
        let file = root.join(&path);
        // Deleted but not yet committed, or a link to a directory.
        if !file.is_file() {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source::new(&path, &text));
        }
    }
    Ok(sources)
}

/// Paths relative to the root: git's, or all of them where there is no git.
fn list(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    if let Ok(names) = process::output(&mut git) {
        return Ok(names.split_terminator('\0').map(str::to_owned).collect());
    }
    let mut paths = Vec::new();
    walk(root, root, &mut paths)?;
    paths.sort();
    Ok(paths)
}

fn walk(root: &Path, dir: &Path, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        if !path.is_dir() {
            paths.push(name);
        } else if !["target", ".git"].contains(&name.as_str()) {
            walk(root, &path, paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() -> Result<()> {
        run(&Workspace::find()?)
    }

    #[test]
    fn without_git_the_same_files_are_found() -> Result<()> {
        let dir = tempfile::tempdir()?;
        for file in ["src/a.rs", "target/b.rs", ".ci/run", "Cargo.toml"] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().context("has a parent")?)?;
            fs::write(file, "")?;
        }
        assert_eq!(list(dir.path())?, [".ci/run", "Cargo.toml", "src/a.rs"]);
        Ok(())
    }
}
