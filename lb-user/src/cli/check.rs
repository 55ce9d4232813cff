//! `lb check`: says everything that is wrong with a configuration file, and touches nothing.

use std::path::PathBuf;

use super::print;
use crate::{
    config,
    edge::config_file,
    exit::{Exit, Failure},
    model::source::Source,
};

/// Options of `lb check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb check /etc/lb/lb.toml")]
pub(super) struct CheckOptions {
    /// The configuration file
    file: PathBuf,
}

impl CheckOptions {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let file = self.file.display().to_string();
        let source = config_file::read(&self.file, config::files_named)
            .map_err(|error| Failure { exit: Exit::NoInput, message: error.to_string() })?;
        let summary = verdict(&source, &file).map_err(|message| Failure { exit: Exit::Config, message })?;
        print(&summary)?;
        Ok(())
    }
}

/// A line about a valid file, or the report of all its errors.
fn verdict(source: &Source, file: &str) -> Result<String, String> {
    let desired = config::parse(&source.text, &source.files).map_err(|errors| errors.report(file))?;
    let backends: usize = desired.pools.iter().map(|pool| pool.backends.len()).sum();
    Ok(format!(
        "{file} is valid: {} services, {} pools, {backends} backends\n",
        desired.services.len(),
        desired.pools.len()
    ))
}
