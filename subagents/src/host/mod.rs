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

use crate::event::Seen;
use crate::ports::{Answer, Bus, Gate, Journal, JournalError, Models, Toolbox};
use crate::run::{RunId, State};
use policies::authority::Authority;
use policies::names::Name;
use policies::resolve::Limits;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

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
        Arc::new(Self { ports, seen: broadcast::channel(OBSERVER_LAG).0 })
    }
    /// Everything that happens from now on, in every run.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.seen.subscribe()
    }
    /// Runs a root run until it ends, or until every open path of its tree waits for a person.
    ///
    /// # Errors
    /// When the journal cannot be written, or somebody else took the tree over.
    pub async fn start(self: &Arc<Self>, _start: Start) -> Result<Ended, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Goes on with a tree that nobody works on.
    ///
    /// # Errors
    /// When somebody does, when there is no such tree, and as [`Host::start`].
    pub async fn resume(self: &Arc<Self>, _root: &RunId, _cancel: CancellationToken) -> Result<Ended, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Goes on with every tree that has work to do and nobody who does it.
    ///
    /// # Errors
    /// When the journal cannot be read; each tree has its own outcome.
    pub async fn resume_all(
        self: &Arc<Self>,
        _cancel: CancellationToken,
    ) -> Result<Vec<(RunId, Result<Ended, HostError>)>, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Goes on with the trees whose questions expired; to be called now and then.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn expire(
        self: &Arc<Self>,
        _cancel: CancellationToken,
    ) -> Result<Vec<(RunId, Result<Ended, HostError>)>, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Answers a question.
    ///
    /// # Errors
    /// When it is not open, or the answer does not fit it.
    pub async fn answer(
        self: &Arc<Self>,
        _question: &str,
        _answer: Answer,
        _by: &str,
        _then: Then,
    ) -> Result<Done, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Says something to a run: one that works hears it before its next request, one that ended
    /// goes on, under the policy as it is now.
    ///
    /// # Errors
    /// When there is no such run, or a person cancelled it.
    pub async fn send(
        self: &Arc<Self>,
        _run: &RunId,
        _from: &str,
        _text: String,
        _then: Then,
    ) -> Result<Done, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Ends a run and all it started.
    ///
    /// # Errors
    /// When there is no such run or it has ended.
    pub async fn cancel(self: &Arc<Self>, _run: &RunId, _by: &str) -> Result<Done, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Lets what is under way finish, and begins nothing new.
    ///
    /// # Errors
    /// When there is no such tree or it has ended.
    pub async fn pause(self: &Arc<Self>, _root: &RunId, _by: &str) -> Result<Done, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Goes on after a pause.
    ///
    /// # Errors
    /// When the tree is not paused.
    pub async fn unpause(self: &Arc<Self>, _root: &RunId, _by: &str, _then: Then) -> Result<Done, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// A new root run whose past is that of `run` up to its event `at`; what was under way there
    /// is told as unknown. Resuming it, or sending to it, makes it go on.
    ///
    /// # Errors
    /// When there is no such run or event.
    pub async fn fork(self: &Arc<Self>, _run: &RunId, _at: u64, _by: &str) -> Result<RunId, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Waits until nobody here works on a tree, and says how it stands.
    ///
    /// # Errors
    /// When there is no such tree.
    pub async fn ended(self: &Arc<Self>, _root: &RunId) -> Result<Ended, HostError> {
        Err(HostError::Refused("not in this version".into()))
    }
    /// Puts all trees down without ending them: they can be resumed, here or elsewhere. Nothing
    /// can be started afterwards.
    pub fn suspend(&self) {
        let _ = &self.ports;
    }
}
