//! An event into a state. The only code that changes one.

use super::{Asked, Asking, Background, Message, Open, Stage, State, ToolResult};
use crate::event::{Event, Outcome, Started, ToolCall, Usage, Waiting, WaitingFor};
use crate::history;
use crate::ports::Answer;
use crate::run;
use std::sync::Arc;

/// How often a model may correct an answer that has not the form it must have.
const CORRECTIONS: u32 = 2;

/// Takes an event in. What an ended run is told changes nothing, but that a message opens it.
pub fn on(state: &mut State, event: &Event) {
    if state.end.is_some() && !matches!(event, Event::MessageReceived { .. }) {
        return;
    }
    match event {
        Event::Started(started) => state.begin(started),
        Event::ModelRequested { turn, reserved } => {
            state.ask(Asking { turn: *turn, reserved: *reserved, summary: false });
            state.turns = turn + 1;
        }
        Event::ContextCompacting { reserved, .. } => {
            let turn = state.asking.map_or(state.turns, |asking| asking.turn);
            state.ask(Asking { turn, reserved: *reserved, summary: true });
        }
        Event::ContextCompacted { through, summary, usage, cost } => {
            state.billed(usage, *cost);
            history::compacted(state.messages(), *through as usize, summary);
        }
        Event::ContextTrimmed { replaced, .. } => history::trimmed(state.messages(), replaced),
        Event::AnswerChecked { turn, problem } if *turn == state.turns => state.checked(problem.as_deref()),
        // It was another word that was looked at.
        Event::AnswerChecked { .. } => {}
        Event::ResultKept { blob, .. } => {
            state.kept.insert(blob.clone());
        }
        Event::ModelReplied { text, calls, stop, usage, cost, blocks, .. } => {
            state.billed(usage, *cost);
            state.replied(text, calls, stop, blocks.clone());
        }
        Event::ModelFailed { usage, cost, .. } => state.billed(usage, *cost),
        Event::ArtifactEmitted { blob, .. } => state.kept.extend(blob.clone()),
        Event::Concluded { state: word, text, .. } => {
            let end = run::State::from_word(word).unwrap_or(run::State::Completed);
            state.word = Some((end, text.clone()));
        }
        Event::ToolRequested { .. } | Event::ToolDecided { .. } => {}
        Event::ToolDispatched { id, effect, key, attempt } => {
            let sent = Stage::Sent { effect: effect.clone(), key: key.clone(), attempt: *attempt };
            state.advance(id, sent);
        }
        Event::TaskCounted { used, .. } => state.elsewhere = state.elsewhere.plus(*used),
        Event::ToolFinished { id, outcome, text } => state.finished(id, *outcome, text),
        Event::ChildStarted { call, run, background: true } => {
            if state.background.iter().all(|b| b.run != *run) {
                state.background.push(Background { run: run.clone(), call: call.clone() });
            }
            state.parked = false;
        }
        Event::ChildStarted { call, run, background: false } => {
            if let Some(call) = call {
                state.advance(call, Stage::Child(run.clone()));
            }
        }
        Event::ChildFinished { run, agent, state: word, text } => {
            state.background.retain(|b| b.run != *run);
            state.inbox.push(format!("[the subagent {agent} ({run}) is {word}]\n{text}"));
            state.parked = false;
        }
        Event::Waiting(waiting) => state.wait(waiting),
        Event::Answered { id, by, answer, message, .. } => {
            state.heard.extend(message.as_ref().map(|message| super::named(message, id)));
            state.answered(id, by, Some(answer.clone()));
        }
        Event::TimedOut { id } => state.answered(id, "nobody", None),
        Event::MessageReceived { from, text, message, .. } => {
            state.heard.extend(message.as_ref().map(|message| super::named(message, text)));
            state.told(from, text);
        }
        Event::Resumed { .. } => state.parked = false,
        Event::Paused { .. } => state.paused = true,
        Event::Unpaused { .. } => state.paused = false,
        Event::Limited { max_turns, max_tool_calls, .. } => {
            (state.max_turns, state.max_tool_calls) = (*max_turns, *max_tool_calls);
        }
        Event::BudgetAlert { what, used, limit } => state.alerted(what, *used, *limit),
        Event::Finished { state: word, text, by } => state.ended(word, text, by.clone()),
    }
    state.settle();
}

