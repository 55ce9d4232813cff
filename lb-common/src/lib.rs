//! What the kernel's and the daemon's side of `lb` share.
//!
//! Pure and `no_std`: layouts, parsing, and the forwarding decision as a function of its inputs.
//! No I/O, no clock, no randomness, no pointers.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]
// For the one instruction in `opaque`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod addr;
pub mod admit;
pub mod decide;
pub mod encap;
pub mod find;
pub mod opaque;
pub mod packet;
pub mod parse;
pub mod select;
pub mod tables;
pub mod too_big;
pub mod track;
pub mod wire;
