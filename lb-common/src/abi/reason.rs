//! Why a packet was dropped or passed on: each reason has a name and a counter.

/// Declares the reasons once: variant, name, sentence.
macro_rules! reasons {
    ($(#[$meta:meta])* $kind:ident from $first:literal { $($variant:ident $name:literal $text:literal)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        // As wide as what it shares a place with where it is an error: the compiler would move that byte by byte.
        #[repr(u64)]
        pub enum $kind { $(#[doc = $text] $variant,)* }

        impl $kind {
            /// Every reason, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that counters, metrics and events use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Position of this reason's counter.
            #[inline(always)]
            pub const fn counter(self) -> u32 {
                $first + self as u32
            }
        }
    };
}

reasons! {
    /// Why a packet went on to the kernel's own stack.
    PassReason from 0 {
        NotIp "not_ip" "Neither IPv4 nor IPv6: ARP, for example."
        NotForService "not_for_service" "No service has this address, protocol and port."
        Truncated "truncated" "The frame ends before the headers do."
        BadHeader "bad_header" "An IP header contradicts itself or the frame."
        Fragment "fragment" "A fragment of an ICMP message, or an ICMP error that quotes a later fragment."
        Extension "extension" "More IPv6 extension headers stand before the transport header than anyone sends."
        OtherProtocol "other_protocol" "Neither TCP, UDP nor SCTP, nor an ICMP message that has to do with a service."
        NoRareProgram "no_rare_program" "The program for rare packets is not there: a defect."
    }
}

reasons! {
    /// Why a packet for a service was dropped.
    DropReason from 16 {
        NoBackend "no_backend" "The pool has no backend that can take it."
        BackendAbsent "backend_absent" "The slot points at a backend that is not there: a defect."
        TooBig "too_big" "The packet with its outer header exceeds the next hop's MTU."
        NoHeadroom "no_headroom" "The driver left no room for an outer header."
        TtlExpired "ttl_expired" "Its TTL or hop limit ends here."
        FragmentUnknown "fragment_unknown" "A later fragment whose first one was not seen, or not lately."
        NoPort "no_port" "The backend's interface is not one the program may send through."
        Looped "looped" "A packet in a tunnel of ours came back to a balancer."
        Denied "denied" "The service's list does not admit its source."
        PacketLimit "packet_limit" "Its source sent more packets than the service allows one."
        FlowLimit "flow_limit" "Its source opened more connections than the service allows one."
    }
}

reasons! {
    /// What happened beside the verdict. Not a reason for one, but counted like one.
    Note from 48 {
        EchoAnswered "echo_answered" "An echo request to a VIP was answered."
        LaterFragment "later_fragment" "A later fragment was forwarded after its first one."
        TooBigAnswered "too_big_answered" "The sender of a packet that does not fit its tunnel was told what does."
        LimiterFull "limiter_full" "A source that was near its limit was forgotten for another one."
        FlowsFull "flow_not_remembered_full" "A flow found its bucket of the flow table full of others."
        FlowsLimited "flow_not_remembered_limited" "This CPU had remembered as many flows as it may in this moment."
        EventLost "event_lost" "An event or a captured frame found no room, because the daemon did not read fast enough."
        CaptureLimited "capture_limited" "A packet was not captured, because this CPU had captured as many as it may in this moment."
    }
}

impl DropReason {
    /// From [`Self::counter`].
    #[inline(always)]
    pub const fn from_counter(counter: u32) -> Self {
        // What refuses packets knows these.
        const DENIED: u32 = DropReason::Denied.counter();
        const PACKETS: u32 = DropReason::PacketLimit.counter();
        match counter {
            DENIED => Self::Denied,
            PACKETS => Self::PacketLimit,
            _ => Self::FlowLimit,
        }
    }
}

/// A reason of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The packet went on to the kernel.
    Pass(PassReason),
    /// The packet was dropped.
    Drop(DropReason),
    /// The packet was forwarded or answered all the same.
    Note(Note),
}

impl Reason {
    /// Counters that one CPU owns for reasons.
    pub const COUNT: u32 = 64;

    /// The first reason that a service has a part in: those before it are reasons to pass.
    pub const FIRST_OF_SERVICE: u32 = 16;

    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        let pass = PassReason::ALL.iter().map(|&r| Self::Pass(r));
        let drop = DropReason::ALL.iter().map(|&r| Self::Drop(r));
        pass.chain(drop).chain(Note::ALL.iter().map(|&r| Self::Note(r)))
    }

    /// The name that counters, metrics and events use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.name(),
            Self::Drop(reason) => reason.name(),
            Self::Note(note) => note.name(),
        }
    }

    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.text(),
            Self::Drop(reason) => reason.text(),
            Self::Note(note) => note.text(),
        }
    }

    /// Position of this reason's counter.
    #[inline(always)]
    pub const fn counter(self) -> u32 {
        match self {
            Self::Pass(reason) => reason.counter(),
            Self::Drop(reason) => reason.counter(),
            Self::Note(note) => note.counter(),
        }
    }

    /// Position of this reason's counter among those of a service; `None` for reasons to pass.
    #[inline(always)]
    pub const fn of_service(self) -> Option<u32> {
        self.counter().checked_sub(Self::FIRST_OF_SERVICE)
    }
}

const _: () = {
    assert!(PassReason::ALL.len() <= 16);
    assert!(DropReason::ALL.len() <= 32);
    assert!(Note::ALL.len() <= 16);
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_a_name_and_a_counter_of_its_own() {
        let names: BTreeSet<_> = Reason::all().map(Reason::name).collect();
        let counters: BTreeSet<_> = Reason::all().map(Reason::counter).collect();
        assert_eq!(names.len(), Reason::all().count());
        assert_eq!(counters.len(), Reason::all().count());
        assert!(counters.iter().all(|&c| c < Reason::COUNT));
    }
}
