//! One connection: the handshake of either era, requests with limits, and the rounds of
//! questions a server may need before it answers.

use super::http::{Asking, Http, HttpTarget};
use super::party::{Events, Exchange, Party, Rounds};
use super::questions::Questions;
use super::standing::{self, Watches};
use super::stdio::Stdio;
use super::wire::{LEGACY, MODERN, Message, RpcError, TASKS, meta};
use super::{McpError, Topic};
use crate::a2a::{Peer, PeerTarget};
use crate::sandbox::Instance;
use policies::json::{Json, Object};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
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

/// The server knows of its client's roots; it is being told; and there is more to tell.
const TOLD: u8 = 0;
const TELLING: u8 = 1;
const TOLD_AGAIN: u8 = 2;

pub(super) enum Link {
    Stdio(Stdio),
    Http(Box<Http>),
    /// No server of MCP, but its face.
    Peer(Box<Peer>),
}

/// A connected server. Its standing stream ends with it.
pub struct Connection {
    core: Arc<Core>,
    /// What stands besides requests, and leaves the session at the end.
    standing: Mutex<Option<JoinHandle<()>>>,
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
    pub(super) watches: Arc<Watches>,
    /// Held while the session is begun anew.
    introduction: tokio::sync::Mutex<()>,
    /// Whether it is being told that roots changed.
    roots: AtomicU8,
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

/// The clock of a request: it stands while a person is asked.
#[derive(Default)]
pub(super) struct Clock {
    stands: Mutex<Stands>,
    resumed: Notify,
}

#[derive(Default)]
struct Stands {
    questions: usize,
    since: Option<Instant>,
    total: Duration,
}

pub(super) struct Paused<'a>(&'a Clock);

impl Clock {
    pub(super) fn pause(&self) -> Paused<'_> {
        let mut stands = lock(&self.stands);
        stands.questions += 1;
        stands.since.get_or_insert_with(Instant::now);
        Paused(self)
    }
    /// Ends when `limit` has passed since `began`, the time it stood not counted.
    async fn over(&self, began: Instant, limit: Duration) {
        loop {
            let resumed = self.resumed.notified();
            let (standing, until) = {
                let stands = lock(&self.stands);
                (stands.since.is_some(), began + limit + stands.total)
            };
            if standing {
                resumed.await;
            } else if Instant::now() >= until {
                return;
            } else {
                tokio::time::sleep_until(until).await;
            }
        }
    }
}
impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let mut stands = lock(&self.0.stands);
        stands.questions -= 1;
        if stands.questions == 0
            && let Some(since) = stands.since.take()
        {
            stands.total += since.elapsed();
        }
        drop(stands);
        self.0.resumed.notify_waiters();
    }
}

