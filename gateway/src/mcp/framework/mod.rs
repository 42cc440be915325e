//! Pleach's own tools on `/mcp`: an MCP client starts agents, follows them, and asks why
//! something is refused. A run inherits the client's grant, through the same host as every
//! other run; a client sees its own runs only.
//!
//! | tool | |
//! |---|---|
//! | `pleach__Agent` | starts an agent; its answer, or a task where the client has the extension and it takes longer |
//! | `pleach__runs` · `pleach__run` | the runs of this client; one of them, event by event |
//! | `pleach__send` | says something to a run; one that ended goes on with it |
//! | `pleach__answer` | answers what a run asks a person, or lists what is asked |
//! | `pleach__cancel` | ends a run and everything it started |
//! | `pleach__explain` | which rule decides a call of a tool, without making it |

mod agent;
mod own;
pub(super) mod questions;
mod task;

use super::View;
use super::sampling::Sampling;
use crate::auth::Identity;
use crate::guard::{LOCAL, error_result};
use adapters::mcp::{Kind, Party, Reply};
use adapters::store::Store;
use policies::json::{Json, Object};
use policies::names::Name;
use policies::resolve::{AgentSpec, Limits, Policy};
use policies::tools::Mode;
use std::collections::BTreeSet;
use std::sync::Arc;
use subagents::host::{Approvals, By, Host, Then};
use subagents::ports::Answer;
use task::Running;
use tokio_util::sync::CancellationToken;

pub(super) const AGENT: &str = "pleach__Agent";
const RUNS: &str = "pleach__runs";
const RUN: &str = "pleach__run";
pub(crate) const SEND: &str = "pleach__send";
const ANSWER: &str = "pleach__answer";
const CANCEL: &str = "pleach__cancel";
const EXPLAIN: &str = "pleach__explain";
const ALL: [&str; 7] = [AGENT, RUNS, RUN, SEND, ANSWER, CANCEL, EXPLAIN];

/// What a client's person says when they are asked, for the record.
const ELICITED: &str = "mcp elicitation";

/// Why nobody is asked where no client may answer.
const NOBODY: &str = "no client of this file may approve: give one can_approve = true, or start the run with \
    `pleach run`, which `pleach answer` answers";

/// Whether runs that clients start may ask a person, through whichever door they came.
pub(crate) fn approvals(policy: &Policy) -> Approvals {
    match policy.clients.as_ref().is_none_or(|clients| clients.values().any(|c| c.can_approve)) {
        true => Approvals::Park,
        false => Approvals::Nobody(NOBODY.into()),
    }
}

/// Whether a client's person may approve, under this policy.
pub(crate) fn can_approve(policy: &Policy, principal: &str) -> bool {
    match &policy.clients {
        None => principal == LOCAL,
        Some(clients) => clients.get(principal).is_some_and(|client| client.can_approve),
    }
}

/// What all clients' tools stand on.
#[derive(Clone)]
pub(crate) struct Ground {
    host: Arc<Host>,
    store: Store,
    running: Arc<Running>,
    sampling: Sampling,
}

impl Ground {
    pub(crate) fn new(host: Arc<Host>, store: Store, sampling: Sampling) -> Self {
        Self { host, store, running: Arc::default(), sampling }
    }
    /// Takes what a client's person said to a question about the client's own call.
    pub(super) async fn answer(&self, question: &str, answer: Answer, by: &str) -> Result<(), String> {
        let done = self.host.answer(question, answer, By { who: by, door: ELICITED }, Then::Leave).await;
        done.map(drop).map_err(|e| e.to_string())
    }
}

/// What a call says, and whether a run makes it.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) arguments: &'a Json,
    pub(super) of_run: bool,
}

/// The tools of one client.
#[derive(Clone)]
pub(crate) struct Framework {
    ground: Ground,
    policy: Arc<Policy>,
    may_start: BTreeSet<Name>,
    limits: Limits,
    /// Whether a person can be asked by this client's runs.
    approvals: Approvals,
    /// Whether it may answer for people: approvals, and questions of others' runs.
    can_approve: bool,
}

