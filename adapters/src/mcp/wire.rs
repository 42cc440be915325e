//! The JSON-RPC envelope (JSON-RPC 2.0 as MCP uses it) on relay values.

use policies::json::{Json, Limits, Object};
use std::fmt;

/// The stateless revision.
pub const MODERN: &str = "2026-07-28";
/// The newest revision with `initialize`.
pub const LEGACY: &str = "2025-11-25";

/// Keys of `_meta` that the protocol owns.
pub mod meta {
    /// The revision a request speaks.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Who asks.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What the asker can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Who answers.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// The token progress is reported under.
    pub const PROGRESS_TOKEN: &str = "progressToken";
}

/// An error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The code.
    pub code: i64,
    /// The message.
    pub message: String,
    /// Whatever came with it.
    pub data: Option<Json>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
    /// With data.
    pub fn with_data(mut self, data: Json) -> Self {
        self.data = Some(data);
        self
    }
    /// As an error object.
    pub fn to_json(&self) -> Json {
        let mut error = Object::new();
        error.set("code", self.code);
        error.set("message", self.message.as_str());
        if let Some(data) = &self.data {
            error.set("data", data.clone());
        }
        error.into()
    }
    fn from_json(error: &Json) -> Self {
        let code = match error.get("code") {
            Some(Json::Number(n)) => n.lexeme().parse().unwrap_or(-32603),
            _ => -32603,
        };
        let message = error.get("message").and_then(Json::as_str).unwrap_or("an error without a message");
        Self { code, message: message.to_owned(), data: error.get("data").cloned() }
    }
}
impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// One message. Ids are kept as they came: text or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request {
        /// Its id.
        id: Json,
        /// Its method.
        method: String,
        /// Its parameters.
        params: Object,
    },
    /// A notification.
    Notification {
        /// Its method.
        method: String,
        /// Its parameters.
        params: Object,
    },
    /// An answer.
    Response {
        /// The id of the request; null where the peer could not read it.
        id: Json,
        /// The result or error.
        outcome: Result<Json, RpcError>,
    },
}

impl Message {
    /// Reads a message from bytes.
    ///
    /// # Errors
    /// `-32700` for what is no JSON, `-32600` for what is no message.
    pub fn read(bytes: &[u8], limits: Limits) -> Result<Message, RpcError> {
        let json = Json::parse(bytes, limits).map_err(|e| RpcError::new(-32700, format!("Parse error: {e}")))?;
        Message::from_json(json)
    }
    /// Reads a message from a value.
    ///
    /// # Errors
    /// `-32600` for what is no message.
    pub fn from_json(json: Json) -> Result<Message, RpcError> {
        let invalid = |why: &str| RpcError::new(-32600, format!("Invalid Request: {why}"));
        let Json::Object(mut object) = json else {
            return Err(invalid(if matches!(json, Json::Array(_)) {
                "batches are not accepted"
            } else {
                "not an object"
            }));
        };
        if object.get("jsonrpc").and_then(Json::as_str) != Some("2.0") {
            return Err(invalid("jsonrpc is not \"2.0\""));
        }
        let id = object.remove("id");
        if let Some(method) = object.remove("method") {
            let Json::String(method) = method else { return Err(invalid("method is not a string")) };
            let params = match object.remove("params") {
                None => Object::new(),
                Some(Json::Object(params)) => params,
                Some(_) => return Err(RpcError::new(-32602, "Invalid params: not an object")),
            };
            return match id {
                None => Ok(Message::Notification { method, params }),
                Some(id @ (Json::String(_) | Json::Number(_))) => Ok(Message::Request { id, method, params }),
                Some(_) => Err(invalid("id is neither a string nor a number")),
            };
        }
        let outcome = match (object.remove("result"), object.remove("error")) {
            (Some(result), None) => Ok(result),
            (None, Some(error)) => Err(RpcError::from_json(&error)),
            _ => return Err(invalid("neither a method nor one of result and error")),
        };
        Ok(Message::Response { id: id.unwrap_or(Json::Null), outcome })
    }
    /// As a value.
    pub fn to_json(&self) -> Json {
        let mut out = Object::new();
        out.set("jsonrpc", "2.0");
        match self {
            Message::Request { id, method, params } => {
                out.set("id", id.clone());
                out.set("method", method.as_str());
                out.set("params", params.clone());
            }
            Message::Notification { method, params } => {
                out.set("method", method.as_str());
                if !params.is_empty() {
                    out.set("params", params.clone());
                }
            }
            Message::Response { id, outcome } => {
                out.set("id", id.clone());
                match outcome {
                    Ok(result) => out.set("result", result.clone()),
                    Err(error) => out.set("error", error.to_json()),
                }
            }
        }
        out.into()
    }
    /// As one line of text.
    pub fn to_line(&self) -> String {
        let mut line = self.to_json().to_text();
        line.push('\n');
        line
    }
}
