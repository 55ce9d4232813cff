//! A laboratory: network namespaces joined by a router, real servers and clients in them, the balancer in between.
//!
//! ```text
//!             client 10.0.0.2 fd00::2
//!                │ 10.0.0.0/24  fd00::/64    MTU 1500
//!             router ─ routes the VIPs to lb
//!                │ 10.1.0.0/24  fd00:1::/64  MTU 1600, a bridge ─── lb .2, b1 .11, b2 .12 … (L2)
//!                │ 10.9.0.0/24  fd00:9::/64  MTU 1600, a bridge ─── b3 .13 …               (tunnel)
//! ```
//!
//! A balancer with two arms is next to the backends by `eth1`; its `eth0` is at 10.2.0.2 fd00:2::2, and there the VIPs
//! are routed to.
//!
//! Every namespace's own interface is `eth0`; the router's are named after the role they lead to. Everything made here
//! is owned by a guard: dropping the [`Lab`] stops what it started and deletes what it made, also on a panic. What a
//! killed process left behind is removed by [`namespace::sweep`], which the next lab calls.
//!
//! Nothing here touches an interface of the machine: links are made inside the namespaces.

pub mod addresses;
pub mod backend;
pub mod client;
pub mod config;
pub mod counters;
pub mod daemon;
pub mod echo;
pub mod interrupt;
pub mod load;
pub mod namespace;
pub mod process;
pub mod root;
pub mod server;
pub mod stream;
pub mod tally;
pub mod topology;
pub mod wait;

pub use backend::Backend;
pub use config::Config;
pub use daemon::Daemon;
pub use namespace::Namespace;
pub use process::Process;
pub use stream::Stream;
pub use tally::Tally;
pub use topology::{Builder, Lab};
