//! What stands before the IP header: Ethernet addresses, VLAN tags, the `EtherType`. Written at known places only,
//! which is what the verifier wants to see.

use lb_common::{
    encap::{TAGGED_OFFSET, VLAN_ID},
    parse::{Frame, L3_OFFSET},
    wire::ETHER_VLAN,
};

use crate::cursor::Cursor;

/// Where the `EtherType` of a frame is, or its first VLAN tag.
const ETHER_TYPE: usize = 12;

/// VLAN tags of a frame: each its `EtherType` and its control information, in the order of memory.
#[derive(Clone, Copy)]
pub struct Tags {
    count: u32,
    first: u32,
    second: u32,
}

impl Tags {
    /// The tags of a frame whose IP header begins at `offset`.
    #[inline(always)]
    pub fn read(frame: &Cursor<'_>, offset: usize) -> Option<Self> {
        let (mut count, mut first, mut second) = (0, 0, 0);
        if offset > L3_OFFSET {
            (count, first) = (1, frame.read(ETHER_TYPE)?);
        }
        if offset > usize::from(TAGGED_OFFSET) {
            (count, second) = (2, frame.read(ETHER_TYPE + 4)?);
        }
        Some(Self { count, first, second })
    }

    /// One tag, of this VLAN and of the priority that there was.
    #[inline(always)]
    pub fn only(self, vlan: u32) -> Self {
        let control = (self.first >> 16) as u16;
        let control = u16::from_be(control) & !VLAN_ID | vlan as u16 & VLAN_ID;
        let first = u32::from(ETHER_VLAN) | u32::from(control.to_be()) << 16;
        Self { count: 1, first, second: 0 }
    }

    /// Bytes of them.
    #[inline(always)]
    pub const fn len(self) -> usize {
        4 * self.count as usize
    }

    /// Writes them behind the Ethernet addresses, and the `EtherType` of what follows. Returns where that begins.
    #[inline(always)]
    pub fn write(self, frame: &Cursor<'_>, ether_type: u16) -> Option<usize> {
        let mut at = ETHER_TYPE;
        if self.count > 0 {
            frame.write(at, self.first)?;
            at += 4;
        }
        if self.count > 1 {
            frame.write(at, self.second)?;
            at += 4;
        }
        frame.write(at, ether_type)?;
        Some(at + 2)
    }
}
