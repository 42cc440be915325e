//! MCP servers as attachments: both eras, over standard streams and streamable HTTP.
//!
//! ```text
//!            connect ── server/discover ──▶ modern (2026-07-28, stateless)
//!                          │ any other answer, or none
//!                          └── initialize ─▶ legacy (2025-11-25 and older)
//!  Attachment::call(Permit<Call>) ─▶ Connection::request ─▶ stdio | http
//! ```
//!
//! No permit, no call: [`Attachment::call`] consumes one, and what it sends is what the permit
//! owns. Messages are `policies::json` values, so nothing a server says is lost on the way.

mod connection;
pub mod headers;
mod http;
mod party;
mod questions;
mod standing;
mod stdio;
mod tokens;
mod wire;

pub use connection::{Connection, Era, Kind, Reply};
pub use http::HttpTarget;
pub use party::{Callback, Client, Events, Exchange, Gives, Party, Rounds};
pub use tokens::{Refusal, Retry, Tokens};
pub use wire::{LEGACY, MODERN, Message, RpcError, TASKS, meta};

use crate::a2a::{How, Passage, Passed, Peer};
use crate::crash;
use policies::action::{Call, Fetch};
use policies::json::{Json, Object};
use policies::permit::Permit;
use std::sync::Arc;
use std::time::Duration;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// The server answered with an error.
    #[error("{0}")]
    Rpc(RpcError),
    /// The server is gone.
    #[error("the server ended{0}")]
    Gone(String),
    /// The server did not answer in time.
    #[error("no answer to {method} within {seconds} s")]
    Timeout {
        /// The method.
        method: String,
        /// The limit.
        seconds: u64,
    },
    /// The caller took the request back.
    #[error("cancelled")]
    Cancelled,
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The server forgot the session; the connection begins a new one by itself.
    #[error("the server no longer knows the session; whether it acted is not known")]
    SessionLost {
        /// It said so by refusing the request, so it did not act on it.
        refused: bool,
    },
    /// The server does not speak the era it spoke; the next call finds out which it does.
    #[error("the server no longer speaks 2026-07-28: {0}")]
    WrongEra(String),
    /// The server could not be reached or started.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke after the request may have left: nobody knows whether it arrived.
    #[error("{0}")]
    Broken(String),
    /// The server asks for authorization that there is none of; the cure is said.
    #[error("{0}")]
    Unauthorized(String),
    /// It was permitted when it left, and is not any more: the policy was changed meanwhile.
    #[error("denied while it was under way, whether it acted is not known: {0}")]
    Withdrawn(String),
}

/// A live MCP server.
pub struct Attachment {
    connection: Connection,
}

