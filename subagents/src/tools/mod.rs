//! The runtime's own tools: one file each, and one table of them. They need no allow; `deny` and
//! `ask` of the policy apply to each by its name.
//!
//! | tool | who sees it | |
//! |---|---|---|
//! | `Agent`, alias `Task` | who may start somebody and is not too deep | starts a child |
//! | `send_message` · `stop_agent` · `list_agents` | who may start somebody | for the run's own descendants |
//! | `ask_user` | all, where a person can be asked | a question; the run waits |
//! | `emit_artifact` · `read_result` | all | makes a file of a text; reads a long result by range |
//! | `reject_task` · `reply_message` | a root run that began with a client's message (A2A) | says how it ends |

pub mod agent;
mod ask_user;
mod conclude;
mod emit_artifact;
mod list_agents;
mod read_result;
pub mod sanitize;
mod send_message;
mod stop_agent;

pub(crate) use ask_user::fits;
pub(crate) use read_result::MOST as PART;
pub(crate) use send_message::may_go_on;

use crate::event::{Event, Outcome, ToolCall, WaitingFor};
use crate::host::inside::{At, Flow, Standing, Word, word};
use crate::host::{Approvals, HostError};
use crate::ports::{Decision, Deed, DeedKind, ToolSpec};
use crate::turn::Asked;
use policies::json::{Json, digest};
use policies::permit::{Denial, Rule, Verdict};
use policies::tools::Mode;
use serde_json::{Value, json};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Agent,
    SendMessage,
    StopAgent,
    ListAgents,
    AskUser,
    EmitArtifact,
    ReadResult,
    RejectTask,
    ReplyMessage,
}

impl Tool {
    const ALL: [Tool; 9] = [
        Tool::Agent,
        Tool::SendMessage,
        Tool::StopAgent,
        Tool::ListAgents,
        Tool::AskUser,
        Tool::EmitArtifact,
        Tool::ReadResult,
        Tool::RejectTask,
        Tool::ReplyMessage,
    ];
    /// Its names: denied under one it is denied under all.
    fn names(self) -> &'static [&'static str] {
        match self {
            Tool::Agent => &[agent::NAME, agent::ALIAS],
            Tool::SendMessage => &["send_message"],
            Tool::StopAgent => &["stop_agent"],
            Tool::ListAgents => &["list_agents"],
            Tool::AskUser => &["ask_user"],
            Tool::EmitArtifact => &["emit_artifact"],
            Tool::ReadResult => &["read_result"],
            Tool::RejectTask => &["reject_task"],
            Tool::ReplyMessage => &["reply_message"],
        }
    }
    fn spec(self, standing: &Standing) -> ToolSpec {
        let (description, properties, required) = match self {
            Tool::Agent => return agent::spec(&standing.may_start()),
            Tool::SendMessage => send_message::spec(),
            Tool::StopAgent => stop_agent::spec(),
            Tool::ListAgents => list_agents::spec(),
            Tool::AskUser => ask_user::spec(),
            Tool::EmitArtifact => emit_artifact::spec(),
            Tool::ReadResult => read_result::spec(),
            Tool::RejectTask => conclude::reject_spec(),
            Tool::ReplyMessage => conclude::reply_spec(),
        };
        ToolSpec {
            name: self.names()[0].to_owned(),
            description: description.to_owned(),
            input_schema: json!({
                "type": "object", "properties": properties, "required": required, "additionalProperties": false
            }),
        }
    }
    /// Whether a run has it at all, whatever the rules say.
    fn is_for(self, at: &At, standing: &Standing) -> bool {
        match self {
            Tool::Agent | Tool::SendMessage | Tool::StopAgent | Tool::ListAgents => !standing.may_start().is_empty(),
            Tool::AskUser => *at.approvals() == Approvals::Park,
            Tool::EmitArtifact | Tool::ReadResult => true,
            Tool::RejectTask | Tool::ReplyMessage => at.run.parent.is_none() && at.tree.inbound,
        }
    }
}

/// The tool of that name.
pub(crate) fn find(name: &str) -> Option<Tool> {
    Tool::ALL.into_iter().find(|tool| tool.names().contains(&name))
}

/// Those a run's model is shown.
pub(crate) fn shown(at: &At, standing: &Standing) -> Vec<ToolSpec> {
    let grant = standing.caller.authority.grant();
    let denied = |tool: &Tool| tool.names().iter().any(|name| grant.tools.runtime_mode(name) == Mode::Deny);
    let deep = at.run.depth() >= grant.spawn.max_depth;
    let tools = Tool::ALL.into_iter().filter(|tool| tool.is_for(at, standing) && !denied(tool));
    tools.filter(|tool| *tool != Tool::Agent || !deep).map(|tool| tool.spec(standing)).collect()
}

