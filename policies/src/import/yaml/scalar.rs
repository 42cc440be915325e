//! Scalars: plain, quoted and in blocks.

use super::{Reader, colon};
use crate::file::{FileError, Node, Value};

impl Reader<'_> {
    /// A plain scalar, with the deeper lines that go on with it.
    pub(super) fn plain(&mut self, start: usize, rest: &str, indent: usize) -> Result<Node, FileError> {
        let refused = match rest.as_bytes().first() {
            Some(b'&' | b'*') => Some("anchors and aliases are not served; put the value in quotes"),
            Some(b'!') => Some("tags are not served; put the value in quotes"),
            Some(b'%' | b'@' | b'`' | b',' | b']' | b'}') => Some("a plain value cannot begin so; put it in quotes"),
            _ => None,
        };
        if let Some(why) = refused {
            return Err(self.error(start, why));
        }
        let place = self.place(start);
        let mut text = self.plain_line(start, rest)?;
        let mut several = false;
        let ended = rest.contains(" #");
        self.at += 1;
        let mut blank = 0;
        while let Some(line) = self.lines.get(self.at).cloned() {
            if line.text.trim().is_empty() {
                blank += 1;
                self.at += 1;
                continue;
            }
            if line.indent <= indent || line.text.starts_with('#') || ended {
                break;
            }
            text.push_str(&if blank > 0 { "\n".repeat(blank) } else { " ".to_owned() });
            text.push_str(&self.plain_line(line.offset, line.text.trim_end())?);
            (several, blank) = (true, 0);
            self.at += 1;
        }
        let value = if several { Value::Text(text) } else { typed(&text) };
        match value {
            Value::Time => Err(self.error(start, "null is no value; write one, or remove the line")),
            value => Ok(Node { place, value }),
        }
    }

    fn plain_line(&self, start: usize, rest: &str) -> Result<String, FileError> {
        if let Some(at) = colon(rest) {
            let message = "`:` before a blank begins a new key; put the value in quotes, or below a `>`";
            return Err(self.error(start + at, message));
        }
        let end = rest.find(" #").unwrap_or(rest.len());
        Ok(rest[..end].trim_end().to_owned())
    }

    /// The quoted scalar that begins at `start`, and where it ends.
    pub(super) fn quoted(&self, start: usize) -> Result<(String, usize), FileError> {
        let text = &self.source[start..self.end];
        let mut chars = text.char_indices();
        let quote = chars.next().map_or('"', |(_, c)| c);
        let mut out = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\n' => {
                    return Err(self.error(start, "the quotes are not closed on their line; a `>` takes several lines"));
                }
                '\'' if quote == '\'' && text[at + 1..].starts_with('\'') => {
                    chars.next();
                    out.push('\'');
                }
                _ if c == quote => return Ok((out, start + at + 1)),
                '\\' if quote == '"' => {
                    let (_, escape) = chars.next().unwrap_or((at, ' '));
                    let digits = match escape {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    let found = match escape {
                        'n' => Some('\n'),
                        't' => Some('\t'),
                        'r' => Some('\r'),
                        '0' => Some('\0'),
                        'a' => Some('\u{7}'),
                        'b' => Some('\u{8}'),
                        'e' => Some('\u{1b}'),
                        '"' | '\\' | '/' | ' ' => Some(escape),
                        _ => u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32),
                    };
                    let unknown =
                        || self.error(start + at, format!("\"\\{escape}\" is no escape; write \"\\\\{escape}\""));
                    out.push(found.ok_or_else(unknown)?);
                }
                c => out.push(c),
            }
        }
        Err(self.error(start, "the quotes are not closed"))
    }

    /// `|` or `>` and the deeper lines below.
    pub(super) fn block_scalar(&mut self, start: usize, header: &str, indent: usize) -> Result<Node, FileError> {
        let place = self.place(start);
        let folded = header.starts_with('>');
        let marks = header[1..].split(" #").next().unwrap_or("").trim();
        let (mut chomp, mut given) = (' ', None);
        for mark in marks.chars() {
            match mark {
                '-' | '+' => chomp = mark,
                '1'..='9' => given = mark.to_digit(10).and_then(|d| usize::try_from(d).ok()),
                _ => {
                    return Err(
                        self.error(start, format!("{header:?} opens no text; write | or >, each with - if need be"))
                    );
                }
            }
        }
        self.at += 1;
        let mut depth = given.map(|d| indent + d);
        let mut lines: Vec<String> = Vec::new();
        while let Some(line) = self.lines.get(self.at) {
            let empty = line.text.trim().is_empty();
            if !empty && line.indent <= indent {
                break;
            }
            let depth = *depth.get_or_insert(if empty { usize::MAX } else { line.indent });
            if !empty && line.indent < depth {
                return Err(self.error(line.offset, "the text's lines are indented alike"));
            }
            let extra = if empty { 0 } else { line.indent - depth };
            lines.push(format!("{}{}", " ".repeat(extra), if empty { "" } else { line.text.as_str() }));
            self.at += 1;
            if depth == usize::MAX {
                return Err(self.error(start, "the text begins on the line below, indented"));
            }
        }
        let kept = lines.iter().rposition(|l| !l.is_empty()).map_or(0, |n| n + 1);
        let trailing = lines.split_off(kept).len();
        let mut text = if folded { fold(&lines) } else { lines.join("\n") };
        match chomp {
            '-' => {}
            '+' => text.push_str(&"\n".repeat(trailing + 1)),
            _ if text.is_empty() => {}
            _ => text.push('\n'),
        }
        Ok(Node { place, value: Value::Text(text) })
    }
}

/// Joins lines as `>` does: single breaks become blanks; indented lines and gaps stay.
fn fold(lines: &[String]) -> String {
    let mut out = String::new();
    let mut gaps = 0;
    let mut before_indented = false;
    for (n, line) in lines.iter().enumerate() {
        if line.is_empty() {
            gaps += 1;
            continue;
        }
        let indented = line.starts_with([' ', '\t']);
        if n > 0 {
            let kept = gaps + usize::from(indented || before_indented);
            out.push_str(&if kept == 0 { " ".to_owned() } else { "\n".repeat(kept) });
        }
        out.push_str(line);
        (gaps, before_indented) = (0, indented);
    }
    out
}

/// What a plain scalar is by YAML's core schema; null is [`Value::Time`].
pub(super) fn typed(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Time,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_or(Value::Float(f64::INFINITY), Value::Int);
    }
    let numeric = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    match text.parse::<f64>() {
        Ok(n) if numeric && digits.bytes().any(|b| b.is_ascii_digit()) => Value::Float(n),
        _ => Value::Text(text.to_owned()),
    }
}
