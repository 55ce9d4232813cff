//! What the kernel's and the daemon's side of `lb` share.
//!
//! Pure and `no_std`: layouts, parsing, and the forwarding decision as a function of its inputs.
//! No I/O, no clock, no randomness, no pointers.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod abi;
pub mod addr;
pub mod decide;
pub mod encap;
pub mod packet;
pub mod parse;
pub mod select;
pub mod tables;
pub mod track;
pub mod wire;
