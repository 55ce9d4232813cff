//! Commands that ask the daemon: send, wait, show. The only place of the CLI where the client is used.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    Global, paint_for, print,
    render::{self, Paint},
};
use crate::{
    api::{Request, Response},
    client::Client,
};

/// A request, and how people want its answer shown.
#[derive(Debug)]
pub(super) struct Ask {
    /// What the daemon is asked.
    pub(super) request: Request,
    /// How the answer becomes text.
    pub(super) show: fn(&Response, Paint) -> String,
    /// Ask again after this time, until interrupted.
    pub(super) again: Option<Duration>,
}

impl Ask {
    /// Once, and shown as usual.
    pub(super) fn of(request: Request) -> Self {
        Self { request, show: render::response, again: None }
    }
}

/// Options of `lb stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb stats
  lb stats --watch
  lb stats -j")]
pub(super) struct StatsOptions {
    /// Show again every second, until interrupted
    #[arg(short, long)]
    watch: bool,
}

impl StatsOptions {
    pub(super) fn ask(&self) -> Ask {
        Ask { again: self.watch.then_some(Duration::from_secs(1)), ..Ask::of(Request::Stats) }
    }
}

/// Options of `lb flows`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb flows
  lb flows --watch
  lb flows -j")]
pub(super) struct FlowsOptions {
    /// Show again every second, until interrupted
    #[arg(short, long)]
    watch: bool,
}

impl FlowsOptions {
    pub(super) fn ask(&self) -> Ask {
        Ask { again: self.watch.then_some(Duration::from_secs(1)), ..Ask::of(Request::Flows) }
    }
}

impl Global {
    /// Asks the daemon and prints the answer; with `--json` a refusal is printed like any answer, and is an
    /// error all the same.
    pub(super) fn ask(&self, ask: &Ask) -> anyhow::Result<()> {
        on_runtime(self.exchange(ask))
    }

    async fn exchange(&self, ask: &Ask) -> anyhow::Result<()> {
        let stdout = io::stdout();
        let paint = paint_for(&stdout);
        let clear = ask.again.is_some() && stdout.is_terminal();
        let mut client = Client::connect(&self.socket).await?;
        loop {
            let text = match client.call(ask.request.clone()).await {
                Ok(response) if self.json => json(&response)?,
                Ok(response) => (ask.show)(&response, paint),
                Err(error) => {
                    if let Some(refusal) = error.refusal().filter(|_| self.json) {
                        print(&json(refusal)?)?;
                    }
                    return Err(error.into());
                }
            };
            // Cursor home, then erase to the end: no flicker.
            let text = if clear { format!("\x1b[H\x1b[J{text}") } else { text };
            let (true, Some(pause)) = (print(&text)?, ask.again) else {
                return Ok(());
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Runs a command to its end.
pub(super) fn on_runtime(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(command)
}

pub(super) fn json(answer: &impl serde::Serialize) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(answer).context("cannot turn the answer into JSON")?;
    Ok(text + "\n")
}
