//! The door over standard streams, for a client that starts Pleach itself: one message a line.

use super::call::Asking;
use super::conversation::Conversation;
use super::dispatch::dispatch;
use super::http::MAX_BODY;
use super::{ROOTS_CHANGED, Sink, Speaker, View, asked_version, changes, check_modern, initialize};
use adapters::mcp::{Message, RpcError};
use futures_util::{Stream, StreamExt};
use policies::json::{Json, Limits, Object};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Serves until standard input closes or `stop`.
///
/// # Errors
/// When standard input breaks.
pub(crate) async fn serve(view: View, stop: CancellationToken) -> std::io::Result<()> {
    let (out, mut queue) = mpsc::channel::<Message>(256);
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(message) = queue.recv().await {
            if stdout.write_all(message.to_line().as_bytes()).await.is_err() || stdout.flush().await.is_err() {
                return;
            }
        }
    });
    let view = Mutex::new(view);
    let door =
        Door { view, out, calls: Arc::default(), stop: CancellationToken::new(), conversation: Mutex::default() };
    // However this ends, nobody is called for any more.
    let _over = door.stop.clone().drop_guard();
    let mut input = BufReader::with_capacity(64 << 10, tokio::io::stdin());
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut input).take(MAX_BODY as u64 + 2);
        let n = tokio::select! {
            () = stop.cancelled() => break,
            n = bounded.read_until(b'\n', &mut line) => n?,
        };
        if n == 0 {
            break;
        }
        if line.len() > MAX_BODY + 1 {
            // The rest of the line is of the same message; the next line begins anew.
            skip_line(&mut input).await?;
            let error = RpcError::new(-32600, format!("the message is larger than {MAX_BODY} bytes"));
            door.send(Message::Response { id: Json::Null, outcome: Err(error) }).await;
            continue;
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            door.take(text).await;
        }
    }
    // What an agent does goes on at the next start; it is not cancelled because its client left.
    let framework = lock(&door.view).framework.clone();
    if let Some(framework) = framework {
        framework.put_down().await;
    }
    // Whoever ends pleach has not taken back what its client asked a person: the question outlives it.
    if stop.is_cancelled() {
        lock(&door.view).guard.servers.stop.cancel();
    }
    door.stop.cancel();
    drop(door);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), writer).await;
    Ok(())
}

async fn skip_line(input: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (n, found) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        input.consume(n);
        if found {
            return Ok(());
        }
    }
}

struct Door {
    /// What the client sees; another one when the policy changed.
    view: Mutex<View>,
    out: mpsc::Sender<Message>,
    calls: Arc<Mutex<HashMap<String, CancellationToken>>>,
    stop: CancellationToken,
    /// What `initialize` began.
    conversation: Mutex<Option<Arc<Conversation>>>,
}

impl Door {
    async fn send(&self, message: Message) {
        let _ = self.out.send(message).await;
    }
    async fn take(&self, text: &[u8]) {
        let limits = Limits { bytes: MAX_BODY, ..Limits::default() };
        match Message::read(text, limits) {
            Err(error) => self.send(Message::Response { id: Json::Null, outcome: Err(error) }).await,
            Ok(Message::Request { id, method, params }) => self.request(id, method, params).await,
            Ok(Message::Notification { method, params }) if method == "notifications/cancelled" => {
                if let Some(id) = params.get("requestId")
                    && let Some(call) = lock(&self.calls).remove(&id.to_text())
                {
                    call.cancel();
                }
            }
            Ok(Message::Notification { method, .. }) if method == ROOTS_CHANGED => {
                let conversation = lock(&self.conversation).clone();
                if let Some(conversation) = conversation {
                    let view = self.view();
                    view.guard.servers.roots_changed(&view.caller, conversation.number());
                }
            }
            Ok(Message::Response { id, outcome }) => {
                if let Some(conversation) = &*lock(&self.conversation) {
                    conversation.answered(&id, outcome);
                }
            }
            Ok(_) => {}
        }
    }

    fn view(&self) -> View {
        lock(&self.view).clone()
    }

    async fn begin(&self, id: Json, params: &Object) {
        let view = self.view();
        let (conversation, result) = initialize(&view, params).await;
        let conversation = Arc::new(conversation);
        *lock(&self.conversation) = Some(conversation.clone());
        self.send(Message::Response { id, outcome: Ok(result) }).await;
        self.tell(changes::standing(view, conversation), self.stop.child_token());
    }

    /// Writes a stream of messages out, until it ends or is ended.
    fn tell(&self, messages: impl Stream<Item = Message> + Send + 'static, stop: CancellationToken) {
        let out = self.out.clone();
        self.view().guard.servers.tasks.spawn(async move {
            let mut messages = std::pin::pin!(messages.take_until(stop.cancelled_owned()));
            while let Some(message) = messages.next().await {
                if out.send(message).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn request(&self, id: Json, method: String, params: Object) {
        match self.view().renewed() {
            Ok(None) => {}
            Ok(Some(view)) => *lock(&self.view) = view,
            Err(why) => {
                let error = RpcError::new(-32001, why);
                return self.send(Message::Response { id, outcome: Err(error) }).await;
            }
        }
        let modern = asked_version(&params).is_some() || method == "server/discover";
        if method == "initialize" && !modern {
            if lock(&self.conversation).is_some() {
                let error = RpcError::new(-32600, "initialize was called already");
                return self.send(Message::Response { id, outcome: Err(error) }).await;
            }
            return self.begin(id, &params).await;
        }
        let refuse = |error| self.send(Message::Response { id: id.clone(), outcome: Err(error) });
        let begun = lock(&self.conversation).clone();
        let speaker = match (modern, begun) {
            (true, _) => Speaker::Modern,
            (false, Some(conversation)) => Speaker::Legacy(conversation),
            (false, None) if method == "ping" => Speaker::Legacy(Arc::new(Conversation::new("", &params))),
            (false, None) => {
                return refuse(RpcError::new(-32600, "call initialize first, or speak 2026-07-28")).await;
            }
        };
        if modern && let Err(error) = check_modern(&params) {
            return refuse(error).await;
        }
        let cancel = self.stop.child_token();
        let key = id.to_text();
        lock(&self.calls).insert(key.clone(), cancel.clone());
        // A listener's entry goes when it is cancelled; there is one per client that listens.
        if method == "subscriptions/listen" {
            if let Err(error) = super::http::check_listen(&params) {
                return refuse(error).await;
            }
            let view = self.view();
            let messages = futures_util::stream::once(async move { changes::listen(view, id, &params).await });
            return self.tell(messages.flatten(), cancel);
        }
        let (view, out, calls) = (self.view(), self.out.clone(), self.calls.clone());
        let notify = out.clone();
        let sink: Sink = Arc::new(move |message| notify.try_send(message).is_ok());
        view.guard.servers.tasks.clone().spawn(async move {
            let answer = dispatch(&view, &speaker, Asking { method, params, sink, cancel, raw: None }).await;
            lock(&calls).remove(&key);
            if let Some(outcome) = answer {
                let _ = out.send(Message::Response { id, outcome }).await;
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
