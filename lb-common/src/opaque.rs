//! Numbers that the compiler knows nothing about.
//!
//! The kernel's verifier walks every branch. Where several conditions meet, a number made of their bits is one path and
//! branches are many; but the compiler knows the arithmetic of conditions and makes branches of it again, unless it
//! does not see through it.

/// The same number.
#[inline(always)]
pub fn opaque(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: a register moves to itself. (No instruction at all leaves line information that the kernel refuses.)
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// The same value, on a way that few packets take. Without this the compiler has it ready on the common way as well, wherever
/// several ways lead to the same place with different values.
#[inline(always)]
pub fn rarely<T>(value: T) -> T {
    #[cfg(target_arch = "bpf")]
    {
        let mut here = 0u64;
        // SAFETY: a register moves to itself. Not pure, so that it stays where it is.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) here, options(nomem, nostack, preserves_flags));
        }
        let _ = here;
    }
    value
}

/// The highest bit. The compiler neither knows where it comes from nor that it is one bit.
#[inline(always)]
fn sign(number: u64) -> u64 {
    opaque(opaque(number) >> 63)
}

/// 1 if two numbers are the same, else 0, without a branch.
#[inline(always)]
pub fn same(a: u64, b: u64) -> u64 {
    let differ = a ^ b;
    sign(differ | differ.wrapping_neg()) ^ 1
}

/// 1 if the first of two numbers below 2^63 is the larger one, else 0, without a branch.
#[inline(always)]
pub fn exceeds(a: u64, b: u64) -> u64 {
    sign(b.wrapping_sub(a))
}

/// The larger of two numbers below 2^63, without a branch.
#[inline(always)]
pub fn larger(a: u64, b: u64) -> u64 {
    // By a product: the verifier of newer kernels walks both ways of a mask of nothing or all.
    b.wrapping_add(a.wrapping_sub(b).wrapping_mul(exceeds(a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_say_what_comparisons_say() {
        let numbers = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, (1 << 63) - 1];
        for a in numbers {
            for b in numbers {
                assert_eq!(larger(a, b), a.max(b));
                assert_eq!((same(a, b), exceeds(a, b)), (u64::from(a == b), u64::from(a > b)), "{a} {b}");
            }
            assert_eq!((same(a | 1 << 63, a), same(a | 1 << 63, a | 1 << 63)), (0, 1));
        }
    }
}
