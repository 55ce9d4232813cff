//! Tells what was done: counters always, events where the configuration wants them, log lines at debug level only.
//!
//! The log statements hang on a read-only global, as the events do: unless the daemon sets it, the verifier removes
//! them and the packet path does not pay for them.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use lb_common::{
    abi::{DropReason, Event, Features, Note, PassReason, Reason, Window},
    decide::{Decided, Forward},
    packet::Packet,
    tables::Tables as _,
};

use crate::{
    capture,
    maps::{self, Maps},
};

/// What became of a packet.
///
/// Numbers and not an `Option` or two, whose payload would be undefined where the verifier wants to see all.
pub struct Outcome {
    /// The XDP verdict.
    pub verdict: u32,
    /// [`Reason::counter`], or [`Event::NONE`] for a packet that was forwarded to a service's backend.
    reason: u32,
    /// The counter of a forwarded packet, or [`Event::NONE`].
    counter: u32,
    /// Index of the backend, or [`Event::NONE`].
    backend: u32,
}

impl Outcome {
    /// It goes to a backend.
    #[inline(always)]
    pub fn forwarded(verdict: u32, forward: &Forward<'_>) -> Self {
        let (reason, counter) = match forward.counter {
            Some(counter) => (Event::NONE, counter),
            None => (Reason::Note(Note::LaterFragment).counter(), Event::NONE),
        };
        Self { verdict, reason, counter, backend: forward.index }
    }

    /// The balancer answered it.
    #[inline(always)]
    pub fn answered(note: Note) -> Self {
        Self::without_backend(xdp_action::XDP_TX, Reason::Note(note))
    }

    /// The kernel's own stack gets it.
    #[inline(always)]
    pub fn passed(reason: PassReason) -> Self {
        Self::without_backend(xdp_action::XDP_PASS, Reason::Pass(reason))
    }

    /// It is gone.
    #[inline(always)]
    pub fn dropped(reason: DropReason) -> Self {
        Self::without_backend(xdp_action::XDP_DROP, Reason::Drop(reason))
    }

    /// The same, of which the verifier no longer knows by which way it came about: `blur` is a zero that it does not know.
    /// What follows is then verified once.
    #[inline(always)]
    fn blurred(&self, blur: u32) -> Self {
        Self {
            verdict: self.verdict | blur,
            reason: self.reason | blur,
            counter: self.counter | blur,
            backend: self.backend | blur,
        }
    }

    #[inline(always)]
    fn without_backend(verdict: u32, reason: Reason) -> Self {
        Self { verdict, reason: reason.counter(), counter: Event::NONE, backend: Event::NONE }
    }
}

/// Tells what became of a packet.
#[inline(always)]
pub fn outcome(ctx: &XdpContext, packet: &Packet, service: u32, reasons: u32, outcome: &Outcome) {
    let outcome = &outcome.blurred(maps::zero());
    let bytes = u64::from(packet.length);
    if outcome.counter != Event::NONE {
        maps::count(outcome.counter, bytes);
    } else if outcome.reason >= Reason::FIRST_OF_SERVICE && reasons != Decided::NOBODY {
        maps::count(reasons + (outcome.reason - Reason::FIRST_OF_SERVICE), bytes);
    } else if outcome.verdict == xdp_action::XDP_PASS {
        maps::count_reason(outcome.reason, frame_length(ctx));
    } else {
        maps::count_reason(outcome.reason, bytes);
    }
    // One look for those who want none of it.
    if maps::telling().has_any(Features::TELLING) {
        tell(ctx, packet, service, outcome);
    }
    if !maps::LEAN && level_enabled(Level::Debug) {
        log(ctx.ctx, packet.source_port, outcome.verdict, outcome.reason);
    }
}

/// Behind a call, and of numbers: what a log statement refers to must stand in memory, and the programs have little of their
/// stack left.
#[inline(never)]
fn log(ctx: *mut xdp_md, port: u16, verdict: u32, reason: u32) {
    debug!(ctx, "port {}: verdict {}, reason {}", port, verdict, reason);
}

/// Tells the daemon of a packet, if it is one of those that are told of or captured.
#[inline(always)]
fn tell(ctx: &XdpContext, packet: &Packet, service: u32, outcome: &Outcome) {
    let features = maps::telling();
    let dropped = outcome.verdict == xdp_action::XDP_DROP;
    let sent = outcome.verdict == xdp_action::XDP_TX || outcome.verdict == xdp_action::XDP_REDIRECT;
    let is_told = features.has(Features::DROP_EVENTS) && dropped && Maps.may(Window::DropEvents)
        || features.has(Features::FLOW_EVENTS) && sent && Maps.may(Window::FlowEvents);
    if (is_told || features.has(Features::CAPTURE))
        && let Some(kept) = maps::kept()
    {
        // In the map and once: neither the stack nor the verifier has room for more.
        kept.event = event(ctx, packet, service, outcome);
        if is_told {
            maps::tell(&kept.event);
        }
        if features.has(Features::CAPTURE) {
            capture::capture(ctx);
        }
    }
}

#[inline(always)]
fn event(ctx: &XdpContext, packet: &Packet, service: u32, outcome: &Outcome) -> Event {
    Event {
        time: maps::nanoseconds(),
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        tcp_flags: packet.tcp_flags,
        kind: packet.kind as u8,
        verdict: outcome.verdict as u8,
        reason: outcome.reason,
        service,
        backend: outcome.backend,
        ingress: ctx.ingress_ifindex() as u32,
        length: u32::from(packet.length),
        stage: Event::TOLD,
    }
}

/// Counts a frame that was passed before anything was known of it.
#[inline(always)]
pub fn unparsed(ctx: &XdpContext, reason: PassReason) {
    maps::count_reason(Reason::Pass(reason).counter(), frame_length(ctx));
    if maps::features().has(Features::CAPTURE)
        && let Some(kept) = maps::kept()
    {
        kept.event = event(ctx, &Packet::UNKNOWN, Decided::NOBODY, &Outcome::passed(reason));
        capture::capture(ctx);
    }
}

/// Of a frame in many buffers that of the first.
#[inline(always)]
fn frame_length(ctx: &XdpContext) -> u64 {
    (ctx.data_end() - ctx.data()) as u64
}
