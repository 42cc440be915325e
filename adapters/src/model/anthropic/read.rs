//! An answer, event by event. Events and pieces of kinds unknown here are passed over or kept,
//! never stumbled on.

use super::super::estimate;
use super::super::format::{Heard, Reader, arguments, merge};
use super::super::retry::Said;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use subagents::event::Usage;
use subagents::ports::Delta;

/// What came so far.
#[derive(Default)]
pub(super) struct Reading {
    blocks: BTreeMap<u64, Map<String, Value>>,
    /// The arguments of calls, as text.
    inputs: BTreeMap<u64, String>,
    usage: Map<String, Value>,
    stop: Option<String>,
    details: Option<Value>,
    model: Option<String>,
    /// Bytes the model wrote, for what is not counted because it broke off.
    written: usize,
}

impl Reader for Reading {
    fn event(&mut self, event: &Value, delta: Delta<'_>) -> Result<bool, Said> {
        let index = event.get("index").and_then(Value::as_u64).unwrap_or_default();
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.message(&event["message"]),
            "content_block_start" => {
                let block = event["content_block"].as_object().cloned().unwrap_or_default();
                if let Some(text) = text_of(&block) {
                    delta(text);
                }
                self.blocks.insert(index, block);
            }
            "content_block_delta" => self.delta(index, &event["delta"], delta),
            "content_block_stop" => self.close(index),
            "message_delta" => {
                self.message(&event["delta"]);
                self.used(&event["usage"]);
            }
            "message_stop" => return Ok(self.stop.is_some()),
            "error" => return Err(Said::of(200, event)),
            // A provider's own error without the event's form.
            "" if event.get("error").is_some() => return Err(Said::of(200, event)),
            _ => {}
        }
        Ok(false)
    }

    fn whole(&mut self, answer: &Value, delta: Delta<'_>) -> Result<(), Said> {
        if answer.get("error").is_some_and(|e| !e.is_null()) {
            return Err(Said::of(200, answer));
        }
        let Some(content) = answer.get("content").and_then(Value::as_array) else {
            return Err(Said::nonsense("its answer holds no content"));
        };
        self.message(answer);
        for (index, block) in (0u64..).zip(content.iter().filter_map(Value::as_object)) {
            if let Some(text) = text_of(block) {
                delta(text);
            }
            self.blocks.insert(index, block.clone());
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        let n = |at: &Map<String, Value>, key: &str| at.get(key).and_then(Value::as_u64).unwrap_or_default();
        let written = n(&self.usage, "cache_creation_input_tokens");
        let long = self.usage.get("cache_creation").and_then(Value::as_object);
        let long = long.map_or(0, |parts| n(parts, "ephemeral_1h_input_tokens"));
        let output = n(&self.usage, "output_tokens");
        Usage {
            input: n(&self.usage, "input_tokens"),
            // Counted at the end only: what broke off before is billed all the same.
            output: if self.stop.is_some() { output } else { output.max(estimate::of_bytes(self.written)) },
            cache_read: n(&self.usage, "cache_read_input_tokens"),
            cache_write: written.saturating_sub(long),
            cache_write_long: long,
            estimated: false,
        }
    }

    fn finish(mut self: Box<Self>) -> Option<Heard> {
        let usage = self.usage();
        let stop = match self.stop.take()?.as_str() {
            "model_context_window_exceeded" => "context".to_owned(),
            other => other.to_owned(),
        };
        let open: Vec<u64> = self.inputs.keys().copied().collect();
        open.into_iter().for_each(|index| self.close(index));
        let notice = self.details.as_ref().and_then(|d| {
            let words = ["explanation", "message", "category", "type"];
            words.iter().find_map(|key| d.get(key)?.as_str()).map(str::to_owned)
        });
        let content = self.blocks.into_values().filter(|block| !is_empty(block)).map(Value::Object).collect();
        Some(Heard { content, stop, usage, model: self.model, notice })
    }
}

impl Reading {
    /// What a message says besides its content.
    fn message(&mut self, message: &Value) {
        if let Some(model) = message.get("model").and_then(Value::as_str) {
            self.model = Some(model.to_owned());
        }
        if let Some(stop) = message.get("stop_reason").and_then(Value::as_str) {
            self.stop = Some(stop.to_owned());
        }
        if let Some(details) = message.get("stop_details").filter(|d| d.is_object()) {
            self.details = Some(details.clone());
        }
        self.used(message.get("usage").unwrap_or(&Value::Null));
    }
    /// The counts are of the whole message each time; what is not said again stays.
    fn used(&mut self, usage: &Value) {
        for (key, value) in usage.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()) {
            self.usage.insert(key.clone(), value.clone());
        }
    }
    fn delta(&mut self, index: u64, piece: &Value, delta: Delta<'_>) {
        let Some(piece) = piece.as_object() else { return };
        let kind = piece.get("type").and_then(Value::as_str).unwrap_or_default();
        let text = |key: &str| piece.get(key).and_then(Value::as_str).unwrap_or_default();
        self.written += piece.values().filter_map(Value::as_str).map(str::len).sum::<usize>() - kind.len();
        match kind {
            "input_json_delta" => self.inputs.entry(index).or_default().push_str(text("partial_json")),
            "citations_delta" => {
                let citation = piece.get("citation").cloned().unwrap_or_default();
                let block = self.blocks.entry(index).or_default();
                // It begins as null.
                if block.get("citations").is_none_or(|c| !c.is_array()) {
                    block.insert("citations".into(), json!([]));
                }
                merge(block, "citations", &json!([citation]));
            }
            // text, thinking, signature, and whatever else continues a field of its block.
            _ => {
                if kind == "text_delta" && !text("text").is_empty() {
                    delta(text("text"));
                }
                let block = self.blocks.entry(index).or_default();
                for (key, value) in piece.iter().filter(|(key, _)| *key != "type") {
                    merge(block, key, value);
                }
            }
        }
    }
    fn close(&mut self, index: u64) {
        if let (Some(input), Some(block)) = (self.inputs.remove(&index), self.blocks.get_mut(&index))
            && !input.is_empty()
        {
            block.insert("input".into(), arguments(&input));
        }
    }
}

fn text_of(block: &Map<String, Value>) -> Option<&str> {
    if block.get("type")? != "text" {
        return None;
    }
    block.get("text")?.as_str().filter(|t| !t.is_empty())
}

/// Empty texts are written at times, and refused when they come back.
fn is_empty(block: &Map<String, Value>) -> bool {
    let empty = |key: &str| block.get(key).and_then(Value::as_str).is_none_or(|t| t.trim().is_empty());
    !block.contains_key("type") || (block["type"] == "text" && empty("text"))
}
