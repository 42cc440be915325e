//! `stop_agent`: ends a descendant and all it started.

use super::{Asked, At, Flow, HostError, ToolCall, text};
use crate::run::RunId;
use serde_json::{Value, json};

pub(super) fn spec() -> (&'static str, Value, Value) {
    let properties = json!({ "run": { "type": "string", "description": "Its id, as list_agents gives it." } });
    ("Ends a subagent and everything it started.", properties, json!(["run"]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    let run = match text(&call.input, "run").and_then(|id| at.descendant(&RunId::known(id))) {
        Ok(run) => run,
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    if run.seen().await.0.is_end() {
        let state = run.seen().await.0.as_str();
        let text = json!({ "run": run.id.as_str(), "status": state }).to_string();
        return at.at_once(call, asked, rule, Ok(text)).await;
    }
    // The answer is written when it has ended: a crash in between stops it again.
    if at.unless_cancelled(at.stop(&run)).await.is_none() {
        return Ok(Flow::Done);
    }
    let state = run.seen().await.0.as_str();
    let text = json!({ "run": run.id.as_str(), "status": state }).to_string();
    at.at_once(call, asked, rule, Ok(text)).await
}
