//! Manual pages: one for `lb` and one for each of its commands, from what `--help` says.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_mangen::Man;

/// System administration (man-pages(7)).
const SECTION: &str = "8";

/// What `lb manual` takes. What it prints is for `man -l -`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb manual
  lb manual --dir /usr/local/share/man/man8")]
pub(super) struct ManualOptions {
    /// Write a page for each command into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ManualOptions {
    /// Prints the page of `lb`, or writes all.
    ///
    /// # Errors
    /// The pages cannot be written.
    pub(super) fn run(self) -> Result<()> {
        let mut command = super::Cli::command();
        command.build();
        let Some(dir) = self.dir else {
            super::print(&String::from_utf8_lossy(&page("lb", &command)?)).context("printing the page")?;
            return Ok(());
        };
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        write("lb", &command, &dir)
    }
}

/// Writes the pages of a command and of those under it.
fn write(name: &str, command: &clap::Command, dir: &Path) -> Result<()> {
    let file = dir.join(format!("{name}.{SECTION}"));
    fs::write(&file, page(name, command)?).with_context(|| format!("writing {}", file.display()))?;
    for under in command.get_subcommands().filter(|under| !is_helper(under)) {
        write(&format!("{name}-{}", under.get_name()), under, dir)?;
    }
    Ok(())
}

/// Not for people, or `help`, which pages make needless.
fn is_helper(command: &clap::Command) -> bool {
    command.is_hide_set() || command.get_name() == "help"
}

fn page(name: &str, command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name).section(SECTION).manual("lb").render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options_and_examples() {
        let dir = tempfile::tempdir().expect("a directory");
        ManualOptions { dir: Some(dir.path().join("man8")) }.run().expect("pages");
        let read = |name: &str| fs::read_to_string(dir.path().join("man8").join(name)).expect(name);
        for (name, words) in [
            ("lb.8", "lb\\-backend(8)"),
            ("lb-run.8", "keep\\-forwarding"),
            ("lb-backend-drain.8", "lb backend drain web w1"),
        ] {
            assert!(read(name).contains(words), "{name}:\n{}", read(name));
        }
        let pages = fs::read_dir(dir.path().join("man8")).expect("pages").count();
        assert_eq!(pages, count(&super::super::Cli::command()), "a page for each command");
    }

    fn count(command: &clap::Command) -> usize {
        1 + command.get_subcommands().filter(|under| !is_helper(under)).map(count).sum::<usize>()
    }
}
