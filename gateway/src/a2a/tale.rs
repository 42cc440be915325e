//! What the events of a tree come to, as a task (A2A 1.0, sections 4.1.1 to 4.1.3). The only place
//! that makes tasks of runs: a snapshot and a stream are the same fold, looked at once or all along.
//!
//! ```text
//!   SUBMITTED ─▶ WORKING ◀─answered─ INPUT_REQUIRED (ask_user) · AUTH_REQUIRED (approval)
//!                  ├──────asks────────▶┘
//!                  └─▶ COMPLETED (its last words are the artifact `answer`) · FAILED · CANCELED · REJECTED
//! ```

use super::parts;
use serde_json::{Value, json};
use subagents::event::{Event, Record, Started, WaitingFor};
use subagents::ports::{Answer, RunRow};
use subagents::run::State;

/// What the run's last words are called.
pub(super) const ANSWER: &str = "answer";

/// The states of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    Submitted,
    Working,
    InputRequired,
    AuthRequired,
    Completed,
    Failed,
    Canceled,
    Rejected,
}

impl TaskState {
    pub(super) const ALL: [TaskState; 8] = [
        TaskState::Submitted,
        TaskState::Working,
        TaskState::InputRequired,
        TaskState::AuthRequired,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Canceled,
        TaskState::Rejected,
    ];
    pub(super) fn as_str(self) -> &'static str {
        match self {
            TaskState::Submitted => "TASK_STATE_SUBMITTED",
            TaskState::Working => "TASK_STATE_WORKING",
            TaskState::InputRequired => "TASK_STATE_INPUT_REQUIRED",
            TaskState::AuthRequired => "TASK_STATE_AUTH_REQUIRED",
            TaskState::Completed => "TASK_STATE_COMPLETED",
            TaskState::Failed => "TASK_STATE_FAILED",
            TaskState::Canceled => "TASK_STATE_CANCELED",
            TaskState::Rejected => "TASK_STATE_REJECTED",
        }
    }
    pub(super) fn is_terminal(self) -> bool {
        matches!(self, TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected)
    }
    /// Whether it waits for whoever asked.
    pub(super) fn is_interrupted(self) -> bool {
        matches!(self, TaskState::InputRequired | TaskState::AuthRequired)
    }
    fn of_end(state: &str) -> Self {
        match State::from_word(state) {
            Some(State::Completed) => TaskState::Completed,
            Some(State::Cancelled) => TaskState::Canceled,
            Some(State::Rejected) => TaskState::Rejected,
            _ => TaskState::Failed,
        }
    }
}

/// Something that was made, in the pieces it came in.
#[derive(Debug, Clone)]
pub(super) struct Artifact {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) media_type: String,
    pub(super) pieces: Vec<Piece>,
    /// More of it follows.
    pub(super) more: bool,
}

/// A piece of what was made.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Text(String),
    /// Kept in the store, because it is large.
    Blob(String),
    /// Binary, in base64; kept in the store where it is a name there.
    Base64(String),
    Base64Blob(String),
    /// Elsewhere.
    Url(String),
}

/// Something a person is asked.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) id: String,
    pub(super) kind: WaitingFor,
    text: String,
    /// Options and schema.
    pub(super) detail: Value,
}

/// A change of a task.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Status,
    /// What came of an artifact, and whether it is added to what was there.
    Artifact(Artifact, bool),
}

/// A task, as far as its events were read.
#[derive(Debug, Clone)]
pub(super) struct Tale {
    pub(super) id: String,
    pub(super) context: String,
    pub(super) agent: String,
    pub(super) state: TaskState,
    /// What the agent says with its status, and the number of the event it said it with.
    said: Option<(u64, String)>,
    /// The last position that was read, which is the task's generation, and its time.
    pub(super) n: u64,
    at: u64,
    history: Vec<Value>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) open: Vec<Open>,
    structured: bool,
    /// Its last words are a word of the conversation.
    reply: bool,
    /// The names of the client's messages.
    heard: Vec<String>,
}

