//! What A2A peers gave out, and to whom: our names of their tasks and conversations, whose they
//! are, and which messages were passed on already.

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, signed, unsigned};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use subagents::ports::JournalError;

/// So long what nobody used is kept.
const KEPT: u64 = 30 * 24 * 60 * 60 * 1_000;

/// How a task or a conversation came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerDoor {
    /// A skill was called as a tool; our names are the peer's.
    Tool,
    /// It is passed on to an A2A client, under names of our own.
    A2a,
}

impl PeerDoor {
    fn as_str(self) -> &'static str {
        match self {
            PeerDoor::Tool => "tool",
            PeerDoor::A2a => "a2a",
        }
    }
}

/// Of whom: a client, a peer, and the way between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Between {
    /// The client.
    pub principal: String,
    /// The peer.
    pub peer: String,
    /// The way.
    pub door: PeerDoor,
}

/// A task over there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTask {
    /// Our name of it.
    pub id: String,
    /// The skill it was begun for; empty where none was named.
    pub skill: String,
    /// The peer's name of it, once it said.
    pub task: Option<String>,
    /// Our name of its conversation.
    pub context: String,
    /// How it stood when it was heard of last, as the protocol writes it.
    pub state: String,
    /// Its status as the client is shown it, JSON; of a skill's task the question that was answered last.
    pub status: Option<String>,
    /// The question somebody is asked and did not answer yet.
    pub asked: Option<String>,
    /// When that was first heard of, milliseconds since 1970 UTC.
    pub changed: u64,
}

/// A conversation over there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerContext {
    /// Our name of it.
    pub id: String,
    /// The peer's name of it, once it said.
    pub context: Option<String>,
    /// The skill it was begun for.
    pub skill: String,
}

/// A message that is about to be passed on.
#[derive(Debug, Clone)]
pub struct PeerMessage {
    /// What it is known by, and the digest of what it says.
    pub known: String,
    /// See there.
    pub said: String,
    /// The task it is said to, by our name; that of a new one where it begins one.
    pub id: String,
    /// What is known that was said before this time is as good as new.
    pub renewed: Option<u64>,
    /// The task it begins: its skill and our name of its conversation.
    pub begins: Option<(String, String)>,
}

/// What became of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerSaid {
    /// It may be passed on.
    Fresh,
    /// It was before, to this task; whether the peer answered it.
    Before(String, bool),
    /// Another message was known by the same.
    Other,
}

/// Which tasks. All fields must match; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFilter {
    /// Of this conversation, by our name.
    pub context: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// Changed at this time or after it.
    pub after: Option<u64>,
}

/// What is noted of a task that was heard of.
#[derive(Debug, Clone, Default)]
pub struct PeerNews {
    /// Our name of it.
    pub id: String,
    /// The peer's names.
    pub task: Option<String>,
    /// Of its conversation.
    pub context: Option<String>,
    /// How it stands, where that was said.
    pub state: Option<String>,
    /// Its status as the client is shown it.
    pub status: Option<String>,
}

/// What is noted of a call of a skill.
#[derive(Debug, Clone, Default)]
pub struct PeerCall {
    /// The skill.
    pub skill: String,
    /// The task, where it is one.
    pub task: Option<String>,
    /// The conversation.
    pub context: Option<String>,
    /// How the task stands.
    pub state: String,
    /// The question somebody is asked, and when nobody will answer it any more.
    pub asked: Option<(String, u64)>,
}

/// How a task is answered, and what it was asked then (?3: which; any where that is null).
pub(super) const ANSWERED: &str = "UPDATE peer_tasks SET expires = NULL, asked = NULL WHERE principal = ?1
    AND peer = ?2 AND task = ?4 AND door = ?5 AND asked = coalesce(?3, asked)";
pub(super) const UNANSWERED: &str = "UPDATE peer_tasks SET asked = ? WHERE principal = ? AND peer = ? AND task = ?
    AND door = ? AND asked IS NULL";
pub(super) const EXPIRED: &str = "UPDATE peer_tasks SET expires = NULL WHERE principal = ? AND peer = ? AND task = ?
    AND door = ? AND expires <= ?";
