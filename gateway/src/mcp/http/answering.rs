//! One modern request while it is being answered. It needs no task: whoever reads the answer
//! drives it, and whoever puts it down takes it back (2026-07-28: the closed stream is the
//! cancellation).

use crate::mcp::call::Asking;
use crate::mcp::dispatch::dispatch;
use crate::mcp::{Sink, Speaker, View};
use adapters::mcp::Message;
use policies::json::{Json, Object};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Messages that wait for their reader. Progress is a courtesy: a client that reads too slowly
/// misses some, the server never waits.
const MAX_WAITING: usize = 1_024;

/// What precedes the answer.
#[derive(Default)]
struct Before {
    messages: Mutex<VecDeque<Message>>,
    came: Notify,
}

pub(super) struct Answering {
    before: Arc<Before>,
    work: Option<Pin<Box<dyn Future<Output = Option<Message>> + Send>>>,
    answer: Option<Message>,
    over: bool,
    _cancel: DropGuard,
}

impl Answering {
    pub(super) fn new(view: View, id: Json, method: String, params: Object) -> Self {
        let cancel = CancellationToken::new();
        let before = Arc::new(Before::default());
        let told = before.clone();
        let sink: Sink = Arc::new(move |message| told.push(message));
        let asking = Asking { method, params, sink, cancel: cancel.clone() };
        let work = Box::pin(async move {
            let outcome = dispatch(&view, &Speaker::Modern, asking).await?;
            Some(Message::Response { id, outcome })
        });
        Self { before, work: Some(work), answer: None, over: false, _cancel: cancel.drop_guard() }
    }
    /// The next message, the answer last. Can be left and taken up again.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            // A call that was parked may still speak; this request is answered.
            if self.over {
                return None;
            }
            let came = self.before.came.notified();
            if let Some(message) = self.before.pop() {
                return Some(message);
            }
            let Some(work) = &mut self.work else {
                self.over = true;
                return self.answer.take();
            };
            tokio::select! {
                answer = work => {
                    self.work = None;
                    self.answer = answer;
                }
                () = came => {}
            }
        }
    }
}

impl Before {
    fn push(&self, message: Message) -> bool {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let room = messages.len() < MAX_WAITING;
        if room {
            messages.push_back(message);
            self.came.notify_one();
        }
        room
    }
    fn pop(&self) -> Option<Message> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
