//! One conversation about one task: sent, and followed to where it stands still.
//!
//! ```text
//!            ┌─ streams ─▶ hear ──(silence)──▶ subscribe ──(refused, or silent too often)──┐
//!   message ─┤                                                                             ▼
//!            └─ else ────▶ send ────────────────────────────────────────────────────▶ poll ─▶ settled
//! ```

use super::Request;
use super::tale::Tale;
use super::wire::{Answer, Silence, UNSUPPORTED, Updates, Wire};
use crate::mcp::{McpError, Party, meta};
use policies::json::{Json, Object};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long between two looks at a task, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const MAX_LOOK: Duration = Duration::from_secs(2);
/// Streams in a row that tell nothing new, and looks in a row that find nobody.
const MAX_SILENT: u32 = 3;
const MAX_AWAY: u32 = 5;

pub(super) struct Talk {
    pub(super) wire: Wire,
    /// Whether the peer says that it streams.
    pub(super) streaming: bool,
    pub(super) party: Option<Arc<dyn Party>>,
    /// Progress is reported under it.
    pub(super) number: u64,
    /// The task, as soon as it has a name.
    pub(super) known: watch::Sender<Option<String>>,
}

/// Whether it says that there is no such task, or that we may not see it.
fn is_final(e: &McpError) -> bool {
    matches!(e, McpError::Unauthorized(_)) || matches!(e, McpError::Rpc(error) if error.code() != -32603)
}

impl Talk {
    /// Sends the message and follows its task.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn run(&self, request: &Request) -> Result<Tale, McpError> {
        let mut tale = Tale { task: request.task.clone(), context: request.context.clone(), ..Tale::default() };
        let message = message(request);
        let goes_on = request.task.is_some();
        let mut streams = self.streaming;
        if streams {
            match self.wire.stream(message.clone()).await {
                Ok(Answer::Whole(answer)) => tale.take(answer)?,
                Ok(Answer::Updates(updates)) => {
                    // What a task that goes on was before is no answer to what was just said.
                    match self.hear(updates, &mut tale, goes_on).await {
                        Ok(_) => {}
                        Err(McpError::Rpc(e)) if cannot_stream(e.code()) && !heard(&tale, request) => streams = false,
                        Err(e) => return Err(e),
                    }
                }
                Err(McpError::Rpc(e)) if cannot_stream(e.code()) => streams = false,
                Err(e) => return Err(e),
            }
        }
        if !streams {
            // A task whose name is not known could not be cancelled, so it is named first.
            tale.take(self.wire.send(message, !goes_on).await?)?;
        }
        self.tell(&tale, 1);
        if tale.task.is_none() && tale.message.is_none() {
            return Err(McpError::Gone("; it said of no task what became of it".into()));
        }
        self.follow(&mut tale, streams).await?;
        Ok(tale)
    }

    /// Follows a task until nothing more comes by itself.
    async fn follow(&self, tale: &mut Tale, mut streams: bool) -> Result<(), McpError> {
        let (mut wait, mut silent, mut away) = (FIRST_LOOK, 0, 0);
        while !tale.is_settled() {
            let Some(task) = tale.task.clone() else {
                return Err(McpError::Protocol("it named no task".into()));
            };
            tokio::time::sleep(wait).await;
            wait = MAX_LOOK.min(wait * 2);
            if streams {
                match self.wire.subscribe(&task).await {
                    Ok(Answer::Whole(answer)) => {
                        tale.take(answer)?;
                        streams = false;
                    }
                    Ok(Answer::Updates(updates)) => match self.hear(updates, tale, false).await {
                        Ok(more) => silent = if more { 0 } else { silent + 1 },
                        Err(McpError::Rpc(_)) => streams = false,
                        Err(e) => return Err(e),
                    },
                    // It may be over already, or have no such streams: a look tells.
                    Err(McpError::Rpc(_) | McpError::Protocol(_)) => streams = false,
                    Err(McpError::Unreachable(_) | McpError::Broken(_) | McpError::Gone(_)) => silent += 1,
                    Err(e) => return Err(e),
                }
                streams &= silent < MAX_SILENT;
                continue;
            }
            match self.wire.get(&task).await {
                Ok(update) => {
                    let before = (tale.state, tale.said.clone());
                    tale.take(update)?;
                    away = 0;
                    if (tale.state, &tale.said) != (before.0, &before.1) {
                        self.tell(tale, 1);
                    }
                }
                // What merely looks after a task says nothing of it when it fails.
                Err(e) if !matches!(&e, McpError::Cancelled) && !is_final(&e) => {
                    away += 1;
                    if away >= MAX_AWAY {
                        return Err(McpError::Gone(format!(" while task {task} was under way: {e}")));
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Hears a stream until the task stands still or the stream is silent; whether it told more
    /// than where the task stood to begin with.
    async fn hear(&self, mut updates: Updates, tale: &mut Tale, goes_on: bool) -> Result<bool, McpError> {
        let mut count: u64 = 0;
        loop {
            match updates.next().await {
                Ok(update) => {
                    let old = goes_on && count == 0 && update.get("task").is_some();
                    tale.take(update)?;
                    count += 1;
                    self.tell(tale, count);
                    if tale.is_settled() && !(old && tale.state.is_paused()) {
                        return Ok(true);
                    }
                }
                Err(Silence::Broke(why)) => {
                    tracing::debug!("{}: {why}", self.wire.origin());
                    return Ok(count > 1);
                }
                Err(Silence::Refused(e)) => return Err(e),
            }
        }
    }

    /// Tells whoever can hear it how it goes.
    fn tell(&self, tale: &Tale, count: u64) {
        self.known.send_if_modified(|known| {
            let new = *known != tale.task;
            if new {
                known.clone_from(&tale.task);
            }
            new
        });
        let Some(party) = self.party.as_ref().filter(|party| party.wants_progress()) else { return };
        let mut params = Object::new();
        params.set(meta::PROGRESS_TOKEN, self.number);
        params.set("progress", count);
        let said = tale.said.as_ref().map(super::told::text).filter(|said| !said.is_empty());
        params.set("message", said.unwrap_or_else(|| tale.state.word().to_owned()));
        party.notify("notifications/progress", params);
    }
}

/// Whether anything was said before the refusal.
fn heard(tale: &Tale, request: &Request) -> bool {
    tale.message.is_some() || tale.task != request.task
}

/// Codes of a peer that does not stream after all, and so did nothing.
fn cannot_stream(code: i64) -> bool {
    code == UNSUPPORTED || code == -32601
}

fn message(request: &Request) -> Object {
    let mut parts = vec![Json::object([("text", request.text.as_str().into())])];
    parts.extend(request.data.clone().map(|data| Json::object([("data", data)])));
    let mut message = Object::new();
    message.set("messageId", request.key.clone().unwrap_or_else(new_id));
    message.set("role", "ROLE_USER");
    message.set("parts", parts);
    if let Some(task) = &request.task {
        message.set("taskId", task.as_str());
    }
    if let Some(context) = &request.context {
        message.set("contextId", context.as_str());
    }
    // A card lists skills, and a message has no place for one.
    message.set("metadata", Json::object([("skillId", request.skill.as_str().into())]));
    message
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    // Without it two messages may look like one; then the peer answers the first again.
    if getrandom::fill(&mut bytes).is_err() {
        tracing::warn!("the system gives no random bytes");
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("pleach-{hex}")
}
