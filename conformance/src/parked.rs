//! Many runs that wait: the rows of one that really parked, copied in its store under new names.
//!
//! A copy differs from what a hundred thousand starts would have left in nothing but its ids and its
//! times: events, positions, question and tree are all there, and it wakes like any other. Only to be
//! used on the store of a `pleach` that does not run.

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use std::path::Path;

/// Opens a store to work on its rows.
///
/// # Errors
/// When it cannot be opened.
pub async fn open(store: &Path) -> anyhow::Result<SqlitePool> {
    let options = SqliteConnectOptions::new().filename(store).foreign_keys(true);
    Ok(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
}

/// Makes `count` copies of a parked root run, each asked a millisecond before the last; gives their
/// ids and those of their questions. `mark` tells them from those of other calls: six characters.
///
/// # Errors
/// When the run does not wait, or the store cannot be written.
pub async fn copy(store: &SqlitePool, run: &str, mark: &str, count: u32) -> anyhow::Result<Vec<(String, String)>> {
    let question: String = sqlx::query_scalar("SELECT id FROM questions WHERE run = ? AND closed_at IS NULL")
        .bind(run)
        .fetch_one(store)
        .await?;
    let mut tx = store.begin().await?;
    for table in [RUNS, EVENTS, QUESTIONS, TREES] {
        let query = sqlx::query(table).bind(run).bind(count).bind(mark).bind(&question);
        query.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    let id = |kind: char, i: u32| format!("{kind}-{mark}{i:010}");
    Ok((1..=count).map(|i| (id('r', i), id('q', i))).collect())
}

/// One row for each copy. ?1 is the run, ?2 how many, ?3 the mark, ?4 the question.
macro_rules! each {
    ($into:literal) => {
        concat!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2) ", $into)
    };
}

const RUNS: &str = each!(
    "INSERT INTO runs (run, parent, root, depth, agent, state, turns, tool_calls, tokens, started, ended, owner,
                       principal, door, waiting, usd)
     SELECT printf('r-%s%010d', ?3, i), NULL, printf('r-%s%010d', ?3, i), depth, agent, state, turns, tool_calls,
            tokens, started - i, ended, owner, principal, door, waiting, usd
     FROM n, runs WHERE run = ?1 AND parent IS NULL AND waiting = 'question'"
);
const EVENTS: &str = each!(
    "INSERT INTO events (run, seq, at, type, body)
     SELECT printf('r-%s%010d', ?3, i), seq, at - i, type,
            replace(replace(body, ?1, printf('r-%s%010d', ?3, i)), ?4, printf('q-%s%010d', ?3, i))
     FROM n, events WHERE run = ?1 ORDER BY i, seq"
);
const QUESTIONS: &str = each!(
    "INSERT INTO questions (id, run, root, principal, asked, expires, body)
     SELECT printf('q-%s%010d', ?3, i), printf('r-%s%010d', ?3, i), printf('r-%s%010d', ?3, i), principal, asked - i,
            expires, json_set(replace(replace(body, ?1, printf('r-%s%010d', ?3, i)), ?4, printf('q-%s%010d', ?3, i)),
                              '$.asked', asked - i)
     FROM n, questions WHERE id = ?4"
);
const TREES: &str = each!(
    "INSERT INTO trees (root, epoch, owner, lease_until)
     SELECT printf('r-%s%010d', ?3, i), epoch, NULL, 0 FROM n, trees WHERE root = ?1"
);
