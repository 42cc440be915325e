//! Legacy requests over HTTP: sessions, the standing stream, streams taken up again, batches.

use super::{Door, Refused, STREAM_AFTER, empty, event, json, sse, text};
use crate::mcp::call::Asking;
use crate::mcp::dispatch::dispatch;
use crate::mcp::outbox::{Outbox, place};
use crate::mcp::session::Session;
use crate::mcp::{LEGACY, LEGACY_VERSIONS, ROOTS_CHANGED, Sink, Speaker, View, changes, initialize, unsupported};
use adapters::mcp::{MODERN, Message};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, StatusCode};
use policies::json::{Json, Object};
use std::sync::Arc;

/// The one revision with batches.
const WITH_BATCHES: &str = "2025-03-26";
/// Messages of a batch.
const MAX_BATCH: usize = 100;

pub(super) async fn request(
    door: &Door,
    view: View,
    headers: &HeaderMap,
    id: Json,
    method: String,
    params: Object,
) -> Result<Response, Refused> {
    if method == "initialize" {
        let (conversation, result) = initialize(&view, &params).await;
        let session = door.sessions.open(&view.caller.principal, &view.place, conversation);
        let mut response = json(StatusCode::OK, &Message::Response { id, outcome: Ok(result) });
        if let Ok(value) = session.parse() {
            response.headers_mut().insert("mcp-session-id", value);
        }
        return Ok(response);
    }
    let with_id = |mut refused: Refused| {
        refused.id = id.clone();
        refused
    };
    check_version(headers).map_err(with_id)?;
    let session = session_of(door, &view, headers).map_err(with_id)?;
    let outbox = spawn(view, &session, id, method, params);
    // What comes first decides: an answer is an answer, anything else begins a stream.
    if let Some(answer) = outbox.only_answer(STREAM_AFTER).await {
        session.forget(&outbox);
        return Ok(json(StatusCode::OK, &answer));
    }
    if outbox.is_empty() {
        session.forget(&outbox);
        return Ok(empty(StatusCode::ACCEPTED));
    }
    // Older clients do not expect an event without data.
    let prime = (session.conversation.version == LEGACY).then(|| outbox.prime());
    Ok(sse(futures_util::stream::iter(prime).chain(follow(outbox, 0))))
}

/// Answers into a stream of the session: a client that goes away does not end what it began.
fn spawn(view: View, session: &Arc<Session>, id: Json, method: String, params: Object) -> Arc<Outbox> {
    let key = id.to_text();
    let cancel = session.begin(&key);
    let outbox = session.stream();
    let (session, out) = (session.clone(), outbox.clone());
    let notify = outbox.clone();
    let sink: Sink = Arc::new(move |message| notify.push(message));
    let tasks = view.guard.servers.tasks.clone();
    tasks.spawn(async move {
        let speaker = Speaker::Legacy(session.conversation.clone());
        let asking = Asking { method, params, sink, cancel, raw: None };
        if let Some(outcome) = dispatch(&view, &speaker, asking).await {
            out.push(Message::Response { id, outcome });
        }
        session.finish(&key);
        out.close();
    });
    outbox
}

fn follow(outbox: Arc<Outbox>, after: u64) -> impl Stream<Item = bytes::Bytes> + Send + 'static {
    futures_util::stream::unfold((outbox, after), |(outbox, after)| async move {
        let (number, event) = outbox.after(after).await?;
        Some((event, (outbox, number)))
    })
}

fn check_version(headers: &HeaderMap) -> Result<(), Refused> {
    match text(headers, "mcp-protocol-version") {
        Some(version) if !LEGACY_VERSIONS.contains(&version) => {
            Err(Refused::of(StatusCode::BAD_REQUEST, &Json::Null, unsupported(version)))
        }
        _ => Ok(()),
    }
}

pub(super) fn session_of(door: &Door, view: &View, headers: &HeaderMap) -> Result<Arc<Session>, Refused> {
    let Some(id) = text(headers, "mcp-session-id") else {
        let why = "Mcp-Session-Id is missing; call initialize first, or speak 2026-07-28";
        return Err(Refused::at(StatusCode::BAD_REQUEST, -32600, why));
    };
    let session = door.sessions.get(id, &view.place);
    session.ok_or_else(|| Refused::at(StatusCode::NOT_FOUND, -32001, "Session not found; call initialize again"))
}

