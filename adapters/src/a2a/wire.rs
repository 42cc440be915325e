//! One interface of a peer: operations as its binding and generation write them, answers in the
//! words of 1.0. Nothing is read into types here: what a peer says is passed on as it said it.

use super::card::{AUTHORITY, Binding, Card, Interface};
use super::{MAX_BODY, PeerTarget, v0_3};
use crate::hidden;
use crate::mcp::{Gives, McpError, Message, RpcError};
use crate::net::{bounded, reasons};
use crate::sse;
use crate::token::Says;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use policies::json::{Json, Limits, Object, digest};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// A stream that tells nothing for so long, not even that it is still there, is none any more.
const SILENT: Duration = Duration::from_secs(90);

/// So long a grant may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(120);
/// What a peer says of a grant it refuses is told this far.
const REFUSAL: usize = 16 << 10;

/// What is asked of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Send,
    Stream,
    Get,
    Cancel,
    Subscribe,
}

/// What is said to a peer.
#[derive(Default)]
pub(super) struct Saying {
    /// The message, in the words of 1.0.
    pub(super) message: Object,
    /// How it is to be answered.
    pub(super) configuration: Object,
    /// The task and the conversation it belongs to.
    pub(super) task: Option<String>,
    pub(super) context: Option<String>,
    /// What is given along.
    pub(super) gives: Option<Arc<Gives>>,
}

/// What a grant is bound to: a message by its name and its content, read as whoever gets it reads it,
/// and what comes along with it to call back with.
pub fn bound(params: &serde_json::Value) -> String {
    let message = &params["message"];
    let id = message.get("messageId").and_then(serde_json::Value::as_str).unwrap_or_default();
    let content = |value: &serde_json::Value| digest(&Json::from(value).to_canonical());
    match along(params) {
        Some(along) => format!("{id} {} {}", content(message), content(along)),
        None => format!("{id} {}", content(message)),
    }
}

/// What is beside a message in the words of the extension.
pub fn along(params: &serde_json::Value) -> Option<&serde_json::Value> {
    params.get("metadata").and_then(|metadata| metadata.get(AUTHORITY)).filter(|along| !along.is_null())
}

impl Saying {
    /// Its parameters.
    fn params(&self, configuration: Object) -> Object {
        let mut params = Object::new();
        params.set("message", self.message.clone());
        if !configuration.is_empty() {
            params.set("configuration", configuration);
        }
        if let Some(callback) = self.gives.as_ref().and_then(|gives| gives.callback.as_ref()) {
            params.set("metadata", Json::object([(AUTHORITY, callback.to_json())]));
        }
        params
    }
}

/// How a peer answered.
pub(super) enum Answer {
    /// At once.
    Whole(Json),
    /// Bit by bit.
    Updates(Updates),
}

/// An interface and how it is reached, for one call.
#[derive(Clone)]
pub(super) struct Wire {
    target: Arc<PeerTarget>,
    interface: Interface,
    takes_grants: bool,
    /// Bytes of all its streams so far.
    size: Arc<AtomicUsize>,
    /// A message found nobody at the address.
    nobody: Arc<AtomicBool>,
}

impl Wire {
    pub(super) fn new(target: Arc<PeerTarget>, card: &Card) -> Self {
        let (interface, takes_grants) = (card.interface().clone(), card.takes_grants);
        Self { target, interface, takes_grants, size: Arc::default(), nobody: Arc::default() }
    }
    /// Whether a message found nobody at the address, so that nothing was done with it.
    pub(super) fn found_nobody(&self) -> bool {
        self.nobody.load(Ordering::Relaxed)
    }
    /// Whether a message that is sent again is the same one over there.
    pub(super) fn knows_again(&self) -> bool {
        self.takes_grants && self.target.granter.is_some()
    }
    /// So long whoever looks after a task waits for one answer.
    pub(super) fn patience(&self) -> Duration {
        self.target.patience
    }
    pub(super) fn is_at(&self, interface: &Interface) -> bool {
        self.interface == *interface
    }
    pub(super) fn is_where(&self, other: &Wire) -> bool {
        self.interface == other.interface
    }
    /// For people: never the whole address, which may hold a key.
    pub(super) fn origin(&self) -> String {
        self.interface.url.origin().ascii_serialization()
    }

