//! What a peer says of one task, update by update, whatever the stream does.
//!
//! ```text
//!             ┌─ streams ─▶ hear ──(silence)──▶ subscribe ──(refused, or silent too often)──┐
//!   message ──┤                                                                             ▼
//!             └─ else ────▶ send ────────────────────────────────────────────────────▶ poll ─▶ settled
//! ```
//!
//! A task that is told a second time is told by what differs: whoever listens hears each thing once,
//! and what was said while no stream stood is asked for before the end.

use super::tale::{State, Tale, joined};
use super::wire::{Answer, Saying, Silence, UNSUPPORTED, Updates, Wire};
use crate::mcp::McpError;
use policies::json::{Json, Object};
use std::collections::VecDeque;
use std::time::Duration;

/// How long between two looks at a task, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const MAX_LOOK: Duration = Duration::from_secs(2);
/// Streams in a row that tell nothing new, and looks in a row that find nobody.
const MAX_SILENT: u32 = 3;
const MAX_AWAY: u32 = 5;

/// What a message came to that was neither answered nor made a task.
pub(super) const NAMELESS: &str = "; it said of no task what became of it";

/// How a message is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With all that comes of it.
    Followed,
    /// With the task as it is at once.
    AtOnce,
}

/// When it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When somebody else has to do something: the task has ended, or asks.
    Turn,
    /// When the task has ended.
    End,
}

/// A task of a peer that is followed. Dropped, it is not followed any more; the task goes on.
pub struct Passage {
    wire: Wire,
    tale: Tale,
    /// What was heard and not told on yet.
    ready: VecDeque<Json>,
    hears: Option<Updates>,
    /// Whether the peer streams, as far as is known.
    streams: bool,
    until: Until,
    /// The stream the message itself opened stands.
    first: bool,
    /// Where a task stood before what was just said is no answer to that.
    old: bool,
    /// Something may have been said that no stream told.
    gap: bool,
    /// Updates of all streams, and of the one that stands.
    heard: u64,
    of_this: u64,
    wait: Duration,
    silent: u32,
    away: u32,
}

impl Passage {
    fn new(wire: Wire, streams: bool, until: Until) -> Self {
        Self {
            wire,
            tale: Tale::default(),
            ready: VecDeque::new(),
            hears: None,
            streams,
            until,
            first: false,
            old: false,
            gap: false,
            heard: 0,
            of_this: 0,
            wait: FIRST_LOOK,
            silent: 0,
            away: 0,
        }
    }

