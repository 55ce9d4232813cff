//! Captures frames as they came and as they leave. Only where the daemon captures: else the verifier removes it all.
//!
//! The work is done behind calls, because the programs have little of their stack left. A frame is kept before anything
//! is known of it: whether it is wanted shows when it is known what became of it. So each packet pays for a copy while a
//! capture runs, and only those that are wanted for the way to the daemon.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{Event, Features, Note, Reason, Window},
    tables::Tables as _,
};

use crate::maps::{self, Maps};

/// Keeps the frame as it came: before anything is written to it, in the first program that it meets.
#[inline(always)]
pub fn came(ctx: &XdpContext) {
    if maps::features().has(Features::CAPTURE) {
        // By its pointer: a reference would keep it on the stack.
        keep(ctx.ctx);
    }
}

#[inline(never)]
fn keep(ctx: *mut xdp_md) {
    if let Some(kept) = maps::kept() {
        kept.keep(ctx, maps::capture_filter().bytes);
    }
}

/// Captures the packet whose event was written, if it is wanted: as it came, and as it leaves if it does.
#[inline(always)]
pub fn capture(ctx: &XdpContext) {
    hand_in_if_wanted(ctx.ctx);
}

#[inline(never)]
fn hand_in_if_wanted(ctx: *mut xdp_md) {
    let Some(kept) = maps::kept() else { return };
    if !kept.holds_any() || !maps::capture_filter().wants(&kept.event) {
        return;
    }
    if !Maps.may(Window::Capture) {
        maps::count_reason(Reason::Note(Note::CaptureLimited).counter(), 0);
        return;
    }
    kept.hand_in(Event::CAME);
    let verdict = u32::from(kept.event.verdict);
    if verdict == xdp_action::XDP_TX || verdict == xdp_action::XDP_REDIRECT {
        kept.keep(ctx, maps::capture_filter().bytes);
        kept.hand_in(Event::LEFT);
    }
}
