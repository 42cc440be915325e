//! Chat completions, as OpenAI and the many servers after it speak them. What only some of them
//! know is found out by asking: a request that is refused for a word is sent without it.

mod read;
mod write;

use super::format::{Ask, Format, Heard, Reader, arguments, kept};
use super::remote::settle_ids;
use super::retry::Said;
use super::tools;
use http::{HeaderMap, HeaderName};
use policies::price::table::same;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use subagents::event::ToolCall;
use subagents::ports::Reply;
use subagents::turn::Message;

/// The name of this format on what is kept.
const FORMAT: &str = "openai";
/// Fields of a message that are told in words and calls, or say nothing.
const UNDERSTOOD: [&str; 7] = ["role", "content", "tool_calls", "refusal", "function_call", "annotations", "audio"];

/// The format, and what is known of the server by now.
#[derive(Default)]
pub(super) struct OpenAi {
    quirks: Quirks,
}

/// What a server refused.
#[derive(Default)]
struct Quirks {
    /// It knows `max_tokens` only.
    max_tokens: AtomicBool,
    /// It does not know `stream_options`.
    no_options: AtomicBool,
}

impl Format for OpenAi {
    fn path(&self) -> &'static str {
        "/chat/completions"
    }
    fn headers(&self) -> HeaderMap {
        HeaderMap::new()
    }
    fn key(&self, key: &str) -> (HeaderName, String) {
        (http::header::AUTHORIZATION, format!("Bearer {key}"))
    }
    fn body(&self, ask: &Ask<'_>) -> Value {
        let mut body = write::body(ask);
        let limit = match self.quirks.max_tokens.load(Ordering::Relaxed) {
            true => "max_tokens",
            false => "max_completion_tokens",
        };
        body.insert(limit.into(), ask.max_output.into());
        if !self.quirks.no_options.load(Ordering::Relaxed) {
            body.insert("stream_options".into(), json!({ "include_usage": true }));
        }
        body.into()
    }
    /// There is nothing to ask.
    fn counting(&self, _ask: &Ask<'_>) -> Option<(&'static str, Value)> {
        None
    }
    fn counts(&self) -> bool {
        false
    }
    fn reader(&self) -> Box<dyn Reader> {
        Box::new(read::Reading::default())
    }
    /// Once each: a server that refuses the other form too has said what it wants to say.
    fn adapt(&self, said: &Said) -> bool {
        let message = said.message.to_lowercase();
        let unknown = [
            "unsupported",
            "not support",
            "unknown",
            "unrecognized",
            "unexpected",
            "not permitted",
            "extra",
            "invalid field",
        ];
        if !unknown.iter().any(|word| message.contains(word)) && said.code != "unsupported_parameter" {
            return false;
        }
        let quirks = [("max_completion_tokens", &self.quirks.max_tokens), ("stream_options", &self.quirks.no_options)];
        quirks.iter().any(|(word, known)| message.contains(word) && !known.swap(true, Ordering::Relaxed))
    }

    fn reply(&self, ask: &Ask<'_>, mut heard: Heard) -> Reply {
        let mut message = match heard.content.pop() {
            Some(Value::Object(message)) => message,
            _ => Map::new(),
        };
        let mut calls: Vec<Value> = match message.remove("tool_calls") {
            Some(Value::Array(calls)) => calls,
            _ => Vec::new(),
        };
        match heard.stop.as_str() {
            "refusal" => calls.clear(),
            // Of the last one nobody knows whether it was whole.
            "max_tokens" => drop(calls.pop()),
            // Some servers end a call with `stop`.
            _ if !calls.is_empty() => "tool_use".clone_into(&mut heard.stop),
            _ => {}
        }
        let turn = ask.request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        settle_ids(calls.iter_mut().filter_map(id_of), turn);
        let mut text = message.get("content").map(words).unwrap_or_default();
        if text.is_empty() {
            text = message.get("refusal").map(words).unwrap_or_default();
        }
        let own = calls.iter().map(|call| ToolCall {
            id: call["id"].as_str().unwrap_or_default().to_owned(),
            name: tools::own_name(ask.request.tools, call["function"]["name"].as_str().unwrap_or_default()),
            input: arguments(call["function"]["arguments"].as_str().unwrap_or_default()),
        });
        let own: Vec<ToolCall> = own.collect();
        let by = heard.model.clone().unwrap_or_else(|| ask.model.to_owned());
        Reply {
            blocks: keep(message, &calls).map(|message| kept(FORMAT, &by, message)),
            text,
            calls: own,
            stop: heard.stop,
            usage: heard.usage,
            answered_by: heard.model.filter(|model| !answers_for(model, ask.model)),
        }
    }
}

/// Whether a server that names `model` answered what was asked: many put a path before it, or a
/// date with dashes behind it.
fn answers_for(model: &str, asked: &str) -> bool {
    let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let (model, asked) = (short(model), short(asked));
    let dated = model.strip_prefix(&asked).is_some_and(|rest| {
        rest.len() > 1 && rest.starts_with('-') && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-')
    });
    dated || same(&model, &asked)
}

/// A text, or the texts of parts.
fn words(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn id_of(call: &mut Value) -> Option<&mut String> {
    match call.as_object_mut()?.entry("id").or_insert_with(|| json!("")) {
        Value::String(id) => Some(id),
        _ => None,
    }
}

/// What must come back with the calls: signatures on them, and the thinking before them. After
/// an answer without calls nothing of that is wanted any more.
fn keep(message: Map<String, Value>, calls: &[Value]) -> Option<Value> {
    if calls.is_empty() {
        return None;
    }
    let known = |call: &Value| {
        let outer = call
            .as_object()
            .is_some_and(|c| c.keys().all(|k| ["id", "type", "function", "index"].contains(&k.as_str())));
        let inner =
            call["function"].as_object().is_some_and(|f| f.keys().all(|k| ["name", "arguments"].contains(&k.as_str())));
        outer && inner
    };
    let thought = message.iter().any(|(key, value)| !UNDERSTOOD.contains(&key.as_str()) && !is_empty(value));
    if !thought && calls.iter().all(known) {
        return None;
    }
    let mut out: Map<String, Value> = message
        .into_iter()
        .filter(|(key, value)| key == "content" || (!UNDERSTOOD.contains(&key.as_str()) && !is_empty(value)))
        .collect();
    out.insert("role".into(), json!("assistant"));
    out.insert("tool_calls".into(), calls.to_vec().into());
    Some(out.into())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
