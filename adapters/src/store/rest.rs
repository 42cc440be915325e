//! What the REST door keeps and asks: keys of clients, pages of runs, trees event by event.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Listed, Store, StoreError, now, signed, unsigned};
use async_trait::async_trait;
use sqlx::{QueryBuilder, Row, Sqlite};
use subagents::event::Elsewhere;
use subagents::event::{Event, Record};
use subagents::ports::JournalError;
use subagents::run::RunId;

/// So long a client's key means the run it began.
const KEYS_LAST: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Whom to tell of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The client the tree acts for.
    pub principal: String,
    /// Where to.
    pub url: String,
    /// What its messages are signed with, sealed.
    pub secret: Option<String>,
}

/// A run that is about to begin.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The client.
    pub principal: String,
    /// The client's key, and what it asked for under it.
    pub key: Option<(String, String)>,
    /// The run it will be.
    pub run: RunId,
    /// Whom to tell of it.
    pub webhook: Option<Webhook>,
    /// Whom else, as an A2A client asked for it.
    pub push: Option<super::PushConfig>,
    /// A key that is older than this, milliseconds, is as good as new; `None`: none is.
    pub renewed: Option<u64>,
}

/// What became of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// It may begin.
    Fresh,
    /// The same was asked before; it is this run.
    Before(RunId),
    /// Something else was asked under the same key.
    Other,
}

/// Which runs. All fields must match; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsFilter {
    /// Of this client.
    pub principal: String,
    /// In this state.
    pub state: Option<String>,
    /// Of this agent.
    pub agent: Option<String>,
    /// Where in the tree.
    pub parent: Parent,
}

/// Where in the tree a run stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Parent {
    /// At the root.
    #[default]
    None,
    /// Right below this one.
    Of(RunId),
    /// Anywhere.
    Any,
}

struct Reserve(Reservation);

#[async_trait]
impl Job for Reserve {
    type Output = Reserved;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Reserved>, sqlx::Error> {
        let Reservation { principal, key, run, webhook, push, renewed } = &self.0;
        let now = signed(tx.now);
        if let Some((key, digest)) = key {
            let forget = signed(tx.now.saturating_sub(KEYS_LAST));
            sqlx::query("DELETE FROM rest_keys WHERE at < ?").bind(forget).execute(&mut *tx.connection).await?;
            let known = sqlx::query("SELECT digest, run, at FROM rest_keys WHERE principal = ? AND key = ?")
                .bind(principal)
                .bind(key)
                .fetch_optional(&mut *tx.connection)
                .await?;
            let old = renewed.map(|renewed| tx.now.saturating_sub(renewed));
            let is_old = |at: i64| old.is_some_and(|old| unsigned(at) < old);
            if let Some(known) = &known
                && !is_old(known.try_get("at")?)
            {
                let same = known.try_get::<String, _>("digest")? == *digest;
                let run = RunId::known(&known.try_get::<String, _>("run")?);
                return Ok(Ok(if same { Reserved::Before(run) } else { Reserved::Other }));
            }
            sqlx::query("INSERT OR REPLACE INTO rest_keys (principal, key, digest, run, at) VALUES (?, ?, ?, ?, ?)")
                .bind(principal)
                .bind(key)
                .bind(digest)
                .bind(run.as_str())
                .bind(now)
                .execute(&mut *tx.connection)
                .await?;
        }
        if let Some(webhook) = webhook {
            sqlx::query("INSERT INTO webhooks (root, principal, url, secret, at) VALUES (?, ?, ?, ?, ?)")
                .bind(run.as_str())
                .bind(&webhook.principal)
                .bind(&webhook.url)
                .bind(webhook.secret.as_deref())
                .bind(now)
                .execute(&mut *tx.connection)
                .await?;
        }
        if let Some(push) = push {
            // The first one of its tree: there is room.
            super::push::keep(tx, push).await?;
        }
        Ok(Ok(Reserved::Fresh))
    }
}

