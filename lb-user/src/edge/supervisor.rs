//! Whoever started the daemon is told how it is: systemd, by its notification socket (sd_notify(3)). Without one nobody is
//! told anything.

use sd_notify::NotifyState;

/// It forwards.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It is not stuck: asked for by `WatchdogSec=`, which must be some seconds.
pub fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

/// It is about to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
