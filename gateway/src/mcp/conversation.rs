//! A legacy client's conversation: what `initialize` said, what it wants to hear, and the
//! questions put to it that wait for an answer. A session has one; so has standard input.

use super::Sink;
use crate::servers::{Abilities, Level, Watch};
use adapters::mcp::{Client, Message, Party, RpcError, meta};
use async_trait::async_trait;
use policies::json::{Json, Object};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a person may take to answer.
pub(super) const QUESTION_LIMIT: Duration = Duration::from_secs(600);
/// Questions to one client at a time.
const MAX_QUESTIONS: usize = 256;
/// Resources one client watches.
const MAX_WATCHES: usize = 1_000;

type Answer = Result<Json, RpcError>;
/// Boxed, because the channel keeps room for dozens, and most streams never say anything.
type Standing = mpsc::Sender<Box<Message>>;

static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(super) struct Conversation {
    /// Tells conversations apart, as long as the process lives.
    number: u64,
    /// The revision agreed on.
    pub(super) version: String,
    /// What the client can be asked.
    pub(super) capabilities: Object,
    level: Mutex<Option<Level>>,
    next: AtomicU64,
    questions: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    watches: Mutex<BTreeMap<String, Watch>>,
    /// Its standing stream, while it stands: where it is asked what no request of it is about.
    standing: Mutex<Option<Standing>>,
    /// What the lists looked like when the client was last told of a change.
    pub(super) seen: Mutex<Option<super::changes::Fingerprint>>,
}

impl Conversation {
    pub(super) fn new(version: &str, params: &Object) -> Self {
        // Only what servers are told: a client's own words may be long.
        let capabilities = params.get("capabilities").and_then(Json::as_object);
        let capabilities = capabilities.map(|c| Abilities::of(c).to_json()).unwrap_or_default();
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            version: version.to_owned(),
            capabilities,
            level: Mutex::default(),
            next: AtomicU64::new(1),
            questions: Mutex::default(),
            watches: Mutex::default(),
            standing: Mutex::default(),
            seen: Mutex::default(),
        }
    }
    pub(super) fn level(&self) -> Option<Level> {
        *lock(&self.level)
    }
    pub(super) fn set_level(&self, level: Level) {
        *lock(&self.level) = Some(level);
    }
    /// Whether it wants a log message. One that never said gets all of them.
    pub(super) fn wants(&self, message: &Object) -> bool {
        self.level().is_none_or(|level| level.admits(message))
    }
    /// Keeps a watch; `false` when there are too many.
    pub(super) fn watch(&self, uri: &str, watch: Watch) -> bool {
        let mut watches = lock(&self.watches);
        if watches.len() >= MAX_WATCHES && !watches.contains_key(uri) {
            return false;
        }
        watches.insert(uri.to_owned(), watch);
        true
    }
    pub(super) fn unwatch(&self, uri: &str) {
        let watch = lock(&self.watches).remove(uri);
        drop(watch);
    }
    pub(super) fn watches(&self, uri: &str) -> bool {
        lock(&self.watches).contains_key(uri)
    }
    pub(super) fn watched(&self) -> Vec<String> {
        lock(&self.watches).keys().cloned().collect()
    }
    /// The client answered a question of ours; an answer to nothing is dropped.
    pub(super) fn answered(&self, id: &Json, answer: Answer) {
        if let Some(waiting) = id.as_u64().and_then(|id| lock(&self.questions).remove(&id)) {
            let _ = waiting.send(answer);
        }
    }

    /// The client's number as servers' [`Client`].
    pub(super) fn number(&self) -> u64 {
        self.number
    }
    /// A standing stream begins; gives what is to be said on it. It takes the place of the one
    /// before.
    pub(super) fn stand(&self) -> mpsc::Receiver<Box<Message>> {
        let (sender, receiver) = mpsc::channel(MAX_QUESTIONS);
        *lock(&self.standing) = Some(sender);
        receiver
    }
    fn stands(&self) -> Option<Standing> {
        lock(&self.standing).clone().filter(|stream| !stream.is_closed())
    }

    async fn ask(&self, sink: &Sink, method: &str, params: Object) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, answer) = oneshot::channel();
        {
            let mut questions = lock(&self.questions);
            if questions.len() >= MAX_QUESTIONS {
                return Err(RpcError::new(-32603, "too many questions wait for this client's answer"));
            }
            questions.insert(id, send);
        }
        let asked = Asked { conversation: self, sink, id };
        if !sink(Message::Request { id: id.into(), method: method.to_owned(), params }) {
            return Err(RpcError::new(-32603, "the client cannot be reached"));
        }
        let answer = tokio::time::timeout(QUESTION_LIMIT, answer).await;
        match answer {
            Ok(Ok(answer)) => {
                std::mem::forget(asked);
                answer
            }
            Ok(Err(_)) => Err(RpcError::new(-32603, "the client left")),
            Err(_) => Err(RpcError::new(-32603, format!("no answer within {} s", QUESTION_LIMIT.as_secs()))),
        }
    }
}

