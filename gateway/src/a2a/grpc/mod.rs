//! The gRPC binding (A2A 1.0, section 10), service `lf.a2a.v1.A2AService`. Built with `--features grpc`
//! only, and on no card: clients that keep to one origin refuse a card with its address.
//!
//! ```text
//!  HTTP/2 ─▶ POST /lf.a2a.v1.A2AService/{method} ─▶ one message ─▶ JSON ([proto], by [schema]'s table)
//!                                                                   │
//!     frames, then grpc-status in the trailers ◀─ messages ◀─ ops, as for every other binding
//! ```
//!
//! It has no paths: `tenant` names the agent, and without one the default agent is meant. `a2a-version` and
//! `authorization` are metadata, which is headers. Compression is not taken.

mod proto;
mod schema;

use super::Door;
use super::codec::Version;
use super::fault::{Fault, Kind};
use super::ops::{Answer, Asked, Op, perform};
use super::updates::{Many, Next};
use crate::auth::Identity;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::any;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

const SERVICE: &str = "/lf.a2a.v1.A2AService/{method}";
const GRPC: &str = "application/grpc";
/// A request's message arrives within this time.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// What a message stands behind: whether it is compressed, and its length.
const HEAD: usize = 5;
/// The canonical codes (`google.rpc.Code`) of the names [`Fault`] has.
const CODES: [(&str, u16); 9] = [
    ("INVALID_ARGUMENT", 3),
    ("NOT_FOUND", 5),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("UNAUTHENTICATED", 16),
];
const INTERNAL: u16 = 13;
const UNIMPLEMENTED: u16 = 12;

impl Door {
    /// Its routes over HTTP/2.
    pub(crate) fn grpc(self) -> Router {
        Router::new().route(SERVICE, any(serve)).fallback(nothing).with_state(self)
    }
}

/// What an operation reads and says.
fn messages(op: Op) -> (&'static str, &'static str) {
    match op {
        Op::Send => ("SendMessageRequest", "SendMessageResponse"),
        Op::Stream => ("SendMessageRequest", "StreamResponse"),
        Op::Get => ("GetTaskRequest", "Task"),
        Op::List => ("ListTasksRequest", "ListTasksResponse"),
        Op::Cancel => ("CancelTaskRequest", "Task"),
        Op::Subscribe => ("SubscribeToTaskRequest", "StreamResponse"),
        Op::SetPush => ("TaskPushNotificationConfig", "TaskPushNotificationConfig"),
        Op::GetPush => ("GetTaskPushNotificationConfigRequest", "TaskPushNotificationConfig"),
        Op::ListPush => ("ListTaskPushNotificationConfigsRequest", "ListTaskPushNotificationConfigsResponse"),
        Op::DeletePush => ("DeleteTaskPushNotificationConfigRequest", "Empty"),
        Op::Card => ("GetExtendedAgentCardRequest", "AgentCard"),
    }
}

async fn serve(State(door): State<Door>, Path(method): Path<String>, request: Request) -> Response {
    let kind = request.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if request.method() != Method::POST || !(kind == GRPC || kind == "application/grpc+proto") {
        return refused(UNIMPLEMENTED, "this is gRPC: POST application/grpc");
    }
    let Some(op) = Version::V1.op(&method) else {
        return refused(UNIMPLEMENTED, &format!("there is no method {method:?}"));
    };
    match call(&door, op, request).await {
        Ok(response) => response,
        Err(fault) => failed(&fault),
    }
}

/// No other service is here; so speaks gRPC of what it has not.
async fn nothing(request: Request) -> Response {
    refused(UNIMPLEMENTED, &format!("there is no method {}", request.uri().path()))
}

