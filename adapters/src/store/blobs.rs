//! Large results, kept under the hash of what they hold and read by range.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, signed, unsigned};
use async_trait::async_trait;
use sqlx::Row;

/// Keeps bytes.
pub(super) struct Put {
    name: String,
    bytes: Vec<u8>,
}

impl Put {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        Self { name: digest.as_ref().iter().map(|b| format!("{b:02x}")).collect(), bytes }
    }
}

#[async_trait]
impl Job for Put {
    type Output = String;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<String>, sqlx::Error> {
        sqlx::query("INSERT INTO blobs (name, size, bytes) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(&self.name)
            .bind(signed(self.bytes.len() as u64))
            .bind(self.bytes.as_slice())
            .execute(&mut *tx.connection)
            .await?;
        Ok(Ok(self.name.clone()))
    }
}

impl Store {
    pub(super) async fn blob(&self, name: &str, offset: u64, limit: u64) -> Result<Option<(Vec<u8>, u64)>, StoreError> {
        // SQLite counts from 1.
        let row = sqlx::query("SELECT size, substr(bytes, ?2, ?3) AS part FROM blobs WHERE name = ?1")
            .bind(name)
            .bind(signed(offset.saturating_add(1)))
            .bind(signed(limit))
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let Some(row) = row else { return Ok(None) };
        let size: i64 = row.try_get("size").map_err(|e| self.failed(e))?;
        let part: Vec<u8> = row.try_get("part").map_err(|e| self.failed(e))?;
        Ok(Some((part, unsigned(size))))
    }
}
