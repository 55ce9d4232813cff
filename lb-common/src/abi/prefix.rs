//! Prefixes of addresses: lists of sources and prefixes of virtual addresses, in one table that finds the longest.

use crate::addr::Addr;

/// What a prefix is found by, as the kernel wants the key of a `BPF_MAP_TYPE_LPM_TRIE` (kernel documentation,
/// bpf/map_lpm_trie): how many bits of what follows count, and then these bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey {
    /// Bits of `list` and `address` together: at least 32, at most 160.
    pub bits: u32,
    /// Which list: lists 0 and 1 hold the prefixes of virtual addresses that belong to that copy of the service index,
    /// [`Self::OWN`] those of our tunnels' sources, and those from [`Self::FIRST_ACL`] on hold clients.
    pub list: u32,
    /// The address; zero behind the prefix.
    pub address: [u32; 4],
}

impl PrefixKey {
    /// The list of our tunnels' sources.
    pub const OWN: u32 = 2;
    /// The first list of clients.
    pub const FIRST_ACL: u32 = 3;
    /// Bits of `list`.
    const LIST: u32 = 32;

    /// A prefix of `bits` bits, 0 to 128, in a list.
    #[inline(always)]
    pub const fn new(list: u32, address: Addr, bits: u32) -> Self {
        let address = if bits == 0 { Addr::NONE } else { address.prefix(bits) };
        Self { bits: Self::LIST + bits, list, address: halves(address) }
    }

    /// What finds the longest prefix of an address.
    #[inline(always)]
    pub const fn of(list: u32, address: Addr) -> Self {
        Self { bits: Self::LIST + 128, list, address: halves(address) }
    }

    /// The prefix's length; bits.
    pub const fn length(&self) -> u32 {
        self.bits - Self::LIST
    }
}

#[inline(always)]
const fn halves(address: Addr) -> [u32; 4] {
    let [first, second] = address.words();
    [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32]
}

/// What a list of sources says about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Admission {
    /// It may.
    Allow = 1,
    /// It may not.
    Deny = 2,
}
