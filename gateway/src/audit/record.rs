//! One record: a line of JSON that ends with the hash of all that stands before it.
//!
//! ```text
//! {"seq":7,"at":1764275220123,"prev":"<hash of 6>","what":"call", … ,"hash":"<64 hex>"}
//!  └────────────────────── hashed, byte for byte ─────────────────┘
//! ```
//!
//! The bytes are hashed, not their meaning: there is no other way to write the same record.

use policies::json::{Json, Limits};
use sha2::{Digest, Sha256};

/// What the first record follows.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// No other hash of Pleach's is of such a text.
const DOMAIN: &[u8] = b"pleach audit record v1\0";
const BEFORE_HASH: &str = ",\"hash\":\"";
const AFTER_HASH: &str = "\"}";
const HEX: usize = 64;

/// Where a chain stands: the number and the hash of its last record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) hash: String,
}

impl Head {
    pub(super) fn genesis() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// Appends the record that follows `head` to `out`, and gives the new head. `body` is the inside
/// of a JSON object.
pub(super) fn write(out: &mut String, head: &Head, at: u64, body: &str) -> Head {
    let start = out.len();
    let seq = head.seq + 1;
    // Two of them a call: put together by hand, since formatting takes longer.
    out.push_str("{\"seq\":");
    digits(seq, out);
    out.push_str(",\"at\":");
    digits(at, out);
    for part in [",\"prev\":\"", &head.hash, "\",", body] {
        out.push_str(part);
    }
    let hash = hash(&out.as_bytes()[start..]);
    out.push_str(BEFORE_HASH);
    out.push_str(&hash);
    out.push_str(AFTER_HASH);
    out.push('\n');
    Head { seq, hash }
}

/// A number, decimal.
pub(super) fn digits(mut number: u64, out: &mut String) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        // A digit.
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(text[at..].iter().map(|digit| char::from(*digit)));
}

/// What a record has besides its body, at most.
pub(super) const FRAME: usize = 240;

/// A record as it was read: its hash is that of its text.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) prev: String,
    pub(crate) hash: String,
    /// All of it.
    pub(crate) json: Json,
}

impl Record {
    /// A text field.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.json.get(key).and_then(Json::as_str).unwrap_or("")
    }
    /// A number.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.json.get(key).and_then(Json::as_u64)
    }
    pub(super) fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }
}

/// Why a line is no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It has not the form of one.
    NoRecord,
    /// It has, and its text does not fit its hash.
    Edited(Option<u64>),
}

/// Reads a line, without its newline.
pub(super) fn read(line: &[u8]) -> Result<Record, Flaw> {
    let tail = BEFORE_HASH.len() + HEX + AFTER_HASH.len();
    let at = line.len().checked_sub(tail).ok_or(Flaw::NoRecord)?;
    let (body, end) = line.split_at(at);
    let written = end.strip_prefix(BEFORE_HASH.as_bytes()).and_then(|e| e.strip_suffix(AFTER_HASH.as_bytes()));
    let written = written.and_then(|h| std::str::from_utf8(h).ok()).ok_or(Flaw::NoRecord)?;
    let json = Json::parse(line, Limits::default()).map_err(|_| Flaw::NoRecord)?;
    let seq = json.get("seq").and_then(Json::as_u64);
    if hash(body) != written {
        return Err(Flaw::Edited(seq));
    }
    let prev = json.get("prev").and_then(Json::as_str).map(str::to_owned);
    match (seq, prev) {
        (Some(seq), Some(prev)) => Ok(Record { seq, prev, hash: written.to_owned(), json }),
        _ => Err(Flaw::NoRecord),
    }
}

fn hash(body: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    hasher.update(body);
    hex(&hasher.finalize())
}

/// The hash of bytes that are no record.
pub(super) fn hash_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Four digests a call: formatting would cost more than hashing.
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
