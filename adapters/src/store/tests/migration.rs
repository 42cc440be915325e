use super::super::open::MIGRATIONS;
use super::super::owner;
use super::*;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use std::borrow::Cow;
use subagents::ports::JournalError;

/// What a pleach of the first migration wrote: a tree that ended, and one its process left.
const OLD: &str = include_str!("old_store.sql");

pub(super) async fn old(path: &Path, owner: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
    let mut first = sqlx::migrate!("src/store/migrations");
    first.migrations = Cow::Owned(MIGRATIONS.iter().filter(|m| m.version == 1).cloned().collect());
    first.run(&pool).await.unwrap();
    let sql = OLD.replace("OWNER", owner);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn runs_of_the_first_version_are_listed_and_read() {
    let place = place();
    old(&place.path, "another-boot 1 1").await;
    let store = Store::look(&place.path).await.unwrap().unwrap();
    let runs = store.runs(10).await.unwrap();
    let states: Vec<(&str, &str, bool)> =
        runs.iter().map(|l| (l.row.run.as_str(), l.row.state.as_str(), l.owned)).collect();
    assert_eq!(states, [("r-old3", "acting", false), ("r-old2", "completed", false), ("r-old1", "completed", false)]);
    assert!(runs.iter().all(|l| l.row.usd.is_none() && l.row.waiting.is_none()), "nobody knows what they cost");
    let of = |who: &'static str| {
        let store = &store;
        async move { store.runs_of(who, 10).await.unwrap().len() }
    };
    assert_eq!((of("local").await, of("ci").await), (2, 1), "the principal comes from their first event");
    let tree = store.load(&RunId::known("r-old1")).await.unwrap();
    let kinds: Vec<&str> = tree[0].records.iter().map(|r| r.event.kind()).collect();
    assert_eq!(
        kinds,
        [
            "run.started",
            "model.requested",
            "model.replied",
            "tool.requested",
            "tool.decided",
            "tool.finished",
            "model.requested",
            "model.replied",
            "run.finished"
        ]
    );
    assert_eq!(tree[1].row.parent.as_ref().map(RunId::as_str), Some("r-old1"));
}

#[tokio::test]
async fn a_tree_of_the_first_version_is_taken_over_when_its_process_is_gone() {
    let place = place();
    old(&place.path, "another-boot 1 1").await;
    let store = Store::open(&place.path).await.unwrap();
    let roots = store.unfinished_roots().await.unwrap();
    assert_eq!(roots, [RunId::known("r-old3")]);
    let lease = claim(&store, "r-old3").await;
    assert_eq!(lease.epoch, 1);
    store.append(vec![said("r-old3", "r-old3", 4)], &lease).await.unwrap();
    assert_eq!(store.events(&roots[0]).await.unwrap().len(), 4);
    store.close().await;
}

#[tokio::test]
async fn a_tree_of_a_live_process_of_the_first_version_stays_its() {
    let place = place();
    let own = owner::own();
    let mark: Vec<&str> = own.split(' ').take(3).collect();
    old(&place.path, &mark.join(" ")).await;
    let store = Store::open(&place.path).await.unwrap();
    assert!(matches!(store.claim(&RunId::known("r-old3")).await.unwrap(), Claimed::Held { .. }));
    let none = Lease { root: RunId::known("r-old3"), epoch: 1 };
    assert_eq!(store.append(vec![said("r-old3", "r-old3", 4)], &none).await, Err(JournalError::Fenced));
    store.close().await;
}

/// What a pleach wrote that had approvals, but whose rules did not say whose calls they are for.
#[tokio::test]
async fn a_store_of_the_version_before_is_brought_up() {
    let place = place();
    let options = SqliteConnectOptions::new().filename(&place.path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
    let mut before = sqlx::migrate!("src/store/migrations");
    before.migrations = Cow::Owned(MIGRATIONS.iter().filter(|m| m.version < 9).cloned().collect());
    before.run(&pool).await.unwrap();
    let written = include_str!("store_before_9.sql");
    sqlx::raw_sql(sqlx::AssertSqlSafe(written)).execute(&pool).await.unwrap();
    pool.close().await;
    let store = Store::open(&place.path).await.unwrap();
    // A rule of which nobody knows whom it was for stands for nobody, and the row tells why.
    assert_eq!(store.standing("ci", "s__put").await.unwrap(), []);
    assert_eq!(store.rules(None, 9).await.unwrap(), []);
    let by: String = sqlx::query_scalar("SELECT revoked_by FROM rules").fetch_one(&store.pool).await.unwrap();
    assert!(by.contains("whose calls"), "{by}");
    // What is open stays open and is answered; what was answered stays answered.
    let answered = store.question("q-done").await.unwrap().unwrap();
    assert_eq!(answered.closed, Some(("boss".into(), 2_000)));
    store.answer("q-open", "boss", &subagents::ports::Answer::YES).await.unwrap();
    let given = store.spend("ci", "d-open").await.unwrap();
    assert!(matches!(given, crate::store::Given::Yes { .. }), "{given:?}");
    store.close().await;
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused() {
    let place = place();
    Store::open(&place.path).await.unwrap().close().await;
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&place.path)).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'later', 1, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    for error in [Store::open(&place.path).await.err().unwrap(), Store::look(&place.path).await.err().unwrap()] {
        names(&place.path, &error, "another version of pleach");
        let is = matches!(error, super::super::StoreError::Migration { source: MigrateError::VersionMissing(999), .. });
        assert!(is, "{error:?}");
    }
}
