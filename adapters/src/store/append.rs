//! Writing events: the run's row, the event and what it does to a question, all or nothing.

use super::lease::Tx;
use super::questions;
use super::signed;
use super::writer::{Job, Verdict};
use async_trait::async_trait;
use sqlx::SqliteConnection;
use subagents::event::Record;
use subagents::ports::{JournalError, Lease, RunRow, Write};

/// Writes that belong together.
pub(super) struct Append {
    writes: Vec<(Write, String)>,
    lease: Lease,
}

impl Append {
    /// Makes them ready, so that nothing is left to go wrong but the file.
    pub(super) fn new(writes: Vec<Write>, lease: &Lease) -> Result<Self, JournalError> {
        let ready = writes.into_iter().map(|write| {
            if write.row.root != lease.root || write.record.run != write.row.run {
                let (run, tree) = (&write.record.run, &lease.root);
                return Err(JournalError::Failed(format!("an event of {run} is not for the tree {tree}")));
            }
            let body = serde_json::to_string(&write.record.event).map_err(|e| JournalError::Failed(e.to_string()))?;
            Ok((write, body))
        });
        Ok(Self { writes: ready.collect::<Result<_, _>>()?, lease: lease.clone() })
    }
}

#[async_trait]
impl Job for Append {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        if !tx.holds(&self.lease).await? {
            return Ok(Err(JournalError::Fenced));
        }
        let changes = self.writes.iter().filter_map(|(write, _)| write.question.as_ref());
        if let Err(why) = questions::check(tx, changes).await? {
            return Ok(Err(why));
        }
        let me = tx.me();
        for (write, body) in &self.writes {
            row(&mut *tx.connection, &write.row, me).await?;
            event(&mut *tx.connection, &write.record, body).await?;
            if let Some(change) = &write.question {
                questions::change(tx, change).await?;
            }
        }
        Ok(Ok(()))
    }
}

async fn row(connection: &mut SqliteConnection, row: &RunRow, me: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO runs (run, parent, root, depth, agent, principal, door, state, waiting, turns, tool_calls,
                           tokens, usd, started, ended, owner)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (run) DO UPDATE SET state = excluded.state, waiting = excluded.waiting, turns = excluded.turns,
             tool_calls = excluded.tool_calls, tokens = excluded.tokens, usd = excluded.usd, ended = excluded.ended,
             owner = excluded.owner",
    )
    .bind(row.run.as_str())
    .bind(row.parent.as_ref().map(|p| p.as_str()))
    .bind(row.root.as_str())
    .bind(row.depth)
    .bind(&row.agent)
    .bind(&row.principal)
    .bind(row.door.as_deref())
    .bind(&row.state)
    .bind(row.waiting.as_deref())
    .bind(row.turns)
    .bind(row.tool_calls)
    .bind(signed(row.tokens))
    .bind(row.usd.map(signed))
    .bind(signed(row.started))
    .bind(row.ended.map(signed))
    .bind(me)
    .execute(connection)
    .await
    .map(drop)
}

async fn event(connection: &mut SqliteConnection, record: &Record, body: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO events (run, seq, at, type, body) VALUES (?, ?, ?, ?, ?)")
        .bind(record.run.as_str())
        .bind(signed(record.seq))
        .bind(signed(record.at))
        .bind(record.event.kind())
        .bind(body)
        .execute(connection)
        .await
        .map(drop)
}
