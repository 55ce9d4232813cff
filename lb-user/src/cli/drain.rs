//! `lb backend drain`: from arguments to a request, and waiting until nothing is left of the backend's flows.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use serde::Serialize;
use tokio::{signal, time::sleep};

use super::{
    Global,
    ask::{json, on_runtime},
    backend::Which,
    paint_for, print, render,
};
use crate::{
    api::{BackendFlows, BackendPatch, Edit, PoolView, Request, State},
    client::Client,
    config,
    exit::{Exit, Failure},
    model::service::AdminState,
};

/// How often it is looked how far a drain is.
const LOOK: Duration = Duration::from_secs(1);

/// So many looks in a row must find nothing: counters and flows are read at different times.
const QUIET: u32 = 2;

/// Options of `lb backend drain`.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    #[command(flatten)]
    which: Which,
    /// Take the backend out after this time (90s, 10m, 2h), whatever it still has
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds)]
    deadline: Option<Duration>,
    /// Show how far it is until nothing is left; ends with 75 if the deadline comes first
    #[arg(long)]
    wait: bool,
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .filter(|time| time.as_secs() > 0)
        .ok_or_else(|| "write a time as 90s, 10m or 2h, at least 1s".to_owned())
}

/// How far a drain is.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Progress {
    /// Remembered flows that are on the backend.
    remembered: u32,
    /// Slots that were its own and whose flows may still be on it.
    slots_in_transition: u32,
    /// Packets that are sent to it.
    packets_per_second: f64,
    /// Seconds until its last transition ends, if no more is seen of its flows.
    ends_in_seconds: Option<u64>,
    /// Seconds until it is taken out.
    deadline_in_seconds: Option<u64>,
    /// Its state.
    state: State,
}

impl Progress {
    /// Of one backend of a pool; `None` if it has none of that name.
    fn of(pool: &PoolView, name: &str) -> Option<Self> {
        let backend = pool.backends.iter().find(|backend| backend.name == name)?;
        let flows = pool.flows.backends.iter().find(|flows| flows.backend == name && !flows.is_leaving);
        let (remembered, slots_in_transition) = match flows {
            Some(BackendFlows { remembered, slots, .. }) => (*remembered, *slots),
            None => (0, 0),
        };
        Some(Self {
            remembered,
            slots_in_transition,
            packets_per_second: backend.traffic.packets_per_second,
            // The pool's: with other transitions under way it may take less.
            ends_in_seconds: pool.flows.ends_in_seconds.filter(|_| slots_in_transition > 0),
            deadline_in_seconds: backend.drain_ends_in_seconds,
            state: backend.state,
        })
    }

    /// Whether nothing of it is left.
    fn is_empty(&self) -> bool {
        self.remembered == 0 && self.slots_in_transition == 0 && self.packets_per_second < 0.5
    }

    /// When it will be over at the latest.
    fn left(&self) -> Option<u64> {
        match (self.ends_in_seconds, self.deadline_in_seconds) {
            (Some(ends), Some(deadline)) => Some(ends.min(deadline)),
            (ends, deadline) => ends.or(deadline),
        }
    }

    fn line(&self) -> String {
        let left = self.left().map(|left| format!(", over in {left} s or less")).unwrap_or_default();
        format!(
            "{} remembered flows, {} slots in transition, {:.0} packets/s{left}",
            self.remembered, self.slots_in_transition, self.packets_per_second
        )
    }
}

impl Drain {
    pub(super) fn request(&self) -> Request {
        let patch = BackendPatch {
            state: Some(AdminState::Drain),
            drain_seconds: self.deadline.map(|deadline| deadline.as_secs()),
            ..BackendPatch::default()
        };
        let Which { pool, name } = &self.which;
        Request::Edit(Edit::SetBackend { pool: pool.clone(), name: name.clone(), patch })
    }

    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        if !self.wait {
            return global.ask(&super::ask::Ask::of(self.request()));
        }
        on_runtime(self.to_its_end(global))
    }

    async fn to_its_end(&self, global: &Global) -> anyhow::Result<()> {
        let mut client = Client::connect(&global.socket).await?;
        let done = client.call(self.request()).await?;
        if !global.json {
            print(&render::response(&done, paint_for(&io::stdout())))?;
        }
        tokio::select! {
            ended = self.watch(&mut client, global) => ended,
            _ = signal::ctrl_c() => {
                let message = "not waiting any longer; the drain goes on (lb backend enable ends it)".to_owned();
                Err(Failure { exit: Exit::Interrupted, message }.into())
            }
        }
    }

    async fn watch(&self, client: &mut Client, global: &Global) -> anyhow::Result<()> {
        let Which { pool, name } = &self.which;
        let on_terminal = io::stdout().is_terminal() && !global.json;
        let fail = |exit, message| Err(Failure { exit, message }.into());
        let (mut shown, mut quiet) = (String::new(), 0);
        let mut last: Option<Progress> = None;
        loop {
            // The first look is after the tables and counters had their time.
            sleep(LOOK).await;
            let view = client.pool(pool).await?;
            let Some(progress) = Progress::of(&view, name) else {
                return fail(
                    Exit::Failed,
                    format!("{pool}/{name} was removed meanwhile; its flows go on to end"),
                );
            };
            match progress.state {
                State::Drain => {}
                State::Maint => {
                    let had = last.map_or(String::new(), |last| format!("; it had {}", last.line()));
                    return fail(
                        Exit::Late,
                        format!("{pool}/{name} was taken out before its flows had ended{had}"),
                    );
                }
                State::Up | State::Down => {
                    return fail(
                        Exit::Failed,
                        format!("{pool}/{name} is not drained any more: it is {}", progress.state),
                    );
                }
            }
            let line = if global.json { json_line(&progress)? } else { progress.line() };
            let wants = line != shown;
            if on_terminal {
                print(&format!("\r\x1b[K{line}"))?;
            } else if wants && !print(&format!("{line}\n"))? {
                return Ok(());
            }
            shown = line;
            quiet = if progress.is_empty() { quiet + 1 } else { 0 };
            last = Some(progress);
            if quiet == QUIET {
                let end = if on_terminal { "\n" } else { "" };
                if !global.json {
                    print(&format!("{end}{pool}/{name} is drained\n"))?;
                }
                return Ok(());
            }
        }
    }
}

/// In one line, for programs that read lines.
fn json_line(progress: &Progress) -> anyhow::Result<String> {
    // As any answer, without its line ends.
    Ok(json(progress)?.lines().map(str::trim).collect())
}
