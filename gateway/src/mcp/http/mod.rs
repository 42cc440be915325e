//! The door over streamable HTTP.

mod answering;
mod legacy;

use super::framework::Framework;
use super::session::Sessions;
use super::{Shared, View, asked_version, changes, check_modern, check_present};
use crate::auth::{self, Doorman};
use crate::compose::App;
use crate::guard::{Guard, MCP};
use adapters::mcp::headers::{decode, name_of};
use adapters::mcp::{MODERN, Message, RpcError, meta};
use answering::{Answering, First};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, StatusCode};
use policies::json::{Json, Limits, Object};
use policies::names::Name;
use policies::resolve::Policy;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A request may have this many bytes.
pub(crate) const MAX_BODY: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// So long a request may be silent before its client hears that it is being served.
const STREAM_AFTER: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Door {
    guard: Arc<Guard>,
    doorman: Arc<Doorman>,
    sessions: Arc<Sessions>,
    shared: Shared,
    /// Views made so far, by client and agent.
    views: Arc<Views>,
}

/// By principal and agent, under one policy.
#[derive(Default)]
struct Views(Mutex<(Weak<Policy>, Known)>);

/// By principal and agent.
type Known = HashMap<(String, Option<String>), View>;

impl Door {
    pub(crate) fn new(app: &App, listens: SocketAddr) -> Self {
        let servers = &app.guard.servers;
        let doorman = Doorman::new(app.live.clone(), listens, (servers.tasks.clone(), servers.stop.clone()));
        let doorman = Arc::new(doorman);
        let shared = app.shared.clone();
        Self { guard: app.guard.clone(), doorman, sessions: Arc::default(), shared, views: Arc::default() }
    }
    /// Who knows the clients, for the doors beside this one.
    pub(crate) fn doorman(&self) -> Arc<Doorman> {
        self.doorman.clone()
    }
    pub(crate) fn router(self) -> Router {
        let all = post(on_post).get(on_get).delete(on_delete);
        let agent = post(on_agent_post).get(on_agent_get).delete(on_agent_delete);
        let metadata = auth::METADATA;
        Router::new()
            .route("/mcp", all)
            .route("/mcp/agents/{agent}", agent)
            .route(metadata, get(metadata_of_root))
            .route(&format!("{metadata}/{{*path}}"), get(metadata_of))
            .with_state(Arc::new(self))
    }
    async fn view(&self, headers: &HeaderMap, agent: Option<&str>) -> Result<View, Refused> {
        let identity = self.doorman.identify(auth::bearer(headers), MCP).await.map_err(|stranger| Refused {
            status: stranger.status(),
            id: Json::Null,
            error: RpcError::new(-32001, stranger.message()),
            challenge: self.doorman.challenge(&stranger, agent),
        })?;
        if agent.is_some() && identity.goes_with().is_some() {
            let why = "the grant is refused: what calls back is good at /mcp and nowhere else";
            return Err(Refused::at(StatusCode::UNAUTHORIZED, -32001, why));
        }
        if identity.carried.is_some() {
            return View::new((self.guard.clone(), &self.shared), &identity, agent)
                .map_err(|why| Refused::at(StatusCode::NOT_FOUND, -32601, why));
        }
        // While the policy stands, so does what a client sees.
        let mut known = self.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, views) = &mut *known;
        if of.as_ptr() != Arc::as_ptr(&identity.policy) {
            *of = Arc::downgrade(&identity.policy);
            views.clear();
        }
        let key = (identity.principal().to_owned(), agent.map(str::to_owned));
        if let Some(view) = views.get(&key) {
            return Ok(view.clone());
        }
        let view = View::new((self.guard.clone(), &self.shared), &identity, agent)
            .map_err(|why| Refused::at(StatusCode::NOT_FOUND, -32601, why))?;
        views.insert(key, view.clone());
        Ok(view)
    }
}

/// A refusal before anything was dispatched.
struct Refused {
    status: StatusCode,
    id: Json,
    error: RpcError,
    /// What a stranger has to show.
    challenge: Option<String>,
}

impl Refused {
    fn at(status: StatusCode, code: i64, why: impl Into<String>) -> Self {
        Self { status, id: Json::Null, error: RpcError::new(code, why), challenge: None }
    }
    fn of(status: StatusCode, id: &Json, error: RpcError) -> Self {
        Self { status, id: id.clone(), error, challenge: None }
    }
    fn response(self) -> Response {
        let message = Message::Response { id: self.id, outcome: Err(self.error) };
        let mut response = json(self.status, &message);
        if let Some(challenge) = self.challenge.and_then(|c| http::HeaderValue::try_from(c).ok()) {
            response.headers_mut().insert("www-authenticate", challenge);
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert("allow", http::HeaderValue::from_static("POST"));
        }
        response
    }
}

