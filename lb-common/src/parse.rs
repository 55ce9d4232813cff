//! From the bytes of a frame to a [`Packet`], or to the reason to leave it to the kernel.
//!
//! Generic over where the bytes are, so that the kernel program, the model and the fuzzers parse with the same code.
//! Every length is checked against the frame and against the headers around it: the bytes come from the internet.

use core::ops::Deref;

use network_types::eth::EthHdr;

use crate::{
    abi::{Features, PassReason},
    opaque::rarely,
    packet::{Kind, Packet},
    wire::{
        ETHER_IPV4, ETHER_IPV6, ETHER_SERVICE_VLAN, ETHER_VLAN,
        ip::{Family, IpHeader, Part, V4, V6},
        pod::{self, Pod},
        protocol,
    },
};

/// A reason that common frames do not have.
#[inline(always)]
fn truncated() -> PassReason {
    rarely(PassReason::Truncated)
}

/// The bytes of a frame, from its Ethernet header on.
pub trait Frame {
    /// A value where it stands.
    type View<'f, T: Pod>: Deref<Target = T>
    where
        Self: 'f;

    /// The value at `offset`; `None` if the frame ends before it does. For values of many words, of which only what is used
    /// is then read.
    fn view<T: Pod>(&self, offset: usize) -> Option<Self::View<'_, T>>;

    /// Reads a value at `offset`; `None` if the frame ends before it does.
    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        self.view(offset).map(|value| *value)
    }

    /// Whether the frame has so many bytes. They need not all be where [`Self::read`] finds them.
    fn reaches(&self, length: usize) -> bool;
}

/// A value that was read: where it stands it may not be aligned.
pub struct Copied<T>(pub T);

impl<T> Deref for Copied<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Frame for [u8] {
    type View<'f, T: Pod> = Copied<T>;

    fn view<T: Pod>(&self, offset: usize) -> Option<Copied<T>> {
        pod::read(self, offset).map(Copied)
    }

    fn reaches(&self, length: usize) -> bool {
        self.len() >= length
    }
}

/// Offset of the IP header in a frame without VLAN tags.
pub const L3_OFFSET: usize = size_of::<EthHdr>();

/// A VLAN tag behind its `EtherType`; numbers as they stand in memory.
#[repr(C, align(2))]
#[derive(Clone, Copy)]
struct VlanTag {
    control: u16,
    ether_type: u16,
}

/// VLAN tags that are stepped over: one, or two stacked (QinQ).
const MAX_TAGS: usize = 2;

/// What TCP, UDP and SCTP headers begin with; numbers as they stand in memory. Read as one word.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

/// The first eight bytes of an ICMP message.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct IcmpStart {
    kind: u8,
    code: u8,
    checksum: u16,
    rest: u32,
}

// SAFETY: numbers without padding.
unsafe impl Pod for VlanTag {}
// SAFETY: numbers without padding.
unsafe impl Pod for Ports {}
// SAFETY: numbers without padding.
unsafe impl Pod for IcmpStart {}

/// Where the flags of a TCP header are (RFC 9293 section 3.1).
const TCP_FLAGS: usize = 13;

/// Bytes of an ICMP header, before what it quotes.
const ICMP_HEADER: usize = size_of::<IcmpStart>();

/// Why a frame is not parsed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is none that can be balanced.
    Pass(PassReason),
    /// Only [`parse`] can tell: it has VLAN tags or extension headers, is a fragment, or no transport packet.
    Rare,
}

impl From<PassReason> for Stop {
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}

/// Reads a frame of the kind that nearly all are of: untagged, whole, a transport header right behind the IP header.
/// What it reads, [`parse`] reads alike.
///
/// # Errors
/// [`Stop`]
#[inline(always)]
pub fn parse_common<F: Frame + ?Sized>(frame: &F, features: Features) -> Result<Packet, Stop> {
    match common_version(frame)? {
        Version::V4 => common_ip::<V4, F>(frame, features),
        Version::V6 => common_ip::<V6, F>(frame, features),
    }
}

