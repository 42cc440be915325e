//! What a provider speaks, as a pair of functions: a request to a document, a stream of
//! documents to an answer.

use super::retry::Said;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use subagents::event::Usage;
use subagents::ports::{Delta, Reply, Request};

/// One request, with what the policy file says of the model.
pub(super) struct Ask<'a> {
    /// The request.
    pub(super) request: &'a Request<'a>,
    /// The provider's name for the model.
    pub(super) model: &'a str,
    /// Tokens it may write.
    pub(super) max_output: u64,
    /// How hard it thinks.
    pub(super) effort: Option<&'a str>,
    /// What it said so far, when it paused.
    pub(super) paused: &'a [Value],
}

/// What is spoken at an endpoint.
pub(super) trait Format: Send + Sync {
    /// The path beneath the base address.
    fn path(&self) -> &'static str;
    /// What else is told in headers.
    fn headers(&self) -> HeaderMap;
    /// The header that carries the key.
    fn key(&self, key: &str) -> (HeaderName, String);
    /// The request.
    fn body(&self, ask: &Ask<'_>) -> Value;
    /// The path and the request that only count its tokens, where there is such.
    fn counting(&self, ask: &Ask<'_>) -> Option<(&'static str, Value)>;
    /// Whether there is such.
    fn counts(&self) -> bool;
    /// The tokens counted.
    fn counted(&self, answer: &Value) -> Option<u64> {
        answer.get("input_tokens")?.as_u64()
    }
    /// Reads an answer.
    fn reader(&self) -> Box<dyn Reader>;
    /// The answer as the tree takes it.
    fn reply(&self, ask: &Ask<'_>, heard: Heard) -> Reply;
    /// Whether the request is worth sending again in another form, after what was said to it.
    fn adapt(&self, _said: &Said) -> bool {
        false
    }
}

/// Reads one answer, event by event.
pub(super) trait Reader: Send {
    /// Takes an event in; `true` when nothing is to follow. What a person may read is told.
    ///
    /// # Errors
    /// What the provider says went wrong.
    fn event(&mut self, event: &Value, delta: Delta<'_>) -> Result<bool, Said>;
    /// Takes an answer in that came in one piece.
    ///
    /// # Errors
    /// What the provider says went wrong, or that this is no answer.
    fn whole(&mut self, answer: &Value, delta: Delta<'_>) -> Result<(), Said>;
    /// What was used so far.
    fn usage(&self) -> Usage;
    /// The answer, if it is whole.
    fn finish(self: Box<Self>) -> Option<Heard>;
}

/// What a provider answered, in its own words.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Blocks, or the one message.
    pub(super) content: Vec<Value>,
    /// Why it stopped, in ours.
    pub(super) stop: String,
    /// What it used.
    pub(super) usage: Usage,
    /// The model that answered.
    pub(super) model: Option<String>,
    /// What it says about stopping, where that is all it says.
    pub(super) notice: Option<String>,
}

/// The reply as its provider wrote it, marked with who that was: another one's conversation
/// cannot be given it.
pub(super) fn kept(format: &str, model: &str, content: Value) -> Value {
    json!({ "format": format, "model": model, "content": content })
}

/// What was kept, if it is of this format; and the model that wrote it.
pub(super) fn keep_of<'a>(format: &str, kept: &'a Value) -> Option<(&'a str, &'a Value)> {
    (kept.get("format")?.as_str()? == format).then_some(())?;
    Some((kept.get("model")?.as_str()?, kept.get("content")?))
}

/// Makes an answer's blocks and messages grow: strings are continued, lists too, the rest is
/// replaced. What is unknown here thus comes back as it was.
pub(super) fn merge(into: &mut serde_json::Map<String, Value>, key: &str, piece: &Value) {
    match (into.get_mut(key), piece) {
        (Some(Value::String(text)), Value::String(more)) => text.push_str(more),
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more.iter().cloned()),
        (Some(Value::Object(inner)), Value::Object(more)) => {
            for (key, value) in more {
                merge(inner, key, value);
            }
        }
        (Some(_), Value::Null) => {}
        _ => {
            into.insert(key.to_owned(), piece.clone());
        }
    }
}

/// A call's arguments; what is no JSON stays as it was written, for the guard to refuse.
pub(super) fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return json!({});
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A header's value that no log shows.
pub(super) fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
