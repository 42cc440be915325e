//! Calls that wait for a person: so many of each client, and what becomes of a question when the
//! last call that waits for it goes.
//!
//! ```text
//!  waits ─┬─ nobody answered ─▶ denied, naming the question, which stays for whoever comes later
//!         ├─ answered ────────▶ judged again; a yes that it did not take is void
//!         ├─ taken back, or its client, or its task, is gone ─▶ the question is withdrawn, unless another
//!         │                                                    process waits for it
//!         └─ the process ends ─▶ the question stays: it outlives the process
//! ```

use super::Guard;
use crate::hosted::{Crowd, Place};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinHandle;

/// All of them.
#[derive(Default)]
pub(super) struct Waiting {
    crowd: Arc<Crowd>,
    /// How many wait for each question.
    calls: Mutex<HashMap<String, usize>>,
}

impl Waiting {
    /// Room for one more call of a client, unless so many wait already.
    pub(super) fn enter(&self, principal: &Arc<str>) -> Option<Place> {
        self.crowd.enter(principal)
    }
    fn calls(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whether that was the last.
    fn leave(&self, question: &str) -> bool {
        let mut calls = self.calls();
        let left = calls.get_mut(question).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            calls.remove(question);
        }
        left == 0
    }
}

/// One call that waits for one question. However it ends, it is counted no more, and takes back
/// what nobody waits for.
pub(super) struct Waits {
    guard: Arc<Guard>,
    question: String,
    /// It is not among those that wait any more.
    left: bool,
    _place: Place,
}

impl Waits {
    pub(super) fn new(guard: &Arc<Guard>, question: &str, place: Place) -> Self {
        *guard.waiting.calls().entry(question.to_owned()).or_default() += 1;
        Self { guard: guard.clone(), question: question.to_owned(), left: false, _place: place }
    }
    /// It waits for this question instead: it was asked before.
    pub(super) fn instead(mut self, question: &str) -> Self {
        if self.question != question {
            self.guard.waiting.leave(&self.question);
            *self.guard.waiting.calls().entry(question.to_owned()).or_default() += 1;
            question.clone_into(&mut self.question);
        }
        self
    }
    /// It waits no more, and the question stays.
    pub(super) async fn leave_it(mut self) {
        self.left = true;
        if self.guard.waiting.leave(&self.question)
            && let Some(book) = &self.guard.book
            && let Err(why) = book.leave(&self.question).await
        {
            tracing::warn!("that nobody here waits for question {} cannot be noted: {why}", self.question);
        }
    }
    /// It waits no more; what it asked is taken back by the time this returns.
    pub(super) async fn over(mut self) {
        if let Some(work) = self.withdraw() {
            let _ = work.await;
        }
    }
    /// In a task of its own: begun, it is done whatever becomes of whoever waits for it.
    fn withdraw(&mut self) -> Option<JoinHandle<()>> {
        if std::mem::replace(&mut self.left, true) || !self.guard.waiting.leave(&self.question) {
            return None;
        }
        let servers = &self.guard.servers;
        if servers.stop.is_cancelled() {
            return None;
        }
        let here = tokio::runtime::Handle::try_current().ok()?;
        let (guard, question) = (self.guard.clone(), self.question.clone());
        Some(servers.tasks.spawn_on(async move { guard.withdraw(&question).await }, &here))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        drop(self.withdraw());
    }
}
