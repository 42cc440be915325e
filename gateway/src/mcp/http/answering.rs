//! One modern request while it is being answered. As long as nothing was said it needs no task:
//! whoever waits for the answer drives it. Once it has a stream, a task drives it, so that a
//! reader who is slow, or does not read at all, holds nothing up but its own reading. Whoever
//! puts either down takes the request back (2026-07-28: the closed stream is the cancellation).

use super::event;
use crate::mcp::call::Asking;
use crate::mcp::dispatch::dispatch;
use crate::mcp::{Sink, Speaker, View};
use adapters::mcp::Message;
use bytes::Bytes;
use policies::json::{Json, Object};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Bytes that wait for their reader. Progress is a courtesy: a client that reads too slowly
/// misses some, the server never waits.
const MAX_WAITING: usize = 1 << 20;

/// What is said on the stream, the answer last.
#[derive(Default)]
struct Said {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<Bytes>,
    waiting: usize,
    over: bool,
}

type Work = Pin<Box<dyn Future<Output = Option<Message>> + Send>>;

pub(super) struct Answering {
    said: Arc<Said>,
    work: Option<Work>,
    tasks: TaskTracker,
    _cancel: DropGuard,
}

/// What comes first.
pub(super) enum First {
    /// The answer, which needs no stream.
    Answer(Message),
    /// The client took the request back itself.
    Nothing,
    /// Something else.
    Event,
}

impl Answering {
    pub(super) fn new(view: View, id: Json, (method, params): (String, Object), raw: Bytes) -> Self {
        let cancel = CancellationToken::new();
        let said = Arc::new(Said::default());
        let told = said.clone();
        let sink: Sink = Arc::new(move |message| told.push(&message));
        let tasks = view.guard.servers.tasks.clone();
        let asking = Asking { method, params, sink, cancel: cancel.clone(), raw: Some(raw) };
        let work = Box::pin(async move {
            let outcome = dispatch(&view, &Speaker::Modern, asking).await?;
            Some(Message::Response { id, outcome })
        });
        Self { said, work: Some(work), tasks, _cancel: cancel.drop_guard() }
    }
    /// Waits for whatever comes first; can be left and taken up again.
    pub(super) async fn first(&mut self) -> First {
        let Some(work) = &mut self.work else { return First::Event };
        tokio::select! {
            biased;
            () = self.said.something() => First::Event,
            answer = work => {
                self.work = None;
                if self.said.is_silent() {
                    return answer.map_or(First::Nothing, First::Answer);
                }
                // Both came at once; what was said before the answer is not lost.
                self.said.end(answer.as_ref());
                First::Event
            }
        }
    }
    /// From here on it is a stream.
    pub(super) fn begin_stream(&mut self) {
        let Some(work) = self.work.take() else { return };
        let said = self.said.clone();
        self.tasks.spawn(async move { said.end(work.await.as_ref()) });
    }
    /// The next event; `None` after the answer.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let came = self.said.came.notified();
            {
                let mut state = self.said.lock();
                if let Some(event) = state.events.pop_front() {
                    state.waiting -= event.len();
                    return Some(event);
                }
                if state.over {
                    return None;
                }
            }
            came.await;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.said.lock();
        *state = State { over: true, ..State::default() };
    }
}

impl Said {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// `false` when it no longer arrives.
    fn push(&self, message: &Message) -> bool {
        if self.lock().over {
            return false;
        }
        let event = event(message);
        let mut state = self.lock();
        // The first is taken whatever its size.
        let room = !state.over && (state.events.is_empty() || state.waiting + event.len() <= MAX_WAITING);
        if room {
            state.waiting += event.len();
            state.events.push_back(event);
            drop(state);
            self.came.notify_one();
        }
        room
    }
    /// The answer is taken whatever waits before it; a call that was parked says no more here.
    fn end(&self, answer: Option<&Message>) {
        let answer = answer.map(event);
        let mut state = self.lock();
        if !state.over {
            state.over = true;
            state.waiting += answer.as_ref().map_or(0, Bytes::len);
            state.events.extend(answer);
        }
        drop(state);
        self.came.notify_one();
    }
    fn is_silent(&self) -> bool {
        self.lock().events.is_empty()
    }
    async fn something(&self) {
        loop {
            let came = self.came.notified();
            if !self.is_silent() {
                return;
            }
            came.await;
        }
    }
}
