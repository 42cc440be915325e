//! The driver of one run: asks [`turn::pending`] what is to be done, does what it has not in
//! hand, and asks again. It does not know whether the run is new, resumed or woken.
//!
//! ```text
//!          ┌──────────────── something done, told or due ◀─────────────┐
//!          ▼                                                            │
//!   pending(state) ──▶ begin what is not in hand ──▶ nothing in hand? ──┤ no: wait
//!          │                                              │ yes
//!          └─ Finish ─▶ close: children first, then it    └─▶ park: the future ends, a row remains
//! ```
//!
//! Everything a run does, its children included, is a future inside its driver's: none is
//! detached, and what is dropped or cancelled takes along all that is below it. The other side of
//! that coin: a driver never waits for anything without moving on what it has in hand, which may
//! hold what it waits for ([`moving`]).

use super::run::Run;
use super::tree::{Tree, lock};
use super::{Ended, Host, HostError};
use crate::event::{Event, Waiting, WaitingFor};
use crate::run::State;
use crate::turn::{self, Effect};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where something happens.
#[derive(Clone)]
pub(crate) struct At {
    pub(crate) host: Arc<Host>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) run: Arc<Run>,
    /// Cancelled when the run is to end.
    pub(crate) token: CancellationToken,
}

/// How a run was put down.
pub(super) enum Stop {
    Ended(Ended),
    Parked,
}

/// What became of one effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Done, or of no use any more.
    Done,
    /// It waits for a person, or for something outside.
    Parked,
    /// The run ends for it.
    End(State, String),
}

pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What became of something in hand.
type Became = (String, Result<Flow, HostError>);

/// What a driver has in hand.
#[derive(Default)]
pub(super) struct Work {
    pub(super) running: FuturesUnordered<Boxed<Became>>,
    /// What is done and was not looked at.
    done: Vec<Became>,
    busy: BTreeSet<String>,
    parked: BTreeSet<String>,
}

impl Work {
    fn begin(&mut self, key: String, doing: impl Future<Output = Result<Flow, HostError>> + Send + 'static) {
        if !self.parked.contains(&key) && self.busy.insert(key.clone()) {
            self.running.push(Box::pin(async move { (key, doing.await) }));
        }
    }
    /// Takes in what is done; the end of the run, if something wants it.
    fn settle(&mut self) -> Result<Option<(State, String)>, HostError> {
        for (key, flow) in std::mem::take(&mut self.done) {
            self.busy.remove(&key);
            match flow? {
                Flow::Done => {}
                Flow::Parked => {
                    self.parked.insert(key);
                }
                Flow::End(state, text) => return Ok(Some((state, text))),
            }
        }
        Ok(None)
    }
}

/// Waits for something while what is in hand moves on.
pub(super) async fn moving<T, F: Future>(
    running: &mut FuturesUnordered<F>,
    done: &mut Vec<F::Output>,
    wait: impl Future<Output = T>,
) -> T {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            biased;
            got = &mut wait => return got,
            Some(one) = running.next() => done.push(one),
        }
    }
}

/// Works on a run until it ends or waits. Boxed, because a run holds runs.
pub(super) fn live(
    host: Arc<Host>,
    tree: Arc<Tree>,
    run: Arc<Run>,
    above: CancellationToken,
) -> Boxed<Result<Stop, HostError>> {
    Box::pin(async move {
        // Whoever goes on with it sees the tools as they are now.
        *lock(&run.shown) = None;
        loop {
            let token = above.child_token();
            *lock(&run.token) = token.clone();
            if lock(&run.stop).is_some() {
                token.cancel();
            }
            let at = At { host: host.clone(), tree: tree.clone(), run: run.clone(), token };
            match at.drive().await? {
                // It was reopened before anybody saw that it had ended.
                Stop::Ended(ended) if !ended.state.is_end() => {}
                other => return Ok(other),
            }
        }
    })
}