    /// Sends a message; `at_once`: an answer is wanted before the task ends.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn send(&self, saying: &Saying, at_once: bool) -> Result<Json, McpError> {
        let mut configuration = saying.configuration.clone();
        configuration.set("returnImmediately", at_once);
        let answer = self.whole(Op::Send, saying.params(configuration), Some(saying)).await?;
        Ok(if self.is_old() { v0_3::update(answer) } else { answer })
    }
    /// Sends a message and hears what comes of it.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn stream(&self, saying: &Saying) -> Result<Answer, McpError> {
        self.open(Op::Stream, saying.params(saying.configuration.clone()), Some(saying)).await
    }
    /// Hears what becomes of a task from now on; what it is now comes first.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn subscribe(&self, task: &str) -> Result<Answer, McpError> {
        self.open(Op::Subscribe, named(task), None).await
    }
    /// A task as it is now.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn get(&self, task: &str, history: Option<u64>) -> Result<Json, McpError> {
        let mut params = named(task);
        if let Some(history) = history {
            params.set("historyLength", history);
        }
        let answer = self.whole(Op::Get, params, None).await?;
        Ok(self.task(answer))
    }
    /// Cancels a task, and says how it is then.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn cancel(&self, task: &str) -> Result<Json, McpError> {
        let answer = self.whole(Op::Cancel, named(task), None).await?;
        Ok(self.task(answer))
    }
    fn task(&self, answer: Json) -> Json {
        Json::object([("task", if self.is_old() { v0_3::task(answer) } else { answer })])
    }

    fn is_old(&self) -> bool {
        self.interface.binding == Binding::OldRpc
    }

    async fn whole(&self, op: Op, params: Object, saying: Option<&Saying>) -> Result<Json, McpError> {
        let response = self.ask(op, params, saying).await?;
        self.read(response).await
    }
    async fn open(&self, op: Op, params: Object, saying: Option<&Saying>) -> Result<Answer, McpError> {
        let response = self.ask(op, params, saying).await?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        if response.status().is_success() && kind.starts_with("text/event-stream") {
            let (bytes, events, heard) = (response.bytes_stream().boxed(), sse::Events::default(), VecDeque::new());
            let (binding, size) = (self.interface.binding, self.size.clone());
            return Ok(Answer::Updates(Updates { bytes, events, heard, binding, size }));
        }
        let answer = self.read(response).await?;
        Ok(Answer::Whole(if self.is_old() { v0_3::update(answer) } else { answer }))
    }

    /// The grant that goes along: what the sender gives with a message, and with a question about a
    /// task one of nothing at all, which says who we are and what is asked.
    fn grant(&self, saying: Option<&Saying>, params: &Object, about: String) -> Result<Option<String>, McpError> {
        let Some(granter) = &self.target.granter else { return Ok(None) };
        let refused = |why: String| McpError::Unauthorized(format!("{}: {why}", self.origin()));
        if !self.takes_grants {
            let why = "its card does not say that it takes grants; delegate = true in [peers] is for a Pleach \
                       that has a client with our grant_key";
            return Err(refused(why.into()));
        }
        if self.is_old() {
            return Err(refused("its card names no interface of A2A 1.0, and grants go with that".into()));
        }
        let audience = self.interface.url.as_str().trim_end_matches('/');
        let message;
        let said = match saying {
            Some(saying) => {
                let gives = saying.gives.as_ref();
                let gives = gives.ok_or_else(|| refused("nobody gave a grant for this message".into()))?;
                message = bound(&Json::Object(params.clone()).to_serde());
                let (grant, chain) = (gives.grant.as_str(), gives.chain.as_str());
                Says { grant, chain, audience, message: Some(&message), ..Says::default() }
            }
            None => {
                message = about;
                let grant = policies::claims::NOTHING;
                Says { grant, audience, message: Some(&message), ..Says::default() }
            }
        };
        granter.mint(&said, SystemTime::now() + ON_ITS_WAY).map(Some).map_err(|e| refused(e.to_string()))
    }

    async fn ask(&self, op: Op, mut params: Object, saying: Option<&Saying>) -> Result<reqwest::Response, McpError> {
        let task = params.get("id").and_then(Json::as_str).unwrap_or_default();
        let grant = self.grant(saying, &params, format!("{} {task}", op.name()))?;
        let client = &self.target.client;
        let kind = if op == Op::Stream || op == Op::Subscribe { "text/event-stream" } else { "application/json" };
        let mut request = match self.interface.binding {
            Binding::Http => {
                let mut url = self.path(op, &params)?;
                if let (Op::Get, Some(history)) = (op, params.get("historyLength")) {
                    url.query_pairs_mut().append_pair("historyLength", &history.to_text());
                }
                match op {
                    Op::Get => client.get(url),
                    Op::Cancel | Op::Subscribe => client.post(url).body("{}"),
                    Op::Send | Op::Stream => client.post(url).body(Json::Object(params).to_text()),
                }
                .header("content-type", "application/a2a+json")
            }
            binding => {
                let old = binding == Binding::OldRpc;
                if old {
                    v0_3::params(&mut params);
                } else if let Some(tenant) = &self.interface.tenant {
                    params.set("tenant", tenant.as_str());
                }
                let method = if old { v0_3::method(op.name()) } else { op.name() }.to_owned();
                let message = Message::Request { id: 1_u64.into(), method, params };
                client
                    .post(self.interface.url.clone())
                    .header("content-type", "application/json")
                    .body(message.to_text())
            }
        };
        for (name, value) in &self.target.headers {
            request = request.header(name, value.expose());
        }
        if let Some(grant) = &grant {
            request = request.bearer_auth(grant).header("a2a-extensions", AUTHORITY);
        }
        request = request.header("a2a-version", if self.is_old() { "0.3" } else { "1.0" }).header("accept", kind);
        let response = request.send().await.map_err(|error| {
            // What was never connected cannot have received anything.
            let unsent = error.is_connect() || error.is_builder();
            let why = format!("{}: {}", self.origin(), reasons(&error.without_url()));
            if unsent { McpError::Unreachable(why) } else { McpError::Broken(why) }
        })?;
        let status = response.status();
        if matches!(status.as_u16(), 404 | 410) && op != Op::Cancel && op != Op::Get && op != Op::Subscribe {
            self.nobody.store(true, Ordering::Relaxed);
        }
        match status.as_u16() {
            // What it refuses of a grant that it believes is an answer, in its own words.
            403 if grant.is_some() => Err(McpError::Rpc(RpcError::new(-32603, self.refused(response).await))),
            401 if grant.is_some() => {
                let why = self.refused(response).await;
                let hint = "grant_key of its client for us must be what `pleach token key` prints here";
                Err(McpError::Unauthorized(format!("{why}; {hint}")))
            }
            401 | 403 => Err(McpError::Unauthorized(format!(
                "{} answers HTTP {status}: it asks who we are, or refuses who we say; see headers in its [peers] table",
                self.origin()
            ))),
            300..=399 => Err(McpError::Protocol(format!("HTTP {status}: a redirect is not followed"))),
            _ => Ok(response),
        }
    }

    /// Why a grant was refused, in the peer's words.
    async fn refused(&self, response: reqwest::Response) -> String {
        let status = response.status();
        let body = bounded(response, REFUSAL).await.unwrap_or_default();
        let said = Json::parse(&body, limits()).ok();
        let said = said.as_ref().and_then(|said| said.pointer("/error/message")).and_then(Json::as_str).unwrap_or("");
        let said: String = hidden::in_text(said).chars().take(400).collect();
        format!("{} answers HTTP {status}: {said}", self.origin())
    }

    /// Where the other binding has an operation.
    fn path(&self, op: Op, params: &Object) -> Result<url::Url, McpError> {
        let mut url = self.interface.url.clone();
        let id = params.get("id").and_then(Json::as_str).unwrap_or_default();
        {
            let no_path = || McpError::Protocol("its address cannot have a path".into());
            let mut path = url.path_segments_mut().map_err(|()| no_path())?;
            path.pop_if_empty();
            path.extend(self.interface.tenant.as_deref());
            match op {
                Op::Send => path.push("message:send"),
                Op::Stream => path.push("message:stream"),
                Op::Get => path.push("tasks").push(id),
                Op::Cancel => path.push("tasks").push(&format!("{id}:cancel")),
                Op::Subscribe => path.push("tasks").push(&format!("{id}:subscribe")),
            };
        }
        Ok(url)
    }

    async fn read(&self, response: reqwest::Response) -> Result<Json, McpError> {
        let status = response.status();
        let body =
            bounded(response, MAX_BODY).await.map_err(|why| McpError::Gone(format!("; its answer broke: {why}")))?;
        let unreadable = |why: String| McpError::Protocol(format!("HTTP {status}: its answer is unacceptable: {why}"));
        let json = match Json::parse(&body, limits()) {
            Ok(mut json) => {
                hidden::in_json(&mut json);
                json
            }
            // Whoever stands before it is out of order; what it did is not known.
            Err(_) if status.is_server_error() => return Err(McpError::Gone(format!("; it answers HTTP {status}"))),
            Err(_) if !status.is_success() => {
                let text = String::from_utf8_lossy(&body);
                let excerpt: String = hidden::in_text(&text).chars().take(200).collect();
                return Err(McpError::Protocol(format!("HTTP {status}: {excerpt}")));
            }
            Err(e) => return Err(unreadable(e.to_string())),
        };
        heard(self.interface.binding, json, status.is_success()).map_err(|e| match e {
            McpError::Protocol(why) => unreadable(why),
            other => other,
        })
    }
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Send => "SendMessage",
            Op::Stream => "SendStreamingMessage",
            Op::Get => "GetTask",
            Op::Cancel => "CancelTask",
            Op::Subscribe => "SubscribeToTask",
        }
    }
}

