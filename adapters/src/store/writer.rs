//! One writer for everything: it takes whatever waits, writes it in one transaction, and tells
//! everybody. A thousand runs writing at once cost a few commits, not a thousand.
//!
//! A job that is refused (fenced, a closed question) writes nothing and costs its neighbours
//! nothing. One that breaks a rule of the tables takes the transaction with it: then each job
//! of the batch has one of its own, so that it fails alone.

use super::error::{breaks_a_rule, cure};
use super::lease::{self, Held, Tx};
use super::open::Options;
use crate::crash;
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection};
use std::sync::{Arc, Mutex, PoisonError};
use subagents::ports::{JournalError, Lease};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Jobs of one transaction.
const BATCH: usize = 512;

/// What a job came to: an error here is a refusal, and nothing was written.
pub(super) type Verdict<T> = Result<T, JournalError>;

/// Something to be done in a transaction. It may be done again from the start, so it keeps
/// nothing of a first attempt.
#[async_trait]
pub(super) trait Job: Send + Sync + 'static {
    /// What it gives.
    type Output: Send + 'static;
    /// Does it. A refusal must come before the first change.
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Self::Output>, sqlx::Error>;
    /// A lease among what it gives, to be given back if nobody came for it.
    fn lease(_: &Self::Output) -> Option<&Lease> {
        None
    }
}

/// A job with somebody waiting for it.
#[async_trait]
trait Step: Send {
    async fn perform(&mut self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error>;
    /// Tells who waits. Gives the lease nobody came for.
    fn tell(self: Box<Self>, failed: Option<JournalError>) -> Option<Lease>;
}

struct Pending<J: Job> {
    job: J,
    outcome: Option<Verdict<J::Output>>,
    done: oneshot::Sender<Verdict<J::Output>>,
}

#[async_trait]
impl<J: Job> Step for Pending<J> {
    async fn perform(&mut self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        self.outcome = Some(self.job.perform(tx).await?);
        Ok(())
    }
    fn tell(self: Box<Self>, failed: Option<JournalError>) -> Option<Lease> {
        let verdict = match (failed, self.outcome) {
            (Some(failed), _) => Err(failed),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(JournalError::Failed("the store lost a job".into())),
        };
        let unheard = self.done.send(verdict).err()?.ok()?;
        J::lease(&unheard).cloned()
    }
}

#[derive(Clone)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Step>>>,
    held: watch::Receiver<Held>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    end: CancellationToken,
    path: Arc<str>,
}

