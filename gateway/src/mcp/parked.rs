//! Calls of modern clients that a legacy server has questions about. A modern client cannot be
//! asked; it gets the questions as the answer (`input_required`) and comes again. Meanwhile the
//! call to the server stands, parked.
//!
//! ```text
//!   running ──(result)──▶ done ──▶ answered, gone
//!      │  ▲                 ▲
//!      ▼  │ all answered    │
//!   questions ─▶ input_required ─(10 min without the client)─▶ cancelled, gone
//! ```

use super::Sink;
use super::call::Outcome;
use super::conversation::{QUESTION_LIMIT, forward};
use crate::servers::Level;
use adapters::mcp::{Party, RpcError};
use async_trait::async_trait;
use policies::json::{Json, Object};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// Parked calls of one principal, and of all.
const MAX_OWN: usize = 64;
const MAX_ALL: usize = 2_000;

/// All parked calls of a door.
#[derive(Default)]
pub(crate) struct Parking {
    calls: Mutex<HashMap<String, Arc<Parked>>>,
}

/// A call that may be parked.
pub(super) struct Parked {
    /// Where it was asked and what: only the same request at the same place finds it.
    place: Arc<str>,
    digest: OnceLock<String>,
    capabilities: Object,
    /// Where the request that waits now hears of progress.
    channel: Mutex<Channel>,
    state: Mutex<State>,
    changed: Notify,
    /// Ends the call to the server.
    pub(super) cancel: CancellationToken,
}

/// The request a parked call speaks through.
pub(super) struct Channel {
    pub(super) sink: Sink,
    pub(super) token: Option<Json>,
    pub(super) level: Option<Level>,
}

#[derive(Default)]
struct State {
    next: u64,
    questions: BTreeMap<String, Question>,
    outcome: Option<Outcome>,
    taken: bool,
}

struct Question {
    method: String,
    params: Object,
    answer: oneshot::Sender<Json>,
}

/// What came of waiting.
pub(super) enum Waited {
    /// The answer.
    Done(Outcome),
    /// Questions, as `inputRequests`.
    Asked(Object),
    /// The caller went away.
    Gone,
}

impl Parking {
    /// Gives a call a place to be found again.
    pub(super) fn park(&self, call: &Arc<Parked>, digest: &str) -> Result<String, RpcError> {
        call.digest.get_or_init(|| digest.to_owned());
        let mut calls = lock(&self.calls);
        if let Some((id, _)) = calls.iter().find(|(_, other)| Arc::ptr_eq(other, call)) {
            return Ok(id.clone());
        }
        // Whose it is comes first in its place; a part of somebody has no more places than all of them.
        let whose = |call: &Parked| call.place.split('\0').next().unwrap_or_default().to_owned();
        let principal = whose(call);
        let own = calls.values().filter(|c| whose(c) == principal).count();
        if own >= MAX_OWN || calls.len() >= MAX_ALL {
            return Err(RpcError::new(-32603, "too many calls wait for answers; answer or drop some first"));
        }
        // Never the same twice, over restarts too: sealed states outlive the process.
        let id = super::session::random_id();
        calls.insert(id.clone(), call.clone());
        Ok(id)
    }
    pub(super) fn find(&self, id: &str, place: &str, digest: &str) -> Option<Arc<Parked>> {
        lock(&self.calls).get(id).filter(|c| *c.place == *place && c.digest.get().is_some_and(|d| d == digest)).cloned()
    }
    pub(super) fn leave(&self, call: &Arc<Parked>) {
        // Most calls were never asked anything, and have no place to leave.
        if call.digest.get().is_some() {
            lock(&self.calls).retain(|_, other| !Arc::ptr_eq(other, call));
        }
    }
}

