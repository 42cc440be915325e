//! What is different between two values, place by place, for a person to read.

use crate::json::Json;
use crate::manifest::visible;
use std::collections::BTreeSet;

/// After so many it is looked no deeper: what differs is told as a whole.
const MAX_CHANGES: usize = 100;
/// Characters of equal text shown before and after what differs.
const CONTEXT: usize = 40;

/// One difference. `None` is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where, as a JSON pointer.
    pub pointer: String,
    /// What was approved.
    pub before: Option<Json>,
    /// What it is now.
    pub after: Option<Json>,
}

impl Change {
    /// The part of the definition it is in.
    pub fn part(&self) -> &str {
        self.pointer.trim_start_matches('/').split('/').next().unwrap_or("")
    }
    /// It as lines for a terminal: where, `-` what was, `+` what is. Of long texts the part that
    /// differs, with a little around it; hidden characters are spelled out.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![visible(if self.pointer.is_empty() { "/" } else { &self.pointer })];
        let (before, after) = (text(self.before.as_ref()), text(self.after.as_ref()));
        let (before, after) = match (before, after) {
            (Some(before), Some(after)) => {
                let (before, after) = apart(&before, &after);
                (Some(before), Some(after))
            }
            other => other,
        };
        lines.extend(before.map(|text| format!("- {text}")));
        lines.extend(after.map(|text| format!("+ {text}")));
        lines
    }
}

fn text(value: Option<&Json>) -> Option<String> {
    value.map(|value| match value {
        Json::String(text) => visible(text),
        other => visible(&other.to_canonical()),
    })
}

/// Two texts without most of what they begin and end with alike.
fn apart(before: &str, after: &str) -> (String, String) {
    let (before, after): (Vec<char>, Vec<char>) = (before.chars().collect(), after.chars().collect());
    let shorter = before.len().min(after.len());
    let head = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let tail = before.iter().rev().zip(after.iter().rev()).take(shorter - head).take_while(|(a, b)| a == b).count();
    let (from, rest) = (head.saturating_sub(CONTEXT), tail.saturating_sub(CONTEXT));
    let cut = |text: &[char]| {
        let middle: String = text[from..text.len() - rest].iter().collect();
        let (open, close) = (if from > 0 { "… " } else { "" }, if rest > 0 { " …" } else { "" });
        format!("{open}{middle}{close}")
    };
    (cut(&before), cut(&after))
}

/// All differences, in the order of their places.
pub fn changes(before: &Json, after: &Json) -> Vec<Change> {
    let mut out = Vec::new();
    compare(before, after, String::new(), &mut out);
    out
}

fn compare(before: &Json, after: &Json, pointer: String, out: &mut Vec<Change>) {
    if before == after || before.to_canonical() == after.to_canonical() {
        return;
    }
    match (before, after) {
        _ if out.len() >= MAX_CHANGES => out.push(whole(before, after, pointer)),
        (Json::Object(was), Json::Object(is)) => {
            let keys: BTreeSet<&str> = was.iter().chain(is.iter()).map(|(key, _)| key).collect();
            for key in keys {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                match (was.get(key), is.get(key)) {
                    (Some(was), Some(is)) => compare(was, is, pointer, out),
                    (was, is) => out.push(Change { pointer, before: was.cloned(), after: is.cloned() }),
                }
            }
        }
        (Json::Array(was), Json::Array(is)) if was.len() == is.len() => {
            for (i, (was, is)) in was.iter().zip(is).enumerate() {
                compare(was, is, format!("{pointer}/{i}"), out);
            }
        }
        _ => out.push(whole(before, after, pointer)),
    }
}

fn whole(before: &Json, after: &Json, pointer: String) -> Change {
    Change { pointer, before: Some(before.clone()), after: Some(after.clone()) }
}
