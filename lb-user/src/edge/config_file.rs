//! The configuration file on disk, and the files that it names: read, replaced as a whole, and watched. Texts are not
//! looked into here; which files one names, someone else knows.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{EventKind, RecursiveMode, Watcher as _, event::AccessKind, event::AccessMode};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::model::source::Source;

/// Larger files are refused unread: a configuration of every service `lb` can hold is smaller.
const MAX_BYTES: u64 = 64 << 20;

/// A change counts once the file has looked the same for this long.
const QUIET: Duration = Duration::from_millis(100);

/// A change counts after this long in any case, however often the file is written.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often to look while a directory on the way to the file cannot be watched, as when it was removed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The most symbolic links that are followed on the way to the file (Linux follows 40 itself).
const MAX_LINKS: usize = 40;

/// A configuration file. Clones are the same file and share what they last saw in it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    named: FilesNamed,
    /// What was last read, written or reported; `None` if it could not be read. What equals it is no news.
    known: Arc<Mutex<Option<Source>>>,
}

/// The files that a text names, as it writes them.
pub type FilesNamed = fn(&str) -> BTreeSet<String>;

/// What happened to the file.
#[derive(Debug)]
pub enum ConfigFileEvent {
    /// It has another text than before, or can be read again; or a file has that it names.
    Changed(Source),
    /// It cannot be read any more. Reported once, until it can.
    Unreadable(ConfigFileError),
}

/// What could not be done to the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// Reading failed.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It holds something else than text.
    #[error("cannot read {}: it is not UTF-8 text (byte {valid_up_to})", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Everything before this byte is text.
        valid_up_to: usize,
    },
    /// It is far too large.
    #[error("cannot read {}: it is larger than {MAX_BYTES} bytes, so surely no configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Writing failed; the file is as it was.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Someone else changed it since it was read; it was not touched.
    #[error("{} was changed by someone else in the meantime: nothing was written, try again", path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// The kernel cannot tell about changes.
    #[error("cannot watch {}: {error}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: notify::Error,
    },
}

impl ConfigFileError {
    /// The reason, for those who know the file.
    fn why(&self) -> String {
        match self {
            Self::Read { error, .. } | Self::Write { error, .. } => error.to_string(),
            Self::NotText { valid_up_to, .. } => format!("it is not UTF-8 text (byte {valid_up_to})"),
            Self::TooLarge { .. } => format!("it is larger than {MAX_BYTES} bytes"),
            Self::ChangedMeanwhile { .. } => "it was changed in the meantime".to_owned(),
            Self::Watch { error, .. } => error.to_string(),
        }
    }
}

impl ConfigFile {
    /// The file at a path, which may be a symbolic link and need not exist yet.
    pub fn new(path: impl Into<PathBuf>, named: FilesNamed) -> Self {
        Self { path: path.into(), named, known: Arc::default() }
    }

    /// Its path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it, and the files that it names. The watcher does not report the same texts again.
    ///
    /// # Errors
    /// If it cannot be read, or is no text.
    pub async fn read(&self) -> Result<Source, ConfigFileError> {
        let named = self.named;
        self.alone(move |path, known| {
            let source = read(path, named);
            *known = source.as_ref().ok().cloned();
            source
        })
        .await
    }

    /// A text that may take the file's place, with the files that it names.
    pub async fn with_files(&self, text: String) -> Source {
        let (path, named) = (self.path.clone(), self.named);
        let read = tokio::task::spawn_blocking({
            let text = text.clone();
            move || read_named(&path, named, text)
        });
        // The task does not panic; should it all the same, the files are missing, which is an error of the text.
        read.await.unwrap_or_else(|_| Source::of(text))
    }

    /// Replaces its text `base` by `text`: at any moment, also after a crash, it holds the one or the other.
    /// Mode and owner stay; a symbolic link stays one. The watcher does not report the new text.
    ///
    /// # Errors
    /// [`ConfigFileError::ChangedMeanwhile`] if it does not hold `base` any more; else whatever the system said.
    pub async fn replace(&self, base: &str, text: &str) -> Result<(), ConfigFileError> {
        let (base, text) = (base.to_owned(), text.to_owned());
        self.alone(move |path, known| {
            if read_text(path)? != base {
                return Err(ConfigFileError::ChangedMeanwhile { path: path.to_owned() });
            }
            replace(path, &text).map_err(|error| ConfigFileError::Write { path: path.to_owned(), error })?;
            // What the files held when they were last told of: a change of theirs is still news.
            let files = known.take().unwrap_or_default().files;
            *known = Some(Source { text, files });
            Ok(())
        })
        .await
    }