impl State {
    fn messages(&mut self) -> &mut Vec<Message> {
        Arc::make_mut(&mut self.messages)
    }

    fn begin(&mut self, started: &Started) {
        self.started = true;
        self.agent.clone_from(&started.agent);
        self.model.clone_from(&started.model);
        self.system.clone_from(&started.system);
        self.max_turns = started.max_turns;
        self.max_tool_calls = started.max_tool_calls;
        self.schema = started.schema.clone().map(Arc::new);
        self.inbound = started.inbound.as_ref().map(|inbound| inbound.message.clone());
        self.cost = Some(0);
        self.messages().push(Message::User(started.prompt.clone()));
    }

    /// A request leaves; one that was under way will never be answered.
    fn ask(&mut self, asking: Asking) {
        if let Some(before) = self.asking.replace(asking) {
            self.lost = self.lost.plus(before.reserved);
        }
    }

    /// A request is over, and this is what it used.
    fn billed(&mut self, usage: &Usage, cost: Option<u64>) {
        if let Some(asking) = self.asking.take().filter(|asking| asking.summary) {
            self.turns = asking.turn;
        }
        self.usage = self.usage.plus(usage);
        self.cost = self.cost.zip(cost).map(|(a, b)| a.saturating_add(b));
    }

    fn replied(&mut self, text: &str, calls: &[ToolCall], stop: &str, blocks: Option<serde_json::Value>) {
        self.fits = false;
        self.messages().push(Message::Assistant { text: text.to_owned(), calls: calls.to_vec(), blocks });
        if calls.is_empty() {
            self.word = Some(match stop {
                "max_tokens" => (run::State::Failed, format!("the model ran out of tokens after: {text}")),
                "refusal" => (run::State::Failed, format!("the model refused: {text}")),
                _ => (run::State::Completed, text.to_owned()),
            });
            return;
        }
        for call in calls {
            let (_, made) = self.counted();
            let stage = if made >= self.max_tool_calls {
                Stage::Refused(format!(
                    "denied: budget.tool_calls is reached: {made} of {} made; answer with what you have",
                    self.max_tool_calls
                ))
            } else {
                self.tool_calls += 1;
                Stage::Wanted
            };
            self.calls.push(Open { call: Arc::new(call.clone()), asked: None, changed: None, stage });
        }
    }

    fn open(&mut self, id: &str) -> Option<&mut Open> {
        self.calls.iter_mut().find(|open| open.call.id == id && !matches!(open.stage, Stage::Done(_)))
    }

    fn advance(&mut self, id: &str, stage: Stage) {
        self.parked = false;
        if let Some(open) = self.open(id) {
            open.stage = stage;
        }
    }

    fn finished(&mut self, id: &str, outcome: Outcome, text: &str) {
        let Some(open) = self.open(id) else { return };
        let (name, error) = (open.call.name.clone(), outcome != Outcome::Ok);
        let text = format!("{}{text}", open.changed.as_deref().unwrap_or_default());
        self.advance(id, Stage::Done(ToolResult { id: id.to_owned(), name, text, error }));
        if self.open_calls().next().is_none() {
            self.collect();
        }
    }

    /// The results of a turn become a message; calls that are not done say so.
    fn collect(&mut self) {
        let calls = std::mem::take(&mut self.calls);
        let results = calls.into_iter().map(|open| match open.stage {
            Stage::Done(result) => result,
            _ => ToolResult {
                id: open.call.id.clone(),
                name: open.call.name.clone(),
                text: "unknown: the run ended before this call did; do not assume what it would have said".into(),
                error: true,
            },
        });
        let results = Message::Results(results.collect());
        self.messages().push(results);
    }

    fn wait(&mut self, waiting: &Waiting) {
        match &waiting.call {
            Some(call) if waiting.kind != WaitingFor::Children => {
                self.advance(call, Stage::Asked(Box::new(waiting.clone())));
            }
            _ => self.parked = true,
        }
    }

