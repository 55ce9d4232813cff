//! Frames built field by field, right by default and wrong where a test wants it.
//!
//! This is the oracle's side of the wire: nothing here may use the parser, the checksum or the encapsulation code of
//! `lb-common`, or a fault in them would be expected as well.

pub mod generate;
pub mod hex;
pub mod outer;
pub mod random;
pub mod rare;

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, BytesMut};

/// Destination MAC of frames that come in: the balancer's.
pub const LB_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x1b];
/// Source MAC of frames that come in: the router's.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// The fragment header of IPv6.
    pub const FRAGMENT: u8 = 44;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// `EtherType`s (IEEE 802).
pub mod ether {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// An 802.1ad tag: the outer one of two.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod flag {
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Acknowledgement.
    pub const ACK: u8 = 0x10;
}

/// What stands behind the IP headers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Transport {
    Tcp {
        flags: u8,
    },
    Udp,
    Sctp,
    /// Nothing but the payload.
    Raw,
}

/// A frame in the making. The addresses say the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    transport: Transport,
    payload: Vec<u8>,
    traffic_class: u8,
    flow_label: u32,
    ttl: u8,
    identification: u16,
    fragment: u16,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    padding: usize,
    tags: Vec<[u16; 2]>,
    // Lies about what is there.
    ether_type: Option<u16>,
    version: Option<u8>,
    header_words: Option<u8>,
    length: Option<u16>,
    protocol: Option<u8>,
    cut: Option<usize>,
}

/// A TCP segment of an established connection (flags ACK) without payload.
///
/// # Panics
/// If an address does not parse: tests name them as literals.
pub fn tcp(source: &str, destination: &str) -> Packet {
    Packet::new(endpoint(source), endpoint(destination), Transport::Tcp { flags: flag::ACK })
}

/// A UDP datagram without payload.
///
/// # Panics
/// As [`tcp`].
pub fn udp(source: &str, destination: &str) -> Packet {
    Packet::new(endpoint(source), endpoint(destination), Transport::Udp)
}

/// An IP packet whose payload is given as it is. Addresses without ports.
///
/// # Panics
/// As [`tcp`].
pub fn raw(protocol: u8, source: &str, destination: &str) -> Packet {
    let address = |text: &str| SocketAddr::new(text.parse().unwrap_or_else(|_| panic!("{text}")), 0);
    let packet = Packet::new(address(source), address(destination), Transport::Raw);
    Packet { protocol: Some(protocol), ..packet }
}

fn endpoint(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address with a port"))
}

