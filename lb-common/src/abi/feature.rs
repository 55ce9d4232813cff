//! What a configuration may use beyond the plain path. A program is loaded for the features in use: the verifier
//! removes what the others would cost.

/// A set of features: the read-only global [`super::name::FEATURES`] of a loaded program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u32);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// Services on any port of a protocol.
    pub const ANY_PORT: Self = Self(1);
    /// Services on a prefix of virtual addresses.
    pub const PREFIX_VIP: Self = Self(1 << 1);
    /// Flows of one source on one backend.
    pub const AFFINITY: Self = Self(1 << 2);
    /// Backends chosen by QUIC connection ID.
    pub const QUIC: Self = Self(1 << 3);
    /// Lists of sources.
    pub const ACL: Self = Self(1 << 4);
    /// Limits for each source.
    pub const LIMITS: Self = Self(1 << 5);
    /// Dropped packets are told of, some of them.
    pub const DROP_EVENTS: Self = Self(1 << 6);
    /// Frames are captured.
    pub const CAPTURE: Self = Self(1 << 7);
    /// Backends behind GUE.
    pub const GUE: Self = Self(1 << 8);
    /// Packets that were sent on are told of, some of them.
    pub const FLOW_EVENTS: Self = Self(1 << 9);
    /// Those by which a packet may be told of.
    pub const TELLING: Self = Self::DROP_EVENTS.with(Self::CAPTURE).with(Self::FLOW_EVENTS);
    /// What the lean programs can do: they are compiled for it, so that nothing else is in the way of the common packet.
    pub const LEAN: Self = Self::DROP_EVENTS;
    /// All of them.
    pub const ALL: Self = Self((1 << 10) - 1);

    /// Whether it has all of `others`.
    #[inline(always)]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether it has any of `others`.
    #[inline(always)]
    pub const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Both sets.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}
