//! The question for a summary, and the message it becomes.

use super::floor;
use crate::event::ToolCall;
use crate::turn::{Message, ToolResult};

/// What the model is asked.
pub const INSTRUCTION: &str = "[The conversation is too long to go on with. Write what is needed to go on without \
the messages above, of which only the first will stay: what was asked, word for word where the wording matters, and what \
others said since; what was done, and found, with names, numbers, paths and handles; what failed and why; what is unknown; \
what is left to do. Say nothing as certain that is not. Call no tool. Answer with that text alone.]";

/// What the model is asked for a summary of these messages, where no more than `room` bytes of
/// each long text are shown.
pub fn question(old: &[Message], room: Option<usize>) -> Vec<Message> {
    let clip = |text: &str| match room.filter(|room| text.len() > *room) {
        Some(room) => format!("{}\n[… {} bytes in all …]", &text[..floor(text, room)], text.len()),
        None => text.to_owned(),
    };
    let clipped = |message: &Message| match (message, room) {
        (whole, None) => whole.clone(),
        (Message::User(text), _) => Message::User(clip(text)),
        (Message::Results(results), _) => {
            let results = results.iter();
            Message::Results(results.map(|r| ToolResult { text: clip(&r.text), ..r.clone() }).collect())
        }
        // What goes back as its provider wrote it cannot be clipped; it goes back as words.
        (Message::Assistant { text, calls, .. }, _) => {
            let calls = calls.iter().map(|call| ToolCall { input: short(&call.input, &clip), ..call.clone() });
            Message::Assistant { text: clip(text), calls: calls.collect(), blocks: None }
        }
    };
    let mut messages: Vec<Message> = old.iter().map(clipped).collect();
    messages.push(Message::User(INSTRUCTION.to_owned()));
    messages
}

fn short(input: &serde_json::Value, clip: &dyn Fn(&str) -> String) -> serde_json::Value {
    use serde_json::Value;
    match input {
        Value::String(text) => Value::String(clip(text)),
        Value::Array(items) => items.iter().map(|item| short(item, clip)).collect(),
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), short(value, clip))).collect())
        }
        other => other.clone(),
    }
}

/// The message a summary becomes.
pub(super) fn told(summary: &str) -> String {
    format!("[the conversation so far, in short; the messages themselves are gone]\n{summary}")
}
