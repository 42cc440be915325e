//! Whom else to tell of a tree: what A2A clients ask for, task by task.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, signed};
use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use subagents::ports::JournalError;
use subagents::run::RunId;

/// A tree has so many at most.
pub const MOST_CONFIGS: u32 = 16;
/// How long one may still be looked at when its tree has ended and all is told, milliseconds.
const STANDS: u64 = 24 * 60 * 60 * 1_000;

/// ?1 and ?2 are the config, ?3 whether it is told as before, ?4 the time.
pub(super) const MOVED: &str =
    "UPDATE outbox SET endpoint = (SELECT endpoint FROM push_configs AS c WHERE c.root = ?1 AND c.id = ?2),
        heard = CASE WHEN ?3 THEN heard ELSE 0 END, tries = 0, taker = NULL,
        next = CASE WHEN next = 9223372036854775807 THEN next ELSE ?4 END
    WHERE root = ?1 AND config = ?2 AND state = 'pending'";
/// ?1 and ?2 are the config, ?3 the time.
pub(super) const ENDED: &str = "INSERT INTO outbox (root, config, run, seq, type, at, next, endpoint)
    SELECT c.root, c.id, e.run, e.seq, e.type, e.at, ?3, c.endpoint
    FROM push_configs AS c
    JOIN events AS e ON e.run = c.root AND e.seq = (SELECT max(seq) FROM events WHERE run = c.root)
    WHERE c.root = ?1 AND c.id = ?2 AND e.type = 'run.finished'
        AND NOT EXISTS (SELECT 1 FROM outbox AS o WHERE o.root = ?1 AND o.config = ?2 AND o.state = 'pending')";

/// Whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushConfig {
    /// The tree.
    pub root: RunId,
    /// What it is called in its tree.
    pub id: String,
    /// The client it is of.
    pub principal: String,
    /// The generation of the protocol it is told in.
    pub version: String,
    /// Where to.
    pub url: String,
    /// What a message proves itself with, sealed.
    pub proof: String,
    /// Which scheme that is.
    pub scheme: Option<String>,
}

/// Whether there was room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is kept, in the place of one of its name.
    Kept,
    /// Its tree has [`MOST_CONFIGS`].
    Full,
}

/// Writes one, in the place of one of its name.
pub(super) async fn keep(tx: &mut Tx<'_>, config: &PushConfig) -> Result<Kept, sqlx::Error> {
    let others: i64 = sqlx::query_scalar("SELECT count(*) FROM push_configs WHERE root = ? AND id <> ?")
        .bind(config.root.as_str())
        .bind(&config.id)
        .fetch_one(&mut *tx.connection)
        .await?;
    if others >= i64::from(MOST_CONFIGS) {
        return Ok(Kept::Full);
    }
    let before: Option<(String, String, String)> =
        sqlx::query_as("SELECT url, version, proof FROM push_configs WHERE root = ? AND id = ?")
            .bind(config.root.as_str())
            .bind(&config.id)
            .fetch_optional(&mut *tx.connection)
            .await?;
    let hears = before.as_ref().is_some_and(|(url, version, _)| *url == config.url && *version == config.version);
    let same = hears && before.is_some_and(|(.., proof)| proof == config.proof);
    sqlx::query(
        "INSERT INTO push_configs (root, id, principal, version, url, proof, scheme, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (root, id) DO UPDATE SET principal = excluded.principal, version = excluded.version,
             url = excluded.url, proof = excluded.proof, scheme = excluded.scheme, at = excluded.at",
    )
    .bind(config.root.as_str())
    .bind(&config.id)
    .bind(&config.principal)
    .bind(&config.version)
    .bind(&config.url)
    .bind(&config.proof)
    .bind(config.scheme.as_deref())
    .bind(signed(tx.now))
    .execute(&mut *tx.connection)
    .await?;
    if !same {
        moved(tx, config, hears).await?;
    }
    told_of_the_end(tx, config).await?;
    Ok(Kept::Kept)
}

