//! Tasks a client follows on a stream of `subscriptions/listen` (the tasks extension): those of
//! servers, which tell of them, and runs of Pleach's own. Each goes by the id this client has.
//!
//! ```text
//!   server ── notifications/tasks, its own id ──┐
//!                                               ├─▶ notifications/tasks, the sealed id
//!   journal ── run.finished ────────────────────┘
//! ```

use super::View;
use super::call::Task;
use super::lists::LIST_PATIENCE;
use crate::servers::Watch;
use adapters::mcp::Message;
use policies::json::{Json, Object};
use policies::names::Name;
use std::collections::{BTreeMap, HashMap};
use subagents::event::{Event, Seen};
use subagents::run::RunId;
use tokio::sync::broadcast::{self, error::RecvError};

/// What one stream follows.
pub(super) struct Followed {
    /// By server and its own id.
    theirs: HashMap<(Name, String), Theirs>,
    /// The sealed ids of runs that have not ended, as far as was told.
    runs: BTreeMap<String, String>,
    seen: Option<broadcast::Receiver<Seen>>,
    /// Runs that ask for this client's model.
    asked: Option<broadcast::Receiver<RunId>>,
    /// Some may have ended.
    due: bool,
}

struct Theirs {
    sealed: String,
    tool: String,
    /// Ends with the stream.
    _watch: Watch,
}

impl Followed {
    /// Follows what can be followed of these ids; the others cost themselves.
    pub(super) async fn new(view: &View, ids: impl Iterator<Item = &str>) -> Self {
        // Before anything is looked at: what ends meanwhile is not missed.
        let seen = view.framework.as_ref().map(|framework| framework.watch());
        let asked = view.framework.as_ref().map(|framework| framework.watch_asked());
        let mut out = Self { theirs: HashMap::new(), runs: BTreeMap::new(), seen, asked, due: false };
        let opened = ids.filter_map(|sealed| Some((sealed.to_owned(), Task::open(view, sealed)?)));
        let found = opened.map(|(sealed, task)| async move {
            let watch = match &task {
                Task::Run(run) => match &view.framework {
                    Some(framework) if framework.can_tell(view, run).await => None,
                    _ => return None,
                },
                Task::Theirs(server, tool, id) => {
                    let task = (server.clone(), tool.clone(), id.clone());
                    let watching = view.guard.watch_task(&view.caller, task);
                    Some(tokio::time::timeout(LIST_PATIENCE, watching).await.ok()?.ok()?)
                }
            };
            Some((sealed, task, watch))
        });
        for (sealed, task, watch) in futures_util::future::join_all(found).await.into_iter().flatten() {
            match (task, watch) {
                (Task::Theirs(server, tool, id), Some(watch)) => {
                    out.theirs.insert((server, id), Theirs { sealed, tool, _watch: watch });
                }
                (Task::Run(run), _) => drop(out.runs.insert(run, sealed)),
                (Task::Theirs(..), None) => {}
            }
        }
        if out.runs.is_empty() {
            out.seen = None;
        }
        out
    }

    /// The ids that are followed, for the acknowledgement.
    pub(super) fn ids(&self) -> Vec<Json> {
        let theirs = self.theirs.values().map(|t| t.sealed.as_str());
        let mut all: Vec<&str> = theirs.chain(self.runs.values().map(String::as_str)).collect();
        all.sort_unstable();
        all.into_iter().map(Json::from).collect()
    }

    /// What a server says of a task, for this client; `None` when it does not follow it.
    pub(super) fn said(&self, view: &View, server: &Name, task: &Object) -> Option<Message> {
        let id = task.get("taskId").and_then(Json::as_str)?;
        let theirs = self.theirs.get(&(server.clone(), id.to_owned()))?;
        let mut task = view.guard.task_said(&view.caller, server, &theirs.tool, task.clone())?;
        task.set("taskId", theirs.sealed.as_str());
        Some(told(task))
    }

    /// Waits until runs have ended, and tells of them. Nothing is lost when the wait is dropped.
    pub(super) async fn hear(&mut self, view: &View) -> Vec<Message> {
        while !self.due {
            let Some(seen) = &mut self.seen else { return std::future::pending().await };
            let asked = async {
                match &mut self.asked {
                    Some(asked) => asked.recv().await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = seen.recv() => heard,
                asked = asked => {
                    match asked {
                        Ok(root) => self.due = self.runs.contains_key(root.as_str()),
                        Err(RecvError::Lagged(_)) => self.due = true,
                        Err(RecvError::Closed) => self.asked = None,
                    }
                    continue;
                }
            };
            self.due = match heard {
                Ok(Seen::Record(record)) => {
                    match &record.event {
                        Event::Finished { .. } => self.runs.contains_key(record.run.as_str()),
                        // A question of a run below it is a question of the task.
                        Event::Waiting(waiting) => !waiting.id.is_empty(),
                        _ => false,
                    }
                }
                Ok(Seen::Delta { .. }) => false,
                // Any of them may be among what was missed.
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return std::future::pending().await,
            };
        }
        self.ended(view).await
    }

    /// Tells of runs that have ended, each once.
    pub(super) async fn ended(&mut self, view: &View) -> Vec<Message> {
        let mut ended = Vec::new();
        if let Some(framework) = &view.framework {
            for (run, sealed) in &self.runs {
                let Ok(Json::Object(task)) =
                    framework.follow(view, "tasks/get", (run, sealed), &Object::new(), None).await
                else {
                    continue;
                };
                if task.get("status").and_then(Json::as_str) != Some("working") {
                    ended.push((run.clone(), task));
                }
            }
        }
        // Nothing is waited for from here on.
        self.due = false;
        let told = |(run, task): (String, Object)| {
            // One that asks something has not ended.
            if task.get("status").and_then(Json::as_str) != Some("input_required") {
                self.runs.remove(&run);
            }
            told(task)
        };
        ended.into_iter().map(told).collect()
    }
}

fn told(task: Object) -> Message {
    Message::Notification { method: "notifications/tasks".into(), params: task }
}
