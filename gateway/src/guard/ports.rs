//! The guard as the tree of runs sees it: what may happen ([`Gate`]) and making it happen
//! ([`Toolbox`]).

use super::{Approve, Guard, YES, result};
use crate::audit::{Before, Entry};
use crate::auth::Carried;
use crate::servers::Enough;
use adapters::mcp::{Exchange, McpError, meta};
use async_trait::async_trait;
use policies::action::{Call, RuntimeCall};
use policies::authority::{Authority, RunAuthority};
use policies::decide;
use policies::grant::Narrowing;
use policies::json::{Json, Object, digest};
use policies::manifest::Tool;
use policies::names::Name;
use policies::permit::{Denial, Permit, Verdict};
use policies::resolve::{Limits, Policy};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use subagents::approval;
use subagents::event::ToolCall;
use subagents::ports::{
    Authorized, Decision, Deed, DeedKind, Facts, Gate, ToolFailure, ToolOutput, ToolSpec, Toolbox, Verified,
    WhatHappened,
};
use subagents::run::Caller;
use tokio_util::sync::CancellationToken;

/// How long a run waits for slow servers before it is shown the tools of the others.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// No call of a run is longer, whatever its server's own limit.
const RUN_CALL_LIMIT: Duration = Duration::from_secs(3600);

/// The command line, as the door of a run.
pub(crate) const CLI: &str = "cli";
/// The main MCP door.
pub(crate) const MCP: &str = "mcp";
/// The REST door; it allows what the main MCP door does.
pub(crate) const REST: &str = "rest";
/// The A2A door; it allows what the main MCP door does.
pub(crate) const A2A: &str = "a2a";
/// The MCP door of one agent: this and the agent's name.
pub(crate) const MCP_AGENT: &str = "mcp/agents/";
/// Whoever is at the command line, and the anonymous caller where no clients are named.
pub(crate) const LOCAL: &str = "local";

#[async_trait]
impl Gate for Guard {
    fn policy(&self) -> Arc<Policy> {
        self.servers.live.now().policy.clone()
    }
    fn door(&self, principal: &str, place: &str) -> Option<(Authority, Limits)> {
        let policy = &self.policy();
        if place == CLI {
            return (principal == LOCAL).then(|| (policy.door(None), Limits::NONE));
        }
        let (door, carried) = Carried::split(place)?;
        let client = match &policy.clients {
            Some(clients) => Some(clients.get(principal)?),
            None if principal == LOCAL => None,
            None => return None,
        };
        // Another gateway holds nothing but what its grants say, as long as its key is known here.
        let keys = client.and_then(|client| client.proof.grants());
        let by = carried.as_ref().map(|carried| carried.by.as_str());
        // What was given here to be brought back is of our own key, whosesoever part it is.
        let own = || self.servers.live.granter().map(|own| own.public());
        let known = |keys: &BTreeSet<String>| by.is_some_and(|by| keys.contains(by));
        if keys.is_some_and(|keys| !known(keys)) && (door != MCP || by != own()) {
            return None;
        }
        let (mut authority, mut limits) = (policy.door(client), client.map_or(Limits::NONE, |client| client.limits));
        if let Some(carried) = carried {
            if keys.is_none() && own() != Some(carried.by.as_str()) {
                return None;
            }
            (authority, limits) = carried.narrows(&format!("client {principal}"), (authority, limits));
        }
        if [MCP, REST, A2A].contains(&door) {
            return Some((authority, limits));
        }
        let agent = policy.agents.get(door.strip_prefix(MCP_AGENT)?)?;
        let narrowed = RunAuthority::spawn(&authority, agent.policy(), None).ok()?;
        Some((narrowed.use_, limits.meet(agent.limits)))
    }
    fn may_start(&self, principal: &str, place: &str, agent: &Name) -> bool {
        let policy = &self.policy();
        // Whoever has the command line has the policy file.
        if place == CLI {
            return principal == LOCAL;
        }
        match &policy.clients {
            Some(clients) => clients.get(principal).is_some_and(|c| policy.may_start(Some(c)).contains(agent)),
            None => principal == LOCAL && policy.may_start(None).contains(agent),
        }
    }
    async fn tools(&self, caller: &Caller) -> Vec<ToolSpec> {
        self.servers.ensure_listed(caller, LIST_PATIENCE).await;
        self.visible(caller).iter().map(|tool| result::spec(tool)).collect()
    }
    async fn authorize(&self, caller: &Caller, tool: &str, arguments: Json) -> Authorized {
        // A run outlives what restarts beside it.
        let (verdict, entry) = self.judged(caller, tool, arguments, Enough::List).await;
        match verdict {
            None => {
                let denial = Denial::plain("there is no such tool", "");
                let _ = self.servers.audit.record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
                Authorized::Unknown
            }
            Some(Verdict::Allow(permit, rule)) => {
                let facts = self.facts(&permit.what().tool);
                Authorized::Allowed(permit, rule, facts)
            }
            Some(Verdict::Ask(question)) => {
                let Call { tool, arguments, .. } = question.what();
                let facts = self.facts(tool);
                if self.approve == Approve::Once {
                    let rule = question.rule.clone();
                    return Authorized::Allowed(question.approve(YES), rule, facts);
                }
                let entry = entry.decided(Decision::Ask(&question.rule));
                let _ = self.servers.audit.record(entry, Before::Reading).await;
                // What a person says yes to: these arguments, to the tool and its server as they are
                // now, and where they lead.
                let shown = approval::shown(question.what());
                let asked = digest(&format!("{} {} {}{shown}", tool.hash, tool.identity, arguments.to_canonical()));
                Authorized::Ask(question, asked, facts)
            }
            Some(Verdict::Deny(denial)) => {
                let _ = self.servers.audit.record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
                tracing::info!(caller = %caller.who, tool, "{}", denial.for_person());
                Authorized::Denied(denial)
            }
        }
    }
    fn authorize_runtime(&self, caller: &Caller, tool: &'static str) -> Verdict<RuntimeCall> {
        let caller = match self.servers.live.current(caller) {
            Ok(caller) => caller,
            Err(denial) => return Verdict::Deny(denial),
        };
        match decide::runtime(&caller.authority, tool) {
            Verdict::Ask(question) if self.approve == Approve::Once => {
                let rule = question.rule.clone();
                Verdict::Allow(question.approve(YES), rule)
            }
            other => other,
        }
    }
    async fn record(&self, caller: &Caller, deed: Deed<'_>) -> Result<(), Denial> {
        let (what, subject, before) = match deed.kind {
            DeedKind::Spawn => ("spawn", "agent", Before::Acting),
            DeedKind::Model => ("model", "model", Before::Acting),
            DeedKind::Own => ("own", "tool", Before::Reading),
            DeedKind::Answer => ("answer", "question", Before::Acting),
            DeedKind::Spend => ("spend", "question", Before::Acting),
            DeedKind::Call => ("call", "tool", Before::Reading),
        };
        let mut entry = Entry::new(what).by(caller).with(subject, deed.subject);
        for (key, value) in deed.more {
            entry = entry.with(key, *value);
        }
        let recorded = self.servers.audit.record(entry.decided(deed.decision), before).await;
        recorded.map(drop).map_err(super::ledger::unrecorded)
    }
    fn narrowing(&self, request: &Json) -> Result<(Narrowing, Limits), String> {
        self.servers.live.now().request(request)
    }
}

