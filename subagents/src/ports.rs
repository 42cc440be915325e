//! What the tree needs of the world, as traits that the rooms above implement.

use crate::event::{Record, ToolCall, Usage};
use crate::run::{Caller, RunId};
use crate::turn::Message;
use async_trait::async_trait;
use policies::action::{Call, Complete, RuntimeCall};
use policies::grant::Narrowing;
use policies::json::Json;
use policies::names::Name;
use policies::permit::{Denial, Permit, Rule};
use policies::resolve::Limits;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A tool as the model is shown it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The schema of its arguments.
    pub input_schema: Value,
}

/// What the model is asked.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks, for models that answer by agent.
    pub agent: &'a str,
    /// The system prompt.
    pub system: &'a str,
    /// The conversation.
    pub messages: &'a [Message],
    /// The tools it may want.
    pub tools: &'a [ToolSpec],
    /// Tokens it may write; the model's own limit where that is less.
    pub max_output: u64,
    /// How hard it should think, in the provider's words: `low` to `max`.
    pub effort: Option<&'a str>,
    /// The JSON Schema its last answer must fit, where the model can be held to one.
    pub schema: Option<&'a Value>,
    /// The run, for the provider's limits of one caller and for logs; never a secret.
    pub run: &'a RunId,
}

/// What it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its words.
    pub text: String,
    /// The tools it wants.
    pub calls: Vec<ToolCall>,
    /// Why it stopped: `end_turn`, `tool_use`, `max_tokens`, `stop_sequence`, `refusal`,
    /// `context` (the window is full), or another word of the provider's.
    pub stop: String,
    /// What it used.
    pub usage: Usage,
    /// The reply as its provider wrote it, where it must come back unchanged.
    pub blocks: Option<Value>,
    /// The provider's name for the model that answered, when it is another than was asked.
    pub answered_by: Option<String>,
}

/// Why it did not answer. What could be tried again was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ModelError {
    /// What kind of reason.
    pub kind: ModelFailure,
    /// In words a person can act on; holds no secret.
    pub why: String,
    /// What was used all the same: a stream that broke off in the middle is billed.
    pub usage: Usage,
}

impl ModelError {
    /// An error that cost nothing.
    pub fn new(kind: ModelFailure, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), usage: Usage::default() }
    }
}

/// What kind of reason a model has not to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFailure {
    /// The request is wrong, the key is, or the model is not there: no retry helps.
    Refused,
    /// The provider is overloaded, out of order or out of reach, and stayed so.
    Unavailable,
    /// The conversation is longer than the model's window.
    TooLong,
    /// The provider's own spending limit is reached.
    Spend,
    /// Whoever answers (a connected client) is gone.
    Gone,
}

/// What a model can take and what it costs, as far as this is known.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Tokens of its window.
    pub context: u64,
    /// Tokens it can write at most.
    pub max_output: u64,
    /// What it costs; `None` is unknown, not free.
    pub price: Option<policies::price::Price>,
}

/// Told pieces of a reply as they come.
pub type Delta<'a> = &'a (dyn for<'t> Fn(&'t str) + Send + Sync);

/// A model. Tells pieces of its reply as they come.
#[async_trait]
pub trait Model: Send + Sync {
    /// What is known about it.
    fn facts(&self) -> ModelFacts;
    /// Tokens the request has, counted by the provider or estimated on the high side.
    async fn count(&self, request: &Request<'_>) -> u64;
    /// Answers a request that was permitted.
    async fn complete(
        &self,
        permit: Permit<Complete>,
        request: Request<'_>,
        delta: Delta<'_>,
    ) -> Result<Reply, ModelError>;
}

/// What the guard decided about a call.
pub enum Authorized {
    /// May be performed.
    Allowed(Permit<Call>, Rule),
    /// May not.
    Denied(Denial),
    /// There is no such tool for this caller.
    Unknown,
}

/// The guard, as the tree sees it.
#[async_trait]
pub trait Gate: Send + Sync {
    /// The tools a caller may see, in deterministic order.
    async fn tools(&self, caller: &Caller) -> Vec<ToolSpec>;
    /// Judges a call of a server's tool.
    async fn authorize(&self, caller: &Caller, tool: &str, arguments: Json) -> Authorized;
    /// Judges a call of one of the runtime's own tools.
    ///
    /// # Errors
    /// The denial.
    fn authorize_runtime(&self, caller: &Caller, tool: &'static str) -> Result<(Permit<RuntimeCall>, Rule), Denial>;
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
}

/// Performs what was permitted.
#[async_trait]
pub trait Toolbox: Send + Sync {
    /// Calls a tool.
    ///
    /// # Errors
    /// Why there is no result, in words for the model.
    async fn call(
        &self,
        caller: &Caller,
        permit: Permit<Call>,
        cancel: CancellationToken,
    ) -> Result<ToolOutput, String>;
}

/// Why the journal could not be written. A run that cannot write does nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub struct JournalError(pub String);

/// A run as the journal lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// Its id.
    pub run: RunId,
    /// Its parent.
    pub parent: Option<RunId>,
    /// The root of its tree.
    pub root: RunId,
    /// Its depth.
    pub depth: u32,
    /// Its agent.
    pub agent: String,
    /// Its state.
    pub state: String,
    /// Model calls.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Tokens read and written.
    pub tokens: u64,
    /// Milliseconds since 1970 UTC.
    pub started: u64,
    /// Milliseconds since 1970 UTC, when it ended.
    pub ended: Option<u64>,
}

/// The journal. What `append` returned `Ok` for is durable.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes a record and what the list of runs says after it, in one transaction.
    async fn append(&self, record: &Record, row: &RunRow) -> Result<(), JournalError>;
}

/// All models of a policy file.
pub trait Models: Send + Sync {
    /// The model of that name.
    fn get(&self, name: &Name) -> Option<std::sync::Arc<dyn Model>>;
}