/// What follows the Ethernet header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The first half of [`parse_common`]. Who takes the second for each family by itself lets the compiler keep what it knows
/// of that family's packets.
///
/// # Errors
/// [`Stop`]
#[inline(always)]
pub fn common_version<F: Frame + ?Sized>(frame: &F) -> Result<Version, Stop> {
    let ethernet = frame.view::<EthHdr>(0).ok_or_else(truncated)?;
    match ethernet.ether_type {
        ETHER_IPV4 => Ok(Version::V4),
        ETHER_IPV6 => Ok(Version::V6),
        ETHER_VLAN | ETHER_SERVICE_VLAN => Err(Stop::Rare),
        _ => Err(Stop::Pass(rarely(PassReason::NotIp))),
    }
}

/// The second half of [`parse_common`].
///
/// # Errors
/// [`Stop`]
#[inline(always)]
pub fn common_ip<I: Family, F: Frame + ?Sized>(frame: &F, features: Features) -> Result<Packet, Stop> {
    let ip = whole_header::<I, F>(frame, L3_OFFSET)?;
    let Ok(shortest) = shortest(ip.protocol) else { return Err(Stop::Rare) };
    if ip.part != Part::Whole {
        return Err(Stop::Rare);
    }
    Ok(transport(frame, ip, packet_of(ip, L3_OFFSET, I::IS_V4, Kind::Whole), features, shortest)?)
}

/// Reads any frame.
///
/// # Errors
/// Why the packet is none that can be balanced. It goes on to the kernel, which knows what to do about
/// ARP and about malformed packets.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, features: Features) -> Result<Packet, PassReason> {
    let ethernet = frame.view::<EthHdr>(0).ok_or_else(truncated)?;
    let mut ether_type = ethernet.ether_type;
    let mut offset = L3_OFFSET;
    for _ in 0..MAX_TAGS {
        if !matches!(ether_type, ETHER_VLAN | ETHER_SERVICE_VLAN) {
            break;
        }
        let tag: VlanTag = frame.read(offset).ok_or_else(truncated)?;
        ether_type = tag.ether_type;
        offset += size_of::<VlanTag>();
    }
    match ether_type {
        ETHER_IPV4 => ip::<V4, F>(frame, offset, true, features),
        ETHER_IPV6 => ip::<V6, F>(frame, offset, false, features),
        _ => Err(PassReason::NotIp),
    }
}

#[inline(always)]
fn whole_header<I: Family, F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<IpHeader, PassReason> {
    let header = frame.view::<I::Header>(offset).ok_or_else(truncated)?;
    let ip = I::header(&header)?;
    if !frame.reaches(offset + usize::from(ip.total_len)) {
        return Err(truncated());
    }
    Ok(ip)
}

#[inline(always)]
fn packet_of(ip: IpHeader, offset: usize, is_v4: bool, kind: Kind) -> Packet {
    Packet {
        source: ip.source,
        destination: ip.destination,
        source_port: 0,
        destination_port: 0,
        protocol: ip.protocol,
        tcp_flags: 0,
        traffic_class: ip.traffic_class,
        ttl: ip.ttl,
        length: ip.total_len,
        offset: offset as u8,
        is_v4,
        kind,
        quic_head: 0,
        quic_id: 0,
        fragment: ip.fragment,
    }
}

#[inline(always)]
fn ip<I: Family, F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    is_v4: bool,
    features: Features,
) -> Result<Packet, PassReason> {
    let ip = I::skip_extensions(frame, offset, whole_header::<I, F>(frame, offset)?)?;
    let kind = match ip.part {
        Part::Whole => Kind::Whole,
        Part::First => Kind::FirstFragment,
        // Its ports are in the first one.
        Part::Later => return Ok(packet_of(ip, offset, is_v4, Kind::LaterFragment)),
    };
    let packet = packet_of(ip, offset, is_v4, kind);
    if ip.protocol == I::ICMP {
        return icmp::<I, F>(frame, ip, packet);
    }
    if matches!(ip.protocol, protocol::IPV4 | protocol::IPV6) {
        return Ok(Packet { kind: Kind::Tunnel, ..packet });
    }
    transport(frame, ip, packet, features, shortest(ip.protocol)?)
}

