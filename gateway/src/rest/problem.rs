//! What went wrong, as `application/problem+json` (RFC 9457): what it is, and what to do.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use subagents::host::HostError;
use subagents::ports::JournalError;

/// The kinds of problems: the last word of `type`, and the `status` and `title` that go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    NotAllowed,
    Conflict,
    TooLarge,
    NotJson,
    Unfit,
    KeyReused,
    TooMany,
    Failed,
    Unavailable,
}

impl Kind {
    pub(super) const ALL: [Kind; 13] = [
        Kind::BadRequest,
        Kind::Unauthorized,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::NotAllowed,
        Kind::Conflict,
        Kind::TooLarge,
        Kind::NotJson,
        Kind::Unfit,
        Kind::KeyReused,
        Kind::TooMany,
        Kind::Failed,
        Kind::Unavailable,
    ];
    pub(super) fn status(self) -> StatusCode {
        self.parts().1
    }
    pub(super) fn title(self) -> &'static str {
        self.parts().2
    }
    fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Kind::BadRequest => ("bad-request", StatusCode::BAD_REQUEST, "The request cannot be read"),
            Kind::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "Who are you?"),
            Kind::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "You may not do this"),
            Kind::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is no such thing"),
            Kind::NotAllowed => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "That cannot be done here"),
            Kind::Conflict => ("conflict", StatusCode::CONFLICT, "It does not stand as it would have to"),
            Kind::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Kind::NotJson => ("not-json", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON"),
            Kind::Unfit => ("unfit", StatusCode::UNPROCESSABLE_ENTITY, "The request says something it may not"),
            Kind::KeyReused => ("key-reused", StatusCode::UNPROCESSABLE_ENTITY, "The key was used for another request"),
            Kind::TooMany => ("too-many", StatusCode::TOO_MANY_REQUESTS, "Too much at a time"),
            Kind::Failed => ("failed", StatusCode::INTERNAL_SERVER_ERROR, "Pleach failed"),
            Kind::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not now"),
        }
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    next: String,
    header: Option<(&'static str, String)>,
}

impl Problem {
    /// What it is, and what to do about it.
    pub(super) fn new(kind: Kind, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), next: next.into(), header: None }
    }
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }
    /// The same for a stranger's run and for one that never was.
    pub(super) fn no_run(id: &str) -> Self {
        Self::new(Kind::NotFound, format!("no run of yours is named {id}"), "GET /v1/runs lists those that are")
    }
    pub(super) fn no_question(id: &str) -> Self {
        let detail = format!("nothing named {id} is asked of you");
        Self::new(Kind::NotFound, detail, "GET /v1/approvals lists what is")
    }
    pub(super) fn unfit(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unfit, detail, "correct the request; /openapi.json describes it")
    }
    pub(super) fn too_many(detail: impl Into<String>, next: &str) -> Self {
        Self::new(Kind::TooMany, detail, next).with("retry-after", "5")
    }
    /// What the person at the machine must see to: they are told more than the client.
    pub(super) fn failed(why: impl std::fmt::Display) -> Self {
        tracing::error!("rest: {why}");
        Self::new(Kind::Failed, "the store cannot be used", "try again; if it stays so, ask the operator for the log")
    }
    /// A verb of the host that was not done; `refused` is what its refusal means here.
    pub(super) fn of_host(error: HostError, refused: Kind) -> Self {
        match error {
            HostError::Refused(why) => Self::new(refused, why, "GET the run to see how it stands"),
            HostError::Held { .. } | HostError::Fenced => {
                let detail = "another process works on the run just now";
                Self::new(Kind::Conflict, detail, "try again in a moment").with("retry-after", "1")
            }
            HostError::Suspended => {
                Self::new(Kind::Unavailable, "pleach is ending", "try again when it serves").with("retry-after", "5")
            }
            HostError::Journal(why) => Self::failed(why),
        }
    }
    pub(super) fn status(&self) -> StatusCode {
        self.kind.status()
    }
    pub(super) fn to_json(&self) -> serde_json::Value {
        let (kind, status, title) = self.kind.parts();
        json!({
            "type": format!("urn:pleach:problem:{kind}"), "title": title, "status": status.as_u16(),
            "detail": self.detail, "next": self.next,
        })
    }
    pub(super) fn response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/problem+json"));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
        response
    }
}

impl From<adapters::store::StoreError> for Problem {
    fn from(error: adapters::store::StoreError) -> Self {
        Self::failed(error)
    }
}
impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        Self::failed(error)
    }
}
