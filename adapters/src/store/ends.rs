//! Questions that end without an answer, and what is left of any that ended.
//!
//! ```text
//!  open ─┬─ lapse ────▶ closed by nobody in time ─┐
//!        ├─ withdraw ─▶ closed by whoever asked ──┼─▶ unnoted ─▶ put on record ─▶ noted ─┐
//!        ├─ its run ends ─▶ closed by that ───────┘                                      │
//!        └─ answered (on record before) ─────────────────────────────────────────────────┴─ a month ─▶ deleted
//! ```
//!
//! A yes that was given and not used is void when whoever waited for it went another way. Rules that
//! answers made are rows of their own and outlive their questions.

use super::lease::Tx;
use super::owner::{self, Standing};
use super::writer::{Job, Verdict};
use super::{Store, now, signed, unsigned};
use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::time::Duration;
use subagents::approval::{LATE, WITHDRAWN};
use subagents::ports::{JournalError, Question};

/// So long what ended is kept, to be looked at.
pub(super) const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Rows of one look.
const AT_A_TIME: i64 = 256;

/// What was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing was left to take back.
    Nothing,
    /// The question, which nobody had answered.
    Question,
    /// A yes that was not used.
    Yes,
}

/// A question that ended without an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The question.
    pub question: Question,
    /// By whom or what.
    pub by: String,
    /// When, milliseconds since 1970 UTC.
    pub at: u64,
}

/// Those that are not on record yet, oldest first. What somebody answered is, also where an older
/// pleach wrote the answer here and no mark beside it; what the end of a run answered is not.
pub(super) const UNNOTED: &str = "SELECT coalesce(run, '') AS run, body, closed_by, closed_at FROM questions
    WHERE closed_at IS NOT NULL AND noted_at IS NULL AND (answer IS NULL OR closed_by = 'the end of the run')
    ORDER BY closed_at LIMIT ?";
/// What an older pleach wrote that way.
pub(super) const UNMARKED: &str = "UPDATE questions SET noted_at = closed_at
    WHERE closed_at IS NOT NULL AND noted_at IS NULL AND answer IS NOT NULL AND closed_by <> 'the end of the run'";
/// Clients' own questions whose time is over (?1). The plus keeps the planner from looking through all
/// that are open and of no tree.
pub(super) const LAPSED: &str = "SELECT 1 FROM questions
    WHERE closed_at IS NULL AND expires <= ?1 AND +root IS NULL LIMIT 1";
/// Closes them, by ?2.
pub(super) const LAPSE: &str = "UPDATE questions SET closed_by = ?2, closed_at = ?1
    WHERE closed_at IS NULL AND expires <= ?1 AND +root IS NULL";
/// Whether any that is on record ended before a moment.
pub(super) const OLD: &str = "SELECT 1 FROM questions WHERE closed_at IS NOT NULL AND noted_at IS NOT NULL
    AND closed_at < ? LIMIT 1";

/// Questions of clients' own calls that nobody answered in time.
pub(super) async fn lapse(tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(LAPSE).bind(signed(tx.now)).bind(LATE).execute(&mut *tx.connection).await.map(drop)
}

struct Lapse;

#[async_trait]
impl Job for Lapse {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        lapse(tx).await?;
        Ok(Ok(()))
    }
}

struct Withdraw(String);

#[async_trait]
impl Job for Withdraw {
    type Output = Withdrawn;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Withdrawn>, sqlx::Error> {
        let now = signed(tx.now);
        if leave(tx, &self.0).await? {
            return Ok(Ok(Withdrawn::Nothing));
        }
        let close = "UPDATE questions SET closed_by = ?3, closed_at = ?2
            WHERE id = ?1 AND closed_at IS NULL AND root IS NULL";
        let closed = sqlx::query(close).bind(&self.0).bind(now).bind(WITHDRAWN);
        if closed.execute(&mut *tx.connection).await?.rows_affected() > 0 {
            return Ok(Ok(Withdrawn::Question));
        }
        // A no is not taken back: it is heard by the same call for a while.
        let void = "UPDATE questions SET used_at = ?2 WHERE id = ?1 AND root IS NULL AND used_at IS NULL
            AND json_extract(answer, '$.verdict') = 'allow'";
        let void = sqlx::query(void).bind(&self.0).bind(now).execute(&mut *tx.connection).await?;
        Ok(Ok(if void.rows_affected() > 0 { Withdrawn::Yes } else { Withdrawn::Nothing }))
    }
}