/// The shortest transport header that a packet must have room for; bytes.
#[inline(always)]
fn shortest(protocol: u8) -> Result<u16, PassReason> {
    match protocol {
        protocol::TCP => Ok(20),
        protocol::UDP => Ok(8),
        protocol::SCTP => Ok(12),
        _ => Err(PassReason::OtherProtocol),
    }
}

#[inline(always)]
fn transport<F: Frame + ?Sized>(
    frame: &F,
    ip: IpHeader,
    packet: Packet,
    features: Features,
    shortest: u16,
) -> Result<Packet, PassReason> {
    if ip.total_len - ip.header_len < shortest {
        return Err(truncated());
    }
    let offset = usize::from(packet.offset) + usize::from(ip.header_len);
    let ports: Ports = frame.read(offset).ok_or_else(truncated)?;
    let tcp_flags = match ip.protocol {
        protocol::TCP => frame.read(offset + TCP_FLAGS).ok_or_else(truncated)?,
        _ => 0,
    };
    let (quic_head, quic_id) = if features.has(Features::QUIC) && ip.protocol == protocol::UDP {
        quic_start(frame, offset + UDP_HEADER, usize::from(packet.offset) + usize::from(ip.total_len))
    } else {
        (0, 0)
    };
    Ok(Packet {
        source_port: u16::from_be(ports.source),
        destination_port: u16::from_be(ports.destination),
        tcp_flags,
        quic_head,
        quic_id,
        ..packet
    })
}

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// What of a datagram's payload may name a backend; zeros if it is shorter than any QUIC packet.
#[inline(always)]
fn quic_start<F: Frame + ?Sized>(frame: &F, offset: usize, end: usize) -> (u16, u64) {
    if offset + 10 > end {
        return (0, 0);
    }
    match (frame.read(offset), frame.read::<u64>(offset + 2)) {
        (Some(head), Some(id)) => (head, id),
        _ => (0, 0),
    }
}

/// An echo request to the VIP, or an error about a packet that left it.
#[inline(always)]
fn icmp<I: Family, F: Frame + ?Sized>(frame: &F, ip: IpHeader, packet: Packet) -> Result<Packet, PassReason> {
    let offset = usize::from(packet.offset) + usize::from(ip.header_len);
    let room = usize::from(ip.total_len - ip.header_len);
    let icmp: IcmpStart = frame.read(offset).ok_or_else(truncated)?;
    if room < ICMP_HEADER {
        return Err(truncated());
    }
    // A part of a message says nothing about the whole.
    if packet.kind != Kind::Whole {
        return Err(PassReason::Fragment);
    }
    if icmp.kind == I::ECHO_REQUEST && icmp.code == 0 {
        return Ok(Packet { kind: Kind::EchoRequest, ..packet });
    }
    if !I::is_error(icmp.kind) {
        return Err(PassReason::OtherProtocol);
    }

    let quoted = offset + ICMP_HEADER;
    let header = frame.view::<I::Header>(quoted).ok_or_else(truncated)?;
    let inner = I::skip_extensions(frame, quoted, I::header(&header)?)?;
    if inner.part == Part::Later {
        return Err(PassReason::Fragment);
    }
    shortest(inner.protocol)?;
    // It quotes at least the ports (RFC 792, RFC 4443 section 2.4), and both must lie within the message.
    let at = ICMP_HEADER + usize::from(inner.header_len);
    if room < at + size_of::<Ports>() {
        return Err(truncated());
    }
    let ports: Ports = frame.read(offset + at).ok_or_else(truncated)?;
    // An error about a packet that the VIP did not send is none of a service's.
    if inner.source.words() != packet.destination.words() {
        return Err(PassReason::OtherProtocol);
    }
    Ok(Packet {
        source: inner.destination,
        source_port: u16::from_be(ports.destination),
        destination_port: u16::from_be(ports.source),
        protocol: inner.protocol,
        kind: Kind::IcmpError,
        ..packet
    })
}