async fn call(door: &Door, op: Op, request: Request) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let who = door.identify(&parts.headers).await?;
    if Version::of(&parts.headers, &[])? == Version::V0_3 {
        let why = "a2a-version is missing, which means 0.3, and this service is of 1.0; send a2a-version: 1.0";
        return Err(Fault::new(Kind::VersionNotSupported, why));
    }
    let (asks, says) = messages(op);
    let message = tokio::time::timeout(READ_LIMIT, one(body)).await;
    let message = message.map_err(|_| Fault::new(Kind::InvalidRequest, "its message does not end"))??;
    let params = proto::read(asks, &message).map_err(|why| Fault::new(Kind::Parse, why))?;
    let agent = agent(door, &params)?;
    let agent = door.agent(&who, &agent)?;
    let params = Version::V1.params(op, params);
    let key = super::key(&parts.headers)?;
    let identity = who.identity.clone();
    let asked = Asked { door: door.clone(), who, agent, version: Version::V1, params, key, came: None };
    Ok(match perform(op, asked).await? {
        Answer::One(value) => {
            let frames = [Frame::data(framed(says, &value)), Frame::trailers(status(0, "", None))];
            let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
            answered(Body::new(StreamBody::new(frames)))
        }
        Answer::Many(updates) => streamed(door, identity, updates, says),
    })
}

/// The agent a request is for: its tenant, else the one whose card is the root card.
fn agent(door: &Door, params: &Value) -> Result<String, Fault> {
    if let Some(tenant) = params.get("tenant").and_then(Value::as_str).filter(|tenant| !tenant.is_empty()) {
        return Ok(tenant.to_owned());
    }
    let policy = door.0.live.now().policy.clone();
    let default = policy.default_agent().filter(|agent| agent.expose);
    let agent = default.or_else(|| policy.agents.values().find(|agent| agent.expose));
    let none = || Fault::new(Kind::NoAgent, "tenant names the agent; there is no default one");
    agent.map(|agent| agent.name.to_string()).ok_or_else(none)
}

/// The one message of a request.
async fn one(body: Body) -> Result<Bytes, Fault> {
    let most = super::MAX_BODY;
    let body = axum::body::to_bytes(body, most + HEAD).await.map_err(|_| {
        Fault::new(Kind::InvalidRequest, format!("the message is larger than {most} bytes, or its transfer broke"))
    })?;
    let whole = |body: &Bytes| {
        let (head, rest) = body.split_first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        (usize::try_from(length).ok()? == rest.len()).then_some(head[0])
    };
    match whole(&body) {
        Some(0) => Ok(body.slice(HEAD..)),
        Some(_) => Err(Fault::new(Kind::UnsupportedOperation, "compressed messages are not taken")),
        None => Err(Fault::new(Kind::Parse, "a request is one message, whole")),
    }
}

fn framed(message: &str, value: &Value) -> Bytes {
    let inner = proto::write(message, value);
    let mut out = BytesMut::with_capacity(HEAD + inner.len());
    out.put_u8(0);
    // No answer of ours is that long.
    out.put_u32(u32::try_from(inner.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(&inner);
    out.freeze()
}

/// Messages as they come, then how it ended. It ends with whoever listens, when they are nobody any more.
fn streamed(door: &Door, identity: Option<Identity>, updates: Many, says: &'static str) -> Response {
    let live = door.0.live.clone();
    let gone = Box::pin(async move {
        match identity {
            Some(identity) => identity.over(&live).await,
            None => std::future::pending().await,
        }
    });
    let frames = futures_util::stream::unfold(Some((updates, gone)), move |state| async move {
        let (mut updates, mut gone) = state?;
        loop {
            let next = tokio::select! {
                next = updates.next() => next,
                () = &mut gone => Some(Next::Broken(Fault::new(Kind::Unauthenticated, "you are nobody here any more"))),
            };
            return Some(match next {
                // The connection has heartbeats of its own.
                Some(Next::Beat) => continue,
                Some(Next::Update(_, update)) => (Frame::data(framed(says, &update)), Some((updates, gone))),
                Some(Next::Broken(fault)) => (Frame::trailers(told(&fault)), None),
                None => (Frame::trailers(status(0, "", None)), None),
            });
        }
    });
    answered(Body::new(StreamBody::new(frames.map(Ok::<_, Infallible>))))
}

fn answered(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static(GRPC));
    response
}

/// How a call ended, as trailers.
fn status(code: u16, message: &str, details: Option<&[u8]>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            trailers.insert(HeaderName::from_static(name), value);
        }
    };
    set("grpc-status", code.to_string());
    if !message.is_empty() {
        set("grpc-message", percent(message));
    }
    if let Some(details) = details {
        set("grpc-status-details-bin", BASE64_STANDARD_NO_PAD.encode(details));
    }
    trailers
}

