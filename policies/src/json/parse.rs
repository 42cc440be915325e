//! The parser: one pass, bounded depth, every refusal with its byte offset.

use super::scan::plain;
use super::{Json, Number, Object};
use std::collections::HashSet;

/// Bounds checked while parsing, before memory is spent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of input.
    pub bytes: usize,
    /// Nesting of arrays and objects.
    pub depth: usize,
}

impl Default for Limits {
    /// 4 MiB and 128 levels: what a request may be.
    fn default() -> Self {
        Self { bytes: 4 << 20, depth: 128 }
    }
}

/// Why an input is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where, in bytes from the start.
    pub offset: usize,
}

/// The kinds of refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// More bytes than [`Limits::bytes`].
    #[error("JSON larger than {0} bytes")]
    TooLarge(usize),
    /// Deeper than [`Limits::depth`].
    #[error("JSON nested deeper than {0} levels")]
    TooDeep(usize),
    /// A key stands twice in one object.
    #[error("duplicate key {0:?}")]
    DuplicateKey(String),
    /// Not UTF-8, or an escape that is half a surrogate pair.
    #[error("invalid Unicode")]
    Unicode,
    /// Anything else the grammar forbids.
    #[error("expected {0}")]
    Expected(&'static str),
}

pub(super) fn parse(input: &[u8], limits: Limits) -> Result<Json, JsonError> {
    if input.len() > limits.bytes {
        return Err(JsonError { kind: JsonErrorKind::TooLarge(limits.bytes), offset: limits.bytes });
    }
    let text =
        std::str::from_utf8(input).map_err(|e| JsonError { kind: JsonErrorKind::Unicode, offset: e.valid_up_to() })?;
    let mut parser = Parser { text, at: 0, depth_left: limits.depth, depth: limits.depth };
    parser.skip_space();
    let value = parser.value()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("the end of the input"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth_left: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
    fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError { kind, offset: self.at }
    }
    fn expected(&self, what: &'static str) -> JsonError {
        self.error(JsonErrorKind::Expected(what))
    }
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.expected(what))
        }
    }
    fn word(&mut self, word: &'static str, value: Json) -> Result<Json, JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.expected("a JSON value"))
        }
    }
    fn value(&mut self) -> Result<Json, JsonError> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => Err(self.expected("a JSON value")),
        }
    }
    fn nested(&mut self, inner: fn(&mut Self) -> Result<Json, JsonError>) -> Result<Json, JsonError> {
        if self.depth_left == 0 {
            return Err(self.error(JsonErrorKind::TooDeep(self.depth)));
        }
        self.depth_left -= 1;
        self.at += 1;
        let value = inner(self)?;
        self.depth_left += 1;
        Ok(value)
    }
    fn array(&mut self) -> Result<Json, JsonError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
    }
    fn object(&mut self) -> Result<Json, JsonError> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        // Small objects compare keys directly; large ones get a set, so that an object of
        // 10^5 keys costs time in proportion to its size.
        let mut seen: Option<HashSet<String>> = None;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(Object(entries)));
        }
        loop {
            self.skip_space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.expected("a string key"));
            }
            let key = self.string()?;
            if entries.len() == 16 && seen.is_none() {
                seen = Some(entries.iter().map(|(k, _)| k.clone()).collect());
            }
            let duplicate = match &mut seen {
                Some(set) => !set.insert(key.clone()),
                None => entries.iter().any(|(k, _)| *k == key),
            };
            if duplicate {
                return Err(JsonError { kind: JsonErrorKind::DuplicateKey(key), offset: key_at });
            }
            self.skip_space();
            self.take(b':', "`:`")?;
            self.skip_space();
            let value = self.value()?;
            entries.push((key, value));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(Object(entries)));
                }
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
    }
    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.expected("a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }
    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Json::Number(Number(self.text[start..self.at].into())))
    }
    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            self.at += plain(&self.text.as_bytes()[start..]);
            let run = &self.text[start..self.at];
            // Most texts are one run: they take the room they need and no more.
            if out.is_empty() && self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(run.to_owned());
            }
            out.push_str(run);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("`\"`")),
            }
        }
    }
    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.expected("an escape")),
        };
        self.at += 1;
        Ok(plain)
    }
    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else {
            return Err(self.expected("four hexadecimal digits"));
        };
        let value = digits.iter().fold(0, |n, d| n * 16 + (*d as char).to_digit(16).unwrap_or(0));
        self.at += 4;
        Ok(value)
    }
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !self.text[self.at..].starts_with("\\u") {
                return Err(self.error(JsonErrorKind::Unicode));
            }
            self.at += 2;
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.error(JsonErrorKind::Unicode));
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error(JsonErrorKind::Unicode))
    }
}