impl Packet {
    fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family: {source} {destination}");
        Self {
            source,
            destination,
            transport,
            payload: Vec::new(),
            traffic_class: 0,
            flow_label: 0,
            ttl: 64,
            identification: 0,
            fragment: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            padding: 0,
            tags: Vec::new(),
            ether_type: None,
            version: None,
            header_words: None,
            length: None,
            protocol: None,
            cut: None,
        }
    }

    /// TCP between two endpoints.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Tcp { flags: flag::ACK })
    }

    /// UDP between two endpoints.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Udp)
    }

    /// SCTP between two endpoints: a common header, whose checksum nobody on the way looks at.
    pub fn sctp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Sctp)
    }

    /// The same headers with another protocol's payload behind them.
    pub fn raw(self, protocol: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { transport: Transport::Raw, protocol: Some(protocol), payload: payload.into(), ..self }
    }

    /// The same packet from another endpoint.
    pub fn from(self, source: SocketAddr) -> Self {
        Self { source, ..self }
    }

    /// The same packet to another address.
    ///
    /// # Panics
    /// If that is of the other family.
    pub fn to(self, address: IpAddr) -> Self {
        assert_eq!(self.is_v4(), address.is_ipv4(), "one family: {address}");
        Self { destination: SocketAddr::new(address, self.destination.port()), ..self }
    }

    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// What the transport header carries.
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// Fills up with zeros until the IP packet has this length, headers included; bytes.
    ///
    /// # Panics
    /// If it is longer already.
    pub fn ip_length(mut self, length: usize) -> Self {
        let room = length.checked_sub(self.ip_packet().len()).expect("longer already");
        self.payload.resize(self.payload.len() + room, 0);
        self
    }

    /// TCP flags.
    pub fn flags(self, flags: u8) -> Self {
        Self { transport: Transport::Tcp { flags }, ..self }
    }

    /// DSCP and ECN.
    pub fn traffic_class(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    /// IPv6 flow label, 20 bits.
    pub fn flow_label(self, flow_label: u32) -> Self {
        Self { flow_label, ..self }
    }

    /// TTL or hop limit.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// IPv4 identification.
    pub fn identification(self, identification: u16) -> Self {
        Self { identification, ..self }
    }

    /// IPv4 flags and fragment offset as one word (RFC 791).
    pub fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    /// IPv4 options, a multiple of 4 bytes.
    pub fn options(self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40);
        Self { options: options.to_vec(), ..self }
    }

    /// One more IPv6 extension header: its protocol number, and its bytes after the first.
    pub fn extension(mut self, protocol: u8, rest: &[u8]) -> Self {
        self.extensions.push((protocol, rest.to_vec()));
        self
    }

    /// Fills the frame up with these many bytes that belong to no packet, as senders do below 60 bytes. They are not
    /// zero, so that a fault in handling them shows.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// One more VLAN tag, behind those there are: its `EtherType` and its control information.
    pub fn tag(mut self, ether_type: u16, control: u16) -> Self {
        self.tags.push([ether_type, control]);
        self
    }

    /// Another `EtherType` than the right one.
    pub fn ether_type(self, ether_type: u16) -> Self {
        Self { ether_type: Some(ether_type), ..self }
    }

    /// Another IP version than the right one.
    pub fn version(self, version: u8) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Another IPv4 header length than the right one; words of 4 bytes.
    pub fn header_words(self, words: u8) -> Self {
        Self { header_words: Some(words), ..self }
    }

    /// Another value than the right one in the total length (IPv4) or payload length (IPv6).
    pub fn length(self, length: u16) -> Self {
        Self { length: Some(length), ..self }
    }

    /// Another protocol number than the right one.
    pub fn protocol(self, protocol: u8) -> Self {
        Self { protocol: Some(protocol), ..self }
    }

    /// Only the first bytes of the frame.
    pub fn cut(self, length: usize) -> Self {
        Self { cut: Some(length), ..self }
    }

    /// The bytes of the frame.
    pub fn frame(&self) -> Vec<u8> {
        let own = if self.source.is_ipv4() { ether::IPV4 } else { ether::IPV6 };
        let mut frame = [LB_MAC, ROUTER_MAC].concat();
        let types = self.tags.iter().flatten().chain([self.ether_type.as_ref().unwrap_or(&own)]);
        frame.extend(types.flat_map(|word| word.to_be_bytes()));
        frame.extend(self.ip_packet());
        frame.extend((1..=self.padding).map(|n| 0xa0 | n as u8));
        frame.truncate(self.cut.unwrap_or(usize::MAX));
        frame
    }

    /// The bytes of the IP packet.
    pub fn ip_packet(&self) -> Vec<u8> {
        let transport = self.segment();
        let protocol = self.number();
        let mut packet = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + self.options.len();
                let mut header = BytesMut::new();
                let words = self.header_words.unwrap_or((header_len / 4) as u8);
                header.put_u8(self.version.unwrap_or(4) << 4 | words);
                header.put_u8(self.traffic_class);
                header.put_u16(self.length.unwrap_or((header_len + transport.len()) as u16));
                header.put_u16(self.identification);
                header.put_u16(self.fragment);
                header.put_u8(self.ttl);
                header.put_u8(protocol);
                header.put_u16(0);
                header.put_slice(&source.octets());
                header.put_slice(&destination.octets());
                header.put_slice(&self.options);
                let sum = checksum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extensions = self.chain(protocol);
                let mut header = BytesMut::new();
                let class = u32::from(self.traffic_class) << 20;
                header.put_u32(u32::from(self.version.unwrap_or(6)) << 28 | class | self.flow_label);
                header.put_u16(self.length.unwrap_or((extensions.len() + transport.len()) as u16));
                header.put_u8(self.extensions.first().map_or(protocol, |&(first, _)| first));
                header.put_u8(self.ttl);
                header.put_slice(&source.octets());
                header.put_slice(&destination.octets());
                header.put_slice(&extensions);
                header
            }
            _ => unreachable!("one family"),
        };
        packet.put_slice(&transport);
        packet.to_vec()
    }

    /// Protocol number of what stands behind the IP headers.
    fn number(&self) -> u8 {
        self.protocol.unwrap_or(match self.transport {
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp => protocol::UDP,
            Transport::Sctp => protocol::SCTP,
            Transport::Raw => 0xff,
        })
    }

    /// The extension headers: each begins with the number of what follows it.
    fn chain(&self, last: u8) -> Vec<u8> {
        let following = self.extensions.iter().skip(1).map(|&(number, _)| number).chain([last]);
        self.extensions
            .iter()
            .zip(following)
            .flat_map(|((_, rest), next)| [&[next], &rest[..]].concat())
            .collect()
    }

    /// Transport header and payload.
    fn segment(&self) -> Vec<u8> {
        let mut segment = BytesMut::new();
        let (number, place) = match self.transport {
            Transport::Tcp { flags } => {
                segment.put_u16(self.source.port());
                segment.put_u16(self.destination.port());
                segment.put_u32(0x0102_0304);
                segment.put_u32(0x0506_0708);
                segment.put_u8(5 << 4);
                segment.put_u8(flags);
                segment.put_u16(0xffff);
                segment.put_u32(0);
                (protocol::TCP, 16)
            }
            Transport::Udp => {
                segment.put_u16(self.source.port());
                segment.put_u16(self.destination.port());
                segment.put_u16((8 + self.payload.len()) as u16);
                segment.put_u16(0);
                (protocol::UDP, 6)
            }
            Transport::Sctp => {
                segment.put_u16(self.source.port());
                segment.put_u16(self.destination.port());
                segment.put_u64(0x0102_0304_0000_0000);
                segment.put_slice(&self.payload);
                return segment.to_vec();
            }
            Transport::Raw => return self.payload.clone(),
        };
        segment.put_slice(&self.payload);
        let mut pseudo = BytesMut::new();
        for address in [self.source.ip(), self.destination.ip()] {
            match address {
                IpAddr::V4(address) => pseudo.put_slice(&address.octets()),
                IpAddr::V6(address) => pseudo.put_slice(&address.octets()),
            }
        }
        pseudo.put_u32(segment.len() as u32);
        pseudo.put_u32(u32::from(number));
        let sum = match checksum(&[&pseudo, &segment]) {
            // RFC 768: zero would mean that there is none.
            0 if number == protocol::UDP => 0xffff,
            sum => sum,
        };
        segment[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        segment.to_vec()
    }
}

