//! The JSON-RPC envelope (JSON-RPC 2.0 as MCP uses it) on relay values.

use policies::json::{Json, Limits, Object, quote};
use std::fmt;

/// The stateless revision.
pub const MODERN: &str = "2026-07-28";
/// The newest revision with `initialize`.
pub const LEGACY: &str = "2025-11-25";

/// The tasks extension.
pub const TASKS: &str = "io.modelcontextprotocol/tasks";

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
    /// The same whenever the same call is made again.
    pub const IDEMPOTENCY_KEY: &str = "pleach/idempotency-key";
    /// It is there where a run makes the call, through however many doors: no run gives an answer.
    pub const OF_RUN: &str = "pleach/of-run";
    /// What a task elsewhere used, in the result of the call that had it done.
    pub const USED: &str = "pleach/used";
    /// The least severe log message wanted for a request.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Which `subscriptions/listen` a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
}

/// An error object, kept as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError(Object);

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        let mut error = Object::new();
        error.set("code", code);
        error.set("message", message.into());
        Self(error)
    }
    /// With data.
    pub fn with_data(mut self, data: Json) -> Self {
        self.0.set("data", data);
        self
    }
    /// The code; -32603 where it is none.
    pub fn code(&self) -> i64 {
        match self.0.get("code") {
            Some(Json::Number(n)) => n.lexeme().parse().unwrap_or(-32603),
            _ => -32603,
        }
    }
    /// The message.
    pub fn message(&self) -> &str {
        self.0.get("message").and_then(Json::as_str).unwrap_or("an error without a message")
    }
    /// Whatever came with it.
    pub fn data(&self) -> Option<&Json> {
        self.0.get("data")
    }
    /// The object, to be changed in place.
    pub fn object_mut(&mut self) -> &mut Object {
        &mut self.0
    }
    fn from_json(error: Json) -> Self {
        match error {
            Json::Object(error) => Self(error),
            other => Self::new(-32603, "an error that is no object").with_data(other),
        }
    }
}
impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.code())
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
    /// Reads what a server says: no value of a secret gets any further.
    ///
    /// # Errors
    /// As [`Message::read`].
    pub(super) fn heard(bytes: &[u8], limits: Limits) -> Result<Message, RpcError> {
        let json = Json::parse(bytes, limits).map_err(|e| RpcError::new(-32700, format!("Parse error: {e}")));
        let mut json = json?;
        crate::hidden::in_json(&mut json);
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
            // A peer that looks for the answer first would read another message than we.
            if object.get("result").or(object.get("error")).is_some() {
                return Err(invalid("it has a method and an outcome"));
            }
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
            (None, Some(error)) => Err(RpcError::from_json(error)),
            _ => return Err(invalid("neither a method nor one of result and error")),
        };
        Ok(Message::Response { id: id.unwrap_or(Json::Null), outcome })
    }
    /// As text, without a copy of what it carries.
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(512);
        out.push_str("{\"jsonrpc\":\"2.0\"");
        match self {
            Message::Request { id, method, params } => {
                member("id", id, &mut out);
                out.push_str(",\"method\":");
                quote(method, &mut out);
                out.push_str(",\"params\":");
                params.write(&mut out);
            }
            Message::Notification { method, params } => {
                out.push_str(",\"method\":");
                quote(method, &mut out);
                if !params.is_empty() {
                    out.push_str(",\"params\":");
                    params.write(&mut out);
                }
            }
            Message::Response { id, outcome } => {
                member("id", id, &mut out);
                match outcome {
                    Ok(result) => member("result", result, &mut out),
                    Err(error) => {
                        out.push_str(",\"error\":");
                        error.0.write(&mut out);
                    }
                }
            }
        }
        out.push('}');
        out
    }
    /// As one line of text.
    pub fn to_line(&self) -> String {
        let mut line = self.to_text();
        line.push('\n');
        line
    }
}

fn member(key: &str, value: &Json, out: &mut String) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
    value.write(out);
}
