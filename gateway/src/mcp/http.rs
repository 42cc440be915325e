//! The door over streamable HTTP.

use super::dispatch::{Answer, Sink, dispatch};
use super::framework::Framework;
use super::session::{Session, Sessions};
use super::{Era, LEGACY_VERSIONS, View, asked_version, check_modern, initialize, unsupported};
use crate::auth;
use crate::compose::App;
use crate::guard::Guard;
use adapters::mcp::{MODERN, Message, RpcError};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, StatusCode};
use policies::json::{Json, Limits, Object};
use policies::resolve::Policy;
use std::sync::Arc;
use std::time::Duration;
use subagents::host::Host;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A request may have this many bytes.
pub(crate) const MAX_BODY: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Door {
    guard: Arc<Guard>,
    policy: Arc<Policy>,
    host: Arc<Host>,
    sessions: Arc<Sessions>,
}

impl Door {
    pub(crate) fn new(app: &App) -> Self {
        let policy = Arc::new(app.loaded.policy.clone());
        Self { guard: app.guard.clone(), policy, host: app.host.clone(), sessions: Arc::default() }
    }
    pub(crate) fn router(self) -> Router {
        let all = post(on_post).get(on_get).delete(on_delete);
        let agent = post(on_agent_post).get(on_agent_get).delete(on_agent_delete);
        Router::new().route("/mcp", all).route("/mcp/agents/{agent}", agent).with_state(self)
    }
    fn view(&self, headers: &HeaderMap, agent: Option<&str>) -> Result<View, Refused> {
        let policy = &*self.policy;
        let identity = auth::identify(policy, auth::bearer(headers)).map_err(|why| Refused {
            status: StatusCode::UNAUTHORIZED,
            id: Json::Null,
            error: RpcError::new(-32001, why),
        })?;
        let framework = Framework::new(self.host.clone(), self.policy.clone(), identity.client);
        View::new(self.guard.clone(), identity.caller(policy), policy, agent, framework)
            .map_err(|why| Refused::at(StatusCode::NOT_FOUND, -32601, why))
    }
}

/// A refusal before anything was dispatched.
struct Refused {
    status: StatusCode,
    id: Json,
    error: RpcError,
}

impl Refused {
    fn at(status: StatusCode, code: i64, why: impl Into<String>) -> Self {
        Self { status, id: Json::Null, error: RpcError::new(code, why) }
    }
    fn of(status: StatusCode, id: &Json, error: RpcError) -> Self {
        Self { status, id: id.clone(), error }
    }
    fn response(self) -> Response {
        let message = Message::Response { id: self.id, outcome: Err(self.error) };
        let mut response = json(self.status, &message);
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert("www-authenticate", http::HeaderValue::from_static("Bearer realm=\"pleach\""));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert("allow", http::HeaderValue::from_static("POST"));
        }
        response
    }
}

async fn on_post(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    answer(door, None, headers, body).await.unwrap_or_else(Refused::response)
}
async fn on_agent_post(
    State(door): State<Door>,
    Path(agent): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(door, Some(&agent), headers, body).await.unwrap_or_else(Refused::response)
}
async fn on_get(State(door): State<Door>, headers: HeaderMap) -> Response {
    watch(&door, None, &headers).unwrap_or_else(Refused::response)
}
async fn on_agent_get(State(door): State<Door>, Path(agent): Path<String>, headers: HeaderMap) -> Response {
    watch(&door, Some(&agent), &headers).unwrap_or_else(Refused::response)
}
async fn on_delete(State(door): State<Door>, headers: HeaderMap) -> Response {
    close(&door, None, &headers).unwrap_or_else(Refused::response)
}
async fn on_agent_delete(State(door): State<Door>, Path(agent): Path<String>, headers: HeaderMap) -> Response {
    close(&door, Some(&agent), &headers).unwrap_or_else(Refused::response)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

async fn answer(door: Door, agent: Option<&str>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let view = door.view(&headers, agent)?;
    if !text(&headers, "content-type").unwrap_or("").starts_with("application/json") {
        return Err(Refused::at(StatusCode::UNSUPPORTED_MEDIA_TYPE, -32600, "Content-Type must be application/json"));
    }
    let accept = text(&headers, "accept").unwrap_or("*/*");
    let both = accept.contains("application/json") && accept.contains("text/event-stream");
    if !both && !accept.contains("*/*") {
        let why = "Accept must name application/json and text/event-stream";
        return Err(Refused::at(StatusCode::NOT_ACCEPTABLE, -32600, why));
    }
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(_) => {
            let why = format!("the message is larger than {MAX_BODY} bytes, or its transfer broke");
            return Err(Refused::at(StatusCode::PAYLOAD_TOO_LARGE, -32600, why));
        }
    };
    let limits = Limits { bytes: MAX_BODY, ..Limits::default() };
    let message = Message::read(&body, limits).map_err(|e| Refused::of(StatusCode::BAD_REQUEST, &Json::Null, e))?;
    let claimed = text(&headers, "mcp-protocol-version");
    match message {
        Message::Request { id, method, params } => {
            let modern = asked_version(&params).is_some() || claimed == Some(MODERN);
            if modern && method != "initialize" {
                check_headers(&headers, &method, &params).map_err(|e| Refused::of(StatusCode::BAD_REQUEST, &id, e))?;
                return Ok(modern_request(view, id, method, params).await);
            }
            legacy_request(&door, view, agent, &headers, id, method, params).await
        }
        Message::Notification { method, params } => {
            let session =
                text(&headers, "mcp-session-id").and_then(|id| door.sessions.get(id, &view.caller.principal, agent));
            if method == "notifications/cancelled"
                && let (Some(session), Some(id)) = (session, params.get("requestId"))
            {
                session.cancel(&id.to_text());
            }
            Ok(empty(StatusCode::ACCEPTED))
        }
        // We ask clients nothing yet, so an answer answers nothing.
        Message::Response { .. } => Ok(empty(StatusCode::ACCEPTED)),
    }
}

