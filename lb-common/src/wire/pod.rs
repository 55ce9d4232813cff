//! Plain old data: types that are just their bytes.

/// A type that any bytes make a valid value of, without padding or pointers.
///
/// # Safety
/// Every bit pattern must be valid, and there must be no padding bytes.
pub unsafe trait Pod: Copy + 'static {}

/// A header made of bytes that is moved by 32-bit words; the compiler would move it byte by byte.
///
/// Its size must be a multiple of 4 bytes: it is, for those that are [`Pod`] below.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Words<T>(pub T);

/// The same by 64-bit words.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Longs<T>(pub T);

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        // SAFETY: integers, and `repr(C)` structs of integers and byte arrays whose sizes add up.
        $(unsafe impl Pod for $type {})*
    };
}

pod!(
    u8,
    u16,
    u32,
    u64,
    network_types::eth::EthHdr,
    network_types::ip::Ipv4Hdr,
    network_types::ip::Ipv6Hdr,
    Words<network_types::ip::Ipv4Hdr>,
    Longs<network_types::ip::Ipv6Hdr>,
    crate::abi::Config,
    crate::abi::IndexEntry,
    crate::abi::Service,
    crate::abi::Slot,
    crate::abi::SlotLine,
    crate::abi::Backend,
    crate::abi::Flow,
    crate::abi::Bucket,
    crate::abi::Counter,
    crate::abi::Port,
    crate::abi::Event,
    crate::abi::bench::Rehearsal,
    crate::abi::CaptureFilter,
);

// SAFETY: values without padding, one after the other.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// Reads a value at `offset`, whatever its alignment; `None` if the bytes end before it does.
#[inline(always)]
pub fn read<T: Pod>(bytes: &[u8], offset: usize) -> Option<T> {
    let end = offset.checked_add(size_of::<T>())?;
    let source = bytes.get(offset..end)?;
    // SAFETY: `source` is exactly the size of a T, and every bit pattern is one.
    Some(unsafe { source.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of a value.
#[inline(always)]
pub fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: a T is its bytes, without padding.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}
