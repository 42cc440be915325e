//! The frontmatter of an agent's file: the part of YAML that people write there, read strictly
//! and with places. Mappings and lists in blocks or flow, plain and quoted scalars, `|` and `>`.
//! Anchors, aliases, tags, complex keys and documents are refused by name.

mod flow;
mod scalar;

use crate::file::{FileError, Node, Value};
use crate::place::Place;
use std::sync::Arc;

const MAX_DEPTH: usize = 16;

/// Frontmatter and what follows it.
#[derive(Debug)]
pub(super) struct Front {
    /// The mapping.
    pub(super) node: Node,
    /// The text below.
    pub(super) body: String,
    /// Where that begins.
    pub(super) body_place: Place,
}

/// Reads a file that begins with frontmatter.
pub(super) fn read(file: &Arc<str>, source: &str) -> Result<Front, FileError> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let start = Place { file: file.clone(), line: 1, column: 1 };
    let mut lines = Vec::new();
    let mut offset = 0;
    let mut end = None;
    for (n, raw) in source.split_inclusive('\n').enumerate() {
        let text = raw.trim_end_matches(['\n', '\r']);
        let fence = text.trim_end() == "---";
        if n == 0 && !fence {
            break;
        }
        if n > 0 && fence {
            end = Some((offset, offset + raw.len()));
            break;
        }
        if n > 0 {
            let indent = text.len() - text.trim_start_matches(' ').len();
            lines.push(Line { offset: offset + indent, indent, text: text[indent..].to_owned() });
        }
        offset += raw.len();
    }
    let Some((end, below)) = end else {
        let message = match lines.is_empty() && !source.starts_with("---") {
            true => {
                "no frontmatter: the file of an agent begins with a line `---`, then name and description, then `---`"
            }
            false => "the frontmatter has no end: a line `---` of its own",
        };
        return Err(FileError::new(&start, message));
    };
    let mut reader = Reader { file, source, end, lines, at: 0 };
    let node = match reader.next_line()? {
        None => Node { place: start, value: Value::Table(Vec::new()) },
        Some(line) if line.indent > 0 => return Err(reader.error(line.offset, "the frontmatter begins at column 1")),
        Some(line) if line.is_item() => {
            return Err(reader.error(line.offset, "the frontmatter is `key: value` lines, not a list"));
        }
        Some(_) => reader.block(0, 0)?,
    };
    if let Some(line) = reader.next_line()? {
        return Err(reader.error(line.offset, "this line belongs to nothing above it; mind the indentation"));
    }
    Ok(Front { node, body: source[below..].trim().to_owned(), body_place: Place::of(file, source, below) })
}

/// A line without its indentation.
#[derive(Debug, Clone)]
struct Line {
    /// Of the text, in the file.
    offset: usize,
    indent: usize,
    text: String,
}

impl Line {
    fn is_item(&self) -> bool {
        self.text == "-" || self.text.starts_with("- ")
    }
    fn is_nothing(&self) -> bool {
        let text = self.text.trim();
        text.is_empty() || text.starts_with('#')
    }
}

