//! What went through an interface, by the kernel's own count.

use std::ops::Sub;

use anyhow::{Context as _, Result};

use super::Namespace;

/// Counters of an interface since it was made, or between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received, those an XDP program took included.
    pub rx_packets: u64,
    /// Bytes received, Ethernet headers included.
    pub rx_bytes: u64,
    /// Packets sent, those of an XDP program included.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl Counters {
    /// Reads those of an interface in a namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered or has no such interface.
    pub fn read(namespace: &Namespace, interface: &str) -> Result<Self> {
        // /sys would show the namespace it was mounted in; this shows the thread's.
        let table = namespace
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?
            .with_context(|| format!("reading the interface counters of {}", namespace.name()))?;
        Self::parse(&table, interface)
            .with_context(|| format!("no interface {interface} in {}", namespace.name()))
    }

    fn parse(table: &str, interface: &str) -> Option<Self> {
        let line = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [rx_bytes, rx_packets, _, _, _, _, _, _, tx_bytes, tx_packets, ..] = numbers[..] else {
            return None;
        };
        Some(Self { rx_packets, rx_bytes, tx_packets, tx_bytes })
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_columns_of_the_right_line() {
        let table = "Inter-|   Receive\n face |bytes\n  eth01:  9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 1500 3 0 0 0 0 0 0 700 2 0 0 0 0 0 0\n";
        let expected = Counters { rx_packets: 3, rx_bytes: 1500, tx_packets: 2, tx_bytes: 700 };
        assert_eq!(Counters::parse(table, "eth0"), Some(expected));
        assert_eq!(Counters::parse(table, "eth2"), None);
    }
}