/// Heard of again as it was, a task keeps its place in lists.
pub(super) const HEARD: &str = "UPDATE peer_tasks SET task = coalesce(task, ?3), state = coalesce(?4, state),
    status = coalesce(?5, status), used = ?6,
    changed = CASE WHEN state IS coalesce(?4, state) AND status IS coalesce(?5, status) THEN changed ELSE ?6 END
    WHERE principal = ?1 AND peer = ?2 AND id = ?7 AND door = ?8";
pub(super) const HEARD_OF: &str = "UPDATE peer_contexts SET context = coalesce(context, ?3), changed = ?4
    WHERE principal = ?1 AND peer = ?2 AND door = ?5 AND id = (SELECT context FROM peer_tasks
    WHERE id = ?6 AND principal = ?1 AND peer = ?2 AND door = ?5)";
pub(super) const CALLED: &str = "UPDATE peer_tasks SET skill = ?3, state = ?4, asked = ?5, expires = ?6, changed = ?7,
    used = ?7 WHERE principal = ?1 AND peer = ?2 AND task = ?8 AND door = ?9";
pub(super) const KNOWN: &str = "SELECT id, said, done, at FROM peer_messages
    WHERE principal = ? AND peer = ? AND known = ?";
pub(super) const CONTEXT: &str = "SELECT id, context, skill FROM peer_contexts
    WHERE principal = ? AND peer = ? AND door = ? AND id = ?";
pub(super) const EXPIRING: &str = "SELECT task, expires FROM peer_tasks WHERE principal = ? AND peer = ? AND door = ?
    AND expires IS NOT NULL AND task IS NOT NULL ORDER BY expires";
/// Whether anything is there that nobody used for so long.
pub(super) const OLD: &str = "SELECT EXISTS (SELECT 1 FROM peer_messages WHERE at < ?1)
    OR EXISTS (SELECT 1 FROM peer_contexts WHERE changed < ?1) OR EXISTS (SELECT 1 FROM peer_tasks WHERE used < ?1)";
pub(super) const TIDY: [&str; 3] = [
    "DELETE FROM peer_messages WHERE at < ?",
    "DELETE FROM peer_contexts WHERE changed < ?",
    "DELETE FROM peer_tasks WHERE used < ?",
];

/// Deletes what nobody used since.
struct Tidy(u64);

#[async_trait]
impl Job for Tidy {
    type Output = u64;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<u64>, sqlx::Error> {
        let mut deleted = 0;
        for sql in TIDY {
            deleted += sqlx::query(sql).bind(signed(self.0)).execute(&mut *tx.connection).await?.rows_affected();
        }
        Ok(Ok(deleted))
    }
}

enum Change {
    Say(PeerMessage),
    Heard(PeerNews, Option<String>),
    Unsaid(String),
    Called(PeerCall),
    /// A question of a task, by the peer's name, is answered; without one, whichever is open.
    Answered(String, Option<String>),
    /// It is not after all.
    Unanswered(String, String),
    /// Nobody answers a task's question any more.
    Expired(String, u64),
}

/// Whether it was as expected; of a message, where it was said before.
type Came = (bool, Option<PeerSaid>);

struct Noted(Between, Change);

