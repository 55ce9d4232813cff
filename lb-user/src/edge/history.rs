//! Configurations that were in force, on disk: a file for each, so that one can go back after a restart as well.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::model::history::{KEPT, Past};

/// What the names of the files end with; a number of eight digits comes before.
const ENDING: &str = ".toml";

/// A directory of past configurations.
#[derive(Clone, Debug)]
pub struct HistoryFiles {
    directory: PathBuf,
}

impl HistoryFiles {
    /// In a directory, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads them. Files that no daemon wrote are passed over.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn read(&self) -> io::Result<Vec<Past>> {
        let read = |number| Past::of_file(number, &fs::read_to_string(self.path_of(number)).ok()?);
        Ok(self.numbers()?.into_iter().filter_map(read).collect())
    }

    /// Adds one, and removes those too many.
    ///
    /// # Errors
    /// It cannot be written; those that are there stay.
    pub fn keep(&self, past: &Past) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.directory)?;
        file.write_all(past.to_file().as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.path_of(past.number)).map_err(|error| error.error)?;
        let numbers = self.numbers()?;
        for &number in &numbers[..numbers.len().saturating_sub(KEPT)] {
            fs::remove_file(self.path_of(number))?;
        }
        Ok(())
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:08}{ENDING}"))
    }

    /// Numbers of those that are there, the oldest first.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(ENDING)?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(number: u64) -> Past {
        let (time, said) = ("2026-01-01T00:00:00.000Z".to_owned(), "applied".to_owned());
        Past { number, time, said, text: format!("# {number}\n") }
    }

    #[test]
    fn the_last_few_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let files = HistoryFiles::new(directory.path().join("not/yet"));
        assert_eq!(files.read().unwrap(), []);
        let last = KEPT as u64 + 5;
        for number in 1..=last {
            files.keep(&past(number)).unwrap();
        }
        fs::write(files.directory().join("README"), "not ours").unwrap();
        fs::write(files.directory().join("00000099.toml"), "no comment").unwrap();
        assert_eq!(files.read().unwrap(), (6..=last).map(past).collect::<Vec<_>>());
    }
}
