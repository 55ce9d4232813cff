//! Remembered flows: which backend a flow is on, where the lookup table alone cannot tell.

/// Coarse time: the kernel's jiffies, 31 bits of them. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks(u32);

impl Ticks {
    const MASK: u32 = 0x7fff_ffff;

    /// The low 31 bits of a jiffies count.
    #[inline(always)]
    pub const fn new(jiffies: u64) -> Self {
        Self(jiffies as u32 & Self::MASK)
    }

    /// The number behind it.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From the number behind it.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::MASK)
    }

    /// How far apart clocks are at most that are read at different moments of the same work: 8 s at 1000 jiffies a second.
    const SKEW: u32 = 1 << 13;

    /// How long before `self` this was (up to 24 days at 1000 jiffies a second). 0 for what is a little later: another CPU,
    /// or a packet that comes while the table is read, may have seen the clock tick already.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let age = self.0.wrapping_sub(earlier.0) & Self::MASK;
        // No branch, because the verifier would walk both ways.
        age & (age.wrapping_add(Self::SKEW) >> 31).wrapping_sub(1)
    }
}

/// One remembered flow: two words, so that it can be read and written without a lock.
///
/// It is written as: first word to 0, second word, first word. Who finds the first word it looks for reads a second
/// word that belongs to it, or, if the place is just being taken over from a flow that has long been idle, the new
/// owner's.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The flow's identity, see [`Flow::identity`]: in its high half the bits that choose the slot, so that the daemon can tell the slot of a
    /// remembered flow; 0 is an empty place.
    pub id: u64,
    /// Index of the backend in 24 bits, the low 8 bits of its epoch, whether the flow is confirmed, and when it was
    /// last seen ([`Ticks`]), from the top down.
    pub value: u64,
}

impl Flow {
    /// In [`Self::id`]: what is remembered is no flow, but what flows have in common: a packet's fragments, a source. No
    /// table has so many buckets that this bit chooses one.
    pub const BESIDE: u64 = 1 << 31;

    /// The identity of the flow with this hash. Never 0.
    #[inline(always)]
    pub const fn identity(hash: u64) -> u64 {
        let id = hash & !Self::BESIDE;
        if id == 0 { 1 } else { id }
    }

    /// A flow.
    #[inline(always)]
    pub const fn new(id: u64, backend: u32, epoch: u8, confirmed: bool, seen: Ticks) -> Self {
        let value = (backend as u64) << 40
            | (epoch as u64) << 32
            | (confirmed as u64) << 31
            | (seen.0 & Ticks::MASK) as u64;
        Self { id, value }
    }

    /// Index of its backend.
    #[inline(always)]
    pub const fn backend(&self) -> u32 {
        (self.value >> 40) as u32
    }

    /// The backend's epoch when the flow was remembered.
    #[inline(always)]
    pub const fn epoch(&self) -> u8 {
        (self.value >> 32) as u8
    }

    /// Whether more than one packet of it was seen. An unconfirmed flow may be displaced by any other: a flood of
    /// single packets displaces only itself.
    #[inline(always)]
    pub const fn is_confirmed(&self) -> bool {
        self.value & 1 << 31 != 0
    }

    /// When it was last seen.
    #[inline(always)]
    pub const fn seen(&self) -> Ticks {
        Ticks(self.value as u32 & Ticks::MASK)
    }
}

/// Flows of one bucket.
pub const WAYS: usize = 4;

/// The flows that share a place of the flow table: one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [Flow; WAYS]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_reads_back() {
        let flow = Flow::new(42, 0xab_cdef, 0x12, true, Ticks::new(0x1_7fff_fffe));
        assert_eq!((flow.backend(), flow.epoch(), flow.is_confirmed()), (0xab_cdef, 0x12, true));
        assert_eq!(flow.seen(), Ticks::new(0x7fff_fffe));
        assert!(!Flow::new(42, 1, 1, false, Ticks::new(u64::MAX)).is_confirmed());
    }

    #[test]
    fn time_wraps() {
        assert_eq!(Ticks::new(0x8000_0005).since(Ticks::new(0x7fff_fffb)), 10);
        assert_eq!(Ticks::new(5).since(Ticks::new(5)), 0);
    }

    #[test]
    fn what_is_a_little_later_is_now_and_what_is_old_is_old() {
        let now = Ticks::new(100);
        for later in [1, 2, 64, 8192] {
            assert_eq!(now.since(Ticks::new(100 + later)), 0, "{later}");
        }
        assert_eq!(now.since(Ticks::new(100 + 8193)), 0x7fff_ffff - 8192);
        assert_eq!(now.since(Ticks::new(101 + 0x4000_0000)), 0x3fff_ffff, "half of the range");
    }
}
