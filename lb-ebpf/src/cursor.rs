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
        // the program returns. For the alignment see `Words`.
        unsafe { place.write(value) };
        Some(())
    }
}

/// A header made of bytes, loaded by 32-bit words; the compiler would load it byte by byte.
///
/// Drivers place frames so that the IP header is aligned (`NET_IP_ALIGN`), and where one does not, the verifier only
/// lets a program pass on machines whose loads need no alignment. So all access is as if aligned: frames begin two
/// bytes behind a multiple of eight, and what is at 6 modulo 8 from there is at one.
#[repr(C, align(4))]
struct Words<T>(T);

/// The same by 64-bit words.
#[repr(C, align(8))]
struct Longs<T>(T);

impl Frame for Cursor<'_> {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` checked that the whole value lies within the packet; any bytes are a T. For the alignment
        // see `Words`; the sizes are multiples of it, so that no more than a T is read.
        Some(unsafe {
            if align_of::<T>() == 1 && offset % 8 == 6 && size_of::<T>().is_multiple_of(8) {
                place.cast::<Longs<T>>().read().0
            } else if align_of::<T>() == 1 && offset % 4 == 2 && size_of::<T>().is_multiple_of(4) {
                place.cast::<Words<T>>().read().0
            } else {
                place.read()
            }
        })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }
}
