//! The only pointer arithmetic on packets. Every access is checked against the packet's end, which is what the
//! verifier wants to see, directly before it.

use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::{opaque::opaque, parse::Frame, wire::pod::Pod};

/// The linear part of a frame, from its Ethernet header on. Stale as soon as the frame's head moves.
pub struct Cursor<'c> {
    data: usize,
    end: usize,
    context: &'c XdpContext,
}

impl<'c> Cursor<'c> {
    /// The frame as it is now.
    #[inline(always)]
    pub fn new(ctx: &'c XdpContext) -> Self {
        Self { data: ctx.data(), end: ctx.data_end(), context: ctx }
    }

    /// The frame from `offset` on. Accesses at known places behind an unknown offset go by this: the compiler would
    /// compute each from another start than the one that was checked.
    #[inline(always)]
    pub fn behind(&self, offset: usize) -> Self {
        Self { data: opaque((self.data + offset) as u64) as usize, ..*self }
    }

    /// The same where the offset is known to the compiler, which then sees that what was checked is there.
    #[inline(always)]
    pub fn from(&self, offset: usize) -> Self {
        Self { data: self.data + offset, ..*self }
    }

    /// The place of a value that lies within the packet.
    ///
    /// It is accessed as if it were aligned. Drivers align IP headers (`NET_IP_ALIGN`), and where one does not, the
    /// verifier only lets a program pass on machines whose loads need no alignment. The compiler must not be told
    /// otherwise: it would move everything byte by byte.
    #[inline(always)]
    fn at<T: Pod>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        Some(start as *mut T)
    }

    /// The Internet checksum's sum over `N` bytes at `offset`, in the order of memory and not folded; `None` if the frame
    /// ends before they do. `N` is a multiple of 4 and at most 512, which the helper's scratch space has.
    #[inline(always)]
    pub fn sum<const N: usize>(&self, offset: usize, seed: u32) -> Option<u32>
    where
        [u8; N]: Pod,
    {
        let place = self.at::<[u8; N]>(offset)?;
        // SAFETY: `at` checked that the bytes lie within the packet.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, place.cast(), N as u32, seed) };
        u32::try_from(sum).ok()
    }

    /// Writes a value at `offset`; `None` if the frame ends before it would.
    #[inline(always)]
    pub fn write<T: Pod>(&self, offset: usize, value: T) -> Option<()> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` checked that the whole value lies within the packet, which is writable and ours until
        // the program returns. For the alignment see `at`.
        unsafe { place.write(value) };
        Some(())
    }
}

impl Frame for Cursor<'_> {
    type View<'f, T: Pod>
        = &'f T
    where
        Self: 'f;

    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` checked that the whole value lies within the packet; any bytes are a T. For the alignment
        // see there.
        Some(unsafe { &*place })
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        // SAFETY: the context is the program's own.
        self.data + length <= self.end || unsafe { bpf_xdp_get_buff_len(self.context.ctx) } >= length as u64
    }
}
