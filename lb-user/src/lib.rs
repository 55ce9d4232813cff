//! `lb`: the daemon and the command line. See ARCHITECTURE.md for what lives where.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod api;
pub mod config;
pub mod edge;
pub mod model;
