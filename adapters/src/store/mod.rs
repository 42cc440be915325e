//! The journal on disk: SQLite in WAL mode. What `append` returned `Ok` for is on disk; many
//! appends at once share one transaction.
//!
//! ```text
//!  append claim release post take put_blob ──▶ writer ──▶ one transaction ──▶ everybody told
//!  load row question blob runs find ─────────▶ connections that only read
//!  watch: a counter of others' changes ──────▶ hints that commands wait
//! ```
//!
//! Whoever holds no lease of a tree cannot write to it: each append names its epoch, and the
//! epoch is compared inside the transaction that writes.

mod append;
mod approvals;
mod blobs;
mod callbacks;
mod closing;
mod ends;
mod error;
mod inbox;
mod lease;
mod open;
mod outbox;
mod owner;
mod peers;
mod push;
mod questions;
mod read;
mod rest;
mod tasks;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

pub use approvals::{Asking, Given};
pub use ends::{Ended, Withdrawn};
pub use error::StoreError;
pub use outbox::{Due, Full, Tally, Told};
pub use peers::{Between, PeerCall, PeerContext, PeerDoor, PeerFilter, PeerMessage, PeerNews, PeerSaid, PeerTask};
pub use push::{Kept, MOST_CONFIGS, PushConfig};
pub use rest::{Parent, Reservation, Reserved, RunsFilter, Webhook, clock};
pub use tasks::{TasksFilter, TasksPage};

use crate::crash::{self, Kinds};
use async_trait::async_trait;
use sqlx::sqlite::SqlitePool;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use subagents::ports::{
    Answer, Bus, Claimed, Command, Journal, JournalError, Lease, Loaded, Question, QuestionFilter, QuestionRow, RunRow,
    Write,
};
use subagents::run::RunId;
use tokio::sync::broadcast;

/// A row of the list of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The run.
    pub row: RunRow,
    /// Whether a live process has its tree. A parked tree is nobody's, and fine.
    pub owned: bool,
}

/// The store of one policy file. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    path: String,
    writer: writer::Writer,
    watch: watch::Watch,
    /// Who waits for questions to be closed.
    closing: closing::Closing,
}

impl Store {
    /// Opens the store, making it (for its owner's eyes only) if it is not there, and brings it
    /// to this version.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        open::open(path, open::Options::default()).await
    }
    /// Opens the store to look at. `None` when there is none yet. One of an older version is
    /// brought to this one; apart from that nothing is changed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn look(path: &Path) -> Result<Option<Self>, StoreError> {
        open::look(path).await
    }
    /// Waits until everything is written, gives back the trees this process has and closes the
    /// file.
    pub async fn close(&self) {
        self.writer.close().await;
        self.watch.close().await;
        self.pool.close().await;
    }
    fn failed(&self, source: sqlx::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source }
    }
    fn corrupt(&self, run: &str, seq: i64, why: &serde_json::Error) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), run: run.to_owned(), seq, why: why.to_string() }
    }
}

#[async_trait]
impl Journal for Store {
    async fn append(&self, writes: Vec<Write>, lease: &Lease) -> Result<(), JournalError> {
        let kinds = Kinds::of(&writes);
        kinds.pass("before");
        let written = self.writer.perform(append::Append::new(writes, lease)?).await;
        kinds.pass("after");
        written
    }
    async fn claim(&self, root: &RunId) -> Result<Claimed, JournalError> {
        crash::point("tree.claim.before");
        let done = self.writer.perform(lease::Claim(root.clone())).await;
        crash::point("tree.claim.after");
        done
    }
    async fn release(&self, lease: &Lease) -> Result<Vec<Command>, JournalError> {
        crash::point("tree.release.before");
        let done = self.writer.perform(lease::Release(lease.clone())).await;
        crash::point("tree.release.after");
        done
    }
    async fn load(&self, root: &RunId) -> Result<Vec<Loaded>, JournalError> {
        Ok(self.loaded(root).await?)
    }
    async fn row(&self, run: &RunId) -> Result<Option<RunRow>, JournalError> {
        Ok(self.one(run).await?)
    }
    async fn unfinished_roots(&self) -> Result<Vec<RunId>, JournalError> {
        Ok(self.unfinished().await?)
    }
    async fn put_blob(&self, bytes: Vec<u8>) -> Result<String, JournalError> {
        crash::point("blob.before");
        let done = self.writer.perform(blobs::Put::new(bytes)).await;
        crash::point("blob.after");
        done
    }
    async fn get_blob(&self, name: &str, offset: u64, limit: u64) -> Result<Option<(Vec<u8>, u64)>, JournalError> {
        Ok(self.blob(name, offset, limit).await?)
    }
    async fn question(&self, id: &str) -> Result<Option<QuestionRow>, JournalError> {
        Ok(self.question_row(id).await?)
    }
    async fn expired_roots(&self, at: u64) -> Result<Vec<RunId>, JournalError> {
        Ok(self.questions_expired(at).await?)
    }
    async fn open_questions(&self, filter: &QuestionFilter) -> Result<Vec<Question>, JournalError> {
        Ok(self.questions_open(filter).await?)
    }
    async fn open_approvals(&self, principal: &str, root: Option<&RunId>) -> Result<(u32, u32), JournalError> {
        Ok(self.approvals_open(principal, root.map(RunId::as_str)).await?)
    }
    async fn answer(&self, id: &str, by: &str, answer: &Answer) -> Result<(), JournalError> {
        crash::point("answer.before");
        let done = self.settled(id, by, answer).await;
        crash::point("answer.after");
        done
    }
    async fn post(&self, root: &RunId, command: &Command) -> Result<bool, JournalError> {
        crash::point("inbox.post.before");
        let done = self.writer.perform(inbox::Post::new(root, command)?).await;
        crash::point("inbox.post.after");
        done
    }
    async fn take(&self, lease: &Lease) -> Result<Vec<Command>, JournalError> {
        crash::point("inbox.take.before");
        let done = self.writer.perform(inbox::Take(lease.clone())).await;
        crash::point("inbox.take.after");
        done
    }
}

/// The file itself is the bus: a command's row is seen by its tree's owner within a moment.
impl Bus for Store {
    fn wake(&self, root: &RunId) {
        self.watch.tell(root);
    }
    fn subscribe(&self) -> broadcast::Receiver<RunId> {
        self.watch.subscribe()
    }
}

/// Milliseconds since 1970 UTC.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// SQLite's integers have a sign; counts beyond theirs stay at the largest.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