impl Attachment {
    /// Wraps a connection.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }
    /// Calls the tool a permit names with the arguments it owns. `rest` is what else the caller
    /// put into the request, already cleared of what belongs to its connection.
    ///
    /// # Errors
    /// See [`McpError`]; the permit is used up either way.
    pub async fn call(&self, permit: Permit<Call>, rest: Object, exchange: Exchange) -> Result<Reply, McpError> {
        let Call { tool, arguments, .. } = permit.redeem();
        let mirrored: Vec<(String, String)> = tool
            .headers
            .iter()
            .filter_map(|h| Some((format!("mcp-param-{}", h.header.to_ascii_lowercase()), h.value(&arguments)?)))
            .collect();
        let mut params = Object::new();
        params.set("name", tool.upstream.as_str());
        params.set("arguments", arguments);
        add(&mut params, rest);
        crash::point("tool.call.before");
        let reply = self.connection.request("tools/call", params, &mirrored, exchange).await;
        crash::point("tool.call.after");
        reply
    }
    /// Asks what a permit says: a resource, a prompt, a completion.
    ///
    /// # Errors
    /// See [`McpError`]; the permit is used up either way.
    pub async fn fetch(&self, permit: Permit<Fetch>, rest: Object, exchange: Exchange) -> Result<Reply, McpError> {
        let Fetch { method, mut params, .. } = permit.redeem();
        add(&mut params, rest);
        self.connection.request(method, params, &[], exchange).await
    }
    /// Passes the message of A2A on that a permit owns. When this returns, the peer has said what it
    /// makes of it.
    ///
    /// # Errors
    /// See [`McpError`]; the permit is used up either way.
    pub async fn say(&self, permit: Permit<Call>, how: How, exchange: Exchange) -> Result<Passage, McpError> {
        let Call { arguments, .. } = permit.redeem();
        crash::point("tool.call.before");
        let said = within(&exchange, "SendMessage", self.peer()?.say(&arguments, how, exchange.gives.clone())).await;
        crash::point("tool.call.after");
        said
    }
    /// Asks a peer about the task a permit names: `GetTask`, `CancelTask`, `SubscribeToTask`.
    ///
    /// # Errors
    /// See [`McpError`]; the permit is used up either way.
    pub async fn pass(&self, permit: Permit<Fetch>, exchange: Exchange) -> Result<Passed, McpError> {
        let Fetch { method, params, .. } = permit.redeem();
        within(&exchange, method, self.peer()?.pass(method, &params)).await
    }
    /// The card of a peer, as it wrote it.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn card(&self) -> Result<Arc<Json>, McpError> {
        within(&Exchange::default(), "its card", self.peer()?.card()).await
    }
    fn peer(&self) -> Result<&Peer, McpError> {
        self.connection.as_peer().ok_or_else(|| McpError::Protocol("it is no A2A peer".into()))
    }
    /// Has changes reported, for as long as the connection lives.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn watch(&self, watched: &Watched) -> Result<Json, McpError> {
        self.connection.watch(&watched.0).await
    }
    /// No longer.
    pub async fn unwatch(&self, watched: &Watched) {
        self.connection.unwatch(&watched.0).await;
    }
    /// Everything of one list, page by page: `list_all("tools/list", "tools")`; and how long it
    /// may be kept, where the server says.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn list_all(&self, method: &str, key: &str) -> Result<(Vec<Json>, Option<Duration>), McpError> {
        const MAX_PAGES: usize = 500;
        let (mut all, mut ttl) = (Vec::new(), None);
        let mut cursor: Option<Json> = None;
        for _ in 0..MAX_PAGES {
            let mut params = Object::new();
            if let Some(cursor) = cursor.take() {
                params.set("cursor", cursor);
            }
            let mut result = self.connection.request(method, params, &[], Exchange::default()).await?.result;
            let kept = result.get("ttlMs").and_then(Json::as_u64).map(Duration::from_millis);
            ttl = [ttl, kept].into_iter().flatten().min();
            let object = result.as_object_mut();
            let Some(Json::Array(page)) = object.and_then(|o| o.remove(key)) else {
                return Err(McpError::Protocol(format!("{method} without a list of {key}")));
            };
            all.extend(page);
            match result.get("nextCursor") {
                Some(next @ Json::String(_)) => cursor = Some(next.clone()),
                _ => return Ok((all, ttl)),
            }
        }
        Err(McpError::Protocol(format!("{method} has more than {MAX_PAGES} pages")))
    }
    /// Whether a call that may be asked something would have to wait for another's end, since
    /// the server does not say whose call its questions are about.
    pub fn occupied(&self) -> bool {
        self.connection.occupied()
    }
    /// Whether it still answers.
    pub fn alive(&self) -> bool {
        self.connection.alive()
    }
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Something whose changes somebody was permitted to hear of: made from a permit, and good for
/// asking again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched(Topic);

/// What changes, by the server's own name of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A resource, by its address.
    Resource(String),
    /// A task of the extension, by its id.
    Task(String),
}

impl Watched {
    /// Uses the permit up. `None` when it is for something else.
    pub fn new(permit: Permit<Fetch>) -> Option<Self> {
        let fetch = permit.redeem();
        let text = |key: &str| fetch.params.get(key).and_then(Json::as_str).map(str::to_owned);
        match fetch.method {
            "resources/subscribe" => text("uri").map(Topic::Resource).map(Self),
            "tasks/get" => text("taskId").map(Topic::Task).map(Self),
            _ => None,
        }
    }
    /// What it is.
    pub fn topic(&self) -> &Topic {
        &self.0
    }
}

/// Within the limits of an exchange.
async fn within<T>(
    exchange: &Exchange,
    method: &str,
    work: impl Future<Output = Result<T, McpError>>,
) -> Result<T, McpError> {
    tokio::select! {
        done = work => done,
        () = exchange.cancel.cancelled() => Err(McpError::Cancelled),
        () = tokio::time::sleep(exchange.limit) => {
            Err(McpError::Timeout { method: method.to_owned(), seconds: exchange.limit.as_secs() })
        }
    }
}

/// Adds what else a request says; what was judged stays as it was judged.
fn add(params: &mut Object, rest: Object) {
    for (key, value) in rest.into_entries() {
        if params.get(&key).is_none() {
            params.set(key, value);
        }
    }
}
