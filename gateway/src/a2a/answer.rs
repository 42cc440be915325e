//! Answers as HTTP carries them.

use super::Door;
use super::fault::Fault;
use super::updates::{Many, Next};
use crate::auth::Identity;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

pub(super) const JSON: &str = "application/json";
/// What the HTTP+JSON binding speaks (A2A 1.0.1, section 11.1).
pub(super) const A2A_JSON: &str = "application/a2a+json";

pub(super) fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

pub(super) fn json(status: StatusCode, kind: &str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    set(&mut response, "content-type", kind);
    set(&mut response, "cache-control", "no-store");
    response
}

/// One event, and the end.
pub(super) fn event(text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("data: {text}\n\n")));
    set(&mut response, "content-type", "text/event-stream");
    set(&mut response, "cache-control", "no-store");
    response
}

/// A refusal over plain HTTP.
pub(super) fn refused(fault: &Fault) -> Response {
    let mut response = json(fault.status(), JSON, fault.http().to_string());
    if let Some((name, value)) = &fault.header {
        set(&mut response, name, value);
    }
    response
}

/// Server-sent events of a task: `frame` writes an update, or what broke the stream. The id of an
/// event is the task's generation. It ends with whoever listens, when they are nobody any more.
pub(super) fn stream(
    door: &Door,
    identity: Option<Identity>,
    updates: Many,
    frame: impl Fn(Result<Value, Fault>) -> Value + Send + 'static,
) -> Response {
    let events = futures_util::stream::unfold((updates, frame), |(mut updates, frame)| async move {
        let bytes = match updates.next().await? {
            Next::Update(n, update) => Bytes::from(format!("id: {n}\ndata: {}\n\n", frame(Ok(update)))),
            Next::Broken(fault) => Bytes::from(format!("data: {}\n\n", frame(Err(fault)))),
            Next::Beat => Bytes::from_static(b": still here\n\n"),
        };
        Some((Ok::<_, std::convert::Infallible>(bytes), (updates, frame)))
    });
    let live = door.0.live.clone();
    let events = events.take_until(async move {
        match identity {
            Some(identity) => identity.over(&live).await,
            None => std::future::pending().await,
        }
    });
    let mut response = Response::new(Body::from_stream(events));
    set(&mut response, "content-type", "text/event-stream");
    set(&mut response, "cache-control", "no-store");
    set(&mut response, "x-accel-buffering", "no");
    response
}
