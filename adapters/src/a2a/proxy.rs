//! A peer as itself: messages and tasks passed on as they are, for a door that speaks A2A. What may
//! be passed on a permit says; whose a task is, its owner has asked before.

use super::Peer;
use super::passage::{How, Passage, Until, within};
use super::shelf::When;
use super::wire::{Saying, Wire};
use crate::mcp::{Gives, McpError, RpcError};
use policies::json::{Json, Object, digest};
use policies::manifest::PASSED;
use std::sync::Arc;

/// What was asked of a task.
pub enum Passed {
    /// The task as it is.
    Task(Json),
    /// What becomes of it.
    Passage(Box<Passage>),
}

/// What a peer is known by where what it gave out is kept: its name for people, and its card's
/// address, so that another peer of the same name is another.
pub fn known_as(name: &str, card: &url::Url) -> String {
    format!("{name} {}", &digest(card.as_str())[..16])
}

impl Peer {
    /// The card as the peer wrote it.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(crate) async fn card(&self) -> Result<Arc<Json>, McpError> {
        let fresh = self.shelf.fresh(When::Due).await;
        match (self.shelf.written(), fresh) {
            (Some(written), _) => Ok(written),
            (None, Err(e)) => Err(e),
            (None, Ok(_)) => Err(McpError::Protocol("it has no card".into())),
        }
    }

    pub(super) async fn reached(&self, when: When) -> Result<(Wire, bool), McpError> {
        let fresh = self.shelf.fresh(when).await;
        let card = match (fresh, self.shelf.known()) {
            (Ok((card, _)), _) | (Err(_), Some(card)) => card,
            (Err(e), None) => return Err(e),
        };
        Ok((Wire::new(self.target.clone(), &card), card.streaming))
    }

    /// Passes a message on.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(crate) async fn say(&self, arguments: &Json, how: How, gives: Option<Arc<Gives>>) -> Result<Passage, McpError> {
        let saying = Saying { gives, ..saying(arguments)? };
        let (wire, streams) = self.reached(When::Due).await?;
        let said = Passage::say(wire.clone(), streams, &saying, how).await;
        if said.is_err() && wire.found_nobody() {
            // Nobody was there, so nothing was done: it may have moved.
            let (other, streams) = self.reached(When::Now).await?;
            if !other.is_where(&wire) {
                return Passage::say(other, streams, &saying, how).await;
            }
        }
        said
    }

    /// Asks about a task.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(crate) async fn pass(&self, method: &str, params: &Object) -> Result<Passed, McpError> {
        let task = params.get("taskId").and_then(Json::as_str);
        let task = task.ok_or_else(|| McpError::Rpc(RpcError::new(-32602, "a task without a name")))?;
        let (wire, streams) = self.reached(When::Due).await?;
        Ok(match method {
            "GetTask" => {
                let history = params.get("historyLength").and_then(Json::as_u64);
                Passed::Task(about(task, wire.get(task, history).await?)?)
            }
            "CancelTask" => Passed::Task(about(task, wire.cancel(task).await?)?),
            "SubscribeToTask" => {
                let turn = params.get("until").and_then(Json::as_str) == Some("turn");
                let until = if turn { Until::Turn } else { Until::End };
                Passed::Passage(Box::new(Passage::take_up(wire, streams, task, until).await?))
            }
            other => return Err(McpError::Rpc(RpcError::new(-32601, format!("{other} is not passed on")))),
        })
    }
}

/// What is said of one task is believed of no other.
fn about(task: &str, answer: Json) -> Result<Json, McpError> {
    match answer.pointer("/task/id").and_then(Json::as_str) {
        Some(id) if id == task => Ok(answer),
        _ => Err(McpError::Protocol("it speaks of another task than it was asked about".into())),
    }
}

fn saying(arguments: &Json) -> Result<Saying, McpError> {
    let passed = arguments.get(PASSED);
    let object = |key: &str| passed.and_then(|passed| passed.get(key)).and_then(Json::as_object).cloned();
    let invalid = || McpError::Rpc(RpcError::new(-32602, "no message to be passed on"));
    let message = object("message").ok_or_else(invalid)?;
    let text = |key: &str| message.get(key).and_then(Json::as_str).map(str::to_owned);
    let (task, context) = (text("taskId"), text("contextId"));
    let configuration = object("configuration").unwrap_or_default();
    Ok(Saying { configuration, task, context, message, gives: None })
}

impl Passage {
    /// The task as it is over there now, with so much of its history; where it cannot be asked,
    /// as it was heard of. A reply that is no task is itself.
    pub async fn whole(self, history: Option<u64>) -> Json {
        let tale = self.tale();
        if let Some(message) = &tale.message {
            return Json::object([("message", message.clone())]);
        }
        let Some(task) = &tale.task else { return Json::Object(Object::new()) };
        let whole = within(self.wire().patience(), "GetTask", self.wire().get(task, history)).await;
        match whole.and_then(|whole| about(task, whole)) {
            Ok(whole) => whole,
            Err(e) => {
                tracing::debug!("task {task} at {}: {e}", self.wire().origin());
                let mut known = Object::new();
                known.set("id", task.as_str());
                if let Some(context) = &tale.context {
                    known.set("contextId", context.as_str());
                }
                known.set("status", tale.status.clone());
                known.set("artifacts", tale.artifacts.iter().cloned().map(Json::Object).collect::<Vec<_>>());
                Json::object([("task", known.into())])
            }
        }
    }
}
