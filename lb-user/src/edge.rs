//! The edges: each turns a piece of the outside (kernel, netlink, sockets, files) into events and
//! actions into the outside. Edges never import each other.

pub mod config_file;
pub mod events;
pub mod history;
pub mod kernel;
#[cfg(test)]
mod namespace;
pub mod neighbours;
pub mod privileges;
pub mod probe;
pub mod socket;
pub mod supervisor;
