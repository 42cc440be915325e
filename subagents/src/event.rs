//! What happened. Events are the journal, the stream that observers watch, and the only thing
//! that changes a run.

use crate::run::{RunId, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that happened to a run. The names are the contract of `run --json` and `show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Event {
    /// The run exists.
    #[serde(rename = "run.started")]
    Started {
        /// Its agent.
        agent: String,
        /// The model it uses.
        model: String,
        /// Its system prompt, kept: a resumed run has the prompt it started with.
        system: String,
        /// What it was asked.
        prompt: String,
        /// Its parent, unless it is a root.
        parent: Option<String>,
        /// The root of its tree.
        root: String,
        /// Its depth.
        depth: u32,
        /// The client it acts for.
        principal: String,
        /// Model calls it may make.
        max_turns: u32,
        /// Tool calls it may make.
        max_tool_calls: u32,
    },
    /// The model is about to be asked.
    #[serde(rename = "model.requested")]
    ModelRequested {
        /// Which request of the run, from 0.
        turn: u32,
    },
    /// The model answered.
    #[serde(rename = "model.replied")]
    ModelReplied {
        /// Its words.
        text: String,
        /// The tools it wants.
        calls: Vec<ToolCall>,
        /// Why it stopped.
        stop: String,
        /// What it used.
        usage: Usage,
        /// The reply as its provider wrote it, where the conversation needs it back unchanged:
        /// thinking with its signature, blocks of kinds unknown here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocks: Option<Value>,
        /// The provider's name for the model that answered, when it is another than was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered_by: Option<String>,
    },
    /// A tool is wanted.
    #[serde(rename = "tool.requested")]
    ToolRequested {
        /// The model's id for the call.
        id: String,
        /// The tool.
        name: String,
        /// The arguments.
        input: Value,
    },
    /// The guard decided.
    #[serde(rename = "tool.decided")]
    ToolDecided {
        /// The call.
        id: String,
        /// `allow` or `deny`.
        verdict: String,
        /// The deciding rule, with file and line where it has one.
        rule: String,
        /// Who is who, from the root to the run.
        chain: Vec<String>,
        /// What a person could change; never shown to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fix: Option<String>,
    },
    /// The tool is done with.
    #[serde(rename = "tool.finished")]
    ToolFinished {
        /// The call.
        id: String,
        /// `ok`, `error`, `denied` or `unknown`.
        outcome: Outcome,
        /// What the model is told.
        text: String,
    },
    /// The run waits for a person.
    #[serde(rename = "run.waiting")]
    Waiting {
        /// For what.
        reason: String,
    },
    /// The run ended.
    #[serde(rename = "run.finished")]
    Finished {
        /// How.
        state: String,
        /// Its answer, or why there is none.
        text: String,
    },
}

impl Event {
    /// The name in the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Started { .. } => "run.started",
            Event::ModelRequested { .. } => "model.requested",
            Event::ModelReplied { .. } => "model.replied",
            Event::ToolRequested { .. } => "tool.requested",
            Event::ToolDecided { .. } => "tool.decided",
            Event::ToolFinished { .. } => "tool.finished",
            Event::Waiting { .. } => "run.waiting",
            Event::Finished { .. } => "run.finished",
        }
    }
    /// The end, in a state.
    pub fn finished(state: State, text: impl Into<String>) -> Self {
        Event::Finished { state: state.as_str().to_owned(), text: text.into() }
    }
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
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// An event with its place in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The run.
    pub run: RunId,
    /// Its number in the run, from 1, without gaps.
    pub seq: u64,
    /// When, milliseconds since 1970 UTC.
    pub at: u64,
    /// What.
    pub event: Event,
}

impl Record {
    /// The contract's form: the event's own fields with `run`, `seq` and `at`.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(&self.event).unwrap_or_default();
        if let Value::Object(object) = &mut value {
            object.insert("run".into(), self.run.as_str().into());
            object.insert("seq".into(), self.seq.into());
            object.insert("at".into(), self.at.into());
        }
        value
    }
}

/// What observers see: what happened, or a piece of what the model is just saying.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A journalled event.
    Record(Record),
    /// A piece of a reply, before the whole is journalled.
    Delta {
        /// The run.
        run: RunId,
        /// The number of the last journalled event.
        seq: u64,
        /// When, milliseconds since 1970 UTC.
        at: u64,
        /// The piece.
        text: String,
    },
}

impl Seen {
    /// The contract's form.
    pub fn to_json(&self) -> Value {
        match self {
            Seen::Record(record) => record.to_json(),
            Seen::Delta { run, seq, at, text } => {
                serde_json::json!({ "type": "model.delta", "run": run.as_str(), "seq": seq, "at": at, "text": text })
            }
        }
    }
    /// The run it concerns.
    pub fn run(&self) -> &RunId {
        match self {
            Seen::Record(record) => &record.run,
            Seen::Delta { run, .. } => run,
        }
    }
}
