//! What the tree needs of the store.
//!
//! ```text
//!             claim                    append (epoch checked)                 release
//!   nobody ───────────▶ one owner ──────────────────────────▶ one owner ───────────────▶ nobody
//!                          ▲  a dead owner's tree is claimed                   │ commands are
//!                          └── with the next epoch; the old one is fenced      ▼ waiting: still owner
//! ```

use crate::event::Record;
use crate::run::RunId;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why the journal did not do what was asked. A tree that cannot write does nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the journal cannot be written: {0}")]
    Failed(String),
    /// Somebody else owns the tree now.
    #[error("another process has taken the tree over")]
    Fenced,
}

/// A run as the journal lists it: what its events add up to.
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
    /// The client it acts for.
    pub principal: String,
    /// The opaque text of the door it came through.
    pub door: Option<String>,
    /// Its state.
    pub state: String,
    /// What it waits for, when it does: `approval`, `question`, `children`, `pause`.
    pub waiting: Option<String>,
    /// Model calls.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Tokens read and written.
    pub tokens: u64,
    /// What they cost in billionths of a dollar; `None`: unknown for at least one request.
    pub usd: Option<u64>,
    /// Milliseconds since 1970 UTC.
    pub started: u64,
    /// Milliseconds since 1970 UTC, when it ended.
    pub ended: Option<u64>,
}

/// The right to write to a tree, until somebody else claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The root of the tree.
    pub root: RunId,
    /// Which claim it is; every claim has a greater one.
    pub epoch: u64,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The tree is the caller's.
    Lease(Lease),
    /// A live process has it (possibly this one).
    Held {
        /// Which, for people.
        by: String,
    },
}

/// A record, the row of its run after it, and what it does to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// What happened.
    pub record: Record,
    /// What the list of runs says after it.
    pub row: RunRow,
    /// What happens to a question.
    pub question: Option<QuestionChange>,
}

/// What happens to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum QuestionChange {
    /// It is asked.
    Open(Question),
    /// It is answered, timed out, or no longer of interest (`answer` is `None`).
    Close {
        /// The question.
        id: String,
        /// Who: a principal, `nobody in time`, `the end of the run`.
        by: String,
        /// What was said.
        answer: Option<Answer>,
        /// When, milliseconds since 1970 UTC.
        at: u64,
    },
}

/// Something a person is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// `q-…`
    pub id: String,
    /// The run that waits; empty where a client's own call does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The root of its tree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// The client the tree acts for, or whose call it is.
    pub principal: String,
    /// `approval` or `question`.
    pub kind: String,
    /// The question, in words.
    pub text: String,
    /// Everything else an asker shows: the tool and its arguments, or options and schema.
    pub detail: Value,
    /// Who is who, from the root to the run that asks.
    pub chain: Vec<String>,
    /// When it was asked, milliseconds since 1970 UTC.
    pub asked: u64,
    /// When it is too late, milliseconds since 1970 UTC.
    pub expires: Option<u64>,
}

/// A question as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionRow {
    /// What is asked.
    pub question: Question,
    /// Who closed it and when, unless it is open.
    pub closed: Option<(String, u64)>,
    /// What was said.
    pub answer: Option<Answer>,
}

/// Which open questions. All fields must match; `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuestionFilter {
    /// Of this principal's trees.
    pub principal: Option<String>,
    /// Of this tree.
    pub root: Option<RunId>,
    /// Only those listed after this one, which is named by when it was asked and its id.
    pub after: Option<(u64, String)>,
    /// So many at most.
    pub limit: Option<u32>,
}

/// What a person says to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Answer {
    /// Yes, once.
    Allow {
        /// A word to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// And from now on: the standing rule it makes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        always: Option<Always>,
    },
    /// No.
    Deny {
        /// A word to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// What was asked for.
    Input {
        /// A text, or JSON where the question has a schema.
        value: Value,
        /// A word to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

impl Answer {
    /// Yes, once, without a word.
    pub const YES: Self = Self::Allow { note: None, always: None };
}

/// How much is allowed from now on, besides the call in question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Always {
    /// Of what.
    pub of: Of,
    /// With [`Of::Path`]: a folder above what the call touches, in the place of that itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

impl Always {
    /// As it reads after `allow`.
    pub fn in_words(&self) -> String {
        match (self.of, &self.within) {
            (Of::Run, _) => "always in this run".into(),
            (Of::Tool, _) => "always this tool".into(),
            (Of::Path, None) => "always these paths".into(),
            (Of::Path, Some(folder)) => format!("always within {folder}"),
        }
    }
}

/// What is allowed from now on, always of the tool in question and of whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Its calls by the run that asked.
    Run,
    /// Its calls.
    Tool,
    /// Its calls that touch these paths, or what lies beneath them, and nothing else.
    Path,
}

/// What somebody wants of a tree that another process owns. Kept by the store until it is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// End a run and all it started.
    Cancel {
        /// The run.
        run: String,
        /// Who wants it.
        by: String,
    },
    /// Answer a question.
    Answer {
        /// The question.
        question: String,
        /// The answer.
        answer: Answer,
        /// Who says it.
        by: String,
        /// Where they came in, for the record.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        door: String,
        /// The client's name for the message it is said with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// That message's parts as they were sent; absent: one text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parts: Option<Value>,
    },
    /// Say something to a run.
    Message {
        /// The run.
        run: String,
        /// Who says it.
        from: String,
        /// What.
        text: String,
        /// The client's name for the message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Its parts as they were sent; absent: one text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parts: Option<Value>,
        /// It opens no run that has ended.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open: bool,
    },
    /// Do nothing new.
    Pause {
        /// Who wants it.
        by: String,
    },
    /// Go on.
    Unpause {
        /// Who wants it.
        by: String,
    },
}

