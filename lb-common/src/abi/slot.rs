//! Slots of lookup tables.

/// One slot of a lookup table: a backend's number within its pool, and the transition flag.
///
/// The low 15 bits are the number plus one, so that zeroed memory is a table of empty slots. The previous owner of
/// a slot in transition stands at the same place of a second array.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot(pub u16);

impl Slot {
    /// The flag: this slot has a previous owner that may still serve.
    pub const TRANSITION: u16 = 0x8000;
    /// No backend.
    pub const EMPTY: Self = Self(0);
    /// Backend numbers of a pool are below this.
    pub const MAX_BACKENDS: u16 = 0x7fff;

    /// A slot that belongs to this backend number.
    #[inline(always)]
    pub const fn of(number: u16) -> Self {
        Self((number + 1) & 0x7fff)
    }

    /// The same owner, in transition.
    #[inline(always)]
    #[must_use]
    pub const fn moving(self) -> Self {
        Self(self.0 | Self::TRANSITION)
    }

    /// The owner's number, if there is one.
    #[inline(always)]
    pub const fn owner(self) -> Option<u16> {
        (self.0 & 0x7fff).checked_sub(1)
    }

    /// Whether the slot is in transition.
    #[inline(always)]
    pub const fn in_transition(self) -> bool {
        self.0 & Self::TRANSITION != 0
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mark = if self.in_transition() { "~" } else { "" };
        match self.owner() {
            Some(number) => write!(f, "{number}{mark}"),
            None => write!(f, "-{mark}"),
        }
    }
}

/// Slots of one map element. An array map rounds every element up to 8 bytes, so slots are packed
/// to a cache line.
pub const SLOTS_PER_LINE: u32 = 32;

/// One map element of slots.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotLine(pub [Slot; SLOTS_PER_LINE as usize]);
