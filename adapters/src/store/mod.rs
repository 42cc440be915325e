//! The journal on disk: SQLite in WAL mode. What `append` returned `Ok` for is on disk; many
//! appends at once share one transaction.

mod owner;
mod writer;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use std::time::Duration;
use subagents::event::{Event, Record};
use subagents::ports::{Journal, JournalError, RunRow};
use subagents::run::RunId;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened, read or written.
    #[error("store {path}: {source}; is it writable, and is the disk not full?")]
    Database {
        /// The file.
        path: String,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// It was made by another version.
    #[error("store {path}: {source}; it was made by another version of pleach")]
    Migration {
        /// The file.
        path: String,
        /// What is wrong.
        source: sqlx::migrate::MigrateError,
    },
    /// What stands in it cannot be read.
    #[error("store {path}: run {run}, event {seq}: {why}")]
    Corrupt {
        /// The file.
        path: String,
        /// The run.
        run: String,
        /// The event.
        seq: i64,
        /// What is wrong.
        why: String,
    },
}

/// A row of the list of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The run.
    pub row: RunRow,
    /// Whether the process that works on it is alive.
    pub owned: bool,
}

/// The store of one policy file.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    path: String,
    writer: writer::Writer,
}

impl Store {
    /// Opens the store, making it if it is not there, and brings it to this version.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true);
        let failed = |source| StoreError::Database { path: shown.clone(), source };
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(failed)?;
        sqlx::migrate!("src/store/migrations")
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migration { path: shown.clone(), source })?;
        let writer = writer::Writer::start(pool.clone(), owner::own());
        Ok(Self { pool, path: shown, writer })
    }
    /// Opens the store to look at, without changing anything. `None` when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn look(path: &Path) -> Result<Option<Self>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let shown = path.display().to_string();
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(10));
        let failed = |source| StoreError::Database { path: shown.clone(), source };
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        let writer = writer::Writer::closed();
        Ok(Some(Self { pool, path: shown, writer }))
    }
    /// The runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn runs(&self, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let rows = sqlx::query("SELECT * FROM runs ORDER BY started DESC, depth, run LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.listed(row)).collect()
    }
    /// The runs whose id ends or begins with `part`: one, or several that are meant equally.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, part: &str) -> Result<Vec<Listed>, StoreError> {
        let rows = sqlx::query("SELECT * FROM runs WHERE run = ?1 OR substr(run, -length(?1)) = ?1 OR substr(run, 1, length(?1)) = ?1 LIMIT 10")
            .bind(part)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.listed(row)).collect()
    }
    /// The runs that act for a principal, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn runs_of(&self, principal: &str, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT runs.* FROM runs JOIN events ON events.run = runs.run AND events.type = 'run.started' ",
            "WHERE json_extract(events.body, '$.principal') = ? ORDER BY started DESC, depth, runs.run LIMIT ?"
        ))
        .bind(principal)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.listed(row)).collect()
    }
    /// One of them, by its whole id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn run_of(&self, principal: &str, run: &str) -> Result<Option<Listed>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT runs.* FROM runs JOIN events ON events.run = runs.run AND events.type = 'run.started' ",
            "WHERE runs.run = ? AND json_extract(events.body, '$.principal') = ?"
        ))
        .bind(run)
        .bind(principal)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        row.as_ref().map(|row| self.listed(row)).transpose()
    }
    /// All events of a run, in order.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what no version wrote.
    pub async fn events(&self, run: &RunId) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT seq, at, body FROM events WHERE run = ? ORDER BY seq")
            .bind(run.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter()
            .map(|row| {
                let (seq, at): (i64, i64) = (row.get("seq"), row.get("at"));
                let body: String = row.get("body");
                let event: Event = serde_json::from_str(&body).map_err(|e| StoreError::Corrupt {
                    path: self.path.clone(),
                    run: run.to_string(),
                    seq,
                    why: e.to_string(),
                })?;
                Ok(Record { run: run.clone(), seq: seq.unsigned_abs(), at: at.unsigned_abs(), event })
            })
            .collect()
    }
    /// Waits until everything is written and closes the file.
    pub async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
    }
    fn listed(&self, row: &sqlx::sqlite::SqliteRow) -> Result<Listed, StoreError> {
        let count = |name: &str| -> Result<u64, StoreError> {
            row.try_get::<i64, _>(name).map(i64::unsigned_abs).map_err(|e| self.failed(e))
        };
        let text = |name: &str| -> Result<Option<String>, StoreError> { row.try_get(name).map_err(|e| self.failed(e)) };
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let ended: Option<i64> = row.try_get("ended").map_err(|e| self.failed(e))?;
        let owner = text("owner")?.unwrap_or_default();
        Ok(Listed {
            row: RunRow {
                run: RunId::known(&text("run")?.unwrap_or_default()),
                parent: text("parent")?.as_deref().map(RunId::known),
                root: RunId::known(&text("root")?.unwrap_or_default()),
                depth: small(count("depth")?),
                agent: text("agent")?.unwrap_or_default(),
                state: text("state")?.unwrap_or_default(),
                turns: small(count("turns")?),
                tool_calls: small(count("tool_calls")?),
                tokens: count("tokens")?,
                started: count("started")?,
                ended: ended.map(i64::unsigned_abs),
            },
            owned: owner::alive(&owner),
        })
    }
    fn failed(&self, source: sqlx::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source }
    }
}

#[async_trait]
impl Journal for Store {
    async fn append(&self, record: &Record, row: &RunRow) -> Result<(), JournalError> {
        let body = serde_json::to_string(&record.event).map_err(|e| JournalError(e.to_string()))?;
        self.writer.append(writer::Entry { record: record.clone(), body, row: row.clone() }).await
    }
}
