//! `lb events`: what happened, and what happens.

use std::io;

use anyhow::Context as _;

use super::{
    Global,
    ask::{Ask, on_runtime},
    paint_for, print,
    render::events,
};
use crate::{
    api::{EventView, EventsQuery, Request},
    client::Client,
};

/// Events of the past that are shown before those to come.
const BEFORE: usize = 10;

/// Options of `lb events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb events
  lb events -n 20
  lb events --follow
  lb events -f -j")]
pub(super) struct EventsOptions {
    /// Go on with what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the past, the youngest [default: all, with --follow 10]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
}

impl EventsOptions {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        if self.follow {
            return on_runtime(self.follow(global));
        }
        global.ask(&Ask::of(Request::Events(EventsQuery { last: self.last, follow: false })))
    }

    async fn follow(&self, global: &Global) -> anyhow::Result<()> {
        let paint = paint_for(&io::stdout());
        let mut stream = Client::connect(&global.socket).await?.follow(self.last.or(Some(BEFORE))).await?;
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await? {
            text.extend_from_slice(&piece);
            let Some(end) = text.iter().rposition(|&byte| byte == b'\n') else { continue };
            let lines: Vec<u8> = text.drain(..=end).collect();
            let lines = String::from_utf8(lines).context("the daemon does not speak UTF-8")?;
            let shown = if global.json {
                lines
            } else {
                let line =
                    |line| serde_json::from_str(line).map(|event: EventView| events::line(&event, paint));
                lines
                    .lines()
                    .map(line)
                    .collect::<Result<String, _>>()
                    .context("cannot read an event; do lb and its daemon have one version?")?
            };
            if !print(&shown)? {
                return Ok(());
            }
        }
        Ok(())
    }
}