impl Framework {
    /// For a client: the agents it may start, which are those exposed where its table is silent.
    /// `None` when it may start none, or the file turns these tools off.
    pub(crate) fn new(ground: &Ground, identity: &Identity) -> Option<Self> {
        let (policy, client) = (&identity.policy, identity.client());
        let may_start = policy.may_start(client);
        let limits = identity.holds().1;
        // Whoever is a part of somebody has no say about the runs of all of them.
        let on = policy.gateway.framework_tools && !may_start.is_empty() && identity.carried.is_none();
        let approvals = approvals(policy);
        let can_approve = identity.can_approve();
        on.then(|| Self { ground: ground.clone(), policy: policy.clone(), may_start, limits, approvals, can_approve })
    }

    /// Puts all runs down; they go on at the next start.
    pub(super) async fn put_down(&self) {
        self.ground.host.suspend().await;
    }

    fn agents(&self) -> impl Iterator<Item = &AgentSpec> {
        self.policy.agents.values().filter(|a| self.may_start.contains(&a.name))
    }

    /// The definitions, for `tools/list`.
    pub(super) fn definitions(&self, view: &View) -> Vec<Json> {
        let rules = &view.caller.authority.grant().tools;
        let denied = |name: &str| rules.runtime_mode(name) == Mode::Deny;
        let lines: String = self.agents().map(|a| format!("\n- {}: {}", a.name, a.description)).collect();
        let mut which = text("Which agent.");
        if let Some(which) = which.as_object_mut() {
            which.set("enum", self.agents().map(|a| a.name.as_str().into()).collect::<Vec<Json>>());
        }
        let limit = Json::object([("type", "integer".into()), ("minimum", 1u64.into()), ("maximum", 200u64.into())]);
        let arguments =
            Json::object([("type", "object".into()), ("description", "What it would be called with.".into())]);
        let run = || text("The id of the run, as pleach__runs lists it.");
        let all = [
            tool(
                AGENT,
                "Run an agent",
                &format!("Runs an agent and returns its answer. The agents:{lines}"),
                &[
                    ("description", text("The task in three to five words.")),
                    ("prompt", text("The whole task; the agent sees nothing else.")),
                    ("subagent_type", which),
                ],
                &["prompt", "subagent_type"],
            ),
            tool(RUNS, "List runs", "Lists your runs, newest first.", &[("limit", limit)], &[]),
            tool(RUN, "Show a run", "Shows a run of yours: every turn, call and verdict.", &[("run", run())], &["run"]),
            tool(
                SEND,
                "Say something to a run",
                "Says something to a run of yours: one that works hears it before its next step, one that has ended goes on.",
                &[("run", run()), ("message", text("What to say."))],
                &["run", "message"],
            ),
            answering(),
            tool(CANCEL, "Cancel a run", "Ends a run of yours and all it started.", &[("run", run())], &["run"]),
            tool(
                EXPLAIN,
                "Explain a decision",
                "Says whether a call would be allowed and which rule decides, without making it.",
                &[("tool", text("The tool's name.")), ("arguments", arguments)],
                &["tool"],
            ),
        ];
        let shown = all
            .into_iter()
            .filter(|(name, _)| !(denied(name) || *name == AGENT && denied(subagents::tools::agent::NAME)));
        shown.map(|(_, definition)| definition).collect()
    }

    /// Whether a tool is one of these.
    pub(super) fn has(name: &str) -> bool {
        ALL.contains(&name)
    }

