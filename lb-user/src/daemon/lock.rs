//! The pid file: says who the daemon is, and by a lock on it that there is only one.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Held for the daemon's life; the file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock and writes this process's id.
    ///
    /// # Errors
    /// Another daemon holds it (its pid is named), or the file cannot be written.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot open {shown}"))?;
        let mut holder = String::new();
        // What an unlocked file says is of no interest.
        drop(file.read_to_string(&mut holder));
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, error)) => {
                bail!("another lb runs here with pid {} ({shown}: {error})", holder.trim())
            }
        };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", process::id()))
            .with_context(|| format!("cannot write {shown}"))?;
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked, so that no other daemon can have taken it.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the pid file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_it_and_the_other_hears_who() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.pid");
        let first = Lock::take(&path).unwrap();
        let refusal = Lock::take(&path).unwrap_err().to_string();
        assert!(refusal.contains(&format!("pid {}", process::id())), "{refusal}");
        drop(first);
        assert!(!path.exists());
        Lock::take(&path).unwrap();
    }
}
