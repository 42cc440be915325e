//! Two spellings of one value: compact in received order, and canonical with sorted keys.

use super::scan::plain;
use super::{Json, Object};
use std::fmt::Write;

pub(super) fn compact(value: &Json, out: &mut String) {
    write(value, out, false);
}
pub(super) fn canonical(value: &Json, out: &mut String) {
    write(value, out, true);
}

fn write(value: &Json, out: &mut String, sorted: bool) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(number) => out.push_str(number.lexeme()),
        Json::String(text) => string(text, out),
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out, sorted);
            }
            out.push(']');
        }
        Json::Object(object) if sorted => {
            let mut all: Vec<_> = object.iter().collect();
            all.sort_by_key(|(key, _)| *key);
            entries(all.into_iter(), out, sorted);
        }
        Json::Object(object) => entries(object.iter(), out, sorted),
    }
}

pub(super) fn object(object: &Object, out: &mut String) {
    entries(object.iter(), out, false);
}

fn entries<'a>(entries: impl Iterator<Item = (&'a str, &'a Json)>, out: &mut String, sorted: bool) {
    out.push('{');
    for (i, (key, item)) in entries.enumerate() {
        if i > 0 {
            out.push(',');
        }
        string(key, out);
        out.push(':');
        write(item, out, sorted);
    }
    out.push('}');
}

/// What usually follows a long text.
const ROOM: usize = 1 << 10;

pub(super) fn string(text: &str, out: &mut String) {
    // Grown just to hold a long text, it would be copied for the brace behind it.
    if text.len() > out.capacity() - out.len() {
        out.reserve(text.len() + ROOM);
    }
    out.push('"');
    let mut rest = text;
    loop {
        let length = plain(rest.as_bytes());
        out.push_str(&rest[..length]);
        let Some(byte) = rest.as_bytes().get(length) else { break };
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{other:04x}");
            }
        }
        rest = &rest[length + 1..];
    }
    out.push('"');
}

/// SHA-256 of a text, hexadecimal.
pub fn digest(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