impl Connection {
    /// Speaks to a sandboxed process on its standard streams. `known` is the era it spoke last
    /// time, if any; `capabilities` is what callers of this connection can be asked, and `asks`
    /// whether it is known to ask without saying whose call it is about.
    ///
    /// # Errors
    /// When it ends, stays silent, or speaks no MCP.
    pub async fn stdio(
        instance: Instance,
        (known, asks): (Option<Era>, bool),
        capabilities: Object,
        events: Arc<dyn Events>,
    ) -> Result<Self, McpError> {
        let questions = Questions::new(asks, &capabilities);
        let watches = Arc::new(Watches::default());
        let stdio = Stdio::start(instance, events.clone(), (questions.clone(), watches.clone()))?;
        Self::handshake(Link::Stdio(stdio), known, capabilities, events, (questions, watches)).await
    }
    /// Speaks to an HTTP endpoint.
    ///
    /// # Errors
    /// When it cannot be reached or speaks no MCP.
    pub async fn http(
        target: HttpTarget,
        (known, asks): (Option<Era>, bool),
        capabilities: Object,
        events: Arc<dyn Events>,
    ) -> Result<Self, McpError> {
        let link = Link::Http(Box::new(Http::new(target)));
        let questions = Questions::new(asks, &capabilities);
        Self::handshake(link, known, capabilities, events, (questions, Arc::default())).await
    }
    /// Speaks to an A2A peer, which answers as a stateless server would.
    ///
    /// # Errors
    /// When its card cannot be had, or is none that can be used.
    pub async fn peer(target: PeerTarget, events: Arc<dyn Events>) -> Result<Self, McpError> {
        let link = Link::Peer(Box::new(Peer::new(target)));
        let core = Core::new(link, Object::new(), events, (Questions::new(false, &Object::new()), Arc::default()));
        let core = Arc::new(core);
        core.discover().await?;
        let end = core.end.clone();
        Ok(Self::stand(core, end).await)
    }
    /// The peer it is, if it is one.
    pub(super) fn as_peer(&self) -> Option<&Peer> {
        match &self.core.link {
            Link::Peer(peer) => Some(peer),
            Link::Stdio(_) | Link::Http(_) => None,
        }
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
    /// Ends it, and waits until the server was told so.
    pub async fn close(&self) {
        self.core.end.cancel();
        let standing = lock(&self.standing).take();
        if let Some(standing) = standing {
            let _ = standing.await;
        }
    }
    /// Ends it at once: a process is killed with all it started, and whoever waits hears of it.
    pub fn end(&self) {
        self.core.end.cancel();
        if let Link::Stdio(stdio) = &self.core.link {
            stdio.end();
        }
    }
    /// Whether it still answers, in the era it did.
    pub fn alive(&self) -> bool {
        let up = match &self.core.link {
            Link::Stdio(stdio) => stdio.alive(),
            Link::Http(_) | Link::Peer(_) => true,
        };
        up && !self.core.stale.load(Ordering::Relaxed) && !self.core.questions.retired()
    }
    /// Whether it asks without saying whose call it is about.
    pub fn asks(&self) -> bool {
        self.core.questions.asks()
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
        let core = &self.core;
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
            let mut open = OpenQuestion(Some((core, &result)));
            let answers = tokio::select! {
                answers = Box::pin(ask_all(&**party, &result)) => answers?,
                () = exchange.cancel.cancelled() => return Err(McpError::Cancelled),
            };
            open.0 = None;
            drop(open);
            let Message::Request { params, .. } = &mut message else { continue };
            params.set("inputResponses", answers);
            match result.get("requestState") {
                Some(state) => params.set("requestState", state.clone()),
                None => drop(params.remove("requestState")),
            }
        }
        Err(McpError::Protocol(format!("it asked {MAX_ROUNDS} times without an answer")))
    }

    /// Whether it is a legacy server that was told of roots, and this client called it.
    pub fn is_told_of_roots(&self, client: u64) -> bool {
        self.core.era == Era::Legacy && self.core.questions.serves(client)
    }

    /// The roots of its client are others; `true` where nobody is telling the server yet, and
    /// whoever asks is to do it.
    pub fn roots_changed(&self) -> bool {
        self.core.roots.swap(TOLD_AGAIN, Ordering::AcqRel) == TOLD
    }
    /// Tells the server; `true` where they changed again meanwhile.
    pub async fn tell_of_roots(&self) -> bool {
        self.core.roots.store(TELLING, Ordering::Release);
        self.notify("notifications/roots/list_changed", Object::new()).await;
        self.core.roots.compare_exchange(TELLING, TOLD, Ordering::AcqRel, Ordering::Acquire).is_err()
    }

    /// Sends a notification, where the server has a place for it.
    pub async fn notify(&self, method: &str, params: Object) {
        let message = Message::Notification { method: method.to_owned(), params };
        match &self.core.link {
            Link::Stdio(stdio) => stdio.notify(&message),
            Link::Http(http) if self.core.era == Era::Legacy => http.notify(&message).await,
            Link::Http(_) | Link::Peer(_) => {}
        }
    }

