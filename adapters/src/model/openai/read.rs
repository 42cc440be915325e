//! An answer, chunk by chunk: one message that grows.

use super::super::estimate;
use super::super::format::{Heard, Reader, merge};
use super::super::retry::Said;
use super::words;
use serde_json::{Map, Value, json};
use subagents::event::Usage;
use subagents::ports::Delta;

/// A message may want so many calls.
const MAX_CALLS: usize = 1_000;

/// What came so far.
#[derive(Default)]
pub(super) struct Reading {
    message: Map<String, Value>,
    /// Calls, each with the number its server gave it.
    calls: Vec<(Option<u64>, Map<String, Value>)>,
    stop: Option<String>,
    model: Option<String>,
    usage: Option<Usage>,
    /// Bytes the model wrote, where nobody counts tokens.
    written: usize,
}

impl Reader for Reading {
    fn event(&mut self, event: &Value, delta: Delta<'_>) -> Result<bool, Said> {
        if event.get("error").is_some_and(|e| !e.is_null()) {
            return Err(Said::of(200, event));
        }
        self.outside(event);
        // One answer is asked for; of several, the first is it.
        let first = |c: &&Value| c.get("index").and_then(Value::as_u64).unwrap_or_default() == 0;
        let choices = event.get("choices").and_then(Value::as_array);
        for choice in choices.into_iter().flatten().filter(first) {
            self.piece(choice.get("delta").or_else(|| choice.get("message")).unwrap_or(&Value::Null), delta)?;
            if let Some(stop) = choice.get("finish_reason").and_then(Value::as_str) {
                self.stop = Some(stop.to_owned());
            }
        }
        // Not the end: what was used comes after the last piece.
        Ok(false)
    }

    fn whole(&mut self, answer: &Value, delta: Delta<'_>) -> Result<(), Said> {
        let found = answer.get("choices").and_then(Value::as_array).is_some_and(|c| !c.is_empty());
        if !found && answer.get("error").is_none_or(Value::is_null) {
            return Err(Said::nonsense("its answer holds no choices"));
        }
        self.event(answer, delta)?;
        self.stop.get_or_insert_with(|| "stop".into());
        Ok(())
    }

    fn usage(&self) -> Usage {
        let estimated = || Usage { output: estimate::of_bytes(self.written), estimated: true, ..Usage::default() };
        self.usage.unwrap_or_else(estimated)
    }

    fn finish(mut self: Box<Self>) -> Option<Heard> {
        let usage = self.usage();
        let refused = self.message.get("refusal").is_some_and(|r| !words(r).is_empty());
        let stop = match self.stop.take()?.as_str() {
            _ if refused => "refusal",
            "stop" | "eos" => "end_turn",
            "tool_calls" | "function_call" => "tool_use",
            "length" => "max_tokens",
            "content_filter" => "refusal",
            other => other,
        }
        .to_owned();
        if !self.calls.is_empty() {
            let calls = self.calls.into_iter().map(|(_, call)| Value::Object(call));
            self.message.insert("tool_calls".into(), calls.collect());
        }
        Some(Heard { content: vec![self.message.into()], stop, usage, model: self.model, notice: None })
    }
}

impl Reading {
    /// What a chunk says besides its choices.
    fn outside(&mut self, event: &Value) {
        if let Some(model) = event.get("model").and_then(Value::as_str).filter(|m| !m.is_empty()) {
            self.model = Some(model.to_owned());
        }
        let Some(usage) = event.get("usage").filter(|u| u.is_object()) else { return };
        let n = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let cached = n("/prompt_tokens_details/cached_tokens").max(n("/prompt_cache_hit_tokens"));
        let written = n("/prompt_tokens_details/cache_write_tokens");
        let input = n("/prompt_tokens").saturating_sub(cached).saturating_sub(written);
        // Thinking is part of what was written, here as there.
        let output = n("/completion_tokens").max(n("/completion_tokens_details/reasoning_tokens"));
        self.usage = Some(Usage { input, output, cache_read: cached, cache_write: written, ..Usage::default() });
    }

    fn piece(&mut self, piece: &Value, delta: Delta<'_>) -> Result<(), Said> {
        for (key, value) in piece.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("tool_calls", Value::Array(calls)) => {
                    for call in calls.iter().filter_map(Value::as_object) {
                        self.call(call)?;
                    }
                }
                ("role", _) => {}
                _ => {
                    if key == "content" || key == "refusal" {
                        let text = words(value);
                        self.written += text.len();
                        if !text.is_empty() {
                            delta(&text);
                        }
                    } else if let Value::String(text) = value {
                        self.written += text.len();
                    }
                    merge(&mut self.message, key, value);
                }
            }
        }
        Ok(())
    }

    /// A piece of a call. Some servers number all calls 0, or none at all; a new id is a new call.
    fn call(&mut self, piece: &Map<String, Value>) -> Result<(), Said> {
        let index = piece.get("index").and_then(Value::as_u64);
        let id = piece.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let found = match index {
            Some(index) => self.calls.iter().rposition(|(i, _)| *i == Some(index)),
            None => self.calls.len().checked_sub(1),
        };
        let of =
            |at: usize| self.calls.get(at).and_then(|(_, c)| c.get("id")).and_then(Value::as_str).unwrap_or_default();
        let same = found.filter(|at| id.is_none_or(|id| of(*at) == id || of(*at).is_empty()));
        // A whole call without an id or a number is one of its own.
        let named =
            piece.get("function").and_then(|f| f.get("name")).and_then(Value::as_str).is_some_and(|n| !n.is_empty());
        let same = same.filter(|_| !(named && id.is_none() && index.is_none()));
        let at = match same {
            Some(at) => at,
            None if self.calls.len() >= MAX_CALLS => return Err(Said::nonsense("its answer wants too many calls")),
            None => {
                self.calls.push((index, Map::from_iter([("type".to_owned(), json!("function"))])));
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at].1;
        for (key, value) in piece {
            match key.as_str() {
                "index" | "type" => {}
                // Said again with every piece by some; not continued by any.
                "id" => {
                    if let Some(id) = id {
                        call.insert("id".into(), id.into());
                    }
                }
                "function" => {
                    let function = call.entry("function").or_insert_with(|| json!({}));
                    if let (Value::Object(function), Value::Object(piece)) = (function, value) {
                        self.written += grow(function, piece);
                    }
                }
                _ => merge(call, key, value),
            }
        }
        Ok(())
    }
}

/// The arguments are continued, the name is said once; arguments that are no text are whole.
fn grow(function: &mut Map<String, Value>, piece: &Map<String, Value>) -> usize {
    let mut written = 0;
    for (key, value) in piece {
        match (key.as_str(), value) {
            ("arguments", Value::Object(_)) => {
                let text = value.to_string();
                written += text.len();
                function.insert("arguments".into(), text.into());
            }
            // Some say it again with every piece as nothing.
            ("name", Value::String(name)) if !name.is_empty() => {
                function.insert("name".into(), value.clone());
            }
            ("name", _) => {}
            (_, value) => {
                written += value.as_str().map_or(0, str::len);
                merge(function, key, value);
            }
        }
    }
    written
}
