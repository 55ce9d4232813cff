//! A configuration as it was read: texts and where they come from. What they mean is said elsewhere.

use std::{collections::BTreeMap, sync::Arc};

/// The file's text, and those of the files that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}
