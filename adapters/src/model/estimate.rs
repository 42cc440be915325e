//! How many tokens a text is, when nobody who knows can be asked: rather too many than too few.

use subagents::ports::Request;
use subagents::turn::Message;

/// Bytes of a token. English has about four, code and other scripts about three.
const BYTES: usize = 3;
/// What a message, a tool or a call is besides its words.
const FRAME: usize = 12;

/// Tokens of so many bytes.
pub(super) fn of_bytes(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(BYTES)).unwrap_or(u64::MAX)
}

/// Tokens of a request.
pub(super) fn of(request: &Request<'_>) -> u64 {
    let tools = request.tools.iter().map(|t| t.name.len() + t.description.len() + json(&t.input_schema));
    let messages = request.messages.iter().map(|message| match message {
        Message::User(text) => text.len(),
        Message::Assistant { text, calls, blocks } => match blocks {
            Some(blocks) => json(blocks),
            None => text.len() + calls.iter().map(|c| c.name.len() + json(&c.input) + BYTES * FRAME).sum::<usize>(),
        },
        Message::Results(results) => results.iter().map(|r| r.text.len() + BYTES * FRAME).sum(),
    });
    let framed = |bytes: usize| bytes + BYTES * FRAME;
    let schema = request.schema.map_or(0, json);
    of_bytes(request.system.len() + schema + tools.map(framed).sum::<usize>() + messages.map(framed).sum::<usize>())
}

fn json(value: &serde_json::Value) -> usize {
    value.to_string().len()
}
