//! The guard: the one function every call from every door goes through.
//!
//! ```text
//! name ─▶ tool ─▶ arguments' paths and hosts, resolved ─▶ policies::decide
//!                                                          │ deny ─▶ reason to the model, fix to the person
//!                                                          │ ask  ─▶ a person, or denied
//!                                                          └ allow ─▶ Permit ─▶ instance ─▶ Attachment::call
//! ```

mod caller;
mod touches;

pub(crate) use caller::Caller;

use crate::servers::Servers;
use adapters::mcp::{Exchange, McpError};
use policies::action::Call;
use policies::decide;
use policies::json::{Json, Object};
use policies::manifest::Tool;
use policies::permit::{Denial, Permit, Question, Rule, Verdict};
use policies::tools::Mode;
use std::sync::Arc;
use std::time::Duration;

/// Decides and performs.
pub(crate) struct Guard {
    pub(crate) servers: Arc<Servers>,
    approve: Approve,
}

/// What happens to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Approve {
    /// Nobody can be reached: denied with the reason.
    Nobody,
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

impl Guard {
    pub(crate) fn new(servers: Arc<Servers>, approve: Approve) -> Self {
        Self { servers, approve }
    }

    /// The tools a caller may see, in deterministic order: those its rules do not deny and its
    /// ceiling covers. Depends on the caller's authority only.
    pub(crate) fn visible(&self, caller: &Caller) -> Vec<Arc<Tool>> {
        let map = self.servers.manifests.map();
        map.tools.values().filter(|tool| shows(caller, tool)).cloned().collect()
    }

    /// Judges one call.
    pub(crate) async fn decide(&self, caller: &Caller, name: &str, arguments: Json) -> Decided {
        let mut map = self.servers.manifests.map();
        if !map.tools.contains_key(name) {
            self.servers.ensure_listed_for(name, caller).await;
            map = self.servers.manifests.map();
        }
        let Some(tool) = map.tools.get(name).cloned() else {
            if let Some(why) = map.refused.get(name) {
                let denial = Denial::plain(format!("the name {name} is not used: {why}"), "use another tool");
                return Decided::Denied(denial);
            }
            return Decided::Unknown;
        };
        let Some(spec) = self.servers.spec(&tool.server) else { return Decided::Unknown };
        let touches = touches::resolve(&tool, &arguments, &spec.cwd);
        match decide::call(&caller.authority, Call { tool, arguments, touches }) {
            Verdict::Allow(permit, rule) => Decided::Allowed(permit, rule),
            Verdict::Ask(question) => self.ask(question),
            Verdict::Deny(denial) => Decided::Denied(denial),
        }
    }

    fn ask(&self, question: Question<Call>) -> Decided {
        match self.approve {
            Approve::Once => {
                let rule = question.rule.clone();
                Decided::Allowed(question.approve(), rule)
            }
            Approve::Nobody => {
                let why = "it asks a person, and nobody can be reached from here";
                Decided::Denied(question.refuse(why).with_fix("run it with --yes, or move the tool from ask to allow"))
            }
        }
    }

    /// Performs what was permitted.
    pub(crate) async fn perform(
        &self,
        caller: &Caller,
        permit: Permit<Call>,
        meta: Object,
        mut exchange: Exchange,
    ) -> Result<Json, McpError> {
        let server = permit.what().tool.server.clone();
        let attachment = self.servers.instance(&server, caller).await.map_err(McpError::Unreachable)?;
        if let Some(spec) = self.servers.spec(&server) {
            exchange.limit = exchange.limit.min(spec.timeout.max(Duration::from_millis(1)));
        }
        attachment.call(permit, meta, exchange).await
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
