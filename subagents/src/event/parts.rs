//! What events are made of.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a run begins: all that is needed to begin it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// Its agent.
    pub agent: String,
    /// The model it uses.
    pub model: String,
    /// Its system prompt, kept: a resumed run has the prompt it started with.
    pub system: String,
    /// What it was asked.
    pub prompt: String,
    /// Its parent, unless it is a root.
    pub parent: Option<String>,
    /// The root of its tree.
    pub root: String,
    /// Its depth.
    pub depth: u32,
    /// The client it acts for.
    pub principal: String,
    /// Model calls it may make.
    pub max_turns: u32,
    /// Tool calls it may make.
    pub max_tool_calls: u32,
    /// The parent's call that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Whether that call did not wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// What the spawn asked for (`policy`, `tools`), as JSON text: with it the authority is worked
    /// out again under the policy of the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What it and all it starts may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// The door it came through, in the door's own words; a root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The message it began with, where a protocol has messages with names of their own. A root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Why no person can be asked; absent: one can. A root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nobody: Option<String>,
    /// The JSON Schema its answer must fit, kept like the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The run this one was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// The ancestors whose authority bounds this run though they are not in its tree: those of
    /// the run it was forked from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<Step>,
}

/// A client's message that a run begins with (A2A `Message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// The client's name for it.
    pub message: String,
    /// The conversation it belongs to; absent: one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Its parts as they were sent; absent: one text, which is what was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Value>,
}

/// A result that made room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// Which message of the conversation, from 0.
    pub message: u32,
    /// Which result in it, from 0.
    pub result: u32,
    /// What the model sees instead.
    pub text: String,
}

/// One spawn of a lineage: an agent, and what was asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The agent.
    pub agent: String,
    /// What the spawn asked for, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// What a run and all it starts may use; absent: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Billionths of a dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<u64>,
    /// Tokens read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Model calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    /// Tool calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
}

/// Tokens and what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amount {
    /// Tokens.
    pub tokens: u64,
    /// Billionths of a dollar; absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<u64>,
}

impl Amount {
    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.tokens == 0 && self.usd.unwrap_or(0) == 0
    }
    /// Both together; an unknown cost counts as nothing here, being unlimited by construction.
    pub fn plus(self, other: Amount) -> Amount {
        let usd = self.usd.unwrap_or(0).saturating_add(other.usd.unwrap_or(0));
        Amount { tokens: self.tokens.saturating_add(other.tokens), usd: Some(usd) }
    }
}

/// What a task elsewhere used of what was given along to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Elsewhere {
    /// Billionths of a dollar, as far as known.
    pub usd: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// Model calls.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Runs, the one that began there included.
    pub runs: u32,
}

impl Elsewhere {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            usd: self.usd.saturating_add(other.usd),
            tokens: self.tokens.saturating_add(other.tokens),
            turns: self.turns.saturating_add(other.turns),
            tool_calls: self.tool_calls.saturating_add(other.tool_calls),
            runs: self.runs.saturating_add(other.runs),
        }
    }
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// A person allows a call.
    Approval,
    /// A person answers a question of the model's.
    Question,
    /// What it started, where that waits itself; also what journals say that name nothing.
    #[default]
    Children,
}

impl WaitingFor {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitingFor::Approval => "approval",
            WaitingFor::Question => "question",
            WaitingFor::Children => "children",
        }
    }
}

/// The run waits: for a person, or for children that do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// The question's id, `q-…`; empty for children.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The call that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// For what.
    #[serde(default)]
    pub kind: WaitingFor,
    /// The question, in words; `reason` in journals of the first version.
    #[serde(default, alias = "reason", skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// When it is too late, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Who is who, from the root to the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// What an approval is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Options, schema, or the tool and its arguments.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// What counts as answered when nobody does in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// A tool the model wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The model's id for it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments.
    pub input: Value,
}

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It gave a result.
    Ok,
    /// It gave an error.
    Error,
    /// It was not allowed.
    Denied,
    /// Nobody knows whether it happened.
    Unknown,
}

/// What a model call used. The parts are disjoint: what was read from a cache is not in `input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read, neither from a cache nor into one.
    pub input: u64,
    /// Tokens written, thinking included.
    pub output: u64,
    /// Tokens read from the provider's cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read: u64,
    /// Tokens read and kept in the cache for minutes.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// Tokens read and kept in the cache for an hour.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_long: u64,
    /// Whether somebody guessed: who answered did not say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

impl Usage {
    /// The same in the words of the price table.
    pub fn tokens(&self) -> policies::price::Tokens {
        policies::price::Tokens {
            input: self.input,
            output: self.output,
            cache_read: self.cache_read,
            cache_write: self.cache_write,
            cache_write_long: self.cache_write_long,
        }
    }
    /// All tokens, whatever they cost.
    pub fn total(&self) -> u64 {
        self.read().saturating_add(self.output)
    }
    /// All tokens read.
    pub fn read(&self) -> u64 {
        let cached = self.cache_read.saturating_add(self.cache_write).saturating_add(self.cache_write_long);
        self.input.saturating_add(cached)
    }
    /// Both together.
    pub fn plus(&self, other: &Usage) -> Usage {
        Usage {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_write_long: self.cache_write_long.saturating_add(other.cache_write_long),
            estimated: self.estimated || other.estimated,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