/// This process waits for a question no more; gives whether another does. One that is gone does not,
/// and of one that ran elsewhere nobody knows.
async fn leave(tx: &mut Tx<'_>, question: &str) -> Result<bool, sqlx::Error> {
    let gone = "DELETE FROM question_waits WHERE question = ? AND mark = ?";
    sqlx::query(gone).bind(question).bind(owner::own()).execute(&mut *tx.connection).await?;
    let others = "SELECT mark FROM question_waits WHERE question = ?";
    let others: Vec<String> = sqlx::query_scalar(others).bind(question).fetch_all(&mut *tx.connection).await?;
    Ok(others.iter().any(|mark| owner::standing(mark) != Standing::Dead))
}

struct Leave(String);

#[async_trait]
impl Job for Leave {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        leave(tx, &self.0).await?;
        Ok(Ok(()))
    }
}

struct Noted(Vec<String>);

#[async_trait]
impl Job for Noted {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        for id in &self.0 {
            let noted = "UPDATE questions SET noted_at = ? WHERE id = ? AND closed_at IS NOT NULL";
            sqlx::query(noted).bind(signed(tx.now)).bind(id).execute(&mut *tx.connection).await?;
        }
        sqlx::query(UNMARKED).execute(&mut *tx.connection).await?;
        Ok(Ok(()))
    }
}

/// Deletes what ended long ago and is on record; gives how many.
struct Tidy(i64);

#[async_trait]
impl Job for Tidy {
    type Output = u64;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<u64>, sqlx::Error> {
        let old = "DELETE FROM questions WHERE id IN (SELECT id FROM questions
            WHERE closed_at IS NOT NULL AND closed_at < ? AND noted_at IS NOT NULL ORDER BY closed_at LIMIT ?)";
        let done = sqlx::query(old).bind(self.0).bind(AT_A_TIME).execute(&mut *tx.connection).await?;
        Ok(Ok(done.rows_affected()))
    }
}

impl Store {
    /// Closes the questions of clients' own calls whose time is over.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn lapse(&self) -> Result<(), JournalError> {
        let due: Option<i64> = sqlx::query_scalar(LAPSED)
            .bind(signed(now()))
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        match due {
            None => Ok(()),
            Some(_) => self.writer.perform(Lapse).await,
        }
    }
    /// Takes back what a client's own call asked: whoever waited for the answer went another way. The
    /// question is closed if it is open, and a yes that was not used is good for nothing any more; unless
    /// another process waits for it too.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn withdraw(&self, id: &str) -> Result<Withdrawn, JournalError> {
        let done = self.writer.perform(Withdraw(id.to_owned())).await;
        self.closing.look();
        done
    }
    /// This process waits for a question of a client's own call no more; the question stays.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn leave(&self, id: &str) -> Result<(), JournalError> {
        self.writer.perform(Leave(id.to_owned())).await
    }
    /// Some of those that ended without an answer and are not on record yet, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn unnoted(&self) -> Result<Vec<Ended>, JournalError> {
        let rows = sqlx::query(UNNOTED).bind(AT_A_TIME).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| -> Result<Ended, JournalError> {
            let by: Option<String> = row.try_get("closed_by").map_err(|e| self.failed(e))?;
            let at: i64 = row.try_get("closed_at").map_err(|e| self.failed(e))?;
            Ok(Ended { question: self.question_of(row)?, by: by.unwrap_or_default(), at: unsigned(at) })
        };
        rows.iter().map(read).collect()
    }
    /// These are on record by now.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn noted(&self, ids: Vec<String>) -> Result<(), JournalError> {
        self.writer.perform(Noted(ids)).await
    }
    /// Deletes questions that ended more than 30 days ago and are on record; gives how many. What
    /// stands because of one stands on.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn tidy_questions(&self) -> Result<u64, JournalError> {
        let before = now().saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
        let old: Option<i64> = sqlx::query_scalar(OLD)
            .bind(signed(before))
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        match old {
            None => Ok(0),
            Some(_) => self.writer.perform(Tidy(signed(before))).await,
        }
    }
}
