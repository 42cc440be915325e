//! The model of the client a tree works for: asked by `sampling/createMessage`, through whichever
//! door that client came by. Who pays is the client; what was used it does not say, so that is
//! estimated, and said to be.
//!
//! A client whose model takes no tools gets words only: its model is told so, and the calls and
//! results of before stand in the conversation as text.

use super::{estimate, tools};
use policies::resolve::{BY_CLIENT, ModelSpec};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use subagents::event::{ToolCall, Usage};
use subagents::ports::{Delta, ModelError, ModelFacts, ModelFailure, Reply, Request, Sampler};
use subagents::turn::{Message, ToolResult};

/// What a model without tools is told.
const NO_TOOLS: &str =
    "No tools can be called in this conversation. Answer with what you have, and say what is missing.";

/// Whoever started the run answers.
pub(super) struct Sampling {
    name: String,
    hint: Option<String>,
    facts: ModelFacts,
    sampler: Arc<dyn Sampler>,
}

impl Sampling {
    pub(super) fn new(spec: &ModelSpec, hint: Option<&str>, sampler: Arc<dyn Sampler>) -> Self {
        let price = spec.price.as_ref().map(|p| p.price);
        let facts = ModelFacts { context: spec.context, max_output: spec.max_output, price };
        Self { name: spec.name.to_string(), hint: hint.map(str::to_owned), facts, sampler }
    }
    pub(super) fn facts(&self) -> ModelFacts {
        self.facts.clone()
    }
    pub(super) fn model(&self) -> &str {
        &self.name
    }

    pub(super) async fn answer(&self, request: &Request<'_>, delta: Delta<'_>) -> Result<Reply, ModelError> {
        let failed = |kind, why: String| ModelError::new(kind, format!("model {} (sampling): {why}", self.name));
        let client = self.sampler.client(request.root).await.map_err(|why| failed(ModelFailure::Gone, why))?;
        let with_tools = client.takes_tools() && !request.tools.is_empty();
        if !client.takes_tools() && !request.tools.is_empty() {
            let run = request.run.as_str();
            tracing::debug!(run, agent = request.agent, "the client's model takes no tools; it is asked without");
        }
        let said = client.create_message(self.params(request, with_tools)).await;
        let said = said.map_err(|why| failed(ModelFailure::Gone, why))?;
        let turn = request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        let mut reply = read(&said, request, turn).map_err(|why| failed(ModelFailure::Refused, why))?;
        reply.usage = used(request, &reply);
        delta(&reply.text);
        Ok(reply)
    }

    fn params(&self, request: &Request<'_>, with_tools: bool) -> Value {
        let mut params = Map::new();
        params.insert("messages".into(), messages(request.messages, with_tools).into());
        let system = system(request, with_tools);
        if !system.is_empty() {
            params.insert("systemPrompt".into(), system.into());
        }
        params.insert("maxTokens".into(), request.max_output.min(self.facts.max_output).max(1).into());
        if let Some(hint) = &self.hint {
            params.insert("modelPreferences".into(), json!({ "hints": [{ "name": hint }] }));
        }
        if with_tools {
            let tools = request.tools.iter().map(|tool| {
                let schema = tools::schema(&tool.input_schema);
                json!({ "name": tools::wire_name(&tool.name), "description": tool.description, "inputSchema": schema })
            });
            params.insert("tools".into(), tools.collect());
        }
        params.insert("_meta".into(), json!({ "pleach/run": request.run.as_str() }));
        params.into()
    }
}

