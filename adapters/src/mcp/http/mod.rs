//! Streamable HTTP towards a server: every message a POST, answered by JSON or by a stream.

mod stream;

use super::McpError;
use super::connection::{Clock, Era};
use super::headers;
use super::party::{Events, Party};
use super::questions::Questions;
use super::tokens::{Refusal, Retry, Tokens};
use super::wire::{MODERN, Message, meta};
use crate::hidden;
use crate::net::{Line, Unanswered, reasons};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use policies::json::{Json, Limits};
use policies::resolve::Secret;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
pub(super) use stream::Heard;

/// One result may have this many bytes.
pub(super) const MAX_BODY: usize = 16 << 20;
/// Tokens one request is tried with.
const MAX_TRIES: u32 = 3;

/// How long a server may take to take a notification.
const NOTIFY_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Where to, and with what.
pub struct HttpTarget {
    /// The endpoint.
    pub url: url::Url,
    /// The operator's headers.
    pub headers: BTreeMap<String, Secret>,
    /// The way to its origin.
    pub line: Line,
    /// What it is shown, where it asks for tokens.
    pub tokens: Option<Arc<dyn Tokens>>,
}

impl HttpTarget {
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

pub(super) struct Http {
    target: HttpTarget,
    /// What every request begins with: where to, and the operator's headers; or why none can.
    begins: Result<(Uri, HeaderMap), String>,
    session: Mutex<Option<String>>,
    version: Mutex<String>,
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// A request as it is put together.
type Draft = Request<Full<Bytes>>;

/// A request on its way: what it is answered by, and who hears of it meanwhile.
pub(super) struct Asking<'a> {
    pub(super) message: &'a Message,
    pub(super) era: Era,
    /// Headers that mirror its arguments.
    pub(super) mirrored: &'a [(String, String)],
    pub(super) party: Option<Arc<dyn Party>>,
    pub(super) clock: &'a Clock,
    pub(super) events: &'a Arc<dyn Events>,
    pub(super) questions: &'a Arc<Questions>,
}

impl Http {
    pub(super) fn new(target: HttpTarget) -> Self {
        let begins = begins(&target);
        Self { target, begins, session: Mutex::default(), version: Mutex::new(MODERN.to_owned()) }
    }
    pub(super) fn forget_session(&self) {
        *lock(&self.session) = None;
    }
    pub(super) fn session(&self) -> Option<String> {
        lock(&self.session).clone()
    }
    pub(super) fn negotiated(&self, version: &str) {
        *lock(&self.version) = version.to_owned();
    }
    pub(super) async fn notify(&self, message: &Message) {
        match tokio::time::timeout(NOTIFY_LIMIT, self.post(message, Era::Legacy, &[])).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::debug!("notification to {}: {e}", self.target.origin()),
            Err(_) => tracing::debug!("notification to {}: not taken", self.target.origin()),
        }
    }
    /// Ends the session, as a client that leaves should.
    pub(super) async fn leave(&self) {
        let Some(session) = self.session() else { return };
        let ended = async {
            let mut request = self.draft(Method::DELETE, Bytes::new())?;
            put(&mut request, SESSION, &session)?;
            put(&mut request, VERSION, &lock(&self.version))?;
            self.send(request).await
        };
        drop(tokio::time::timeout(std::time::Duration::from_secs(2), ended).await);
    }

    pub(super) async fn request(&self, asking: Asking<'_>) -> Result<Json, McpError> {
        let Message::Request { id, .. } = asking.message else {
            return Err(McpError::Protocol("not a request".into()));
        };
        let era = asking.era;
        let with_session = era == Era::Legacy && lock(&self.session).is_some();
        let response = self.post(asking.message, era, asking.mirrored).await?;
        let status = response.status();
        if let Some(session) = response.headers().get("mcp-session-id").and_then(|v| v.to_str().ok()) {
            *lock(&self.session) = Some(session.to_owned());
        }
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        if status.is_success() && kind.starts_with("text/event-stream") {
            return Box::pin(self.follow(response, id, &asking)).await;
        }
        let body = bounded(response).await?;
        let limits = Limits { bytes: MAX_BODY, ..Limits::default() };
        let read = Message::heard(&body, limits);
        let own = matches!(&read, Ok(Message::Response { id: of, .. }) if of == id);
        // How servers say that they do not know a session, restarted ones above all.
        let unknown = match status.as_u16() {
            404 => true,
            400 | 422 | 503 => !own,
            _ => false,
        };
        if with_session && unknown {
            return Err(McpError::SessionLost { refused: status.is_client_error() });
        }
        match read {
            // An error body with an error status is the server's own answer.
            Ok(Message::Response { outcome, .. }) if status.is_success() || outcome.is_err() => {
                outcome.map_err(McpError::Rpc)
            }
            Err(e) if status.is_success() => Err(McpError::Protocol(format!("its answer is unacceptable: {e}"))),
            _ if status.is_success() => Err(McpError::Protocol(format!("HTTP {status} without a JSON-RPC response"))),
            _ if era == Era::Modern && status.is_client_error() => {
                Err(McpError::WrongEra(format!("HTTP {status}: {}", excerpt(&body))))
            }
            _ => Err(McpError::Protocol(format!("HTTP {status}: {}", excerpt(&body)))),
        }
    }

    /// A request with what all have in common.
    fn draft(&self, method: Method, body: Bytes) -> Result<Draft, McpError> {
        let (to, headers) = self.begins.as_ref().map_err(|why| McpError::Unreachable(why.clone()))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = to.clone();
        request.headers_mut().clone_from(headers);
        Ok(request)
    }

