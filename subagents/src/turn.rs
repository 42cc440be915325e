//! The agent loop as a pure function: `on(state, event)` changes the state and says what to do
//! next. No clock, no network, no await; the same events give the same effects, always.
//!
//! ```text
//!            Started                ModelReplied with calls
//!  (nothing) ───────▶ Think ──────────────────────────────▶ Act × n
//!                      ▲  │ ModelReplied without calls          │ ToolFinished × n
//!                      │  └──▶ Finish(completed)                │
//!                      └────────────────────────────────────────┘
//!  a limit reached: Finish(over_budget) instead of Think, Refuse instead of Act
//! ```

use crate::event::{Event, Outcome, ToolCall, Usage};
use crate::run;
use std::collections::BTreeMap;

/// One message of the conversation, as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// What the run was asked.
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

/// Everything a run is, as far as its events say.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The state others see.
    pub phase: run::State,
    /// The agent.
    pub agent: String,
    /// The model.
    pub model: String,
    /// The system prompt.
    pub system: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Model calls made.
    pub turns: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// What the model calls cost.
    pub usage: Usage,
    /// The answer, or why there is none.
    pub text: String,
    max_turns: u32,
    max_tool_calls: u32,
    /// Calls of the current turn: their results as far as they are there.
    open: BTreeMap<String, Option<ToolResult>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: run::State::Queued,
            agent: String::new(),
            model: String::new(),
            system: String::new(),
            messages: Vec::new(),
            turns: 0,
            tool_calls: 0,
            usage: Usage::default(),
            text: String::new(),
            max_turns: 0,
            max_tool_calls: 0,
            open: BTreeMap::new(),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the model, for the turn of this number.
    Think(u32),
    /// Perform a tool call.
    Act(ToolCall),
    /// Tell the model that a call is not performed.
    Refuse(ToolCall, String),
    /// End.
    Finish(run::State, String),
}

/// Takes an event in, gives effects out.
pub fn on(state: &mut State, event: &Event) -> Vec<Effect> {
    if state.phase.is_end() {
        return Vec::new();
    }
    match event {
        Event::Started(started) => {
            let crate::event::Started { agent, model, system, prompt, max_turns, max_tool_calls, .. } = &**started;
            state.agent.clone_from(agent);
            state.model.clone_from(model);
            state.system.clone_from(system);
            state.max_turns = *max_turns;
            state.max_tool_calls = *max_tool_calls;
            state.messages.push(Message::User(prompt.clone()));
            think(state)
        }
        Event::ModelRequested { .. } => {
            state.turns += 1;
            Vec::new()
        }
        Event::ModelReplied { text, calls, stop, usage, blocks, .. } => {
            let message = Message::Assistant { text: text.clone(), calls: calls.clone(), blocks: blocks.clone() };
            replied(state, message, stop, *usage)
        }

        Event::ToolFinished { id, outcome, text } => finished(state, id, *outcome, text),
        Event::Waiting(_) => {
            state.phase = run::State::Waiting;
            Vec::new()
        }
        Event::Finished { state: word, text, .. } => {
            state.phase = run::State::from_word(word).unwrap_or(run::State::Failed);
            state.text.clone_from(text);
            state.open.clear();
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn think(state: &mut State) -> Vec<Effect> {
    if state.turns >= state.max_turns {
        let text = format!("budget.turns is reached: {} of {} model calls made", state.turns, state.max_turns);
        return vec![Effect::Finish(run::State::OverBudget, text)];
    }
    state.phase = run::State::Thinking;
    vec![Effect::Think(state.turns)]
}

fn replied(state: &mut State, message: Message, stop: &str, usage: Usage) -> Vec<Effect> {
    state.usage = state.usage.plus(&usage);
    let Message::Assistant { text, calls, .. } = &message else { return Vec::new() };
    let (text, calls) = (text.clone(), calls.clone());
    state.messages.push(message);
    if calls.is_empty() {
        return vec![match stop {
            "max_tokens" => Effect::Finish(run::State::Failed, format!("the model ran out of tokens after: {text}")),
            "refusal" => Effect::Finish(run::State::Failed, format!("the model refused: {text}")),
            _ => Effect::Finish(run::State::Completed, text),
        }];
    }
    state.phase = run::State::Acting;
    state.open = calls.iter().map(|c| (c.id.clone(), None)).collect();
    let mut effects = Vec::new();
    for call in &calls {
        if state.tool_calls >= state.max_tool_calls {
            let why = format!(
                "denied: budget.tool_calls is reached: {} of {} made; answer with what you have",
                state.tool_calls, state.max_tool_calls
            );
            effects.push(Effect::Refuse(call.clone(), why));
        } else {
            state.tool_calls += 1;
            effects.push(Effect::Act(call.clone()));
        }
    }
    effects
}

fn finished(state: &mut State, id: &str, outcome: Outcome, text: &str) -> Vec<Effect> {
    let Some(Message::Assistant { calls, .. }) = state.messages.last() else { return Vec::new() };
    let calls = calls.clone();
    let Some(call) = calls.iter().find(|c| c.id == id) else { return Vec::new() };
    let Some(slot) = state.open.get_mut(id) else { return Vec::new() };
    let error = outcome != Outcome::Ok;
    *slot = Some(ToolResult { id: id.to_owned(), name: call.name.clone(), text: text.to_owned(), error });
    if state.open.values().any(Option::is_none) {
        return Vec::new();
    }
    let results = calls.iter().filter_map(|c| state.open.get(&c.id).cloned().flatten()).collect();
    state.open.clear();
    state.messages.push(Message::Results(results));
    think(state)
}
