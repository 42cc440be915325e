//! One connection: the handshake of either era, requests with limits, and the rounds of
//! questions a server may need before it answers.

use super::McpError;
use super::http::{Asking, Http, HttpTarget};
use super::party::{Events, Exchange, Party, Rounds};
use super::questions::Questions;
use super::standing;
use super::stdio::Stdio;
use super::wire::{LEGACY, MODERN, Message, RpcError, meta};
use crate::sandbox::Instance;
use policies::json::{Json, Object};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Which protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28: stateless, everything in each request.
    Modern,
    /// `initialize` first.
    Legacy,
}

/// How long a server may take from start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for an answer to the era probe before trying `initialize` as well.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Rounds of questions one request may have.
const MAX_ROUNDS: usize = 32;

pub(super) enum Link {
    Stdio(Stdio),
    Http(Box<Http>),
}

/// A connected server. Its standing stream ends with it.
pub struct Connection {
    core: Arc<Core>,
    _end: DropGuard,
}

/// What the connection and its standing stream share.
pub(super) struct Core {
    pub(super) link: Link,
    pub(super) era: Era,
    /// What we say we can be asked; fixed by `initialize`.
    capabilities: Object,
    server: Mutex<Arc<Json>>,
    next: AtomicU64,
    pub(super) events: Arc<dyn Events>,
    pub(super) questions: Arc<Questions>,
    /// Resources whose changes are wanted.
    pub(super) watched: watch::Sender<BTreeSet<String>>,
    /// Held while the session is begun anew.
    introduction: tokio::sync::Mutex<()>,
    /// The server speaks another era than it did.
    stale: AtomicBool,
    pub(super) end: CancellationToken,
}

/// What a request was answered with.
#[derive(Debug)]
pub struct Reply {
    /// Whether that is all.
    pub kind: Kind,
    /// Whether the server speaks 2026-07-28.
    pub modern: bool,
    /// The result as it came; without `resultType` where it is complete.
    pub result: Json,
}

/// The kinds of result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer.
    Complete,
    /// The server asks something first.
    InputRequired,
    /// What an extension defines: a task.
    Other,
}

/// Stops the clock of a request while a person is asked.
#[derive(Default)]
pub(super) struct Clock(AtomicUsize);

pub(super) struct Paused<'a>(&'a Clock);

impl Clock {
    pub(super) fn pause(&self) -> Paused<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Paused(self)
    }
    fn stands(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}
impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Speaks to a sandboxed process on its standard streams. `known` is the era it spoke last
    /// time, if any; `capabilities` is what callers of this connection can be asked.
    ///
    /// # Errors
    /// When it ends, stays silent, or speaks no MCP.
    pub async fn stdio(
        instance: Instance,
        known: Option<Era>,
        capabilities: Object,
        events: Arc<dyn Events>,
    ) -> Result<Self, McpError> {
        let questions = Arc::new(Questions::default());
        let stdio = Stdio::start(instance, events.clone(), questions.clone())?;
        Self::handshake(Link::Stdio(stdio), known, capabilities, events, questions).await
    }
    /// Speaks to an HTTP endpoint.
    ///
    /// # Errors
    /// When it cannot be reached or speaks no MCP.
    pub async fn http(
        target: HttpTarget,
        known: Option<Era>,
        capabilities: Object,
        events: Arc<dyn Events>,
    ) -> Result<Self, McpError> {
        let link = Link::Http(Box::new(Http::new(target)));
        Self::handshake(link, known, capabilities, events, Arc::default()).await
    }
    /// The era it speaks.
    pub fn era(&self) -> Era {
        self.core.era
    }
    /// What it said of itself: the result of `server/discover` or `initialize`.
    pub fn server(&self) -> Arc<Json> {
        lock(&self.core.server).clone()
    }
    /// Whether it claims a capability, such as `resources`.
    pub fn can(&self, capability: &str) -> bool {
        self.core.capability(capability).is_some()
    }
    pub(super) fn occupied(&self) -> bool {
        self.core.questions.occupied()
    }
    /// Whether it still answers, in the era it did.
    pub fn alive(&self) -> bool {
        let up = match &self.core.link {
            Link::Stdio(stdio) => stdio.alive(),
            Link::Http(_) => true,
        };
        up && !self.core.stale.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for its result, within the limits of `exchange`. `mirrored`
    /// are the headers that repeat its arguments.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn request(
        &self,
        method: &str,
        mut params: Object,
        mirrored: &[(String, String)],
        exchange: Exchange,
    ) -> Result<Reply, McpError> {
        let core = &*self.core;
        core.fill_meta(&mut params, exchange.party.as_deref());
        let mut message = Message::Request { id: Json::Null, method: method.to_owned(), params };
        for _ in 0..MAX_ROUNDS {
            let mut result = core.attempt(&mut message, mirrored, &exchange).await?;
            if core.era == Era::Legacy {
                // Whatever it says of types, it knows none.
                return Ok(Reply { kind: Kind::Complete, modern: false, result });
            }
            let kind = result.get("resultType").and_then(Json::as_str).unwrap_or("complete");
            if kind == "complete" {
                result.as_object_mut().map(|r| r.remove("resultType"));
                return Ok(Reply { kind: Kind::Complete, modern: true, result });
            }
            if exchange.rounds == Rounds::Relay && exchange.party.is_some() {
                let kind = if kind == "input_required" { Kind::InputRequired } else { Kind::Other };
                return Ok(Reply { kind, modern: true, result });
            }
            let Some(party) = exchange.party.as_ref().filter(|_| kind == "input_required") else {
                return Err(McpError::Protocol(format!("resultType {kind:?}, which was not offered")));
            };
            let answers = tokio::select! {
                answers = ask_all(&**party, &result) => answers?,
                () = exchange.cancel.cancelled() => return Err(McpError::Cancelled),
            };
            let Message::Request { params, .. } = &mut message else { continue };
            params.set("inputResponses", answers);
            match result.get("requestState") {
                Some(state) => params.set("requestState", state.clone()),
                None => drop(params.remove("requestState")),
            }
        }
        Err(McpError::Protocol(format!("it asked {MAX_ROUNDS} times without an answer")))
    }

    /// Sends a notification, where the server has a place for it.
    pub async fn notify(&self, method: &str, params: Object) {
        let message = Message::Notification { method: method.to_owned(), params };
        match &self.core.link {
            Link::Stdio(stdio) => stdio.notify(&message),
            Link::Http(http) if self.core.era == Era::Legacy => http.notify(&message).await,
            Link::Http(_) => {}
        }
    }

    /// Has changes of a resource reported, from now on and after every new beginning.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn watch(&self, uri: &str) -> Result<Json, McpError> {
        let mut result = Json::Object(Object::new());
        if self.core.era == Era::Legacy {
            let mut params = Object::new();
            params.set("uri", uri);
            result = self.request("resources/subscribe", params, &[], Exchange::default()).await?.result;
        }
        self.core.watched.send_if_modified(|set| set.insert(uri.to_owned()));
        Ok(result)
    }
    /// No longer.
    pub async fn unwatch(&self, uri: &str) {
        self.core.watched.send_if_modified(|set| set.remove(uri));
        if self.core.era == Era::Legacy {
            let mut params = Object::new();
            params.set("uri", uri);
            let limits = Exchange { limit: Duration::from_secs(10), ..Exchange::default() };
            drop(self.request("resources/unsubscribe", params, &[], limits).await);
        }
    }

    async fn handshake(
        link: Link,
        known: Option<Era>,
        capabilities: Object,
        events: Arc<dyn Events>,
        questions: Arc<Questions>,
    ) -> Result<Self, McpError> {
        let end = CancellationToken::new();
        let mut core = Core {
            link,
            era: Era::Modern,
            capabilities,
            server: Mutex::new(Arc::new(Json::Null)),
            next: AtomicU64::new(1),
            events,
            questions,
            watched: watch::channel(BTreeSet::new()).0,
            introduction: tokio::sync::Mutex::default(),
            stale: AtomicBool::new(false),
            end: end.clone(),
        };
        if known != Some(Era::Legacy) {
            let discovered = match core.discover().await {
                // It refuses the revision and names it among those it speaks: it is asked again.
                Err(McpError::Rpc(e)) if e.code() == -32022 && names_modern(e.data(), "supported") => {
                    core.discover().await
                }
                other => other,
            };
            match discovered {
                Ok(true) => return Ok(Self::stand(core, end).await),
                // Gone, not merely ignorant: a server of the first era may end at an unknown
                // first message. The caller starts it again and says what was learnt.
                Err(gone @ (McpError::Gone(_) | McpError::Unreachable(_))) => return Err(gone),
                _ => {}
            }
        }
        core.era = Era::Legacy;
        core.initialize().await?;
        Ok(Self::stand(core, end).await)
    }

    async fn stand(core: Core, end: CancellationToken) -> Self {
        let core = Arc::new(core);
        standing::start(core.clone()).await;
        Self { core, _end: end.drop_guard() }
    }
}

