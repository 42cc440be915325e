//! A request.

use super::super::format::{Ask, keep_of};
use super::super::tools;
use super::FORMAT;
use super::answers_for;
use serde_json::{Map, Value, json};
use subagents::event::ToolCall;
use subagents::turn::Message;

/// The body of a request, but for what servers disagree on.
pub(super) fn body(ask: &Ask<'_>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), ask.model.into());
    body.insert("stream".into(), true.into());
    body.insert("messages".into(), messages(ask).into());
    if !ask.request.tools.is_empty() {
        let tools = ask.request.tools.iter().map(|tool| {
            json!({ "type": "function", "function": {
                "name": tools::wire_name(&tool.name),
                "description": tool.description,
                "parameters": tools::schema(&tool.input_schema),
            }})
        });
        body.insert("tools".into(), tools.collect());
    }
    if let Some(effort) = ask.effort {
        // `max` is a word of one provider only; the next below it is known by all that know any.
        body.insert("reasoning_effort".into(), if effort == "max" { "xhigh" } else { effort }.into());
    }
    if let Some(schema) = ask.request.schema {
        let form = json!({ "name": "answer", "schema": schema, "strict": is_strict(schema) });
        body.insert("response_format".into(), json!({ "type": "json_schema", "json_schema": form }));
    }
    body
}

/// Whether a schema can be held to strictly: each object has all its properties and no other.
fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => {
            let closed = match object.get("properties").and_then(Value::as_object) {
                None => object.get("type").is_none_or(|t| t != "object"),
                Some(properties) => {
                    let required: Vec<&str> = object
                        .get("required")
                        .and_then(Value::as_array)
                        .map(|r| r.iter().filter_map(Value::as_str).collect())
                        .unwrap_or_default();
                    object.get("additionalProperties") == Some(&Value::Bool(false))
                        && properties.keys().all(|key| required.contains(&key.as_str()))
                }
            };
            closed && object.values().all(is_strict)
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

fn messages(ask: &Ask<'_>) -> Vec<Value> {
    let mut out = Vec::new();
    if !ask.request.system.is_empty() {
        out.push(json!({ "role": "system", "content": ask.request.system }));
    }
    for message in ask.request.messages {
        match message {
            Message::User(text) => out.push(json!({ "role": "user", "content": text })),
            Message::Assistant { text, calls, blocks } => {
                let kept = blocks.as_ref().and_then(|kept| keep_of(FORMAT, kept));
                match kept.filter(|(by, _)| answers_for(by, ask.model)) {
                    Some((_, message)) => out.push(message.clone()),
                    None if text.is_empty() && calls.is_empty() => {}
                    None => out.push(assistant(text, calls)),
                }
            }
            Message::Results(results) => out.extend(
                results
                    .iter()
                    .map(|r| json!({ "role": "tool", "tool_call_id": tools::wire_id(&r.id), "content": r.text })),
            ),
        }
    }
    out
}

fn assistant(text: &str, calls: &[ToolCall]) -> Value {
    let content = if text.is_empty() { Value::Null } else { text.into() };
    let mut message = Map::from_iter([("role".to_owned(), json!("assistant")), ("content".to_owned(), content)]);
    if !calls.is_empty() {
        let calls = calls.iter().map(|call| {
            let arguments = match &call.input {
                Value::String(raw) => raw.clone(),
                input => input.to_string(),
            };
            let function = json!({ "name": tools::wire_name(&call.name), "arguments": arguments });
            json!({ "id": tools::wire_id(&call.id), "type": "function", "function": function })
        });
        message.insert("tool_calls".into(), calls.collect());
    }
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closed_schemas_are_strict() {
        let closed = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"], "additionalProperties": false });
        assert!(is_strict(&closed));
        assert!(is_strict(&json!({ "type": "array", "items": closed })));
        assert!(!is_strict(&json!({ "type": "object" })));
        assert!(!is_strict(
            &json!({ "type": "object", "properties": { "a": closed, "b": {} }, "required": ["a"], "additionalProperties": false })
        ));
    }
}
