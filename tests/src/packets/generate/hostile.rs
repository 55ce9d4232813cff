//! What is broken, or more than anyone sends.

use super::super::{ETHERNET_LEN, Packet, ether, ethernet, random::Random};

/// Bytes that are no packet, or hardly one.
pub(super) fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(120);
    let mut bytes = random.bytes(length);
    if random.once_in(2) {
        return ethernet(random.array(), random.array(), random.half(), &bytes);
    }
    let ether_type = random.pick(&[ether::IPV4, ether::IPV6, ether::ARP, ether::VLAN, ether::SERVICE_VLAN]);
    // The rest is read as what the first byte says.
    if let Some(first) = bytes.first_mut()
        && random.once_in(2)
    {
        *first = random.pick(&[0x45, 0x46, 0x4f, 0x44, 0x60, 0x6f, 0x50]);
    }
    ethernet(random.array(), random.array(), ether_type, &bytes)
}

/// The packet with a chain of extension headers, which seldom is longer than anyone sends or lies.
pub(super) fn extended(random: &mut Random, mut packet: Packet) -> Packet {
    // Some are longer than anyone steps over, in number or in bytes.
    let huge = random.once_in(10);
    let most = if huge { 2 + random.below(30) } else { random.pick(&[0, 0, 1, 2, 4, 5, 6, 7]) };
    for _ in 0..=most {
        let number = random.pick(&[0, 43, 44, 50, 51, 60, 135]);
        // The authentication header counts words of 4 bytes, less 2 (RFC 4302 section 2.2).
        let (units, length) = if number == 51 {
            let words = random.below(6);
            (words, 4 * (words + 2))
        } else {
            let most = if huge { random.pick(&[3, 3, 3, 3, 3, 100]) } else { 3 };
            let words = random.below(most);
            (words, 8 * (words + 1))
        };
        let mut rest = random.bytes(length - 1);
        if number == 44 {
            rest.truncate(7);
            // Whole, the first or any.
            rest[0] &= if random.once_in(20) { 0xff } else { 0 };
            rest[1] &= random.pick(&[0, 0, 0xff]);
            rest[2] &= random.pick(&[0, 1, 0xff]);
        } else {
            rest[0] = if random.once_in(20) { random.byte() } else { units as u8 };
        }
        packet = packet.extension(number, &rest);
    }
    packet
}

/// Breaks something, preferably in the headers.
pub(super) fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    if frame.len() <= ETHERNET_LEN {
        return;
    }
    let headers = frame.len().min(ETHERNET_LEN + 80);
    let within = |random: &mut Random, end: usize| ETHERNET_LEN + random.below(end - ETHERNET_LEN);
    match random.below(9) {
        0..=1 => {
            let at = random.below(headers);
            frame[at] ^= 1 << random.below(8);
        }
        2 => {
            let at = within(random, headers);
            frame[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff, 4, 6, 17, 41, 0x45, 0x60]);
        }
        3 => frame.truncate(random.below(frame.len() + 1)),
        // The last bytes of headers, and the first behind them.
        8 => frame.truncate(within(random, headers)),
        4 => {
            let length = random.below(40);
            frame.extend(random.bytes(length));
        }
        // The length field of either family, to something near the truth or anything.
        5..=6 => {
            let at = ETHERNET_LEN + random.pick(&[2, 4]);
            let Some(field) = frame.get(at..at + 2) else { return };
            let known = u16::from_be_bytes([field[0], field[1]]);
            let length = match random.below(3) {
                0 => random.half(),
                1 => known.wrapping_add(random.below(5) as u16).wrapping_sub(2),
                _ => random.pick(&[0, 19, 20, 27, 28, 39, 40, 65495, 65496, 65535]),
            };
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        _ => {
            let at = within(random, headers);
            let end = (at + 1 + random.below(8)).min(frame.len());
            let noise = random.bytes(end - at);
            frame[at..end].copy_from_slice(&noise);
        }
    }
}
