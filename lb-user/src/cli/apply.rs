//! `lb plan`, `apply`, `confirm`, `rollback` and `history`: configurations as a whole.

use std::path::{Path, PathBuf};

use super::{
    Global,
    ask::{Ask, json, on_runtime},
    paint_for, print, render,
};
use crate::{
    api::{ApplySpec, PastView, Proposal, Request, Response},
    client::Client,
    config,
    edge::config_file,
    exit::{Exit, Failure},
};

/// Options of `lb plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb plan new.toml
  lb -j plan new.toml")]
pub(super) struct PlanOptions {
    /// The configuration that would be applied
    file: PathBuf,
}

impl PlanOptions {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let text = text_of(&self.file)?;
        global.ask(&Ask::of(Request::Plan(Proposal { text })))
    }
}

/// Options of `lb apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb apply new.toml
  lb apply new.toml --confirm 60s
  lb apply new.toml --confirm 5m --max-down 20")]
pub(super) struct ApplyOptions {
    /// The configuration: its text replaces that of the daemon's file
    file: PathBuf,
    /// Go back after this time unless `lb confirm` is said, or when too many backends go down
    #[arg(long, value_name = "TIME", value_parser = duration)]
    confirm: Option<std::time::Duration>,
    /// With --confirm: go back when more than so many percent of the backends that were UP go DOWN [default: 50]
    #[arg(long, value_name = "PERCENT", requires = "confirm", value_parser = clap::value_parser!(u8).range(0..=100))]
    max_down: Option<u8>,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    config::parse_duration(text)
        .filter(|time| time.as_secs() > 0)
        .ok_or_else(|| "write a time as 60s, 5m or 1h, at least 1s".to_owned())
}

impl ApplyOptions {
    /// Shows what changes, then has it changed: nothing else may come between.
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let text = text_of(&self.file)?;
        on_runtime(async {
            let mut client = Client::connect(&global.socket).await?;
            let plan = client.plan(&Proposal { text: text.clone() }).await?;
            if !global.json {
                print(&render::response(
                    &Response::Plan(Box::new(plan.clone())),
                    paint_for(&std::io::stdout()),
                ))?;
            }
            let spec = ApplySpec {
                text,
                confirm_seconds: self.confirm.map(|time| time.as_secs()),
                max_down_percent: self.max_down,
            };
            let done = client.only_if(&plan.etag).apply(&spec).await?;
            let shown = if global.json {
                json(&done)?
            } else {
                render::response(&Response::Done(done), paint_for(&std::io::stdout()))
            };
            print(&shown)?;
            Ok(())
        })
    }
}

/// Options of `lb rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb rollback
  lb rollback 12")]
pub(super) struct RollbackOptions {
    /// Number in the history (see: lb history) [default: the one before]
    number: Option<u64>,
}

impl RollbackOptions {
    pub(super) fn ask(&self) -> Ask {
        Ask::of(Request::Rollback(self.number))
    }
}

/// Options of `lb history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb history
  lb history 12
  lb -j history")]
pub(super) struct HistoryOptions {
    /// Print the text of this one
    number: Option<u64>,
}

impl HistoryOptions {
    pub(super) fn ask(&self) -> Ask {
        let show = if self.number.is_some() { text } else { render::response };
        Ask { show, ..Ask::of(Request::History(self.number)) }
    }
}

fn text(response: &Response, paint: render::Paint) -> String {
    match response {
        Response::History(past) => past.iter().filter_map(|PastView { text, .. }| text.as_deref()).collect(),
        other => render::response(other, paint),
    }
}

/// Reads a file and finds its errors here, with its own name.
fn text_of(file: &Path) -> anyhow::Result<String> {
    let source = config_file::read(file, |_| std::collections::BTreeSet::new());
    let source = source.map_err(|error| Failure { exit: Exit::NoInput, message: error.to_string() })?;
    Ok(source.text)
}
