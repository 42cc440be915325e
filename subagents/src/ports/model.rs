//! What the tree needs of a model.

use crate::event::{ToolCall, Usage};
use crate::run::RunId;
use crate::turn::Message;
use async_trait::async_trait;
use policies::action::Complete;
use policies::names::Name;
use policies::permit::Permit;
use serde_json::Value;

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
    /// The client's name for the message the run began with, for models that answer by it.
    pub message: Option<&'a str>,
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
    /// The root of its tree: whose client it is.
    pub root: &'a RunId,
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
    /// Whether somebody outside is told the request to count it.
    fn counts_outside(&self) -> bool {
        false
    }
    /// Answers a request that was permitted.
    async fn complete(
        &self,
        permit: Permit<Complete>,
        request: Request<'_>,
        delta: Delta<'_>,
    ) -> Result<Reply, ModelError>;
}

/// The clients behind the trees, whose own models can be asked.
#[async_trait]
pub trait Sampler: Send + Sync {
    /// The client a tree works for, if it is there and lends its model.
    ///
    /// # Errors
    /// Why there is none, for a person.
    async fn client(&self, root: &RunId) -> Result<std::sync::Arc<dyn Lender>, String>;
}

/// A client that lends its model.
#[async_trait]
pub trait Lender: Send + Sync {
    /// Whether that model may be given tools.
    fn takes_tools(&self) -> bool;
    /// Asks it once: the request and the answer as the door speaks them.
    ///
    /// # Errors
    /// What it said instead, or that it is gone.
    async fn create_message(&self, params: Value) -> Result<Value, String>;
}

/// All models of a policy file.
pub trait Models: Send + Sync {
    /// The model of that name.
    fn get(&self, name: &Name) -> Option<std::sync::Arc<dyn Model>>;
}
