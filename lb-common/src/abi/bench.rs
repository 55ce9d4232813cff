//! What the bench and its kernel programs agree on. The balancer has nothing of it.

/// Names of the bench's programs and maps, as they stand in its own object.
pub mod name {
    /// The programs that restore the frame and go on to a subject, one for each subject.
    pub const RESTORE: [&str; super::SUBJECTS as usize] =
        ["bench_restore_empty", "bench_restore_swap", "bench_restore_subject"];
    /// A program that passes every frame.
    pub const EMPTY: &str = "bench_empty";
    /// The least that a balancer can do: parses, reads one array, swaps the MAC addresses and sends back.
    pub const SWAP: &str = "bench_swap";
    /// The same, out by the interface of [`WAY_OUT`].
    pub const SWAP_OVER: &str = "bench_swap_over";
    /// Sends live frames, and where they end: [`SUNK`] counts them.
    pub const SEND: &str = "bench_send";
    /// Drops every frame and counts it.
    pub const SINK: &str = "bench_sink";
    /// How many frames were dropped there.
    pub const SUNK: &str = "bench_sunk";
    /// One interface.
    pub const WAY_OUT: &str = "bench_way_out";
    /// One [`super::Rehearsal`].
    pub const REHEARSAL: &str = "bench_rehearsal";
    /// The subjects, in the order of [`RESTORE`].
    pub const SUBJECTS: &str = "bench_subjects";
}

/// Programs that are compared with each other: nothing, the least, and what is measured.
pub const SUBJECTS: u32 = 3;

/// Bytes of a frame that are restored: no program that is measured changes others, and none moves its end.
pub const RESTORED: usize = 64;

/// A run of many iterations over one frame. Two words of the flow's number change its client, one its VIP.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Iterations so far. They count from `first`, and each has the flow of its number.
    pub done: u64,
    /// The clock is read at this iteration.
    pub first: u64,
    /// And at this one, a later one.
    pub last: u64,
    /// `bpf_ktime_get_ns` then.
    pub started: u64,
    /// `bpf_ktime_get_ns` then.
    pub ended: u64,
    /// Length of the frame; bytes.
    pub length: u64,
    /// Flows, a power of two, less one.
    pub flow_mask: u64,
    /// Virtual addresses, at most 65536: they differ in their last two bytes, and the first has zeros there.
    pub vips: u64,
    /// Whether the frame is IPv6.
    pub is_v6: u64,
    /// The frame's first bytes.
    pub template: [u64; RESTORED / 8],
}

const _: () = assert!(size_of::<Rehearsal>() == 136);