/// A message as a header holds it: what is not seen, and `%`, by their bytes.
fn percent(message: &str) -> String {
    let one = |byte: u8| match byte {
        b' '..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    message.bytes().map(one).collect()
}

/// A fault as it is told: `google.rpc.Status` with the details every binding has.
fn told(fault: &Fault) -> HeaderMap {
    let error = fault.http();
    let name = error.pointer("/error/status").and_then(Value::as_str).unwrap_or_default();
    let code = CODES.iter().find(|(known, _)| *known == name).map_or(INTERNAL, |(_, code)| *code);
    let details = error.pointer("/error/details").and_then(Value::as_array);
    let details = details.into_iter().flatten().filter_map(|detail| {
        let kind = detail.get("@type")?.as_str()?;
        let inner = proto::write(kind.rsplit('.').next()?, detail);
        Some(json!({ "typeUrl": kind, "value": base64::prelude::BASE64_STANDARD.encode(inner) }))
    });
    let details: Vec<Value> = details.collect();
    let message = fault.to_string();
    let whole = json!({ "code": code, "message": message, "details": details });
    status(code, &message, Some(&proto::write("Status", &whole)))
}

fn failed(fault: &Fault) -> Response {
    let mut response = answered(Body::empty());
    response.headers_mut().extend(told(fault));
    if let Some((name, value)) = &fault.header {
        super::answer::set(&mut response, name, value);
    }
    response
}

fn refused(code: u16, message: &str) -> Response {
    let mut response = answered(Body::empty());
    response.headers_mut().extend(status(code, message, None));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of fault has a code of its own name, and its reason goes with it.
    #[test]
    fn faults_are_told_with_their_details() {
        let trailers = told(&Fault::no_task("t"));
        assert_eq!(trailers["grpc-status"], "5");
        let details = BASE64_STANDARD_NO_PAD.decode(&trailers["grpc-status-details-bin"]).unwrap();
        let status = proto::read("Status", &details).unwrap();
        assert_eq!(status["details"][0]["typeUrl"], "type.googleapis.com/google.rpc.ErrorInfo");
        let info = base64::prelude::BASE64_STANDARD.decode(status["details"][0]["value"].as_str().unwrap()).unwrap();
        let info = proto::read("ErrorInfo", &info).unwrap();
        assert_eq!(info, json!({ "reason": "TASK_NOT_FOUND", "domain": "a2a-protocol.org" }));
        let bad = told(&Fault::field("message.parts", "ü 100 %"));
        assert_eq!(
            (&bad["grpc-status"], &bad["grpc-message"]),
            (&HeaderValue::from_static("3"), &HeaderValue::from_static("message.parts: %C3%BC 100 %25"),)
        );
        let kinds = [Kind::Forbidden, Kind::TooMany, Kind::Unavailable, Kind::Unauthenticated, Kind::TaskNotCancelable];
        let codes = kinds.map(|kind| told(&Fault::new(kind, "x"))["grpc-status"].to_str().unwrap().to_owned());
        assert_eq!(codes, ["7", "8", "14", "16", "9"]);
    }

    #[tokio::test]
    async fn a_request_is_one_message() {
        let read = async |bytes: &'static [u8]| one(Body::from(bytes)).await.map_err(|fault| fault.kind);
        assert_eq!(read(b"\0\0\0\0\x02ab").await.unwrap(), "ab");
        assert_eq!(read(b"\0\0\0\0\0").await.unwrap(), "");
        for broken in [&b""[..], b"\0\0\0\0\x03ab", b"\0\0\0\0\x01ab"] {
            assert_eq!(read(broken).await, Err(Kind::Parse), "{broken:?}");
        }
        assert_eq!(read(b"\x01\0\0\0\x02ab").await, Err(Kind::UnsupportedOperation));
    }
}
