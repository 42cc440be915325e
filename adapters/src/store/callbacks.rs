//! What came along with tasks to call back with. It is sealed by whoever keeps it here.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, signed};
use async_trait::async_trait;
use sqlx::Row;
use subagents::ports::JournalError;

/// So long one is kept, in milliseconds: no grant lives longer.
const LONGEST: u64 = 24 * 3_600 * 1_000;

struct Keep {
    id: String,
    sealed: String,
    until: u64,
}

#[async_trait]
impl Job for Keep {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        let (now, connection) = (signed(tx.now), &mut *tx.connection);
        sqlx::query("DELETE FROM callbacks WHERE until < ?").bind(now).execute(&mut *connection).await?;
        // A message that comes late brings an earlier one.
        let sql = "INSERT INTO callbacks (id, sealed, until) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET sealed = ?2, until = ?3 WHERE until <= ?3";
        // What the other side says of it is no reason to keep it for ever.
        let until = signed(self.until.min(tx.now.saturating_add(LONGEST)));
        let query = sqlx::query(sql).bind(&self.id).bind(&self.sealed).bind(until);
        query.execute(connection).await.map(|_| Ok(()))
    }
}

impl Store {
    /// Keeps what came along, until then (milliseconds since 1970), in the place of an earlier one.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn callback_keep(&self, id: String, sealed: String, until: u64) -> Result<(), JournalError> {
        self.writer.perform(Keep { id, sealed, until }).await
    }
    /// What came along, sealed, if it is still kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn callback(&self, id: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT sealed FROM callbacks WHERE id = ?").bind(id).fetch_optional(&self.pool).await;
        let row = row.map_err(|source| self.failed(source))?;
        row.map(|row| row.try_get("sealed")).transpose().map_err(|source| self.failed(source))
    }
}
