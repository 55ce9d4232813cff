//! pcapng, as far as captures need it: blocks as bytes, and back
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>).

use std::time::Duration;

/// Block types.
pub mod block {
    /// Section header.
    pub const SECTION: u32 = 0x0a0d_0d0a;
    /// Interface description.
    pub const INTERFACE: u32 = 1;
    /// Interface statistics.
    pub const STATISTICS: u32 = 5;
    /// Enhanced packet.
    pub const PACKET: u32 = 6;
}

/// Options of blocks.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
    pub(super) const SECTION_PROGRAM: u16 = 4;
    pub(super) const INTERFACE_NAME: u16 = 2;
    pub(super) const INTERFACE_RESOLUTION: u16 = 9;
    pub(super) const PACKET_FLAGS: u16 = 2;
    pub(super) const PACKET_ID: u16 = 5;
    pub(super) const PACKET_VERDICT: u16 = 7;
    pub(super) const STATISTICS_RECEIVED: u16 = 4;
    pub(super) const STATISTICS_LOST: u16 = 5;
}

/// Says the byte order: ours is little endian on every machine.
const MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
/// In the verdict option: what follows is a verdict of an XDP program.
const XDP: u8 = 2;

/// Which way a packet was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As it came.
    In,
    /// As it left.
    Out,
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Place of its interface among those described.
    pub interface: u32,
    /// When, since 1970-01-01.
    pub time: Duration,
    /// Length of the whole frame.
    pub length: u32,
    /// The frame, as far as it was captured.
    pub frame: &'a [u8],
    /// Which way.
    pub direction: Direction,
    /// The same for a packet as it came and as it left.
    pub id: u64,
    /// XDP verdict.
    pub verdict: u8,
    /// Words for people.
    pub comment: &'a str,
}

/// The beginning of a file.
pub fn section(program: &str) -> Vec<u8> {
    let mut body = Body::default();
    body.word(MAGIC).half(1).half(0).long(u64::MAX);
    body.option(option::SECTION_PROGRAM, program.as_bytes()).end();
    body.into_block(block::SECTION)
}

/// An interface: the next place.
pub fn interface(name: &str, longest: u32) -> Vec<u8> {
    let mut body = Body::default();
    body.half(ETHERNET).half(0).word(longest);
    body.option(option::INTERFACE_NAME, name.as_bytes());
    // Nanoseconds.
    body.option(option::INTERFACE_RESOLUTION, &[9]).end();
    body.into_block(block::INTERFACE)
}

/// A packet.
pub fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut body = Body::default();
    body.word(packet.interface).time(packet.time).word(packet.frame.len() as u32).word(packet.length);
    body.padded(packet.frame);
    body.option(option::COMMENT, packet.comment.as_bytes());
    let direction = match packet.direction {
        Direction::In => 1u32,
        Direction::Out => 2,
    };
    body.option(option::PACKET_FLAGS, &direction.to_le_bytes());
    body.option(option::PACKET_ID, &packet.id.to_le_bytes());
    let verdict = [&[XDP][..], &u64::from(packet.verdict).to_le_bytes()].concat();
    body.option(option::PACKET_VERDICT, &verdict).end();
    body.into_block(block::PACKET)
}

/// How many packets were captured, and how many were not although they should have been.
pub fn statistics(interface: u32, time: Duration, captured: u64, lost: u64) -> Vec<u8> {
    let mut body = Body::default();
    body.word(interface).time(time);
    body.option(option::STATISTICS_RECEIVED, &captured.to_le_bytes());
    body.option(option::STATISTICS_LOST, &lost.to_le_bytes()).end();
    body.into_block(block::STATISTICS)
}

/// The inside of a block.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn half(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// High word first.
    fn time(&mut self, time: Duration) -> &mut Self {
        let nanoseconds = time.as_nanos() as u64;
        self.word((nanoseconds >> 32) as u32).word(nanoseconds as u32)
    }

    fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        // Longer than any name or sentence of ours.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.half(code).half(value.len() as u16).padded(value)
    }

    fn end(&mut self) {
        self.half(option::END).half(0);
    }

    fn into_block(self, kind: u32) -> Vec<u8> {
        let Self(body) = self;
        let length = (body.len() + 12) as u32;
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), &body, &length.to_le_bytes()].concat()
    }
}

