//! The pure middle: what is wanted, what is installed, and the way from one to the other.
//!
//! No I/O, no clock, no randomness, no async, no sockets, no BPF library.

pub mod acl;
pub mod agent;
pub mod capture;
pub mod check;
pub mod difference;
pub mod dns;
pub mod health;
pub mod history;
pub mod index;
pub mod keys;
pub mod layout;
pub mod limit;
pub mod maglev;
pub mod memory;
pub mod next_hop;
pub mod packet_event;
pub mod pcapng;
pub mod plan;
pub mod prefix;
pub mod probe;
pub mod quic;
pub mod service;
pub mod share;
pub mod shortage;
pub mod simulate;
pub mod source;
pub mod timestamp;
pub mod trace;
pub mod traffic;
pub mod transition;
