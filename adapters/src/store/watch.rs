//! How an owner learns that commands wait: SQLite counts the changes others make to a file
//! (`PRAGMA data_version`), and that counter is looked at as long as trees are held.

use super::lease::Held;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, pool::PoolConnection};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subagents::run::RunId;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// How often the counter is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// Hints a slow listener may be behind; it loses nothing, hints come again while commands wait.
const HINTS: usize = 256;

#[derive(Clone)]
pub(super) struct Watch {
    hints: broadcast::Sender<RunId>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    end: CancellationToken,
}

impl Watch {
    pub(super) fn start(pool: SqlitePool, held: watch::Receiver<Held>) -> Self {
        let none = Self::none();
        let (hints, end) = (none.hints.clone(), none.end.clone());
        let task = tokio::spawn(async move {
            // Ends with the store, or with its writer when the store was only dropped.
            let _ = end.run_until_cancelled(watch(&pool, held, &hints)).await;
        });
        *none.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        none
    }
    /// Watches nothing.
    pub(super) fn none() -> Self {
        Self { hints: broadcast::channel(HINTS).0, task: Arc::default(), end: CancellationToken::new() }
    }
    pub(super) fn tell(&self, root: &RunId) {
        // Nobody listening is no error.
        let _ = self.hints.send(root.clone());
    }
    pub(super) fn subscribe(&self) -> broadcast::Receiver<RunId> {
        self.hints.subscribe()
    }
    pub(super) async fn close(&self) {
        self.end.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

async fn watch(pool: &SqlitePool, mut held: watch::Receiver<Held>, hints: &broadcast::Sender<RunId>) {
    while held.wait_for(|held| !held.is_empty()).await.is_ok() {
        // A connection of its own: only changes of others count, and a pool's connection changes hands.
        match pool.acquire().await {
            Ok(mut connection) => {
                if let Err(e) = live(&mut connection, &held, hints).await {
                    tracing::warn!("the store cannot be watched: {e}");
                }
            }
            Err(sqlx::Error::PoolClosed) => return,
            Err(e) => tracing::warn!("the store cannot be watched: {e}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Watches as long as trees are held.
async fn live(
    connection: &mut PoolConnection<Sqlite>,
    held: &watch::Receiver<Held>,
    hints: &broadcast::Sender<RunId>,
) -> Result<(), sqlx::Error> {
    let mut seen = None;
    let mut waiting = true;
    while !held.borrow().is_empty() && held.has_changed().is_ok() {
        let version: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut **connection).await?;
        if waiting || seen != Some(version) {
            let roots: Vec<String> =
                sqlx::query_scalar("SELECT DISTINCT root FROM inbox").fetch_all(&mut **connection).await?;
            let mine: Vec<RunId> = {
                let held = held.borrow();
                roots.iter().map(|r| RunId::known(r)).filter(|r| held.contains_key(r)).collect()
            };
            waiting = !mine.is_empty();
            seen = Some(version);
            for root in mine {
                let _ = hints.send(root);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}