fn named(task: &str) -> Object {
    let mut params = Object::new();
    params.set("id", task);
    params
}

fn limits() -> Limits {
    Limits { bytes: MAX_BODY, ..Limits::default() }
}

/// What an answer or an event says, out of its envelope.
fn heard(binding: Binding, json: Json, good: bool) -> Result<Json, McpError> {
    if binding != Binding::Http {
        return match Message::from_json(json) {
            Ok(Message::Response { outcome, .. }) => outcome.map_err(McpError::Rpc),
            Ok(_) => Err(McpError::Protocol("no JSON-RPC response".into())),
            Err(e) => Err(McpError::Protocol(e.to_string())),
        };
    }
    match json.get("error") {
        Some(error) => {
            let text = |key: &str| error.get(key).and_then(Json::as_str);
            let details = error.get("details").and_then(Json::as_array).unwrap_or_default();
            let reason = details.iter().find_map(|detail| detail.get("reason").and_then(Json::as_str));
            let code = match (reason, error.get("code").and_then(Json::as_u64)) {
                (Some("TASK_NOT_FOUND"), _) => NO_TASK,
                (Some("TASK_NOT_CANCELABLE"), _) => NOT_CANCELABLE,
                (Some("UNSUPPORTED_OPERATION"), _) => UNSUPPORTED,
                (Some("CONTENT_TYPE_NOT_SUPPORTED"), _) => CONTENT_TYPE,
                (None, Some(400)) => -32602,
                _ => -32603,
            };
            let message = text("message").or(text("status")).unwrap_or("an error without a message");
            Err(McpError::Rpc(RpcError::new(code, message)))
        }
        None if good => Ok(json),
        None => Err(McpError::Rpc(RpcError::new(-32603, "an error without a message"))),
    }
}

