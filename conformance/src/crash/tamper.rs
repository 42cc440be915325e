//! Whether the check would see it: a trial in which all is well is spoilt in one way after the
//! other, and each must be refused.

use super::check::examine;
use super::trial::Played;
use serde_json::{Value, json};

/// What a trial is judged by.
struct Evidence {
    played: Played,
    events: Vec<Value>,
    rows: Vec<Value>,
}

impl Evidence {
    fn event(&mut self, kind: &str, spoil: impl FnOnce(&mut Value)) {
        if let Some(event) = self.events.iter_mut().rev().find(|e| e["type"] == kind) {
            spoil(event);
        }
    }
    /// What is told of a call that must not be repeated.
    fn once(&mut self, outcome: &str, before: &str) {
        let is_once = |e: &&mut Value| e["text"].as_str().is_some_and(|text| text.starts_with("once "));
        let finished = self.events.iter_mut().filter(|e| e["type"] == "tool.finished");
        if let Some(event) = finished.rev().find(is_once) {
            event["outcome"] = json!(outcome);
            event["text"] = json!(format!("{before}{}", event["text"].as_str().unwrap_or_default()));
        }
    }
}

/// What is spoilt, how, and how it is refused.
type Spoil = (&'static str, fn(&mut Evidence), &'static str);

const ALL: [Spoil; 13] = [
    (
        "a tool was used once more",
        |e| {
            let once = e.played.made.iter().find(|made| made.tool == "once").cloned();
            e.played.made.extend(once);
        },
        "was made 2 times",
    ),
    ("what is said to be done was not", |e| e.played.made.retain(|made| made.tool != "once"), "and was made 0 times"),
    (
        "another key arrived",
        |e| {
            if let Some(made) = e.played.made.first_mut() {
                made.key.push('x');
            }
        },
        "arrived as",
    ),
    ("two calls have one key", one_key, "share a key"),
    ("a result was made up", |e| e.once("ok", "I believe that "), "is said to be done"),
    ("unknown, and the model was not told", |e| e.once("unknown", "unknown: "), "the model was not told"),
    ("an outcome was told as an error", |e| e.once("error", ""), "is error"),
    (
        "tokens were counted that nobody used",
        |e| e.event("model.replied", |event| event["usage"]["input"] = json!(9)),
        "adds up to",
    ),
    (
        "the list says something else",
        |e| {
            let root = e.played.root.clone();
            if let Some(row) = e.rows.iter_mut().find(|row| row["run"] == root.as_str()) {
                row["tokens"] = json!(1);
            }
        },
        "adds up to",
    ),
    (
        "the model was asked once more than is written",
        |e| {
            let request = e.played.book.requests.first().cloned();
            e.played.book.requests.extend(request);
        },
        "was asked 2 times",
    ),
    ("an event is missing", |e| drop(e.events.remove(1)), "comes"),
    ("it ended otherwise", |e| e.event("run.finished", |event| event["state"] = json!("failed")), "is \"failed\""),
    (
        "it ended twice",
        |e| {
            let mut again = e.events.last().cloned().unwrap_or_default();
            again["seq"] = json!(again["seq"].as_u64().unwrap_or_default() + 1);
            e.events.push(again);
        },
        "after its end comes",
    ),
];

/// The last call that left has the key of the first, in the journal and outside.
fn one_key(e: &mut Evidence) {
    let sent = |e: &&Value| e["type"] == "tool.dispatched";
    let first = e.events.iter().find(sent).map(|e| e["key"].clone()).unwrap_or_default();
    let last = e.events.iter().rev().find(sent).map(|e| e["key"].clone()).unwrap_or_default();
    e.event("tool.dispatched", |event| event["key"] = first.clone());
    for made in e.played.made.iter_mut().filter(|made| last == made.key.as_str()) {
        made.key = first.as_str().unwrap_or_default().to_owned();
    }
}

/// Spoils a trial in every way.
///
/// # Errors
/// The way that was not seen.
pub(super) fn each(played: &Played, events: &[Value], rows: &[Value]) -> Result<(), String> {
    for (what, spoil, refusal) in ALL {
        let mut evidence = Evidence { played: played.clone(), events: events.to_vec(), rows: rows.to_vec() };
        spoil(&mut evidence);
        match examine(&evidence.played, &evidence.events, &evidence.rows, None) {
            Err(why) if why.contains(refusal) => {}
            other => return Err(format!("the check does not see that {what}: {:?}", other.err())),
        }
    }
    Ok(())
}