    /// Watches it until the receiver of `events` is gone, through removal, re-creation, editors that rename
    /// and swaps of symbolic links on its way. First reports what changed since it was last read.
    ///
    /// # Errors
    /// [`ConfigFileError::Watch`] if the kernel has no watch to give.
    pub async fn watch(&self, events: mpsc::Sender<ConfigFileEvent>) -> Result<(), ConfigFileError> {
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let handler = move |event: notify::Result<notify::Event>| {
            // Errors wake, too: looking once too often costs nothing. Our own reading must not.
            if event.map_or(true, |event| is_change(event.kind)) {
                wake.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(handler)
            .map_err(|error| ConfigFileError::Watch { path: self.path.clone(), error })?;
        let mut watched = BTreeSet::new();
        loop {
            // Watch first, then look: what changes in between wakes us again.
            let all_watched = self.follow(&mut watcher, &mut watched);
            if let Some(event) = self.news().await {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
                // It may name other files now.
                woken.notify_one();
            }
            tokio::select! {
                () = events.closed() => return Ok(()),
                () = woken.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN), if !all_watched => {
                    // A directory that was removed and made again needs a new watch.
                    for directory in std::mem::take(&mut watched) {
                        // It may be gone, and its watch with it.
                        drop(watcher.unwatch(&directory));
                    }
                }
            }
        }
    }

    /// The files that the text last known names.
    fn files_known(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().flat_map(|source| source.files.keys().cloned()).collect()
    }

    /// Watches every directory in which a link on the way to the file, or to one that it names, or the file itself,
    /// stands. Whether all could be.
    fn follow(&self, watcher: &mut notify::RecommendedWatcher, watched: &mut BTreeSet<PathBuf>) -> bool {
        let files = self.files_known().into_iter().map(|name| path_of(&self.path, &name));
        let wanted: BTreeSet<PathBuf> =
            files.chain([self.path.clone()]).flat_map(|path| directories(&path)).collect();
        for directory in watched.iter().filter(|directory| !wanted.contains(*directory)) {
            drop(watcher.unwatch(directory));
        }
        watched.retain(|directory| wanted.contains(directory));
        let mut all = true;
        for directory in wanted {
            // The kernel drops a watch silently when its directory goes, so each is set again: on a
            // directory that is watched already this changes nothing.
            if watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
                watched.insert(directory);
            } else {
                all = false;
            }
        }
        all
    }

    /// Tells if the file is not as known, once it looks the same twice. Editors write in several steps, and
    /// what is there in between must not take effect: least of all an empty file, which is a valid
    /// configuration that balances nothing. So empty counts only after [`PATIENCE`].
    async fn news(&self) -> Option<ConfigFileEvent> {
        let end = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            let is_late = Instant::now() >= end;
            let named = self.named;
            match self.alone(move |path, known| look(read(path, named), known, last.as_ref(), is_late)).await
            {
                Look::AsKnown => return None,
                Look::News(event) => return Some(event),
                Look::Unsettled(source) => last = Some(source),
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    /// Does something to the file where it may block, and with what is known of it in hand: another look, or
    /// a replacement of ours, which takes long on a busy disk, comes before or after, but never in between.
    async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path, &mut Option<Source>) -> T + Send + 'static,
    ) -> T {
        let (path, known) = (self.path.clone(), Arc::clone(&self.known));
        let work = move || work(&path, &mut known.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            // The runtime never cancels blocking work that has begun, so it can only have panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// What one look at the file found.
enum Look {
    /// Nothing new.
    AsKnown,
    /// Something new that may still be being written; `None` if it cannot be read.
    Unsettled(Option<Source>),
    /// Something new, known from now on.
    News(ConfigFileEvent),
}

/// Compares what was found with what is known, and with what the look before found.
fn look(
    found: Result<Source, ConfigFileError>,
    known: &mut Option<Source>,
    last: Option<&Option<Source>>,
    is_late: bool,
) -> Look {
    let source = found.as_ref().ok().cloned();
    if source == *known {
        return Look::AsKnown;
    }
    let is_settled = last == Some(&source) && !source.as_ref().is_some_and(has_empty_file);
    if !is_settled && !is_late {
        return Look::Unsettled(source);
    }
    known.clone_from(&source);
    Look::News(match found {
        Ok(source) => ConfigFileEvent::Changed(source),
        Err(error) => ConfigFileEvent::Unreadable(error),
    })
}

fn has_empty_file(source: &Source) -> bool {
    let mut texts = source.files.values().filter_map(|file| file.as_deref().ok());
    source.text.trim().is_empty() || texts.any(|text| text.trim().is_empty())
}

/// Whether something may have been changed, not only looked at.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Reads a configuration and the files that it names. A file's name is relative to the configuration's directory.
///
/// # Errors
/// If the configuration itself cannot be read, or is no text. Of the others the source says so.
pub fn read(path: &Path, named: FilesNamed) -> Result<Source, ConfigFileError> {
    Ok(read_named(path, named, read_text(path)?))
}

fn read_named(path: &Path, named: FilesNamed, text: String) -> Source {
    let read = |name: String| {
        let text = read_text(&path_of(path, &name)).map(Arc::from).map_err(|error| error.why());
        (name, text)
    };
    let files = named(&text).into_iter().map(read).collect();
    Source { text, files }
}

/// Where a file is that a configuration names.
fn path_of(configuration: &Path, name: &str) -> PathBuf {
    configuration.parent().unwrap_or(Path::new("")).join(name)
}

fn read_text(path: &Path) -> Result<String, ConfigFileError> {
    let failed = |error| ConfigFileError::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigFileError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| ConfigFileError::NotText {
        path: path.to_owned(),
        valid_up_to: error.utf8_error().valid_up_to(),
    })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let target = fs::canonicalize(path)?;
    let directory = target.parent().unwrap_or(Path::new("/"));
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    let old = fs::metadata(&target)?;

    let mut new = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    let owner = new.as_file().metadata()?;
    if (owner.uid(), owner.gid()) != (old.uid(), old.gid()) {
        fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner: changing that may clear mode bits.
    new.as_file().set_permissions(old.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&target).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}

/// The directories of the path itself and of each link that leads on from it, through directories that are
/// links as well.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    for _ in 0..MAX_LINKS {
        let Some(path) = pending.pop() else { break };
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => continue,
        };
        // By its real name, so that a directory a link no longer leads to is no longer watched.
        directories.insert(fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned()));
        if let Ok(target) = fs::read_link(&path) {
            pending.push(directory.join(target));
        }
        // The directory may be a link, too: then where that link stands matters as well.
        if fs::read_link(directory).is_ok() {
            pending.push(directory.to_owned());
        }
    }
    directories
}

#[cfg(test)]
mod tests;
