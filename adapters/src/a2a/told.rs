//! What became of a task, as the result of a tool.

use super::tale::{State, Tale};
use crate::mcp::{RpcError, meta};
use policies::json::{Json, Object};

/// The key of the one question.
pub(super) const QUESTION: &str = "question";

/// The result; a question first, where the caller can be asked.
pub(super) fn result(tale: &Tale, question: Option<&str>, can_ask: bool) -> Json {
    let mut result = outcome(tale, question, can_ask);
    if let (Some(used), Json::Object(result)) = (&tale.used, &mut result) {
        result.set("_meta", Json::object([(meta::USED, used.clone())]));
    }
    result
}

fn outcome(tale: &Tale, question: Option<&str>, can_ask: bool) -> Json {
    if let Some(message) = &tale.message {
        return content(tale, message.get("parts"), None, false);
    }
    let task = tale.task.as_deref().unwrap_or_default();
    if tale.state.is_paused() {
        if can_ask {
            return asked(tale, task, question.unwrap_or_default());
        }
        if is_hopeless(tale, can_ask) {
            let note = format!(
                "[task {task} asked for a permission, which a person gives and no agent; nobody could be asked, so it \
                 was cancelled]"
            );
            return content(tale, tale.said.as_ref().and_then(|said| said.get("parts")), Some(note), true);
        }
        let note = format!(
            "[task {task} is {}: it waits for an answer. Call this tool again with task = {task:?} and the answer as \
             message.]",
            tale.state.word()
        );
        return content(tale, tale.said.as_ref().and_then(|said| said.get("parts")), Some(note), false);
    }
    if tale.state == State::Completed {
        let said = tale.said.as_ref().and_then(|said| said.get("parts")).filter(|_| tale.artifacts.is_empty());
        return content(tale, said, None, false);
    }
    let why = tale.said.as_ref().map(text).filter(|why| !why.is_empty());
    let note = format!("[task {task} was {}{}]", tale.state.word(), why.map(|w| format!(": {w}")).unwrap_or_default());
    content(tale, None, Some(note), true)
}

/// Whether it waits for a permission that nobody here can give.
pub(super) fn is_hopeless(tale: &Tale, can_ask: bool) -> bool {
    tale.message.is_none() && tale.state == State::AuthRequired && !can_ask
}

/// A question as an answer (MCP 2026-07-28, multi round-trip requests).
fn asked(tale: &Tale, task: &str, named: &str) -> Json {
    let said = tale.said.as_ref().map(text).filter(|said| !said.is_empty());
    let said = said.unwrap_or_else(|| match tale.state {
        State::AuthRequired => "The agent needs a permission to go on.".to_owned(),
        _ => "The agent asks for more.".to_owned(),
    });
    let answer = Json::object([("type", "string".into()), ("title", "Answer".into())]);
    let schema = Json::object([
        ("type", "object".into()),
        ("properties", Json::object([("answer", answer)])),
        ("required", vec!["answer".into()].into()),
    ]);
    let params = Json::object([("mode", "form".into()), ("message", said.into()), ("requestedSchema", schema)]);
    let question = Json::object([("method", "elicitation/create".into()), ("params", params)]);
    let mut state = Object::new();
    state.set("task", task);
    if let Some(context) = &tale.context {
        state.set("context", context.as_str());
    }
    // The question itself: one answer to it is enough.
    state.set("question", named);
    Json::object([
        ("resultType", "input_required".into()),
        ("inputRequests", Json::object([(QUESTION, question)])),
        ("requestState", Json::Object(state).to_text().into()),
    ])
}

/// Whoever was asked did not answer.
pub(super) fn declined(task: &str) -> Json {
    failure(&format!("the agent's question was not answered, and its task {task} was cancelled"))
}

/// The peer said no.
pub(super) fn refused(error: &RpcError) -> Json {
    failure(&format!("the peer refuses: {error}"))
}

fn failure(why: &str) -> Json {
    Json::object([("content", vec![block(why)].into()), ("isError", true.into())])
}

fn block(text: &str) -> Json {
    Json::object([("type", "text".into()), ("text", text.into())])
}

fn content(tale: &Tale, said: Option<&Json>, note: Option<String>, error: bool) -> Json {
    let said = said.and_then(Json::as_array).unwrap_or_default();
    let made = tale.artifacts.iter().flat_map(|a| a.get("parts").and_then(Json::as_array).unwrap_or_default());
    let parts: Vec<&Json> = made.chain(said).collect();
    let mut blocks: Vec<Json> = parts.iter().map(|part| shown(part)).collect();
    blocks.extend(note.as_deref().map(block));
    let mut structured = Object::new();
    structured.set("state", if tale.message.is_some() { "message" } else { tale.state.word() });
    for (key, id) in [("task", &tale.task), ("context", &tale.context)] {
        if let Some(id) = id {
            structured.set(key, id.as_str());
        }
    }
    // Said to a model only: people do not go on with contexts.
    if let Some(context) = tale.context.as_ref().filter(|_| !error && !tale.state.is_paused()) {
        let mut hint = Object::new();
        hint.set("type", "text");
        hint.set("text", format!("[context {context:?} goes on with this conversation]"));
        hint.set("annotations", Json::object([("audience", vec!["assistant".into()].into())]));
        blocks.push(hint.into());
    }
    let data: Vec<Json> = parts.iter().filter_map(|part| part.get("data").cloned()).collect();
    if !data.is_empty() {
        structured.set("data", data);
    }
    let mut result = Object::new();
    result.set("content", blocks);
    result.set("structuredContent", structured);
    if error {
        result.set("isError", true);
    }
    result.into()
}

/// A part as a block of content.
fn shown(part: &Json) -> Json {
    let text = |key: &str| part.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    if let Some(text) = part.get("text").and_then(Json::as_str) {
        return block(text);
    }
    if let Some(data) = part.get("data") {
        return block(&data.to_text());
    }
    let kind = text("mediaType");
    let mut out = Object::new();
    if let Some(url) = text("url") {
        out.set("type", "resource_link");
        out.set("uri", url);
        out.set("name", text("filename").unwrap_or(url));
        if let Some(kind) = kind {
            out.set("mimeType", kind);
        }
        return out.into();
    }
    let Some(raw) = text("raw") else { return block("[a part of a kind that is not known here]") };
    let picture = |of: &str| kind.is_some_and(|kind| kind.starts_with(of));
    if picture("image/") || picture("audio/") {
        out.set("type", if picture("image/") { "image" } else { "audio" });
        out.set("data", raw);
        out.set("mimeType", kind.unwrap_or_default());
        return out.into();
    }
    let mut resource = Object::new();
    resource
        .set("uri", format!("artifact:///{}", text("filename").unwrap_or("file").replace(['/', '?', '#', ' '], "-")));
    if let Some(kind) = kind {
        resource.set("mimeType", kind);
    }
    resource.set("blob", raw);
    out.set("type", "resource");
    out.set("resource", resource);
    out.into()
}

/// The words of a message.
pub(super) fn text(message: &Json) -> String {
    let parts = message.get("parts").and_then(Json::as_array).unwrap_or_default();
    let said = parts.iter().filter_map(|part| match (part.get("text"), part.get("data")) {
        (Some(Json::String(text)), _) => Some(text.clone()),
        (_, Some(data)) => Some(data.to_text()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("\n")
}