/// The system prompt, with what this protocol has no other words for.
fn system(request: &Request<'_>, with_tools: bool) -> String {
    let mut parts = vec![request.system.to_owned()];
    if !request.tools.is_empty() && !with_tools {
        parts.push(NO_TOOLS.to_owned());
    }
    if let Some(schema) = request.schema {
        parts.push(format!("The last answer is JSON that fits this JSON Schema, and nothing else: {schema}"));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn messages(messages: &[Message], with_tools: bool) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let mut say = |role: &str, content: Value| out.push(json!({ "role": role, "content": content }));
    for message in messages {
        match message {
            Message::User(words) => say("user", text(words)),
            Message::Assistant { text: words, calls, .. } if calls.is_empty() || !with_tools => {
                let calls = calls.iter().map(|call| format!("[calls {} {}]", call.name, call.input));
                let all: Vec<String> = Some(words.clone()).filter(|w| !w.is_empty()).into_iter().chain(calls).collect();
                // A turn without a word is none.
                if !all.is_empty() {
                    say("assistant", text(&all.join("\n")));
                }
            }
            Message::Assistant { text: words, calls, .. } => {
                let words = Some(text(words)).filter(|_| !words.is_empty());
                let calls = calls.iter().map(|call| {
                    let (id, name) = (tools::wire_id(&call.id), tools::wire_name(&call.name));
                    json!({ "type": "tool_use", "id": id, "name": name, "input": call.input })
                });
                say("assistant", words.into_iter().chain(calls).collect());
            }
            // Nothing else may stand in the message of results.
            Message::Results(results) if with_tools => say("user", results.iter().map(result).collect()),
            Message::Results(results) => {
                let lines: Vec<String> = results.iter().map(|r| format!("[{} gave]\n{}", r.name, r.text)).collect();
                say("user", text(&lines.join("\n")));
            }
        }
    }
    out
}

fn result(result: &ToolResult) -> Value {
    let id = tools::wire_id(&result.id);
    json!({ "type": "tool_result", "toolUseId": id, "content": [text(&result.text)], "isError": result.error })
}

/// A `CreateMessageResult`.
fn read(said: &Value, request: &Request<'_>, turn: usize) -> Result<Reply, String> {
    let word = |key: &str| said.get(key).and_then(Value::as_str);
    let blocks = match said.get("content") {
        Some(Value::Array(blocks)) => blocks.as_slice(),
        Some(block @ Value::Object(_)) => std::slice::from_ref(block),
        _ => return Err("the client's answer holds no content".into()),
    };
    let (mut words, mut calls) = (Vec::new(), Vec::new());
    for block in blocks {
        let of = |key: &str| block.get(key).and_then(Value::as_str);
        match of("type") {
            Some("text") => words.push(of("text").unwrap_or_default().to_owned()),
            Some("tool_use") => {
                let name = of("name").ok_or("the client's model calls a tool without a name")?;
                let taken = |id: &str| calls.iter().any(|c: &ToolCall| c.id == id);
                let id = tools::settle_id(of("id").unwrap_or_default(), calls.len(), turn, &taken);
                let input = block.get("input").cloned().unwrap_or_else(|| json!({}));
                calls.push(ToolCall { id, name: tools::own_name(request.tools, name), input });
            }
            other => words.push(format!("[the model answered with {}, which is not kept]", other.unwrap_or("nothing"))),
        }
    }
    let stop = match word("stopReason") {
        Some("endTurn") => "end_turn",
        Some("toolUse") => "tool_use",
        Some("maxTokens") => "max_tokens",
        Some("stopSequence") => "stop_sequence",
        Some(other) => other,
        None if calls.is_empty() => "end_turn",
        None => "tool_use",
    };
    let model = word("model").filter(|m| !m.is_empty()).unwrap_or("unnamed");
    Ok(Reply {
        text: words.join("\n"),
        calls,
        stop: stop.to_owned(),
        usage: Usage::default(),
        blocks: None,
        answered_by: Some(format!("{BY_CLIENT}{model}")),
    })
}

fn used(request: &Request<'_>, reply: &Reply) -> Usage {
    let calls = reply.calls.iter().map(|c| c.name.len() + c.input.to_string().len()).sum::<usize>();
    let output = estimate::of_bytes(reply.text.len() + calls);
    Usage { input: estimate::of(request), output, estimated: true, ..Usage::default() }
}
