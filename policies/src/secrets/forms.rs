//! How a value is written elsewhere.

use crate::json::quote;
use std::collections::BTreeSet;

/// One way in which a value stands in a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    /// The characters that are the same whatever stands around them.
    pub(super) text: String,
    /// How many characters before them hold a part of the value too.
    pub(super) before: usize,
    /// The same after them.
    pub(super) after: usize,
    /// It is base64, and padding may follow.
    pub(super) padded: bool,
}

/// All of them that are known again, each once. What URLs and JSON escape is read as they do, so any
/// spelling of that kind is the value as it stands ([`Read`]).
pub(super) fn of(value: &str) -> BTreeSet<Form> {
    let plain = |text: String| Form { text, before: 0, after: 0, padded: false };
    // In a JSON text within another, and in a form.
    let more = [value.to_owned(), escaped(value), value.replace(' ', "+")];
    let mut all: BTreeSet<Form> = more.into_iter().chain(hex(value)).map(plain).collect();
    for alphabet in [STANDARD, URL_SAFE] {
        all.extend((0..3).map(|ahead| base64(value.as_bytes(), ahead, alphabet)));
    }
    all
}

fn escaped(text: &str) -> String {
    let mut quoted = String::new();
    quote(text, &mut quoted);
    quoted[1..quoted.len() - 1].to_owned()
}

/// Reads one escape: the character it stands for, or `'\0'` and the byte; and how long it is.
type One = fn(&[u8]) -> Option<(char, u8, usize)>;

/// A text as somebody reads it who takes its escapes away, and where each byte of that stands in it.
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    places: Vec<usize>,
    end: usize,
}

impl Read {
    fn of(text: &str, escape: u8, one: One) -> Option<Self> {
        let all = text.as_bytes();
        if !all.contains(&escape) {
            return None;
        }
        let (mut bytes, mut places, mut at) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()), 0);
        while at < all.len() {
            match (all[at] == escape).then(|| one(&all[at..])).flatten() {
                // A byte of its own, or a character of several.
                Some(('\0', byte, length)) => {
                    bytes.push(byte);
                    places.push(at);
                    at += length;
                }
                Some((c, _, length)) => {
                    let written = c.encode_utf8(&mut [0; 4]).len();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    places.extend(std::iter::repeat_n(at, written));
                    at += length;
                }
                None => {
                    bytes.push(all[at]);
                    places.push(at);
                    at += 1;
                }
            }
        }
        Some(Self { bytes, places, end: all.len() })
    }
    /// As URLs are read: `%2f` or `%2F`, whatever else is written so.
    pub(super) fn url(text: &str) -> Option<Self> {
        Self::of(text, b'%', |rest| Some(('\0', number(rest.get(1..3)?)?.try_into().ok()?, 3)))
    }
    /// As JSON is read.
    pub(super) fn json(text: &str) -> Option<Self> {
        Self::of(text, b'\\', |rest| {
            let plain = |byte: u8| Some(('\0', byte, 2));
            match rest.get(1)? {
                b'n' => plain(b'\n'),
                b't' => plain(b'\t'),
                b'r' => plain(b'\r'),
                b'b' => plain(8),
                b'f' => plain(12),
                byte @ (b'"' | b'\\' | b'/') => plain(*byte),
                b'u' => {
                    let first = number(rest.get(2..6)?)?;
                    let second = || (rest.get(6..8)? == b"\\u").then(|| number(rest.get(8..12)?)).flatten();
                    match char::from_u32(first) {
                        Some(c) if c.is_ascii() => Some(('\0', u8::try_from(first).ok()?, 6)),
                        Some(c) => Some((c, 0, 6)),
                        None => {
                            let pair = [u16::try_from(first).ok()?, u16::try_from(second()?).ok()?];
                            Some((char::decode_utf16(pair).next()?.ok()?, 0, 12))
                        }
                    }
                }
                _ => None,
            }
        })
    }
    /// Where a byte stands; behind the last, where the text ends.
    pub(super) fn place(&self, at: usize) -> usize {
        self.places.get(at).copied().unwrap_or(self.end)
    }
}

fn number(hex: &[u8]) -> Option<u32> {
    let digits = hex.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(hex).ok().filter(|_| digits)?, 16).ok()
}

fn hex(value: &str) -> [String; 2] {
    let lower: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    [lower.to_ascii_uppercase(), lower]
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What base64 makes of a value that has `ahead` bytes before it, modulo three: only the characters
/// that are of the value alone. Those at its ends also hold bits of what stands beside it.
fn base64(value: &[u8], ahead: usize, alphabet: &[u8; 64]) -> Form {
    let mut bits = vec![0u8; ahead];
    bits.extend_from_slice(value);
    let sixth = |at: usize| {
        let (byte, shift) = (at * 6 / 8, at * 6 % 8);
        let pair = u16::from_be_bytes([bits[byte], bits.get(byte + 1).copied().unwrap_or(0)]);
        char::from(alphabet[usize::from(pair >> (10 - shift) & 63)])
    };
    let (first, last) = ((ahead * 8).div_ceil(6), bits.len() * 8 / 6);
    Form {
        text: (first..last).map(sixth).collect(),
        before: usize::from(ahead != 0),
        after: usize::from(!bits.len().is_multiple_of(3)),
        padded: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_value_alone() {
        let texts = |ahead| [STANDARD, URL_SAFE].map(|a| base64(b"p@ss~word?>", ahead, a));
        // echo -n 'p@ss~word?>' | base64, with a, ab before it.
        assert_eq!(texts(0).map(|f| f.text), ["cEBzc353b3JkPz", "cEBzc353b3JkPz"]);
        assert_eq!(texts(1).map(|f| f.text), ["BAc3N+d29yZD8+", "BAc3N-d29yZD8-"]);
        assert_eq!(texts(2).map(|f| f.text), ["wQHNzfndvcmQ/P", "wQHNzfndvcmQ_P"]);
        assert_eq!([0, 1, 2].map(|ahead| (texts(ahead)[0].before, texts(ahead)[0].after)), [(0, 1), (1, 0), (1, 1)]);
    }

    #[test]
    fn escapes_are_read_where_they_stand() {
        let json = Read::json(r#"a\u00e9\ud83d\ude00\/\"\q\u12"#).unwrap();
        assert_eq!(json.bytes, r#"aé😀/"\q\u12"#.as_bytes());
        let places: Vec<usize> = (0..json.bytes.len() + 1).map(|at| json.place(at)).collect();
        assert_eq!(places, [0, 1, 1, 7, 7, 7, 7, 19, 21, 23, 24, 25, 26, 27, 28, 29]);
        let url = Read::url("a%2Fb%2f%zz%c3%a9%4").unwrap();
        assert_eq!(url.bytes, "a/b/%zzé%4".as_bytes());
        assert_eq!((url.place(1), url.place(2), url.place(11)), (1, 4, 19));
        assert!(Read::url("plain").is_none() && Read::json("plain").is_none());
    }

    #[test]
    fn a_plain_value_has_few_forms() {
        assert_eq!(of("sk-0123456789abcdef").len(), 1 + 2 + 3);
    }
}
