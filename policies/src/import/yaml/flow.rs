//! Lists and mappings in brackets, which may go over several lines.

use super::scalar::typed;
use super::{MAX_DEPTH, Reader};
use crate::file::{FileError, Node, Value};

impl Reader<'_> {
    /// The list or mapping that begins at `start`, and where it ends.
    pub(super) fn flow(&self, start: usize, depth: usize) -> Result<(Node, usize), FileError> {
        if depth > MAX_DEPTH {
            return Err(self.error(start, format!("more than {MAX_DEPTH} levels")));
        }
        let place = self.place(start);
        let is_list = self.source[start..].starts_with('[');
        let close = if is_list { ']' } else { '}' };
        let (mut items, mut entries) = (Vec::new(), Vec::new());
        let mut at = self.blank(start + 1);
        loop {
            if self.source[at..self.end].starts_with(close) {
                let value = if is_list { Value::List(items) } else { Value::Table(entries) };
                return Ok((Node { place, value }, at + 1));
            }
            let (node, after) = self.flow_value(at, depth)?;
            at = self.blank(after);
            if is_list {
                items.push(node);
            } else {
                let Some(key) = node.text().map(str::to_owned) else {
                    return Err(FileError::new(&node.place, "not YAML: a key is a plain word here"));
                };
                if !self.source[at..self.end].starts_with(':') {
                    return Err(self.error(at, "`:` is expected after the key"));
                }
                let (value, after) = self.flow_value(self.blank(at + 1), depth)?;
                at = self.blank(after);
                entries.push((key, node.place, value));
            }
            if self.source[at..self.end].starts_with(',') {
                at = self.blank(at + 1);
            } else if !self.source[at..self.end].starts_with(close) {
                return Err(
                    self.error(at.min(self.end.saturating_sub(1)), format!("`,` or `{close}` is expected here"))
                );
            }
        }
    }

    fn flow_value(&self, at: usize, depth: usize) -> Result<(Node, usize), FileError> {
        let place = self.place(at);
        let rest = &self.source[at..self.end];
        match rest.as_bytes().first() {
            Some(b'[' | b'{') => self.flow(at, depth + 1),
            Some(b'"' | b'\'') => {
                let (text, after) = self.quoted(at)?;
                Ok((Node { place, value: Value::Text(text) }, after))
            }
            Some(b'&' | b'*' | b'!') => Err(self.error(at, "anchors, aliases and tags are not served; use quotes")),
            _ => {
                // Parentheses hold their commas together, as in `Agent(worker, researcher)`; YAML
                // would cut there, and half a rule means something else.
                let mut inside = 0usize;
                let end = rest.char_indices().find(|(i, c)| {
                    match c {
                        '(' => inside += 1,
                        ')' => inside = inside.saturating_sub(1),
                        _ => {}
                    }
                    let colon = *c == ':' && rest[i + 1..].starts_with([' ', '\n', '\r']);
                    (inside == 0 && matches!(c, ',' | ']' | '}')) || *c == '\n' || colon
                });
                let end = end.map_or(rest.len(), |(i, _)| i);
                match typed(rest[..end].trim()) {
                    Value::Time => Err(self.error(at, "a value is expected here")),
                    value => Ok((Node { place, value }, at + end)),
                }
            }
        }
    }

    /// Skips blanks, line ends and comments.
    fn blank(&self, mut at: usize) -> usize {
        loop {
            let rest = &self.source[at..self.end];
            let skip = rest.len() - rest.trim_start().len();
            at += skip;
            if !self.source[at..self.end].starts_with('#') {
                return at;
            }
            at = self.source[at..self.end].find('\n').map_or(self.end, |n| at + n);
        }
    }
}
