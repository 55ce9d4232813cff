//! The only pointer arithmetic on packets. Every access is checked against the packet's end, which is what the
//! verifier wants to see, directly before it.

use core::marker::PhantomData;

use aya_ebpf::programs::XdpContext;
use lb_common::{parse::Frame, wire::pod::Pod};

/// The linear part of a frame, from its Ethernet header on. Stale as soon as the frame's head moves.
pub struct Cursor<'c> {
    data: usize,
    end: usize,
    context: PhantomData<&'c XdpContext>,
}

impl<'c> Cursor<'c> {
    /// The frame as it is now.
    #[inline(always)]
    pub fn new(ctx: &'c XdpContext) -> Self {
        Self { data: ctx.data(), end: ctx.data_end(), context: PhantomData }
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
    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` checked that the whole value lies within the packet; any bytes are a T. For the alignment
        // see there.
        Some(unsafe { place.read() })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }
}
