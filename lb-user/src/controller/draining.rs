//! Drains that end by themselves: at its deadline a backend is in maintenance, whatever it still has.

use std::time::Duration;

use super::{Action, Controller, Level};
use crate::{
    api::{BackendPatch, Edit, Refusal, RefusalKind},
    model::{
        service::{AdminState, Backend},
        timestamp,
    },
};

/// The longest that a drain may be given.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Controller {
    /// Ends the drains whose time has come. The file stays as it is: a deadline that has passed says the same.
    pub(super) fn watch_drains(&mut self, actions: &mut Vec<Action>) {
        let wall_clock = self.wall_clock(self.now);
        for id in self.desired.end_drains(wall_clock) {
            actions.push(Action::Log(Level::Info, format!("{id}: its drain is over, it is in maintenance")));
            self.dirty = true;
        }
    }

    /// How long a backend's drain will last at most.
    pub(super) fn drain_left(&self, backend: &Backend, now: Duration) -> Option<Duration> {
        let until = backend.drain_until.filter(|_| backend.state == AdminState::Drain)?;
        Some(until.saturating_sub(self.wall_clock(now)))
    }

    /// The edit with the time at which a drain ends in place of how long it lasts: the file has to say it to daemons to come.
    pub(super) fn with_deadline(&self, now: Duration, edit: &Edit) -> Result<Edit, Refusal> {
        let Edit::SetBackend { pool, name, patch } = edit else { return Ok(edit.clone()) };
        let wrong = |error: &str| Refusal { kind: RefusalKind::Invalid, errors: vec![error.to_owned()] };
        let BackendPatch { state, drain_until, drain_seconds, .. } = patch;
        if (drain_until.is_some() || drain_seconds.is_some()) && *state != Some(AdminState::Drain) {
            return Err(wrong("drain_until and drain_seconds go with state = \"drain\""));
        }
        let drain_until = match (drain_until, drain_seconds.map(Duration::from_secs)) {
            (Some(_), Some(_)) => return Err(wrong("drain_until and drain_seconds exclude each other")),
            (until, None) => until.clone(),
            (None, Some(lasts)) if lasts > LONGEST => return Err(wrong("a drain lasts 30 days at most")),
            (None, Some(lasts)) => Some(timestamp::rfc3339(self.wall_clock(now) + lasts)),
        };
        let patch = BackendPatch { drain_until, drain_seconds: None, ..patch.clone() };
        Ok(Edit::SetBackend { pool: pool.clone(), name: name.clone(), patch })
    }
}
