//! Pins: names in a bpffs that keep programs' links and maps alive without the daemon.
//!
//! Layout: `DIR/v<ABI>/<map name>` and `DIR/v<ABI>/link-<interface>`, DIR being `/sys/fs/bpf/lb` unless told otherwise.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where a bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// What can go wrong with pins.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// There is no bpffs and none can be mounted.
    #[error("{path} is on no bpffs, and none could be mounted at {BPFFS} (try: mount -t bpf bpf {BPFFS})")]
    NoBpffs {
        /// The directory for pins.
        path: PathBuf,
        /// What mount said.
        #[source]
        source: io::Error,
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
        let source = io::Error::new(io::ErrorKind::Unsupported, "not a bpffs");
        return Err(PinsError::NoBpffs { path: directory.to_owned(), source });
    }
    fs::create_dir_all(directory).map_err(|source| PinsError::Path {
        what: "create",
        path: directory.to_owned(),
        source,
    })
}

/// Whether the directory, or the nearest one above it that exists, is on a bpffs.
fn on_bpffs(directory: &Path) -> bool {
    directory
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .and_then(|ancestor| statfs(ancestor).ok())
        .is_some_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Pins under a path, in place of whatever is pinned there.
///
/// # Errors
/// [`PinsError::Path`].
pub fn replace(path: &Path, pin: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), PinsError> {
    remove(path)?;
    pin(path).map_err(|source| PinsError::Path { what: "pin", path: path.to_owned(), source })
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
