//! The stream of one legacy request: numbered events, kept a while so that a client whose
//! connection broke can take it up again (2025-11-25, transports, resumability).

use adapters::mcp::Message;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events kept. Beyond, those that were read go; of what nobody reads, progress is left out.
const MAX_EVENTS: usize = 512;
/// How long a finished stream can be taken up again.
const KEEP: Duration = Duration::from_secs(60);

pub(super) struct Outbox {
    number: u64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<(u64, Message)>,
    next: u64,
    read: u64,
    closed: Option<Instant>,
}

impl Outbox {
    pub(super) fn new(number: u64) -> Self {
        Self { number, state: Mutex::new(State { next: 1, ..State::default() }), changed: Notify::new() }
    }
    /// Adds a message; `false` when the stream is closed.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            return false;
        }
        if state.events.len() >= MAX_EVENTS {
            let was_read = state.events.front().is_some_and(|(n, _)| *n <= state.read);
            // Progress is a courtesy; answers and questions are not.
            if !was_read && matches!(message, Message::Notification { .. }) {
                return true;
            }
            state.events.pop_front();
        }
        let number = state.next;
        state.next += 1;
        state.events.push_back((number, message));
        drop(state);
        self.changed.notify_waiters();
        true
    }
    /// Nothing follows.
    pub(super) fn close(&self) {
        lock(&self.state).closed.get_or_insert_with(Instant::now);
        self.changed.notify_waiters();
    }
    /// Whether nobody can want it any more.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.state).closed.is_some_and(|at| at.elapsed() >= KEEP)
    }
    /// The first event after `seen`, with its number; `None` at the end.
    pub(super) async fn after(&self, seen: u64) -> Option<(u64, Bytes)> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = lock(&self.state);
                state.read = state.read.max(seen);
                let from = state.events.partition_point(|(n, _)| *n <= seen);
                if let Some((number, message)) = state.events.get(from) {
                    return Some((*number, self.event(*number, message)));
                }
                if state.closed.is_some() {
                    return None;
                }
            }
            changed.await;
        }
    }
    /// The answer, if it is the first thing said; `None` when something else was, or so much
    /// time passed that the client should hear that it is being served.
    pub(super) async fn only_answer(&self, patience: Duration) -> Option<Message> {
        let first = async {
            loop {
                let changed = self.changed.notified();
                {
                    let state = lock(&self.state);
                    match state.events.front() {
                        Some((_, message @ Message::Response { .. })) => return Some(message.clone()),
                        Some(_) => return None,
                        None if state.closed.is_some() => return None,
                        None => {}
                    }
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, first).await.unwrap_or(None)
    }
    /// Whether it ended without a word.
    pub(super) fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.closed.is_some() && state.events.is_empty()
    }
    /// An event without data: from here the stream can be taken up.
    pub(super) fn prime(&self) -> Bytes {
        Bytes::from(format!("id: {}-0\nretry: 1000\ndata: \n\n", self.number))
    }
    fn event(&self, number: u64, message: &Message) -> Bytes {
        Bytes::from(format!("id: {}-{number}\nevent: message\ndata: {}\n\n", self.number, message.to_text()))
    }
}

/// The stream and the event of an event id.
pub(super) fn place(id: &str) -> Option<(u64, u64)> {
    let (stream, event) = id.split_once('-')?;
    Some((stream.parse().ok()?, event.parse().ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