    /// Calls one of them; `None` when the caller took the call back.
    pub(super) async fn call(
        &self,
        view: &View,
        name: &str,
        Said { arguments, of_run }: Said<'_>,
        party: Option<Arc<dyn Party>>,
        cancel: CancellationToken,
    ) -> Option<Reply> {
        let Some(name) = ALL.into_iter().find(|n| *n == name) else {
            return Some(complete(error_result("there is no such tool")));
        };
        if let Err(denial) = view.guard.own(&view.caller, name).await {
            return Some(complete(error_result(&denial.for_model())));
        }
        let definitions = self.definitions(view);
        let definition = definitions.iter().find(|d| d.get("name").and_then(Json::as_str) == Some(name));
        if let Some(why) = definition.and_then(|d| unfit(d, arguments)) {
            return Some(complete(error_result(&format!("{name}: {why}"))));
        }
        match name {
            AGENT => self.agent(view, arguments, party, cancel).await,
            RUNS => Some(complete(self.runs(view, arguments).await)),
            RUN => Some(complete(self.run(view, arguments).await)),
            SEND => Some(complete(self.send(view, arguments).await)),
            ANSWER if of_run => Some(complete(self.no_run_answers(view, arguments).await)),
            ANSWER => Some(complete(self.answer(view, arguments).await)),
            CANCEL => Some(complete(self.cancel(view, arguments).await)),
            _ => Some(complete(self.explain(view, arguments).await)),
        }
    }
}

/// The definition of `pleach__answer`.
fn answering() -> (&'static str, Json) {
    let mut verdict = text("The answer to an approval.");
    if let Some(verdict) = verdict.as_object_mut() {
        verdict.set("enum", vec![Json::from("allow"), Json::from("deny")]);
    }
    let input = Json::object([(
        "description",
        "The answer to a question: a text, or what its schema says; for an approval, other arguments for the call."
            .into(),
    )]);
    let properties = [
        ("id", text("The question's id, q-….")),
        ("verdict", verdict),
        ("input", input),
        ("note", text("A word to the agent.")),
    ];
    let says = "Answers what a run asks a person; without id, lists what is asked.";
    tool(ANSWER, "Answer a run", says, &properties, &[])
}

fn complete(result: Json) -> Reply {
    Reply { kind: Kind::Complete, modern: false, result }
}

fn text(doc: &str) -> Json {
    Json::object([("type", "string".into()), ("description", doc.into())])
}

fn tool(
    name: &'static str,
    title: &str,
    description: &str,
    properties: &[(&str, Json)],
    required: &[&str],
) -> (&'static str, Json) {
    let properties: Object = properties.iter().map(|(key, schema)| ((*key).to_owned(), schema.clone())).collect();
    let mut schema = Object::new();
    schema.set("type", "object");
    schema.set("properties", properties);
    if !required.is_empty() {
        schema.set("required", required.iter().map(|r| (*r).into()).collect::<Vec<Json>>());
    }
    schema.set("additionalProperties", false);
    let definition = Json::object([
        ("name", name.into()),
        ("title", title.into()),
        ("description", description.into()),
        ("inputSchema", schema.into()),
    ]);
    (name, definition)
}

/// What of the arguments is unknown, missing or of the wrong kind.
fn unfit(definition: &Json, arguments: &Json) -> Option<String> {
    let schema = definition.get("inputSchema")?;
    let properties = schema.get("properties").and_then(Json::as_object)?;
    let given = arguments.as_object()?;
    if let Some((unknown, _)) = given.iter().find(|(key, _)| properties.get(key).is_none()) {
        return Some(format!("{unknown:?} is no argument of it"));
    }
    let required = schema.get("required").and_then(Json::as_array).unwrap_or_default();
    let blank = |key: &str| match given.get(key) {
        None | Some(Json::Null) => true,
        Some(Json::String(text)) => text.trim().is_empty(),
        Some(_) => false,
    };
    if let Some(missing) = required.iter().filter_map(Json::as_str).find(|key| blank(key)) {
        return Some(format!("{missing} is missing"));
    }
    let fits = |key: &str, value: &Json| match properties.get(key).and_then(|p| p.get("type")).and_then(Json::as_str) {
        Some("string") => value.as_str().is_some(),
        Some("integer") => value.as_u64().is_some_and(|n| (1..=200).contains(&n)),
        Some("object") => value.as_object().is_some(),
        _ => true,
    };
    given.iter().find(|(key, value)| !fits(key, value)).map(|(key, _)| format!("{key} is not what its schema says"))
}
