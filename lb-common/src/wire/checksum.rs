//! The Internet checksum (RFC 1071), in the pieces that allow its constant part to be computed once.

/// Adds `bytes` (an even number of them) as big-endian 16-bit words; not folded.
#[inline(always)]
pub const fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at + 1 < bytes.len() {
        sum += (bytes[at] as u32) << 8 | bytes[at + 1] as u32;
        at += 2;
    }
    sum
}

/// Folds a sum to 16 bits. Two folds are enough for any 32-bit sum.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The checksum field that goes with a sum; host byte order.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The checksum field after one 16-bit word of what it covers changed from `old` to `new` (RFC 1624, equation 3); host
/// byte order.
#[inline(always)]
pub const fn update(check: u16, old: u16, new: u16) -> u16 {
    !fold(!check as u32 + !old as u32 + new as u32)
}

/// The checksum field of one's complement's other zero where it is 0: as good for any message, and the only right one
/// for a message of nothing but zeros.
#[inline(always)]
pub const fn not_zero(check: u16) -> u16 {
    if check == 0 { 0xffff } else { check }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // Section 3: the words 0001 f203 f4f5 f6f7 sum up to ddf2.
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_all_ones() {
        let mut header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        let sum = finish(add(0, &header));
        assert_eq!(sum, 0xb861);
        [header[10], header[11]] = sum.to_be_bytes();
        assert_eq!(fold(add(0, &header)), 0xffff);
    }

    #[test]
    fn folding_never_loses_a_carry() {
        for sum in [0, 0xffff, 0x1_0000, 0x1_ffff, 0xffff_ffff, 0xfffe_0001, 0xffff_0000] {
            let mut slow = u64::from(sum);
            while slow > 0xffff {
                slow = (slow & 0xffff) + (slow >> 16);
            }
            assert_eq!(u64::from(fold(sum)), slow, "{sum:#x}");
        }
    }

    #[test]
    fn an_update_equals_computing_anew() {
        // Every checksum that an echo request may carry, and both families' change of type.
        for rest in 0..=u16::MAX {
            for (old, new) in [(0x0800, 0x0000), (0x8000, 0x8100)] {
                let sum = |first: u16| finish(add(0, &[first.to_be_bytes(), rest.to_be_bytes()].concat()));
                let updated = update(sum(old), old, new);
                // 0 and ffff are the same number in one's complement.
                assert_eq!(updated % 0xffff, sum(new) % 0xffff, "{rest:#x}");
            }
        }
    }
}
