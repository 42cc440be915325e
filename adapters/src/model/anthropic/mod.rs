//! The Messages API. What the model wrote goes back as it wrote it, and what does not change
//! stands first, with marks for the provider's cache.

mod read;
mod write;

use super::format::{Ask, Format, Heard, Reader, kept};
use super::remote::settle_ids;
use super::tools;
use http::{HeaderMap, HeaderName, HeaderValue};
use policies::price::table::same;
use serde_json::{Value, json};
use subagents::event::ToolCall;
use subagents::ports::Reply;
use subagents::turn::Message;

/// The name of this format on what is kept.
const FORMAT: &str = "anthropic";

/// The format, in a version.
pub(super) struct Anthropic {
    version: HeaderValue,
}

impl Anthropic {
    pub(super) fn new(version: &str) -> Self {
        Self { version: HeaderValue::from_str(version).unwrap_or(HeaderValue::from_static("2026-10-21")) }
    }
}

impl Format for Anthropic {
    fn path(&self) -> &'static str {
        "/v1/messages"
    }
    fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static("anthropic-version"), self.version.clone())])
    }
    fn key(&self, key: &str) -> (HeaderName, String) {
        (HeaderName::from_static("x-api-key"), key.to_owned())
    }
    fn body(&self, ask: &Ask<'_>) -> Value {
        write::body(ask)
    }
    fn counting(&self, ask: &Ask<'_>) -> Option<(&'static str, Value)> {
        Some(("/v1/messages/count_tokens", write::counting(ask)))
    }
    fn counts(&self) -> bool {
        true
    }
    fn reader(&self) -> Box<dyn Reader> {
        Box::new(read::Reading::default())
    }

    fn reply(&self, ask: &Ask<'_>, mut heard: Heard) -> Reply {
        settle_calls(&mut heard);
        let turn = ask.request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        settle_ids(heard.content.iter_mut().filter_map(id_of), turn);
        let texts = heard.content.iter().filter(|b| b["type"] == "text").filter_map(|b| b["text"].as_str());
        let mut text: String = texts.collect();
        let calls: Vec<ToolCall> = heard.content.iter().filter_map(|block| call(ask, block)).collect();
        let plain = Message::Assistant { text: text.clone(), calls: calls.clone(), blocks: None };
        let content = Value::Array(heard.content);
        let rebuilt = Value::Array(write::assistant(&plain, ask.model));
        if text.is_empty() && calls.is_empty() {
            text = heard.notice.unwrap_or_default();
        }
        Reply {
            text,
            calls,
            stop: heard.stop,
            usage: heard.usage,
            blocks: (content != rebuilt).then(|| kept(FORMAT, heard.model.as_deref().unwrap_or(ask.model), content)),
            answered_by: heard.model.filter(|model| !same(model, ask.model)),
        }
    }
}

/// A call that was cut off, or that the model was kept from, is not made, and what has no result
/// cannot stay in the conversation. Arguments that are none are shown to be none.
fn settle_calls(heard: &mut Heard) {
    let is_call = |block: &Value| block.get("type").is_some_and(|t| t == "tool_use");
    match heard.stop.as_str() {
        "refusal" => heard.content.retain(|block| !is_call(block)),
        // Of the last one nobody knows whether it was whole.
        "max_tokens" | "context" if heard.content.last().is_some_and(is_call) => {
            heard.content.pop();
        }
        _ => {}
    }
    for block in heard.content.iter_mut().filter(|b| is_call(b)).filter_map(Value::as_object_mut) {
        let input = block.entry("input").or_insert_with(|| json!({}));
        if !input.is_object() {
            *input = json!({ "value": input });
        }
    }
}

fn id_of(block: &mut Value) -> Option<&mut String> {
    if block.get("type")? != "tool_use" {
        return None;
    }
    let object = block.as_object_mut()?;
    match object.entry("id").or_insert_with(|| json!("")) {
        Value::String(id) => Some(id),
        _ => None,
    }
}

fn call(ask: &Ask<'_>, block: &Value) -> Option<ToolCall> {
    if block.get("type")? != "tool_use" {
        return None;
    }
    Some(ToolCall {
        id: block.get("id")?.as_str()?.to_owned(),
        name: tools::own_name(ask.request.tools, block.get("name")?.as_str()?),
        input: block.get("input").cloned().unwrap_or_else(|| json!({})),
    })
}
