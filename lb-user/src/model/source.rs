//! A configuration as it was read: texts and where they come from. What they mean is said elsewhere.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// The file's text, and those of the files that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file's own text.
    pub text: String,
    /// The files that it names.
    pub files: Files,
}

/// Files by their names as they are written: the text of each, or why it cannot be read.
pub type Files = BTreeMap<String, Result<Arc<str>, String>>;

impl Source {
    /// A text that names no files.
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), files: Files::new() }
    }

    /// What tells it from others.
    pub fn tag(&self) -> Tag {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        Tag(hasher.finish())
    }
}

/// A digest of a configuration's texts, 64 bits: equal texts have the same, also after a restart. It guards against
/// mistakes, not against somebody who looks for two texts with one digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(u64);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
