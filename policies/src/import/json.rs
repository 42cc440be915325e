//! JSON with places: a file of another tool, so that every line of it can be named.

use crate::file::{FileError, Node, Value};
use crate::place::Place;
use std::sync::Arc;

const MAX_DEPTH: usize = 64;

/// Reads a JSON file. `null` is [`Value::Time`], which no key takes.
pub(super) fn read(file: &Arc<str>, source: &str) -> Result<Node, FileError> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut reader = Reader { file, source, at: 0 };
    reader.space();
    let node = reader.value(0)?;
    reader.space();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.error("not JSON: something stands after its end")),
    }
}

struct Reader<'a> {
    file: &'a Arc<str>,
    source: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn place(&self) -> Place {
        Place::of(self.file, self.source, self.at)
    }
    fn error(&self, message: impl Into<String>) -> FileError {
        FileError::new(&self.place(), message)
    }
    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }
    fn expected(&self, what: &str) -> FileError {
        match self.peek() {
            None => self.error(format!("not JSON: it ends where {what} is expected")),
            Some(b'/') => self.error("not JSON: a comment; remove it"),
            Some(_) => self.error(format!("not JSON: {what} is expected here")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, FileError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels")));
        }
        let place = self.place();
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            _ => self.word()?,
        };
        Ok(Node { place, value })
    }

    fn object(&mut self, depth: usize) -> Result<Value, FileError> {
        self.at += 1;
        let mut entries: Vec<(String, Place, Node)> = Vec::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::Table(entries));
        }
        loop {
            self.space();
            let place = self.place();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in quotes"));
            }
            let key = self.string()?;
            if let Some((_, first, _)) = entries.iter().find(|(k, _, _)| *k == key) {
                let message = format!("the key {key:?} stands here a second time; the first is in line {}", first.line);
                return Err(FileError::new(&place, message));
            }
            self.space();
            if !self.take(b':') {
                return Err(self.expected("`:`"));
            }
            self.space();
            let value = self.value(depth + 1)?;
            entries.push((key, place, value));
            self.space();
            if self.take(b'}') {
                return Ok(Value::Table(entries));
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, FileError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `]`"));
            }
        }
    }

    /// The string that begins here; its escapes are read by the JSON library.
    fn string(&mut self) -> Result<String, FileError> {
        let start = self.at;
        let mut escaped = false;
        for (i, byte) in self.source.bytes().enumerate().skip(start + 1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let text = serde_json::from_str(&self.source[start..=i])
                        .map_err(|_| self.error("not JSON: the string holds a wrong escape or a control character"))?;
                    self.at = i + 1;
                    return Ok(text);
                }
                _ => {}
            }
        }
        Err(self.error("not JSON: the string has no end"))
    }

    fn word(&mut self) -> Result<Value, FileError> {
        let rest = &self.source[self.at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Time,
            number => match serde_json::from_str::<serde_json::Number>(number) {
                Ok(n) => n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int),
                Err(_) => return Err(self.expected("a value")),
            },
        };
        self.at += end;
        Ok(value)
    }
}