/// A question on its way; dropped without an answer, it is taken back.
struct Asked<'a> {
    conversation: &'a Conversation,
    sink: &'a Sink,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if lock(&self.conversation.questions).remove(&self.id).is_some() {
            let mut params = Object::new();
            params.set("requestId", self.id);
            let method = "notifications/cancelled".to_owned();
            (self.sink)(Message::Notification { method, params });
        }
    }
}

/// The client of one request: its progress token, and the stream of its answer.
pub(super) struct Speaking {
    pub(super) conversation: Arc<Conversation>,
    pub(super) sink: Sink,
    pub(super) token: Option<Json>,
}

#[async_trait]
impl Party for Speaking {
    fn notify(&self, method: &str, params: Object) {
        forward(&self.sink, self.token.as_ref(), method, params, |m| self.conversation.wants(m));
    }
    async fn ask(&self, method: &str, mut params: Object) -> Result<Json, RpcError> {
        // A modern server's questions have no id of their own; a legacy client needs one.
        let url = params.get("mode").and_then(Json::as_str) == Some("url");
        if url && params.get("elicitationId").is_none() {
            let number = self.conversation.next.load(Ordering::Relaxed);
            params.set("elicitationId", format!("pleach-{number}"));
        }
        self.conversation.ask(&self.sink, method, params).await
    }
    fn capabilities(&self) -> Object {
        self.conversation.capabilities.clone()
    }
    fn wants_progress(&self) -> bool {
        self.token.is_some()
    }
    fn log_level(&self) -> Option<String> {
        self.conversation.level().map(|l| l.as_str().to_owned())
    }
    fn client(&self) -> Option<Arc<dyn Client>> {
        Some(Arc::new(Known { number: self.conversation.number, conversation: Arc::downgrade(&self.conversation) }))
    }
}

/// A conversation as servers know it: one that ended is not held by them.
struct Known {
    number: u64,
    conversation: Weak<Conversation>,
}

#[async_trait]
impl Client for Known {
    fn number(&self) -> u64 {
        self.number
    }
    fn has_roots(&self) -> bool {
        let conversation = self.conversation.upgrade();
        conversation.is_some_and(|c| c.capabilities.get("roots").is_some())
    }
    fn listens(&self) -> bool {
        self.conversation.upgrade().is_some_and(|c| c.stands().is_some())
    }
    async fn roots(&self, params: Object) -> Result<Json, RpcError> {
        let conversation = self.conversation.upgrade();
        let standing = conversation.as_ref().and_then(|c| c.stands());
        let (Some(conversation), Some(standing)) = (conversation, standing) else {
            return Err(RpcError::new(-32603, "the client left"));
        };
        let stream = standing.clone();
        let sink: Sink = Arc::new(move |message| stream.try_send(Box::new(message)).is_ok());
        // The question went with the stream, and is not held open by waiting for it.
        tokio::select! {
            answer = conversation.ask(&sink, "roots/list", params) => answer,
            () = standing.closed() => Err(RpcError::new(-32603, "the client left")),
        }
    }
}

/// Passes a notification of a request on: progress under the client's own token, log lines as
/// far as they are wanted.
pub(super) fn forward(
    sink: &Sink,
    token: Option<&Json>,
    method: &str,
    mut params: Object,
    wants: impl Fn(&Object) -> bool,
) {
    match method {
        "notifications/progress" => match token {
            Some(token) => params.set(meta::PROGRESS_TOKEN, token.clone()),
            None => return,
        },
        "notifications/message" if wants(&params) => {}
        _ => return,
    }
    sink(Message::Notification { method: method.to_owned(), params });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