impl Core {
    /// What the server claims under a capability.
    pub(super) fn capability(&self, name: &str) -> Option<Json> {
        lock(&self.server).get("capabilities").and_then(|c| c.get(name)).cloned()
    }
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// What belongs to this connection in a request's `_meta`.
    fn fill_meta(&self, params: &mut Object, party: Option<&dyn Party>) {
        if self.era == Era::Legacy && party.is_none_or(|p| !p.wants_progress()) {
            return;
        }
        let mut own = match params.remove("_meta") {
            Some(Json::Object(own)) => own,
            _ => Object::new(),
        };
        if self.era == Era::Modern {
            modern_meta(&mut own, party.map(Party::capabilities).unwrap_or_default());
            if let Some(level) = party.and_then(Party::log_level) {
                own.set(meta::LOG_LEVEL, level);
            }
        }
        params.set("_meta", own);
    }

    /// One round, over a lost session if need be.
    async fn attempt(
        &self,
        message: &mut Message,
        mirrored: &[(String, String)],
        exchange: &Exchange,
    ) -> Result<Json, McpError> {
        let before = self.session();
        let outcome = match self.once(message, mirrored, exchange).await {
            Err(McpError::SessionLost) => {
                // The server forgot us; it did not act on the request. Introduce ourselves again.
                self.reintroduce(before).await?;
                self.once(message, mirrored, exchange).await
            }
            other => other,
        };
        if let Err(McpError::WrongEra(_)) = &outcome {
            self.stale.store(true, Ordering::Relaxed);
        }
        if let Err(McpError::Rpc(error)) = &outcome
            && error.code() == -32022
            && self.era == Era::Modern
        {
            self.stale.store(true, Ordering::Relaxed);
        }
        outcome
    }

    async fn once(
        &self,
        message: &mut Message,
        mirrored: &[(String, String)],
        exchange: &Exchange,
    ) -> Result<Json, McpError> {
        let number = self.number();
        let Message::Request { id, params, method } = message else {
            return Err(McpError::Protocol("not a request".into()));
        };
        *id = number.into();
        let method = method.clone();
        if exchange.party.as_ref().is_some_and(|p| p.wants_progress())
            && let Some(Json::Object(own)) = params.get_mut("_meta")
        {
            own.set(meta::PROGRESS_TOKEN, number);
        }
        let clock = Arc::new(Clock::default());
        let (message, party) = (&*message, exchange.party.clone());
        let work = async {
            let _in_flight = match &party {
                Some(party) if self.era == Era::Legacy => {
                    Some(self.questions.enter(number, party.clone(), clock.clone()).await)
                }
                _ => None,
            };
            match &self.link {
                Link::Stdio(stdio) => stdio.request(number, message, party).await,
                Link::Http(http) => {
                    let (era, events) = (self.era, &self.events);
                    http.request(Asking { message, era, mirrored, party, clock: &clock, events }).await
                }
            }
        };
        tokio::pin!(work);
        let mut until = Instant::now() + exchange.limit;
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                () = exchange.cancel.cancelled() => {
                    self.abandon(number, "the caller cancelled").await;
                    return Err(McpError::Cancelled);
                }
                () = tokio::time::sleep_until(until) => {}
            }
            if clock.stands() {
                until = Instant::now() + exchange.limit;
                continue;
            }
            self.abandon(number, "time limit").await;
            // A server that is merely slow to start is not hung.
            if let Link::Stdio(stdio) = &self.link
                && method != "server/discover"
            {
                stdio.suspect(exchange.limit);
            }
            return Err(McpError::Timeout { method, seconds: exchange.limit.as_secs() });
        }
    }

    /// Tells the server that nobody waits any more. Over modern HTTP the closed stream said so.
    async fn abandon(&self, number: u64, why: &str) {
        let mut params = Object::new();
        params.set("requestId", number);
        params.set("reason", why);
        let message = Message::Notification { method: "notifications/cancelled".into(), params };
        match &self.link {
            Link::Stdio(stdio) => {
                stdio.forget(number);
                stdio.notify(&message);
            }
            Link::Http(http) if self.era == Era::Legacy => http.notify(&message).await,
            Link::Http(_) => {}
        }
    }

    /// Whether the server speaks the modern era.
    async fn discover(&self) -> Result<bool, McpError> {
        let mut params = Object::new();
        self.fill_meta(&mut params, None);
        let mut message = Message::Request { id: Json::Null, method: "server/discover".into(), params };
        let probe = Exchange { limit: PROBE_LIMIT, ..Exchange::default() };
        let result = self.once(&mut message, &[], &probe).await?;
        let modern = names_modern(Some(&result), "supportedVersions");
        if modern {
            *lock(&self.server) = Arc::new(result);
        }
        Ok(modern)
    }

    async fn initialize(&self) -> Result<(), McpError> {
        let mut params = Object::new();
        params.set("protocolVersion", LEGACY);
        params.set("capabilities", self.capabilities.clone());
        params.set("clientInfo", client_info());
        let number = self.number();
        let message = Message::Request { id: number.into(), method: "initialize".into(), params };
        let initialized = Message::Notification { method: "notifications/initialized".into(), params: Object::new() };
        let clock = Clock::default();
        let work = async {
            match &self.link {
                Link::Stdio(stdio) => {
                    let result = stdio.request(number, &message, None).await?;
                    stdio.notify(&initialized);
                    Ok(result)
                }
                Link::Http(http) => {
                    http.forget_session();
                    let (era, events) = (Era::Legacy, &self.events);
                    let asking = Asking { message: &message, era, mirrored: &[], party: None, clock: &clock, events };
                    let result = http.request(asking).await?;
                    http.negotiated(result.get("protocolVersion").and_then(Json::as_str).unwrap_or(LEGACY));
                    http.notify(&initialized).await;
                    Ok(result)
                }
            }
        };
        let late = || McpError::Timeout { method: "initialize".into(), seconds: START_LIMIT.as_secs() };
        let result = tokio::time::timeout(START_LIMIT, work).await.unwrap_or_else(|_| Err(late()))?;
        *lock(&self.server) = Arc::new(result);
        Ok(())
    }

    /// A notification that did not come on the stream of a call: some servers put there what
    /// belongs to one.
    pub(super) fn heard(&self, method: &str, params: Object) {
        let party = match method {
            "notifications/progress" => {
                let token = params.get(meta::PROGRESS_TOKEN).and_then(Json::as_u64);
                token.and_then(|number| self.questions.party(number))
            }
            "notifications/message" => self.questions.only(),
            _ => None,
        };
        match party {
            Some(party) => party.notify(method, params),
            None if method == "notifications/progress" => {}
            None => self.events.notified(method, params),
        }
    }

    pub(super) fn session(&self) -> Option<String> {
        match &self.link {
            Link::Http(http) => http.session(),
            Link::Stdio(_) => None,
        }
    }

    /// Begins a session anew, once for all who lost `before`.
    pub(super) async fn reintroduce(&self, before: Option<String>) -> Result<(), McpError> {
        let _one = self.introduction.lock().await;
        let now = self.session();
        if now.is_some() && now != before {
            return Ok(());
        }
        if let Err(e) = self.initialize().await {
            if matches!(e, McpError::Rpc(_) | McpError::Protocol(_)) {
                self.stale.store(true, Ordering::Relaxed);
            }
            return Err(e);
        }
        self.events.resumed();
        Ok(())
    }
}

