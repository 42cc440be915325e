//! The verbs of the tree: every door is a projection of these.
//!
//! ```text
//!            start · resume · send(Drive) · answer(Drive)
//!  (a row) ─────────────────────────────────────────────▶ driven ──▶ ended
//!     ▲                                                      │
//!     └───────── every open path waits for a person ─────────┘   no task, no memory: a row
//! ```
//!
//! A verb does its work wherever the tree is: in this process directly, in another live one
//! through its inbox, and where nobody works on it by claiming it.

mod act;
mod authority;
mod blobs;
mod check;
mod children;
mod commit;
mod context;
mod drive;
mod end;
pub(crate) mod inside;
mod limits;
mod money;
mod replayed;
mod run;
mod spawn;
mod start;
mod supervise;
mod think;
mod tree;
mod verbs;

use crate::approval;
use crate::event::{Inbound, Seen};
use crate::ports::{Answer, Bus, Command, Gate, Journal, JournalError, Lease, Models, Toolbox};
use crate::run::{RunId, State};
use policies::authority::Authority;
use policies::names::Name;
use policies::resolve::Limits;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tree::{Tree, lock};

pub use authority::renewed;

/// Events an observer may lag behind before it loses some.
const OBSERVER_LAG: usize = 4_096;

/// What a host stands on.
#[derive(Clone)]
pub struct Ports {
    /// Judges.
    pub gate: Arc<dyn Gate>,
    /// Performs.
    pub toolbox: Arc<dyn Toolbox>,
    /// Answers.
    pub models: Arc<dyn Models>,
    /// Remembers.
    pub journal: Arc<dyn Journal>,
    /// Hints at commands from other processes.
    pub bus: Arc<dyn Bus>,
}

/// Runs trees.
pub struct Host {
    ports: Ports,
    seen: broadcast::Sender<Seen>,
    /// Those worked on here.
    trees: Mutex<BTreeMap<RunId, Arc<Tree>>>,
    /// One task a tree: it ends with the tree, and is told to by the tree's token.
    tasks: TaskTracker,
    stopped: CancellationToken,
    /// One more than there are trees in memory.
    counted: Arc<()>,
}

/// What a host has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHand {
    /// Trees in memory.
    pub trees: usize,
    /// Tasks.
    pub tasks: usize,
}

/// Whether a person can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approvals {
    /// Yes: the run waits as a row until somebody answers.
    Park,
    /// No, for this reason: what would be asked is denied with it.
    Nobody(Arc<str>),
}

/// A root run to start.
pub struct Start {
    /// The id the run will have, so that whoever starts it can watch it from its first event.
    pub id: RunId,
    /// The agent.
    pub agent: Name,
    /// What it is asked.
    pub prompt: String,
    /// The client it acts for.
    pub principal: Arc<str>,
    /// What the door allows that client.
    pub door: Authority,
    /// The door in its own words, for [`Gate::door`] when the run is resumed.
    pub place: Arc<str>,
    /// The client's counted limits.
    pub limits: Limits,
    /// Counted calls that all it starts have together, where whoever asks shares its own out.
    pub shared: Option<Limits>,
    /// The client's message it begins with, where it has a name.
    pub inbound: Option<Inbound>,
    /// Whether a person can be asked.
    pub approvals: Approvals,
    /// Ends the run and all it started.
    pub cancel: CancellationToken,
}

/// How a run stands when nobody works on it any more: ended, or waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// How: an end, or [`State::Waiting`].
    pub state: State,
    /// Its answer, why there is none, or what it waits for.
    pub text: String,
}

/// Who says something, and through which door they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'a> {
    /// The principal.
    pub who: &'a str,
    /// The door, for the record.
    pub door: &'a str,
}

impl<'a> From<&'a str> for By<'a> {
    fn from(who: &'a str) -> Self {
        Self { who, door: "" }
    }
}

/// Whether whoever gives a command to a tree that nobody works on goes on to work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// No: it is written down, and the tree goes on when it is resumed.
    Leave,
    /// Yes, and the verb returns when the tree has ended or waits again.
    Drive,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Given to the tree, which this process works on.
    Here,
    /// Left for another process.
    Elsewhere {
        /// Which.
        by: String,
    },
    /// Written down; nobody works on the tree.
    Stored,
    /// It was about a client's own call: that one goes on, or is made again.
    Settled,
    /// Written down, and the tree was worked on until it stood still.
    Driven(Ended),
}

