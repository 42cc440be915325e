//! `pleach__Agent`: a root run for a client, told of as it goes, or handed over as a task.

use super::task::{Done, PATIENCE};
use super::{Framework, complete};
use crate::guard::{MCP, error_result};
use crate::mcp::View;
use crate::mcp::call::has_tasks;
use adapters::mcp::{Kind, Party, Reply};
use policies::json::{Json, Object};
use policies::names::Name;
use std::collections::BTreeSet;
use std::sync::Arc;
use subagents::event::{Event, Seen};
use subagents::host::Start;
use subagents::run::{RunId, State};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

impl Framework {
    /// Runs an agent; `None` when the caller took the call back.
    pub(super) async fn agent(
        &self,
        view: &View,
        arguments: &Json,
        party: Option<Arc<dyn Party>>,
        cancel: CancellationToken,
    ) -> Option<Reply> {
        let failed = |why: &str| Some(complete(error_result(why)));
        let text = |key: &str| arguments.get(key).and_then(Json::as_str).unwrap_or("");
        let Some(agent) = Name::try_from(text("subagent_type")).ok().filter(|n| self.may_start.contains(n)) else {
            let names: Vec<&str> = self.agents().map(|a| a.name.as_str()).collect();
            return failed(&format!("subagent_type is one of: {}", names.join(", ")));
        };
        if let Err(denial) = view.guard.own(&view.caller, subagents::tools::agent::NAME) {
            return failed(&denial.for_model());
        }
        let Ok(id) = RunId::fresh() else { return failed("the system has no randomness") };
        // The run's own: a request that became a task may end without it, and the end of this
        // process puts the run down without ending it.
        let end = CancellationToken::new();
        let start = Start {
            id: id.clone(),
            agent,
            prompt: text("prompt").to_owned(),
            principal: view.caller.principal.clone(),
            door: view.caller.authority.clone(),
            place: MCP.into(),
            limits: self.limits,
            approvals: self.approvals.clone(),
            cancel: end.clone(),
        };
        let reporter = party.clone().filter(|p| p.wants_progress()).map(|party| self.report(id.clone(), party));
        let Some(done) = self.ground.running.begin(&self.ground.host, &view.guard.servers.tasks, start) else {
            return failed("too many runs of yours are under way; wait for some, or cancel them");
        };
        let as_task = party.is_some_and(|p| has_tasks(&p.capabilities()));
        let patience = async {
            match as_task {
                true => tokio::time::sleep(PATIENCE).await,
                false => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            ended = done.wait() => Some(complete(answer(&ended))),
            () = patience => Some(Reply { kind: Kind::Other, modern: true, result: self.task_of(view, &id).await }),
            () = cancel.cancelled() => {
                end.cancel();
                None
            }
        };
        if let Some(reporter) = reporter {
            reporter.abort();
        }
        outcome
    }

    /// Reports the steps of the tree that grows from `root`, as progress.
    fn report(&self, root: RunId, party: Arc<dyn Party>) -> tokio::task::JoinHandle<()> {
        let mut seen = self.ground.host.watch();
        tokio::spawn(async move {
            let (mut step, mut runs) = (0u64, BTreeSet::from([root.to_string()]));
            loop {
                let record = match seen.recv().await {
                    Ok(Seen::Record(record)) => record,
                    Ok(Seen::Delta { .. }) | Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                let message = match &record.event {
                    Event::Started(started) if started.root == root.as_str() => format!("{} started", started.agent),
                    Event::ToolRequested { name, .. } if runs.contains(record.run.as_str()) => format!("calls {name}"),
                    Event::Finished { state, .. } if runs.contains(record.run.as_str()) => state.clone(),
                    _ => continue,
                };
                runs.insert(record.run.as_str().to_owned());
                step += 1;
                let mut params = Object::new();
                params.set("progress", step);
                params.set("message", message);
                party.notify("notifications/progress", params);
            }
        })
    }
}

/// The result of a run that ended.
pub(super) fn answer(done: &Done) -> Json {
    let ended = match done {
        Ok(ended) => ended,
        Err(why) => return error_result(why),
    };
    if ended.state != State::Completed {
        return error_result(&format!("the run {} is {}: {}", ended.run, ended.state.as_str(), ended.text));
    }
    let content = Json::object([("type", "text".into()), ("text", ended.text.as_str().into())]);
    let own = Json::object([("pleach/run", ended.run.as_str().into())]);
    Json::object([("content", vec![content].into()), ("isError", false.into()), ("_meta", own)])
}
