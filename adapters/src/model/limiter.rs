//! One limiter for all models of a family under one credential: when the provider says that
//! there were too many, everybody waits, and then not all return at once.

use super::buckets::Buckets;
use super::retry::MAX_WAIT;
use http::HeaderMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long everybody waits after a refusal that names no time.
const UNTOLD: Duration = Duration::from_millis(500);
/// A window this wide is none.
const WIDE: usize = 64;

/// The limiter of a credential and family.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    not_before: Option<Instant>,
    /// How many may wait for an answer's beginning at a time; halved by each refusal, one more
    /// by each answer.
    window: Option<usize>,
    asking: usize,
    buckets: Buckets,
}

/// What there is to do.
enum Step {
    Go,
    Until(Instant),
    Turn,
}

/// A place among those that ask; given back when the answer begins.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Limiter);

impl Limiter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Waits for a place.
    ///
    /// # Errors
    /// How long it would take, when that is longer than anybody waits.
    pub(super) async fn enter(&self) -> Result<Slot<'_>, Duration> {
        let patience = Instant::now() + MAX_WAIT;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let step = self.state().step(Instant::now());
            match step {
                Step::Go => return Ok(Slot(self)),
                Step::Until(at) if at > patience => return Err(at.saturating_duration_since(Instant::now())),
                Step::Until(at) => tokio::time::sleep_until(at).await,
                Step::Turn => {
                    if tokio::time::timeout_at(patience, changed).await.is_err() {
                        return Err(MAX_WAIT);
                    }
                }
            }
        }
    }
}

impl State {
    fn step(&mut self, now: Instant) -> Step {
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Step::Until(at);
        }
        if self.window.is_some_and(|window| self.asking >= window) {
            return Step::Turn;
        }
        let wait = self.buckets.wait(now);
        if !wait.is_zero() {
            return Step::Until(now + wait);
        }
        self.asking += 1;
        self.buckets.take();
        Step::Go
    }
}

impl Slot<'_> {
    /// The answer began.
    pub(super) fn answered(self, headers: &HeaderMap) {
        let mut state = self.0.state();
        state.buckets.learn(headers, Instant::now());
        state.window = state.window.map(|w| w + 1).filter(|w| *w < WIDE);
    }
    /// There were too many.
    pub(super) fn refused(self, after: Option<Duration>) {
        let mut state = self.0.state();
        let at = Instant::now() + after.unwrap_or(UNTOLD).min(Duration::from_secs(86_400));
        state.not_before = Some(state.not_before.map_or(at, |before| before.max(at)));
        state.window = Some((state.window.unwrap_or(WIDE).min(state.asking) / 2).max(1));
        state.buckets.clear();
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state().asking -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_everybody_waits_and_few_return() {
        let limiter = Limiter::default();
        let began = Instant::now();
        limiter.enter().await.unwrap().refused(Some(Duration::from_secs(10)));
        let ask = || async {
            let slot = limiter.enter().await.unwrap();
            let at = began.elapsed().as_secs();
            tokio::time::sleep(Duration::from_secs(1)).await;
            slot.answered(&HeaderMap::new());
            at
        };
        let mut times = join_all((0..7).map(|_| ask())).await;
        times.sort_unstable();
        assert_eq!(times, [10, 11, 11, 12, 12, 12, 12], "one, then two, then more");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_hours() {
        let limiter = Limiter::default();
        limiter.enter().await.unwrap().refused(Some(Duration::from_secs(3600)));
        assert_eq!(limiter.enter().await.unwrap_err(), Duration::from_secs(3600));
        drop(tokio::time::timeout(Duration::from_secs(1), limiter.enter()).await);
        assert_eq!(limiter.state().asking, 0, "whoever leaves gives its place back");
    }
}
