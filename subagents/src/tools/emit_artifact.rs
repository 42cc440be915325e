//! `emit_artifact`: something the run made, or found, for whoever watches it.

use super::{Asked, At, Event, Flow, HostError, Outcome, ToolCall, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What is larger is kept beside the journal.
const INLINE: usize = 16 << 10;

pub(super) fn spec() -> (&'static str, Value, Value) {
    let properties = json!({
        "name": { "type": "string", "description": "Such as report.md." },
        "media_type": { "type": "string", "description": "Such as text/markdown; default text/plain." },
        "content": { "type": "string" },
        "encoding": { "enum": ["utf-8", "base64"], "description": "How content is written; default utf-8." },
        "url": { "type": "string", "description": "Where it is, in the place of content." },
        "more": { "type": "boolean", "description": "More of it follows in another call with the same name." }
    });
    ("Hands over something you made, as a named document.", properties, json!(["name"]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    let Made { name, media_type, content, encoding, url, more } = match read(&call.input) {
        Ok(made) => made,
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    let bytes = content.as_ref().map_or(0, String::len);
    let (text, blob) = match content {
        Some(content) if bytes > INLINE => (None, Some(at.keep(content.into_bytes()).await?)),
        content => (content, None),
    };
    let answer = json!({ "name": name, "bytes": bytes }).to_string();
    let mut events = at.whole(call, asked, rule, Outcome::Ok, answer);
    let made = Event::ArtifactEmitted { name, media_type, text, blob, url, encoding, more };
    events.insert(events.len() - 1, made);
    at.append(events).await
}

struct Made {
    name: String,
    media_type: String,
    content: Option<String>,
    encoding: Option<String>,
    url: Option<String>,
    more: bool,
}

fn read(input: &Value) -> Result<Made, String> {
    let optional = |key: &str| match input.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text(input, key).map(|text| Some(text.to_owned())),
    };
    let content = input.get("content").and_then(Value::as_str).map(str::to_owned);
    let url = optional("url")?;
    match (&content, &url) {
        (Some(_), Some(_)) => return Err("give content or url, not both".into()),
        (None, None) => return Err("content is missing".into()),
        (None, Some(url)) if url::Url::parse(url).is_err() => return Err(format!("url is none: {url:?}")),
        _ => {}
    }
    let encoding = match optional("encoding")?.as_deref() {
        None | Some("utf-8") => None,
        Some("base64") => {
            let written = content.as_deref().unwrap_or_default();
            STANDARD.decode(written).map_err(|e| format!("content is no base64: {e}"))?;
            Some("base64".to_owned())
        }
        Some(other) => return Err(format!("encoding is utf-8 or base64, not {other:?}")),
    };
    Ok(Made {
        name: text(input, "name")?.to_owned(),
        media_type: optional("media_type")?.unwrap_or_else(|| "text/plain".into()),
        content,
        encoding,
        url,
        more: input.get("more") == Some(&Value::Bool(true)),
    })
}
