//! Pins: names in a bpffs that keep programs' links and maps alive without the daemon.
//!
//! One process at a time holds the directory ([`claim`]).
//!
//! Layout: `DIR/v<ABI>/<map name>` and `DIR/link-<interface>`, DIR being `/sys/fs/bpf/lb` unless told otherwise. A link
//! is the same whatever the version, so that any can take it over.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where a bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// What can go wrong with pins.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The directory is elsewhere.
    #[error(
        "{path} is on no bpffs: choose a directory below {BPFFS}, or mount one here (mount -t bpf bpf {path})"
    )]
    Elsewhere {
        /// The directory for pins.
        path: PathBuf,
    },
    /// There is no bpffs and none can be mounted.
    #[error("{path} is on no bpffs, and none could be mounted at {BPFFS} (try: mount -t bpf bpf {BPFFS})")]
    NoBpffs {
        /// The directory for pins.
        path: PathBuf,
        /// What mount said.
        #[source]
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error(
        "another lb{} uses the pins in {path}: stop it first, or choose another --pins",
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// Its process id, if that can be seen from here.
        holder: Option<u32>,
    },
    /// A directory or pin cannot be made or removed.
    #[error("cannot {what} {path}")]
    Path {
        /// The verb.
        what: &'static str,
        /// The pin or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Makes the directory, mounting a bpffs at its usual place if there is none.
///
/// # Errors
/// [`PinsError`].
pub fn prepare(directory: &Path) -> Result<(), PinsError> {
    if !on_bpffs(directory) && directory.starts_with(BPFFS) {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|error| PinsError::NoBpffs { path: directory.to_owned(), source: error.into() })?;
        tracing::info!("mounted a bpffs at {BPFFS}");
    }
    if !on_bpffs(directory) {
        return Err(PinsError::Elsewhere { path: directory.to_owned() });
    }
    fs::create_dir_all(directory).map_err(|source| PinsError::Path {
        what: "create",
        path: directory.to_owned(),
        source,
    })
}

/// A directory of pins that no other process uses, as long as this lives.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _directory: Flock<File>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // It stays if anything is pinned in it, and need not if nothing is.
        drop(fs::remove_dir(&self.path));
    }
}

/// Makes the directory as [`prepare`] does, and takes it for this process. The lock is on the directory itself,
/// so it holds by whatever path others come; a bpffs takes no file that could be locked instead.
///
/// # Errors
/// [`PinsError`].
pub fn claim(directory: &Path) -> Result<Claim, PinsError> {
    loop {
        prepare(directory)?;
        let failed = |what| move |source| PinsError::Path { what, path: directory.to_owned(), source };
        let opened = File::open(directory).map_err(failed("open"))?;
        let inode = opened.metadata().map_err(failed("look at"))?.ino();
        match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            // Whoever held it may just have removed it: then the lock is on nothing.
            Ok(_) if fs::metadata(directory).ok().is_none_or(|now| now.ino() != inode) => {}
            Ok(locked) => return Ok(Claim { path: directory.to_owned(), _directory: locked }),
            Err((_, Errno::EWOULDBLOCK)) => {
                let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                return Err(PinsError::Taken { path: directory.to_owned(), holder: holder(&locks, inode) });
            }
            Err((_, error)) => return Err(failed("lock")(error.into())),
        }
    }
}

/// Who holds a lock by flock(2) on an inode, by the words of `/proc/locks` (proc(5)):
/// `1: FLOCK ADVISORY WRITE 708 00:1f:13569 0 EOF`.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words[..] else { return None };
        (file.rsplit(':').next()? == inode.to_string()).then(|| pid.parse().ok())?
    })
}

/// Where a version of the layouts has its maps.
pub fn of_version(root: &Path, version: u32) -> PathBuf {
    root.join(format!("v{version}"))
}

/// Versions whose maps are pinned, the oldest first.
///
/// # Errors
/// [`PinsError::Path`].
pub fn versions(root: &Path) -> Result<Vec<u32>, PinsError> {
    let mut versions: Vec<u32> =
        names(root, "v")?.iter().filter_map(|version| version.parse().ok()).collect();
    versions.sort_unstable();
    Ok(versions)
}

/// What follows `prefix` in the names of a directory's pins. None if there is no directory.
///
/// # Errors
/// [`PinsError::Path`].
pub fn names(directory: &Path, prefix: &str) -> Result<Vec<String>, PinsError> {
    let failed = |source| PinsError::Path { what: "read", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_string_lossy().strip_prefix(prefix).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Whether the directory, or the nearest one above it that exists, is on a bpffs.
fn on_bpffs(directory: &Path) -> bool {
    directory
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .and_then(|ancestor| statfs(ancestor).ok())
        .is_some_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Pins under a path, in place of whatever is pinned there: at no moment is nothing.
///
/// # Errors
/// [`PinsError::Path`].
pub fn replace(path: &Path, pin: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), PinsError> {
    // A bpffs takes no dots in names.
    let mut beside = path.as_os_str().to_owned();
    beside.push("-new");
    let beside = PathBuf::from(beside);
    remove(&beside)?;
    pin(&beside).map_err(|source| PinsError::Path { what: "pin", path: beside.clone(), source })?;
    rename(&beside, path)
}

/// Gives a pin another name, in place of whatever is pinned there: at no moment is nothing.
///
/// # Errors
/// [`PinsError::Path`].
pub fn rename(from: &Path, to: &Path) -> Result<(), PinsError> {
    fs::rename(from, to).map_err(|source| PinsError::Path { what: "rename", path: from.to_owned(), source })
}

/// Removes one pin, if it is there.
///
/// # Errors
/// [`PinsError::Path`].
pub fn remove(path: &Path) -> Result<(), PinsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinsError::Path { what: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes every pin of a directory, the directory, and those above it that are then empty, up to `root`.
///
/// # Errors
/// [`PinsError::Path`].
pub fn clear(directory: &Path, root: &Path) -> Result<(), PinsError> {
    let failed = |what| move |source| PinsError::Path { what, path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("read"))?,
    };
    for entry in entries {
        remove(&entry.map_err(failed("read"))?.path())?;
    }
    fs::remove_dir(directory).map_err(failed("remove"))?;
    // Another ABI version's directory may stand beside ours: then the root stays.
    match fs::remove_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => result.map_err(failed("remove the directory above")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_directory_is_found_by_its_inode() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 1 00:1f:77 0 EOF
2: FLOCK  ADVISORY  WRITE 708 00:1f:13569 0 EOF
2: -> FLOCK  ADVISORY  WRITE 709 00:1f:77 0 EOF
3: FLOCK  ADVISORY  WRITE 999 00:1f:77 0 EOF
";
        assert_eq!(holder(locks, 13569), Some(708));
        assert_eq!(holder(locks, 77), Some(999));
        assert_eq!(holder(locks, 1), None);
    }
}
