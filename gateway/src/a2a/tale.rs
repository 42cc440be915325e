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
    /// The tool and its arguments, or options and schema.
    pub(super) detail: Value,
    /// When it is too late, milliseconds since 1970 UTC.
    expires: Option<u64>,
}

impl Open {
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
    /// What a client must know to answer it: what is asked for, without where a rule stands.
    fn form(&self) -> Value {
        let known = ["tool", "arguments", "options", "schema"].into_iter();
        let form =
            known.filter_map(|key| Some((key.to_owned(), self.detail.get(key).filter(|v| !v.is_null())?.clone())));
        Value::Object(form.collect())
    }
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
    /// It began with a grant: whoever gave that counts what it uses.
    pub(super) granted: bool,
    pub(super) state: TaskState,
    /// What the agent says with its status, and the number of the event it said it with.
    said: Option<(u64, String)>,
    /// The last position that was read, which is the task's generation, and its time.
    pub(super) n: u64,
    at: u64,
    history: Vec<Value>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) open: Vec<Open>,
    /// The question it was last said to wait for.
    put: Option<String>,
    structured: bool,
    /// Its last words are a word of the conversation.
    reply: bool,
    /// The names of the client's messages, with what it said; without, what it said was data.
    heard: Vec<(String, Option<String>)>,
    /// It asked something, ever.
    pub(super) asked: bool,
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
            granted: row.door.as_deref().is_some_and(|place| place.contains(' ')),
            state: TaskState::Submitted,
            said: None,
            n: 0,
            at: row.started,
            history: Vec::new(),
            artifacts: Vec::new(),
            open: Vec::new(),
            put: None,
            structured: false,
            reply: false,
            heard: Vec::new(),
            asked: false,
        }
    }
    /// Whether the client said this under that name, or answered something with it.
    pub(super) fn has_heard(&self, message: &str, text: &str) -> bool {
        self.heard.iter().any(|(name, said)| name == message && said.as_deref().is_none_or(|said| said == text))
    }
    /// Lets go of what a stream needs no more: what was said, and what was made.
    pub(super) fn forget(&mut self) {
        self.history = Vec::new();
        self.heard = Vec::new();
        self.artifacts.iter_mut().for_each(|artifact| artifact.pieces = Vec::new());
    }

    /// Reads an event of the tree, and says what changed.
    pub(super) fn take(&mut self, n: u64, record: &Record) -> Vec<Change> {
        (self.n, self.at) = (n, record.at);
        let own = record.run.as_str() == self.id;
        match &record.event {
            Event::Started(started) if own => {
                self.begin(started);
                Vec::new()
            }
            Event::ModelRequested { .. } if own => self.work(),
            // What it says before it uses its tools.
            Event::ModelReplied { text, calls, .. } if own && !calls.is_empty() && !text.trim().is_empty() => {
                match self.open.is_empty() {
                    true => {
                        self.say(text.clone());
                        vec![Change::Status]
                    }
                    // What is asked stays in its place.
                    false => {
                        let said = self.message(&format!("{}-{n}", self.id), "ROLE_AGENT", text);
                        self.history.push(said);
                        Vec::new()
                    }
                }
            }
            Event::Waiting(waiting) if waiting.kind != WaitingFor::Children => {
                let (id, text) = (waiting.id.clone(), waiting.question.clone());
                let (detail, expires) = (waiting.detail.clone(), waiting.expires);
                self.open.push(Open { id, kind: waiting.kind, text, detail, expires });
                self.asked = true;
                self.asks()
            }
            Event::Answered { id, answer, message, parts, .. } => {
                self.open.retain(|open| open.id != *id);
                if let Some(message) = message {
                    let said = words(answer);
                    self.hear(message.clone(), &said, parts.as_ref());
                    // What was said as data is known by its name alone.
                    let note = match answer {
                        Answer::Allow { note, .. } | Answer::Deny { note } => note,
                        Answer::Input { value, .. } if value.is_string() => &None,
                        Answer::Input { .. } => &Some(String::new()),
                    };
                    self.heard.push((message.clone(), note.is_none().then_some(said)));
                }
                self.asks()
            }
            Event::TimedOut { id } => {
                self.open.retain(|open| open.id != *id);
                self.asks()
            }
            Event::MessageReceived { text, message, parts, .. } if own => {
                let message = message.clone().unwrap_or_else(|| format!("{}-{n}", self.id));
                // What is asked stays in its place.
                match self.open.is_empty() {
                    true => self.hear(message.clone(), text, parts.as_ref()),
                    false => self.history.push(self.heard_as(&message, text, parts.as_ref())),
                }
                self.heard.push((message, Some(text.clone())));
                self.reply = false;
                self.work()
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
            // The questions of a run that ends are nobody's any more.
            Event::Finished { state, text, .. } if own => self.finish(TaskState::of_end(state), text),
            _ => Vec::new(),
        }
    }
    fn begin(&mut self, started: &Started) {
        let mut message = format!("{}-{}", self.id, self.n);
        let mut parts = None;
        if let Some(inbound) = &started.inbound {
            message = inbound.message.clone();
            parts = inbound.parts.as_ref();
            if let Some(context) = &inbound.context {
                self.context = context.clone();
            }
        }
        self.structured = started.schema.is_some();
        self.hear(message.clone(), &started.prompt, parts);
        self.heard.push((message, Some(started.prompt.clone())));
    }
    /// Something of the client's.
    fn hear(&mut self, message: String, text: &str, parts: Option<&Value>) {
        self.past();
        let said = self.heard_as(&message, text, parts);
        self.history.push(said);
    }
    /// As it was sent: its text is what the agent read.
    fn heard_as(&self, id: &str, text: &str, parts: Option<&Value>) -> Value {
        let mut said = self.message(id, "ROLE_USER", text);
        if let Some(parts) = parts {
            said["parts"] = parts.clone();
        }
        said
    }
    fn say(&mut self, text: String) {
        self.past();
        self.said = Some((self.n, text));
    }
    /// What was said with the status is past when something else is said.
    fn past(&mut self) {
        if let Some(said) = self.status_message() {
            self.history.push(said);
        }
        self.said = None;
    }
    /// It works, unless it asks: what some part of it asks somebody waits for.
    fn work(&mut self) -> Vec<Change> {
        if self.open.is_empty() { self.become_(TaskState::Working, None) } else { Vec::new() }
    }
    fn become_(&mut self, state: TaskState, said: Option<String>) -> Vec<Change> {
        if self.state == state && said.is_none() {
            return Vec::new();
        }
        self.state = state;
        if let Some(said) = said {
            self.say(said);
        }
        vec![Change::Status]
    }
    /// How it stands with questions after one came or went.
    fn asks(&mut self) -> Vec<Change> {
        let first = self.open.first().map(|open| open.id.clone());
        // Of several it is the first that is put; the others come when their turn comes.
        if self.state.is_terminal() || first == self.put {
            return Vec::new();
        }
        self.put = first;
        let Some(open) = self.open.first() else {
            self.past();
            return self.become_(TaskState::Working, None);
        };
        let state = match open.kind {
            WaitingFor::Approval => TaskState::AuthRequired,
            _ => TaskState::InputRequired,
        };
        let text = open.text.clone();
        self.become_(state, Some(text))
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
    /// What was to go on does not any more: its last chunk says so, and nothing else.
    fn close(&mut self) -> Vec<Change> {
        let open = self.artifacts.iter_mut().filter(|artifact| artifact.more);
        let closed = open.map(|artifact| {
            artifact.more = false;
            Change::Artifact(Artifact { pieces: vec![Piece::Text(String::new())], ..artifact.clone() }, true)
        });
        closed.collect()
    }
    fn finish(&mut self, state: TaskState, text: &str) -> Vec<Change> {
        self.open.clear();
        let mut changes = self.close();
        if state != TaskState::Completed {
            changes.extend(self.become_(state, Some(text.to_owned())));
            return changes;
        }
        if !text.is_empty() {
            let media_type = if self.structured { "application/json" } else { "text/plain" };
            // A run that was gone on with after its end has another one.
            let id = match self.artifacts.iter().any(|a| a.id == ANSWER) {
                true => format!("{ANSWER}-{}", self.n),
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
        changes.extend(self.become_(state, said));
        changes
    }

    fn message(&self, id: &str, role: &str, text: &str) -> Value {
        json!({
            "messageId": id, "contextId": self.context, "taskId": self.id, "role": role, "parts": parts::text(text),
        })
    }
    fn status_message(&self) -> Option<Value> {
        let (n, text) = self.said.as_ref()?;
        let mut message = self.message(&format!("{}-{n}", self.id), "ROLE_AGENT", text);
        // Which question it is, and what a client must know to answer it.
        if let Some(open) = self.open.first().filter(|open| self.state.is_interrupted() && open.text == *text) {
            message["metadata"] = json!({
                "pleach/question": open.id, "pleach/kind": open.kind.as_str(),
                "pleach/expires": open.expires.map(timestamp), "pleach/form": open.form(),
            });
        }
        Some(message)
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
        Answer::Allow { note, .. } => noted("allow", note),
        Answer::Deny { note } => noted("deny", note),
        Answer::Input { value: Value::String(text), .. } => text.clone(),
        Answer::Input { value, .. } => value.to_string(),
    }
}
