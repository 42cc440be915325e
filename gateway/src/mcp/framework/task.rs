//! Runs started here, as long as they live in this process, and as MCP tasks (the extension
//! `io.modelcontextprotocol/tasks`). A task is a run: what became of it is in the journal, so it
//! can be asked for after a restart too.

use super::Framework;
use super::agent::answer;
use crate::mcp::View;
use adapters::mcp::RpcError;
use policies::json::{Json, Object};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subagents::event::{Event, Seen};
use subagents::host::{Ended, Host, Start};
use subagents::run::{RunId, State};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A run that takes longer becomes a task.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often a client should ask, milliseconds.
const POLL: u64 = 1_000;

/// How a run ended, or why it could not go on.
pub(super) type Done = Result<Ended, String>;

/// Runs of this process.
#[derive(Default)]
pub(super) struct Running(Mutex<HashMap<RunId, (Arc<str>, CancellationToken)>>);

/// Root runs of one client at a time.
const MAX_ROOTS: usize = 64;

/// Waits for a run.
pub(super) struct Waiting(watch::Receiver<Option<Done>>);

impl Waiting {
    pub(super) async fn wait(mut self) -> Done {
        let gone = || Err("pleach is ending".to_owned());
        match self.0.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }
}

impl Running {
    /// Starts a run that goes on whatever becomes of who started it.
    /// `None` when this client has too many.
    pub(super) fn begin(self: &Arc<Self>, host: &Arc<Host>, tasks: &TaskTracker, start: Start) -> Option<Waiting> {
        let (send, wait) = watch::channel(None);
        let (id, cancel) = (start.id.clone(), start.cancel.clone());
        {
            let mut all = lock(&self.0);
            if all.values().filter(|(who, _)| *who == start.principal).count() >= MAX_ROOTS {
                return None;
            }
            all.insert(id.clone(), (start.principal.clone(), cancel));
        }
        let (running, host) = (self.clone(), host.clone());
        tasks.spawn(async move {
            let ended = host.start(start).await.map_err(|e| e.to_string());
            lock(&running.0).remove(&id);
            send.send_replace(Some(ended));
        });
        Some(Waiting(wait))
    }
    fn lives_here(&self, id: &RunId) -> bool {
        lock(&self.0).contains_key(id)
    }
    /// Ends a run; `false` when it does not live here.
    pub(super) fn end(&self, id: &RunId) -> bool {
        let found = lock(&self.0).get(id).cloned();
        found.inspect(|(_, run)| run.cancel()).is_some()
    }
}

impl Framework {
    /// A run as `CreateTaskResult`.
    pub(super) async fn task_of(&self, view: &View, id: &RunId) -> Json {
        let mut task = self.state_of(id).await.unwrap_or_default();
        task.set("resultType", "task");
        task.remove("result");
        task.set("taskId", view.seal.seal("task", &view.place, &Json::object([("r", id.as_str().into())])));
        task.set("status", "working");
        task.into()
    }

    /// `tasks/get`, `tasks/update`, `tasks/cancel` of a run; the id was sealed for this client.
    ///
    /// # Errors
    /// -32602 when there is no such run any more.
    pub(in crate::mcp) async fn follow(&self, method: &str, run: &str, sealed: &str) -> Result<Json, RpcError> {
        let id = RunId::known(run);
        match method {
            "tasks/get" => {
                let state = self.state_of(&id).await;
                let mut task = state.ok_or_else(|| RpcError::new(-32602, "Unknown task"))?;
                task.set("taskId", sealed);
                Ok(task.into())
            }
            "tasks/cancel" => {
                self.ground.running.end(&id);
                Ok(Object::new().into())
            }
            // A run asks nothing yet, so there is nothing an update could answer.
            _ => Ok(Object::new().into()),
        }
    }

    /// Whether changes of a run can be told of: it lives here, or changes no more.
    pub(in crate::mcp) async fn can_tell(&self, run: &str) -> bool {
        let id = RunId::known(run);
        let lives_here = self.ground.running.lives_here(&id);
        let state = self.state_of(&id).await;
        state.is_some_and(|s| lives_here || s.get("status").and_then(Json::as_str) != Some("working"))
    }
    /// Everything that happens in runs of this process, from now on.
    pub(in crate::mcp) fn watch(&self) -> broadcast::Receiver<Seen> {
        self.ground.host.watch()
    }

    /// What the journal says of a run, as a `DetailedTask` without its id.
    async fn state_of(&self, id: &RunId) -> Option<Object> {
        let listed = self.ground.store.find(id.as_str()).await.ok()?;
        let listed = listed.into_iter().find(|l| l.row.run == *id)?;
        let (row, owned) = (listed.row, listed.owned);
        let state = State::from_word(&row.state)?;
        let mut task = Object::new();
        let ended = row.ended.filter(|_| state.is_end());
        let status = match (ended, state) {
            (None, _) if owned => "working",
            // Nobody works on it any more: the process that did has ended.
            (None, _) => "failed",
            (Some(_), State::Cancelled) => "cancelled",
            _ => "completed",
        };
        task.set("status", status);
        task.set("createdAt", time(row.started));
        task.set("lastUpdatedAt", time(ended.unwrap_or(row.started)));
        task.set("ttlMs", Json::Null);
        task.set("pollIntervalMs", POLL);
        if status == "failed" {
            let why = "the process that ran it has ended before it did";
            task.set("error", Json::object([("code", (-32603i64).into()), ("message", why.into())]));
        }
        if status == "completed" {
            let events = self.ground.store.events(id).await.ok()?;
            let text = events.iter().rev().find_map(|r| match &r.event {
                Event::Finished { text, .. } => Some(text.clone()),
                _ => None,
            });
            let text = text.unwrap_or_default();
            task.set("result", answer(&Ok(Ended { run: id.clone(), state, text })));
        }
        Some(task)
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(super) fn time(at: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at).unwrap_or(0));
    at.map(|t| t.to_string()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
