//! Questions of a legacy server that come without a call: on standard output, or on the
//! standing stream. The server does not say for which call it asks. It is the only one in
//! flight, or we wait until it is: once a server asked like that, its calls come one at a time.
//!
//! ```text
//!   question ─▶ held ──(one call left)──▶ that call's party is asked ─▶ answer
//!                 └──(every call left asks, or there is none)──▶ refused: whose it is cannot be known
//! ```

use super::connection::Clock;
use super::party::Party;
use super::wire::RpcError;
use policies::json::{Json, Object};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, oneshot};

type Owner = (Arc<dyn Party>, Arc<Clock>);

/// The calls in flight, and the questions nobody is known to be asked by yet.
#[derive(Default)]
pub(super) struct Questions {
    owners: Mutex<HashMap<u64, Owner>>,
    held: Mutex<Vec<oneshot::Sender<Option<Owner>>>>,
    /// The server asks like that, so calls take turns.
    asks: AtomicBool,
    turns: RwLock<()>,
}

/// A call in flight; whether it is the only one.
pub(super) struct InFlight<'a> {
    questions: &'a Questions,
    number: u64,
    _alone: Option<RwLockWriteGuard<'a, ()>>,
    _shared: Option<RwLockReadGuard<'a, ()>>,
}

impl Questions {
    /// Waits for the call's turn, and counts it in.
    pub(super) async fn enter(&self, number: u64, party: Arc<dyn Party>, clock: Arc<Clock>) -> InFlight<'_> {
        let alone = self.asks.load(Ordering::Relaxed);
        let (mut _alone, mut _shared) = (None, None);
        if alone {
            _alone = Some(self.turns.write().await);
        } else {
            _shared = Some(self.turns.read().await);
        }
        lock(&self.owners).insert(number, (party, clock));
        InFlight { questions: self, number, _alone, _shared }
    }

    /// Asks whomever it concerns.
    ///
    /// # Errors
    /// What the party answers instead, or that there is none to be found.
    pub(super) async fn ask(&self, method: &str, params: Object) -> Result<Json, RpcError> {
        let (assign, assigned) = oneshot::channel();
        self.asks.store(true, Ordering::Relaxed);
        lock(&self.held).push(assign);
        self.settle();
        match assigned.await {
            Ok(Some((party, clock))) => {
                let _paused = clock.pause();
                party.ask(method, params).await
            }
            _ => Err(RpcError::new(-32601, format!("{method}: no call it could be about is known"))),
        }
    }

    /// Whether another call would have to wait for its turn.
    pub(super) fn occupied(&self) -> bool {
        self.asks.load(Ordering::Relaxed) && !lock(&self.owners).is_empty()
    }
    /// The call of a number.
    pub(super) fn party(&self, number: u64) -> Option<Arc<dyn Party>> {
        lock(&self.owners).get(&number).map(|(party, _)| party.clone())
    }
    /// The only call in flight.
    pub(super) fn only(&self) -> Option<Arc<dyn Party>> {
        let owners = lock(&self.owners);
        let mut all = owners.values();
        all.next().filter(|_| all.len() == 0).map(|(party, _)| party.clone())
    }

    /// Finds out whom the held questions concern, as far as that is clear now.
    fn settle(&self) {
        let mut held = lock(&self.held);
        if held.is_empty() {
            return;
        }
        let owners = lock(&self.owners);
        let mut all = owners.values();
        match (all.next(), all.next()) {
            (Some(only), None) => held.drain(..).for_each(|h| drop(h.send(Some(only.clone())))),
            _ if held.len() >= owners.len() => held.drain(..).for_each(|h| drop(h.send(None))),
            _ => {}
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(&self.questions.owners).remove(&self.number);
        self.questions.settle();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
