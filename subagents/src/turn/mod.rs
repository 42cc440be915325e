//! The agent loop as two pure functions: [`on`] takes an event into the state, [`pending()`] says
//! what is still to be done. No clock, no network, no await.
//!
//! What is to be done depends on the state alone, never on the event that led to it. So a driver
//! that lives and one that resumes after a crash ask the same question and are the same code:
//! the live one skips what it has already in hand, the resumed one has nothing in hand.
//!
//! ```text
//! run:   Started        ModelRequested          ModelReplied          all calls Done
//!  (nothing) ──▶ Think ───────────────▶ asking ──────────────▶ calls ────────────────▶ Think …
//!                                                  │ none wanted
//!                                                  └─▶ word ─▶ (children in the background end) ─▶ Finish
//!                                                       └─ must have a form ─▶ Check ─┬─ fits ─▶ Finish
//!                                                                                     └─ does not ─▶ Think
//!
//! call:  Wanted ─┬─▶ Sent ────────────────┬─▶ Done        Wanted  → Act      Sent  → Redo
//!                ├─▶ Child ───────────────┤               Asked   → Await    Child → AwaitChild
//!                ├─▶ Asked ─▶ Wanted again│               Refused → Refuse
//!                └─▶ Refused ─────────────┘
//! ```

mod apply;
mod pending;

pub(crate) use apply::left;
pub use apply::on;
pub use pending::pending;

use crate::event::{Amount, Elsewhere, ToolCall, Usage, Waiting};
use crate::ports::Answer;
use crate::run;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One message of the conversation, as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// What the run was asked, and what it was told later.
    User(String),
    /// What the model said and wants.
    Assistant {
        /// Its words.
        text: String,
        /// The tools it wants.
        calls: Vec<ToolCall>,
        /// The same as its provider wrote it, where it must go back unchanged.
        blocks: Option<serde_json::Value>,
    },
    /// What the tools gave, in the order of the calls.
    Results(Vec<ToolResult>),
}

/// What one tool gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// What the model is told.
    pub text: String,
    /// Whether it is an error.
    pub error: bool,
}

/// What a person said about a call, and about what exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The question.
    pub question: Waiting,
    /// The answer; `None` when nobody gave one in time.
    pub answer: Option<Answer>,
    /// Who gave it.
    pub by: String,
}

/// How far a call is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// The model wants it; a person may have answered about it.
    Wanted,
    /// It is not performed, for this reason.
    Refused(String),
    /// A person is asked.
    Asked(Box<Waiting>),
    /// It has left, or was about to.
    Sent {
        /// What a repetition would mean.
        effect: String,
        /// The key it carries.
        key: String,
        /// From 1.
        attempt: u32,
    },
    /// A child works on it.
    Child(String),
    /// It is done with.
    Done(ToolResult),
}

/// A call of the current turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// The call.
    pub call: Arc<ToolCall>,
    /// What a person said about it.
    pub asked: Option<Box<Asked>>,
    /// What its result begins with, when a person gave it another input than the model did.
    pub changed: Option<String>,
    /// How far it is.
    pub stage: Stage,
}

/// A child that works while its parent does something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Background {
    /// The child.
    pub run: String,
    /// The call that started it, if one did.
    pub call: Option<String>,
}

/// A request to the model that was not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asking {
    turn: u32,
    reserved: Amount,
    /// It is for a summary, which is no turn.
    summary: bool,
}

/// A message under a client's name for it, and what it says or answers: some clients use a name
/// for several.
pub fn named(message: &str, what: &str) -> String {
    format!("{message}\n{what}")
}