impl Writer {
    pub(super) fn start(connection: PoolConnection<Sqlite>, path: String, options: Options) -> Self {
        let (queue, jobs) = mpsc::channel(BATCH * 2);
        let (held, seen) = watch::channel(Held::new());
        let end = CancellationToken::new();
        let path: Arc<str> = path.into();
        let hand = Hand { connection, held, options, path: path.clone() };
        let task = tokio::spawn(hand.work(jobs, end.clone()));
        Self { queue: Some(queue), held: seen, task: Arc::new(Mutex::new(Some(task))), end, path }
    }
    /// A writer that writes nothing, for looking only.
    pub(super) fn closed(path: String) -> Self {
        let (_, held) = watch::channel(Held::new());
        Self { queue: None, held, task: Arc::default(), end: CancellationToken::new(), path: path.into() }
    }
    /// The trees this process has, as they come and go.
    pub(super) fn held(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }
    pub(super) async fn perform<J: Job>(&self, job: J) -> Verdict<J::Output> {
        let gone = || JournalError::Failed(format!("store {}: it is closed", self.path));
        let queue = self.queue.as_ref().ok_or_else(|| {
            JournalError::Failed(format!("store {}: it was opened to look at, not to write", self.path))
        })?;
        let (done, wait) = oneshot::channel();
        queue.send(Box::new(Pending { job, outcome: None, done })).await.map_err(|_| gone())?;
        wait.await.unwrap_or_else(|_| Err(gone()))
    }
    pub(super) async fn close(&self) {
        self.end.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

async fn perform(steps: &mut [Box<dyn Step>], mut tx: Tx<'_>) -> Result<Vec<lease::Change>, sqlx::Error> {
    for step in steps {
        step.perform(&mut tx).await?;
    }
    Ok(tx.changes())
}

/// Takes the write lock.
///
/// Not sqlx's own transaction: SQLite ends one by itself when the disk is full, and sqlx then
/// believes it open for good.
pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(connection).await.map(drop)
}

/// Commits what went well, takes back what did not.
pub(super) async fn finish<T>(
    connection: &mut SqliteConnection,
    done: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let committed = match done {
        Ok(value) => sqlx::query("COMMIT").execute(&mut *connection).await.map(|_| value),
        Err(e) => Err(e),
    };
    if committed.is_err() {
        // Fails where SQLite has already done it.
        let _ = sqlx::query("ROLLBACK").execute(connection).await;
    }
    committed
}

/// The one that writes.
struct Hand {
    connection: PoolConnection<Sqlite>,
    held: watch::Sender<Held>,
    options: Options,
    path: Arc<str>,
}

impl Hand {
    async fn work(mut self, mut jobs: mpsc::Receiver<Box<dyn Step>>, end: CancellationToken) {
        let mut batch: Vec<Box<dyn Step>> = Vec::new();
        let mut renew = Instant::now() + self.options.lease / 3;
        loop {
            let busy = !self.held.borrow().is_empty();
            let n = tokio::select! {
                n = jobs.recv_many(&mut batch, BATCH) => n,
                () = end.cancelled() => {
                    // What was asked for before the end is written before the end.
                    jobs.close();
                    jobs.recv_many(&mut batch, BATCH).await
                }
                () = tokio::time::sleep_until(renew), if busy => {
                    renew = Instant::now() + self.options.lease / 3;
                    if let Err(e) = lease::renew(&mut self.connection, &self.options).await {
                        tracing::warn!("store {}: leases are not renewed: {e}", self.path);
                    }
                    continue;
                }
            };
            if n == 0 {
                break;
            }
            self.write(&mut batch).await;
        }
        // Whoever comes next need not wait for this process to end.
        let held = self.held.borrow().clone();
        if let Err(e) = lease::give_back(&mut self.connection, &held, &self.options).await {
            tracing::warn!("store {}: its trees are not given back: {e}", self.path);
        }
    }

    async fn write(&mut self, batch: &mut Vec<Box<dyn Step>>) {
        let mut abandoned = Vec::new();
        match self.commit(batch).await {
            Ok(()) => abandoned.extend(batch.drain(..).filter_map(|step| step.tell(None))),
            Err(e) if breaks_a_rule(&e) && batch.len() > 1 => {
                for mut step in batch.drain(..) {
                    let failed = self.commit(std::slice::from_mut(&mut step)).await.err();
                    abandoned.extend(step.tell(failed.map(|e| self.failed(&e))));
                }
            }
            Err(e) => {
                for step in batch.drain(..) {
                    step.tell(Some(self.failed(&e)));
                }
            }
        }
        if !abandoned.is_empty() {
            let held: Held = abandoned.into_iter().map(|l| (l.root, l.epoch)).collect();
            let _ = lease::give_back(&mut self.connection, &held, &self.options).await;
            self.held.send_modify(|all| all.retain(|root, epoch| held.get(root) != Some(epoch)));
        }
    }

    /// All steps in one transaction, or none.
    async fn commit(&mut self, steps: &mut [Box<dyn Step>]) -> Result<(), sqlx::Error> {
        let connection: &mut SqliteConnection = &mut self.connection;
        begin(connection).await?;
        let done = perform(steps, Tx::new(connection, &self.options)).await;
        crash::point("commit.within");
        let changes = finish(connection, done).await?;
        crash::point("commit.after");
        if !changes.is_empty() {
            self.held.send_modify(|held| lease::apply(held, changes));
        }
        Ok(())
    }

    fn failed(&self, error: &sqlx::Error) -> JournalError {
        JournalError::Failed(format!("store {}: {}", self.path, cure(error)))
    }
}
