//! The guard's side of the record: each judgement it makes, and what came of it.
//!
//! A refusal is put on record when it is made, a permission when it is about to be used, by
//! whoever uses it: so each call that leaves has one record, written before it left, under the
//! policy that was in force then.

use super::Guard;
use crate::audit::{Audit, Before, Decision, Entry, Failed};
use adapters::mcp::{McpError, Reply};
use policies::action::{Call, Fetch, Touch, Touched};
use policies::json::Json;
use policies::names::Name;
use policies::permission::Access;
use policies::permit::{Denial, Permit, Rule};
use std::time::Instant;
use subagents::ports::WhatHappened;
use subagents::run::Caller;

/// A call that is permitted and has not left yet.
pub(super) struct Leaving {
    what: &'static str,
    /// What the record says besides who wants it, which is known when it leaves.
    rest: Entry,
    rule: Rule,
    before: Before,
}

impl Leaving {
    fn by(&self, caller: &Caller) -> Entry {
        Entry::new(self.what).by(caller).and(&self.rest)
    }
}

/// A call that left: by its record, and when. Dropped without a word of what came of it, it was
/// given up: whoever waited went away.
pub(super) struct Left {
    audit: Audit,
    seq: u64,
    at: Instant,
    told: bool,
}

impl Left {
    /// Notes what came of it; with `withdrawn` why it was ended here.
    pub(super) fn came(mut self, word: &str, withdrawn: Option<&Denial>) {
        self.note(word, withdrawn);
    }
    fn note(&mut self, word: &str, withdrawn: Option<&Denial>) {
        let ms = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let entry = Entry::outcome(self.seq, word, ms);
        self.audit.note(match withdrawn {
            Some(denial) => entry.decided(Decision::Deny(denial)),
            None => entry,
        });
        self.told = true;
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if !self.told {
            self.note("given up", None);
        }
    }
}

impl Guard {
    /// What every record of a call says.
    pub(super) fn wish(&self, caller: &Caller, tool: (&str, &Name), arguments: &Json, touches: &[Touch]) -> Entry {
        Entry::new("call").by(caller).and(&self.of_call(tool, arguments, touches))
    }
    fn of_call(&self, (tool, server): (&str, &Name), arguments: &Json, touches: &[Touch]) -> Entry {
        let entry = Entry::bare().with("tool", tool).with("server", server.as_str());
        entry.arguments(&self.servers.audit, arguments).touching(touches)
    }

    /// What the record will say of a call.
    pub(super) fn leaving(&self, permit: &Permit<Call>) -> Leaving {
        let Call { tool, arguments, touches } = permit.what();
        let rest = self.of_call((&tool.name, &tool.server), arguments, touches);
        let rest = rest.with("access", tool.access.to_string());
        let connects = touches.iter().any(|t| matches!(t.what, Touched::Host(..)));
        let before = match tool.access {
            Access::ReadOnly if !connects => Before::Reading,
            _ => Before::Acting,
        };
        Leaving { what: "call", rest, rule: permit.rule().clone(), before }
    }

    /// The same of a resource, a prompt, a completion, a task.
    pub(super) fn fetching(permit: &Permit<Fetch>) -> Leaving {
        let rest = Self::of_request(permit.what());
        Leaving { what: "request", rest, rule: permit.rule().clone(), before: Before::Reading }
    }
    pub(super) fn request(caller: &Caller, fetch: &Fetch) -> Entry {
        Entry::new("request").by(caller).and(&Self::of_request(fetch))
    }
    fn of_request(fetch: &Fetch) -> Entry {
        let entry = Entry::bare().with("server", fetch.server.as_str());
        entry.with("method", fetch.method).with("tool", fetch.rule.as_str()).touching(&fetch.touches)
    }

    /// Puts a call on record that leaves now, by the caller under the policy in force.
    ///
    /// # Errors
    /// When it cannot be; then it must not leave.
    pub(super) async fn leaves(&self, caller: &Caller, leaving: Leaving) -> Result<Left, McpError> {
        let entry = leaving.by(caller).decided(Decision::Allow(&leaving.rule));
        let seq = self.servers.audit.record(entry, leaving.before).await.map_err(refused)?;
        Ok(Left { audit: self.servers.audit.clone(), seq, at: Instant::now(), told: false })
    }

    /// The policy was changed between the permission and now: it does not leave.
    pub(super) async fn stays(&self, caller: &Caller, leaving: Leaving, denial: &Denial) -> McpError {
        let entry = leaving.by(caller).decided(Decision::Deny(denial));
        let _ = self.servers.audit.record(entry, Before::Reading).await;
        McpError::Unreachable(denial.for_model())
    }
}

/// What came of a call, in a word.
pub(super) fn word<T>(outcome: &Result<T, McpError>, is_error: impl Fn(&T) -> bool) -> &'static str {
    match outcome {
        Ok(reply) if is_error(reply) => "error",
        Ok(_) => "ok",
        Err(McpError::Withdrawn(_)) => "withdrawn",
        Err(e) => match super::ports::happened(e) {
            WhatHappened::Failed => "error",
            WhatHappened::Unknown => "unknown",
        },
    }
}

/// Whether a reply says that the call failed.
pub(super) fn says_error(reply: &Reply) -> bool {
    reply.result.get("isError").and_then(Json::as_bool) == Some(true)
}

/// The same as a denial.
pub(super) fn unrecorded(failed: Failed) -> Denial {
    Denial::plain(failed.to_string(), "nothing is, until it can be put on record")
}

/// Nothing left, and the caller is told so.
pub(super) fn refused(failed: Failed) -> McpError {
    McpError::Unreachable(failed.to_string())
}
