//! One writer for all runs: it takes whatever waits, writes it in one transaction, and tells
//! everybody. A thousand runs writing at once cost a few commits, not a thousand.

use sqlx::sqlite::SqlitePool;
use std::sync::{Arc, Mutex, PoisonError};
use subagents::event::Record;
use subagents::ports::{JournalError, RunRow};
use tokio::sync::{mpsc, oneshot};

/// Entries of one transaction.
const BATCH: usize = 512;

pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) body: String,
    pub(super) row: RunRow,
}

type Job = (Entry, oneshot::Sender<Result<(), JournalError>>);

#[derive(Clone)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    end: tokio_util::sync::CancellationToken,
}

impl Writer {
    pub(super) fn start(pool: SqlitePool, owner: String) -> Self {
        let (queue, jobs) = mpsc::channel(BATCH * 2);
        let end = tokio_util::sync::CancellationToken::new();
        let task = tokio::spawn(write(pool, owner, jobs, end.clone()));
        Self { queue: Some(queue), task: Arc::new(Mutex::new(Some(task))), end }
    }
    /// A writer that writes nothing, for looking only.
    pub(super) fn closed() -> Self {
        Self { queue: None, task: Arc::default(), end: tokio_util::sync::CancellationToken::new() }
    }
    pub(super) async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        let gone = || JournalError("the store is closed".into());
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        let (done, wait) = oneshot::channel();
        queue.send((entry, done)).await.map_err(|_| gone())?;
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

async fn write(
    pool: SqlitePool,
    owner: String,
    mut jobs: mpsc::Receiver<Job>,
    end: tokio_util::sync::CancellationToken,
) {
    let mut batch: Vec<Job> = Vec::new();
    loop {
        let n = tokio::select! {
            n = jobs.recv_many(&mut batch, BATCH) => n,
            () = end.cancelled() => {
                // What was asked for before the end is written before the end.
                jobs.close();
                jobs.recv_many(&mut batch, BATCH).await
            }
        };
        if n == 0 {
            return;
        }
        let result = commit(&pool, &owner, &batch).await.map_err(|e| JournalError(e.to_string()));
        for (_, done) in batch.drain(..) {
            let _ = done.send(result.clone());
        }
    }
}

async fn commit(pool: &SqlitePool, owner: &str, batch: &[Job]) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    for (Entry { record, body, row }, _) in batch {
        sqlx::query(
            "INSERT INTO runs (run, parent, root, depth, agent, state, turns, tool_calls, tokens, started, ended, owner)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (run) DO UPDATE SET state = excluded.state, turns = excluded.turns,
                 tool_calls = excluded.tool_calls, tokens = excluded.tokens, ended = excluded.ended,
                 owner = excluded.owner",
        )
        .bind(row.run.as_str())
        .bind(row.parent.as_ref().map(|p| p.as_str().to_owned()))
        .bind(row.root.as_str())
        .bind(row.depth)
        .bind(&row.agent)
        .bind(&row.state)
        .bind(row.turns)
        .bind(row.tool_calls)
        .bind(signed(row.tokens))
        .bind(signed(row.started))
        .bind(row.ended.map(signed))
        .bind(owner)
        .execute(&mut *tx)
        .await?;
        sqlx::query("INSERT INTO events (run, seq, at, type, body) VALUES (?, ?, ?, ?, ?)")
            .bind(record.run.as_str())
            .bind(signed(record.seq))
            .bind(signed(record.at))
            .bind(record.event.kind())
            .bind(body)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