    async fn post(
        &self,
        message: &Message,
        era: Era,
        mirrored: &[(String, String)],
    ) -> Result<Response<Incoming>, McpError> {
        let mut request = self.draft(Method::POST, message.to_text().into())?;
        let own = request.headers_mut();
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        own.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let method = match message {
            Message::Request { method, .. } | Message::Notification { method, .. } => method.as_str(),
            Message::Response { .. } => "",
        };
        if let Message::Request { params, .. } = message
            && let Some(key) = params.get("_meta").and_then(|own| own.get(meta::IDEMPOTENCY_KEY)?.as_str())
            && method == "tools/call"
        {
            put(&mut request, IDEMPOTENCY_KEY, &headers::encode(key))?;
        }
        match era {
            Era::Modern => {
                request.headers_mut().insert(VERSION, HeaderValue::from_static(MODERN));
                put(&mut request, METHOD, method)?;
                if let Message::Request { params, .. } = message
                    && let Some(name) = headers::name_of(method, params)
                {
                    put(&mut request, NAME, &headers::encode(name))?;
                }
                for (name, value) in mirrored {
                    let name = HeaderName::try_from(name).map_err(|_| unsaid(name))?;
                    put(&mut request, name, &headers::encode(value))?;
                }
            }
            Era::Legacy if method != "initialize" => self.in_session(&mut request)?,
            Era::Legacy => {}
        }
        self.send(request).await
    }
    fn in_session(&self, request: &mut Draft) -> Result<(), McpError> {
        put(request, VERSION, &lock(&self.version))?;
        match lock(&self.session).as_deref() {
            Some(session) => put(request, SESSION, session),
            None => Ok(()),
        }
    }

    async fn send(&self, request: Draft) -> Result<Response<Incoming>, McpError> {
        match &self.target.tokens {
            None => self.target.line.send(request).await.map_err(|e| self.unreachable(e)),
            Some(tokens) => Box::pin(self.send_with(&**tokens, request)).await,
        }
    }

    /// Sends a request with the token of the moment, and again where the server refused that
    /// one and there is another. Nothing was done that was refused so.
    async fn send_with(&self, tokens: &dyn Tokens, request: Draft) -> Result<Response<Incoming>, McpError> {
        let mut tries = 0;
        loop {
            let shown = tokens.bearer().await.map_err(McpError::Unauthorized)?;
            let mut attempt = request.clone();
            if let Some(token) = &shown {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                    .map_err(|_| McpError::Unauthorized("the token cannot stand in a header".into()))?;
                value.set_sensitive(true);
                attempt.headers_mut().insert(AUTHORIZATION, value);
            }
            let response = self.target.line.send(attempt).await.map_err(|e| self.unreachable(e))?;
            let Some(refusal) = Refusal::of(response.status(), response.headers(), shown) else {
                return Ok(response);
            };
            tries += 1;
            match tokens.refused(refusal).await {
                Retry::Again if tries < MAX_TRIES => {}
                Retry::Again => {
                    return Err(McpError::Unauthorized(format!("{} refuses every token", self.target.origin())));
                }
                Retry::No(why) => return Err(McpError::Unauthorized(hidden::in_text(&why).into_owned())),
            }
        }
    }

    /// A GET of the session: its standing stream, or what followed an event.
    async fn get(&self, after: Option<&str>) -> Result<Response<Incoming>, McpError> {
        let mut request = self.draft(Method::GET, Bytes::new())?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        self.in_session(&mut request)?;
        if let Some(after) = after {
            put(&mut request, LAST_EVENT_ID, after)?;
        }
        self.send(request).await
    }

    /// Never the whole address: its query may hold a key.
    fn unreachable(&self, error: Unanswered) -> McpError {
        let why = format!("{}: {}", self.target.origin(), error.why);
        // What was never connected cannot have received anything.
        if error.unsent { McpError::Unreachable(why) } else { McpError::Broken(why) }
    }
}

fn begins(target: &HttpTarget) -> Result<(Uri, HeaderMap), String> {
    let to = Uri::try_from(target.url.as_str()).map_err(|e| format!("{}: {e}", target.origin()))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &target.headers {
        // Told without the value, which may be a secret.
        let bad = || format!("{}: the header {name} cannot be sent: its name or its value is none", target.origin());
        let name = HeaderName::try_from(name).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok((to, headers))
}

fn put(request: &mut Draft, name: HeaderName, value: &str) -> Result<(), McpError> {
    let value = HeaderValue::from_str(value).map_err(|_| unsaid(name.as_str()))?;
    request.headers_mut().insert(name, value);
    Ok(())
}

/// Nothing was sent.
fn unsaid(name: &str) -> McpError {
    McpError::Unreachable(format!("the header {name} cannot be sent: its value is none"))
}

/// The next piece of an answer; `None` at its end.
async fn chunk(body: &mut Incoming) -> Option<Result<Bytes, String>> {
    loop {
        match body.frame().await? {
            Ok(frame) => {
                // Trailers say nothing here.
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(e) => return Some(Err(reasons(&e))),
        }
    }
}

async fn bounded(response: Response<Incoming>) -> Result<Vec<u8>, McpError> {
    let mut from = response.into_body();
    // What it says of its length is believed as far as there is room.
    let told = hyper::body::Body::size_hint(&from).exact().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let mut body = Vec::with_capacity(told.min(MAX_BODY));
    while let Some(bytes) = chunk(&mut from).await {
        let bytes = bytes.map_err(|why| McpError::Gone(format!("; its answer broke: {why}")))?;
        body.extend_from_slice(&bytes);
        if body.len() > MAX_BODY {
            return Err(McpError::Protocol(format!("its answer is larger than {MAX_BODY} bytes")));
        }
    }
    Ok(body)
}

fn excerpt(body: &[u8]) -> String {
    hidden::in_text(&String::from_utf8_lossy(body)).chars().take(200).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
