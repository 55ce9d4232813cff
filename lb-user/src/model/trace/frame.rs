//! A frame as a client could have sent it.

use std::net::{IpAddr, SocketAddr};

use lb_common::wire::{ETHER_IPV4, ETHER_IPV6, checksum, protocol};

/// A packet to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The client; its port is 0 where there is none.
    pub client: SocketAddr,
    /// The VIP; its port is 0 where there is none.
    pub vip: SocketAddr,
    /// IP protocol number: TCP, UDP, SCTP or, for an echo request, that of the family's ICMP.
    pub protocol: u8,
    /// See [`lb_common::wire::tcp_flag`].
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet, at least [`Self::least`]; bytes.
    pub length: u16,
    /// Connection ID of a QUIC packet with a short header; empty for any other packet.
    pub quic_id: Vec<u8>,
    /// Index of the interface it comes in by.
    pub ingress: u32,
}

impl Sample {
    fn head_length(&self) -> usize {
        if self.vip.is_ipv4() { 20 } else { 40 }
    }

    /// Transport header and what is known of what follows.
    fn payload(&self) -> Vec<u8> {
        let [client, vip] = [self.client.port(), self.vip.port()].map(u16::to_be_bytes);
        let ports = [client, vip].concat();
        match self.protocol {
            protocol::TCP => [&ports[..], &[0; 8], &[0x50, self.tcp_flags, 0xff, 0xff], &[0; 4]].concat(),
            protocol::UDP => {
                let quic: &[u8] = if self.quic_id.is_empty() { &[] } else { &[0x40] };
                [&ports[..], &[0; 4], quic, &self.quic_id].concat()
            }
            protocol::ICMP => vec![8, 0, 0, 0, 0, 1, 0, 1],
            protocol::ICMPV6 => vec![128, 0, 0, 0, 0, 1, 0, 1],
            _ => [&ports[..], &[0; 8]].concat(),
        }
    }

    /// Length of the shortest such packet; bytes.
    pub fn least(&self) -> usize {
        self.head_length() + self.payload().len()
    }

    /// The whole frame. Checksums behind the IP header are zero: nobody looks at them on the way.
    pub fn frame(&self) -> Vec<u8> {
        let mut payload = self.payload();
        payload.resize((usize::from(self.length) - self.head_length()).max(payload.len()), 0);
        if self.protocol == protocol::UDP {
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            payload[4..6].copy_from_slice(&length.to_be_bytes());
        }
        let (ether_type, head) = match (self.client.ip(), self.vip.ip()) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                let length = self.length.to_be_bytes();
                let mut head =
                    [&[0x45, 0][..], &length, &[0, 0, 0x40, 0, self.ttl, self.protocol, 0, 0]].concat();
                head.extend([client.octets(), vip.octets()].concat());
                let sum = checksum::finish(checksum::add(0, &head));
                head[10..12].copy_from_slice(&sum.to_be_bytes());
                (ETHER_IPV4, head)
            }
            (client, vip) => {
                let length = self.length - 40;
                let mut head =
                    [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[self.protocol, self.ttl]].concat();
                for address in [client, vip] {
                    head.extend(match address {
                        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                        IpAddr::V6(address) => address.octets(),
                    });
                }
                (ETHER_IPV6, head)
            }
        };
        [&[0; 12][..], &ether_type.to_ne_bytes(), &head, &payload].concat()
    }
}