/// A block that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// See [`block`].
    pub kind: u32,
    /// What is in it.
    pub body: &'a [u8],
    /// Length of all of it.
    pub length: usize,
}

impl<'a> Block<'a> {
    /// The first block of some bytes; `None` if they end before it does.
    ///
    /// # Errors
    /// They are no pcapng of ours.
    pub fn first(bytes: &'a [u8]) -> Result<Option<Self>, &'static str> {
        let (Some(kind), Some(length)) = (word(bytes, 0), word(bytes, 4)) else { return Ok(None) };
        let length = length as usize;
        if length < 12 || !length.is_multiple_of(4) {
            return Err("a block has a length that none can have");
        }
        let Some(block) = bytes.get(..length) else { return Ok(None) };
        if word(block, length - 4) != Some(length as u32) {
            return Err("a block has two lengths");
        }
        Ok(Some(Self { kind, body: &block[8..length - 4], length }))
    }

    /// The packet in it, if it is one.
    pub fn packet(&self) -> Option<Packet<'a>> {
        if self.kind != block::PACKET {
            return None;
        }
        let kept = word(self.body, 12)? as usize;
        let options = self.body.get(20 + kept.next_multiple_of(4)..)?;
        let number = |code| Some(u64::from_le_bytes(find(options, code)?.try_into().ok()?));
        let flags = find(options, option::PACKET_FLAGS)?.first()?;
        Some(Packet {
            interface: word(self.body, 0)?,
            time: Duration::from_nanos(u64::from(word(self.body, 4)?) << 32 | u64::from(word(self.body, 8)?)),
            length: word(self.body, 16)?,
            frame: self.body.get(20..20 + kept)?,
            direction: if flags & 3 == 1 { Direction::In } else { Direction::Out },
            id: number(option::PACKET_ID)?,
            verdict: *find(options, option::PACKET_VERDICT)?.get(1)?,
            comment: std::str::from_utf8(find(options, option::COMMENT)?).ok()?,
        })
    }

    /// Packets captured and lost, if it says that.
    pub fn statistics(&self) -> Option<(u64, u64)> {
        if self.kind != block::STATISTICS {
            return None;
        }
        let options = self.body.get(12..)?;
        let number = |code| Some(u64::from_le_bytes(find(options, code)?.try_into().ok()?));
        Some((number(option::STATISTICS_RECEIVED)?, number(option::STATISTICS_LOST)?))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The value of an option.
fn find(mut options: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = word(options, 0)?;
        let (code, length) = (header as u16, (header >> 16) as usize);
        if code == option::END {
            return None;
        }
        if code == wanted {
            return options.get(4..4 + length);
        }
        options = options.get(4 + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let time = Duration::from_nanos(1_700_000_000_123_456_789);
        let frame: Vec<u8> = (0..61).collect();
        let written = Packet {
            interface: 1,
            time,
            length: 1514,
            frame: &frame,
            direction: Direction::Out,
            id: 7,
            verdict: 3,
            comment: "transmit, service www",
        };
        let bytes = [
            section("lb"),
            interface("eth0", 9000),
            interface("eth1", 9000),
            packet(&written),
            statistics(0, time, 5, 2),
        ]
        .concat();
        let mut rest = &bytes[..];
        let mut kinds = Vec::new();
        while let Some(read) = Block::first(rest).unwrap() {
            kinds.push(read.kind);
            if let Some(packet) = read.packet() {
                assert_eq!(format!("{packet:?}"), format!("{written:?}"));
            }
            if let Some(statistics) = read.statistics() {
                assert_eq!(statistics, (5, 2));
            }
            rest = &rest[read.length..];
        }
        assert!(rest.is_empty());
        let wanted = [block::SECTION, block::INTERFACE, block::INTERFACE, block::PACKET, block::STATISTICS];
        assert_eq!(kinds, wanted);
        // The beginning, byte by byte as the standard has it.
        assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
        assert_eq!(
            bytes[8..24],
            [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
        );
    }

    #[test]
    fn half_a_block_is_none_and_nonsense_an_error() {
        let bytes = section("lb");
        for length in 0..bytes.len() {
            assert_eq!(Block::first(&bytes[..length]), Ok(None), "{length}");
        }
        assert!(Block::first(&[1; 12]).is_err());
        let mut bytes = bytes;
        *bytes.last_mut().unwrap() ^= 1;
        assert!(Block::first(&bytes).is_err());
    }
}