/// Judges a call of one and performs it.
pub(crate) async fn perform(at: &At, tool: Tool, call: &ToolCall, asked: Option<&Asked>) -> Result<Flow, HostError> {
    let standing = match at.standing() {
        Ok(standing) => standing,
        Err(denial) => return at.denied(call, asked, denial).await,
    };
    // Who may not start anybody is told so by the spawn itself.
    if tool != Tool::Agent && !tool.is_for(at, &standing) {
        return at.unknown_tool(call, asked).await;
    }
    // The strictest word about any of its names decides, and a person is asked once.
    let mut rule = String::new();
    let mut ask = None;
    for name in tool.names() {
        match at.gate().authorize_runtime(&standing.caller, name) {
            Verdict::Allow(permit, by) => {
                permit.redeem();
                if rule.is_empty() {
                    rule = by.to_string();
                }
            }
            Verdict::Deny(denial) => {
                // It is not done either way.
                let _ = at.on_record(&standing, name, Decision::Deny(&denial)).await;
                return at.denied(call, asked, denial).await;
            }
            Verdict::Ask(question) => ask = ask.or(Some(question)),
        }
    }
    if let Some(question) = ask {
        let digest = digest(&format!("{} {}", tool.names()[0], Json::from(&call.input).to_canonical()));
        let was_put = asked.is_some_and(|a| a.question.kind == WaitingFor::Question);
        match word(asked, &digest) {
            Word::Yes(by) | Word::Given(by) => {
                if let Err(denial) = at.spent(&standing.caller, call, asked, &question.rule).await {
                    return at.denied(call, asked, denial).await;
                }
                rule = format!("{}; {by}", question.rule);
            }
            // It was allowed before it was put to anybody.
            _ if was_put => rule = question.rule.to_string(),
            Word::No(denial) => return at.denied_on_record(call, asked, denial).await,
            Word::Unasked => {
                let _ = at.on_record(&standing, tool.names()[0], Decision::Ask(&question.rule)).await;
                let rule = question.rule.to_string();
                let detail = json!({ "tool": call.name, "arguments": call.input, "rule": rule });
                return at.ask_approval(call, asked, rule, (digest, detail)).await;
            }
        }
    }
    if let Err(short) = at.count_call() {
        let denial = Denial::plain(short.to_string(), "answer with what you have");
        return at.denied(call, asked, denial).await;
    }
    // A spawn has a record of its own, which says more.
    if tool != Tool::Agent {
        let ruled = Rule { text: rule.clone(), place: None };
        if let Err(denial) = at.on_record(&standing, tool.names()[0], Decision::Allow(&ruled)).await {
            return at.denied(call, asked, denial).await;
        }
    }
    match tool {
        Tool::Agent => at.spawn(call, asked, rule).await,
        Tool::SendMessage => send_message::call(at, call, asked, rule).await,
        Tool::StopAgent => stop_agent::call(at, call, asked, rule).await,
        Tool::ListAgents => list_agents::call(at, call, asked, rule).await,
        Tool::AskUser => ask_user::call(at, call, asked, rule).await,
        Tool::EmitArtifact => emit_artifact::call(at, call, asked, rule).await,
        Tool::ReadResult => read_result::call(at, call, asked, rule).await,
        Tool::RejectTask | Tool::ReplyMessage => conclude::call(at, tool, call, asked, rule).await,
    }
}

/// Reads a text argument.
fn text<'a>(input: &'a Value, key: &str) -> Result<&'a str, String> {
    match input.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        Some(Value::String(_)) | None | Some(Value::Null) => Err(format!("{key} is missing")),
        Some(_) => Err(format!("{key} is not a string")),
    }
}

impl At {
    /// Puts a call of one of these on record.
    async fn on_record(&self, standing: &Standing, tool: &str, decision: Decision<'_>) -> Result<(), Denial> {
        let deed = Deed { kind: DeedKind::Own, subject: tool, decision, more: &[] };
        self.gate().record(&standing.caller, deed).await
    }
    /// The whole of a call that was done at once: asked for, allowed, done.
    fn whole(
        &self,
        call: &ToolCall,
        asked: Option<&Asked>,
        rule: String,
        outcome: Outcome,
        text: String,
    ) -> Vec<Event> {
        let mut events = self.opening(call, asked);
        events.push(self.decided(call, "allow", rule, None));
        events.push(Event::ToolFinished { id: call.id.clone(), outcome, text });
        events
    }
    /// Writes the whole of a call.
    async fn at_once(
        &self,
        call: &ToolCall,
        asked: Option<&Asked>,
        rule: String,
        result: Result<String, String>,
    ) -> Result<Flow, HostError> {
        let (outcome, text) = match result {
            Ok(text) => (Outcome::Ok, text),
            Err(why) => (Outcome::Error, format!("{}: {why}", call.name)),
        };
        let (text, kept) = self.bounded(Some(&call.id), text).await?;
        let mut events = self.whole(call, asked, rule, outcome, text);
        events.splice(events.len() - 1..events.len() - 1, kept);
        self.append(events).await
    }
}