    /// Sends a message. When this returns, the peer has said what it makes of it.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn say(wire: Wire, streams: bool, saying: &Saying, how: How) -> Result<Self, McpError> {
        let mut this = Self::new(wire, streams, Until::Turn);
        this.tale.task.clone_from(&saying.task);
        this.tale.context.clone_from(&saying.context);
        let goes_on = saying.task.is_some();
        this.old = goes_on;
        if how == How::AtOnce {
            let answer = this.wire.send(saying, true).await?;
            this.answered(answer)?;
            return this.named();
        }
        if this.streams {
            match this.wire.stream(saying).await {
                Ok(Answer::Whole(answer)) => this.answered(answer)?,
                Ok(Answer::Updates(updates)) => {
                    (this.hears, this.first) = (Some(updates), true);
                    match this.hear().await {
                        Ok(()) => {}
                        // Nothing was heard before, so nothing was done.
                        Err(McpError::Rpc(e)) if cannot_stream(e.code()) && this.heard == 0 => this.streams = false,
                        Err(e) => return Err(e),
                    }
                }
                Err(McpError::Rpc(e)) if cannot_stream(e.code()) => this.streams = false,
                Err(e) => return Err(e),
            }
        }
        if !this.streams {
            // A task whose name is not known could not be cancelled, so it is named first.
            let answer = this.wire.send(saying, !goes_on).await?;
            this.answered(answer)?;
        }
        this.named()
    }

    /// Takes up a task; how it is now comes first.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn take_up(wire: Wire, streams: bool, task: &str, until: Until) -> Result<Self, McpError> {
        let mut this = Self::new(wire, streams, until);
        this.tale.task = Some(task.to_owned());
        let answer = this.wire.get(task, None).await.map_err(|e| this.under_way(e))?;
        this.take(answer)?;
        this.wait = Duration::ZERO;
        Ok(this)
    }

    /// What is known of it.
    pub(super) fn tale(&self) -> &Tale {
        &self.tale
    }
    pub(super) fn into_tale(self) -> Tale {
        self.tale
    }
    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }
    /// The peer's name of the task, where it is one.
    pub fn task(&self) -> Option<&str> {
        self.tale.task.as_deref()
    }
    /// The peer's name of the conversation.
    pub fn context(&self) -> Option<&str> {
        self.tale.context.as_deref()
    }
    /// What is told next, where it was heard already.
    pub fn first(&self) -> Option<&Json> {
        self.ready.front()
    }
    /// Whether the task had ended when it was heard of last.
    pub fn is_over(&self) -> bool {
        self.tale.is_over()
    }
    /// How much was heard.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    fn named(self) -> Result<Self, McpError> {
        if self.tale.task.is_none() && self.tale.message.is_none() {
            return Err(McpError::Gone(NAMELESS.into()));
        }
        Ok(self)
    }

    fn is_done(&self) -> bool {
        match self.until {
            Until::Turn => self.tale.is_settled() && !(self.old && self.tale.state.is_paused()),
            Until::End => self.tale.is_over(),
        }
    }

    /// The next update, in the words of 1.0 and the peer's names; `None` when nothing more comes
    /// by itself.
    ///
    /// # Errors
    /// See [`McpError`]; then it is over.
    pub async fn next(&mut self) -> Result<Option<Json>, McpError> {
        // What it did so far is not known by who it believes now.
        self.update().await.map_err(|e| self.under_way(e))
    }

    /// A refusal of who we are, of a task that is under way: it says nothing of what was done.
    fn under_way(&self, e: McpError) -> McpError {
        match (&self.tale.task, e) {
            (Some(task), McpError::Unauthorized(why)) => {
                McpError::Gone(format!(" while task {task} was under way: {why}"))
            }
            (_, e) => e,
        }
    }

    async fn update(&mut self) -> Result<Option<Json>, McpError> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if self.is_done() {
                self.hears = None;
                return Ok(None);
            }
            match (self.hears.is_some(), self.first) {
                (true, true) => self.hear().await?,
                (true, false) => match self.hear().await {
                    // It may be over already: a look tells.
                    Err(McpError::Rpc(_)) => (self.hears, self.streams) = (None, false),
                    other => other?,
                },
                (false, _) => self.look().await?,
            }
        }
    }

    /// Hears one update, or that there is none.
    async fn hear(&mut self) -> Result<(), McpError> {
        let Some(updates) = &mut self.hears else { return Ok(()) };
        match updates.next().await {
            Ok(update) => {
                let snapshot = update.get("task").is_some();
                if !self.first && self.of_this == 0 && !snapshot {
                    self.gap = true;
                }
                self.of_this += 1;
                let task = self.tale.task.clone().filter(|_| self.gap && settles(&update));
                if let Some(task) = task {
                    // What was made meanwhile comes before the end.
                    match within(self.wire.patience(), "GetTask", self.wire.get(&task, None)).await {
                        Ok(whole) => {
                            self.gap = false;
                            self.take(whole)?;
                        }
                        Err(e) => tracing::debug!("task {task} at {}: {e}", self.wire.origin()),
                    }
                }
                self.take(update)
            }
            Err(Silence::Broke(why)) => {
                tracing::debug!("{}: {why}", self.wire.origin());
                self.hears = None;
                if !std::mem::take(&mut self.first) {
                    self.silent = if self.of_this > 1 { 0 } else { self.silent + 1 };
                }
                if std::mem::take(&mut self.old) && self.tale.state.is_paused() {
                    // It heard what was said, and what it makes of that is not known.
                    self.tale.state = State::Working;
                }
                self.named_at_last()
            }
            Err(Silence::Refused(e)) => {
                self.hears = None;
                Err(e)
            }
        }
    }

    fn named_at_last(&self) -> Result<(), McpError> {
        match self.tale.task.is_none() && self.tale.message.is_none() {
            true => Err(McpError::Gone("; it said of no task what became of it".into())),
            false => Ok(()),
        }
    }

    /// Opens another stream, or asks how the task is.
    async fn look(&mut self) -> Result<(), McpError> {
        let Some(task) = self.tale.task.clone() else {
            return Err(McpError::Protocol("it named no task".into()));
        };
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).clamp(FIRST_LOOK, MAX_LOOK);
        self.streams &= self.silent < MAX_SILENT;
        if self.streams {
            match within(self.wire.patience(), "SubscribeToTask", self.wire.subscribe(&task)).await {
                Ok(Answer::Whole(answer)) => {
                    self.take(answer)?;
                    self.streams = false;
                }
                Ok(Answer::Updates(updates)) => (self.hears, self.of_this) = (Some(updates), 0),
                // It may be over already, or have no such streams: a look tells.
                Err(McpError::Rpc(_) | McpError::Protocol(_)) => self.streams = false,
                Err(McpError::Unreachable(_) | McpError::Broken(_) | McpError::Gone(_) | McpError::Timeout { .. }) => {
                    self.silent += 1
                }
                Err(e) => return Err(e),
            }
            return Ok(());
        }
        match within(self.wire.patience(), "GetTask", self.wire.get(&task, None)).await {
            Ok(update) => {
                self.away = 0;
                self.gap = false;
                self.take(update)
            }
            // What merely looks after a task says nothing of it when it fails.
            Err(e) if !matches!(&e, McpError::Cancelled) && !is_final(&e) => {
                self.away += 1;
                if self.away >= MAX_AWAY {
                    return Err(McpError::Gone(format!(" while task {task} was under way: {e}")));
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The answer to what was said: it is of after that.
    fn answered(&mut self, answer: Json) -> Result<(), McpError> {
        self.old = false;
        self.take(answer)
    }

    fn take(&mut self, update: Json) -> Result<(), McpError> {
        let snapshot = update.get("task").is_some();
        if !snapshot && update.get("artifactUpdate").is_none() || self.heard > 0 && snapshot {
            self.old = false;
        }
        self.heard += 1;
        if snapshot && self.heard > 1 {
            let before = (self.tale.status.clone(), self.tale.artifacts.clone());
            self.tale.take(update)?;
            self.differences(&before.0, &before.1);
            return Ok(());
        }
        self.tale.take(update.clone())?;
        self.ready.push_back(update);
        Ok(())
    }

    /// What a task that was told before is now: artifacts first, then where it stands.
    fn differences(&mut self, status: &Json, artifacts: &[Object]) {
        let of = |key: &str, value: Json| {
            let mut update = Object::new();
            for (name, id) in [("taskId", &self.tale.task), ("contextId", &self.tale.context)] {
                if let Some(id) = id {
                    update.set(name, id.as_str());
                }
            }
            update.set(key, value);
            update
        };
        for artifact in &self.tale.artifacts {
            let id = artifact.get("artifactId");
            let known = artifacts.iter().find(|known| known.get("artifactId") == id);
            if known.is_some_and(|known| joined(known) == joined(artifact)) {
                continue;
            }
            let mut update = of("artifact", artifact.clone().into());
            update.set("append", false);
            update.set("lastChunk", true);
            self.ready.push_back(Json::object([("artifactUpdate", update.into())]));
        }
        let stands = |status: &Json| (status.get("state").cloned(), status.get("message").cloned());
        if stands(status) != stands(&self.tale.status) {
            let update = of("status", self.tale.status.clone());
            self.ready.push_back(Json::object([("statusUpdate", update.into())]));
        }
    }
}

/// One question, for as long as an answer is waited for.
pub(super) async fn within<T>(
    patience: Duration,
    method: &str,
    asked: impl Future<Output = Result<T, McpError>>,
) -> Result<T, McpError> {
    let late = || McpError::Timeout { method: method.to_owned(), seconds: patience.as_secs() };
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(late()))
}

/// Whether it says that there is no such task, or that we may not see it.
fn is_final(e: &McpError) -> bool {
    matches!(e, McpError::Unauthorized(_)) || matches!(e, McpError::Rpc(error) if error.code() != -32603)
}

/// Codes of a peer that does not stream after all, and so did nothing.
fn cannot_stream(code: i64) -> bool {
    code == UNSUPPORTED || code == -32601
}

/// Whether a task stands still after it.
fn settles(update: &Json) -> bool {
    let state = update.pointer("/statusUpdate/status/state").and_then(Json::as_str);
    state.is_some_and(|state| State::of(state) != State::Working)
}
