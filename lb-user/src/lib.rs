//! `lb`: the daemon and the command line. See ARCHITECTURE.md for what lives where.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod edge;
pub mod exit;
pub mod import;
pub mod model;
