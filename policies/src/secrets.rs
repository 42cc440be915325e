//! What must not be read where others read: the values of secrets, and the text they are taken
//! out of before it is written down or told.
//!
//! A value is known again as it stands, as JSON escapes it and as a URL does; of one with several
//! lines each long line counts. Other encodings of it are not known again.

use crate::json::{Json, quote};
use crate::names::Name;
use crate::resolve::Secret;
use std::borrow::Cow;
use std::fmt::Write;

/// A shorter value stands in many a text by chance, and is not looked for.
pub const SHORTEST: usize = 8;
/// Lines of a value that count by themselves.
const LONG_LINE: usize = 16;

/// Values that are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hidden(Vec<(Secret, String)>);

impl Hidden {
    /// Has a value looked for from now on.
    pub fn hide(&mut self, name: &Name, value: &str) {
        let instead = format!("[secret {name}]");
        let lines = value.lines().map(str::trim).filter(|line| line.len() >= LONG_LINE && *line != value);
        for form in [value].into_iter().chain(lines).flat_map(forms) {
            if form.len() >= SHORTEST && !self.0.iter().any(|(known, _)| known.expose() == form) {
                self.0.push((Secret::new(form), instead.clone()));
            }
        }
        // Of two values that overlap the longer is the one that stands there.
        self.0.sort_by_key(|(form, _)| std::cmp::Reverse(form.expose().len()));
    }
    /// All of another one too.
    pub fn add(&mut self, other: &Self) {
        for (form, instead) in &other.0 {
            if !self.0.iter().any(|(known, _)| known == form) {
                self.0.push((form.clone(), instead.clone()));
            }
        }
        self.0.sort_by_key(|(form, _)| std::cmp::Reverse(form.expose().len()));
    }
    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// A text without them.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = Cow::Borrowed(text);
        for (form, instead) in &self.0 {
            if out.contains(form.expose()) {
                out = Cow::Owned(out.replace(form.expose(), instead));
            }
        }
        out
    }
    /// A value without them: in its texts and in its keys.
    pub fn redact_json(&self, value: &mut Json) {
        match value {
            Json::String(text) => {
                if let Cow::Owned(without) = self.redact(text) {
                    *text = without;
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Json::Object(object) => {
                object.rename(|key| match self.redact(key) {
                    Cow::Owned(without) => Some(without),
                    Cow::Borrowed(_) => None,
                });
                object.iter_mut().for_each(|(_, value)| self.redact_json(value));
            }
            _ => {}
        }
    }
}

/// The value as it stands, as JSON writes it, and as a URL does.
fn forms(value: &str) -> Vec<String> {
    let mut quoted = String::new();
    quote(value, &mut quoted);
    let escaped = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    let mut url = String::new();
    for byte in value.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => url.push(char::from(b)),
            // Writing to a String does not fail.
            b => drop(write!(url, "%{b:02X}")),
        }
    }
    vec![value.to_owned(), escaped, url]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Limits;

    fn hidden(value: &str) -> Hidden {
        let mut hidden = Hidden::default();
        hidden.hide(&Name::try_from("key").unwrap(), value);
        hidden
    }

    #[test]
    fn a_value_is_found_in_every_usual_form() {
        let of = hidden("p@ss \"w\"/word");
        assert_eq!(of.redact("Bearer p@ss \"w\"/word."), "Bearer [secret key].");
        assert_eq!(of.redact(r#"{"a":"p@ss \"w\"/word"}"#), r#"{"a":"[secret key]"}"#);
        assert_eq!(of.redact("?t=p%40ss%20%22w%22%2Fword&b"), "?t=[secret key]&b");
        assert_eq!(of.redact("p@ss w/word"), "p@ss w/word", "its benign twin");
        assert_eq!(hidden("short").redact("short"), "short", "too short to be told from a word");
    }

    #[test]
    fn each_long_line_of_a_value_counts() {
        let of = hidden("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----");
        assert_eq!(of.redact("it read MIIEvQIBADANBgkqhkiG there"), "it read [secret key] there");
    }

    #[test]
    fn values_keys_and_nested_texts_are_cleaned_and_nothing_else() {
        let of = hidden("canary-0123");
        let twice = r#"{"canary-0123":1,"CANARY":2,"[secret key]":3}"#;
        let mut value = Json::parse(twice.as_bytes(), Limits::default()).unwrap();
        of.redact_json(&mut value);
        assert_eq!(value.to_text(), r#"{"[secret key] 2":1,"CANARY":2,"[secret key]":3}"#, "no key is lost");
        let text = r#"{"canary-0123":1E2,"a":["x canary-0123 y",{"b":"canary-0123"}],"c":1.0}"#;
        let mut value = Json::parse(text.as_bytes(), Limits::default()).unwrap();
        of.redact_json(&mut value);
        let expected = r#"{"[secret key]":1E2,"a":["x [secret key] y",{"b":"[secret key]"}],"c":1.0}"#;
        assert_eq!(value.to_text(), expected);
    }
}
