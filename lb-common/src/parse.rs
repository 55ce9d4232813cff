//! From the bytes of a frame to a [`Packet`], or to the reason to leave it to the kernel.
//!
//! Generic over where the bytes are, so that the kernel program, the model and the fuzzers parse with the same code.
//! Every length is checked against the frame and against the headers around it: the bytes come from the internet.

use network_types::eth::EthHdr;

use crate::{
    abi::PassReason,
    packet::Packet,
    wire::{
        ETHER_IPV4, ETHER_IPV6,
        ip::{Family, V4, V6},
        pod::{self, Pod},
        protocol,
    },
};

/// The bytes of a frame, from its Ethernet header on.
pub trait Frame {
    /// Reads a value at `offset`; `None` if the frame ends before it does.
    fn read<T: Pod>(&self, offset: usize) -> Option<T>;

    /// Length of the frame; bytes.
    fn len(&self) -> usize;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame for [u8] {
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        pod::read(self, offset)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

/// Offset of the IP header.
pub const L3_OFFSET: usize = size_of::<EthHdr>();

/// What TCP and UDP headers both begin with; numbers as they stand in memory. Read as one word.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

// SAFETY: two numbers without padding.
unsafe impl Pod for Ports {}

/// Where the flags of a TCP header are (RFC 9293 section 3.1).
const TCP_FLAGS: usize = 13;

/// The shortest headers, without options; bytes.
const TCP_HEADER: u16 = 20;
const UDP_HEADER: u16 = 8;

/// Reads a frame.
///
/// # Errors
/// Why the packet is none that can be balanced. It goes on to the kernel, which knows what to do about
/// ARP and about malformed packets.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Packet, PassReason> {
    let ethernet: EthHdr = frame.read(0).ok_or(PassReason::Truncated)?;
    match ethernet.ether_type {
        ETHER_IPV4 => ip::<V4, F>(frame, true),
        ETHER_IPV6 => ip::<V6, F>(frame, false),
        _ => Err(PassReason::NotIp),
    }
}

#[inline(always)]
fn ip<I: Family, F: Frame + ?Sized>(frame: &F, is_v4: bool) -> Result<Packet, PassReason> {
    let header: I::Header = frame.read(L3_OFFSET).ok_or(PassReason::Truncated)?;
    let ip = I::header(&header)?;
    if L3_OFFSET + usize::from(ip.total_len) > frame.len() {
        return Err(PassReason::Truncated);
    }
    let offset = L3_OFFSET + usize::from(ip.header_len);
    let room = ip.total_len - ip.header_len;
    let shortest = match ip.protocol {
        protocol::TCP => TCP_HEADER,
        protocol::UDP => UDP_HEADER,
        _ => return Err(PassReason::OtherProtocol),
    };
    if room < shortest {
        return Err(PassReason::Truncated);
    }
    let ports: Ports = frame.read(offset).ok_or(PassReason::Truncated)?;
    let tcp_flags = match ip.protocol {
        protocol::TCP => frame.read(offset + TCP_FLAGS).ok_or(PassReason::Truncated)?,
        _ => 0,
    };
    Ok(Packet {
        source: ip.source,
        destination: ip.destination,
        source_port: u16::from_be(ports.source),
        destination_port: u16::from_be(ports.destination),
        protocol: ip.protocol,
        tcp_flags,
        traffic_class: ip.traffic_class,
        length: ip.total_len,
        is_v4,
    })
}
