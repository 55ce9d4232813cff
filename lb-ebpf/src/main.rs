//! The programs of `lb` that run in the kernel: entry points, and the one match that turns decisions into
//! verdicts. What is decided, and why, is in `lb-common`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
// On the host this crate is only checked: the programs are reached through the sections they are linked in.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]
// aya's attributes want entry points that are public and take their context by value, and write items of their own.
#![allow(missing_docs, unreachable_pub, clippy::needless_pass_by_value)]

mod capture;
mod cursor;
mod forward;
mod icmp;
mod link;
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
    abi::{DropReason, Note, PassReason, Stage, Ticks},
    decide::{Decision, decide},
    packet::{Kind, Packet},
    parse::{L3_OFFSET, Stop, Version, common_ip, common_version, parse, parse_common},
    wire::ip::{V4, V6},
};

use crate::{
    cursor::Cursor,
    maps::{Handed, Maps},
    report::Outcome,
};

/// Balances the packets of services; passes everything else on. What is rare goes to the programs behind it, so that
/// the common packet pays nothing for it and the verifier looks at each alone.
#[xdp(frags)]
pub fn lb(ctx: XdpContext) -> u32 {
    capture::came(&ctx);
    let frame = Cursor::new(&ctx);
    if !maps::LEAN {
        return go_on(&ctx, parse_common(&frame, maps::features()));
    }
    match common_version(&frame) {
        Ok(Version::V4) => go_on(&ctx, common_ip::<V4, _>(&frame, maps::features())),
        Ok(Version::V6) => go_on(&ctx, common_ip::<V6, _>(&frame, maps::features())),
        Err(stop) => go_on(&ctx, Err(stop)),
    }
}

#[inline(always)]
fn go_on(ctx: &XdpContext, parsed: Result<Packet, Stop>) -> u32 {
    match parsed {
        // What it is and where the header begins is known here: what others ask for falls away, and accesses are cheaper.
        Ok(packet) => balance(ctx, &Packet { kind: Kind::Whole, ..packet.blurred(maps::zero()) }, L3_OFFSET),
        Err(Stop::Pass(reason)) => pass(ctx, reason),
        Err(Stop::Rare) => {
            maps::go_on(ctx, Stage::Rare);
            // Only if the daemon did not put it there.
            pass(ctx, PassReason::NoRareProgram)
        }
    }
}

/// Reads packets of every kind: [`lb`] hands over those with VLAN tags or extension headers, fragments and ICMP.
#[xdp(frags)]
pub fn lb_rare(ctx: XdpContext) -> u32 {
    match parse(&Cursor::new(&ctx), maps::features()) {
        Ok(packet) => {
            maps::hand_over(&ctx, Stage::Parsed, Handed::new(packet));
            pass(&ctx, PassReason::NoRareProgram)
        }
        Err(reason) => pass(&ctx, reason),
    }
}

/// Balances the packets that [`lb_rare`] has read. What that found out is nothing the verifier knows here.
#[xdp(frags)]
pub fn lb_parsed(ctx: XdpContext) -> u32 {
    match maps::handed(Stage::Parsed) {
        Some(Handed { packet, .. }) => balance(&ctx, packet, usize::from(packet.offset)),
        None => pass(&ctx, PassReason::NoRareProgram),
    }
}

/// Answers what the balancer answers itself: echo requests, and packets that do not fit their tunnel.
#[xdp(frags)]
pub fn lb_answer(ctx: XdpContext) -> u32 {
    let Some(handed) = maps::handed(Stage::Answer) else { return pass(&ctx, PassReason::NoRareProgram) };
    let Handed { packet, service, reasons, room } = *handed;
    let outcome = if packet.kind == Kind::EchoRequest {
        match icmp::reply_to_echo(&Cursor::new(&ctx), &packet) {
            Some(()) => Outcome::answered(Note::EchoAnswered),
            None => Outcome::passed(PassReason::OtherProtocol),
        }
    } else {
        match icmp::tell_what_fits(&ctx, &packet, room) {
            Some(()) => Outcome::answered(Note::TooBigAnswered),
            None => Outcome::dropped(DropReason::TooBig),
        }
    };
    report::outcome(&ctx, &packet, service, reasons, &outcome);
    outcome.verdict
}

/// A frame that none of a service's packets was found in.
#[inline(always)]
fn pass(ctx: &XdpContext, reason: PassReason) -> u32 {
    report::unparsed(ctx, reason);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn balance(ctx: &XdpContext, packet: &Packet, offset: usize) -> u32 {
    let decided = decide(&Maps, packet, || Ticks::new(maps::jiffies()));
    let outcome = match decided.decision {
        Decision::Forward(forward) => match forward::send(ctx, packet, offset, &forward) {
            Ok(verdict) => match forward.counter {
                // The common end: nothing of the others is in its way.
                Some(counter) if maps::LEAN => {
                    maps::count(counter, u64::from(packet.length));
                    return verdict;
                }
                _ => Outcome::forwarded(verdict, &forward),
            },
            Err(reason) => Outcome::dropped(reason),
        },
        Decision::Echo => {
            maps::hand_over(ctx, Stage::Answer, Handed::decided(packet, &decided, 0));
            Outcome::passed(PassReason::NoRareProgram)
        }
        Decision::TooBig { room } => {
            maps::hand_over(ctx, Stage::Answer, Handed::decided(packet, &decided, room));
            Outcome::passed(PassReason::NoRareProgram)
        }
        Decision::Pass(reason) => Outcome::passed(reason),
        Decision::Drop(reason) => Outcome::dropped(reason),
    };
    report::outcome(ctx, packet, decided.service, decided.reasons(), &outcome);
    outcome.verdict
}

/// Tells the time flows are remembered by: what the daemon runs to read the same clock. Never attached.
#[xdp]
pub fn lb_clock(_ctx: XdpContext) -> u32 {
    maps::jiffies() as u32
}

/// Passes everything: what a veth peer needs to receive native `XDP_TX`.
#[xdp(frags)]
pub fn lb_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// On a backend: strips the outer header of tunnelled packets.
#[xdp(frags)]
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
