//! A call of a skill that takes long, as a task of MCP (the extension `io.modelcontextprotocol/tasks`).
//!
//! ```text
//!   tools/call ─▶ carried ─┬─ settled in time ─▶ its result
//!                          └─ longer, and named ─▶ handed over: resultType "task"
//!   tasks/get ────▶ whose? ─▶ GetTask ─▶ working · input_required · completed · cancelled
//!   tasks/update ─▶ whose? ─▶ the question's first answer ─▶ SendMessage to the task
//!   tasks/cancel ─▶ whose? ─▶ CancelTask
//! ```
//!
//! The task is the peer's, and nothing follows it here: how it stands is asked when somebody wants to
//! know. What is kept is whose it is, so it outlives the connection it was called on, and a restart.

use super::mine::new_id;
use super::passage::{How, Passage, within};
use super::shelf::When;
use super::tale::{State, Tale};
use super::wire::{Saying, Wire};
use super::{Asked, Paused, Peer, Request, can_ask, told};
use crate::mcp::{McpError, RpcError, TASKS, meta};
use crate::store::{PeerTask, clock};
use policies::json::{Json, Object, digest};
use std::time::Duration;

/// A call that takes longer becomes a task.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often a client should ask, milliseconds.
const POLL: u64 = 1_000;

/// Whether whoever calls follows tasks.
pub(super) fn wanted(params: &Object) -> bool {
    let capabilities = params.get("_meta").and_then(|own| own.get(meta::CLIENT_CAPABILITIES));
    capabilities.and_then(|can| can.get("extensions")).is_some_and(|extensions| extensions.get(TASKS).is_some())
}

/// A call that was handed over.
pub(super) fn created(tale: &Tale) -> Json {
    let now = clock();
    let mut task = stands("working", now, None);
    task.set("resultType", "task");
    // When it was created is known to nobody else.
    task.set("taskId", format!("{now}.{}", tale.task.as_deref().unwrap_or_default()));
    task.into()
}

fn stands(status: &str, created: u64, tale: Option<&Tale>) -> Object {
    let mut task = Object::new();
    task.set("status", status);
    task.set("createdAt", time(created));
    let changed = tale.and_then(|tale| tale.status.get("timestamp")).and_then(Json::as_str);
    let changed = changed.and_then(|at| at.parse::<jiff::Timestamp>().ok());
    task.set("lastUpdatedAt", changed.map_or_else(|| time(created), |at| at.to_string()));
    task.set("ttlMs", Json::Null);
    task.set("pollIntervalMs", POLL);
    task
}

fn time(at: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at).unwrap_or(0));
    at.map(|at| at.to_string()).unwrap_or_default()
}

fn unknown() -> McpError {
    McpError::Rpc(RpcError::new(-32602, "Unknown task"))
}

/// A question by what it says and when: asked again, it is another.
fn question(tale: &Tale) -> String {
    format!("q-{}", &digest(&tale.status.to_canonical())[..32])
}

impl Peer {
    /// Answers a question about a task that was handed over.
    ///
    /// # Errors
    /// See [`McpError`]; the same for one of somebody else and one that never was.
    pub(super) async fn task(&self, method: &str, params: &Object) -> Result<Json, McpError> {
        let given = params.get("taskId").and_then(Json::as_str).unwrap_or_default();
        let (created, task) = given.split_once('.').ok_or_else(unknown)?;
        let created = created.parse().map_err(|_| unknown())?;
        let row = self.mine.task(task).await?.ok_or_else(unknown)?;
        let (wire, _) = self.reached(When::Due).await?;
        match method {
            "tasks/get" => self.stands((created, task), &row, &wire, can_ask(params)).await,
            "tasks/update" => {
                self.update(task, &row, wire, params).await?;
                Ok(Object::new().into())
            }
            _ => {
                // One that has ended is as cancelled as it can be.
                self.mine.answers(task, None).await?;
                super::cancel(&wire, task).await;
                Ok(Object::new().into())
            }
        }
    }

    async fn looked_at(&self, task: &str, wire: &Wire) -> Result<Tale, McpError> {
        let answer = within(wire.patience(), "GetTask", wire.get(task, Some(0))).await?;
        let mut tale = Tale { task: Some(task.to_owned()), ..Tale::default() };
        tale.take(answer)?;
        Ok(tale)
    }