/// What the handlers share, a handle each.
type Here = State<Arc<Door>>;

async fn on_post(State(door): Here, request: Request) -> Response {
    answer(&door, None, request).await.unwrap_or_else(Refused::response)
}
async fn on_agent_post(State(door): Here, Path(agent): Path<String>, request: Request) -> Response {
    answer(&door, Some(&agent), request).await.unwrap_or_else(Refused::response)
}
async fn on_get(State(door): Here, headers: HeaderMap) -> Response {
    legacy::watch(&door, None, &headers).await.unwrap_or_else(Refused::response)
}
async fn on_agent_get(State(door): Here, Path(agent): Path<String>, headers: HeaderMap) -> Response {
    legacy::watch(&door, Some(&agent), &headers).await.unwrap_or_else(Refused::response)
}
async fn on_delete(State(door): Here, headers: HeaderMap) -> Response {
    legacy::close(&door, None, &headers).await.unwrap_or_else(Refused::response)
}
async fn on_agent_delete(State(door): Here, Path(agent): Path<String>, headers: HeaderMap) -> Response {
    legacy::close(&door, Some(&agent), &headers).await.unwrap_or_else(Refused::response)
}

/// Where tokens can be had (RFC 9728): asked before anybody has one.
async fn metadata_of_root(State(door): Here) -> Response {
    metadata(&door, "")
}
async fn metadata_of(State(door): Here, Path(path): Path<String>) -> Response {
    let agent = path.strip_prefix("mcp/agents/").is_some_and(|name| Name::try_from(name).is_ok());
    match agent || path == "mcp" {
        true => metadata(&door, &format!("/{path}")),
        false => empty(StatusCode::NOT_FOUND),
    }
}
fn metadata(door: &Door, path: &str) -> Response {
    let Some(metadata) = door.doorman.metadata(path) else { return empty(StatusCode::NOT_FOUND) };
    let mut response = Response::new(Body::from(metadata.to_text()));
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    headers.insert("cache-control", http::HeaderValue::from_static("max-age=300"));
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

async fn answer(door: &Door, agent: Option<&str>, request: Request) -> Result<Response, Refused> {
    let (http::request::Parts { headers, .. }, body) = request.into_parts();
    let view = door.view(&headers, agent).await?;
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
    let bad = |e| Refused::of(StatusCode::BAD_REQUEST, &Json::Null, e);
    let limits = Limits { bytes: MAX_BODY, ..Limits::default() };
    let json = Json::parse(&body, limits).map_err(|e| bad(RpcError::new(-32700, format!("Parse error: {e}"))))?;
    let claimed = text(&headers, "mcp-protocol-version");
    if let Json::Array(items) = json {
        drop(body);
        return Box::pin(legacy::batch(door, view, &headers, items)).await;
    }
    match Message::from_json(json).map_err(bad)? {
        Message::Request { id, method, params } => {
            let modern = asked_version(&params).is_some() || claimed == Some(MODERN);
            if modern {
                check_headers(&headers, &method, &params).map_err(|e| Refused::of(StatusCode::BAD_REQUEST, &id, e))?;
                check_mirrored(&view, &headers, &method, &params)
                    .await
                    .map_err(|e| Refused::of(StatusCode::BAD_REQUEST, &id, e))?;
                return Ok(modern_request(view, id, (method, params), body).await);
            }
            drop(body);
            Box::pin(legacy::request(door, view, &headers, id, method, params)).await
        }
        other => legacy::other(door, &view, &headers, other),
    }
}

/// The headers must say what the body says (SEP-2243), because intermediaries act on them.
fn check_headers(headers: &HeaderMap, method: &str, params: &Object) -> Result<(), RpcError> {
    let version = single(headers, "mcp-protocol-version")?;
    let version = version.ok_or_else(|| mismatch("MCP-Protocol-Version is missing".into()))?;
    check_present(params)?;
    let said = asked_version(params).unwrap_or("");
    if version != said {
        return Err(mismatch(format!("MCP-Protocol-Version is {version}, the body says {said}")));
    }
    check_modern(params)?;
    match single(headers, "mcp-method")? {
        Some(header) if header == method => {}
        Some(header) => return Err(mismatch(format!("Mcp-Method is {header}, the body says {method}"))),
        None => return Err(mismatch("Mcp-Method is missing".into())),
    }
    let Some(name) = name_of(method, params) else { return Ok(()) };
    let header = single(headers, "mcp-name")?.ok_or_else(|| mismatch("Mcp-Name is missing".into()))?;
    match decode(header) {
        Some(said) if said == name => Ok(()),
        Some(said) => Err(mismatch(format!("Mcp-Name is {said}, the body says {name}"))),
        None => Err(mismatch("Mcp-Name is not valid base64".into())),
    }
}

/// The same for the arguments a tool wants mirrored.
async fn check_mirrored(view: &View, headers: &HeaderMap, method: &str, params: &Object) -> Result<(), RpcError> {
    let Some(name) = params.get("name").and_then(Json::as_str).filter(|_| method == "tools/call") else {
        return Ok(());
    };
    // Pleach's own tools mirror nothing, and no server is started to find that out.
    if view.framework.is_some() && Framework::has(name) {
        return Ok(());
    }
    let Some(tool) = view.guard.find(&view.caller, name).await else { return Ok(()) };
    let empty = Json::Object(Object::new());
    let arguments = params.get("arguments").unwrap_or(&empty);
    for param in &tool.headers {
        let shown = format!("Mcp-Param-{}", param.header);
        let body = param.value(arguments);
        let header = match single(headers, &shown.to_ascii_lowercase())? {
            Some(raw) => Some(decode(raw).ok_or_else(|| mismatch(format!("{shown} is not valid base64")))?),
            None => None,
        };
        match (header, body) {
            (None, None) => {}
            (Some(header), Some(body)) if header == body || same_number(&header, &body) => {}
            (Some(header), Some(body)) => {
                return Err(mismatch(format!("{shown} is {header}, the body says {body}")));
            }
            (None, Some(_)) => return Err(mismatch(format!("{shown} is missing"))),
            (Some(_), None) => return Err(mismatch(format!("{shown} is there, the argument is not"))),
        }
    }
    Ok(())
}

fn same_number(a: &str, b: &str) -> bool {
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b && a.is_finite())
}