struct Reader<'a> {
    file: &'a Arc<str>,
    source: &'a str,
    /// Where the frontmatter ends.
    end: usize,
    lines: Vec<Line>,
    at: usize,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        Place::of(self.file, self.source, offset)
    }
    fn error(&self, offset: usize, message: impl Into<String>) -> FileError {
        FileError::new(&self.place(offset), format!("not YAML: {}", message.into()))
    }

    /// The next line that says something.
    fn next_line(&mut self) -> Result<Option<Line>, FileError> {
        while self.lines.get(self.at).is_some_and(Line::is_nothing) {
            self.at += 1;
        }
        match self.lines.get(self.at) {
            Some(line) if line.text.starts_with('\t') => {
                Err(self.error(line.offset, "a tab indents nothing; use spaces"))
            }
            line => Ok(line.cloned()),
        }
    }

    /// The mapping or list whose lines are indented by `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Node, FileError> {
        let offset = self.lines.get(self.at).map_or(self.end, |l| l.offset);
        if depth > MAX_DEPTH {
            return Err(self.error(offset, format!("more than {MAX_DEPTH} levels")));
        }
        match self.lines.get(self.at).is_some_and(Line::is_item) {
            true => self.sequence(indent, depth),
            false => self.mapping(indent, depth),
        }
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Node, FileError> {
        let mut entries: Vec<(String, Place, Node)> = Vec::new();
        let mut place = None;
        while let Some(line) = self.next_line()? {
            if line.indent < indent || (line.indent == indent && line.is_item() && depth > 0) {
                break;
            }
            if line.indent > indent || line.is_item() {
                return Err(self.error(line.offset, "this line belongs to nothing above it; mind the indentation"));
            }
            let (key, rest) = self.key(&line)?;
            let key_place = self.place(line.offset);
            if let Some((_, first, _)) = entries.iter().find(|(k, _, _)| *k == key) {
                let message = format!("{key} stands here a second time; the first is in line {}", first.line);
                return Err(self.error(line.offset, message));
            }
            let value = self.value(&key, line.offset + rest, indent, true, depth)?;
            place.get_or_insert_with(|| key_place.clone());
            entries.push((key, key_place, value));
        }
        let place = place.unwrap_or_else(|| self.place(self.end));
        Ok(Node { place, value: Value::Table(entries) })
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Result<Node, FileError> {
        let mut items = Vec::new();
        let mut place = None;
        while let Some(line) = self.next_line()? {
            if line.indent < indent || (line.indent == indent && !line.is_item()) {
                break;
            }
            if line.indent > indent {
                return Err(self.error(line.offset, "this line belongs to nothing above it; mind the indentation"));
            }
            place.get_or_insert_with(|| self.place(line.offset));
            let after = &line.text[1..];
            let skip = 1 + after.len() - after.trim_start().len();
            let inner = Line {
                offset: line.offset + skip,
                indent: line.indent + skip,
                text: line.text.get(skip..).unwrap_or("").to_owned(),
            };
            // `- key: value` opens a mapping whose lines stand below the key.
            let nested = inner.is_item() || (!inner.text.starts_with(['"', '\'', '[', '{']) && splits(&inner.text));
            if nested {
                let (at, indent) = (self.at, inner.indent);
                self.lines[at] = inner;
                items.push(self.block(indent, depth + 1)?);
            } else {
                items.push(self.value("the item", inner.offset, indent, false, depth)?);
            }
        }
        let place = place.unwrap_or_else(|| self.place(self.end));
        Ok(Node { place, value: Value::List(items) })
    }

    /// The key of a line, and where in the line its value may begin.
    fn key(&self, line: &Line) -> Result<(String, usize), FileError> {
        let text = line.text.as_str();
        if text.starts_with(['"', '\'']) {
            let (key, after) = self.quoted(line.offset)?;
            let colon = after - line.offset;
            return match text[colon..].starts_with(':') {
                true => Ok((key, colon + 1)),
                false => Err(self.error(after, "`:` is expected after the key")),
            };
        }
        if text.starts_with("? ") || text.starts_with(['&', '*', '!', '[', '{', '%', '@', '`']) {
            return Err(self.error(line.offset, "a key is a plain word here"));
        }
        match colon(text) {
            Some(at) => Ok((text[..at].trim_end().to_owned(), at + 1)),
            None => Err(self.error(line.offset, "a line of frontmatter is `key: value`")),
        }
    }

    /// The value of a key or item, which begins at `offset` or on the lines below.
    fn value(
        &mut self,
        key: &str,
        offset: usize,
        indent: usize,
        in_mapping: bool,
        depth: usize,
    ) -> Result<Node, FileError> {
        let line_end = self.source[offset..self.end].find('\n').map_or(self.end, |n| offset + n);
        let rest = &self.source[offset..line_end];
        let start = offset + (rest.len() - rest.trim_start().len());
        let rest = self.source[start..line_end].trim_end();
        if rest.is_empty() || rest.starts_with('#') {
            self.at += 1;
            return match self.next_line()? {
                Some(below) if below.indent > indent || (in_mapping && below.indent == indent && below.is_item()) => {
                    let plain = !below.is_item() && !splits(&below.text);
                    match plain {
                        true => self.scalar_below(below, indent),
                        false => self.block(below.indent, depth + 1),
                    }
                }
                _ => {
                    Err(self.error(offset.min(self.end), format!("{key} has no value; write one, or remove the line")))
                }
            };
        }
        match rest.as_bytes().first() {
            Some(b'|' | b'>') => self.block_scalar(start, rest, indent),
            Some(b'"' | b'\'') => {
                let place = self.place(start);
                let (text, after) = self.quoted(start)?;
                self.finish(after)?;
                Ok(Node { place, value: Value::Text(text) })
            }
            Some(b'[' | b'{') => {
                let (node, after) = self.flow(start, depth)?;
                self.finish(after)?;
                Ok(node)
            }
            _ => self.plain(start, rest, indent),
        }
    }

    /// A scalar that begins on the line below its key.
    fn scalar_below(&mut self, below: Line, indent: usize) -> Result<Node, FileError> {
        match below.text.as_bytes().first() {
            Some(b'"' | b'\'' | b'[' | b'{') => self.value("the value", below.offset, indent, false, 0),
            _ => self.plain(below.offset, below.text.trim_end(), indent),
        }
    }

    /// Nothing but a comment may follow on the line; goes on with the next.
    fn finish(&mut self, after: usize) -> Result<(), FileError> {
        let line_end = self.source[after..self.end].find('\n').map_or(self.end, |n| after + n);
        let rest = self.source[after..line_end].trim();
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err(self.error(after, "something stands after the value"));
        }
        while self.lines.get(self.at).is_some_and(|l| l.offset <= line_end) {
            self.at += 1;
        }
        Ok(())
    }
}

/// Where a plain key ends: a colon before a blank or the end of the line.
fn colon(text: &str) -> Option<usize> {
    let comment = text.find(" #").unwrap_or(text.len());
    text[..comment].match_indices(':').map(|(at, _)| at).find(|at| {
        let after = text.as_bytes().get(at + 1);
        after.is_none_or(|b| b.is_ascii_whitespace())
    })
}

/// Whether a line opens a mapping.
fn splits(text: &str) -> bool {
    colon(text).is_some()
}