/// Everything a run is, as far as its events say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// The agent.
    pub agent: String,
    /// The model.
    pub model: String,
    /// The system prompt.
    pub system: String,
    /// The conversation. Shared, so that a request can hold it while the run goes on.
    pub messages: Arc<Vec<Message>>,
    /// Calls of the current turn, in the model's order.
    pub calls: Vec<Open>,
    /// Children in the background that have not ended.
    pub background: Vec<Background>,
    /// Model calls made.
    pub turns: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// What the model calls used.
    pub usage: Usage,
    /// What they cost, in billionths of a dollar; `None`: unknown for at least one.
    pub cost: Option<u64>,
    /// What tasks elsewhere used that it had done.
    pub elsewhere: Elsewhere,
    /// The answer, or why there is none.
    pub text: String,
    /// Who ended it, when it did not end by itself.
    pub ended_by: Option<String>,
    /// Budgets of which most is used, as told.
    pub alerts: BTreeSet<String>,
    /// Whether it begins nothing new.
    pub paused: bool,
    /// The JSON Schema its answer must fit.
    pub schema: Option<Arc<serde_json::Value>>,
    /// The client's name for the message it began with.
    pub inbound: Option<String>,
    /// What it was told under names of the clients' own ([`named`]).
    pub heard: BTreeSet<String>,
    /// The handles of long texts it was given.
    pub kept: BTreeSet<String>,
    started: bool,
    end: Option<run::State>,
    /// Waits for children that wait.
    parked: bool,
    max_turns: u32,
    max_tool_calls: u32,
    asking: Option<Asking>,
    /// Model calls and tool calls made before it was last reopened: a run that is told something
    /// after its end has its numbers anew.
    before: (u32, u32),
    /// Whether its last word was found to fit, and how often one did not.
    fits: bool,
    unfit: u32,
    /// Reserved for requests whose answer never came; counted as spent.
    lost: Amount,
    /// How the run ends once nothing it started works any more.
    word: Option<(run::State, String)>,
    /// What it was told and has not heard yet.
    inbox: Vec<String>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the model, for the turn of this number.
    Think(u32),
    /// Perform a tool call, in the light of what a person said about it.
    Act(Arc<ToolCall>, Option<Box<Asked>>),
    /// Find out about a call that had left when its process died, or make it again.
    Redo {
        /// The call.
        call: Arc<ToolCall>,
        /// What a person said about it.
        asked: Option<Box<Asked>>,
        /// What a repetition would mean.
        effect: String,
        /// The key it carried.
        key: String,
        /// How often it was sent.
        attempt: u32,
    },
    /// Tell the model that a call is not performed.
    Refuse(Arc<ToolCall>, String),
    /// Let a child work until it ends or waits.
    AwaitChild {
        /// The child.
        run: String,
        /// The call that is open as long as it works; none for one in the background.
        call: Option<String>,
    },
    /// A person is to answer; the run can be put down until then.
    Await(Box<Waiting>),
    /// Look whether the last word has the form it must have.
    Check {
        /// How many model calls the run has made.
        turn: u32,
        /// The word.
        text: String,
    },
    /// End.
    Finish(run::State, String),
}

impl Effect {
    /// What tells two effects of one run apart: a driver has each in hand at most once.
    pub fn key(&self) -> String {
        match self {
            Effect::Think(_) => "think".into(),
            Effect::Act(call, _) | Effect::Redo { call, .. } | Effect::Refuse(call, _) => format!("call {}", call.id),
            Effect::AwaitChild { run, .. } => format!("child {run}"),
            Effect::Await(waiting) => format!("question {}", waiting.id),
            Effect::Check { .. } => "check".into(),
            Effect::Finish(..) => "finish".into(),
        }
    }
}

impl State {
    /// The state others see.
    pub fn phase(&self) -> run::State {
        let open = || self.calls.iter().filter(|open| !matches!(open.stage, Stage::Done(_)));
        match self.end {
            Some(end) => end,
            None if !self.started => run::State::Queued,
            None if self.paused || self.parked => run::State::Waiting,
            None if !self.calls.is_empty() => {
                match open().all(|open| matches!(open.stage, Stage::Asked(_))) && open().next().is_some() {
                    true => run::State::Waiting,
                    false => run::State::Acting,
                }
            }
            None if self.word.is_some() => run::State::Acting,
            None if self.turns == 0 => run::State::Queued,
            None => run::State::Thinking,
        }
    }
    /// What it waits for, in a word, when it does.
    pub fn waits_for(&self) -> Option<&'static str> {
        if self.phase() != run::State::Waiting {
            return None;
        }
        Some(match self.questions().next() {
            _ if self.paused => "pause",
            Some(waiting) => waiting.kind.as_str(),
            None => "children",
        })
    }
    /// Bytes it was told and has not heard yet.
    pub fn unheard(&self) -> usize {
        self.inbox.iter().map(String::len).sum()
    }
    /// The questions a person is asked.
    pub fn questions(&self) -> impl Iterator<Item = &Waiting> {
        self.calls.iter().filter_map(|open| match &open.stage {
            Stage::Asked(waiting) => Some(&**waiting),
            _ => None,
        })
    }
    /// The calls that are not done.
    pub fn open_calls(&self) -> impl Iterator<Item = &Open> {
        self.calls.iter().filter(|open| !matches!(open.stage, Stage::Done(_)))
    }
    /// Model calls and tool calls it may make.
    pub fn limits(&self) -> (u32, u32) {
        (self.max_turns, self.max_tool_calls)
    }
    /// Model calls and tool calls that count against them: those made since the run was last
    /// reopened. What bounds it however often it is reopened are the tree's budgets.
    pub fn counted(&self) -> (u32, u32) {
        (self.turns.saturating_sub(self.before.0), self.tool_calls.saturating_sub(self.before.1))
    }
    /// Whether it waits for children that wait, as far as its journal says.
    pub fn is_parked(&self) -> bool {
        self.parked
    }
    /// What its model calls used and cost, those included whose answer never came: these count
    /// with all that was reserved for them.
    pub fn spent(&self) -> Amount {
        let known = Amount { tokens: self.usage.total(), usd: self.cost };
        let asking = self.asking.map(|a| a.reserved).unwrap_or_default();
        known.plus(self.lost).plus(asking)
    }
}
