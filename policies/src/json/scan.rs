//! How far a text needs no escape: many bytes at a step, since texts are what is long.

const BLOCK: usize = 64;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The number of leading bytes that are neither `"`, `\\` nor a control character (RFC 8259,
/// section 7).
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Written so that the compiler makes few instructions of a block.
    for block in bytes.chunks_exact(BLOCK) {
        if block.iter().fold(false, |marked, b| marked | (*b == b'"') | (*b == b'\\') | (*b < 0x20)) {
            break;
        }
        at += BLOCK;
    }
    while let Some(word) = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()) {
        let marks = marked(u64::from_le_bytes(word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
    rest.map_or(bytes.len(), |n| at + n)
}

/// The high bit of the lowest byte that stands out. Above that one a borrow may mark a byte
/// that does not.
fn marked(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let slash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    quote | slash | control
}

#[cfg(test)]
mod tests {
    use super::plain;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_look_at_every_byte_finds(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(0x1f), Just(0x20), Just(b'a'), 0x80u8..=0xff], 0..70)) {
            let slow = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), slow);
        }
        #[test]
        fn mostly_plain(mut bytes in proptest::collection::vec(0x20u8..=0x21, 0..300), at in 0usize..300, what in any::<u8>()) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = what;
            }
            let slow = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), slow);
        }
    }
}
