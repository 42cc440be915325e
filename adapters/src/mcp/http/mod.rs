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
use crate::net::reasons;
use futures_util::StreamExt;
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
    /// The client for its origin.
    pub client: reqwest::Client,
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
    session: Mutex<Option<String>>,
    version: Mutex<String>,
}

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
        Self { target, session: Mutex::default(), version: Mutex::new(MODERN.to_owned()) }
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
        let request = self.with_headers(self.target.client.delete(self.target.url.clone()));
        let version = lock(&self.version).clone();
        let request = request.header("mcp-session-id", session).header("mcp-protocol-version", version);
        drop(tokio::time::timeout(std::time::Duration::from_secs(2), self.send(request)).await);
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

    fn with_headers(&self, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        for (name, value) in &self.target.headers {
            // A value no header can hold makes the request an error, which is told without it.
            request = match http::HeaderValue::from_str(value.expose()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request.header(name, value)
                }
                Err(_) => request.header(name, "\n"),
            };
        }
        request
    }

    async fn post(
        &self,
        message: &Message,
        era: Era,
        mirrored: &[(String, String)],
    ) -> Result<reqwest::Response, McpError> {
        let mut request = self
            .with_headers(self.target.client.post(self.target.url.clone()))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        let method = match message {
            Message::Request { method, .. } | Message::Notification { method, .. } => method.as_str(),
            Message::Response { .. } => "",
        };
        if let Message::Request { params, .. } = message
            && let Some(key) = params.get("_meta").and_then(|own| own.get(meta::IDEMPOTENCY_KEY)?.as_str())
            && method == "tools/call"
        {
            request = request.header("idempotency-key", headers::encode(key));
        }
        match era {
            Era::Modern => {
                request = request.header("mcp-protocol-version", MODERN).header("mcp-method", method);
                if let Message::Request { params, .. } = message
                    && let Some(name) = headers::name_of(method, params)
                {
                    request = request.header("mcp-name", headers::encode(name));
                }
                for (name, value) in mirrored {
                    request = request.header(name, headers::encode(value));
                }
            }
            Era::Legacy if method != "initialize" => {
                request = request.header("mcp-protocol-version", lock(&self.version).as_str());
                if let Some(session) = lock(&self.session).as_deref() {
                    request = request.header("mcp-session-id", session);
                }
            }
            Era::Legacy => {}
        }
        self.send(request.body(message.to_text())).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, McpError> {
        match &self.target.tokens {
            None => request.send().await.map_err(|e| self.unreachable(e)),
            Some(tokens) => Box::pin(self.send_with(&**tokens, request)).await,
        }
    }

    /// Sends a request with the token of the moment, and again where the server refused that
    /// one and there is another. Nothing was done that was refused so.
    async fn send_with(
        &self,
        tokens: &dyn Tokens,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, McpError> {
        let mut tries = 0;
        loop {
            let shown = tokens.bearer().await.map_err(McpError::Unauthorized)?;
            let Some(mut attempt) = request.try_clone() else {
                return Err(McpError::Protocol("the request cannot be repeated".into()));
            };
            if let Some(token) = &shown {
                attempt = attempt.bearer_auth(token.expose());
            }
            let response = attempt.send().await.map_err(|e| self.unreachable(e))?;
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
    async fn get(&self, after: Option<&str>) -> Result<reqwest::Response, McpError> {
        let mut request = self
            .with_headers(self.target.client.get(self.target.url.clone()))
            .header("accept", "text/event-stream")
            .header("mcp-protocol-version", lock(&self.version).as_str());
        if let Some(session) = lock(&self.session).as_deref() {
            request = request.header("mcp-session-id", session);
        }
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        self.send(request).await
    }

    /// Never the whole address: its query may hold a key.
    fn unreachable(&self, error: reqwest::Error) -> McpError {
        // What was never connected cannot have received anything.
        let unsent = error.is_connect() || error.is_builder();
        let why = format!("{}: {}", self.target.origin(), reasons(&error.without_url()));
        if unsent { McpError::Unreachable(why) } else { McpError::Broken(why) }
    }
}

async fn bounded(response: reqwest::Response) -> Result<Vec<u8>, McpError> {
    // What it says of its length is believed as far as there is room.
    let told = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let mut body = Vec::with_capacity(told.min(MAX_BODY));
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|e| McpError::Gone(format!("; its answer broke: {}", reasons(&e.without_url()))))?;
        body.extend_from_slice(&chunk);
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