impl Guard {
    fn facts(&self, tool: &Tool) -> Facts {
        let gives = self.servers.spec(&tool.server).is_some_and(|spec| super::hop::delegates(&spec));
        Facts { effect: tool.effect, gives }
    }
}

#[async_trait]
impl Toolbox for Guard {
    async fn call(
        &self,
        caller: &Caller,
        permit: Permit<Call>,
        key: &str,
        cancel: CancellationToken,
    ) -> Result<ToolOutput, ToolFailure> {
        let name = permit.what().tool.name.clone();
        let gives = self.facts(&permit.what().tool).gives;
        let reply = self.perform(caller, permit, keyed(key), exchange(cancel)).await;
        let reply = reply.map_err(|e| ToolFailure { why: format!("{name}: {e}"), outcome: happened(&e) })?;
        let used = if gives { result::used(&reply.result) } else { Default::default() };
        Ok(ToolOutput { used, ..result::output(&reply.result) })
    }
    async fn verify(&self, caller: &Caller, call: &ToolCall, key: &str, cancel: CancellationToken) -> Verified {
        self.look(caller, call, key, cancel).await
    }
}

/// What goes out with every attempt at a call.
pub(super) fn keyed(key: &str) -> Object {
    let mut rest = Object::new();
    rest.set("_meta", Json::object([(meta::IDEMPOTENCY_KEY, key.into())]));
    rest
}

pub(super) fn exchange(cancel: CancellationToken) -> Exchange {
    Exchange { limit: RUN_CALL_LIMIT, cancel, ..Exchange::default() }
}

/// Whether a call that gave no result may have happened: it did not where it never left, or
/// where the server itself refused it.
pub(super) fn happened(error: &McpError) -> WhatHappened {
    match error {
        McpError::Rpc(_)
        | McpError::Unreachable(_)
        | McpError::Unauthorized(_)
        | McpError::WrongEra(_)
        | McpError::SessionLost { refused: true } => WhatHappened::Failed,
        McpError::Timeout { method, .. } if method != "tools/call" => WhatHappened::Failed,
        McpError::Gone(_)
        | McpError::Timeout { .. }
        | McpError::Cancelled
        | McpError::Protocol(_)
        | McpError::Withdrawn(_)
        | McpError::Broken(_)
        | McpError::SessionLost { refused: false } => WhatHappened::Unknown,
    }
}
