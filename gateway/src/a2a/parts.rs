//! Parts of messages: what a client says, read for an agent; and what an agent says, as parts.

use super::fault::{Fault, Kind};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

/// What agents here take. Anything else is refused rather than lost.
pub(super) const INPUT: [&str; 3] = ["text/plain", "text/markdown", "application/json"];
/// Base64 as ProtoJSON takes it: padded or not; of both alphabets, see [`text_of`].
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Bytes of a message beside what its words account for.
const MAX_BESIDE: usize = 16 << 10;
/// What they give.
pub(super) const OUTPUT: [&str; 3] = ["text/plain", "text/markdown", "application/json"];

/// A message of a client (A2A 1.0, section 4.1.4).
#[derive(Debug)]
pub(super) struct Message {
    /// The client's name for it.
    pub(super) id: String,
    pub(super) task: Option<String>,
    pub(super) context: Option<String>,
    /// What it says, as a text.
    pub(super) text: String,
    /// What it says, where it is one part of data and nothing else.
    pub(super) data: Option<Value>,
    /// Its parts as they were sent, unless they are one text and nothing more.
    pub(super) parts: Option<Value>,
    /// The question it answers: `pleach/question` of its metadata, or `question` of its data.
    pub(super) question: Option<String>,
}

/// A name a client chose: of a message, of a context.
pub(super) fn name(value: &Value, key: &str, field: &'static str) -> Result<Option<String>, Fault> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) if name.len() > 256 || name.chars().any(char::is_control) => {
            Err(Fault::field(field, "it has more than 256 bytes, or characters that are not seen"))
        }
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err(Fault::field(field, "it is a string")),
    }
}

impl Message {
    /// Reads one.
    ///
    /// # Errors
    /// Which field is wrong, and why.
    pub(super) fn read(params: &Value) -> Result<Self, Fault> {
        let message = params.get("message").filter(|m| m.is_object());
        let message = message.ok_or_else(|| Fault::field("message", "it is missing"))?;
        let id = name(message, "messageId", "message.messageId")?;
        let id = id.ok_or_else(|| Fault::field("message.messageId", "it is missing"))?;
        match message.get("role").and_then(Value::as_str) {
            Some("ROLE_USER") => {}
            Some(other) => {
                return Err(Fault::field("message.role", format!("it is ROLE_USER for what you say, not {other}")));
            }
            None => return Err(Fault::field("message.role", "it is missing")),
        }
        let parts = message.get("parts").and_then(Value::as_array).filter(|parts| !parts.is_empty());
        let parts = parts.ok_or_else(|| Fault::field("message.parts", "there is at least one part"))?;
        let texts = parts.iter().map(text_of).collect::<Result<Vec<String>, Fault>>()?;
        let text = texts.join("\n");
        if text.trim().is_empty() {
            return Err(Fault::field("message.parts", "they say nothing"));
        }
        let data = match &parts[..] {
            [part] => part.get("data").cloned(),
            _ => None,
        };
        let named = message.pointer("/metadata/pleach~1question").or_else(|| data.as_ref()?.get("question"));
        let question = named.and_then(Value::as_str).map(str::to_owned);
        let plain = |part: &Value| part.as_object().is_some_and(|part| part.len() == 1 && part.contains_key("text"));
        let kept = (!matches!(&parts[..], [part] if plain(part))).then(|| Value::from(parts.clone()));
        // What waits to be heard is counted by its text; what goes with it is bounded by it.
        if kept.as_ref().is_some_and(|kept| kept.to_string().len() > 2 * text.len() + MAX_BESIDE) {
            let why = format!("what they hold besides their words is more than {MAX_BESIDE} bytes; leave metadata out");
            return Err(Fault::field("message.parts", why));
        }
        Ok(Self {
            question,
            parts: kept,
            id,
            task: name(message, "taskId", "message.taskId")?,
            context: name(message, "contextId", "message.contextId")?,
            text,
            data,
        })
    }
}

fn unsupported(kind: &str) -> Fault {
    let known = INPUT.join(", ");
    Fault::new(Kind::ContentTypeNotSupported, format!("a part is {kind}; agents here take: {known}"))
}

fn is_text(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or("").trim();
    let kind = kind.to_ascii_lowercase();
    kind.is_empty() || kind.starts_with("text/") || kind == "application/json"
}

