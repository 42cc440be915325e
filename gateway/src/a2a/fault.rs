//! What went wrong, once for all bindings (A2A 1.0.1, section 5.4): the JSON-RPC code, the HTTP
//! status, the canonical name, and `google.rpc.ErrorInfo` with its reason.

use http::StatusCode;
use serde_json::{Value, json};
use subagents::host::HostError;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON-RPC: it is no JSON.
    Parse,
    /// JSON-RPC: it is no request.
    InvalidRequest,
    /// JSON-RPC: no such method; over HTTP no such route.
    NoMethod,
    /// HTTP: another method is served there.
    NotAllowed,
    /// There is no such agent for whoever asks.
    NoAgent,
    /// A field is missing, or is not what it must be.
    InvalidParams,
    Internal,
    TaskNotFound,
    TaskNotCancelable,
    PushNotificationNotSupported,
    UnsupportedOperation,
    ContentTypeNotSupported,
    ExtendedCardNotConfigured,
    VersionNotSupported,
    /// Nobody in particular asks, where clients are named.
    Unauthenticated,
    Forbidden,
    TooMany,
    Unavailable,
}

impl Kind {
    /// The JSON-RPC code, the HTTP status, the canonical name, and the reason if A2A has one.
    fn parts(self) -> (i64, u16, &'static str, Option<&'static str>) {
        match self {
            Kind::Parse => (-32700, 400, "INVALID_ARGUMENT", None),
            Kind::InvalidRequest => (-32600, 400, "INVALID_ARGUMENT", None),
            Kind::NoMethod => (-32601, 404, "NOT_FOUND", None),
            Kind::NotAllowed => (-32601, 405, "UNIMPLEMENTED", None),
            Kind::NoAgent => (-32601, 404, "NOT_FOUND", None),
            Kind::InvalidParams => (-32602, 400, "INVALID_ARGUMENT", None),
            Kind::Internal => (-32603, 500, "INTERNAL", None),
            Kind::TaskNotFound => (-32001, 404, "NOT_FOUND", Some("TASK_NOT_FOUND")),
            Kind::TaskNotCancelable => (-32002, 400, "FAILED_PRECONDITION", Some("TASK_NOT_CANCELABLE")),
            Kind::PushNotificationNotSupported => {
                (-32003, 400, "FAILED_PRECONDITION", Some("PUSH_NOTIFICATION_NOT_SUPPORTED"))
            }
            Kind::UnsupportedOperation => (-32004, 400, "FAILED_PRECONDITION", Some("UNSUPPORTED_OPERATION")),
            Kind::ContentTypeNotSupported => (-32005, 400, "INVALID_ARGUMENT", Some("CONTENT_TYPE_NOT_SUPPORTED")),
            Kind::ExtendedCardNotConfigured => {
                (-32007, 400, "FAILED_PRECONDITION", Some("EXTENDED_AGENT_CARD_NOT_CONFIGURED"))
            }
            Kind::VersionNotSupported => (-32009, 400, "FAILED_PRECONDITION", Some("VERSION_NOT_SUPPORTED")),
            Kind::Unauthenticated => (-32600, 401, "UNAUTHENTICATED", None),
            Kind::Forbidden => (-32600, 403, "PERMISSION_DENIED", None),
            Kind::TooMany => (-32603, 429, "RESOURCE_EXHAUSTED", None),
            Kind::Unavailable => (-32603, 503, "UNAVAILABLE", None),
        }
    }
    /// Whether the transport says so too, whatever the binding.
    pub(super) fn is_of_the_transport(self) -> bool {
        matches!(self, Kind::NoAgent | Kind::Unauthenticated | Kind::Forbidden | Kind::TooMany | Kind::Unavailable)
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    message: String,
    /// The field that is to blame.
    field: Option<&'static str>,
    pub(super) header: Option<(&'static str, String)>,
}

impl Fault {
    /// What it is, and what to do about it.
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None, header: None }
    }
    /// A field of the request that is not what it must be.
    pub(super) fn field(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self { field: Some(field), ..Self::new(Kind::InvalidParams, format!("{field}: {why}")) }
    }
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }
    /// The same for a stranger's task and for one that never was.
    pub(super) fn no_task(id: &str) -> Self {
        Self::new(Kind::TaskNotFound, format!("no task of yours is named {id:?} here"))
    }
    /// What the person at the machine must see to: they are told more than the client.
    pub(super) fn failed(why: impl std::fmt::Display) -> Self {
        tracing::error!("a2a: {why}");
        Self::new(Kind::Internal, "the store cannot be used; if it stays so, ask the operator for the log")
    }
    /// A verb of the host that was not done; `refused` is what its refusal means here.
    pub(super) fn of_host(error: HostError, refused: Kind) -> Self {
        match error {
            HostError::Refused(why) => Self::new(refused, why),
            HostError::Held { .. } | HostError::Fenced => {
                let busy = Self::new(Kind::Unavailable, "another process works on the task just now; try again");
                busy.with("retry-after", "1")
            }
            HostError::Suspended => {
                Self::new(Kind::Unavailable, "pleach is ending; try again when it serves").with("retry-after", "5")
            }
            HostError::Journal(why) => Self::failed(why),
        }
    }
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.parts().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    fn details(&self) -> Vec<Value> {
        let mut details = Vec::new();
        if let Some(reason) = self.kind.parts().3 {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "a2a-protocol.org",
                "metadata": {},
            }));
        }
        if let Some(field) = self.field {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{ "field": field, "description": self.message }],
            }));
        }
        details
    }
    /// As a JSON-RPC error object.
    pub(super) fn rpc(&self) -> Value {
        let mut error = json!({ "code": self.kind.parts().0, "message": self.message });
        let details = self.details();
        if !details.is_empty() {
            error["data"] = details.into();
        }
        error
    }
    /// As the body of an HTTP answer (AIP-193).
    pub(super) fn http(&self) -> Value {
        let (_, code, status, _) = self.kind.parts();
        json!({ "error": { "code": code, "status": status, "message": self.message, "details": self.details() } })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<adapters::store::StoreError> for Fault {
    fn from(error: adapters::store::StoreError) -> Self {
        Self::failed(error)
    }
}
impl From<subagents::ports::JournalError> for Fault {
    fn from(error: subagents::ports::JournalError) -> Self {
        Self::failed(error)
    }
}
