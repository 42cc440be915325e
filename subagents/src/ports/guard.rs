//! What the tree needs of the guard: judgements, and the performing of what was permitted.

use super::ToolSpec;
use crate::event::{Elsewhere, ToolCall};
use crate::run::Caller;
use async_trait::async_trait;
use policies::action::{Call, Effect, RuntimeCall};
use policies::authority::Authority;
use policies::grant::Narrowing;
use policies::json::Json;
use policies::names::Name;
use policies::permit::{Denial, Permit, Question, Rule, Verdict};
use policies::resolve::{Limits, Policy};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is known about a tool besides whether it may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What a repetition would mean.
    pub effect: Effect,
    /// It has something done elsewhere, under limits that are given along.
    pub gives: bool,
}

/// What the guard decided about a call.
pub enum Authorized {
    /// May be performed.
    Allowed(Permit<Call>, Rule, Facts),
    /// A person decides. The text is a hash of the canonical arguments and the tool's manifest:
    /// an approval is good for that text and no other.
    Ask(Question<Call>, String, Facts),
    /// May not.
    Denied(Denial),
    /// There is no such tool for this caller.
    Unknown,
}

/// How something was decided, by which rule.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// It may be done.
    Allow(&'a Rule),
    /// A person is asked.
    Ask(&'a Rule),
    /// It may not.
    Deny(&'a Denial),
}

/// Something the tree does or refuses by itself, for the record.
pub struct Deed<'a> {
    /// What kind of thing.
    pub kind: DeedKind,
    /// The agent, model, tool or question it is about.
    pub subject: &'a str,
    /// What was decided.
    pub decision: Decision<'a>,
    /// More of it, such as the id of a child.
    pub more: &'a [(&'static str, &'a str)],
}

/// What the tree does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeedKind {
    /// Begins a run.
    Spawn,
    /// Asks a model.
    Model,
    /// Calls one of the runtime's own tools.
    Own,
    /// Takes a person's answer.
    Answer,
    /// Uses a person's yes up.
    Spend,
    /// Does not make a call of a server's tool: a person said no, or none can be asked.
    Call,
}

/// The guard, as the tree sees it.
#[async_trait]
pub trait Gate: Send + Sync {
    /// The policy as it is now.
    fn policy(&self) -> Arc<Policy>;
    /// The authority of a door for a principal, and the principal's counted limits, under the
    /// policy as it is now. `place` is the text the door gave when the run was started. `None`
    /// when the client is gone.
    fn door(&self, principal: &str, place: &str) -> Option<(Authority, Limits)>;
    /// Whether that principal may, through that door, have a root run of this agent: asked again
    /// whenever one goes on under another policy or in another process.
    fn may_start(&self, principal: &str, place: &str, agent: &Name) -> bool;
    /// The tools a caller may see, in deterministic order.
    async fn tools(&self, caller: &Caller) -> Vec<ToolSpec>;
    /// Judges a call of a server's tool.
    async fn authorize(&self, caller: &Caller, tool: &str, arguments: Json) -> Authorized;
    /// Judges a call of one of the runtime's own tools. A gate that answers questions itself
    /// (`--yes`) does so here; `Ask` is left to the tree.
    fn authorize_runtime(&self, caller: &Caller, tool: &'static str) -> Verdict<RuntimeCall>;
    /// Puts something on record that the tree is about to do, or refused.
    ///
    /// # Errors
    /// When it cannot be put there: then it must not be done.
    async fn record(&self, caller: &Caller, deed: Deed<'_>) -> Result<(), Denial> {
        let _ = (caller, deed);
        Ok(())
    }
    /// Reads the `policy` of a spawn request.
    ///
    /// # Errors
    /// What is wrong with it.
    fn narrowing(&self, request: &Json) -> Result<(Narrowing, Limits), String>;
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// What the model is told.
    pub text: String,
    /// Whether the tool calls it an error.
    pub error: bool,
    /// What it says that it used of what was given along to it.
    pub used: Elsewhere,
}

/// Whether a call that gave no result happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhatHappened {
    /// It did not, or failed for certain.
    Failed,
    /// Nobody knows: it was sent, and no answer came.
    Unknown,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ToolFailure {
    /// In words for the model.
    pub why: String,
    /// Whether it happened.
    pub outcome: WhatHappened,
}

/// What a look at the outside said about a call nobody knew the outcome of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// It happened, with what the model is told.
    Happened(String),
    /// It did not.
    DidNot,
    /// It could not be found out.
    Unknown,
}

/// Performs what was permitted.
#[async_trait]
pub trait Toolbox: Send + Sync {
    /// Calls a tool. `key` is the same whenever the same call is made again; it goes out in
    /// `_meta` under `pleach/idempotency-key` and as the header `Idempotency-Key`.
    ///
    /// # Errors
    /// Why there is no result, and whether the call may have happened all the same.
    async fn call(
        &self,
        caller: &Caller,
        permit: Permit<Call>,
        key: &str,
        cancel: CancellationToken,
    ) -> Result<ToolOutput, ToolFailure>;
    /// Finds out, with the tool the policy names for it (`verify_with`), whether a call
    /// happened. That tool is judged like any other; where it may not be called the answer is
    /// [`Verified::Unknown`].
    async fn verify(&self, caller: &Caller, call: &ToolCall, key: &str, cancel: CancellationToken) -> Verified;
}