/// `2026-11-20T10:00:00.000Z`
pub(super) fn timestamp(millis: u64) -> String {
    let at = i64::try_from(millis).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Tale {
    /// Of a root run, before anything was read of it.
    pub(super) fn new(row: &RunRow) -> Self {
        let id = row.run.to_string();
        Self {
            context: id.clone(),
            id,
            agent: row.agent.clone(),
            state: TaskState::Submitted,
            said: None,
            n: 0,
            at: row.started,
            history: Vec::new(),
            artifacts: Vec::new(),
            open: Vec::new(),
            structured: false,
            reply: false,
            heard: Vec::new(),
        }
    }
    /// Whether the client said something under that name.
    pub(super) fn has_heard(&self, message: &str) -> bool {
        self.heard.iter().any(|known| known == message)
    }
    /// The question that is answered next.
    pub(super) fn question(&self) -> Option<&Open> {
        self.open.first()
    }

    /// Reads an event of the tree, and says what changed.
    pub(super) fn take(&mut self, n: u64, record: &Record) -> Vec<Change> {
        (self.n, self.at) = (n, record.at);
        let own = record.run.as_str() == self.id;
        match &record.event {
            Event::Started(started) if own => {
                self.begin(started, record.seq);
                Vec::new()
            }
            Event::ModelRequested { .. } if own => self.become_(TaskState::Working, None, record.seq),
            // What it says before it uses its tools.
            Event::ModelReplied { text, calls, .. } if own && !calls.is_empty() && !text.trim().is_empty() => {
                self.say(record.seq, text.clone());
                vec![Change::Status]
            }
            Event::Waiting(waiting) if waiting.kind != WaitingFor::Children => {
                let (id, text) = (waiting.id.clone(), waiting.question.clone());
                self.open.push(Open { id, kind: waiting.kind, text, detail: waiting.detail.clone() });
                self.asks(record.seq)
            }
            Event::Answered { id, answer, message, .. } => {
                self.open.retain(|open| open.id != *id);
                if let Some(message) = message {
                    self.hear(message.clone(), &words(answer));
                }
                self.asks(record.seq)
            }
            Event::TimedOut { id } => {
                self.open.retain(|open| open.id != *id);
                self.asks(record.seq)
            }
            Event::MessageReceived { text, message, .. } if own => {
                let message = message.clone().unwrap_or_else(|| format!("{}-{}", self.id, record.seq));
                self.hear(message, text);
                self.become_(TaskState::Working, None, record.seq)
            }
            Event::ArtifactEmitted { name, media_type, text, blob, url, encoding, more } => {
                let binary = encoding.as_deref() == Some("base64");
                let piece = match (url, blob, text) {
                    (Some(url), _, _) => Piece::Url(url.clone()),
                    (_, Some(blob), _) if binary => Piece::Base64Blob(blob.clone()),
                    (_, Some(blob), _) => Piece::Blob(blob.clone()),
                    (_, _, text) if binary => Piece::Base64(text.clone().unwrap_or_default()),
                    (_, _, text) => Piece::Text(text.clone().unwrap_or_default()),
                };
                let id = format!("{}-{}", record.run, record.seq);
                let (name, media_type) = (name.clone(), media_type.clone());
                vec![
                    self.make(Artifact { id, name, media_type, pieces: vec![piece], more: *more }, record.run.as_str()),
                ]
            }
            Event::Concluded { reply: true, .. } if own => {
                self.reply = true;
                Vec::new()
            }
            Event::Finished { state, text, .. } if own => self.finish(TaskState::of_end(state), text, record.seq),
            _ => Vec::new(),
        }
    }
    fn begin(&mut self, started: &Started, seq: u64) {
        let mut message = format!("{}-{seq}", self.id);
        if let Some(inbound) = &started.inbound {
            message = inbound.message.clone();
            if let Some(context) = &inbound.context {
                self.context = context.clone();
            }
        }
        self.structured = started.schema.is_some();
        self.hear(message, &started.prompt);
    }
    /// Something of the client's.
    fn hear(&mut self, message: String, text: &str) {
        self.past();
        let said = self.message(&message, "ROLE_USER", text);
        self.history.push(said);
        self.heard.push(message);
    }
    fn say(&mut self, seq: u64, text: String) {
        self.past();
        self.said = Some((seq, text));
    }
    /// What was said with the status is past when something else is said.
    fn past(&mut self) {
        if let Some(said) = self.status_message() {
            self.history.push(said);
        }
        self.said = None;
    }
    fn become_(&mut self, state: TaskState, said: Option<String>, seq: u64) -> Vec<Change> {
        if self.state == state && said.is_none() {
            return Vec::new();
        }
        self.state = state;
        if let Some(said) = said {
            self.say(seq, said);
        }
        vec![Change::Status]
    }
    /// How it stands with questions after one came or went.
    fn asks(&mut self, seq: u64) -> Vec<Change> {
        if self.state.is_terminal() {
            return Vec::new();
        }
        let Some(open) = self.open.first() else { return self.become_(TaskState::Working, None, seq) };
        let state = match open.kind {
            WaitingFor::Approval => TaskState::AuthRequired,
            _ => TaskState::InputRequired,
        };
        let text = open.text.clone();
        self.become_(state, Some(text), seq)
    }
    /// Takes in what a run made: what was announced under the same name goes on.
    fn make(&mut self, mut made: Artifact, run: &str) -> Change {
        let goes_on = |known: &&mut Artifact| known.more && known.name == made.name && known.id.starts_with(run);
        match self.artifacts.iter_mut().rev().find(goes_on) {
            Some(known) => {
                made.id.clone_from(&known.id);
                known.pieces.extend(made.pieces.iter().cloned());
                known.more = made.more;
                Change::Artifact(made, true)
            }
            None => {
                self.artifacts.push(made.clone());
                Change::Artifact(made, false)
            }
        }
    }
    fn finish(&mut self, state: TaskState, text: &str, seq: u64) -> Vec<Change> {
        self.open.clear();
        if state != TaskState::Completed {
            return self.become_(state, Some(text.to_owned()), seq);
        }
        let mut changes = Vec::new();
        if !text.is_empty() {
            let media_type = if self.structured { "application/json" } else { "text/plain" };
            // A run that was gone on with after its end has another one.
            let id = match self.artifacts.iter().any(|a| a.id == ANSWER) {
                true => format!("{ANSWER}-{seq}"),
                false => ANSWER.to_owned(),
            };
            let (name, media_type, pieces) = (ANSWER.into(), media_type.into(), vec![Piece::Text(text.to_owned())]);
            // What is said in the conversation is no artifact.
            if !self.reply {
                changes.push(self.make(Artifact { id, name, media_type, pieces, more: false }, "-"));
            }
        }
        // What it said on its way is past.
        self.past();
        let said = self.reply.then(|| text.to_owned());
        changes.extend(self.become_(state, said, seq));
        changes
    }

    fn message(&self, id: &str, role: &str, text: &str) -> Value {
        json!({
            "messageId": id, "contextId": self.context, "taskId": self.id, "role": role, "parts": parts::text(text),
        })
    }
    fn status_message(&self) -> Option<Value> {
        let (seq, text) = self.said.as_ref()?;
        Some(self.message(&format!("{}-{seq}", self.id), "ROLE_AGENT", text))
    }
    /// What it said in the place of a task, if that is what it did.
    pub(super) fn reply(&self) -> Option<Value> {
        let mut message = self.status_message().filter(|_| self.reply && self.state == TaskState::Completed)?;
        if let Some(fields) = message.as_object_mut() {
            fields.remove("taskId");
        }
        Some(message)
    }
    /// How it stands.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({ "state": self.state.as_str(), "timestamp": timestamp(self.at) });
        if let Some(message) = self.status_message() {
            status["message"] = message;
        }
        status
    }
    /// The task without its artifacts, with the last `history` of what was said (all: `None`).
    pub(super) fn task(&self, history: Option<usize>) -> Value {
        let mut task = json!({
            "id": self.id, "contextId": self.context, "status": self.status(), "metadata": self.metadata(),
        });
        let last = history.unwrap_or(self.history.len()).min(self.history.len());
        if last > 0 {
            task["history"] = self.history[self.history.len() - last..].into();
        }
        task
    }
    /// `pleach/generation` is the number of the task's last change.
    pub(super) fn metadata(&self) -> Value {
        json!({ "pleach/agent": self.agent, "pleach/generation": self.n })
    }
}

fn words(answer: &Answer) -> String {
    let noted = |word: &str, note: &Option<String>| match note {
        Some(note) => format!("{word}: {note}"),
        None => word.to_owned(),
    };
    match answer {
        Answer::Allow { note } => noted("allow", note),
        Answer::Deny { note } => noted("deny", note),
        Answer::Input { value: Value::String(text), .. } => text.clone(),
        Answer::Input { value, .. } => value.to_string(),
    }
}
