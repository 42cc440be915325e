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
mod http;
mod sse;
mod stdio;
mod wire;

pub use connection::{Connection, Era, Events, Exchange};
pub use http::HttpTarget;
pub use wire::{LEGACY, MODERN, Message, RpcError, meta};

use policies::action::Call;
use policies::json::{Json, Object};
use policies::permit::Permit;

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
    /// The server could not be reached or started.
    #[error("{0}")]
    Unreachable(String),
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
    /// Calls the tool a permit names with the arguments it owns. `meta` is the caller's own
    /// `_meta`, already cleared of what belongs to its connection.
    ///
    /// # Errors
    /// See [`McpError`]; the permit is used up either way.
    pub async fn call(&self, permit: Permit<Call>, meta: Object, exchange: Exchange) -> Result<Json, McpError> {
        let Call { tool, arguments, .. } = permit.redeem();
        let mut params = Object::new();
        params.set("name", tool.upstream.as_str());
        params.set("arguments", arguments);
        if !meta.is_empty() {
            params.set("_meta", meta);
        }
        self.connection.request("tools/call", params, exchange).await
    }
    /// All tools of the server, page by page.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn list_tools(&self) -> Result<Vec<Json>, McpError> {
        const MAX_PAGES: usize = 200;
        let mut tools = Vec::new();
        let mut cursor: Option<Json> = None;
        for _ in 0..MAX_PAGES {
            let mut params = Object::new();
            if let Some(cursor) = cursor.take() {
                params.set("cursor", cursor);
            }
            let result = self.connection.request("tools/list", params, Exchange::default()).await?;
            let page = result.get("tools").and_then(Json::as_array);
            let page = page.ok_or_else(|| McpError::Protocol("tools/list without a list of tools".into()))?;
            tools.extend(page.iter().cloned());
            match result.get("nextCursor") {
                Some(next @ Json::String(_)) => cursor = Some(next.clone()),
                _ => return Ok(tools),
            }
        }
        Err(McpError::Protocol(format!("tools/list has more than {MAX_PAGES} pages")))
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
