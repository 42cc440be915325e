//! `send_message`: a word to a descendant. One that works hears it before its next request; one
//! that ended goes on in the background, under the policy as it is now, with its turns and tool
//! calls counted anew: what bounds it however often it is woken are the budgets of the tree.

use super::{Asked, At, Flow, HostError, Outcome, ToolCall, text};
use crate::run::{RunId, State};
use serde_json::{Value, json};

pub(super) fn spec() -> (&'static str, Value, Value) {
    let properties = json!({
        "to": { "type": "string", "description": "The run's id, as list_agents gives it." },
        "message": { "type": "string" }
    });
    let description = "Sends a message to a subagent of yours. A running one reads it before its next step; \
                       a finished one goes on in the background, and its answer comes later as a message.";
    (description, properties, json!(["to", "message"]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    let read = || -> Result<_, String> {
        let to = at.descendant(&RunId::known(text(&call.input, "to")?))?;
        Ok((to, text(&call.input, "message")?.to_owned()))
    };
    let (to, message) = match read() {
        Ok(read) => read,
        Err(why) => return at.at_once(call, asked, rule, Err(why)).await,
    };
    let (phase, ended_by) = to.end().await;
    if let Err(why) = may_go_on(phase, ended_by.as_deref()) {
        return at.at_once(call, asked, rule, Err(format!("{} {why}", to.id))).await;
    }
    let status = if phase.is_end() { "running" } else { "queued" };
    let answer = json!({ "run": to.id.as_str(), "status": status }).to_string();
    // Whoever wakes it waits for it, as for one it started in the background: the commit sees to it.
    let events = at.whole(call, asked, rule, Outcome::Ok, answer);
    let from = format!("{} (run {})", at.run.agent(), at.run.id);
    at.tell(&to, from, message, events).await
}

/// Whether a run in that state hears a message.
pub(crate) fn may_go_on(phase: State, ended_by: Option<&str>) -> Result<(), String> {
    match (phase, ended_by) {
        (State::Rejected, _) => Err("was refused before it began; start a new one".into()),
        (State::Cancelled, Some(by)) if !by.starts_with("run ") => {
            Err(format!("was cancelled by {by}, and stays so; start a new one"))
        }
        _ => Ok(()),
    }
}