/// A part as a model reads it.
fn text_of(part: &Value) -> Result<String, Fault> {
    let kind = part.get("mediaType").and_then(Value::as_str).unwrap_or("");
    let file = part.get("filename").and_then(Value::as_str).unwrap_or("file");
    let given: Vec<&str> = ["text", "raw", "url", "data"]
        .into_iter()
        .filter(|key| part.get(key).is_some_and(|value| !value.is_null()))
        .collect();
    let field = "message.parts";
    match given[..] {
        ["text"] => {
            let text = part.get("text").and_then(Value::as_str);
            let text = text.ok_or_else(|| Fault::field(field, "text is a string"))?;
            if is_text(kind) { Ok(text.to_owned()) } else { Err(unsupported(kind)) }
        }
        ["data"] if is_text(kind) => Ok(part.get("data").map(Value::to_string).unwrap_or_default()),
        ["raw"] => {
            let raw = part.get("raw").and_then(Value::as_str).map(|raw| raw.replace('-', "+").replace('_', "/"));
            let raw = raw.and_then(|raw| BASE64.decode(raw).ok());
            let raw = raw.ok_or_else(|| Fault::field(field, "raw is base64"))?;
            let text = String::from_utf8(raw).ok().filter(|_| is_text(kind));
            let text =
                text.ok_or_else(|| unsupported(if kind.is_empty() { "a file without a mediaType" } else { kind }))?;
            Ok(format!("[{file}]\n{text}"))
        }
        // It is not fetched: whether the agent may is for its policy to say.
        ["url"] => {
            let url = part.get("url").and_then(Value::as_str).ok_or_else(|| Fault::field(field, "url is a string"))?;
            Ok(format!("[{file}: {url}]"))
        }
        ["data"] => Err(unsupported(kind)),
        _ => Err(Fault::field(field, "a part has exactly one of text, raw, url and data")),
    }
}

/// What an agent says.
pub(super) fn text(text: &str) -> Value {
    json!([{ "text": text }])
}

/// What it made: data where that is what it is.
pub(super) fn content(text: &str, kind: &str) -> Value {
    if kind == "application/json"
        && let Ok(data) = serde_json::from_str::<Value>(text)
    {
        return json!({ "data": data, "mediaType": kind });
    }
    json!({ "text": text, "mediaType": kind })
}

/// The same that is no text, written in base64.
pub(super) fn raw(base64: &str, name: &str, kind: &str) -> Value {
    json!({ "raw": base64, "filename": name, "mediaType": kind })
}

/// What is elsewhere.
pub(super) fn link(url: &str, name: &str, kind: &str) -> Value {
    json!({ "url": url, "filename": name, "mediaType": kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: Value) -> Result<Message, Fault> {
        Message::read(&json!({ "message": { "messageId": "m", "role": "ROLE_USER", "parts": parts } }))
    }

    #[test]
    fn parts_are_read_or_refused() {
        let all = json!([
            { "text": "a" }, { "data": { "n": 1 } }, { "raw": "Yg==", "mediaType": "text/plain", "filename": "f" },
            { "url": "https://x.example/y", "unknown": true },
        ]);
        assert_eq!(read(all).unwrap().text, "a\n{\"n\":1}\n[f]\nb\n[file: https://x.example/y]");
        for (parts, kind) in [
            (json!([]), Kind::InvalidParams),
            (json!([{}]), Kind::InvalidParams),
            (json!([{ "text": "" }]), Kind::InvalidParams),
            (json!([{ "text": "a", "url": "b" }]), Kind::InvalidParams),
            (json!([{ "text": 1 }]), Kind::InvalidParams),
            (json!([{ "raw": "%" }]), Kind::InvalidParams),
            (json!([{ "raw": "/w==" }]), Kind::ContentTypeNotSupported),
            (json!([{ "text": "a", "mediaType": "application/x-other" }]), Kind::ContentTypeNotSupported),
            (json!([{ "data": 1, "mediaType": "image/png" }]), Kind::ContentTypeNotSupported),
        ] {
            assert_eq!(read(parts.clone()).unwrap_err().kind, kind, "{parts}");
        }
    }

    #[test]
    fn base64_is_taken_in_all_its_forms() {
        for raw in ["Pz8/Pg==", "Pz8_Pg==", "Pz8/Pg", "Pz8_Pg"] {
            assert_eq!(read(json!([{ "raw": raw, "mediaType": "text/plain" }])).unwrap().text, "[file]\n???>", "{raw}");
        }
    }

    #[test]
    fn parts_are_kept_where_a_text_does_not_say_all() {
        assert_eq!(read(json!([{ "text": "a" }])).unwrap().parts, None);
        for parts in [
            json!([{ "data": { "a": 1 } }]),
            json!([{ "text": "a" }, { "text": "b" }]),
            json!([{ "text": "a", "metadata": { "k": 1 } }]),
            json!([{ "raw": "Yg==", "mediaType": "text/plain", "filename": "f" }]),
        ] {
            assert_eq!(read(parts.clone()).unwrap().parts, Some(parts));
        }
    }

    #[test]
    fn data_alone_is_kept_as_it_is() {
        assert_eq!(read(json!([{ "data": { "a": [1.5, 2] } }])).unwrap().data, Some(json!({ "a": [1.5, 2] })));
        assert_eq!(read(json!([{ "data": 1 }, { "text": "x" }])).unwrap().data, None);
    }
}
