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
//!
//! `roots/list` with no call in flight is about none: servers ask it as soon as they may, and
//! when they hear that it changed. It goes to the client that called last and is still there.
//! Other questions without a call are refused: since 2026-07-28 every question belongs to one.
//!
//! A server may take any question back (`notifications/cancelled`), on whichever stream: all
//! that are open are known here by its own ids.

use super::connection::{Clock, answer};
use super::party::{Client, Party};
use super::wire::{Message, RpcError};
use policies::json::{Json, Object};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard, oneshot};
use tokio_util::sync::CancellationToken;

/// Calls that left unanswered, beyond which a connection is retired.
const MAX_LEFT: usize = 1_000;
/// Clients remembered: those that called last.
const MAX_CLIENTS: usize = 64;
/// Whoever had the server started is about to call it; so long its first question waits for that.
const FIRST_CALL: Duration = Duration::from_secs(2);

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
    /// What is said to be there to be asked: the server was told of roots.
    roots: bool,
    /// Who called, most lately last.
    clients: Mutex<Vec<Arc<dyn Client>>>,
    /// A call was counted in.
    entered: Notify,
    /// Questions that wait for an answer, by the text of their id.
    open: Mutex<HashMap<String, CancellationToken>>,
}

/// A question that waits for an answer.
pub(super) struct Open {
    questions: Arc<Questions>,
    id: Json,
    taken_back: CancellationToken,
}

impl Open {
    /// The answer as a message; `None` when the server took the question back, and whoever was
    /// asked is told so by the end of `answer`.
    pub(super) async fn answered(self, answer: impl Future<Output = Result<Json, RpcError>>) -> Option<Message> {
        tokio::select! {
            biased;
            () = self.taken_back.cancelled() => None,
            outcome = answer => Some(Message::Response { id: self.id.clone(), outcome }),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.questions.open).remove(&self.id.to_text());
    }
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
    /// For a server that is known to ask, or not, and that is told of these capabilities.
    pub(super) fn new(asks: bool, capabilities: &Object) -> Arc<Self> {
        let roots = capabilities.get("roots").is_some();
        Arc::new(Self { asks: AtomicBool::new(asks), roots, ..Self::default() })
    }
    /// A question came. It is known from here on: what takes it back may be the next message.
    pub(super) fn open(self: &Arc<Self>, id: Json) -> Open {
        let taken_back = CancellationToken::new();
        lock(&self.open).insert(id.to_text(), taken_back.clone());
        Open { questions: self.clone(), id, taken_back }
    }
    /// `notifications/cancelled`: the server no longer waits for an answer.
    pub(super) fn taken_back(&self, params: &Object) {
        let open = params.get("requestId").and_then(|id| lock(&self.open).get(&id.to_text()).cloned());
        open.inspect(CancellationToken::cancel);
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
        if let Some(client) = party.client() {
            let mut clients = lock(&self.clients);
            clients.retain(|other| other.number() != client.number());
            if clients.len() >= MAX_CLIENTS {
                clients.remove(0);
            }
            clients.push(client);
        }
        lock(&self.owners).insert(number, (party, clock));
        self.entered.notify_waiters();
        InFlight { questions: self, number, answered: false, _alone, _shared }
    }

    /// Asks whomever it concerns.
    ///
    /// # Errors
    /// What the party answers instead, or that there is none to be found.
    pub(super) async fn ask(&self, method: &str, params: Object) -> Result<Json, RpcError> {
        if lock(&self.owners).is_empty() && !self.may_be_of_left(method) {
            return self.ask_unowned(method, params).await;
        }
        if let Some((party, clock)) = self.of_one_client(method) {
            let _paused = clock.pause();
            return party.ask(method, params).await;
        }
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

    /// Asks what no call is about.
    ///
    /// # Errors
    /// What the client answers instead, or that nobody is asked such a thing.
    pub(super) async fn ask_unowned(&self, method: &str, params: Object) -> Result<Json, RpcError> {
        if method != "roots/list" || !self.roots {
            return answer(method);
        }
        let entered = self.entered.notified();
        if lock(&self.clients).is_empty() && lock(&self.owners).is_empty() {
            let _ = tokio::time::timeout(FIRST_CALL, entered).await;
        }
        let client = lock(&self.clients).iter().rev().find(|client| client.has_roots()).cloned();
        if let Some(client) = client.as_ref().filter(|client| client.listens()) {
            return client.roots(params).await;
        }
        // Else on the stream of whatever it asked for last.
        let calling = lock(&self.owners).iter().max_by_key(|(number, _)| **number).map(|(_, owner)| owner.clone());
        if let Some((party, clock)) = calling {
            let _paused = clock.pause();
            return party.ask(method, params).await;
        }
        match client {
            // To say that it has none would be a lie.
            Some(_) => Err(RpcError::new(-32603, "the client listens to no stream it can be asked on")),
            // The server was told that there may be some, and there is nobody who has any.
            None => Ok(Json::object([("roots", Vec::<Json>::new().into())])),
        }
    }
    /// Roots are the client's, whichever of its calls is meant: then calls need take no turns.
    fn of_one_client(&self, method: &str) -> Option<Owner> {
        if method != "roots/list" || self.may_be_of_left(method) {
            return None;
        }
        let owners = lock(&self.owners);
        let mut all = owners.values();
        let first = all.next()?;
        let number = |(party, _): &Owner| party.client().map(|client| client.number());
        let of = number(first);
        all.all(|other| of.is_some() && number(other) == of).then(|| first.clone())
    }
    /// Whether a question may be about a call that left. Roots are the same for that one, where
    /// only one client ever called.
    fn may_be_of_left(&self, method: &str) -> bool {
        let one = method == "roots/list" && lock(&self.clients).len() == 1;
        !one && !lock(&self.left).is_empty()
    }
    /// Whether a client called here.
    pub(super) fn serves(&self, client: u64) -> bool {
        self.roots && lock(&self.clients).iter().any(|other| other.number() == client)
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
        // Those that were taken back concern nobody.
        held.retain(|h| !h.is_closed());
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
