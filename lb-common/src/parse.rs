//! From the bytes of a frame to a [`Packet`], or to the reason to leave it to the kernel.
//!
//! Generic over where the bytes are, so that the kernel program, the model and the fuzzers parse with the same code.
//! Every length is checked against the frame and against the headers around it: the bytes come from the internet.

use network_types::{eth::EthHdr, udp::UdpHdr};

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

/// The first 16 bytes of a TCP header: all that a decision looks at, in whole words (RFC 9293 section 3.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpStart {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    offset: u8,
    flags: u8,
    window: [u8; 2],
}

// SAFETY: bytes only.
unsafe impl Pod for TcpStart {}

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
    let (source_port, destination_port, tcp_flags) = match ip.protocol {
        protocol::TCP => {
            if room < 20 {
                return Err(PassReason::Truncated);
            }
            let tcp: TcpStart = frame.read(offset).ok_or(PassReason::Truncated)?;
            (tcp.source, tcp.destination, tcp.flags)
        }
        protocol::UDP => {
            if room < 8 {
                return Err(PassReason::Truncated);
            }
            let udp: UdpHdr = frame.read(offset).ok_or(PassReason::Truncated)?;
            (udp.src, udp.dst, 0)
        }
        _ => return Err(PassReason::OtherProtocol),
    };
    Ok(Packet {
        source: ip.source,
        destination: ip.destination,
        source_port: u16::from_be_bytes(source_port),
        destination_port: u16::from_be_bytes(destination_port),
        protocol: ip.protocol,
        tcp_flags,
        traffic_class: ip.traffic_class,
        length: ip.total_len,
        is_v4,
    })
}
