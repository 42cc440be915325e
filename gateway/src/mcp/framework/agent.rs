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
use subagents::host::{By, Done as Answered, HostError, Start, Then};
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
        if let Err(denial) = view.guard.own(&view.caller, subagents::tools::agent::NAME).await {
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
            place: view.identity.place(MCP).into(),
            limits: self.limits,
            shared: None,
            inbound: None,
            approvals: self.approvals.clone(),
            cancel: end.clone(),
        };
        let reporter = party.clone().filter(|p| p.wants_progress()).map(|party| self.report(id.clone(), party));
        // Before it begins: its first request may be one for this client's model.
        let standing = party.clone().map(|party| self.ground.sampling.stand(&id, party));
        let host = self.ground.host.clone();
        let work = async move { host.start(start).await };
        let begun = self.ground.running.begin(&view.guard.servers.tasks, &id, view.caller.principal.clone(), work);
        let Some(done) = begun else {
            return failed("too many runs of yours are under way; wait for some, or cancel them");
        };
        let as_task = party.as_ref().is_some_and(|p| has_tasks(&p.capabilities()));
        let patience = async {
            match as_task {
                true => tokio::time::sleep(PATIENCE).await,
                false => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            ended = done.wait() => self.settled(view, &id, ended, party.as_ref(), &cancel).await,
            () = patience => {
                if let (Some(standing), Some(party)) = (standing, &party) {
                    standing.hand_over(&party.capabilities());
                }
                Some(Reply { kind: Kind::Other, modern: true, result: self.task_of(view, &id).await })
            }
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

    /// The answer of a call whose run ended; one that waits is told to the client, and goes on
    /// with what it says.
    async fn settled(
        &self,
        view: &View,
        id: &RunId,
        mut done: Done,
        party: Option<&Arc<dyn Party>>,
        cancel: &CancellationToken,
    ) -> Option<Reply> {
        loop {
            let why = match &done {
                Ok(ended) if ended.state == State::Waiting => ended.text.clone(),
                _ => return Some(complete(answer(&done))),
            };
            let said = tokio::select! {
                said = self.put(view, id, party) => said,
                // The run stays as it is: a row, until somebody answers.
                () = cancel.cancelled() => return None,
            };
            let Some((question, said)) = said else { return Some(complete(self.waits(view, id, &why).await)) };
            let host = self.ground.host.clone();
            let principal = view.caller.principal.clone();
            let by = By { who: &principal, door: super::ELICITED };
            let answered = host.answer(&question, said, by, Then::Drive);
            done = tokio::select! {
                answered = answered => match answered {
                    Ok(Answered::Driven(ended)) => Ok(ended),
                    // Somebody else works on it, or the answer came too late: the run tells.
                    Ok(_) | Err(HostError::Refused(_)) => self.ground.host.ended(id).await.map_err(|e| e.to_string()),
                    Err(why) => Err(why.to_string()),
                },
                () = cancel.cancelled() => {
                    let _ = self.ground.host.cancel(id, &principal).await;
                    return None;
                }
            };
        }
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
