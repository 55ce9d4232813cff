//! The pure middle: what is wanted, what is installed, and the way from one to the other.
//!
//! No I/O, no clock, no randomness, no async, no sockets, no BPF library.

pub mod layout;
pub mod memory;
pub mod next_hop;
pub mod plan;
pub mod probe;
pub mod service;
pub mod simulate;
pub mod traffic;
