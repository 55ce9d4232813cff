//! Ctrl-C and SIGTERM: the first makes every wait and every client of the lab fail, so that guards unwind and clean up;
//! the second ends the process at once.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

/// Watches for SIGINT and SIGTERM from now on. Calling it again does nothing.
pub fn watch() {
    WATCH.call_once(|| {
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            if let Err(error) = listen(ready) {
                eprintln!("cannot watch for Ctrl-C ({error}): after one, run `cargo xtask lab clean`");
            }
        });
        // It ends when the watch stands, or failed to.
        wait.recv().unwrap_or_default();
    });
}

fn listen(ready: mpsc::Sender<()>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        drop(ready);
        loop {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            if REQUESTED.swap(true, Ordering::SeqCst) {
                #[expect(clippy::disallowed_methods, reason = "asked twice: at once is what is wanted now")]
                std::process::exit(130);
            }
            eprintln!("\ninterrupted: cleaning up");
        }
    })
}

/// Whether the process was asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Fails once the process was asked to stop.
///
/// # Errors
/// "interrupted".
pub fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
