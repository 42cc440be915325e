//! What is read back: lists of runs, and whole trees.

use super::{Listed, Store, StoreError, now, owner, unsigned};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use subagents::event::{Event, Record};
use subagents::ports::{Loaded, RunRow};
use subagents::run::RunId;

/// A query for runs with who has their tree.
macro_rules! runs {
    ($rest:literal) => {
        runs!("", $rest)
    };
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT runs.run, runs.parent, runs.root, depth, agent, principal, door, state, waiting, turns, ",
            "tool_calls, tokens, usd, started, ended, trees.owner AS holder, trees.lease_until AS lease_until",
            $more,
            " FROM runs LEFT JOIN trees ON trees.root = runs.root ",
            $rest
        )
    };
}

/// All runs, for queries that are put together.
pub(super) const LISTED: &str = runs!("");
/// The newest runs.
pub(super) const NEWEST: &str = runs!("ORDER BY started DESC, depth, runs.run LIMIT ?");
/// Trees with work to do. Each part has an index of its own, in which no run stands that waits
/// for a person.
pub(super) const UNFINISHED: &str =
    "SELECT root FROM runs WHERE ended IS NULL AND waiting IS NULL AND state <> 'waiting'
    UNION SELECT root FROM runs AS r WHERE ended IS NULL AND waiting = 'children'
        AND NOT EXISTS (SELECT 1 FROM runs AS c WHERE c.parent = r.run AND c.ended IS NULL)
    UNION SELECT root FROM inbox ORDER BY root";

impl Store {
    /// The runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn runs(&self, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let query = sqlx::query(NEWEST).bind(limit);
        self.listed(query.fetch_all(&self.pool).await)
    }
    /// The run of this id; else those whose id ends or begins with `part`: one, or some that are
    /// meant equally.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, part: &str) -> Result<Vec<Listed>, StoreError> {
        const FIND: &str = runs!(
            "WHERE substr(runs.run, -length(?1)) = ?1 OR substr(runs.run, 1, length(?1)) = ?1 ORDER BY started DESC LIMIT 10"
        );
        // A whole id needs no look at all the others.
        let exact = sqlx::query(runs!("WHERE runs.run = ?")).bind(part).fetch_all(&self.pool).await;
        let exact = self.listed(exact)?;
        if !exact.is_empty() {
            return Ok(exact);
        }
        self.listed(sqlx::query(FIND).bind(part).fetch_all(&self.pool).await)
    }
    /// The runs that act for a principal, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn runs_of(&self, principal: &str, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let query = sqlx::query(runs!("WHERE principal = ? ORDER BY started DESC, depth, runs.run LIMIT ?"));
        self.listed(query.bind(principal).bind(limit).fetch_all(&self.pool).await)
    }
    /// One of them, by its whole id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn run_of(&self, principal: &str, run: &str) -> Result<Option<Listed>, StoreError> {
        let query = sqlx::query(runs!("WHERE runs.run = ? AND principal = ?")).bind(run).bind(principal);
        Ok(self.listed(query.fetch_all(&self.pool).await)?.pop())
    }
    /// The runs of a tree, parents before children.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn tree(&self, root: &RunId) -> Result<Vec<Listed>, StoreError> {
        let query = sqlx::query(runs!("WHERE runs.root = ? ORDER BY depth, started, runs.run")).bind(root.as_str());
        self.listed(query.fetch_all(&self.pool).await)
    }
    /// All events of a run, in order.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what no version wrote.
    pub async fn events(&self, run: &RunId) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT run, seq, at, body FROM events WHERE run = ? ORDER BY seq")
            .bind(run.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.record(row)).collect()
    }

    pub(super) async fn one(&self, run: &RunId) -> Result<Option<RunRow>, StoreError> {
        let query = sqlx::query(runs!("WHERE runs.run = ?")).bind(run.as_str());
        Ok(self.listed(query.fetch_all(&self.pool).await)?.pop().map(|listed| listed.row))
    }
    /// A tree as of one moment, which is why it is one query.
    pub(super) async fn loaded(&self, root: &RunId) -> Result<Vec<Loaded>, StoreError> {
        const LOAD: &str = runs!(
            ", seq, at, body",
            "LEFT JOIN events ON events.run = runs.run WHERE runs.root = ? ORDER BY depth, started, runs.run, seq"
        );
        let rows = sqlx::query(LOAD).bind(root.as_str()).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let now = now();
        let mut tree: Vec<Loaded> = Vec::new();
        for row in &rows {
            let run: &str = row.try_get("run").map_err(|e| self.failed(e))?;
            if tree.last().is_none_or(|last| last.row.run.as_str() != run) {
                let Listed { row, .. } = listed(row, now).map_err(|e| self.failed(e))?;
                tree.push(Loaded { row, records: Vec::new() });
            }
            let seq: Option<i64> = row.try_get("seq").map_err(|e| self.failed(e))?;
            if let Some(loaded) = tree.last_mut().filter(|_| seq.is_some()) {
                loaded.records.push(self.record(row)?);
            }
        }
        Ok(tree)
    }
    /// Trees with work to do: a run that has neither ended nor waits, one that waits for
    /// children that have all ended, or commands a dead owner did not take.
    pub(super) async fn unfinished(&self) -> Result<Vec<RunId>, StoreError> {
        let query = sqlx::query_scalar::<_, String>(UNFINISHED);
        let roots = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        Ok(roots.iter().map(|root| RunId::known(root)).collect())
    }

    pub(super) fn listed(&self, rows: Result<Vec<SqliteRow>, sqlx::Error>) -> Result<Vec<Listed>, StoreError> {
        let now = now();
        let rows = rows.map_err(|e| self.failed(e))?;
        rows.iter().map(|row| listed(row, now).map_err(|e| self.failed(e))).collect()
    }
    pub(super) fn record(&self, row: &SqliteRow) -> Result<Record, StoreError> {
        let failed = |e| self.failed(e);
        let run: String = row.try_get("run").map_err(failed)?;
        let (seq, at): (i64, i64) = (row.try_get("seq").map_err(failed)?, row.try_get("at").map_err(failed)?);
        let body: String = row.try_get("body").map_err(failed)?;
        let event: Event = serde_json::from_str(&body).map_err(|e| self.corrupt(&run, seq, &e))?;
        Ok(Record { run: RunId::known(&run), seq: unsigned(seq), at: unsigned(at), event })
    }
}

fn listed(row: &SqliteRow, now: u64) -> Result<Listed, sqlx::Error> {
    let count = |name: &str| row.try_get::<i64, _>(name).map(unsigned);
    let text = |name: &str| row.try_get::<String, _>(name);
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let holder: Option<String> = row.try_get("holder")?;
    let lease_until: Option<i64> = row.try_get("lease_until")?;
    Ok(Listed {
        row: RunRow {
            run: RunId::known(&text("run")?),
            parent: row.try_get::<Option<String>, _>("parent")?.as_deref().map(RunId::known),
            root: RunId::known(&text("root")?),
            depth: small(count("depth")?),
            agent: text("agent")?,
            principal: text("principal")?,
            door: row.try_get("door")?,
            state: text("state")?,
            waiting: row.try_get("waiting")?,
            turns: small(count("turns")?),
            tool_calls: small(count("tool_calls")?),
            tokens: count("tokens")?,
            usd: row.try_get::<Option<i64>, _>("usd")?.map(unsigned),
            started: count("started")?,
            ended: row.try_get::<Option<i64>, _>("ended")?.map(unsigned),
        },
        owned: holder.is_some_and(|mark| owner::holds(&mark, unsigned(lease_until.unwrap_or(0)), now)),
    })
}