impl At {
    async fn drive(&self) -> Result<Stop, HostError> {
        let mut work = Work::default();
        self.hold().await?;
        loop {
            if let Some(why) = self.tree.broken() {
                return Err(why);
            }
            if let Some((state, text)) = work.settle()? {
                return self.close(work, state, text).await;
            }
            let look = async {
                let log = self.run.log.lock().await;
                (log.state.phase(), turn::pending(&log.state), log.deadline())
            };
            let (phase, effects, deadline) = moving(&mut work.running, &mut work.done, look).await;
            if phase.is_end() || self.token.is_cancelled() {
                return self.close(work, State::Cancelled, "cancelled".into()).await;
            }
            let now = super::now();
            if deadline.is_some_and(|d| d <= now) {
                let why = "budget.wall is reached: the time of this run is up".to_owned();
                return self.close(work, State::OverBudget, why).await;
            }
            let (mut due, mut again) = (deadline, false);
            for effect in effects {
                let key = effect.key();
                match effect {
                    // What is in hand is done in the journal, and only has to come back.
                    Effect::Finish(..) if !work.running.is_empty() || !work.done.is_empty() => {}
                    Effect::Finish(state, text) => match self.finish(state, text).await? {
                        Some(stop) => return Ok(stop),
                        None => again = true,
                    },
                    Effect::Await(waiting) => match waiting.expires {
                        Some(expires) if expires <= now => {
                            work.begin(key, self.clone().time_out(waiting.id));
                        }
                        Some(expires) => due = Some(due.map_or(expires, |d| d.min(expires))),
                        None => {}
                    },
                    effect => work.begin(key, self.clone().perform(effect)),
                }
            }
            if again || !work.done.is_empty() {
                continue;
            }
            if work.running.is_empty() {
                return self.park(&work.parked).await;
            }
            tokio::select! {
                Some(one) = work.running.next() => work.done.push(one),
                () = self.run.wake.notified() => work.parked.clear(),
                () = self.token.cancelled() => {}
                () = sleep_until(due) => {}
            }
        }
    }
    async fn time_out(self, id: String) -> Result<Flow, HostError> {
        self.append(vec![Event::TimedOut { id }]).await
    }

    /// Puts the run down: nothing is in hand, and nothing can be begun.
    async fn park(&self, parked: &BTreeSet<String>) -> Result<Stop, HostError> {
        let waits = self.run.log.lock().await.state.phase() == State::Waiting;
        if !waits && !parked.is_empty() {
            let waiting = Waiting {
                id: String::new(),
                call: None,
                kind: WaitingFor::Children,
                question: String::new(),
                expires: None,
                chain: Vec::new(),
                digest: None,
                detail: Value::Null,
                default: None,
            };
            self.append(vec![Event::Waiting(Box::new(waiting))]).await?;
        }
        Ok(Stop::Parked)
    }

    async fn perform(self, effect: Effect) -> Result<Flow, HostError> {
        match effect {
            Effect::Think(turn) => self.think(turn).await,
            Effect::Check { turn, text } => self.check(turn, &text).await,
            Effect::Act(call, asked) => self.act(&call, asked.as_deref()).await,
            Effect::Redo { call, asked, effect, key, attempt } => {
                self.redo(&call, asked.as_deref(), &effect, &key, attempt).await
            }
            Effect::Refuse(call, why) => self.refuse(&call, why).await,
            Effect::AwaitChild { run, call } => self.await_child(&run, call).await,
            // The driver's own.
            Effect::Await(_) | Effect::Finish(..) => Ok(Flow::Done),
        }
    }

    /// Writes what happened to this run.
    pub(crate) async fn append(&self, events: Vec<Event>) -> Result<Flow, HostError> {
        self.tree.append(&self.host, &self.run, events).await.map(|_| Flow::Done)
    }
    /// Waits for work, or for the end of the run: whoever ends it does not wait for a model.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.token.cancelled() => None,
        }
    }
}

/// Until a time, milliseconds since 1970 UTC; `None` is never.
async fn sleep_until(due: Option<u64>) {
    match due {
        Some(due) => tokio::time::sleep(Duration::from_millis(due.saturating_sub(super::now()).max(1))).await,
        None => std::future::pending().await,
    }
}