/// The headers must say what the body says (SEP-2243), because intermediaries act on them.
fn check_headers(headers: &HeaderMap, method: &str, params: &Object) -> Result<(), RpcError> {
    let mismatch = |what: String| RpcError::new(-32020, format!("Header mismatch: {what}"));
    match (text(headers, "mcp-protocol-version"), asked_version(params)) {
        (Some(header), Some(body)) if header != body => {
            return Err(mismatch(format!("MCP-Protocol-Version is {header}, the body says {body}")));
        }
        (Some(header), None) if header != MODERN => return Err(unsupported(header)),
        (None, Some(_)) => return Err(mismatch("MCP-Protocol-Version is missing".into())),
        _ => {}
    }
    check_modern(params)?;
    match text(headers, "mcp-method") {
        Some(header) if header == method => {}
        Some(header) => return Err(mismatch(format!("Mcp-Method is {header}, the body says {method}"))),
        None => return Err(mismatch("Mcp-Method is missing".into())),
    }
    if method == "tools/call" {
        let name = params.get("name").and_then(Json::as_str).unwrap_or("");
        let header = text(headers, "mcp-name").ok_or_else(|| mismatch("Mcp-Name is missing".into()))?;
        if header != name {
            return Err(mismatch(format!("Mcp-Name is {header}, the body says {name}")));
        }
    }
    Ok(())
}

async fn modern_request(view: View, id: Json, method: String, params: Object) -> Response {
    let cancel = CancellationToken::new();
    if method == "subscriptions/listen" {
        return listen(view, id, &params);
    }
    // The closed stream is the cancellation: whoever drops the response drops the guard.
    respond(view, Era::Modern, id, method, params, cancel.clone(), Some(cancel.drop_guard()), || {}).await
}

async fn legacy_request(
    door: &Door,
    view: View,
    agent: Option<&str>,
    headers: &HeaderMap,
    id: Json,
    method: String,
    params: Object,
) -> Result<Response, Refused> {
    if method == "initialize" {
        let session = door.sessions.open(&view.caller.principal, agent);
        let mut response = json(StatusCode::OK, &Message::Response { id, outcome: Ok(initialize(&params)) });
        if let Ok(value) = session.parse() {
            response.headers_mut().insert("mcp-session-id", value);
        }
        return Ok(response);
    }
    if let Some(version) = text(headers, "mcp-protocol-version")
        && !LEGACY_VERSIONS.contains(&version)
    {
        return Err(Refused::of(StatusCode::BAD_REQUEST, &id, unsupported(version)));
    }
    let session = session_of(door, &view, agent, headers).map_err(|mut refused| {
        refused.id = id.clone();
        refused
    })?;
    let key = id.to_text();
    let cancel = session.begin(&key);
    Ok(respond(view, Era::Legacy, id, method, params, cancel, None, move || session.finish(&key)).await)
}

fn session_of(door: &Door, view: &View, agent: Option<&str>, headers: &HeaderMap) -> Result<Arc<Session>, Refused> {
    let Some(id) = text(headers, "mcp-session-id") else {
        let why = "Mcp-Session-Id is missing; call initialize first, or speak 2026-07-28";
        return Err(Refused::at(StatusCode::BAD_REQUEST, -32600, why));
    };
    let session = door.sessions.get(id, &view.caller.principal, agent);
    session.ok_or_else(|| Refused::at(StatusCode::NOT_FOUND, -32001, "Session not found; call initialize again"))
}