/// A run as it was read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Its row.
    pub row: RunRow,
    /// Its events, in order.
    pub records: Vec<Record>,
}

/// The journal. What `append` returned `Ok` for is durable.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes all of it in one transaction, or nothing: [`JournalError::Fenced`] when the
    /// lease's epoch is not the tree's any more. All writes are of the lease's tree.
    async fn append(&self, writes: Vec<Write>, lease: &Lease) -> Result<(), JournalError>;
    /// Makes the caller the owner of a tree (which need not exist yet), unless a live process
    /// is. An owner known to be dead (same machine, other boot, no such process) loses it at
    /// once, one on another machine when its lease ran out.
    async fn claim(&self, root: &RunId) -> Result<Claimed, JournalError>;
    /// Gives a tree back, unless commands for it are waiting: then they are returned and the
    /// tree is still the caller's. A tree that is not the caller's any more is given back
    /// already.
    async fn release(&self, lease: &Lease) -> Result<Vec<Command>, JournalError>;
    /// All runs of a tree, parents before children; empty when there is no such tree.
    async fn load(&self, root: &RunId) -> Result<Vec<Loaded>, JournalError>;
    /// One run's row.
    async fn row(&self, run: &RunId) -> Result<Option<RunRow>, JournalError>;
    /// The trees that somebody must work on: with a run that has neither ended nor waits.
    async fn unfinished_roots(&self) -> Result<Vec<RunId>, JournalError>;
    /// Keeps bytes; their name is their SHA-256, hexadecimal.
    async fn put_blob(&self, bytes: Vec<u8>) -> Result<String, JournalError>;
    /// Up to `limit` bytes from `offset`, and how many there are in all; `None` when unknown.
    async fn get_blob(&self, name: &str, offset: u64, limit: u64) -> Result<Option<(Vec<u8>, u64)>, JournalError>;
    /// A question, open or closed.
    async fn question(&self, id: &str) -> Result<Option<QuestionRow>, JournalError>;
    /// The trees with open questions whose time was over at `at`, longest over first.
    async fn expired_roots(&self, at: u64) -> Result<Vec<RunId>, JournalError>;
    /// The open ones, oldest first, and of one moment by their ids.
    async fn open_questions(&self, filter: &QuestionFilter) -> Result<Vec<Question>, JournalError>;
    /// How many approvals are open of a client, and of that tree among them; without a tree, those
    /// of the client's own calls.
    async fn open_approvals(&self, principal: &str, root: Option<&RunId>) -> Result<(u32, u32), JournalError> {
        let open = self.open_questions(&QuestionFilter::default()).await?;
        let mine = || open.iter().filter(|q| q.kind == "approval" && q.principal == principal);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let root = root.map_or("", RunId::as_str);
        Ok((count(mine().count()), count(mine().filter(|q| q.root == root).count())))
    }
    /// Closes a question of a client's own call with an answer that fits it. An approval is good
    /// for one such call from then on.
    async fn answer(&self, id: &str, by: &str, answer: &Answer) -> Result<(), JournalError> {
        let _ = (by, answer);
        Err(JournalError::Failed(format!("question {id} is nobody's who could be told")))
    }
    /// Leaves a command for the live process that owns the tree; `false` when there is none.
    async fn post(&self, root: &RunId, command: &Command) -> Result<bool, JournalError>;
    /// Takes the commands for a tree, oldest first.
    async fn take(&self, lease: &Lease) -> Result<Vec<Command>, JournalError>;
}

/// Hints between processes. Losing one costs latency, never truth: commands are in the store.
pub trait Bus: Send + Sync {
    /// Tells the owner of a tree, wherever it is, that commands are waiting.
    fn wake(&self, root: &RunId);
    /// The trees for which commands are waiting, as they become known.
    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<RunId>;
}