fn mismatch(what: String) -> RpcError {
    RpcError::new(-32020, format!("Header mismatch: {what}"))
}

/// The one value of a header: two could be read differently by two readers.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(mismatch(format!("{name} stands twice")));
    }
    let value = value.to_str().map_err(|_| mismatch(format!("{name} holds what no header may")))?;
    Ok(Some(value.trim_matches([' ', '\t'])))
}

async fn modern_request(view: View, id: Json, (method, params): (String, Object), raw: Bytes) -> Response {
    if method == "subscriptions/listen" {
        if let Err(error) = check_listen(&params) {
            return json(StatusCode::BAD_REQUEST, &Message::Response { id, outcome: Err(error) });
        }
        let messages = Box::pin(changes::listen(view, id, &params)).await;
        return sse(messages.map(|m| event(&m)));
    }
    let mut answering = Answering::new(view, id, (method, params), raw);
    // What comes first decides: an answer is an answer, anything else begins a stream.
    match tokio::time::timeout(STREAM_AFTER, answering.first()).await {
        Ok(First::Nothing) => empty(StatusCode::ACCEPTED),
        Ok(First::Answer(message)) => json(status_of(&message), &message),
        Ok(First::Event) | Err(_) => {
            answering.begin_stream();
            sse(futures_util::stream::unfold(answering, |mut answering| async move {
                Some((answering.next().await?, answering))
            }))
        }
    }
}

/// Checks what `subscriptions/listen` must carry, and may not ask for.
pub(super) fn check_listen(params: &Object) -> Result<(), RpcError> {
    let tasks = params.get("notifications").is_some_and(|n| n.get("taskIds").is_some());
    if params.get("notifications").and_then(Json::as_object).is_none() {
        return Err(RpcError::new(-32602, "Invalid params: notifications is not an object"));
    }
    let extensions = params.get("_meta").and_then(|m| m.get(meta::CLIENT_CAPABILITIES)?.get("extensions"));
    if tasks && extensions.is_none_or(|e| e.get(super::call::TASKS).is_none()) {
        let needs = Json::object([(super::call::TASKS, Json::Object(Object::new()))]);
        let data = Json::object([("requiredCapabilities", Json::object([("extensions", needs)]))]);
        return Err(RpcError::new(-32021, "taskIds needs the tasks extension").with_data(data));
    }
    Ok(())
}

/// The status of an answer (2026-07-28, transports, error mapping).
fn status_of(message: &Message) -> StatusCode {
    let Message::Response { outcome: Err(error), .. } = message else { return StatusCode::OK };
    match error.code() {
        -32601 => StatusCode::NOT_FOUND,
        -32022..=-32020 => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

fn event(message: &Message) -> Bytes {
    Bytes::from(format!("event: message\ndata: {}\n\n", message.to_text()))
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
    let mut response = Response::new(Body::from(message.to_text()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
