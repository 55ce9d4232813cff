//! `lb status`: the daemon's word, or where none runs what an earlier one left.

use std::path::{Path, PathBuf};

use super::{
    Global,
    ask::{Ask, json},
    print,
    run::DEFAULT_PINS,
};
use crate::{
    api::Request,
    client::ClientError,
    edge::kernel::{Left, left},
};

/// Options of `lb status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb status
  lb -j status
  lb status --pins /sys/fs/bpf/other")]
pub(super) struct StatusOptions {
    /// Where the daemon pins programs and maps: where none runs, what they do is told from there
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PINS)]
    pins: PathBuf,
}

impl StatusOptions {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let error = match global.ask(&Ask::of(Request::Status)) {
            Err(error) if matches!(error.downcast_ref(), Some(ClientError::NoDaemon { .. })) => error,
            result => return result,
        };
        let left = left(&self.pins)?;
        print(&if global.json { json(&left)? } else { said(&left, &self.pins) })?;
        Err(error)
    }
}

/// What an earlier daemon left, for people.
fn said(left: &Left, pins: &Path) -> String {
    let pins = pins.display();
    if left.interfaces.is_empty() {
        return format!("no daemon runs, and nothing forwards: no program is pinned in {pins}\n");
    }
    let mut text = format!(
        "no daemon runs; the programs of an earlier one forward on {}\n\
         nothing is probed, and no change of a MAC address is followed\n",
        left.interfaces.join(", ")
    );
    if let Some(tables) = &left.tables {
        text.push_str(&format!(
            "tables of version {} in {pins}: {} services, {} backends, {} of them taking new flows\n",
            tables.version, tables.services, tables.backends, tables.taking
        ));
    } else if let Some(version) = left.version {
        text.push_str(&format!("tables of version {version} in {pins}, which this lb cannot read\n"));
    }
    text.push_str("`lb run` goes on with them; `cargo xtask detach` ends the forwarding\n");
    text
}
