//! What webhooks are still to be told: rows, until they are told or given up.
//!
//! ```text
//!  event ──(same transaction)──▶ pending ──take──▶ pending, next = later ──told──▶ delivered
//!                                   ▲                      │ not told: next = later still
//!                                   └──────────────────────┴── too often ──▶ dead
//! ```
//!
//! A config whose receiver is not there, or wants no more, ends: with it goes what was still to be
//! told, so that a receiver that is dead costs one schedule of tries and not one a message.
//!
//! Taking one moves its next try beyond the time a try may take, and says who took it: of a process
//! known to be dead it is due at once, of one on another machine when that time is over. So a
//! message is told at least once. That time is also what a try is known by: how it went is noted
//! only of the message it took. A config that is set to another address meanwhile is told afresh.
//!
//! A message is of a tree's webhook or of a config that an A2A client gave ([`super::push`]). Those of
//! one config are told one after another, so that a receiver sees a task change in order: only the
//! first is ever due, and settling it makes the next one so.
//!
//! An *endpoint* is a client with an origin it named. What is due is looked for endpoint by
//! endpoint, so that a thousand messages for one hide none for another.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, owner, signed, unsigned};
use async_trait::async_trait;
use sqlx::Row;
use subagents::event::Record;
use subagents::ports::JournalError;
use subagents::run::RunId;

/// So many messages in a row that are given up end their config.
const MOST_DEAD: i64 = 3;
/// Settled messages are kept this long.
const KEPT: u64 = 30 * 24 * 60 * 60 * 1_000;

/// A message that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its number.
    pub id: u64,
    /// The tree it is about.
    pub root: RunId,
    /// Which of the tree's configs it is for; `None`: its webhook.
    pub config: Option<String>,
    /// Where it goes: the origin, a space, and the client.
    pub endpoint: String,
    /// Tries so far.
    pub tries: u32,
    /// Its letters that were heard.
    pub heard: u32,
    /// The event it tells of.
    pub record: Record,
    next: u64,
}

impl Due {
    /// The client of an endpoint; an origin has no space.
    pub fn client(endpoint: &str) -> &str {
        endpoint.split_once(' ').map_or("", |(_, client)| client)
    }
}

/// Who has enough under way, and is given nothing more for now.
#[derive(Debug, Clone, Default)]
pub struct Full {
    /// These endpoints.
    pub endpoints: Vec<String>,
    /// All endpoints of these clients.
    pub clients: Vec<String>,
}

impl Full {
    fn as_json(&self) -> (String, String) {
        let json = |names: &[String]| serde_json::Value::from(names.to_vec()).to_string();
        (json(&self.endpoints), json(&self.clients))
    }
}

/// The endpoints that have messages and are not full (?1, ?2), found by one look into the index for
/// each, however many messages there are.
macro_rules! of_each {
    ($select:literal) => {
        concat!(
            "WITH RECURSIVE ends(endpoint) AS (
                 SELECT min(endpoint) FROM outbox WHERE state = 'pending'
                 UNION ALL
                 SELECT (SELECT min(endpoint) FROM outbox WHERE state = 'pending' AND endpoint > ends.endpoint)
                 FROM ends WHERE ends.endpoint IS NOT NULL
             ), free(endpoint) AS (
                 SELECT endpoint FROM ends
                 WHERE endpoint IS NOT NULL AND endpoint NOT IN (SELECT value FROM json_each(?1))
                   AND substr(endpoint, instr(endpoint, ' ') + 1) NOT IN (SELECT value FROM json_each(?2))
             ) ",
            $select
        )
    };
}

