//! One connection: the handshake of either era, and requests with limits.

use super::McpError;
use super::http::{Http, HttpTarget};
use super::stdio::Stdio;
use super::wire::{LEGACY, MODERN, Message, RpcError, meta};
use crate::sandbox::Instance;
use policies::json::{Json, Object};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

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

/// What a request may do and who is told about its progress.
pub struct Exchange {
    /// The time it may take, progress or not.
    pub limit: Duration,
    /// Takes it back.
    pub cancel: CancellationToken,
    /// Told the params of each progress notification.
    pub progress: Option<Arc<dyn Fn(Object) + Send + Sync>>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { limit: Duration::from_secs(60), cancel: CancellationToken::new(), progress: None }
    }
}

/// What a server says unasked.
pub trait Events: Send + Sync {
    /// `notifications/tools/list_changed`
    fn tools_changed(&self);
    /// A log line: the server's standard error, or `notifications/message`.
    fn log(&self, line: &str);
}

enum Link {
    Stdio(Stdio),
    Http(Box<Http>),
}

/// A connected server.
pub struct Connection {
    link: Link,
    era: Era,
    server: Json,
    next: AtomicU64,
}

impl Connection {
    /// Speaks to a sandboxed process on its standard streams. `known` is the era it spoke last
    /// time, if any.
    ///
    /// # Errors
    /// When it ends, stays silent, or speaks no MCP.
    pub async fn stdio(instance: Instance, known: Option<Era>, events: Arc<dyn Events>) -> Result<Self, McpError> {
        let stdio = Stdio::start(instance, events)?;
        Self::handshake(Link::Stdio(stdio), known).await
    }
    /// Speaks to an HTTP endpoint.
    ///
    /// # Errors
    /// When it cannot be reached or speaks no MCP.
    pub async fn http(target: HttpTarget, known: Option<Era>) -> Result<Self, McpError> {
        Self::handshake(Link::Http(Box::new(Http::new(target))), known).await
    }
    /// The era it speaks.
    pub fn era(&self) -> Era {
        self.era
    }
    /// What it said of itself: the result of `server/discover` or `initialize`.
    pub fn server(&self) -> &Json {
        &self.server
    }
    /// Whether it still answers.
    pub fn alive(&self) -> bool {
        match &self.link {
            Link::Stdio(stdio) => stdio.alive(),
            Link::Http(_) => true,
        }
    }

    /// Sends a request and waits for its result, within the limits of `exchange`.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn request(&self, method: &str, params: Object, exchange: Exchange) -> Result<Json, McpError> {
        let result = match self.exchange(method, params.clone(), &exchange).await {
            Err(McpError::Protocol(why)) if why == super::http::SESSION_LOST => {
                // The server forgot us; it did not act on the request. Introduce ourselves again.
                self.initialize(&exchange).await?;
                self.exchange(method, params, &exchange).await?
            }
            other => other?,
        };
        match result.get("resultType").and_then(Json::as_str) {
            None | Some("complete") => Ok(result),
            Some(other) => Err(McpError::Protocol(format!("resultType {other:?}, which was not offered"))),
        }
    }

    async fn exchange(&self, method: &str, mut params: Object, exchange: &Exchange) -> Result<Json, McpError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut meta = match params.remove("_meta") {
            Some(Json::Object(meta)) => meta,
            _ => Object::new(),
        };
        if self.era == Era::Modern {
            modern_meta(&mut meta);
        }
        if exchange.progress.is_some() {
            meta.set(meta::PROGRESS_TOKEN, number);
        }
        if !meta.is_empty() {
            params.set("_meta", meta);
        }
        let message = Message::Request { id: number.into(), method: method.to_owned(), params };
        let work = async {
            match &self.link {
                Link::Stdio(stdio) => stdio.request(number, &message, exchange.progress.clone()).await,
                Link::Http(http) => http.request(&message, self.era, exchange.progress.clone()).await,
            }
        };
        tokio::select! {
            outcome = work => outcome,
            () = exchange.cancel.cancelled() => {
                self.abandon(number, "the caller cancelled").await;
                Err(McpError::Cancelled)
            }
            () = tokio::time::sleep(exchange.limit) => {
                self.abandon(number, "time limit").await;
                // A server that is merely slow to start is not hung.
                if let Link::Stdio(stdio) = &self.link
                    && method != "server/discover"
                {
                    stdio.suspect(exchange.limit);
                }
                Err(McpError::Timeout { method: method.to_owned(), seconds: exchange.limit.as_secs() })
            }
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

    async fn handshake(link: Link, known: Option<Era>) -> Result<Self, McpError> {
        let mut connection = Self { link, era: Era::Modern, server: Json::Null, next: AtomicU64::new(1) };
        let limits = Exchange { limit: START_LIMIT, ..Exchange::default() };
        if known != Some(Era::Legacy) {
            let probe = Exchange { limit: PROBE_LIMIT, ..Exchange::default() };
            match connection.exchange("server/discover", Object::new(), &probe).await {
                Ok(result) if speaks_modern(&result) => {
                    connection.server = result;
                    return Ok(connection);
                }
                // Gone, not merely ignorant: a server of the first era may end at an unknown
                // first message. The caller starts it again and says what was learnt.
                Err(gone @ (McpError::Gone(_) | McpError::Unreachable(_))) => return Err(gone),
                _ => {}
            }
        }
        connection.era = Era::Legacy;
        connection.server = connection.initialize(&limits).await?;
        Ok(connection)
    }

    async fn initialize(&self, limits: &Exchange) -> Result<Json, McpError> {
        let mut params = Object::new();
        params.set("protocolVersion", LEGACY);
        params.set("capabilities", Object::new());
        params.set("clientInfo", client_info());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let message = Message::Request { id: number.into(), method: "initialize".into(), params };
        let initialized = Message::Notification { method: "notifications/initialized".into(), params: Object::new() };
        let work = async {
            match &self.link {
                Link::Stdio(stdio) => {
                    let result = stdio.request(number, &message, None).await?;
                    stdio.notify(&initialized);
                    Ok(result)
                }
                Link::Http(http) => {
                    http.forget_session();
                    let result = http.request(&message, Era::Legacy, None).await?;
                    http.negotiated(result.get("protocolVersion").and_then(Json::as_str).unwrap_or(LEGACY));
                    http.notify(&initialized).await;
                    Ok(result)
                }
            }
        };
        let late = || McpError::Timeout { method: "initialize".into(), seconds: limits.limit.as_secs() };
        tokio::time::timeout(limits.limit, work).await.unwrap_or_else(|_| Err(late()))
    }
}

fn speaks_modern(result: &Json) -> bool {
    let versions = result.get("supportedVersions").and_then(Json::as_array);
    versions.is_some_and(|v| v.iter().any(|v| v.as_str() == Some(MODERN)))
}

fn client_info() -> Json {
    Json::object([("name", "pleach".into()), ("version", env!("CARGO_PKG_VERSION").into())])
}

fn modern_meta(own: &mut Object) {
    own.set(meta::PROTOCOL_VERSION, MODERN);
    own.set(meta::CLIENT_INFO, client_info());
    own.set(meta::CLIENT_CAPABILITIES, Object::new());
}

/// Answers what a server may ask of us: it was told that we can do nothing.
pub(super) fn answer(method: &str) -> Result<Json, RpcError> {
    match method {
        "ping" => Ok(Json::Object(Object::new())),
        other => Err(RpcError::new(-32601, format!("{other} was not offered by this client"))),
    }
}
