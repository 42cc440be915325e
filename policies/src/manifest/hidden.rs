//! Characters that a person does not see and a model reads: zero width, direction marks, tags,
//! controls. A definition that holds one is not what whoever approves it believes to read.
//!
//! What belongs to ordinary writing is let be: a variation selector after a pictograph, a joiner
//! between pictographs or between letters of scripts that join.

use crate::json::Json;
use std::fmt;

/// Places beyond this are not told: one is enough to hold a tool back.
const MAX_TOLD: usize = 8;

/// One such character, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The JSON pointer of the text that holds it, or of the key that does.
    pub pointer: String,
    /// The character.
    pub character: char,
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, code) = (visible(&self.pointer), u32::from(self.character));
        write!(f, "{at} holds U+{code:04X} ({})", kind(self.character).unwrap_or("hidden"))
    }
}

/// All texts of a value that hold one, the first of each; at most some.
pub fn hidden_in(value: &Json) -> Vec<Hidden> {
    let mut found = Vec::new();
    walk(value, &mut String::new(), &mut found);
    found
}

fn walk(value: &Json, pointer: &mut String, found: &mut Vec<Hidden>) {
    if found.len() >= MAX_TOLD {
        return;
    }
    let length = pointer.len();
    match value {
        Json::String(text) => note(text, pointer, found),
        Json::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                pointer.push_str(&format!("/{i}"));
                walk(item, pointer, found);
                pointer.truncate(length);
            }
        }
        Json::Object(object) => {
            for (key, item) in object.iter() {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                note(key, pointer, found);
                walk(item, pointer, found);
                pointer.truncate(length);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn note(text: &str, pointer: &str, found: &mut Vec<Hidden>) {
    if let Some(character) = first_hidden(text) {
        found.push(Hidden { pointer: pointer.to_owned(), character });
    }
}

/// The first hidden character of a text.
pub fn first_hidden(text: &str) -> Option<char> {
    // Nearly every text is plain.
    if text.bytes().all(|b| (b' '..0x7f).contains(&b) || matches!(b, b'\n' | b'\t' | b'\r')) {
        return None;
    }
    let mut before = None;
    let mut all = text.chars().peekable();
    while let Some(c) = all.next() {
        if kind(c).is_some() && !belongs(c, before, all.peek().copied()) {
            return Some(c);
        }
        before = Some(c);
    }
    None
}

/// A text as a terminal and a person can bear it: hidden characters, controls and line ends as
/// `\u{…}`, `\n` and the like.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut all = text.chars().peekable();
    while let Some(c) = all.next() {
        let shown = !c.is_control() && (kind(c).is_none() || belongs(c, before, all.peek().copied()));
        if shown {
            out.push(c)
        } else {
            out.extend(c.escape_default())
        }
        before = Some(c);
    }
    out
}

/// What a character is, where it is one of them.
fn kind(c: char) -> Option<&'static str> {
    Some(match u32::from(c) {
        0x09 | 0x0A | 0x0D => return None,
        0x00..=0x1F | 0x7F..=0x9F => "control character",
        0xAD => "soft hyphen",
        0x200B..=0x200D | 0x2060 | 0xFEFF | 0x180E => "zero width",
        0x200E | 0x200F | 0x061C | 0x202A..=0x202E | 0x2066..=0x2069 | 0x206A..=0x206F => "direction mark",
        0x2061..=0x2065 => "invisible operator",
        0x2028 | 0x2029 => "line separator",
        0x034F | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x3164 | 0xFFA0 | 0x2800 => "filler",
        0xFE00..=0xFE0F | 0x180B..=0x180D | 0x180F | 0xE0100..=0xE01EF => "variation selector",
        0xFFF0..=0xFFFB => "annotation mark",
        0xE0000..=0xE0FFF => "tag character",
        0x1D173..=0x1D17A | 0x1BCA0..=0x1BCA3 => "format character",
        code if code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code) => "no character",
        _ => return None,
    })
}

/// Whether one of them is where ordinary writing has it.
fn belongs(c: char, before: Option<char>, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    match c {
        // How a pictograph, or a digit on its key, is drawn.
        '\u{FE0E}' | '\u{FE0F}' => pictograph(before) || before.is_ascii_digit() || matches!(before, '#' | '*'),
        '\u{200D}' | '\u{200C}' => {
            let Some(after) = after else { return false };
            let joined = |c| pictograph(c) || matches!(c, '\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}');
            (c == '\u{200D}' && joined(before) && pictograph(after)) || (joins(before) && joins(after))
        }
        _ => false,
    }
}

fn pictograph(c: char) -> bool {
    matches!(u32::from(c), 0xA9 | 0xAE | 0x203C..=0x3299 | 0x1F000..=0x1FAFF) && kind(c).is_none()
}

/// Letters and marks of scripts in which a joiner or a non-joiner changes what is written.
fn joins(c: char) -> bool {
    matches!(u32::from(c), 0x0620..=0x08FF | 0x0900..=0x0DFF | 0x1000..=0x109F | 0x1780..=0x17B3 | 0x17B6..=0x17FF | 0x1820..=0x18AA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_found_and_ordinary_writing_is_not() {
        for (text, code) in [
            ("a\u{200B}b", 0x200B),
            ("a\u{202E}b", 0x202E),
            ("\u{FEFF}a", 0xFEFF),
            ("a\u{E0041}\u{E0042}", 0xE0041),
            ("a\u{1b}[2J", 0x1B),
            ("a\u{7f}", 0x7F),
            ("a\u{FE0F}", 0xFE0F),
            ("😀\u{FE0F}\u{FE0F}", 0xFE0F),
            ("😀\u{E0101}", 0xE0101),
            ("a\u{200D}b", 0x200D),
            ("x\u{2062}y", 0x2062),
            ("\u{3164}", 0x3164),
        ] {
            assert_eq!(first_hidden(text).map(u32::from), Some(code), "{}", visible(text));
        }
        for text in [
            "plain\nwith\ttabs\r\n",
            "Grüße, Ångström, naïve",
            "日本語、한국어, русский, ελληνικά",
            "שלום, مرحبا",
            "⚠️ careful, ❤️, 1️⃣, ©️",
            "👩‍💻 👩🏽‍🚀 🏳️‍🌈",
            "می‌خواهم",
            "क्‍ष",
            "≤ ∑ → • … – “quoted”",
        ] {
            assert_eq!(first_hidden(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_obeys_nobody() {
        assert_eq!(visible("a\u{1b}[2J\u{200B}\nb"), "a\\u{1b}[2J\\u{200b}\\nb");
        assert_eq!(visible("⚠️ Grüße"), "⚠️ Grüße");
    }

    #[test]
    fn keys_and_values_at_any_depth_with_their_place() {
        let json = |text: &str| Json::parse(text.as_bytes(), crate::json::Limits::default()).unwrap();
        let found = hidden_in(&json(r#"{"a":{"b~/c":["x","y\u200bz"]},"d\u202e":1}"#));
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["/a/b~0~1c/1 holds U+200B (zero width)", "/d\\u{202e} holds U+202E (direction mark)"]);
    }
}
