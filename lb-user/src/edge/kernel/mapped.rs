//! BPF arrays as shared memory: the daemon writes them by aligned word stores, which packets see one by one and
//! whole. One of the few files with `unsafe`.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU64, Ordering},
};

use lb_common::wire::pod::Pod;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An array map made with `BPF_F_MMAPABLE`, mapped into this process. `T` is a multiple of 8 bytes and aligned to 8,
/// or exactly 4 bytes in elements of 8.
#[derive(Debug)]
pub struct MappedArray<T> {
    base: NonNull<u64>,
    words_per_element: usize,
    elements: usize,
    bytes: NonZeroUsize,
    element: PhantomData<T>,
}

// SAFETY: the memory is owned by this value and only accessed atomically.
unsafe impl<T> Send for MappedArray<T> {}

/// Bytes of a page here.
const PAGE: usize = 4096;

impl<T: Pod> MappedArray<T> {
    /// Maps `elements` elements of the map behind `fd`.
    ///
    /// # Errors
    /// What `mmap` says: the map is of another kind, or smaller.
    pub fn map(fd: impl AsFd, elements: u32) -> io::Result<Self> {
        let element_bytes = size_of::<T>().next_multiple_of(8);
        let elements = elements as usize;
        let bytes = (element_bytes * elements).next_multiple_of(PAGE);
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0)?
        };
        Ok(Self {
            base: base.cast(),
            words_per_element: element_bytes / 8,
            elements,
            bytes,
            element: PhantomData,
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        assert!(place < self.elements * self.words_per_element, "word {place} is outside the map");
        // SAFETY: the word lies within the mapping, which lives as long as `self`, and is aligned.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(place)) }
    }

    /// Stores one word of an element: packets see the old or the new one, whole.
    pub fn store_word(&self, index: usize, word: usize, value: u64) {
        assert!(word < self.words_per_element);
        self.word(index * self.words_per_element + word).store(value, Ordering::Release);
    }

    /// Stores an element word by word, the first word last. Not atomic as a whole: for elements that no packet reads
    /// yet, or whose readers start at the first word.
    pub fn store(&self, index: usize, value: &T) {
        let bytes = lb_common::wire::pod::bytes(value);
        for (word, chunk) in bytes.chunks(8).enumerate().rev() {
            let mut full = [0; 8];
            full[..chunk.len()].copy_from_slice(chunk);
            self.store_word(index, word, u64::from_ne_bytes(full));
        }
    }

    /// Loads an element word by word.
    pub fn load(&self, index: usize) -> T {
        // Some maps are read as a whole each second or two: no allocation for what fits into two cache lines.
        let mut few = [0; 128];
        let mut many = Vec::new();
        let size = self.words_per_element * 8;
        let bytes = if size <= few.len() {
            &mut few[..size]
        } else {
            many.resize(size, 0);
            &mut many[..]
        };
        for (word, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let value = self.word(index * self.words_per_element + word).load(Ordering::Acquire);
            chunk.copy_from_slice(&value.to_ne_bytes());
        }
        lb_common::wire::pod::read(bytes, 0).unwrap_or_else(|| unreachable!("an element has the size of a T"))
    }

    /// Loads the element of a number, by its low bits, as the programs do: there are a power of two of them.
    pub fn get(&self, number: u32) -> Option<T> {
        let index = number as usize & self.elements.next_power_of_two().wrapping_sub(1);
        (index < self.elements).then(|| self.load(index))
    }

    /// Stores 16 bits at a 16-bit place counted from the start of the map: packets see them whole.
    pub fn store_half(&self, place: usize, value: u16) {
        assert!(place / 4 < self.elements * self.words_per_element, "place {place} is outside the map");
        // SAFETY: the place lies within the mapping, which lives as long as `self`, and is aligned.
        let half = unsafe { AtomicU16::from_ptr(self.base.as_ptr().cast::<u16>().add(place)) };
        half.store(value, Ordering::Release);
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and nothing borrows from it any more.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.bytes.get()) } {
            tracing::warn!(%error, "cannot unmap a BPF array");
        }
    }
}