#[async_trait]
impl Job for Noted {
    type Output = Came;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Came>, sqlx::Error> {
        let now = tx.now;
        let Self(of, change) = self;
        let connection = &mut *tx.connection;
        Ok(Ok(match change {
            Change::Say(message) => say(connection, now, of, message).await?,
            Change::Heard(news, known) => {
                heard(connection, now, of, news).await?;
                if let Some(known) = known {
                    let sql = "UPDATE peer_messages SET done = 1 WHERE principal = ? AND peer = ? AND known = ?";
                    bound(sql, of).bind(known).execute(connection).await?;
                }
                (true, None)
            }
            Change::Unsaid(known) => {
                let sql = "DELETE FROM peer_messages WHERE principal = ? AND peer = ? AND known = ? AND done = 0";
                bound(sql, of).bind(known).execute(connection).await?;
                (true, None)
            }
            Change::Called(call) => {
                called(connection, now, of, call).await?;
                (true, None)
            }
            Change::Answered(task, question) => {
                let query = bound(ANSWERED, of).bind(question.as_deref()).bind(task).bind(of.door.as_str());
                (query.execute(connection).await?.rows_affected() > 0, None)
            }
            Change::Unanswered(task, question) => {
                let query = sqlx::query(UNANSWERED).bind(question).bind(&of.principal).bind(&of.peer);
                let query = query.bind(task).bind(of.door.as_str());
                (query.execute(connection).await?.rows_affected() > 0, None)
            }
            Change::Expired(task, at) => {
                let query = bound(EXPIRED, of).bind(task).bind(of.door.as_str()).bind(signed(*at));
                (query.execute(connection).await?.rows_affected() > 0, None)
            }
        }))
    }
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

/// The client and the peer are the first two of every statement.
fn bound<'q>(sql: &'static str, of: &'q Between) -> Query<'q> {
    sqlx::query(sql).bind(&of.principal).bind(&of.peer)
}

async fn say(db: &mut SqliteConnection, now: u64, of: &Between, m: &PeerMessage) -> Result<Came, sqlx::Error> {
    if let Some(before) = known(db, of, m).await? {
        return Ok((false, Some(before)));
    }
    let sql = "INSERT OR REPLACE INTO peer_messages (principal, peer, known, said, id, done, at)
        VALUES (?, ?, ?, ?, ?, 0, ?)";
    bound(sql, of).bind(&m.known).bind(&m.said).bind(&m.id).bind(signed(now)).execute(&mut *db).await?;
    if let Some((skill, context)) = &m.begins {
        let sql = "INSERT INTO peer_tasks (principal, peer, id, door, skill, context, state, changed, used)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'TASK_STATE_SUBMITTED', ?7, ?7)";
        let query = bound(sql, of).bind(&m.id).bind(of.door.as_str()).bind(skill).bind(context);
        query.bind(signed(now)).execute(&mut *db).await?;
        let context = PeerContext { id: context.clone(), context: None, skill: skill.clone() };
        converse(db, now, of, &context).await?;
    }
    Ok((true, None))
}

/// What became of a message before, if it was said.
async fn known(db: &mut SqliteConnection, of: &Between, m: &PeerMessage) -> Result<Option<PeerSaid>, sqlx::Error> {
    let Some(row) = bound(KNOWN, of).bind(&m.known).fetch_optional(db).await? else { return Ok(None) };
    let at = unsigned(row.try_get("at")?);
    if m.renewed.is_some_and(|since| at < since) {
        return Ok(None);
    }
    Ok(Some(match row.try_get::<String, _>("said")? == m.said {
        true => PeerSaid::Before(row.try_get("id")?, row.try_get::<i64, _>("done")? != 0),
        false => PeerSaid::Other,
    }))
}

async fn heard(db: &mut SqliteConnection, now: u64, of: &Between, news: &PeerNews) -> Result<(), sqlx::Error> {
    let query = bound(HEARD, of).bind(news.task.as_deref()).bind(news.state.as_deref()).bind(news.status.as_deref());
    query.bind(signed(now)).bind(&news.id).bind(of.door.as_str()).execute(&mut *db).await?;
    if let Some(context) = &news.context {
        let query = bound(HEARD_OF, of).bind(context).bind(signed(now)).bind(of.door.as_str());
        query.bind(&news.id).execute(&mut *db).await?;
    }
    Ok(())
}

async fn converse(db: &mut SqliteConnection, now: u64, of: &Between, c: &PeerContext) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO peer_contexts (principal, peer, door, id, context, skill, changed)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET changed = ?7, skill = ?6";
    let query = bound(sql, of).bind(of.door.as_str()).bind(&c.id).bind(c.context.as_deref()).bind(&c.skill);
    query.bind(signed(now)).execute(db).await.map(drop)
}