/// Errors of A2A (1.0.1, section 5.4).
pub(super) const NO_TASK: i64 = -32001;
const NOT_CANCELABLE: i64 = -32002;
pub(super) const UNSUPPORTED: i64 = -32004;
const CONTENT_TYPE: i64 = -32005;

/// What a peer tells bit by bit.
pub(super) struct Updates {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    events: sse::Events,
    heard: VecDeque<Json>,
    binding: Binding,
    size: Arc<AtomicUsize>,
}

/// Why a stream tells no more.
pub(super) enum Silence {
    /// It ended or broke; the task may go on.
    Broke(String),
    /// The peer said no, or something nobody can read.
    Refused(McpError),
}

impl Updates {
    /// The next update.
    ///
    /// # Errors
    /// See [`Silence`].
    pub(super) async fn next(&mut self) -> Result<Json, Silence> {
        loop {
            if let Some(json) = self.heard.pop_front() {
                let update = heard(self.binding, json, true).map_err(Silence::Refused)?;
                return Ok(if self.binding == Binding::OldRpc { v0_3::update(update) } else { update });
            }
            let Ok(chunk) = tokio::time::timeout(SILENT, self.bytes.next()).await else {
                return Err(Silence::Broke(format!("its stream tells nothing for {} s", SILENT.as_secs())));
            };
            let chunk = match chunk {
                None => return Err(Silence::Broke("its stream ended".into())),
                Some(Err(e)) => return Err(Silence::Broke(format!("its stream broke: {}", reasons(&e.without_url())))),
                Some(Ok(chunk)) => chunk,
            };
            let size = self.size.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
            let refused = |why: String| Silence::Refused(McpError::Protocol(why));
            if size > 4 * MAX_BODY {
                return Err(refused(format!("it says more than {} bytes", 4 * MAX_BODY)));
            }
            for event in self.events.feed(&chunk, MAX_BODY).map_err(refused)? {
                if !event.data.is_empty() {
                    let json = Json::parse(&event.data, limits());
                    let mut json = json.map_err(|e| refused(format!("an event is unacceptable: {e}")))?;
                    hidden::in_json(&mut json);
                    self.heard.push_back(json);
                }
            }
        }
    }
}
