//! What the programs told of single packets: sampled events, and captured frames.

use std::time::Duration;

use lb_common::{
    abi::{Event, Reason},
    addr::Addr,
};

/// One of them. Its numbers mean what they meant at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketEvent {
    /// When, since the daemon started.
    pub at: Duration,
    /// What became of the packet.
    pub event: Event,
    /// The frame, as far as it was captured; empty if it was not.
    pub frame: Vec<u8>,
}

/// The XDP verdict in a word.
pub fn verdict(event: &Event) -> &'static str {
    // linux/bpf.h: enum xdp_action.
    match event.verdict {
        1 => "drop",
        2 => "pass",
        3 => "transmit",
        4 => "redirect",
        _ => "aborted",
    }
}

/// The name of the reason, if it has one.
pub fn reason(event: &Event) -> Option<&'static str> {
    Reason::all().find(|reason| reason.counter() == event.reason).map(Reason::name)
}

/// Whether the packet went on to a backend, or was answered.
pub fn was_sent(event: &Event) -> bool {
    matches!(event.verdict, 3 | 4)
}

/// An address and a port, as people write them.
pub fn endpoint(address: Addr, port: u16) -> String {
    std::net::SocketAddr::new(address.into(), port).to_string()
}

/// The protocol in a word, or its number.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}