/// Answers as JSON, or as a stream when the caller wants to hear of progress.
#[allow(clippy::too_many_arguments)]
async fn respond(
    view: View,
    era: Era,
    id: Json,
    method: String,
    params: Object,
    cancel: CancellationToken,
    guard: Option<tokio_util::sync::DropGuard>,
    done: impl FnOnce() + Send + 'static,
) -> Response {
    let streaming = params.get("_meta").is_some_and(|m| m.get(adapters::mcp::meta::PROGRESS_TOKEN).is_some());
    let (sender, mut receiver) = mpsc::channel::<Message>(64);
    let notify = sender.clone();
    // Progress is a courtesy: a client that reads too slowly misses some, the server never waits.
    let sink: Sink = Arc::new(move |message| drop(notify.try_send(message)));
    let tasks = view.guard.servers.tasks.clone();
    // A task of its own: a legacy client that goes away does not end what it began.
    tasks.spawn(async move {
        let answer = dispatch(&view, era, &method, params, sink, cancel).await;
        done();
        if let Answer::Now(outcome) = answer {
            let _ = sender.send(Message::Response { id, outcome }).await;
        }
    });
    if streaming {
        let stream = futures_util::stream::unfold((receiver, guard), |(mut receiver, guard)| async {
            let message = receiver.recv().await?;
            Some((event(&message), (receiver, guard)))
        });
        return sse(stream);
    }
    while let Some(message) = receiver.recv().await {
        if let Message::Response { outcome, .. } = &message {
            drop(guard);
            let missing = era == Era::Modern && matches!(outcome, Err(e) if e.code == -32601);
            return json(if missing { StatusCode::NOT_FOUND } else { StatusCode::OK }, &message);
        }
    }
    empty(StatusCode::ACCEPTED)
}

/// `subscriptions/listen`: a stream of what was asked for, as far as we have it.
fn listen(view: View, id: Json, params: &Object) -> Response {
    let wanted = params.get("notifications").and_then(|n| n.get("toolsListChanged")).and_then(Json::as_bool);
    let tools = wanted.unwrap_or(false);
    let tag = Json::object([("io.modelcontextprotocol/subscriptionId", id)]);
    let mut accepted = Object::new();
    if tools {
        accepted.set("toolsListChanged", true);
    }
    let mut params = Object::new();
    params.set("notifications", accepted);
    params.set("_meta", tag.clone());
    let first = Message::Notification { method: "notifications/subscriptions/acknowledged".into(), params };
    let changes = changes(view, tools).map(move |mut message| {
        if let Message::Notification { params, .. } = &mut message {
            params.set("_meta", tag.clone());
        }
        event(&message)
    });
    let first = event(&first);
    sse(futures_util::stream::once(async move { first }).chain(changes))
}

/// The GET stream of a legacy session.
fn watch(door: &Door, agent: Option<&str>, headers: &HeaderMap) -> Result<Response, Refused> {
    let view = door.view(headers, agent)?;
    if text(headers, "mcp-protocol-version") == Some(MODERN)
        || !text(headers, "accept").unwrap_or("").contains("text/event-stream")
    {
        return Err(Refused::at(
            StatusCode::METHOD_NOT_ALLOWED,
            -32600,
            "GET is the stream of a session with initialize",
        ));
    }
    let session = session_of(door, &view, agent, headers)?;
    let end = session.end.clone();
    Ok(sse(changes(view, true).map(|m| event(&m)).take_until(async move { end.cancelled().await })))
}

/// `notifications/tools/list_changed`, whenever what *this* view shows changed.
fn changes(view: View, tools: bool) -> impl Stream<Item = Message> + Send + 'static {
    let version = view.guard.servers.manifests.version();
    let seen = fingerprint(&view);
    let stop = view.guard.servers.stop.clone();
    let stream = futures_util::stream::unfold((view, version, seen), move |(view, mut version, mut seen)| async move {
        loop {
            version.changed().await.ok()?;
            // A storm of changes is one change.
            tokio::time::sleep(Duration::from_millis(50)).await;
            version.mark_unchanged();
            let now = fingerprint(&view);
            if tools && now != seen {
                seen = now;
                let method = "notifications/tools/list_changed".to_owned();
                let message = Message::Notification { method, params: Object::new() };
                return Some((message, (view, version, seen)));
            }
        }
    });
    stream.take_until(async move { stop.cancelled().await })
}

fn fingerprint(view: &View) -> Vec<(String, String)> {
    view.guard.visible(&view.caller).iter().map(|t| (t.name.clone(), t.hash.clone())).collect()
}

fn close(door: &Door, agent: Option<&str>, headers: &HeaderMap) -> Result<Response, Refused> {
    let view = door.view(headers, agent)?;
    if text(headers, "mcp-protocol-version") == Some(MODERN) {
        return Err(Refused::at(StatusCode::METHOD_NOT_ALLOWED, -32600, "there are no sessions in 2026-07-28"));
    }
    session_of(door, &view, agent, headers)?;
    door.sessions.close(text(headers, "mcp-session-id").unwrap_or_default());
    Ok(empty(StatusCode::OK))
}

fn event(message: &Message) -> Bytes {
    Bytes::from(format!("event: message\ndata: {}\n\n", message.to_json().to_text()))
}

fn sse(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let beats = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(KEEP_ALIVE).await;
        Some((Bytes::from_static(b": still here\n\n"), ()))
    });
    // The stream ends with its events; the beats only fill the silence.
    let ended = futures_util::stream::once(async { Bytes::new() });
    let stream = futures_util::stream::select(events.chain(ended), beats);
    let stream = stream.take_while(|b| std::future::ready(!b.is_empty())).map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    headers.insert("cache-control", http::HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    response
}

fn json(status: StatusCode, message: &Message) -> Response {
    let mut response = Response::new(Body::from(message.to_json().to_text()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