async fn called(db: &mut SqliteConnection, now: u64, of: &Between, call: &PeerCall) -> Result<(), sqlx::Error> {
    if let Some(task) = &call.task {
        let sql = "INSERT INTO peer_tasks
            (principal, peer, id, door, skill, task, context, state, asked, expires, changed, used)
            VALUES (?1, ?2, lower(hex(randomblob(16))), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)";
        let (asked, expires) = call.asked.as_ref().map(|(name, until)| (name.as_str(), signed(*until))).unzip();
        let query = bound(CALLED, of).bind(&call.skill).bind(&call.state).bind(asked).bind(expires).bind(signed(now));
        let known = query.bind(task).bind(of.door.as_str()).execute(&mut *db).await?.rows_affected() > 0;
        if !known {
            let query = bound(sql, of).bind(of.door.as_str()).bind(&call.skill).bind(task);
            let query = query.bind(call.context.as_deref().unwrap_or_default()).bind(&call.state);
            query.bind(asked).bind(expires).bind(signed(now)).execute(&mut *db).await?;
        }
    }
    if let Some(id) = &call.context {
        let context = PeerContext { id: id.clone(), context: Some(id.clone()), skill: call.skill.clone() };
        converse(db, now, of, &context).await?;
    }
    Ok(())
}

const COLUMNS: &str = "SELECT id, skill, task, context, state, status, asked, changed";

fn task(row: &SqliteRow) -> Result<PeerTask, sqlx::Error> {
    Ok(PeerTask {
        id: row.try_get("id")?,
        skill: row.try_get("skill")?,
        task: row.try_get("task")?,
        context: row.try_get("context")?,
        state: row.try_get("state")?,
        status: row.try_get("status")?,
        asked: row.try_get("asked")?,
        changed: unsigned(row.try_get("changed")?),
    })
}

fn from(of: &Between, what: &'static str) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(what);
    query.push(" FROM peer_tasks WHERE principal = ").push_bind(of.principal.clone());
    query.push(" AND peer = ").push_bind(of.peer.clone()).push(" AND door = ").push_bind(of.door.as_str());
    query
}

pub(super) fn one(of: &Between, column: &str, is: &str) -> QueryBuilder<Sqlite> {
    let mut query = from(of, COLUMNS);
    query.push(format!(" AND {column} = ")).push_bind(is.to_owned());
    query
}

fn matching(query: &mut QueryBuilder<Sqlite>, filter: &PeerFilter) {
    // What never became a task is none.
    query.push(" AND task IS NOT NULL");
    if let Some(context) = &filter.context {
        query.push(" AND context = ").push_bind(context.clone());
    }
    if let Some(state) = &filter.state {
        query.push(" AND state = ").push_bind(state.clone());
    }
    if let Some(after) = filter.after {
        query.push(" AND changed >= ").push_bind(signed(after));
    }
}

pub(super) fn counted(of: &Between, filter: &PeerFilter) -> QueryBuilder<Sqlite> {
    let mut query = from(of, "SELECT count(*) AS n");
    matching(&mut query, filter);
    query
}

pub(super) fn listed(
    of: &Between,
    filter: &PeerFilter,
    after: Option<(u64, &str)>,
    limit: u32,
) -> QueryBuilder<Sqlite> {
    let mut query = from(of, COLUMNS);
    matching(&mut query, filter);
    if let Some((changed, id)) = after {
        query.push(" AND (changed, id) < (").push_bind(signed(changed)).push(", ").push_bind(id.to_owned());
        query.push(")");
    }
    query.push(" ORDER BY changed DESC, id DESC LIMIT ").push_bind(limit);
    query
}