impl Parked {
    pub(super) fn new(place: Arc<str>, capabilities: Object, channel: Channel) -> Arc<Self> {
        Arc::new(Self {
            place,
            digest: OnceLock::new(),
            capabilities,
            channel: Mutex::new(channel),
            state: Mutex::default(),
            changed: Notify::new(),
            cancel: CancellationToken::new(),
        })
    }
    /// From now on it speaks through another request.
    pub(super) fn speak_through(&self, channel: Channel) {
        *lock(&self.channel) = channel;
    }
    /// The call to the server ended.
    pub(super) fn done(&self, outcome: Outcome) {
        lock(&self.state).outcome = Some(outcome);
        self.changed.notify_waiters();
    }
    /// Its outcome was picked up, or nobody came for it.
    pub(super) async fn picked_up(&self) {
        let picked_up = async {
            loop {
                let changed = self.changed.notified();
                if lock(&self.state).taken {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(QUESTION_LIMIT, picked_up).await;
    }
    /// Waits for the result or for questions.
    pub(super) async fn wait(&self, cancel: &CancellationToken) -> Waited {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = lock(&self.state);
                if let Some(outcome) = state.outcome.take() {
                    state.taken = true;
                    self.changed.notify_waiters();
                    return Waited::Done(outcome);
                }
                if state.taken {
                    let why = "Invalid params: this call was answered already";
                    return Waited::Done(Outcome::Error(RpcError::new(-32602, why)));
                }
                if !state.questions.is_empty() {
                    return Waited::Asked(state.questions.iter().map(|(k, q)| (k.clone(), q.to_json())).collect());
                }
            }
            tokio::select! {
                () = changed => {}
                () = cancel.cancelled() => {
                    self.cancel.cancel();
                    return Waited::Gone;
                }
            }
        }
    }
    /// Delivers the answers of a retry; what is not answered stays asked.
    pub(super) fn answer(&self, answers: &Object) -> Result<(), RpcError> {
        if let Some((key, _)) = answers.iter().find(|(_, a)| a.as_object().is_none()) {
            return Err(RpcError::new(-32602, format!("Invalid params: inputResponses.{key} is not an object")));
        }
        let mut state = lock(&self.state);
        for (key, answer) in answers.iter() {
            if let Some(question) = state.questions.remove(key) {
                let _ = question.answer.send(answer.clone());
            }
        }
        Ok(())
    }
}

/// A call that goes on without a request. However that ends, by a panic too, it has no place any
/// more, and whoever comes back for it hears that it is over.
pub(super) struct GoesOn {
    parking: Arc<Parking>,
    parked: Arc<Parked>,
}

impl GoesOn {
    pub(super) fn new(parking: &Arc<Parking>, parked: &Arc<Parked>) -> Self {
        Self { parking: parking.clone(), parked: parked.clone() }
    }
    /// Sees it to its end: its outcome is picked up, or nobody comes for it.
    pub(super) async fn through(&self, work: impl Future<Output = Outcome>) {
        self.parked.done(work.await);
        self.parked.picked_up().await;
    }
}

impl Drop for GoesOn {
    fn drop(&mut self) {
        self.parking.leave(&self.parked);
        self.parked.cancel.cancel();
        let mut state = lock(&self.parked.state);
        if state.outcome.is_none() && !state.taken {
            let why = "the call broke off here; whether it happened is not known";
            state.outcome = Some(Outcome::Error(RpcError::new(-32603, why)));
        }
        drop(state);
        self.parked.changed.notify_waiters();
    }
}

impl Question {
    fn to_json(&self) -> Json {
        let mut out = Object::new();
        out.set("method", self.method.as_str());
        if !self.params.is_empty() || self.method != "roots/list" {
            out.set("params", self.params.clone());
        }
        out.into()
    }
}

/// A question on its way; dropped without an answer, it is no longer asked.
struct Asked<'a> {
    parked: &'a Parked,
    key: String,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.parked.state).questions.remove(&self.key);
    }
}

#[async_trait]
impl Party for Parked {
    fn notify(&self, method: &str, params: Object) {
        let channel = lock(&self.channel);
        let wants = |message: &Object| channel.level.is_some_and(|l| l.admits(message));
        forward(&channel.sink, channel.token.as_ref(), method, params, wants);
    }
    async fn ask(&self, method: &str, mut params: Object) -> Result<Json, RpcError> {
        // 2026-07-28 knows no id of an elicitation.
        params.remove("elicitationId");
        let (answer, answered) = oneshot::channel();
        let key = {
            let mut state = lock(&self.state);
            state.next += 1;
            let key = format!("question-{}", state.next);
            state.questions.insert(key.clone(), Question { method: method.to_owned(), params, answer });
            key
        };
        let _asked = Asked { parked: self, key };
        self.changed.notify_waiters();
        let answer = tokio::time::timeout(QUESTION_LIMIT, answered).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            _ => {
                self.cancel.cancel();
                Err(RpcError::new(-32603, format!("no answer within {} s", QUESTION_LIMIT.as_secs())))
            }
        }
    }
    fn capabilities(&self) -> Object {
        self.capabilities.clone()
    }
    fn wants_progress(&self) -> bool {
        lock(&self.channel).token.is_some()
    }
    fn log_level(&self) -> Option<String> {
        lock(&self.channel).level.map(|l| l.as_str().to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::task::TaskTracker;

    fn parked(parking: &Arc<Parking>) -> Arc<Parked> {
        let channel = Channel { sink: Arc::new(|_| true), token: None, level: None };
        let parked = Parked::new("ci\0".into(), Object::new(), channel);
        parking.park(&parked, "digest").unwrap();
        parked
    }

    #[tokio::test]
    async fn a_call_that_breaks_off_leaves_nothing() {
        let (parking, tasks) = (Arc::new(Parking::default()), TaskTracker::new());
        for n in 0..=MAX_OWN {
            let parked = parked(&parking);
            let goes_on = GoesOn::new(&parking, &parked);
            let waits = parked.clone();
            let told = tasks.spawn(async move { waits.wait(&CancellationToken::new()).await });
            let work = async move {
                goes_on.through(async { panic!("number {n}, on purpose") }).await;
            };
            assert!(tasks.spawn(work).await.unwrap_err().is_panic());
            let told = tokio::time::timeout(QUESTION_LIMIT / 10, told).await.expect("whoever waits hears of it");
            let Waited::Done(Outcome::Error(why)) = told.unwrap() else { panic!("not as an error") };
            assert!(why.message().contains("broke off"), "{}", why.message());
            assert!(parked.cancel.is_cancelled() && lock(&parking.calls).is_empty());
        }
        // The twin: one that ends is picked up.
        let parked = parked(&parking);
        let goes_on = GoesOn::new(&parking, &parked);
        let work = tasks.spawn(async move {
            goes_on.through(async { Outcome::Error(RpcError::new(-32000, "as it ended")) }).await;
        });
        let Waited::Done(Outcome::Error(as_it_ended)) = parked.wait(&CancellationToken::new()).await else { panic!() };
        assert_eq!(as_it_ended.code(), -32000);
        work.await.unwrap();
        assert!(lock(&parking.calls).is_empty());
    }
}