/// What waits goes where it was said last, with what was said last: tries that were made, or are
/// being made, say nothing of that. Another address has heard nothing.
async fn moved(tx: &mut Tx<'_>, config: &PushConfig, hears: bool) -> Result<(), sqlx::Error> {
    sqlx::query(MOVED)
        .bind(config.root.as_str())
        .bind(&config.id)
        .bind(hears)
        .bind(signed(tx.now))
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}

/// Whoever asks to be told of a tree that has ended is told of its end, once each time it asks: of
/// every config a delivery is tried (A2A 1.0, section 4.3.3), and nothing else will come of it.
async fn told_of_the_end(tx: &mut Tx<'_>, config: &PushConfig) -> Result<(), sqlx::Error> {
    sqlx::query(ENDED)
        .bind(config.root.as_str())
        .bind(&config.id)
        .bind(signed(tx.now))
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}

struct Keep(PushConfig);

#[async_trait]
impl Job for Keep {
    type Output = Kept;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Kept>, sqlx::Error> {
        keep(tx, &self.0).await.map(Ok)
    }
}

/// Forgets one, with what was still to be told.
struct Forget(RunId, String);

#[async_trait]
impl Job for Forget {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        let Self(root, id) = self;
        for sql in [
            "DELETE FROM outbox WHERE root = ? AND config = ? AND state = 'pending'",
            "DELETE FROM push_configs WHERE root = ? AND id = ?",
        ] {
            sqlx::query(sql).bind(root.as_str()).bind(id).execute(&mut *tx.connection).await?;
        }
        Ok(Ok(()))
    }
}

/// Forgets those whose tree ended a while ago, or never came to be, once nothing waits to be told.
struct Sweep;

#[async_trait]
impl Job for Sweep {
    type Output = u64;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<u64>, sqlx::Error> {
        let swept = sqlx::query(
            "DELETE FROM push_configs WHERE at < ?1
                 AND NOT EXISTS (SELECT 1 FROM runs AS r WHERE r.run = push_configs.root AND coalesce(r.ended, ?1) >= ?1)
                 AND NOT EXISTS (SELECT 1 FROM outbox AS o
                     WHERE o.root = push_configs.root AND o.config = push_configs.id AND o.state = 'pending')",
        )
        .bind(signed(tx.now.saturating_sub(STANDS)))
        .execute(&mut *tx.connection)
        .await?;
        Ok(Ok(swept.rows_affected()))
    }
}

fn read(row: &SqliteRow) -> Result<PushConfig, sqlx::Error> {
    Ok(PushConfig {
        root: RunId::known(&row.try_get::<String, _>("root")?),
        id: row.try_get("id")?,
        principal: row.try_get("principal")?,
        version: row.try_get("version")?,
        url: row.try_get("url")?,
        proof: row.try_get("proof")?,
        scheme: row.try_get("scheme")?,
    })
}

impl Store {
    /// Keeps one, in the place of one of its name.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn keep_push(&self, config: PushConfig) -> Result<Kept, JournalError> {
        self.writer.perform(Keep(config)).await
    }
    /// Forgets one, if there is one, with what was still to be told.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn forget_push(&self, root: &RunId, id: &str) -> Result<(), JournalError> {
        self.writer.perform(Forget(root.clone(), id.to_owned())).await
    }
    /// Forgets, with their secrets, those that have nothing to tell any more: their tree ended a day
    /// ago. Says how many.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn sweep_pushes(&self) -> Result<u64, JournalError> {
        self.writer.perform(Sweep).await
    }
    /// Those of a tree, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pushes(&self, root: &RunId) -> Result<Vec<PushConfig>, StoreError> {
        let rows = sqlx::query(
            "SELECT root, id, principal, version, url, proof, scheme FROM push_configs WHERE root = ? ORDER BY id",
        )
        .bind(root.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| read(row).map_err(|e| self.failed(e))).collect()
    }
    /// Whether there is any at all.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn has_pushes(&self) -> Result<bool, StoreError> {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM push_configs)").fetch_one(&self.pool).await;
        any.map_err(|e| self.failed(e))
    }
}
