//! Who waits for questions to be closed, and the one look at the store for all of them.
//!
//! ```text
//!  closed(id) ─▶ waits ─┬─ answered in this process ─▶ a look at once
//!                       └─ in another ──────────────▶ the look that comes now and then
//! ```
//!
//! However many calls wait, one statement asks about all their questions. It is asked as long as
//! somebody waits, and not at all after that.

use super::Store;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often it is looked whether another process answered.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// Those of a list of ids (JSON) that are open.
pub(super) const OPEN: &str = "SELECT id FROM questions
    WHERE id IN (SELECT value FROM json_each(?)) AND closed_at IS NULL";

#[derive(Clone, Default)]
pub(super) struct Closing(Arc<Inner>);

#[derive(Default)]
struct Inner {
    waits: Mutex<Waits>,
    look: Notify,
    /// Looks at the store so far.
    looks: AtomicU64,
}

#[derive(Default)]
struct Waits {
    /// By question. It is gone when it is told that the question is closed.
    of: BTreeMap<String, watch::Sender<()>>,
    /// Somebody looks.
    looking: bool,
}

impl Closing {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Something was closed in this process.
    pub(super) fn look(&self) {
        self.0.look.notify_one();
    }
    /// Looks at the store so far.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::Relaxed)
    }
    /// Whether somebody looks.
    #[cfg(test)]
    pub(super) fn watches(&self) -> bool {
        self.waits().looking
    }
    /// The questions somebody waits for; none, and nobody looks any more.
    fn asked(&self) -> Vec<String> {
        let mut waits = self.waits();
        waits.of.retain(|_, told| !told.is_closed());
        waits.looking = !waits.of.is_empty();
        waits.of.keys().cloned().collect()
    }
    fn forget(&self, closed: impl Iterator<Item = String>) {
        let mut waits = self.waits();
        closed.for_each(|id| drop(waits.of.remove(&id)));
    }
}

impl Store {
    /// Waits until a question is not open any more, whoever closed it and where.
    pub async fn closed(&self, id: &str) {
        let (mut told, begin) = {
            let mut waits = self.closing.waits();
            let told = waits.of.entry(id.to_owned()).or_insert_with(|| watch::channel(()).0).subscribe();
            (told, !std::mem::replace(&mut waits.looking, true))
        };
        match begin {
            true => drop(tokio::spawn(self.clone().watch_questions())),
            false => self.closing.look(),
        }
        // Nothing is ever sent: it ends when the question does.
        while told.changed().await.is_ok() {}
    }

    async fn watch_questions(self) {
        loop {
            let asked = self.closing.asked();
            if asked.is_empty() {
                return;
            }
            self.closing.0.looks.fetch_add(1, Ordering::Relaxed);
            let list = serde_json::Value::from(asked.clone()).to_string();
            match sqlx::query_scalar::<_, String>(OPEN).bind(list).fetch_all(&self.pool).await {
                Ok(open) => self.closing.forget(asked.into_iter().filter(|id| !open.contains(id))),
                // Whoever waits finds out by itself that there is no store.
                Err(_) if self.pool.is_closed() => self.closing.forget(asked.into_iter()),
                Err(e) => tracing::warn!("open questions cannot be looked at: {e}"),
            }
            tokio::select! {
                () = self.closing.0.look.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}
