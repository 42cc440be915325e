//! `reject_task` and `reply_message`: how a run ends that a client's message began, where its last
//! words alone would not say so (A2A: `TASK_STATE_REJECTED`, and a `Message` in the place of a task).

use super::{Asked, At, Event, Flow, HostError, Outcome, Tool, ToolCall, text};
use crate::run::State;
use serde_json::{Value, json};

pub(super) fn reject_spec() -> (&'static str, Value, Value) {
    let properties = json!({ "reason": { "type": "string", "description": "Why, for whoever asked." } });
    ("Declines the task: nothing of it is done. Ends your work on it.", properties, json!(["reason"]))
}

pub(super) fn reply_spec() -> (&'static str, Value, Value) {
    let properties = json!({ "text": { "type": "string" } });
    let what = "Answers in the conversation when there is no work to be done, such as a greeting. Ends your turn.";
    (what, properties, json!(["text"]))
}

pub(super) async fn call(
    at: &At,
    tool: Tool,
    call: &ToolCall,
    asked: Option<&Asked>,
    rule: String,
) -> Result<Flow, HostError> {
    let (key, state, reply) = match tool {
        Tool::RejectTask => ("reason", State::Rejected, false),
        _ => ("text", State::Completed, true),
    };
    let said = match text(&call.input, key) {
        Ok(said) => said.to_owned(),
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    let mut events = at.whole(call, asked, rule, Outcome::Ok, "done".into());
    events.push(Event::Concluded { state: state.as_str().to_owned(), text: said, reply });
    at.append(events).await
}
