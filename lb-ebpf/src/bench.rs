//! Programs that only the bench loads, an object of their own: what the balancer is compared with, and what puts a frame
//! right again between two iterations of `BPF_PROG_TEST_RUN`, which does not.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// On the host this crate is only checked: the programs are reached through the sections they are linked in.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]
// aya's attributes want entry points that are public and take their context by value, and write items of their own.
#![allow(missing_docs, unreachable_pub, clippy::needless_pass_by_value)]
#![allow(non_upper_case_globals, reason = "the name of a static is the name of its map")]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head},
    macros::{map, xdp},
    maps::{Array, DevMap, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    abi::bench::{RESTORED, Rehearsal, SUBJECTS},
    wire::{ETHER_IPV4, ETHER_IPV6},
};

#[map]
static bench_rehearsal: Array<Rehearsal> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static bench_subjects: ProgramArray = ProgramArray::with_max_entries(SUBJECTS, 0);
/// What the least balancer looks up.
#[map]
static bench_ports: Array<u64> = Array::with_max_entries(256, 0);
/// Live frames that came to their end.
#[map]
static bench_sunk: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The other interface that the least balancer sends by.
#[map]
static bench_way_out: DevMap = DevMap::with_max_entries(1, 0);

#[xdp(frags)]
pub fn bench_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp(frags)]
pub fn bench_swap(ctx: XdpContext) -> u32 {
    // SAFETY: see there.
    unsafe { swap(&ctx) }.unwrap_or(xdp_action::XDP_PASS)
}

/// The same, and sends by another interface.
#[xdp(frags)]
pub fn bench_swap_over(ctx: XdpContext) -> u32 {
    // SAFETY: see there.
    match unsafe { swap(&ctx) } {
        Some(_) => bench_way_out.redirect(0, 0).unwrap_or(xdp_action::XDP_ABORTED),
        None => xdp_action::XDP_PASS,
    }
}

/// Makes the next live frame and sends it by the interface that it is said to have come by.
#[xdp]
pub fn bench_send(ctx: XdpContext) -> u32 {
    // SAFETY: see there.
    match unsafe { rehearse(&ctx) } {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Where live frames end.
#[xdp(frags)]
pub fn bench_sink(_ctx: XdpContext) -> u32 {
    if let Some(sunk) = bench_sunk.get_ptr_mut(0) {
        // SAFETY: the element lives as long as the program; everything happens on one CPU.
        unsafe { *sunk += 1 };
    }
    xdp_action::XDP_DROP
}

// One program for each subject: with a constant index the kernel makes a jump of the tail call.
#[xdp(frags)]
pub fn bench_restore_empty(ctx: XdpContext) -> u32 {
    restore::<0>(&ctx)
}

#[xdp(frags)]
pub fn bench_restore_swap(ctx: XdpContext) -> u32 {
    restore::<1>(&ctx)
}

#[xdp(frags)]
pub fn bench_restore_subject(ctx: XdpContext) -> u32 {
    restore::<2>(&ctx)
}

/// Makes the frame of the next iteration and goes on to the subject.
#[inline(always)]
fn restore<const SUBJECT: u32>(ctx: &XdpContext) -> u32 {
    // SAFETY: see there.
    if unsafe { rehearse(ctx) }.is_some() {
        // SAFETY: the array holds nothing but XDP programs.
        unsafe { bench_subjects.tail_call(ctx, SUBJECT) };
    }
    xdp_action::XDP_ABORTED
}

/// Odd, so that counting by it modulo a power of two meets every flow once before it meets one again.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// # Safety
/// Everything is within the element and, as the verifier sees, within the packet.
#[inline(always)]
unsafe fn rehearse(ctx: &XdpContext) -> Option<()> {
    let state = bench_rehearsal.get_ptr_mut(0)?;
    // SAFETY: the element lives as long as the program; nobody else writes it during a run.
    let (done, first, last) = unsafe { ((*state).done, (*state).first, (*state).last) };
    // SAFETY: as above.
    let (length, flow_mask, vips, is_v6) =
        unsafe { ((*state).length, (*state).flow_mask, (*state).vips, (*state).is_v6) };
    // SAFETY: as above, and the helper has no preconditions.
    unsafe {
        (*state).done = done + 1;
        if done == first {
            (*state).started = bpf_ktime_get_ns();
        }
        if done == last {
            (*state).ended = bpf_ktime_get_ns();
        }
    }
    let moved = (ctx.data_end() - ctx.data()) as i32 - length as i32;
    // SAFETY: the context is the program's own.
    if moved != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, moved) } != 0 {
        return None;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + RESTORED > end {
        return None;
    }
    let mixed = done.wrapping_mul(STRIDE);
    let flow = mixed & flow_mask;
    let vip = ((mixed >> 32) * vips) >> 32;
    // The last two bytes of the client's address, its port, and the last two bytes of the VIP.
    let (client, port) = (flow >> 16, flow & 0xffff);
    let mut changes = [0u64; RESTORED / 8];
    if is_v6 != 0 {
        changes[4] = client << 32;
        changes[6] = vip << 32 | port << 48;
    } else {
        changes[3] = client << 32;
        changes[4] = vip | port << 16;
    }
    let frame = start as *mut u64;
    let mut word = 0;
    while word < RESTORED / 8 {
        // SAFETY: both lie within what was checked; machines whose drivers align otherwise load words all the same.
        unsafe { *frame.add(word) = (*state).template[word] ^ changes[word] };
        word += 1;
    }
    Some(())
}

/// # Safety
/// Everything is read and written within the packet, as the verifier sees.
#[inline(always)]
unsafe fn swap(ctx: &XdpContext) -> Option<u32> {
    const ETHERNET: usize = 14;
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + ETHERNET + 20 > end {
        return None;
    }
    // SAFETY: within the packet.
    let ether_type = unsafe { *((start + 12) as *const u16) };
    let transport = if ether_type == ETHER_IPV4 {
        // SAFETY: within the packet.
        let (first, protocol) =
            unsafe { (*((start + ETHERNET) as *const u8), *((start + ETHERNET + 9) as *const u8)) };
        if first >> 4 != 4 || protocol != 6 && protocol != 17 {
            return None;
        }
        start + ETHERNET + usize::from(first & 15) * 4
    } else if ether_type == ETHER_IPV6 {
        // SAFETY: within the packet.
        let protocol = unsafe { *((start + ETHERNET + 6) as *const u8) };
        if protocol != 6 && protocol != 17 {
            return None;
        }
        start + ETHERNET + 40
    } else {
        return None;
    };
    if transport + 8 > end {
        return None;
    }
    // SAFETY: within the packet, as was just checked.
    let destination = unsafe { *((transport + 2) as *const u16) };
    if *bench_ports.get(u32::from(destination.to_be()) & 255)? != 0 {
        return None;
    }
    let (words, halves) = (start as *mut u32, start as *mut u16);
    // SAFETY: within the packet.
    unsafe {
        let (to, to_end) = (*words, *halves.add(2));
        let (from, from_end) = (*halves.add(3), *words.add(2));
        *words = u32::from(from) | from_end << 16;
        *halves.add(2) = (from_end >> 16) as u16;
        *halves.add(3) = to as u16;
        *words.add(2) = to >> 16 | u32::from(to_end) << 16;
    }
    Some(xdp_action::XDP_TX)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    println!("These programs run in the kernel: `cargo xtask bench` loads them.");
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