impl Store {
    /// Deletes what peers gave out, by whichever way, that nobody used for 30 days; gives how much.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn tidy_peers(&self) -> Result<u64, JournalError> {
        let before = super::clock().saturating_sub(KEPT);
        let old = sqlx::query_scalar::<_, bool>(OLD).bind(signed(before)).fetch_one(&self.pool).await;
        match old.map_err(|e| self.failed(e))? {
            false => Ok(0),
            true => self.writer.perform(Tidy(before)).await,
        }
    }
    async fn changed(&self, of: &Between, change: Change) -> Result<Came, JournalError> {
        self.writer.perform(Noted(of.clone(), change)).await
    }
    /// Notes a message that is about to be passed on, and the task it begins.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_say(&self, of: &Between, message: PeerMessage) -> Result<PeerSaid, JournalError> {
        let (_, before) = self.changed(of, Change::Say(message)).await?;
        Ok(before.unwrap_or(PeerSaid::Fresh))
    }
    /// What became of a message before, if it was said.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_said(&self, of: &Between, message: &PeerMessage) -> Result<Option<PeerSaid>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|e| self.failed(e))?;
        known(&mut connection, of, message).await.map_err(|e| self.failed(e))
    }
    /// Notes how a task stands; with `known` that the peer answered that message.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_heard(&self, of: &Between, news: PeerNews, known: Option<String>) -> Result<(), JournalError> {
        self.changed(of, Change::Heard(news, known)).await.map(drop)
    }
    /// A message was not passed on after all.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_unsaid(&self, of: &Between, known: String) -> Result<(), JournalError> {
        self.changed(of, Change::Unsaid(known)).await.map(drop)
    }
    /// Notes what a skill that was called gave out.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_called(&self, of: &Between, call: PeerCall) -> Result<(), JournalError> {
        self.changed(of, Change::Called(call)).await.map(drop)
    }
    /// Notes that a task's question is answered, by the peer's name of the task; without one,
    /// whichever is open. `false` where it was before, or there is no such task.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_answered(&self, of: &Between, task: &str, question: Option<&str>) -> Result<bool, JournalError> {
        let change = Change::Answered(task.to_owned(), question.map(str::to_owned));
        Ok(self.changed(of, change).await?.0)
    }
    /// A task's question is not answered after all.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_unanswered(&self, of: &Between, task: &str, question: &str) -> Result<(), JournalError> {
        self.changed(of, Change::Unanswered(task.to_owned(), question.to_owned())).await.map(drop)
    }
    /// Whether the time of a task's question is over, by the peer's name of the task; said once.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn peer_expired(&self, of: &Between, task: &str, at: u64) -> Result<bool, JournalError> {
        Ok(self.changed(of, Change::Expired(task.to_owned(), at)).await?.0)
    }

    /// A task by our name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_task(&self, of: &Between, id: &str) -> Result<Option<PeerTask>, StoreError> {
        self.one_task(of, "id", id).await
    }
    /// A task by the peer's name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_task_of(&self, of: &Between, task: &str) -> Result<Option<PeerTask>, StoreError> {
        self.one_task(of, "task", task).await
    }
    async fn one_task(&self, of: &Between, column: &str, is: &str) -> Result<Option<PeerTask>, StoreError> {
        let mut query = one(of, column, is);
        let row = query.build().fetch_optional(&self.pool).await;
        row.and_then(|row| row.as_ref().map(task).transpose()).map_err(|e| self.failed(e))
    }
    /// A conversation by our name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_context(&self, of: &Between, id: &str) -> Result<Option<PeerContext>, StoreError> {
        let row = bound(CONTEXT, of).bind(of.door.as_str()).bind(id).fetch_optional(&self.pool).await;
        let read = |row: SqliteRow| {
            Ok(PeerContext { id: row.try_get("id")?, context: row.try_get("context")?, skill: row.try_get("skill")? })
        };
        row.and_then(|row| row.map(read).transpose()).map_err(|e| self.failed(e))
    }
    /// The tasks whose questions have an end, by the peer's names, soonest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_expiring(&self, of: &Between) -> Result<Vec<(String, u64)>, StoreError> {
        let rows =
            bound(EXPIRING, of).bind(of.door.as_str()).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| Ok((row.try_get("task")?, unsigned(row.try_get("expires")?)));
        rows.iter().map(|row| read(row).map_err(|e| self.failed(e))).collect()
    }
    /// Tasks, latest first, after the one that `after` names by its change and our name; and how
    /// many there are in all.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_tasks(
        &self,
        of: &Between,
        filter: &PeerFilter,
        after: Option<(u64, &str)>,
        limit: u32,
    ) -> Result<(Vec<PeerTask>, u64), StoreError> {
        let total = counted(of, filter).build().fetch_one(&self.pool).await.and_then(|row| row.try_get::<i64, _>("n"));
        let total = unsigned(total.map_err(|e| self.failed(e))?);
        let mut query = listed(of, filter, after, limit);
        let rows = query.build().fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let tasks = rows.iter().map(|row| task(row).map_err(|e| self.failed(e))).collect::<Result<_, _>>()?;
        Ok((tasks, total))
    }
}