/// Where the IP header of a frame begins: behind its VLAN tags.
pub fn ip_offset(frame: &[u8]) -> usize {
    let is_tag = |at: &usize| matches!(frame[*at..*at + 2], [0x81, 0] | [0x88, 0xa8]);
    let tags = [12, 16].iter().take_while(|at| is_tag(at)).count();
    ETHERNET_LEN + 4 * tags
}

/// Puts an Ethernet header before a payload.
pub fn ethernet(destination: [u8; 6], source: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_slice(&destination);
    frame.put_slice(&source);
    frame.put_u16(ether_type);
    frame.put_slice(payload);
    frame.to_vec()
}

/// The Internet checksum (RFC 1071) of parts that follow each other; all but the last have an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(word[0]) * 256 + word.get(1).map_or(0, |&low| u64::from(low));
    }
    // End-around carry, one at a time.
    while sum > 0xffff {
        sum = sum - 0x1_0000 + 1;
    }
    0xffff - sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_textbook() {
        // The checksums were worked out by another program.
        let query = udp("10.0.0.1:1024", "192.0.2.53:53").payload(*b"hello").identification(7).frame();
        assert_eq!(
            hex::encode(&query),
            "02000000001b0200000000fe0800 45000021000700004011ae8f0a000001c0000235 04000035000deb96 68656c6c6f"
                .replace(' ', "")
        );
        let syn = tcp("[2001:db8::1]:4096", "[2001:db8::2]:80").flags(flag::SYN).frame();
        assert_eq!(&syn[12..20], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 20]);
        assert_eq!(syn.len(), ETHERNET_LEN + 40 + 20);
    }

    #[test]
    fn extension_headers_name_each_other() {
        let packet = udp("[::1]:1", "[::2]:2").extension(0, &[0; 7]).extension(60, &[0; 7]).ip_packet();
        assert_eq!((packet[6], packet[40], packet[48]), (0, 60, protocol::UDP));
        assert_eq!(packet.len(), 40 + 16 + 8);
    }
}
