//! `read_result`: a long result, by range. Only what a run of this tree was given the handle of:
//! the store is everybody's.

use super::{Asked, At, Flow, HostError, ToolCall, text};
use serde_json::{Value, json};

/// Bytes of one answer.
pub(crate) const MOST: u64 = 32 << 10;

pub(super) fn spec() -> (&'static str, Value, Value) {
    let properties = json!({
        "blob": { "type": "string", "description": "The handle in the shortened result." },
        "offset": { "type": "integer", "minimum": 0, "description": "First byte; default 0." },
        "limit": { "type": "integer", "minimum": 1, "description": "Bytes, at most 32768." }
    });
    ("Reads a part of a result that was too long to show whole.", properties, json!(["blob"]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    let number = |key: &str, absent: u64| match call.input.get(key) {
        None | Some(Value::Null) => Ok(absent),
        Some(value) => value.as_u64().ok_or_else(|| format!("{key} is not a count")),
    };
    let read = || -> Result<_, String> {
        Ok((text(&call.input, "blob")?, number("offset", 0)?, number("limit", MOST)?.clamp(1, MOST)))
    };
    let (blob, offset, limit) = match read() {
        Ok(read) => read,
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    let read = match at.was_given(blob).await {
        true => at.blob(blob, offset, limit).await?,
        false => None,
    };
    let result = match read {
        None => Err(format!("there is no result {blob}; copy the handle as it was shown")),
        Some((bytes, all)) => {
            let end = offset.saturating_add(bytes.len() as u64);
            Ok(format!("[bytes {offset} to {end} of {all}]\n{}", String::from_utf8_lossy(&bytes)))
        }
    };
    at.at_once(call, asked, rule, result).await
}
