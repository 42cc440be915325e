//! What webhooks are still to be told: rows, until they are told or given up.
//!
//! ```text
//!  event ──(same transaction)──▶ pending ──take──▶ pending, next = later ──told──▶ delivered
//!                                   ▲                      │ not told: next = later still
//!                                   └──────────────────────┴── too often ──▶ dead
//! ```
//!
//! Taking one moves its next try beyond the time a try may take, and says who took it: of a process
//! known to be dead it is due at once, of one on another machine when that time is over. So a
//! message is told at least once.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, owner, signed, unsigned};
use async_trait::async_trait;
use sqlx::Row;
use subagents::event::Record;
use subagents::ports::JournalError;
use subagents::run::RunId;

/// Settled messages are kept this long.
const KEPT: u64 = 30 * 24 * 60 * 60 * 1_000;

/// A message that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its number.
    pub id: u64,
    /// The tree it is about.
    pub root: RunId,
    /// Tries so far.
    pub tries: u32,
    /// The event it tells of.
    pub record: Record,
    next: u64,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Well.
    Delivered,
    /// Not; once more at this time, milliseconds since 1970 UTC.
    Later(u64, String),
    /// Not, and never again.
    Dead(String),
}

/// The messages of one tree, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Still to be told.
    pub pending: u64,
    /// Told.
    pub delivered: u64,
    /// Given up.
    pub dead: u64,
    /// Why the last one that failed did.
    pub why: Option<String>,
}

struct Take {
    id: u64,
    was: u64,
    until: u64,
}

#[async_trait]
impl Job for Take {
    type Output = bool;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<bool>, sqlx::Error> {
        let taken = sqlx::query(
            "UPDATE outbox SET tries = tries + 1, next = ?, taker = ? WHERE id = ? AND next = ? AND state = 'pending'",
        )
        .bind(signed(self.until))
        .bind(tx.me())
        .bind(signed(self.id))
        .bind(signed(self.was))
        .execute(&mut *tx.connection)
        .await?;
        Ok(Ok(taken.rows_affected() == 1))
    }
}

struct Settle(u64, Told);

#[async_trait]
impl Job for Settle {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        let (state, next, why) = match &self.1 {
            Told::Delivered => ("delivered", tx.now, None),
            Told::Later(next, why) => ("pending", *next, Some(why.as_str())),
            Told::Dead(why) => ("dead", tx.now, Some(why.as_str())),
        };
        sqlx::query("UPDATE outbox SET state = ?, next = ?, why = ?, taker = NULL WHERE id = ? AND state = 'pending'")
            .bind(state)
            .bind(signed(next))
            .bind(why)
            .bind(signed(self.0))
            .execute(&mut *tx.connection)
            .await?;
        let forget = signed(tx.now.saturating_sub(KEPT));
        sqlx::query("DELETE FROM outbox WHERE state <> 'pending' AND next < ?")
            .bind(forget)
            .execute(&mut *tx.connection)
            .await?;
        Ok(Ok(()))
    }
}

/// Makes due again what dead processes took.
struct Reclaim;

#[async_trait]
impl Job for Reclaim {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        let taken: Vec<(i64, String, i64)> =
            sqlx::query_as("SELECT id, taker, next FROM outbox WHERE taker IS NOT NULL")
                .fetch_all(&mut *tx.connection)
                .await?;
        for (id, taker, next) in taken {
            if !owner::holds(&taker, unsigned(next), tx.now) {
                sqlx::query("UPDATE outbox SET next = ?, taker = NULL WHERE id = ?")
                    .bind(signed(tx.now))
                    .bind(id)
                    .execute(&mut *tx.connection)
                    .await?;
            }
        }
        Ok(Ok(()))
    }
}

impl Store {
    /// Makes due again what processes took that are dead by now.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn reclaim_due(&self) -> Result<(), JournalError> {
        let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE taker IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        // Mostly there is nothing, and nobody has to wait for the writer.
        if taken == 0 { Ok(()) } else { self.writer.perform(Reclaim).await }
    }
    /// The messages that are due, longest due first.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what no version wrote.
    pub async fn due(&self, now: u64, limit: u32) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, o.root AS root, tries, next, e.run AS run, e.seq AS seq, e.at AS at, e.body AS body
             FROM outbox AS o JOIN events AS e ON e.run = o.run AND e.seq = o.seq
             WHERE o.state = 'pending' AND o.next <= ? ORDER BY o.next, id LIMIT ?",
        )
        .bind(signed(now))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        let due = rows.iter().map(|row| {
            let count = |name: &str| row.try_get::<i64, _>(name).map(unsigned).map_err(|e| self.failed(e));
            let root: String = row.try_get("root").map_err(|e| self.failed(e))?;
            Ok(Due {
                id: count("id")?,
                root: RunId::known(&root),
                tries: u32::try_from(count("tries")?).unwrap_or(u32::MAX),
                record: self.record(row)?,
                next: count("next")?,
            })
        });
        due.collect()
    }
    /// When the next message is due.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_due(&self) -> Result<Option<u64>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar("SELECT min(next) FROM outbox WHERE state = 'pending'")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(next.map(unsigned))
    }
    /// Takes a message to tell it, until a time; `false` when somebody else did.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn take_due(&self, due: &Due, until: u64) -> Result<bool, JournalError> {
        self.writer.perform(Take { id: due.id, was: due.next, until }).await
    }
    /// Notes how it went.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn settle(&self, id: u64, told: Told) -> Result<(), JournalError> {
        self.writer.perform(Settle(id, told)).await
    }
    /// How it stands with the messages of a tree.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn told(&self, root: &RunId) -> Result<Tally, StoreError> {
        let rows: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT state, why FROM outbox WHERE root = ? ORDER BY id")
                .bind(root.as_str())
                .fetch_all(&self.pool)
                .await
                .map_err(|e| self.failed(e))?;
        let mut told = Tally::default();
        for (state, why) in rows {
            match state.as_str() {
                "delivered" => told.delivered += 1,
                "dead" => told.dead += 1,
                _ => told.pending += 1,
            }
            told.why = why.or(told.why);
        }
        Ok(told)
    }
}