    /// Has changes reported, from now on and after every new beginning.
    ///
    /// # Errors
    /// See [`McpError`]; also when the server does not report them.
    pub async fn watch(&self, topic: &Topic) -> Result<Json, McpError> {
        let watches = &self.core.watches;
        match (topic, self.core.era) {
            (Topic::Resource(uri), Era::Legacy) => {
                let mut params = Object::new();
                params.set("uri", uri.as_str());
                Ok(self.request("resources/subscribe", params, &[], Exchange::default()).await?.result)
            }
            (Topic::Task(_), Era::Legacy) => Err(McpError::Protocol("its era has no such tasks".into())),
            // A peer is asked how a task is: it tells nothing by itself.
            (Topic::Task(_), Era::Modern) if !self.has_tasks() || self.as_peer().is_some() => {
                Err(McpError::Protocol("it tells of no tasks".into()))
            }
            (_, Era::Modern) => match watches.report(topic).await {
                true => Ok(Json::Object(Object::new())),
                false => {
                    watches.wanted.send_if_modified(|set| set.remove(topic));
                    Err(McpError::Protocol("it does not report changes of this".into()))
                }
            },
        }
    }
    /// No longer.
    pub async fn unwatch(&self, topic: &Topic) {
        self.core.watches.wanted.send_if_modified(|set| set.remove(topic));
        if let (Topic::Resource(uri), Era::Legacy) = (topic, self.core.era) {
            let mut params = Object::new();
            params.set("uri", uri.as_str());
            let limits = Exchange { limit: Duration::from_secs(10), ..Exchange::default() };
            drop(self.request("resources/unsubscribe", params, &[], limits).await);
        }
    }
    fn has_tasks(&self) -> bool {
        self.core.capability("extensions").is_some_and(|e| e.get(TASKS).is_some())
    }

    async fn handshake(
        link: Link,
        known: Option<Era>,
        capabilities: Object,
        events: Arc<dyn Events>,
        (questions, watches): (Arc<Questions>, Arc<Watches>),
    ) -> Result<Self, McpError> {
        let mut core = Arc::new(Core::new(link, capabilities, events, (questions, watches)));
        let end = core.end.clone();
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
                Err(
                    gone @ (McpError::Gone(_)
                    | McpError::Unreachable(_)
                    | McpError::Broken(_)
                    | McpError::Unauthorized(_)),
                ) => {
                    return Err(gone);
                }
                _ => {}
            }
        }
        match Arc::get_mut(&mut core) {
            Some(core) => core.era = Era::Legacy,
            None => return Err(McpError::Protocol("the probe has not ended".into())),
        }
        let introduced = core.initialize().await;
        // It was slow to answer what it was asked first, not ignorant: it is of the newer era.
        if matches!(&introduced, Err(McpError::Rpc(e)) if e.code() == -32022)
            && let Some(newer) = Arc::get_mut(&mut core)
        {
            newer.era = Era::Modern;
            if core.discover().await? {
                return Ok(Self::stand(core, end).await);
            }
        }
        introduced?;
        Ok(Self::stand(core, end).await)
    }

    async fn stand(core: Arc<Core>, end: CancellationToken) -> Self {
        let standing = Mutex::new(Some(standing::start(core.clone()).await));
        Self { core, standing, _end: end.drop_guard() }
    }
}

