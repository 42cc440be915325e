//! Fails fast where everything failed before. After some answers in a row did not come, nobody
//! asks for a while; then one does, and the others after it if that went well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So many in a row open the circuit.
const IN_A_ROW: u32 = 3;
/// How long it stays open first, and at most.
const COOL: Duration = Duration::from_secs(20);
const MAX_COOL: Duration = Duration::from_secs(300);

/// The circuit to one provider's models of a family.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Since when it is open, until when, and how long it was.
    open: Option<(Instant, Duration)>,
    probing: bool,
}

/// The circuit is open for so long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open(pub(super) Duration);

/// Leave to ask; tells how it went. Dropped unsaid, it went neither way.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    breaker: &'a Breaker,
    /// Whether this is the one that tries: it does so once.
    pub(super) probe: bool,
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Asks for leave.
    ///
    /// # Errors
    /// How long there is none.
    pub(super) fn admit(&self) -> Result<Admission<'_>, Open> {
        let mut state = self.state();
        let probe = match state.open {
            None => false,
            Some((until, _)) => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() || state.probing {
                    return Err(Open(left));
                }
                state.probing = true;
                true
            }
        };
        Ok(Admission { breaker: self, probe })
    }
}

impl Admission<'_> {
    /// An answer came, whatever it said.
    pub(super) fn good(self) {
        let mut state = self.breaker.state();
        state.failures = 0;
        state.open = None;
    }
    /// None came, and trying again did not help.
    pub(super) fn bad(self) {
        let mut state = self.breaker.state();
        state.failures = state.failures.saturating_add(1);
        let now = Instant::now();
        state.open = match state.open {
            // Those that began before it opened say nothing new.
            Some(open) if !self.probe => Some(open),
            Some((_, cool)) => Some((now + (cool * 2).min(MAX_COOL), (cool * 2).min(MAX_COOL))),
            None if state.failures >= IN_A_ROW => Some((now + COOL, COOL)),
            None => None,
        };
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_cools_tries_once_and_closes() {
        let breaker = Breaker::default();
        for _ in 0..2 {
            breaker.admit().unwrap().bad();
        }
        breaker.admit().unwrap().good();
        for _ in 0..3 {
            breaker.admit().unwrap().bad();
        }
        assert_eq!(breaker.admit().unwrap_err(), Open(COOL));
        tokio::time::advance(COOL).await;
        let probe = breaker.admit().unwrap();
        assert!(probe.probe && breaker.admit().is_err(), "one tries");
        drop(probe);
        breaker.admit().unwrap().bad();
        tokio::time::advance(COOL).await;
        assert_eq!(breaker.admit().unwrap_err(), Open(COOL), "twice as long");
        tokio::time::advance(COOL).await;
        breaker.admit().unwrap().good();
        assert!(!breaker.admit().unwrap().probe);
    }
}