fn names_modern(object: Option<&Json>, key: &str) -> bool {
    let versions = object.and_then(|o| o.get(key)).and_then(Json::as_array);
    versions.is_some_and(|v| v.iter().any(|v| v.as_str() == Some(MODERN)))
}

/// Asks everything an `input_required` wants to know, all at once.
async fn ask_all(party: &dyn Party, result: &Json) -> Result<Object, McpError> {
    let wanted = result.get("inputRequests").and_then(Json::as_object);
    let asked = wanted.into_iter().flat_map(Object::iter).map(|(key, request)| async move {
        let method = request.get("method").and_then(Json::as_str);
        let method = method.ok_or_else(|| McpError::Protocol(format!("inputRequests.{key} has no method")))?;
        let params = request.get("params").and_then(Json::as_object).cloned().unwrap_or_default();
        let answer = party.ask(method, params).await.map_err(McpError::Rpc)?;
        Ok::<_, McpError>((key.to_owned(), answer))
    });
    let answers = futures_util::future::try_join_all(asked).await?;
    Ok(answers.into_iter().collect())
}

fn client_info() -> Json {
    Json::object([("name", "pleach".into()), ("version", env!("CARGO_PKG_VERSION").into())])
}

pub(super) fn modern_meta(own: &mut Object, capabilities: Object) {
    own.set(meta::PROTOCOL_VERSION, MODERN);
    own.set(meta::CLIENT_INFO, client_info());
    own.set(meta::CLIENT_CAPABILITIES, capabilities);
}

/// Answers what a server asks of nobody in particular.
pub(super) fn answer(method: &str) -> Result<Json, RpcError> {
    match method {
        "ping" => Ok(Json::Object(Object::new())),
        other => Err(RpcError::new(-32601, format!("{other}: there is nobody here to ask"))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
