//! Pleach's own tools on `/mcp`: `pleach__Agent` starts an agent and returns its answer. The run
//! inherits the client's grant, through the same host as every other run.

use super::View;
use crate::guard::error_result;
use adapters::mcp::Party;
use policies::json::{Json, Object};
use policies::names::Name;
use policies::resolve::{AgentSpec, ClientSpec, Limits, Policy};
use std::collections::BTreeSet;
use std::sync::Arc;
use subagents::event::{Event, Seen};
use subagents::host::{Host, Start};
use subagents::run::{RunId, State};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// The tool's name.
pub(super) const AGENT: &str = "pleach__Agent";

/// What a view needs to start agents.
#[derive(Clone)]
pub(crate) struct Framework {
    host: Arc<Host>,
    policy: Arc<Policy>,
    may_start: BTreeSet<Name>,
    limits: Limits,
}

impl Framework {
    /// For a client: the agents it may start, which are those exposed where its table is silent.
    /// `None` when it may start none, or the file turns these tools off.
    pub(crate) fn new(host: Arc<Host>, policy: Arc<Policy>, client: Option<&ClientSpec>) -> Option<Self> {
        let exposed = || policy.agents.values().filter(|a| a.expose).map(|a| a.name.clone()).collect();
        let may_start: BTreeSet<Name> = client.and_then(|c| c.may_start.clone()).unwrap_or_else(exposed);
        let limits = client.map_or(Limits::NONE, |c| c.limits);
        let on = policy.gateway.framework_tools && !may_start.is_empty();
        on.then_some(Self { host, policy, may_start, limits })
    }

    fn agents(&self) -> impl Iterator<Item = &AgentSpec> {
        self.policy.agents.values().filter(|a| self.may_start.contains(&a.name))
    }

    /// The definitions, for `tools/list`.
    pub(super) fn definitions(&self, view: &View) -> Vec<Json> {
        let rules = &view.caller.authority.grant().tools;
        let denied = |name| rules.runtime_mode(name) == policies::tools::Mode::Deny;
        if denied(AGENT) || denied(subagents::agent_tool::NAME) {
            return Vec::new();
        }
        let lines: String = self.agents().map(|a| format!("\n- {}: {}", a.name, a.description)).collect();
        let names: Vec<Json> = self.agents().map(|a| a.name.as_str().into()).collect();
        let text = |doc: &str| Json::object([("type", "string".into()), ("description", doc.into())]);
        let mut which = text("Which agent.");
        if let Some(which) = which.as_object_mut() {
            which.set("enum", names);
        }
        let schema = Json::object([
            ("type", "object".into()),
            (
                "properties",
                Json::object([
                    ("description", text("The task in three to five words.")),
                    ("prompt", text("The whole task; the agent sees nothing else.")),
                    ("subagent_type", which),
                ]),
            ),
            ("required", vec!["prompt".into(), "subagent_type".into()].into()),
            ("additionalProperties", false.into()),
        ]);
        vec![Json::object([
            ("name", AGENT.into()),
            ("title", "Run an agent".into()),
            ("description", format!("Runs an agent and returns its answer. The agents:{lines}").into()),
            ("inputSchema", schema),
        ])]
    }

    /// Runs an agent to its end; `None` when the caller took the call back.
    pub(super) async fn call(
        &self,
        view: &View,
        arguments: &Json,
        party: Option<Arc<dyn Party>>,
        cancel: CancellationToken,
    ) -> Option<Json> {
        const KNOWN: [&str; 3] = ["description", "prompt", "subagent_type"];
        let keys = arguments.as_object().into_iter().flat_map(Object::iter);
        if let Some((unknown, _)) = keys.into_iter().find(|(k, _)| !KNOWN.contains(k)) {
            return Some(error_result(&format!("{unknown:?} is no argument of {AGENT}")));
        }
        let text = |key: &str| arguments.get(key).and_then(Json::as_str).unwrap_or("");
        let names: Vec<&str> = self.agents().map(|a| a.name.as_str()).collect();
        let agent = match Name::try_from(text("subagent_type")).ok().filter(|n| self.may_start.contains(n)) {
            Some(agent) => agent,
            None => return Some(error_result(&format!("subagent_type is one of: {}", names.join(", ")))),
        };
        if text("prompt").trim().is_empty() {
            return Some(error_result("prompt is missing"));
        }
        for name in [AGENT, subagents::agent_tool::NAME] {
            if let Err(denial) = subagents::ports::Gate::authorize_runtime(&*view.guard, &view.caller, name) {
                return Some(error_result(&denial.for_model()));
            }
        }
        let Ok(id) = RunId::fresh() else { return Some(error_result("the system has no randomness")) };
        let start = Start {
            id: id.clone(),
            agent,
            prompt: text("prompt").to_owned(),
            principal: view.caller.principal.clone(),
            door: view.caller.authority.clone(),
            limits: self.limits,
            cancel: cancel.clone(),
        };
        let reporter = party.filter(|p| p.wants_progress()).map(|party| self.report(id, party));
        let ended = self.host.start(start).await;
        if let Some(reporter) = reporter {
            reporter.abort();
        }
        if cancel.is_cancelled() {
            return None;
        }
        Some(match ended {
            Ok(ended) if ended.state == State::Completed => {
                let content = Json::object([("type", "text".into()), ("text", ended.text.into())]);
                let own = Json::object([("pleach/run", ended.run.as_str().into())]);
                Json::object([("content", vec![content].into()), ("isError", false.into()), ("_meta", own)])
            }
            Ok(ended) => error_result(&format!("the run {} is {}: {}", ended.run, ended.state.as_str(), ended.text)),
            Err(e) => error_result(&e.to_string()),
        })
    }

    /// Reports the steps of the tree that grows from `root`, as progress.
    fn report(&self, root: RunId, party: Arc<dyn Party>) -> tokio::task::JoinHandle<()> {
        let mut seen = self.host.watch();
        tokio::spawn(async move {
            let (mut step, mut runs) = (0u64, BTreeSet::from([root.to_string()]));
            loop {
                let record = match seen.recv().await {
                    Ok(Seen::Record(record)) => record,
                    Ok(Seen::Delta { .. }) | Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                let message = match &record.event {
                    Event::Started { root: of, agent, .. } if *of == root.as_str() => format!("{agent} started"),
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