/// Why a verb was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The journal cannot be read or written; nothing was performed after that.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
    /// Another process has taken the tree over; this one stopped at once.
    #[error("another process has taken the tree over; this one stopped working on it")]
    Fenced,
    /// This host was told to put its trees down; they can be resumed.
    #[error("the host is shutting down; the run can be resumed")]
    Suspended,
    /// A live process works on the tree.
    #[error("{by} works on it; wait for it, or stop that process")]
    Held {
        /// Which.
        by: String,
    },
    /// It cannot be done, in words, with the next step.
    #[error("{0}")]
    Refused(String),
}

impl From<JournalError> for HostError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Failed(why) => HostError::Journal(why),
            JournalError::Fenced => HostError::Fenced,
        }
    }
}

impl Host {
    /// A host over its ports.
    pub fn new(ports: Ports) -> Arc<Self> {
        Arc::new(Self {
            ports,
            seen: broadcast::channel(OBSERVER_LAG).0,
            trees: Mutex::default(),
            tasks: TaskTracker::new(),
            stopped: CancellationToken::new(),
            counted: Arc::new(()),
        })
    }
    /// Everything that happens from now on, in every run.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.seen.subscribe()
    }
    /// Runs a root run until it ends, or until every open path of its tree waits for a person.
    /// The work is the host's: who stops waiting for it does not stop it, `cancel` does.
    ///
    /// # Errors
    /// When the journal cannot be written, or somebody else took the tree over.
    pub async fn start(self: &Arc<Self>, start: Start) -> Result<Ended, HostError> {
        self.begin(start).await
    }
    /// Goes on with the tree of a run that nobody works on.
    ///
    /// # Errors
    /// When somebody does, when there is no such tree, and as [`Host::start`].
    pub async fn resume(self: &Arc<Self>, run: &RunId, cancel: CancellationToken) -> Result<Ended, HostError> {
        let root = self.root_of(run).await?;
        let host = self.clone();
        self.through(async move { host.resume_tree(&root, cancel).await }).await
    }
    /// Goes on with every tree that has work to do and nobody who does it.
    ///
    /// # Errors
    /// When the journal cannot be read; each tree has its own outcome.
    pub async fn resume_all(
        self: &Arc<Self>,
        cancel: CancellationToken,
    ) -> Result<Vec<(RunId, Result<Ended, HostError>)>, HostError> {
        let roots = self.ports.journal.unfinished_roots().await?;
        Ok(self.resume_each(roots, &cancel).await)
    }
    /// Goes on with the trees whose questions expired; to be called now and then.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn expire(
        self: &Arc<Self>,
        cancel: CancellationToken,
    ) -> Result<Vec<(RunId, Result<Ended, HostError>)>, HostError> {
        let roots = self.expired().await?;
        Ok(self.resume_each(roots, &cancel).await)
    }
    /// Answers a question.
    ///
    /// # Errors
    /// When it is not open, or the answer does not fit it.
    pub async fn answer(
        self: &Arc<Self>,
        question: &str,
        answer: Answer,
        by: impl Into<By<'_>>,
        then: Then,
    ) -> Result<Done, HostError> {
        self.answer_with(question, answer, (by.into(), None), then).await
    }
    /// The same with a message that has a name.
    ///
    /// # Errors
    /// As [`Host::answer`].
    pub async fn answer_with(
        self: &Arc<Self>,
        question: &str,
        answer: Answer,
        (by, message): (By<'_>, Option<Inbound>),
        then: Then,
    ) -> Result<Done, HostError> {
        let refused = |why: String| HostError::Refused(why);
        let row = self.ports.journal.question(question).await?;
        let row = row.ok_or_else(|| refused(format!("there is no question {question}")))?;
        if let Some((who, _)) = row.closed {
            return Err(refused(format!("question {question} {}", approval::over(&who))));
        }
        if row.question.run.is_empty() {
            return self.settle(&row.question, &answer, by).await;
        }
        let root = RunId::known(&row.question.root);
        let (message, parts) = message.map_or((None, None), |said| (Some(said.message), said.parts));
        let (question, door, by) = (question.to_owned(), by.door.to_owned(), by.who.to_owned());
        let command = Command::Answer { question, answer, by, door, message, parts };
        self.command(&root, command, then).await
    }
    /// Says something to a run: one that works hears it before its next request, one that ended
    /// goes on, under the policy as it is now. Its turns and tool calls count anew from then on,
    /// and so does its time; tokens, money and the budgets of those above it do not.
    ///
    /// # Errors
    /// When there is no such run, or a person cancelled it.
    pub async fn send(self: &Arc<Self>, run: &RunId, from: &str, text: String, then: Then) -> Result<Done, HostError> {
        let root = self.root_of(run).await?;
        let (run, from) = (run.to_string(), from.to_owned());
        self.command(&root, Command::Message { run, from, text, message: None, parts: None, open: false }, then).await
    }
    /// The same with a message that has a name, to a run that has not ended. Said again under that
    /// name it is known, and nothing happens.
    ///
    /// # Errors
    /// When there is no such run, or it has ended.
    pub async fn send_open(
        self: &Arc<Self>,
        run: &RunId,
        (from, said): (&str, Inbound),
        text: String,
        then: Then,
    ) -> Result<Done, HostError> {
        let root = self.root_of(run).await?;
        let (run, from, message) = (run.to_string(), from.to_owned(), Some(said.message));
        let command = Command::Message { run, from, text, message, parts: said.parts, open: true };
        self.command(&root, command, then).await
    }
    /// Ends a run and all it started.
    ///
    /// # Errors
    /// When there is no such run or it has ended.
    pub async fn cancel(self: &Arc<Self>, run: &RunId, by: &str) -> Result<Done, HostError> {
        let root = self.root_of(run).await?;
        self.command(&root, Command::Cancel { run: run.to_string(), by: by.to_owned() }, Then::Leave).await
    }
    /// Lets what is under way finish, and begins nothing new in the whole tree of a run.
    ///
    /// # Errors
    /// When there is no such tree or it has ended.
    pub async fn pause(self: &Arc<Self>, run: &RunId, by: &str) -> Result<Done, HostError> {
        let root = self.root_of(run).await?;
        self.command(&root, Command::Pause { by: by.to_owned() }, Then::Leave).await
    }
    /// Goes on after a pause.
    ///
    /// # Errors
    /// When the tree is not paused.
    pub async fn unpause(self: &Arc<Self>, run: &RunId, by: &str, then: Then) -> Result<Done, HostError> {
        let root = self.root_of(run).await?;
        self.command(&root, Command::Unpause { by: by.to_owned() }, then).await
    }
    /// A new root run whose past is that of `run` up to its event `at`; what was under way there
    /// is told as unknown. Resuming it, or sending to it, makes it go on. To rewind is to fork
    /// and to cancel the old run.
    ///
    /// # Errors
    /// When there is no such run or event.
    pub async fn fork(self: &Arc<Self>, run: &RunId, at: u64) -> Result<RunId, HostError> {
        let (host, run) = (self.clone(), run.clone());
        self.through(async move { host.fork_of(&run, at).await }).await
    }
    /// Waits until nobody here works on the tree of a run, and says how its root stands.
    ///
    /// # Errors
    /// When there is no such tree.
    pub async fn ended(self: &Arc<Self>, run: &RunId) -> Result<Ended, HostError> {
        let root = self.root_of(run).await?;
        if let Some(tree) = self.working(&root) {
            tree.closed.cancelled().await;
            return Ok(tree.summary().await);
        }
        let loaded = self.ports.journal.load(&root).await?;
        // To look at only: nothing is ever written under this lease.
        let looking = Lease { root, epoch: 0 };
        Ok(Tree::rebuilt(looking, loaded, CancellationToken::new())?.summary().await)
    }
    /// What this process has in hand: nothing of what waits for a person.
    pub fn in_hand(&self) -> InHand {
        InHand { trees: Arc::strong_count(&self.counted) - 1, tasks: self.tasks.len() }
    }
    /// Whether this process works on the tree of that root.
    pub fn works_on(&self, root: &RunId) -> bool {
        self.working(root).is_some()
    }
    /// Puts all trees down without ending them, and returns when they are: they can be resumed,
    /// here or elsewhere. Nothing can be started afterwards.
    pub async fn suspend(&self) {
        let trees: Vec<Arc<Tree>> = {
            let trees = lock(&self.trees);
            self.stopped.cancel();
            trees.values().cloned().collect()
        };
        for tree in trees {
            tree.break_off(HostError::Suspended);
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A new question's id.
pub(crate) fn question_id() -> Result<String, String> {
    let id = RunId::fresh().map_err(|e| e.to_string())?;
    Ok(id.as_str().replacen("r-", "q-", 1))
}
