//! Streamable HTTP towards a server: every message a POST, answered by JSON or by a stream.

use super::McpError;
use super::connection::Era;
use super::sse;
use super::wire::{MODERN, Message};
use futures_util::StreamExt;
use policies::json::{Json, Limits, Object};
use policies::resolve::Secret;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One result may have this many bytes.
const MAX_BODY: usize = 16 << 20;

/// The words for a session the server no longer knows; the connection then starts anew.
pub(super) const SESSION_LOST: &str = "the server no longer knows the session";

/// Where to, and with what.
pub struct HttpTarget {
    /// The endpoint.
    pub url: url::Url,
    /// The operator's headers.
    pub headers: BTreeMap<String, Secret>,
    /// The client for its origin.
    pub client: reqwest::Client,
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

type Progress = Arc<dyn Fn(Object) + Send + Sync>;

impl Http {
    pub(super) fn new(target: HttpTarget) -> Self {
        Self { target, session: Mutex::default(), version: Mutex::new(MODERN.to_owned()) }
    }
    pub(super) fn forget_session(&self) {
        *lock(&self.session) = None;
    }
    pub(super) fn negotiated(&self, version: &str) {
        *lock(&self.version) = version.to_owned();
    }
    pub(super) async fn notify(&self, message: &Message) {
        if let Err(e) = self.post(message, Era::Legacy).await {
            tracing::debug!("notification to {}: {e}", self.target.origin());
        }
    }
    pub(super) async fn request(
        &self,
        message: &Message,
        era: Era,
        progress: Option<Progress>,
    ) -> Result<Json, McpError> {
        let Message::Request { id, .. } = message else {
            return Err(McpError::Protocol("not a request".into()));
        };
        let response = self.post(message, era).await?;
        let status = response.status();
        if let Some(session) = response.headers().get("mcp-session-id").and_then(|v| v.to_str().ok()) {
            *lock(&self.session) = Some(session.to_owned());
        }
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let streaming = kind.starts_with("text/event-stream");
        if status.is_success() && streaming {
            return self.stream(response, id, progress).await;
        }
        // How servers say that they do not know a session, restarted ones above all.
        let lost =
            matches!(status.as_u16(), 400 | 404 | 422 | 503) && era == Era::Legacy && lock(&self.session).is_some();
        let body = bounded(response).await?;
        if lost {
            return Err(McpError::Protocol(SESSION_LOST.into()));
        }
        let limits = Limits { bytes: MAX_BODY, ..Limits::default() };
        match Message::read(&body, limits) {
            Ok(Message::Response { outcome, .. }) if status.is_success() || outcome.is_err() => {
                // An error body with an error status is the server's own answer.
                outcome.map_err(McpError::Rpc)
            }
            _ if status.is_success() => Err(McpError::Protocol(format!("HTTP {status} without a JSON-RPC response"))),
            _ => Err(McpError::Protocol(format!("HTTP {status}: {}", excerpt(&body)))),
        }
    }

    async fn post(&self, message: &Message, era: Era) -> Result<reqwest::Response, McpError> {
        let mut request = self
            .target
            .client
            .post(self.target.url.clone())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        for (name, value) in &self.target.headers {
            request = request.header(name, value.expose());
        }
        let method = match message {
            Message::Request { method, .. } | Message::Notification { method, .. } => method.as_str(),
            Message::Response { .. } => "",
        };
        match era {
            Era::Modern => {
                request = request.header("mcp-protocol-version", MODERN).header("mcp-method", method);
                if let Message::Request { params, .. } = message
                    && let Some(name) = params.get("name").and_then(Json::as_str)
                {
                    request = request.header("mcp-name", name);
                }
            }
            Era::Legacy if method != "initialize" => {
                request = request.header("mcp-protocol-version", lock(&self.version).clone());
                if let Some(session) = &*lock(&self.session) {
                    request = request.header("mcp-session-id", session);
                }
            }
            Era::Legacy => {}
        }
        let sent = request.body(message.to_json().to_text()).send().await;
        // Never the whole address: its query may hold a key.
        sent.map_err(|e| McpError::Unreachable(format!("{}: {}", self.target.origin(), reasons(&e.without_url()))))
    }

    async fn stream(
        &self,
        response: reqwest::Response,
        id: &Json,
        progress: Option<Progress>,
    ) -> Result<Json, McpError> {
        let mut events = sse::Events::default();
        let mut bytes = response.bytes_stream();
        let limits = Limits { bytes: MAX_BODY, ..Limits::default() };
        while let Some(chunk) = bytes.next().await {
            let chunk =
                chunk.map_err(|e| McpError::Gone(format!("; its stream broke: {}", reasons(&e.without_url()))))?;
            for data in events.feed(&chunk, MAX_BODY).map_err(McpError::Protocol)? {
                match Message::read(&data, limits) {
                    Ok(Message::Response { id: of, outcome }) if of == *id => return outcome.map_err(McpError::Rpc),
                    Ok(Message::Notification { method, params }) if method == "notifications/progress" => {
                        if let Some(progress) = &progress {
                            progress(params);
                        }
                    }
                    Ok(Message::Request { id, method, .. }) => {
                        let outcome = super::connection::answer(&method);
                        self.notify(&Message::Response { id, outcome }).await;
                    }
                    Ok(_) => {}
                    Err(e) => return Err(McpError::Protocol(format!("its answer is unacceptable: {}", e.message))),
                }
            }
        }
        Err(McpError::Gone("; its stream ended before the answer".into()))
    }
}

async fn bounded(response: reqwest::Response) -> Result<Vec<u8>, McpError> {
    let mut body = Vec::new();
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
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
