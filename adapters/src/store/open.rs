//! Opening the file: made for its owner alone, brought to this version, or only looked at.

use super::{Store, StoreError, error, owner, watch, writer};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// Two processes that open a new store at once may step on each other's toes this often.
const ATTEMPTS: u32 = 5;
/// Of the connections the writer and the watcher have one each.
const CONNECTIONS: u32 = 6;

/// What differs in tests.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// How long to wait for another process's lock.
    pub(super) busy: Duration,
    /// The mark of this process.
    pub(super) owner: String,
    /// How long a tree is kept without a sign of life, where the process cannot be looked at.
    pub(super) lease: Duration,
    /// Pages the file may have.
    pub(super) pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { busy: Duration::from_secs(10), owner: owner::own(), lease: Duration::from_secs(30), pages: None }
    }
}

pub(super) async fn open(path: &Path, options: Options) -> Result<Store, StoreError> {
    let shown = path.display().to_string();
    let mut attempt = 1;
    let pool = loop {
        match prepare(path, &options).await {
            Ok(pool) => break pool,
            Err(StoreError::Database { source, .. }) if attempt < ATTEMPTS && error::is_busy(&source) => {}
            // Another process did the same migration first: the next look finds it done.
            Err(StoreError::Migration {
                source: MigrateError::Execute(_) | MigrateError::ExecuteMigration(..),
                ..
            }) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(20 * u64::from(attempt))).await;
        attempt += 1;
    };
    let failed = |source| StoreError::Database { path: shown.clone(), source };
    let connection = pool.acquire().await.map_err(failed)?;
    let writer = writer::Writer::start(connection, shown.clone(), options);
    let watch = watch::Watch::start(pool.clone(), writer.held());
    Ok(Store { pool, path: shown, writer, watch, closing: Default::default() })
}

pub(super) async fn look(path: &Path) -> Result<Option<Store>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let shown = path.display().to_string();
    let failed = |source| StoreError::Database { path: shown.clone(), source };
    let options = Options::default();
    let only = || async {
        let connect = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(options.busy);
        SqlitePoolOptions::new().max_connections(1).connect_with(connect).await
    };
    let mut pool = only().await.map_err(failed)?;
    let newest = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or_default();
    let found = version(&pool).await.map_err(failed)?;
    if found > newest {
        return Err(StoreError::Migration { path: shown, source: MigrateError::VersionMissing(found) });
    }
    if found < newest {
        // Looking at an older store brings it up first, so that there is one way to read.
        pool.close().await;
        open(path, options.clone()).await?.close().await;
        pool = only().await.map_err(failed)?;
    }
    let (writer, watch) = (writer::Writer::closed(shown.clone()), watch::Watch::none());
    Ok(Some(Store { pool, path: shown, writer, watch, closing: Default::default() }))
}

/// The last migration done; 0 for a file without any.
async fn version(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
        .fetch_one(pool)
        .await?;
    if known == 0 {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(pool).await
}

async fn prepare(path: &Path, options: &Options) -> Result<SqlitePool, StoreError> {
    let shown = path.display().to_string();
    // Prompts and answers are nobody else's business. SQLite gives -wal and -shm the same mode.
    let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    match made {
        // Closed before SQLite opens it: closing any descriptor of a file lets go of all locks
        // this process holds on it.
        Ok(file) => drop(file),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StoreError::File { path: shown, source }),
    }
    let mut connect = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy)
        .foreign_keys(true);
    if let Some(pages) = options.pages {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(connect).await;
    let pool = pool.map_err(|source| StoreError::Database { path: shown.clone(), source })?;
    match MIGRATIONS.run(&pool).await {
        Ok(()) => Ok(pool),
        Err(source) => {
            pool.close().await;
            match source {
                // The file's fault (locked, full, read-only), not the version's.
                MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)
                    if !error::is_misfit(&source) =>
                {
                    Err(StoreError::Database { path: shown, source })
                }
                source => Err(StoreError::Migration { path: shown, source }),
            }
        }
    }
}
