//! `lb import`: configurations of other balancers.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;

use super::{Global, ask::json, print};
use crate::{
    exit::{Exit, Failure},
    import::{Format, Imported, import},
};

/// Whose configuration is read.
#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// What `ipvsadm-save -n` writes
    #[command(after_help = "Examples:
  lb import ipvsadm rules
  lb import ipvsadm /dev/stdin")]
    Ipvsadm {
        /// The file
        file: PathBuf,
    },
    /// The virtual servers of a keepalived.conf
    #[command(after_help = "Examples:
  lb import keepalived /etc/keepalived/keepalived.conf")]
    Keepalived {
        /// The file
        file: PathBuf,
    },
}

/// For programs.
#[derive(Serialize)]
struct Answer {
    /// The configuration.
    text: String,
    /// What is not in it.
    notes: Vec<NoteView>,
    /// What has to be changed before lb takes it.
    errors: Vec<String>,
}

#[derive(Serialize)]
struct NoteView {
    line: usize,
    text: String,
}

impl ImportCommand {
    /// Prints the configuration, and tells of what is not in it on standard error.
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let (format, file) = match self {
            Self::Ipvsadm { file } => (Format::Ipvsadm, file),
            Self::Keepalived { file } => (Format::Keepalived, file),
        };
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {shown}"))
            .map_err(|error| Failure { exit: Exit::NoInput, message: format!("{error:#}") })?;
        let Imported { text, notes, errors } = import(format, &text);
        if global.json {
            let notes = notes.into_iter().map(|note| NoteView { line: note.line, text: note.text }).collect();
            print(&json(&Answer { text, notes, errors: errors.clone() })?)?;
        } else {
            print(&text)?;
            for note in notes {
                eprintln!("{shown}:{}: {}", note.line, note.text);
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Failure { exit: Exit::Data, message: errors.join("\n") }.into())
    }
}