impl Core {
    fn new(
        link: Link,
        capabilities: Object,
        events: Arc<dyn Events>,
        (questions, watches): (Arc<Questions>, Arc<Watches>),
    ) -> Self {
        Self {
            link,
            era: Era::Modern,
            capabilities,
            server: Mutex::new(Arc::new(Json::Null)),
            next: AtomicU64::new(1),
            events,
            questions,
            watches,
            introduction: tokio::sync::Mutex::default(),
            roots: AtomicU8::new(TOLD),
            stale: AtomicBool::new(false),
            end: CancellationToken::new(),
        }
    }
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
        self: &Arc<Self>,
        message: &mut Message,
        mirrored: &[(String, String)],
        exchange: &Exchange,
    ) -> Result<Json, McpError> {
        let before = self.session();
        let outcome = match self.once(message, mirrored, exchange).await {
            Err(McpError::SessionLost { refused }) => {
                // The server forgot us. Introduce ourselves again; and repeat what it refused.
                // Of what it may have begun, it is not known how far it came.
                let again = Box::pin(self.reintroduce(before)).await;
                let call = matches!(&message, Message::Request { method, .. } if method == "tools/call");
                if !refused && call {
                    return Err(McpError::SessionLost { refused });
                }
                again?;
                Box::pin(self.once(message, mirrored, exchange)).await
            }
            other => other,
        };
        let other_era = match (&outcome, self.era) {
            (Err(McpError::WrongEra(_)), _) => true,
            (Err(McpError::Rpc(e)), Era::Modern) => e.code() == -32022,
            (Err(McpError::Rpc(e)), Era::Legacy) => {
                matches!(e.code(), -32020 | -32022) || (e.code() == -32602 && e.message().contains("protocolVersion"))
            }
            _ => false,
        };
        if other_era {
            self.retire();
        }
        outcome
    }

    /// The server speaks otherwise now: who needs it next connects anew.
    fn retire(&self) {
        if !self.stale.swap(true, Ordering::Relaxed) {
            self.events.ended();
        }
    }

    async fn once(
        self: &Arc<Self>,
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
        let late = || McpError::Timeout { method: method.clone(), seconds: exchange.limit.as_secs() };
        let clock = Arc::new(Clock::default());
        let (message, party, gives) = (&*message, exchange.party.clone(), exchange.gives.clone());
        // Its turn first: whoever waits for it has sent nothing, and suspects nobody.
        let mut in_flight = None;
        if let Some(party) = party.clone().filter(|_| self.era == Era::Legacy) {
            tokio::select! {
                entered = self.questions.enter(number, party, clock.clone()) => in_flight = Some(entered),
                () = exchange.cancel.cancelled() => return Err(McpError::Cancelled),
                () = tokio::time::sleep(exchange.limit) => return Err(late()),
            }
        }
        let work = async {
            match &self.link {
                Link::Stdio(stdio) => stdio.request(number, message, party).await,
                Link::Peer(peer) => peer.request(number, message, party, gives).await,
                Link::Http(http) => {
                    let (era, events, questions) = (self.era, &self.events, &self.questions);
                    http.request(Asking { message, era, mirrored, party, clock: &clock, events, questions }).await
                }
            }
        };
        let mut unanswered = Unanswered(Some((self, number)));
        tokio::select! {
            outcome = work => {
                unanswered.0 = None;
                if let Some(in_flight) = &mut in_flight {
                    in_flight.answered();
                }
                outcome
            }
            () = exchange.cancel.cancelled() => Err(McpError::Cancelled),
            () = clock.over(Instant::now(), exchange.limit) => {
                unanswered.0 = None;
                self.abandon(number, "time limit");
                // A server that is merely slow to start is not hung.
                if let Link::Stdio(stdio) = &self.link
                    && method != "server/discover"
                {
                    stdio.suspect(exchange.limit);
                }
                Err(late())
            }
        }
    }

    /// Tells the server that nobody waits any more. Over modern HTTP the closed stream said so.
    fn abandon(self: &Arc<Self>, number: u64, why: &str) {
        let mut params = Object::new();
        params.set("requestId", number);
        params.set("reason", why);
        let message = Message::Notification { method: "notifications/cancelled".into(), params };
        match &self.link {
            Link::Stdio(stdio) => {
                stdio.forget(number);
                stdio.notify(&message);
            }
            Link::Http(_) if self.era == Era::Legacy => {
                // Nobody waits for a server that may be hung; and nobody is told by a process
                // that ends.
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                let core = self.clone();
                runtime.spawn(async move {
                    if let Link::Http(http) = &core.link {
                        http.notify(&message).await;
                    }
                });
            }
            Link::Http(_) => {}
            Link::Peer(peer) => peer.abandon(number),
        }
    }

    /// Whether the server speaks the modern era.
    async fn discover(self: &Arc<Self>) -> Result<bool, McpError> {
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
                    let (era, party, mirrored) = (Era::Legacy, None, &[][..]);
                    let (message, clock, events, questions) = (&message, &clock, &self.events, &self.questions);
                    let asking = Asking { message, era, mirrored, party, clock, events, questions };
                    let result = http.request(asking).await?;
                    http.negotiated(result.get("protocolVersion").and_then(Json::as_str).unwrap_or(LEGACY));
                    http.notify(&initialized).await;
                    Ok(result)
                }
                Link::Peer(_) => Err(McpError::Protocol("a peer is not initialized".into())),
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
            "notifications/cancelled" => return self.questions.taken_back(&params),
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
            Link::Stdio(_) | Link::Peer(_) => None,
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
                self.retire();
            }
            return Err(e);
        }
        self.events.resumed();
        Ok(())
    }
}

/// A request without an answer. Whoever puts it down takes it back.
struct Unanswered<'a>(Option<(&'a Arc<Core>, u64)>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some((core, number)) = self.0.take() {
            core.abandon(number, "the caller went away");
        }
    }
}

/// A question without an answer. A peer's task waits for it: whoever puts it down has that
/// cancelled.
struct OpenQuestion<'a>(Option<(&'a Core, &'a Json)>);

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        if let Some((core, result)) = self.0.take()
            && let Link::Peer(peer) = &core.link
            && let Some(state) = result.get("requestState")
        {
            peer.let_go(state);
        }
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
