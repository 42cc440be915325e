//! What happened. Events are the journal, the stream that observers watch, and the only thing
//! that changes a run. Fields that came later have defaults, so that old journals still read.

mod parts;

pub use parts::{
    Amount, Budget, Elsewhere, Inbound, Outcome, Replaced, Started, Step, ToolCall, Usage, Waiting, WaitingFor,
};

use crate::ports::Answer;
use crate::run::{RunId, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that happened to a run. The names are the contract of `run --json` and `show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Event {
    /// The run exists.
    #[serde(rename = "run.started")]
    Started(Box<Started>),
    /// The model is about to be asked.
    #[serde(rename = "model.requested")]
    ModelRequested {
        /// Which request of the run, from 0. Asked again after a crash, it has the same number.
        turn: u32,
        /// What it may cost at most.
        #[serde(default, skip_serializing_if = "Amount::is_zero")]
        reserved: Amount,
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
        /// What that cost, in billionths of a dollar; absent: unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<u64>,
        /// The reply as its provider wrote it, where the conversation needs it back unchanged:
        /// thinking with its signature, blocks of kinds unknown here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocks: Option<Value>,
        /// The provider's name for the model that answered, when it is another than was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered_by: Option<String>,
    },
    /// The model did not answer, and it was billed or the run goes on.
    #[serde(rename = "model.failed")]
    ModelFailed {
        /// Why.
        why: String,
        /// What it used all the same.
        usage: Usage,
        /// What that cost, in billionths of a dollar; absent: unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<u64>,
    },
    /// The last word of a run whose answer must have a form was looked at.
    #[serde(rename = "answer.checked")]
    AnswerChecked {
        /// How many model calls the run had made when it was said.
        turn: u32,
        /// What does not fit; absent: it fits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// Old results of the conversation made room: the model sees a line in the place of each.
    #[serde(rename = "context.trimmed")]
    ContextTrimmed {
        /// How many messages from the beginning were looked through.
        through: u32,
        /// What stands where now.
        replaced: Vec<Replaced>,
    },
    /// A model is about to be asked for a summary of the conversation so far.
    #[serde(rename = "context.compacting")]
    ContextCompacting {
        /// Which model.
        model: String,
        /// What it may cost at most.
        #[serde(default, skip_serializing_if = "Amount::is_zero")]
        reserved: Amount,
    },
    /// The conversation so far is its summary now; the first message and the last turns stay.
    #[serde(rename = "context.compacted")]
    ContextCompacted {
        /// How many messages from the beginning are in the summary; the first of them stays.
        through: u32,
        /// The summary.
        summary: String,
        /// What it used.
        usage: Usage,
        /// What that cost, in billionths of a dollar; absent: unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<u64>,
    },
    /// A text was too long to be shown whole, and is kept: the run was given this handle of it.
    #[serde(rename = "result.kept")]
    ResultKept {
        /// The call it is of; absent: a report of a child, or something that made room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<String>,
        /// Its handle.
        blob: String,
        /// How long it is.
        bytes: u64,
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
        /// `allow`, `ask` or `deny`.
        verdict: String,
        /// The deciding rule, with file and line where it has one.
        rule: String,
        /// Who is who, from the root to the run.
        chain: Vec<String>,
        /// What a person could change; never shown to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fix: Option<String>,
    },
    /// The call is about to leave: the durable intent.
    #[serde(rename = "tool.dispatched")]
    ToolDispatched {
        /// The call.
        id: String,
        /// What a repetition would mean: `pure`, `idempotent`, `verifiable`, `once`.
        effect: String,
        /// The key it goes out with, the same every time.
        key: String,
        /// From 1.
        attempt: u32,
    },
    /// A task elsewhere ended, and what it used counts here as a child's would.
    #[serde(rename = "task.counted")]
    TaskCounted {
        /// The call that had it done.
        id: String,
        /// What it used there, as far as it was given that.
        used: Elsewhere,
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
    /// A child was started, or woken by a message. In one transaction with what the child's own
    /// journal says of it.
    #[serde(rename = "child.started")]
    ChildStarted {
        /// The call that started it; none when somebody outside woke it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<String>,
        /// The child.
        run: String,
        /// Whether the call is over while the child works.
        #[serde(default)]
        background: bool,
    },
    /// A child in the background ended.
    #[serde(rename = "child.finished")]
    ChildFinished {
        /// The child.
        run: String,
        /// Its agent.
        agent: String,
        /// How.
        state: String,
        /// What the model is told.
        text: String,
    },
    /// The run waits.
    #[serde(rename = "run.waiting")]
    Waiting(Box<Waiting>),
    /// A question of the run is answered.
    #[serde(rename = "run.answered")]
    Answered {
        /// The question.
        id: String,
        /// Who said it.
        by: String,
        /// What.
        answer: Answer,
        /// The client's name for the message it said it with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// That message's parts as they were sent; absent: one text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parts: Option<Value>,
    },
    /// Nobody answered in time.
    #[serde(rename = "run.timed_out")]
    TimedOut {
        /// The question.
        id: String,
    },
    /// Somebody says something to the run.
    #[serde(rename = "message.received")]
    MessageReceived {
        /// Who: a run, a client.
        from: String,
        /// What.
        text: String,
        /// The client's name for the message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Its parts as they were sent; absent: one text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parts: Option<Value>,
    },
    /// The run made something.
    #[serde(rename = "artifact.emitted")]
    ArtifactEmitted {
        /// Its name.
        name: String,
        /// What it is.
        media_type: String,
        /// It itself, when it is small.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Where it is kept, when it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blob: Option<String>,
        /// Where it is, when it is elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// `base64`: the text is written in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<String>,
        /// More of it follows, under the same name.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
    /// The run said by a tool how it ends, once nothing it started works any more.
    #[serde(rename = "run.concluded")]
    Concluded {
        /// How: `completed` or `rejected`.
        state: String,
        /// Its answer, or why there is none.
        text: String,
        /// It is a word of the conversation, and no result of work.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reply: bool,
    },
    /// Somebody works on the run again.
    #[serde(rename = "run.resumed")]
    Resumed {
        /// Under which claim.
        epoch: u64,
    },
    /// The run does nothing new.
    #[serde(rename = "run.paused")]
    Paused {
        /// Who wanted it.
        by: String,
    },
    /// It goes on.
    #[serde(rename = "run.unpaused")]
    Unpaused {
        /// Who wanted it.
        by: String,
    },
    /// What the run is held to from here on: the lesser of what it began with and of what its
    /// client, its door and its agents allow by now. Said when that changed while it did not work.
    #[serde(rename = "run.limited")]
    Limited {
        /// Model calls.
        max_turns: u32,
        /// Tool calls.
        max_tool_calls: u32,
        /// What it and all it starts may use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
    },
    /// Most of a budget is used; said once for each.
    #[serde(rename = "budget.alert")]
    BudgetAlert {
        /// `usd`, `tokens`, `turns` or `tool_calls`.
        what: String,
        /// How much is used, in the budget's own unit (billionths of a dollar).
        used: u64,
        /// Of how much.
        limit: u64,
    },
    /// The run ended.
    #[serde(rename = "run.finished")]
    Finished {
        /// How.
        state: String,
        /// Its answer, or why there is none.
        text: String,
        /// Who ended it, when it did not end by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

impl Event {
    /// The name in the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Started(_) => "run.started",
            Event::ModelRequested { .. } => "model.requested",
            Event::ModelReplied { .. } => "model.replied",
            Event::ModelFailed { .. } => "model.failed",
            Event::AnswerChecked { .. } => "answer.checked",
            Event::ContextTrimmed { .. } => "context.trimmed",
            Event::ContextCompacting { .. } => "context.compacting",
            Event::ContextCompacted { .. } => "context.compacted",
            Event::ResultKept { .. } => "result.kept",
            Event::ToolRequested { .. } => "tool.requested",
            Event::ToolDecided { .. } => "tool.decided",
            Event::ToolDispatched { .. } => "tool.dispatched",
            Event::TaskCounted { .. } => "task.counted",
            Event::ToolFinished { .. } => "tool.finished",
            Event::ChildStarted { .. } => "child.started",
            Event::ChildFinished { .. } => "child.finished",
            Event::Waiting(_) => "run.waiting",
            Event::Answered { .. } => "run.answered",
            Event::TimedOut { .. } => "run.timed_out",
            Event::MessageReceived { .. } => "message.received",
            Event::ArtifactEmitted { .. } => "artifact.emitted",
            Event::Concluded { .. } => "run.concluded",
            Event::Resumed { .. } => "run.resumed",
            Event::Paused { .. } => "run.paused",
            Event::Unpaused { .. } => "run.unpaused",
            Event::Limited { .. } => "run.limited",
            Event::BudgetAlert { .. } => "budget.alert",
            Event::Finished { .. } => "run.finished",
        }
    }
    /// The end, in a state.
    pub fn finished(state: State, text: impl Into<String>) -> Self {
        Event::Finished { state: state.as_str().to_owned(), text: text.into(), by: None }
    }
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
