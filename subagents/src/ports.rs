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
}

/// What it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its words.
    pub text: String,
    /// The tools it wants.
    pub calls: Vec<ToolCall>,
    /// Why it stopped.
    pub stop: String,
    /// What it cost.
    pub usage: Usage,
}

/// Why it did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModelError(pub String);

/// Told pieces of a reply as they come.
pub type Delta<'a> = &'a (dyn for<'t> Fn(&'t str) + Send + Sync);

/// A model. Tells pieces of its reply as they come.
#[async_trait]
pub trait Model: Send + Sync {
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