/// ?3 is the time, ?4 how many of each endpoint, ?5 how many in all.
pub(super) const DUE: &str = of_each!(
    "SELECT o.id AS id, o.root AS root, o.config AS config, o.endpoint AS endpoint, tries, heard, next, e.run AS run, e.seq AS seq, e.at AS at,
            e.body AS body
     FROM free JOIN outbox AS o ON o.id IN (
         SELECT d.id FROM outbox AS d WHERE d.state = 'pending' AND d.endpoint = free.endpoint AND d.next <= ?3
         ORDER BY d.next, d.id LIMIT ?4)
     JOIN events AS e ON e.run = o.run AND e.seq = o.seq ORDER BY o.next, o.id LIMIT ?5"
);
pub(super) const NEXT: &str = of_each!(
    "SELECT min((SELECT min(next) FROM outbox AS o WHERE o.state = 'pending' AND o.endpoint = free.endpoint)) FROM free"
);

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Well.
    Delivered,
    /// Not; once more at this time, milliseconds since 1970 UTC, from the letter after those heard.
    Later { next: u64, why: String, heard: u32 },
    /// Not, and never again.
    Dead(String),
    /// Not, and nothing else of its config either, which ends. A tree's webhook stands.
    Ended(String),
    /// There was nothing to tell.
    Nothing,
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

/// How a try of a message ended that was taken until then.
struct Settle {
    id: u64,
    until: u64,
    told: Told,
}

#[async_trait]
impl Job for Settle {
    type Output = bool;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<bool>, sqlx::Error> {
        if !self.stands(tx).await? {
            return Ok(Ok(false));
        }
        let (state, next, why, heard) = match &self.told {
            Told::Nothing => return self.settled(tx, true).await.map(|()| Ok(true)),
            Told::Delivered => ("delivered", tx.now, None, None),
            Told::Later { next, why, heard } => ("pending", *next, Some(why.as_str()), Some(*heard)),
            Told::Dead(why) | Told::Ended(why) => ("dead", tx.now, Some(why.as_str()), None),
        };
        sqlx::query(
            "UPDATE outbox SET state = ?, next = ?, why = ?, heard = coalesce(?, heard), taker = NULL WHERE id = ?",
        )
        .bind(state)
        .bind(signed(next))
        .bind(why)
        .bind(heard)
        .bind(signed(self.id))
        .execute(&mut *tx.connection)
        .await?;
        match &self.told {
            Told::Ended(why) => self.ends(tx, why).await?,
            Told::Dead(_) => match self.refused(tx).await? {
                Some(why) => self.ends(tx, &why).await?,
                None => self.settled(tx, false).await?,
            },
            Told::Later { .. } => {}
            _ => self.settled(tx, false).await?,
        }
        let forget = signed(tx.now.saturating_sub(KEPT));
        sqlx::query("DELETE FROM outbox WHERE state <> 'pending' AND next < ?")
            .bind(forget)
            .execute(&mut *tx.connection)
            .await?;
        Ok(Ok(true))
    }
}