    fn answered(&mut self, id: &str, by: &str, answer: Option<Answer>) {
        self.parked = false;
        for open in &mut self.calls {
            if let Stage::Asked(question) = &open.stage
                && question.id == id
            {
                let (question, by) = ((**question).clone(), by.to_owned());
                if let (WaitingFor::Approval, Some(Answer::Input { value, note })) = (question.kind, &answer) {
                    // From here on it is another call under the same id; the model's own stays
                    // in the conversation as it was said.
                    open.changed = Some(changed(&by, value, note.as_deref()));
                    open.call = Arc::new(ToolCall { input: value.clone(), ..(*open.call).clone() });
                }
                open.asked = Some(Box::new(Asked { question, answer: answer.clone(), by }));
                open.stage = Stage::Wanted;
            }
        }
    }

    fn told(&mut self, from: &str, text: &str) {
        self.parked = false;
        if self.end.take().is_some() {
            self.text.clear();
            self.ended_by = None;
            self.paused = false;
            self.word = None;
            self.before = (self.turns, self.tool_calls);
            self.unfit = 0;
            self.alerts.retain(|what| what != "turns" && what != "tool_calls");
        }
        self.inbox.push(format!("[a message from {from}]\n{text}"));
    }

    /// The last word stands, is to be said again, or is the last of too many that do not fit.
    fn checked(&mut self, problem: Option<&str>) {
        let Some((_, text)) = &mut self.word else { return };
        let Some(problem) = problem else {
            *text = text.trim().to_owned();
            self.fits = true;
            return;
        };
        if self.unfit >= CORRECTIONS {
            let why = format!("the answer does not fit output_schema after {CORRECTIONS} corrections: {problem}");
            self.word = Some((run::State::Failed, why));
            return;
        }
        self.unfit += 1;
        self.word = None;
        self.messages().push(Message::User(format!(
            "[the answer does not have the form it must have: {problem}]\nGive the whole answer again: \
             only JSON that fits the schema, nothing before it and nothing after it."
        )));
    }

    /// The model hears of it once, in what it reads next.
    fn alerted(&mut self, what: &str, used: u64, limit: u64) {
        if !self.alerts.insert(what.to_owned()) {
            return;
        }
        let note = format!("\n[budget.{what}: {} left; finish with what you have]", left(what, used, limit));
        match self.messages().last_mut() {
            Some(Message::User(text)) => text.push_str(&note),
            Some(Message::Results(results)) => {
                if let Some(last) = results.last_mut() {
                    last.text.push_str(&note);
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, word: &str, text: &str, by: Option<String>) {
        self.end = Some(run::State::from_word(word).unwrap_or(run::State::Failed));
        text.clone_into(&mut self.text);
        self.ended_by = by;
        self.word = None;
        self.parked = false;
        self.background.clear();
        if let Some(asking) = self.asking.take() {
            self.lost = self.lost.plus(asking.reserved);
        }
        if !self.calls.is_empty() {
            self.collect();
        }
    }

    /// Between two turns, what the run was told is heard: it has no last word any more.
    fn settle(&mut self) {
        let between = self.end.is_none() && self.asking.is_none() && self.calls.is_empty();
        if !between || self.inbox.is_empty() {
            return;
        }
        let heard = std::mem::take(&mut self.inbox).join("\n\n");
        self.word = None;
        self.messages().push(Message::User(heard));
    }
}

/// What the model is told of a call that a person gave another input.
fn changed(by: &str, value: &serde_json::Value, note: Option<&str>) -> String {
    let mut shown = value.to_string();
    if let Some((at, _)) = shown.char_indices().nth(500) {
        shown.truncate(at);
        shown.push('…');
    }
    let note = note.map(|n| format!(": {n}")).unwrap_or_default();
    format!("[{by} changed the input to {shown}{note}]\n")
}

/// What is left of a budget, in words.
pub(crate) fn left(what: &str, used: u64, limit: u64) -> String {
    let left = limit.saturating_sub(used);
    match what {
        "usd" => format!("{} of {}", policies::price::Usd(left), policies::price::Usd(limit)),
        _ => format!("{left} of {limit}"),
    }
}
