//! The guard: the one function every call from every door goes through.
//!
//! ```text
//! name ─▶ tool ─▶ arguments' paths and hosts, resolved ─▶ policies::decide
//!                                                          │ deny ─▶ reason to the model, fix to the person
//!                                                          │ ask  ─▶ a person: a run parks, a client's own call is denied
//!                                                          └ allow ─▶ Permit ─▶ instance ─▶ Attachment::call
//! ```
//!
//! `ledger` is its side of the record: a call leaves when it is written there, or not at all.
//! `ports` is the guard as the tree of runs sees it.

mod fetch;
mod inquiry;
mod ledger;
pub(crate) mod outside;
mod ports;
mod result;
mod touches;
mod verify;

use crate::audit::{Before, Decision, Entry};
use crate::servers::{Abilities, Servers};
use adapters::mcp::{Attachment, Exchange, McpError, Reply};
pub(crate) use fetch::Refused;
use policies::action::{Call, RuntimeCall};
use policies::decide;
use policies::json::{Json, Object};
use policies::manifest::Tool;
use policies::names::Name;
use policies::permit::{Denial, Permit, Question, Rule, Verdict};
use policies::tools::Mode;
pub(crate) use ports::{CLI, LOCAL, MCP, REST};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use subagents::run::Caller;

/// How `--yes` reads in the record.
const YES: &str = "allowed once by --yes";

/// Decides and performs.
pub(crate) struct Guard {
    pub(crate) servers: Arc<Servers>,
    approve: Approve,
}

/// What happens to what the policy asks a person about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Approve {
    /// Nobody can be reached: denied with the reason.
    Nobody,
    /// A run waits as a row until somebody answers. What is no run's call has no row to wait in
    /// and is denied.
    Park,
    /// `--yes`: allowed, this once.
    Once,
}

/// What became of a wish to call a tool.
pub(crate) enum Decided {
    /// May be performed.
    Allowed(Permit<Call>, Rule),
    /// May not.
    Denied(Denial),
    /// There is no such tool for this caller.
    Unknown,
}

/// The same before anybody was asked, with what the record says of the wish; no verdict where
/// there is no such tool.
type Judged = (Option<Verdict<Call>>, Entry);

impl Guard {
    pub(crate) fn new(servers: Arc<Servers>, approve: Approve) -> Self {
        Self { servers, approve }
    }

    /// The tools a caller may see, in deterministic order: those its rules do not deny and its
    /// ceiling covers. Depends on the caller's authority only.
    pub(crate) fn visible(&self, caller: &Caller) -> Vec<Arc<Tool>> {
        let map = self.servers.manifests.map(caller);
        map.tools.values().filter(|tool| shows(caller, tool)).cloned().collect()
    }

    /// Whether a tool is in a caller's list.
    pub(crate) fn is_visible(&self, caller: &Caller, name: &str) -> bool {
        self.servers.manifests.map(caller).tools.get(name).is_some_and(|tool| shows(caller, tool))
    }

    /// The tool of a name, if the caller may see it; its server is listed first if need be.
    pub(crate) async fn find(&self, caller: &Caller, name: &str) -> Option<Arc<Tool>> {
        let known = || self.servers.manifests.map(caller).tools.get(name).cloned();
        let mut found = known();
        if found.is_none() {
            self.servers.ensure_listed_for(name, caller).await;
            found = known();
        }
        found.filter(|tool| shows(caller, tool))
    }

    /// Judges a call that nobody can be asked about, unless `--yes` answers.
    pub(crate) async fn decide(&self, caller: &Caller, name: &str, arguments: Json) -> Decided {
        let (decided, entry) = self.weigh(caller, name, arguments).await;
        let nothing = Denial::plain("there is no such tool", "");
        let denial = match &decided {
            // Put on record when it leaves.
            Decided::Allowed(..) => None,
            Decided::Denied(denial) => Some(denial),
            Decided::Unknown => Some(&nothing),
        };
        let Some(denial) = denial else { return decided };
        let entry = entry.decided(Decision::Deny(denial));
        // It does not happen either way.
        let _ = self.servers.audit.record(entry, Before::Reading).await;
        decided
    }

    /// What would be decided; nothing is about to happen, so nothing is put on record.
    pub(crate) async fn would(&self, caller: &Caller, name: &str, arguments: Json) -> Decided {
        self.weigh(caller, name, arguments).await.0
    }

    async fn weigh(&self, caller: &Caller, name: &str, arguments: Json) -> (Decided, Entry) {
        let (verdict, entry) = self.judged(caller, name, arguments).await;
        let decided = match verdict {
            Some(Verdict::Allow(permit, rule)) => Decided::Allowed(permit, rule),
            Some(Verdict::Ask(question)) => match Self::answer(self.approve, question) {
                Ok((permit, rule)) => Decided::Allowed(permit, rule),
                Err(denial) => Decided::Denied(denial),
            },
            Some(Verdict::Deny(denial)) => Decided::Denied(denial),
            None => Decided::Unknown,
        };
        (decided, entry)
    }

