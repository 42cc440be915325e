//! Finding out whether a call happened whose result was lost: the tool that the policy names for
//! it (`verify_with`) is called like any other, through the same judgement.
//!
//! It gets those arguments of the lost call that its schema has, and besides, where the schema
//! has them, `idempotency_key` (the key the call carried; it is in `_meta` too) and `arguments`
//! (all of them). It answers yes or no: `structuredContent.happened`, or a text that begins with
//! true, yes, false or no. Anything else leaves it unknown.

use super::ports::{exchange, keyed};
use super::{Decided, Guard, result};
use policies::json::{Json, Object};
use policies::manifest::Tool;
use std::sync::Arc;
use subagents::event::ToolCall;
use subagents::ports::Verified;
use subagents::run::Caller;
use tokio_util::sync::CancellationToken;

impl Guard {
    pub(super) async fn look(
        &self,
        caller: &Caller,
        call: &ToolCall,
        key: &str,
        cancel: CancellationToken,
    ) -> Verified {
        let Some(verifier) = self.verifier(caller, &call.name).await else { return Verified::Unknown };
        let arguments = arguments(&verifier, &Json::from(&call.input), key);
        let permit = match self.decide(caller, &verifier.name, arguments).await {
            Decided::Allowed(permit, _) => permit,
            Decided::Denied(denial) => {
                tracing::warn!(caller = %caller.who, tool = call.name, "cannot be verified: {}", denial.for_person());
                return Verified::Unknown;
            }
            Decided::Unknown => return Verified::Unknown,
        };
        match self.perform(caller, permit, keyed(key), exchange(cancel)).await {
            Ok(reply) => verdict(&verifier.name, &reply.result),
            Err(e) => {
                tracing::warn!(caller = %caller.who, tool = call.name, "cannot be verified: {e}");
                Verified::Unknown
            }
        }
    }

    /// The tool that tells of another, by its name outside.
    async fn verifier(&self, caller: &Caller, name: &str) -> Option<Arc<Tool>> {
        let tool = self.find(caller, name).await?;
        let by = tool.verify_with.as_deref()?;
        let map = self.servers.manifests.map(caller);
        map.tools.values().find(|t| t.server == tool.server && t.upstream == by).cloned()
    }
}

/// What of a lost call's arguments its verifier takes.
fn arguments(verifier: &Tool, given: &Json, key: &str) -> Json {
    let takes = verifier.definition.get("inputSchema").and_then(|s| s.get("properties")).and_then(Json::as_object);
    let has = |name: &str| takes.is_some_and(|t| t.get(name).is_some());
    let own = given.as_object().into_iter().flat_map(Object::iter).filter(|(name, _)| has(name));
    let mut out: Object = own.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    for (name, value) in [("idempotency_key", Json::from(key)), ("arguments", given.clone())] {
        if has(name) && out.get(name).is_none() {
            out.set(name, value);
        }
    }
    out.into()
}

fn verdict(name: &str, reply: &Json) -> Verified {
    let output = result::output(reply);
    if output.error {
        return Verified::Unknown;
    }
    let structured = reply.get("structuredContent").and_then(|s| s.get("happened")).and_then(Json::as_bool);
    let word: String = output.text.trim().chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    let said = structured.or(match word.to_ascii_lowercase().as_str() {
        "true" | "yes" => Some(true),
        "false" | "no" => Some(false),
        _ => None,
    });
    match said {
        Some(true) => Verified::Happened(format!("it happened, as {name} says: {}", output.text)),
        Some(false) => Verified::DidNot,
        None => Verified::Unknown,
    }
}