/// Notifications and answers.
pub(super) fn other(door: &Door, view: &View, headers: &HeaderMap, message: Message) -> Result<Response, Refused> {
    if text(headers, "mcp-protocol-version") == Some(MODERN) {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    let session = session_of(door, view, headers)?;
    match message {
        Message::Notification { method, params } if method == "notifications/cancelled" => {
            if let Some(id) = params.get("requestId") {
                session.cancel(&id.to_text());
            }
        }
        Message::Notification { method, .. } if method == ROOTS_CHANGED => {
            view.guard.servers.roots_changed(&view.caller, session.conversation.number());
        }
        Message::Response { id, outcome } => session.conversation.answered(&id, outcome),
        _ => {}
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// Several messages at once, as 2025-03-26 has them and no other revision.
pub(super) async fn batch(door: &Door, view: View, headers: &HeaderMap, items: Vec<Json>) -> Result<Response, Refused> {
    let refuse = |why: &str| Refused::at(StatusCode::BAD_REQUEST, -32600, why);
    let session = session_of(door, &view, headers).map_err(|_| refuse("batches are not accepted"))?;
    if session.conversation.version != WITH_BATCHES {
        return Err(refuse("batches are not accepted; they are of 2025-03-26 only"));
    }
    if items.is_empty() || items.len() > MAX_BATCH {
        return Err(refuse("a batch holds 1 to 100 messages"));
    }
    let mut streams = Vec::new();
    let mut answers = Vec::new();
    for item in items {
        match Message::from_json(item) {
            Ok(Message::Request { method, .. }) if method == "initialize" => {
                return Err(refuse("initialize does not belong in a batch"));
            }
            Ok(Message::Request { id, method, params }) => {
                streams.push(spawn(view.clone(), &session, id, method, params));
            }
            Ok(message) => drop(other(door, &view, headers, message)?),
            Err(error) => answers.push(Message::Response { id: Json::Null, outcome: Err(error) }),
        }
    }
    if streams.is_empty() && answers.is_empty() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    // Answers come one by one on one stream, with whatever precedes them.
    let errors = futures_util::stream::iter(answers.into_iter().map(|m| event(&m)));
    let follows = streams.into_iter().map(|s| follow(s, 0).boxed());
    Ok(sse(errors.chain(futures_util::stream::select_all(follows))))
}

/// The GET stream of a session: what is said unasked; or, after `Last-Event-ID`, the rest of a
/// stream that broke.
pub(super) async fn watch(door: &Door, agent: Option<&str>, headers: &HeaderMap) -> Result<Response, Refused> {
    let view = door.view(headers, agent).await?;
    if text(headers, "mcp-protocol-version") == Some(MODERN)
        || !text(headers, "accept").unwrap_or("").contains("text/event-stream")
    {
        let why = "GET is the stream of a session with initialize";
        return Err(Refused::at(StatusCode::METHOD_NOT_ALLOWED, -32600, why));
    }
    check_version(headers)?;
    let session = session_of(door, &view, headers)?;
    let end = session.end.clone();
    let last = text(headers, "last-event-id").and_then(place);
    if let Some((stream, event)) = last
        && let Some(outbox) = session.resume(stream)
    {
        return Ok(sse(follow(outbox, event).take_until(async move { end.cancelled().await })));
    }
    let end = session.stand();
    let told = changes::standing(view, session.conversation.clone()).map(|m| event(&m));
    Ok(sse(told.take_until(async move { end.cancelled().await })))
}

pub(super) async fn close(door: &Door, agent: Option<&str>, headers: &HeaderMap) -> Result<Response, Refused> {
    let view = door.view(headers, agent).await?;
    if text(headers, "mcp-protocol-version") == Some(MODERN) {
        return Err(Refused::at(StatusCode::METHOD_NOT_ALLOWED, -32600, "there are no sessions in 2026-07-28"));
    }
    session_of(door, &view, headers)?;
    door.sessions.close(text(headers, "mcp-session-id").unwrap_or_default());
    Ok(empty(StatusCode::OK))
}