    /// Judges one call.
    async fn judged(&self, caller: &Caller, name: &str, arguments: Json) -> Judged {
        let mut map = self.servers.manifests.map(caller);
        if !map.tools.contains_key(name) {
            self.servers.ensure_listed_for(name, caller).await;
            map = self.servers.manifests.map(caller);
        }
        let unknown = || Entry::new("call").by(caller).with("tool", name);
        let Some(tool) = map.tools.get(name).cloned() else {
            if let Some(why) = map.refused.get(name) {
                let denial = Denial::plain(format!("the name {name} is not used: {why}"), "use another tool");
                return (Some(Verdict::Deny(denial)), unknown());
            }
            return (None, unknown());
        };
        let Some(spec) = self.servers.spec(&tool.server) else { return (None, unknown()) };
        let touches = touches::resolve(&tool, &arguments, &spec.cwd);
        let entry = self.wish(caller, (&tool.name, &tool.server), &arguments, &touches);
        (Some(decide::call(&caller.authority, Call { tool, arguments, touches })), entry)
    }

    /// Judges a call of one of Pleach's own tools, which nobody is asked about.
    ///
    /// # Errors
    /// Why it may not be made.
    pub(crate) async fn own(&self, caller: &Caller, tool: &'static str) -> Result<Permit<RuntimeCall>, Denial> {
        let judged = match decide::runtime(&caller.authority, tool) {
            Verdict::Allow(permit, _) => Ok(permit),
            Verdict::Ask(question) => Self::answer(self.approve, question).map(|(permit, _)| permit),
            Verdict::Deny(denial) => Err(denial),
        };
        let entry = Entry::new("own").by(caller).with("tool", tool);
        let entry = match &judged {
            Ok(permit) => entry.decided(Decision::Allow(permit.rule())),
            Err(denial) => entry.decided(Decision::Deny(denial)),
        };
        let recorded = self.servers.audit.record(entry, Before::Reading).await;
        let permit = judged?;
        recorded.map_err(ledger::unrecorded)?;
        Ok(permit)
    }

    fn answer<T>(approve: Approve, question: Question<T>) -> Result<(Permit<T>, Rule), Denial> {
        let fix = "run it with --yes, or move the tool from ask to allow";
        match approve {
            Approve::Once => {
                let rule = question.rule.clone();
                Ok((question.approve(YES), rule))
            }
            Approve::Nobody => {
                Err(question.refuse("it asks a person, and nobody can be reached from here").with_fix(fix))
            }
            Approve::Park => {
                let why = "it asks a person, and only an agent's run can wait for one; have an agent make the call";
                Err(question.refuse(why).with_fix("move the tool from ask to allow"))
            }
        }
    }

    /// Performs what was permitted. `rest` is what else the caller said.
    pub(crate) async fn perform(
        &self,
        caller: &Caller,
        permit: Permit<Call>,
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, McpError> {
        let server = permit.what().tool.server.clone();
        let left = self.leaves(caller, &permit).await?;
        let send = async |attachment: Arc<Attachment>, exchange| attachment.call(permit, rest, exchange).await;
        let reply = self.relay(caller, &server, exchange, send).await;
        self.came(&left, &reply);
        reply.map_err(|e| match self.failed(caller, &server, e) {
            Refused::Failed(e) => e,
            _ => McpError::Cancelled,
        })
    }

    /// The one way to a server: its instance for this caller, within the limits, with the guard
    /// between the server and whoever it may ask, and its answer in the names of the outside.
    async fn relay(
        &self,
        caller: &Caller,
        server: &Name,
        mut exchange: Exchange,
        send: impl AsyncFnOnce(Arc<Attachment>, Exchange) -> Result<Reply, McpError>,
    ) -> Result<Reply, McpError> {
        if let Some(spec) = self.servers.spec(server) {
            exchange.limit = exchange.limit.min(spec.timeout.max(Duration::from_millis(1)));
        }
        let mut abilities = Abilities::default();
        if let Some(inner) = exchange.party.take() {
            let (servers, approve) = (Arc::downgrade(&self.servers), self.approve);
            let between = inquiry::Between { servers, approve, caller: caller.clone(), server: server.clone() };
            let guarded = inquiry::Guarded { inner, between, can: OnceLock::new() };
            abilities = Abilities::of(&adapters::mcp::Party::capabilities(&guarded));
            exchange.party = Some(Arc::new(guarded));
        }
        let attachment = tokio::select! {
            found = self.servers.instance(server, caller, abilities) => found.map_err(McpError::Unreachable)?,
            () = exchange.cancel.cancelled() => return Err(McpError::Cancelled),
            () = tokio::time::sleep(exchange.limit) => {
                return Err(McpError::Timeout { method: format!("start of {server}"), seconds: exchange.limit.as_secs() });
            }
        };
        let mut reply = send(attachment, exchange).await.map_err(|e| inquiry::judge_error(self, caller, server, e))?;
        let offers = self.servers.offered.of(caller);
        outside::Outside { uris: &offers.uris, server }.result(&mut reply.result);
        fetch::judged(self, caller, server, reply)
    }
}

/// Whether a tool is in a caller's list.
pub(crate) fn shows(caller: &Caller, tool: &Tool) -> bool {
    let grant = caller.authority.grant();
    grant.tools.mode(&tool.name) != Mode::Deny && tool.access <= grant.max_access
}

/// A tool result that is an error the model can read.
pub(crate) fn error_result(text: &str) -> Json {
    let content = Json::object([("type", "text".into()), ("text", text.into())]);
    Json::object([("content", vec![content].into()), ("isError", true.into())])
}
