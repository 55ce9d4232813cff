//! The programs of `lb` that run in the kernel: entry points, and the one match that turns decisions into
//! verdicts. What is decided, and why, is in `lb-common`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// On the host this crate is only checked: the programs are reached through the sections they are linked in.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]
// aya's attributes want entry points that are public and take their context by value, and write items of their own.
#![allow(missing_docs, unreachable_pub, clippy::needless_pass_by_value)]

mod cursor;
mod forward;
mod icmp;
mod maps;
mod probe;
mod report;
mod server;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use lb_common::{
    abi::{DropReason, Note, PassReason, Reason, Ticks},
    decide::{Decision, decide},
    packet::Packet,
    parse::{Stop, parse, parse_common},
};

use crate::{cursor::Cursor, maps::Maps};

/// Balances the packets of services; passes everything else on. What is rare goes to [`lb_rare`], so that the common
/// packet pays nothing for it and the verifier looks at each alone.
#[xdp]
pub fn lb(ctx: XdpContext) -> u32 {
    match parse_common(&Cursor::new(&ctx)) {
        Ok(packet) => balance(&ctx, &packet),
        Err(Stop::Pass(reason)) => pass(&ctx, reason),
        Err(Stop::Rare) => {
            maps::go_on_with_rare(&ctx);
            // Only if the daemon did not put it there.
            pass(&ctx, PassReason::NoRareProgram)
        }
    }
}

/// Balances packets of every kind: [`lb`] hands over those with VLAN tags or extension headers, fragments and ICMP.
#[xdp]
pub fn lb_rare(ctx: XdpContext) -> u32 {
    match parse(&Cursor::new(&ctx)) {
        Ok(packet) => balance(&ctx, &packet),
        Err(reason) => pass(&ctx, reason),
    }
}

#[inline(always)]
fn pass(ctx: &XdpContext, reason: PassReason) -> u32 {
    report::reason(ctx, Reason::Pass(reason));
    xdp_action::XDP_PASS
}

#[inline(always)]
fn drop(ctx: &XdpContext, reason: DropReason) -> u32 {
    report::reason(ctx, Reason::Drop(reason));
    xdp_action::XDP_DROP
}

#[inline(always)]
fn balance(ctx: &XdpContext, packet: &Packet) -> u32 {
    match decide(&Maps, packet, Ticks::new(maps::jiffies())) {
        Decision::Forward(forward) => match forward::send(ctx, packet, &forward) {
            Ok(verdict) => {
                report::forwarded(ctx, packet, &forward);
                verdict
            }
            Err(reason) => drop(ctx, reason),
        },
        Decision::Echo => match icmp::reply_to_echo(&Cursor::new(ctx), packet) {
            Some(()) => {
                report::noted(packet, Note::EchoAnswered);
                xdp_action::XDP_TX
            }
            None => pass(ctx, PassReason::OtherProtocol),
        },
        Decision::TooBig { room: _ } => drop(ctx, DropReason::TooBig),
        Decision::Pass(reason) => pass(ctx, reason),
        Decision::Drop(reason) => drop(ctx, reason),
    }
}

/// Tells the time flows are remembered by: what the daemon runs to read the same clock. Never attached.
#[xdp]
pub fn lb_clock(_ctx: XdpContext) -> u32 {
    maps::jiffies() as u32
}

/// Passes everything: what a veth peer needs to receive native `XDP_TX`.
#[xdp]
pub fn lb_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// On a backend: strips the outer header of tunnelled packets.
#[xdp]
pub fn lb_decap(ctx: XdpContext) -> u32 {
    match server::decapsulate(&ctx) {
        Ok(()) => xdp_action::XDP_PASS,
        // The outer header said IP-in-IP, and what it wraps is not there.
        Err(server::BadTunnel) => xdp_action::XDP_DROP,
    }
}

/// On the balancer's egress: steers a marked probe to the backend its mark names.
#[classifier]
pub fn lb_probe(mut ctx: TcContext) -> i32 {
    match probe::steer(&mut ctx) {
        probe::Steered::NotOurs | probe::Steered::Here => TC_ACT_OK,
        probe::Steered::Elsewhere(verdict) => verdict,
        probe::Steered::Lost => TC_ACT_SHOT,
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    println!("These programs run in the kernel: build lb-user, which carries them.");
}

// aya's log helpers are GPL-only; the source itself is dual-licensed (see LICENSE).
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
