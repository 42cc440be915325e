//! A request. Tools, then the system prompt, then the conversation: each is a prefix of the same
//! in the next request, byte for byte, so that the cache holds.

use super::super::format::{Ask, keep_of};
use super::super::tools;
use super::FORMAT;
use policies::price::table::same;
use serde_json::{Map, Value, json};
use subagents::turn::Message;

/// Models that think in the old way, or not at all, and refuse the word `adaptive`.
const OLD: [&str; 5] = ["claude-haiku-4", "claude-sonnet-4", "claude-opus-4", "claude-3", "claude-2"];

/// The body of a request for an answer.
pub(super) fn body(ask: &Ask<'_>) -> Value {
    let mut body = counted(ask);
    body.insert("max_tokens".into(), ask.max_output.into());
    body.insert("stream".into(), true.into());
    body.insert("metadata".into(), json!({ "user_id": ask.request.run.as_str() }));
    let mut output = Map::new();
    if let Some(effort) = ask.effort {
        output.insert("effort".into(), effort.into());
    }
    if let Some(schema) = ask.request.schema {
        output.insert("format".into(), json!({ "type": "json_schema", "schema": schema }));
    }
    if !output.is_empty() {
        body.insert("output_config".into(), output.into());
    }
    body.into()
}

/// The body of a request that only counts.
pub(super) fn counting(ask: &Ask<'_>) -> Value {
    counted(ask).into()
}

/// What the model reads.
fn counted(ask: &Ask<'_>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), ask.model.into());
    let mut tools: Vec<Value> = ask.request.tools.iter().map(tool).collect();
    if let Some(last) = tools.last_mut() {
        mark(last);
        body.insert("tools".into(), tools.into());
    }
    if !ask.request.system.is_empty() {
        let mut system = json!({ "type": "text", "text": ask.request.system });
        mark(&mut system);
        body.insert("system".into(), json!([system]));
    }
    if thinks(ask) {
        body.insert("thinking".into(), json!({ "type": "adaptive" }));
    }
    body.insert("messages".into(), messages(ask).into());
    body
}

/// A server of another maker behind this API is not told what only these models know.
fn thinks(ask: &Ask<'_>) -> bool {
    let own = ask.model.starts_with("claude-") && !OLD.iter().any(|old| ask.model.starts_with(old));
    own || (ask.effort.is_some() && !ask.model.starts_with("claude-"))
}

fn tool(tool: &subagents::ports::ToolSpec) -> Value {
    json!({
        "name": tools::wire_name(&tool.name),
        "description": tool.description,
        "input_schema": tools::schema(&tool.input_schema),
    })
}

/// Marks the end of a prefix worth keeping.
fn mark(block: &mut Value) {
    if let Value::Object(block) = block {
        block.insert("cache_control".into(), json!({ "type": "ephemeral" }));
    }
}

/// The conversation; turns of the same side that follow each other become one.
fn messages(ask: &Ask<'_>) -> Vec<Value> {
    let mut out: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in ask.request.messages {
        let (role, content) = match message {
            Message::User(text) => ("user", vec![words(text)]),
            Message::Assistant { .. } => ("assistant", assistant(message, ask.model)),
            Message::Results(results) => ("user", results.iter().map(result).collect()),
        };
        match out.last_mut() {
            _ if content.is_empty() => {}
            Some((last, so_far)) if *last == role => so_far.extend(content),
            _ => out.push((role, content)),
        }
    }
    // The end, and where the request before this one ended: its cache is found there however
    // many blocks came since.
    for (_, content) in out.iter_mut().rev().filter(|(role, _)| *role == "user").take(2) {
        if let Some(last) = content.last_mut() {
            mark(last);
        }
    }
    if !ask.paused.is_empty() {
        out.push(("assistant", ask.paused.to_vec()));
    }
    out.into_iter().map(|(role, content)| json!({ "role": role, "content": content })).collect()
}

/// Empty texts are refused there.
fn words(text: &str) -> Value {
    json!({ "type": "text", "text": if text.trim().is_empty() { "(no text)" } else { text } })
}

fn result(result: &subagents::turn::ToolResult) -> Value {
    let mut block = json!({ "type": "tool_result", "tool_use_id": tools::wire_id(&result.id), "content": result.text });
    if let Value::Object(block) = &mut block
        && result.error
    {
        block.insert("is_error".into(), true.into());
    }
    block
}

/// What the model said: as it wrote it, else as it was understood. Another model's thinking is
/// left out, since its signature is of no use here.
pub(super) fn assistant(message: &Message, model: &str) -> Vec<Value> {
    let Message::Assistant { text, calls, blocks } = message else { return Vec::new() };
    if let Some((by, Value::Array(content))) = blocks.as_ref().and_then(|kept| keep_of(FORMAT, kept)) {
        let own = same(by, model);
        let thought = |block: &Value| matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking"));
        let content: Vec<Value> = content.iter().filter(|b| own || !thought(b)).cloned().collect();
        if !content.is_empty() {
            return content;
        }
    }
    let mut content = Vec::new();
    if !text.trim().is_empty() {
        content.push(json!({ "type": "text", "text": text }));
    }
    content.extend(calls.iter().map(|call| {
        let input = match &call.input {
            Value::Object(input) => Value::Object(input.clone()),
            other => json!({ "value": other }),
        };
        json!({ "type": "tool_use", "id": tools::wire_id(&call.id), "name": tools::wire_name(&call.name), "input": input })
    }));
    content
}
