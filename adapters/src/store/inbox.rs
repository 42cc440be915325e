//! Commands for a tree that another process owns: rows, until that process takes them.

use super::lease::Tx;
use super::signed;
use super::writer::{Job, Verdict};
use async_trait::async_trait;
use sqlx::Row;
use subagents::ports::{Command, JournalError, Lease};
use subagents::run::RunId;

/// Leaves a command, where there is somebody to take it.
pub(super) struct Post {
    root: RunId,
    body: String,
}

impl Post {
    pub(super) fn new(root: &RunId, command: &Command) -> Result<Self, JournalError> {
        let body = serde_json::to_string(command).map_err(|e| JournalError::Failed(e.to_string()))?;
        Ok(Self { root: root.clone(), body })
    }
}

#[async_trait]
impl Job for Post {
    type Output = bool;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<bool>, sqlx::Error> {
        if !tx.is_owned(&self.root).await? {
            return Ok(Ok(false));
        }
        sqlx::query("INSERT INTO inbox (root, at, body) VALUES (?, ?, ?)")
            .bind(self.root.as_str())
            .bind(signed(tx.now))
            .bind(&self.body)
            .execute(&mut *tx.connection)
            .await?;
        Ok(Ok(true))
    }
}

/// Takes what waits for the owner.
pub(super) struct Take(pub(super) Lease);

#[async_trait]
impl Job for Take {
    type Output = Vec<Command>;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Vec<Command>>, sqlx::Error> {
        if !tx.holds(&self.0).await? {
            return Ok(Err(JournalError::Fenced));
        }
        Ok(Ok(take_all(tx, &self.0.root).await?))
    }
}

/// The commands for a tree, oldest first; they are not there afterwards.
pub(super) async fn take_all(tx: &mut Tx<'_>, root: &RunId) -> Result<Vec<Command>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, body FROM inbox WHERE root = ? ORDER BY id")
        .bind(root.as_str())
        .fetch_all(&mut *tx.connection)
        .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut commands = Vec::new();
    for row in rows {
        let (id, body): (i64, String) = (row.try_get("id")?, row.try_get("body")?);
        match serde_json::from_str(&body) {
            Ok(command) => commands.push(command),
            // Of another version: it cannot be obeyed, and must not stand in the way of others.
            Err(e) => tracing::warn!("command {id} for {root} is not understood and dropped: {e}"),
        }
    }
    sqlx::query("DELETE FROM inbox WHERE root = ?").bind(root.as_str()).execute(&mut *tx.connection).await?;
    Ok(commands)
}
