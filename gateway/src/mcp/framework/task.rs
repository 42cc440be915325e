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
use subagents::host::{Ended, HostError};
use subagents::run::{RunId, State};
use tokio::sync::{broadcast, watch};
use tokio_util::task::TaskTracker;

/// A run that takes longer becomes a task.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often a client should ask, milliseconds.
const POLL: u64 = 1_000;

/// How a run ended, or why it could not go on.
pub(super) type Done = Result<Ended, String>;

/// Runs of this process.
#[derive(Default)]
pub(super) struct Running(Mutex<HashMap<RunId, (Arc<str>, Waiting)>>);

/// Root runs of one client at a time; one that waits is none.
const MAX_ROOTS: usize = 64;

/// How long a run that ended may take to leave its place.
const LEAVING: Duration = Duration::from_secs(1);

/// Waits for a run.
#[derive(Clone)]
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
    /// Whether this client may have one more.
    pub(super) fn has_room(&self, principal: &str) -> bool {
        lock(&self.0).values().filter(|(who, _)| **who == *principal).count() < MAX_ROOTS
    }
    /// Has a tree worked on, whatever becomes of who wanted it.
    /// `None` when its client has too many.
    pub(super) fn begin(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        id: &RunId,
        principal: Arc<str>,
        work: impl Future<Output = Result<Ended, HostError>> + Send + 'static,
    ) -> Option<Waiting> {
        let (send, wait) = watch::channel(None);
        {
            let mut all = lock(&self.0);
            if all.values().filter(|(who, _)| *who == principal).count() >= MAX_ROOTS {
                return None;
            }
            all.insert(id.clone(), (principal, Waiting(wait.clone())));
        }
        let (running, id) = (self.clone(), id.clone());
        tasks.spawn(async move {
            let ended = work.await.map_err(|e| e.to_string());
            lock(&running.0).remove(&id);
            send.send_replace(Some(ended));
        });
        Some(Waiting(wait))
    }
    /// Waits until a run that has ended has left its place: whoever hears of the end has room.
    async fn left(&self, id: &RunId) {
        let waiting = lock(&self.0).get(id).map(|(_, waiting)| waiting.clone());
        if let Some(waiting) = waiting {
            let _ = tokio::time::timeout(LEAVING, waiting.wait()).await;
        }
    }
}

impl Framework {
    /// A run as `CreateTaskResult`.
    pub(super) async fn task_of(&self, view: &View, id: &RunId) -> Json {
        let mut task = self.state_of(view, id).await.unwrap_or_default();
        task.set("resultType", "task");
        task.remove("result");
        task.remove("inputRequests");
        task.set("taskId", view.seal.seal("task", &view.place, &Json::object([("r", id.as_str().into())])));
        task.set("status", "working");
        task.into()
    }

    /// `tasks/get`, `tasks/update`, `tasks/cancel` of a run; the id was sealed for this client.
    ///
    /// # Errors
    /// -32602 when there is no such run any more, or an answer does not fit its question.
    pub(in crate::mcp) async fn follow(
        &self,
        view: &View,
        method: &str,
        (run, sealed): (&str, &str),
        params: &Object,
        capabilities: Option<&Object>,
    ) -> Result<Json, RpcError> {
        let id = RunId::known(run);
        if let Some(capabilities) = capabilities {
            self.ground.sampling.comes(&id, capabilities, |root| self.ground.host.works_on(root));
        }
        match method {
            "tasks/get" => {
                let state = self.state_of(view, &id).await;
                let mut task = state.ok_or_else(|| RpcError::new(-32602, "Unknown task"))?;
                if task.get("status").and_then(Json::as_str) != Some("working") {
                    self.ground.running.left(&id).await;
                }
                task.set("taskId", sealed);
                Ok(task.into())
            }
            "tasks/cancel" => {
                // One that has ended is as cancelled as it can be.
                let _ = self.ground.host.cancel(&id, &view.caller.principal).await;
                Ok(Object::new().into())
            }
            _ => {
                if let Some(responses) = params.get("inputResponses").and_then(Json::as_object) {
                    let answered = self.respond(view, &id, responses).await;
                    answered.map_err(|why| RpcError::new(-32602, format!("Invalid params: {why}")))?;
                }
                Ok(Object::new().into())
            }
        }
    }

    /// Whether changes of a run can be told of: it is worked on here, or changes no more.
    pub(in crate::mcp) async fn can_tell(&self, view: &View, run: &str) -> bool {
        let id = RunId::known(run);
        let here = self.ground.host.works_on(&id);
        let state = self.state_of(view, &id).await;
        state.is_some_and(|s| here || s.get("status").and_then(Json::as_str) != Some("working"))
    }
    /// The trees that ask for their client's model as tasks, from now on.
    pub(in crate::mcp) fn watch_asked(&self) -> broadcast::Receiver<RunId> {
        self.ground.sampling.asked()
    }
    /// Everything that happens in runs of this process, from now on.
    pub(in crate::mcp) fn watch(&self) -> broadcast::Receiver<Seen> {
        self.ground.host.watch()
    }

    /// What the journal says of a run, as a `DetailedTask` without its id.
    async fn state_of(&self, view: &View, id: &RunId) -> Option<Object> {
        let listed = self.ground.store.find(id.as_str()).await.ok()?;
        let listed = listed.into_iter().find(|l| l.row.run == *id)?;
        let (row, owned) = (listed.row, listed.owned);
        let state = State::from_word(&row.state)?;
        let mut task = Object::new();
        let ended = row.ended.filter(|_| state.is_end());
        let open = if ended.is_none() { self.asked(&row.root).await } else { Vec::new() };
        let mut requests = self.requests(view, &open);
        if ended.is_none() {
            for (key, request) in self.ground.sampling.requests(id).iter() {
                requests.set(key, request.clone());
            }
        }
        let status = match (ended, state) {
            (None, _) if !requests.is_empty() => "input_required",
            // Of a version whose runs cannot be gone on with.
            (None, _) if !owned && row.door.is_none() => "failed",
            // Worked on, or about to be; or somebody else is asked.
            (None, _) => "working",
            (Some(_), State::Cancelled) => "cancelled",
            _ => "completed",
        };
        task.set("status", status);
        task.set("createdAt", time(row.started));
        task.set("lastUpdatedAt", time(ended.unwrap_or(row.started)));
        task.set("ttlMs", Json::Null);
        task.set("pollIntervalMs", POLL);
        if status == "input_required" {
            task.set("inputRequests", requests);
        } else if !open.is_empty() {
            task.set("statusMessage", "waits for somebody who may approve");
        }
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
