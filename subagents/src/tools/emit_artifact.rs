//! `emit_artifact`: something the run made, for whoever watches it.

use super::{Asked, At, Event, Flow, HostError, Outcome, ToolCall, text};
use serde_json::{Value, json};

/// What is larger is kept beside the journal.
const INLINE: usize = 16 << 10;

pub(super) fn spec() -> (&'static str, Value, Value) {
    let properties = json!({
        "name": { "type": "string", "description": "Such as report.md." },
        "media_type": { "type": "string", "description": "Such as text/markdown; default text/plain." },
        "content": { "type": "string" }
    });
    ("Hands over something you made, as a named document.", properties, json!(["name", "content"]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    let media_type = match call.input.get("media_type") {
        None | Some(Value::Null) => Ok("text/plain"),
        Some(_) => text(&call.input, "media_type"),
    };
    let content = call.input.get("content").and_then(Value::as_str).ok_or_else(|| "content is missing".to_owned());
    let read = text(&call.input, "name").and_then(|name| Ok((name.to_owned(), media_type?.to_owned(), content?)));
    let (name, media_type, content) = match read {
        Ok(read) => read,
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    let (text, blob) = match content.len() <= INLINE {
        true => (Some(content.to_owned()), None),
        false => (None, Some(at.keep(content.as_bytes().to_vec()).await?)),
    };
    let answer = json!({ "name": name, "bytes": content.len() }).to_string();
    let mut events = at.whole(call, asked, rule, Outcome::Ok, answer);
    events.insert(events.len() - 1, Event::ArtifactEmitted { name, media_type, text, blob });
    at.append(events).await
}