impl Store {
    /// Notes a run that is about to begin: its client's key and its webhook.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn reserve(&self, reservation: Reservation) -> Result<Reserved, JournalError> {
        self.writer.perform(Reserve(reservation)).await
    }

    /// The runs of a client, newest first, after the one that `after` names by its start and id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(
        &self,
        filter: &RunsFilter,
        after: Option<(u64, &str)>,
        limit: u32,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(super::read::LISTED);
        query.push(" WHERE principal = ").push_bind(&filter.principal);
        match &filter.parent {
            Parent::None => drop(query.push(" AND parent IS NULL")),
            Parent::Of(parent) => drop(query.push(" AND parent = ").push_bind(parent.as_str())),
            Parent::Any => {}
        }
        if let Some(state) = &filter.state {
            query.push(" AND state = ").push_bind(state);
        }
        if let Some(agent) = &filter.agent {
            query.push(" AND agent = ").push_bind(agent);
        }
        if let Some((started, run)) = after {
            query.push(" AND (started, runs.run) < (").push_bind(signed(started));
            query.push(", ").push_bind(run).push(")");
        }
        query.push(" ORDER BY started DESC, runs.run DESC LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.pool).await;
        self.listed(rows)
    }

    /// The events of a tree after a position, each with its own, in the order they were written.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what no version wrote.
    pub async fn since(&self, root: &RunId, after: u64, limit: u32) -> Result<Vec<(u64, Record)>, StoreError> {
        let rows = sqlx::query(
            "SELECT n, e.run AS run, e.seq AS seq, e.at AS at, e.body AS body FROM positions AS p
             JOIN events AS e ON e.run = p.run AND e.seq = p.seq
             WHERE p.root = ? AND p.n > ? ORDER BY p.n LIMIT ?",
        )
        .bind(root.as_str())
        .bind(signed(after))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        let placed = rows.iter().map(|row| {
            let n: i64 = row.try_get("n").map_err(|e| self.failed(e))?;
            Ok((unsigned(n), self.record(row)?))
        });
        placed.collect()
    }

    /// What a run ended with.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn last_words(&self, run: &RunId) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT run, seq, at, body FROM events WHERE run = ? AND type = 'run.finished' ORDER BY seq DESC LIMIT 1",
        )
        .bind(run.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        let Some(row) = row else { return Ok(None) };
        match self.record(&row)?.event {
            Event::Finished { text, .. } => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    /// Runs by state, for those who count them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn states(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT state, count(*) FROM runs GROUP BY state ORDER BY state")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(rows.into_iter().map(|(state, n)| (state, unsigned(n))).collect())
    }

    /// What a tree used so far, all of its runs together.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn used(&self, root: &RunId) -> Result<Elsewhere, StoreError> {
        let sql = "SELECT coalesce(sum(usd), 0), coalesce(sum(tokens), 0), coalesce(sum(turns), 0),
            coalesce(sum(tool_calls), 0), count(*) FROM runs WHERE root = ?";
        let row: (i64, i64, i64, i64, i64) =
            sqlx::query_as(sql).bind(root.as_str()).fetch_one(&self.pool).await.map_err(|e| self.failed(e))?;
        let small = |n: i64| u32::try_from(unsigned(n)).unwrap_or(u32::MAX);
        let (usd, tokens) = (unsigned(row.0), unsigned(row.1));
        Ok(Elsewhere { usd, tokens, turns: small(row.2), tool_calls: small(row.3), runs: small(row.4) })
    }

    /// Whom to tell of a tree.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn webhook(&self, root: &RunId) -> Result<Option<Webhook>, StoreError> {
        let row = sqlx::query("SELECT principal, url, secret FROM webhooks WHERE root = ?")
            .bind(root.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<Webhook, sqlx::Error> {
            Ok(Webhook {
                principal: row.try_get("principal")?,
                url: row.try_get("url")?,
                secret: row.try_get("secret")?,
            })
        };
        row.map(|row| read(&row).map_err(|e| self.failed(e))).transpose()
    }
}

/// The time of day as the store counts it.
pub fn clock() -> u64 {
    now()
}
