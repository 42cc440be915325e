//! The guard's side of the record: each judgement it makes, and what came of it.
//!
//! A refusal is put on record when it is made, a permission when it is about to be used, by
//! whoever uses it: so each call that leaves has one record, written before it left.

use super::Guard;
use crate::audit::{Before, Decision, Entry, Failed};
use adapters::mcp::{McpError, Reply};
use policies::action::{Call, Fetch, Touch, Touched};
use policies::json::Json;
use policies::names::Name;
use policies::permission::Access;
use policies::permit::{Denial, Permit};
use std::time::Instant;
use subagents::run::Caller;

/// A call that left: by its record, and when.
pub(super) struct Left {
    seq: u64,
    at: Instant,
}

impl Guard {
    /// What every record of a call says.
    pub(super) fn wish(
        &self,
        caller: &Caller,
        (tool, server): (&str, &Name),
        arguments: &Json,
        touches: &[Touch],
    ) -> Entry {
        let entry = Entry::new("call").by(caller).with("tool", tool).with("server", server.as_str());
        entry.arguments(&self.servers.audit, arguments).touching(touches)
    }

    /// Puts a call on record that is about to leave.
    ///
    /// # Errors
    /// When it cannot be; then it must not leave.
    pub(super) async fn leaves(&self, caller: &Caller, permit: &Permit<Call>) -> Result<Left, McpError> {
        let Call { tool, arguments, touches } = permit.what();
        let entry = self.wish(caller, (&tool.name, &tool.server), arguments, touches);
        let entry = entry.with("access", tool.access.to_string()).decided(Decision::Allow(permit.rule()));
        let connects = touches.iter().any(|t| matches!(t.what, Touched::Host(..)));
        let before = match tool.access {
            Access::ReadOnly if !connects => Before::Reading,
            _ => Before::Acting,
        };
        self.put(entry, before).await
    }

    /// The same for a resource, a prompt, a completion, a task.
    pub(super) async fn asks(&self, caller: &Caller, permit: &Permit<Fetch>) -> Result<Left, McpError> {
        let entry = Self::request(caller, permit.what()).decided(Decision::Allow(permit.rule()));
        self.put(entry, Before::Reading).await
    }
    pub(super) fn request(caller: &Caller, fetch: &Fetch) -> Entry {
        let entry = Entry::new("request").by(caller).with("server", fetch.server.as_str());
        entry.with("method", fetch.method).with("tool", fetch.rule.as_str()).touching(&fetch.touches)
    }

    async fn put(&self, entry: Entry, before: Before) -> Result<Left, McpError> {
        let seq = self.servers.audit.record(entry, before).await.map_err(refused)?;
        Ok(Left { seq, at: Instant::now() })
    }

    /// Notes what came of it.
    pub(super) fn came(&self, left: &Left, outcome: &Result<Reply, McpError>) {
        let word = match outcome {
            Ok(reply) if reply.result.get("isError").and_then(Json::as_bool) == Some(true) => "error",
            Ok(_) => "ok",
            Err(e) => match super::ports::happened(e) {
                subagents::ports::WhatHappened::Failed => "error",
                subagents::ports::WhatHappened::Unknown => "unknown",
            },
        };
        let ms = u64::try_from(left.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.servers.audit.note(Entry::outcome(left.seq, word, ms));
    }
}

/// The same as a denial.
pub(super) fn unrecorded(failed: Failed) -> Denial {
    Denial::plain(failed.to_string(), "nothing is, until it can be put on record")
}

/// Nothing left, and the caller is told so.
pub(super) fn refused(failed: Failed) -> McpError {
    McpError::Unreachable(failed.to_string())
}