impl Settle {
    /// Whether the message is still the one that was taken. One that was forgotten meanwhile, goes
    /// somewhere else by now, or was taken by somebody else when its time was over is not: what
    /// became of the try says nothing of it, nor of the config that came in its place.
    async fn stands(&self, tx: &mut Tx<'_>) -> Result<bool, sqlx::Error> {
        let stands = sqlx::query("SELECT 1 FROM outbox WHERE id = ? AND next = ? AND state = 'pending'")
            .bind(signed(self.id))
            .bind(signed(self.until))
            .fetch_optional(&mut *tx.connection)
            .await?;
        Ok(stands.is_some())
    }
    /// The config it is of.
    async fn config(&self, tx: &mut Tx<'_>) -> Result<Option<(String, String)>, sqlx::Error> {
        sqlx::query_as("SELECT root, config FROM outbox WHERE id = ? AND config IS NOT NULL")
            .bind(signed(self.id))
            .fetch_optional(&mut *tx.connection)
            .await
    }
    /// Why its config ends, if this was one too many that its receiver would not have.
    async fn refused(&self, tx: &mut Tx<'_>) -> Result<Option<String>, sqlx::Error> {
        let Some((root, config)) = self.config(tx).await? else { return Ok(None) };
        // Since it was last said, and since it last heard something.
        let dead: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM outbox WHERE root = ?1 AND config = ?2 AND state = 'dead'
                 AND next >= coalesce((SELECT at FROM push_configs WHERE root = ?1 AND id = ?2), 0)
                 AND id > coalesce(
                     (SELECT max(id) FROM outbox WHERE root = ?1 AND config = ?2 AND state = 'delivered'), 0)",
        )
        .bind(root)
        .bind(config)
        .fetch_one(&mut *tx.connection)
        .await?;
        Ok((dead >= MOST_DEAD).then(|| format!("{dead} messages in a row were given up")))
    }
    /// Its config ends: what was still to be told of it is given up, and it goes.
    async fn ends(&self, tx: &mut Tx<'_>, why: &str) -> Result<(), sqlx::Error> {
        let Some((root, config)) = self.config(tx).await? else { return Ok(()) };
        sqlx::query(
            "UPDATE outbox SET state = 'dead', next = ?, why = ?, taker = NULL
             WHERE root = ? AND config = ? AND state = 'pending'",
        )
        .bind(signed(tx.now))
        .bind(format!("its config ended: {why}"))
        .bind(&root)
        .bind(&config)
        .execute(&mut *tx.connection)
        .await?;
        sqlx::query("DELETE FROM push_configs WHERE root = ? AND id = ?")
            .bind(root)
            .bind(config)
            .execute(&mut *tx.connection)
            .await?;
        Ok(())
    }
    /// It is settled, or goes; what comes after it of the same config is due.
    async fn settled(&self, tx: &mut Tx<'_>, goes: bool) -> Result<(), sqlx::Error> {
        let of: Option<(String, Option<String>)> = sqlx::query_as("SELECT root, config FROM outbox WHERE id = ?")
            .bind(signed(self.id))
            .fetch_optional(&mut *tx.connection)
            .await?;
        if goes {
            sqlx::query("DELETE FROM outbox WHERE id = ?").bind(signed(self.id)).execute(&mut *tx.connection).await?;
        }
        if let Some((root, Some(config))) = of {
            sqlx::query(
                "UPDATE outbox SET next = ? WHERE next = 9223372036854775807 AND id = (SELECT min(id) FROM outbox
                     WHERE root = ? AND config = ? AND state = 'pending')",
            )
            .bind(signed(tx.now))
            .bind(root)
            .bind(config)
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
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
    /// The messages that are due and have somewhere to go that is not full, longest due first:
    /// of each endpoint at most `each`, in all at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what no version wrote.
    pub async fn due(&self, now: u64, full: &Full, each: u32, limit: u32) -> Result<Vec<Due>, StoreError> {
        let (endpoints, clients) = full.as_json();
        let query = sqlx::query(DUE).bind(endpoints).bind(clients).bind(signed(now)).bind(each).bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let due = rows.iter().map(|row| {
            let count = |name: &str| row.try_get::<i64, _>(name).map(unsigned).map_err(|e| self.failed(e));
            let root: String = row.try_get("root").map_err(|e| self.failed(e))?;
            Ok(Due {
                id: count("id")?,
                root: RunId::known(&root),
                config: row.try_get("config").map_err(|e| self.failed(e))?,
                endpoint: row.try_get("endpoint").map_err(|e| self.failed(e))?,
                tries: u32::try_from(count("tries")?).unwrap_or(u32::MAX),
                heard: u32::try_from(count("heard")?).unwrap_or(u32::MAX),
                record: self.record(row)?,
                next: count("next")?,
            })
        });
        due.collect()
    }
    /// When the next message is due that has somewhere to go that is not full.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_due(&self, full: &Full) -> Result<Option<u64>, StoreError> {
        let (endpoints, clients) = full.as_json();
        let query = sqlx::query_scalar::<_, Option<i64>>(NEXT).bind(endpoints).bind(clients);
        let next = query.fetch_one(&self.pool).await.map_err(|e| self.failed(e))?;
        Ok(next.map(unsigned))
    }
    /// Takes a message to tell it, until a time; `false` when somebody else did.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn take_due(&self, due: &Due, until: u64) -> Result<bool, JournalError> {
        self.writer.perform(Take { id: due.id, was: due.next, until }).await
    }
    /// Notes how a try went of a message that was taken until `until`; `false` where it is not that
    /// one any more, and nothing is noted.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn settle(&self, id: u64, until: u64, told: Told) -> Result<bool, JournalError> {
        self.writer.perform(Settle { id, until, told }).await
    }
    /// How it stands with the messages of a tree for its webhook.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn told(&self, root: &RunId) -> Result<Tally, StoreError> {
        let rows: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT state, why FROM outbox WHERE root = ? AND config IS NULL ORDER BY id")
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
