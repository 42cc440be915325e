//! Questions of a legacy server that come without a call: on standard output, or on the
//! standing stream. The server does not say for which call it asks. It is the only one in
//! flight, or we wait until it is: once a server asked like that, its calls come one at a time.
//!
//! ```text
//!   question ─▶ held ──(one call left)──▶ that call's party is asked ─▶ answer
//!                 └──(every call left asks, or one left unanswered)──▶ refused: whose it is cannot be known
//! ```
//!
//! A call that left before its answer may still be asked about. Then nobody else is: the
//! connection is retired, calls in flight end on it, and the next ones get another.

use super::connection::Clock;
use super::party::Party;
use super::wire::RpcError;
use policies::json::{Json, Object};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, oneshot};

/// Calls that left unanswered, beyond which a connection is retired.
const MAX_LEFT: usize = 1_000;

type Owner = (Arc<dyn Party>, Arc<Clock>);

/// The calls in flight, and the questions nobody is known to be asked by yet.
#[derive(Default)]
pub(super) struct Questions {
    owners: Mutex<HashMap<u64, Owner>>,
    held: Mutex<Vec<oneshot::Sender<Option<Owner>>>>,
    /// Calls whose answer nobody waits for any more, and which the server may still ask about.
    left: Mutex<HashSet<u64>>,
    /// The server asks like that, so calls take turns.
    asks: AtomicBool,
    retired: AtomicBool,
    turns: RwLock<()>,
}

/// A call in flight; whether it is the only one.
pub(super) struct InFlight<'a> {
    questions: &'a Questions,
    number: u64,
    answered: bool,
    _alone: Option<RwLockWriteGuard<'a, ()>>,
    _shared: Option<RwLockReadGuard<'a, ()>>,
}

impl InFlight<'_> {
    /// The server answered.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Questions {
    /// For a server that is known to ask, or not.
    pub(super) fn new(asks: bool) -> Arc<Self> {
        Arc::new(Self { asks: AtomicBool::new(asks), ..Self::default() })
    }
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
        InFlight { questions: self, number, answered: false, _alone, _shared }
    }

    /// Asks whomever it concerns.
    ///
    /// # Errors
    /// What the party answers instead, or that there is none to be found.
    pub(super) async fn ask(&self, method: &str, params: Object) -> Result<Json, RpcError> {
        let (assign, assigned) = oneshot::channel();
        self.asks.store(true, Ordering::Relaxed);
        if lock(&self.left).is_empty() {
            lock(&self.held).push(assign);
            self.settle();
        } else {
            // It may be about one of those.
            self.retired.store(true, Ordering::Relaxed);
            drop(assign);
        }
        match assigned.await {
            Ok(Some((party, clock))) => {
                let _paused = clock.pause();
                party.ask(method, params).await
            }
            _ => Err(RpcError::new(-32601, format!("{method}: no call it could be about is known"))),
        }
    }

    /// Whether the server asks without saying whose call it is about.
    pub(super) fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }
    /// Whether another call would have to wait for its turn.
    pub(super) fn occupied(&self) -> bool {
        self.asks() && !lock(&self.owners).is_empty()
    }
    /// Whether no further call may use the connection.
    pub(super) fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
    /// The server answered a call that nobody waited for.
    pub(super) fn late(&self, number: u64) {
        lock(&self.left).remove(&number);
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

    fn leaves(&self, number: u64) {
        // Whoever is left is not known to be the one that was meant.
        lock(&self.held).drain(..).for_each(|h| drop(h.send(None)));
        let mut left = lock(&self.left);
        left.insert(number);
        if self.asks() || left.len() > MAX_LEFT {
            self.retired.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(&self.questions.owners).remove(&self.number);
        if self.answered {
            self.questions.settle();
        } else {
            self.questions.leaves(self.number);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