    /// How it stands, as a `DetailedTask`.
    async fn stands(
        &self,
        (created, task): (u64, &str),
        row: &PeerTask,
        wire: &Wire,
        can_ask: bool,
    ) -> Result<Json, McpError> {
        let tale = self.looked_at(task, wire).await?;
        let paused = tale.state.is_paused();
        let name = question(&tale);
        // What was answered is not asked again, though the peer may still have to hear of it.
        let answered = paused && row.asked.is_none() && row.status.as_ref() == Some(&name);
        if !tale.is_settled() || answered {
            let mut out = stands("working", created, Some(&tale));
            let said = tale.said.as_ref().filter(|_| !answered).map(told::text).filter(|said| !said.is_empty());
            if let Some(said) = said {
                out.set("statusMessage", said);
            }
            return Ok(told_of(out, created, task));
        }
        let result = match paused && can_ask {
            true => {
                if row.asked.as_ref() != Some(&name)
                    && let Some(put) = self.mine.put(&row.skill, &tale, &name).await?
                {
                    self.look_after(wire.clone(), task, &put);
                }
                told::result(&tale, Some(&name), true)
            }
            false => self.answered(&row.skill, &tale, false).await?,
        };
        let asks = result.get("inputRequests").cloned();
        let status = match (&asks, tale.state) {
            (Some(_), _) => "input_required",
            (None, State::Canceled) => "cancelled",
            (None, _) => "completed",
        };
        let mut out = stands(status, created, Some(&tale));
        match asks {
            Some(asks) => out.set("inputRequests", asks),
            None if status == "completed" => out.set("result", result),
            None => {}
        }
        Ok(told_of(out, created, task))
    }

    /// What somebody says to the question of a task. What was answered is not answered again.
    async fn update(&self, task: &str, row: &PeerTask, wire: Wire, params: &Object) -> Result<(), McpError> {
        let invalid = |why: &str| McpError::Rpc(RpcError::new(-32602, format!("Invalid params: {why}")));
        let given = params.get("inputResponses").and_then(|responses| responses.get(told::QUESTION));
        let (Some(given), Some(name)) = (given, &row.asked) else { return Ok(()) };
        let paused = Paused { task: task.to_owned(), context: context(row), question: name.clone() };
        let request = match Request::answering(&row.skill, paused, given)? {
            Asked::Declined(task) => {
                self.mine.answers(&task, None).await?;
                super::cancel(&wire, &task).await;
                return Ok(());
            }
            Asked::Request(request) => request,
        };
        if request.text.trim().is_empty() {
            return Err(invalid("the answer says nothing"));
        }
        if !self.mine.answers(task, Some(name)).await? {
            return Ok(());
        }
        self.mine.was_answered(row, name).await?;
        let key = request.key.map_or_else(new_id, |key| self.mine.named(&key));
        let mut message = Object::new();
        message.set("messageId", key);
        message.set("role", "ROLE_USER");
        message.set("parts", vec![Json::object([("text", request.text.into())])]);
        message.set("taskId", task);
        if let Some(context) = &request.context {
            message.set("contextId", context.as_str());
        }
        message.set("metadata", Json::object([("skillId", row.skill.as_str().into())]));
        let (configuration, context) = (Object::new(), request.context);
        let saying = Saying { message, configuration, task: Some(task.to_owned()), context, gives: None };
        let patience = wire.patience();
        let said = within(patience, "SendMessage", Passage::say(wire, false, &saying, How::AtOnce)).await;
        if let Err(e) = said {
            if matches!(e, McpError::Unreachable(_) | McpError::Rpc(_)) {
                self.mine.unanswered(task, name).await;
            }
            return Err(e);
        }
        Ok(())
    }
}

/// Its conversation, where that was said.
fn context(row: &PeerTask) -> Option<String> {
    Some(row.context.clone()).filter(|context| !context.is_empty())
}

fn told_of(mut task: Object, created: u64, name: &str) -> Json {
    task.set("taskId", format!("{created}.{name}"));
    task.into()
}
