//! Tells what was done: counters always, log lines at debug level only.
//!
//! The log statements hang on a read-only global: unless the daemon sets it, the verifier removes them and the
//! packet path does not pay for them.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::{
    abi::{Note, Reason},
    decide::Forward,
    packet::Packet,
};

use crate::maps;

/// Counts a packet that was sent on.
#[inline(always)]
pub fn forwarded(ctx: &XdpContext, packet: &Packet, forward: &Forward<'_>) {
    let bytes = u64::from(packet.length);
    match forward.counter {
        Some(counter) => maps::count(counter, bytes),
        None => noted(packet, Note::LaterFragment),
    }
    debug!(ctx, "forwarded port {} -> backend {}", packet.source_port, forward.index);
}

/// Counts a packet that was dealt with in a way of its own.
#[inline(always)]
pub fn noted(packet: &Packet, note: Note) {
    maps::count_reason(Reason::Note(note), u64::from(packet.length));
}

/// Counts a packet that was passed or dropped, and why.
#[inline(always)]
pub fn reason(ctx: &XdpContext, reason: Reason) {
    maps::count_reason(reason, (ctx.data_end() - ctx.data()) as u64);
    if let Reason::Drop(_) = reason {
        debug!(ctx, "dropped: reason {}", reason.counter());
    }
}
