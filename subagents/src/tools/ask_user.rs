//! `ask_user`: a question to a person. The run waits as a row until it is answered.

use super::{Asked, At, Event, Flow, HostError, ToolCall, WaitingFor, text};
use crate::event::Waiting;
use crate::host::inside::{now, question_id};
use crate::ports::Answer;
use policies::json::Json;
use serde_json::{Value, json};

pub(super) fn spec() -> (&'static str, Value, Value) {
    let properties = json!({
        "question": { "type": "string" },
        "options": { "type": "array", "items": { "type": "string" }, "description": "What can be answered." },
        "schema": { "type": "object", "description": "A JSON Schema the answer must fit." },
        "timeout": { "type": "string", "description": "How long to wait, such as 30m; default: for ever." },
        "default": { "description": "What counts as the answer when nobody gives one in time." }
    });
    ("Asks a person, and waits for the answer.", properties, json!(["question"]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    if let Some(said) = asked.filter(|a| a.question.kind == WaitingFor::Question) {
        return at.at_once(call, asked, rule, heard(said)).await;
    }
    let waiting = match read(at, call) {
        Ok(waiting) => waiting,
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    let mut events = at.opening(call, asked);
    events.push(at.decided(call, "allow", rule, None));
    events.push(Event::Waiting(Box::new(waiting)));
    at.append(events).await
}

fn read(at: &At, call: &ToolCall) -> Result<Waiting, String> {
    let given = |key: &str| call.input.get(key).filter(|v| !v.is_null()).cloned();
    let detail = json!({ "options": given("options"), "schema": given("schema") });
    let default = given("default");
    if let Some(default) = &default {
        fits(&detail, default).map_err(|why| format!("default: {why}"))?;
    }
    let expires = match given("timeout") {
        None => None,
        Some(timeout) => {
            let timeout = timeout.as_str().ok_or("timeout is not a time, such as \"30m\"")?;
            let timeout = policies::budget::duration(timeout).map_err(|why| format!("timeout: {why}"))?;
            Some(now().saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)))
        }
    };
    Ok(Waiting {
        id: question_id()?,
        call: Some(call.id.clone()),
        kind: WaitingFor::Question,
        question: text(&call.input, "question")?.to_owned(),
        expires,
        chain: at.chain(),
        digest: None,
        detail,
        default,
    })
}

/// Whether an answer is among the options and fits the schema.
pub(crate) fn fits(detail: &Value, answer: &Value) -> Result<(), String> {
    if let Some(options) = detail.get("options").and_then(Value::as_array)
        && !options.contains(answer)
    {
        let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
        return Err(format!("the answer is one of: {}", options.join(", ")));
    }
    match detail.get("schema").filter(|s| !s.is_null()) {
        None => Ok(()),
        Some(schema) => policies::manifest::fits(&Json::from(schema), &Json::from(answer)),
    }
}

/// The answer as the model reads it.
fn heard(said: &Asked) -> Result<String, String> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let with = |note: &Option<String>| note.as_ref().map(|n| format!("\n[note: {n}]")).unwrap_or_default();
    match (&said.answer, &said.question.default) {
        (Some(Answer::Input { value, note }), _) => Ok(format!("{}{}", shown(value), with(note))),
        (Some(Answer::Allow { note, .. }), _) => Ok(format!("yes{}", with(note))),
        (Some(Answer::Deny { note }), _) => Err(format!("the person does not answer this{}", with(note))),
        (None, Some(default)) => Ok(format!("{}\n[nobody answered in time; this is the default]", shown(default))),
        (None, None) => Err("nobody answered in time".into()),
    }
}
