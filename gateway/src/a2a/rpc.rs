//! The JSON-RPC binding (A2A 1.0, section 9; 0.3, section 3.2.1). What goes wrong with a request is
//! an error of its answer; what goes wrong with who asks is HTTP's, too.

use super::Door;
use super::answer::{self, JSON};
use super::codec::Version;
use super::fault::{Fault, Kind};
use super::ops::{Answer, Asked, Op, perform};
use super::parts::Message;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

pub(super) async fn serve(State(door): State<Door>, Path(agent): Path<String>, request: Request) -> Response {
    let mut asker = Asker { id: Value::Null, hears_events: hears_events(request.headers()) };
    match call(&door, &agent, request, &mut asker).await {
        Ok(response) => response,
        Err(fault) => {
            let status = if fault.kind.is_of_the_transport() { fault.status() } else { StatusCode::OK };
            let text = failed(&asker.id, &fault).to_string();
            let mut response = match asker.hears_events && !fault.kind.is_of_the_transport() {
                true => answer::event(&text),
                false => answer::json(status, JSON, text),
            };
            if let Some((name, value)) = &fault.header {
                answer::set(&mut response, name, value);
            }
            response
        }
    }
}

/// How whoever asks is answered when it goes wrong.
struct Asker {
    id: Value,
    /// Clients of 0.3 take an error of a stream as its first event, and no other way.
    hears_events: bool,
}

/// Whether a request takes a stream of events, and nothing else.
fn hears_events(headers: &HeaderMap) -> bool {
    headers.get("accept").is_some_and(|accept| accept.as_bytes().eq_ignore_ascii_case(b"text/event-stream"))
}

fn failed(id: &Value, fault: &Fault) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": fault.rpc() })
}

async fn call(door: &Door, agent: &str, request: Request, asker: &mut Asker) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    // Only of 0.3, and only what streams.
    let hears_events = std::mem::take(&mut asker.hears_events);
    let who = door.identify(&parts.headers).await?;
    let message = super::read(&parts.headers, &[JSON], body).await?;
    let invalid = |why: &str| Err(Fault::new(Kind::InvalidRequest, why));
    if !message.is_object() {
        return invalid("one request is one object; several in one are not taken");
    }
    match message.get("id") {
        Some(given @ (Value::String(_) | Value::Number(_))) => asker.id = given.clone(),
        None | Some(Value::Null) => {}
        Some(_) => return invalid("id is neither a string nor a number"),
    }
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return invalid("jsonrpc is \"2.0\"");
    }
    let Some(method) = message.get("method").and_then(Value::as_str) else { return invalid("method is missing") };
    let version = Version::of(&parts.headers, &super::queried(&parts.uri))?;
    let agent = door.agent(&who, agent)?;
    let op = version.op(method).ok_or_else(|| unknown(version, method))?;
    asker.hears_events = hears_events && version.is_old() && matches!(op, Op::Stream | Op::Subscribe);
    let params = match message.get("params") {
        None | Some(Value::Null) => json!({}),
        Some(params @ Value::Object(_)) => params.clone(),
        Some(_) => return Err(Fault::field("params", "it is an object")),
    };
    let params = version.params(op, params);
    // Nobody would hear of what it comes to; what else is wrong with it is said first.
    if asker.id.is_null() {
        if matches!(op, Op::Send | Op::Stream) {
            Message::read(&params)?;
        }
        return invalid("id is missing");
    }
    let key = super::key(&parts.headers)?;
    let asked = Asked { door: door.clone(), who, agent, version, params, key, came: None };
    answered(version, op, asker.id.clone(), asked).await
}

/// A method of the other generation is known, and what to send instead.
fn unknown(version: Version, method: &str) -> Fault {
    let (other, of) = match version {
        Version::V1 => (Version::V0_3, "0.3, which is spoken without A2A-Version"),
        Version::V0_3 => (Version::V1, "1.0; send A2A-Version: 1.0"),
    };
    let why = match other.op(method) {
        Some(_) => format!("method {method:?} is one of {of}"),
        None => format!("there is no method {method:?}"),
    };
    Fault::new(Kind::NoMethod, why)
}

async fn answered(version: Version, op: Op, id: Value, asked: Asked) -> Result<Response, Fault> {
    let (door, identity) = (asked.door.clone(), asked.who.identity.clone());
    match perform(op, asked).await? {
        Answer::One(value) => {
            let reply = json!({ "jsonrpc": "2.0", "id": id, "result": version.answer(op, value) });
            Ok(answer::json(StatusCode::OK, JSON, reply.to_string()))
        }
        Answer::Many(updates) => Ok(answer::stream(&door, identity, updates, move |update| match update {
            Ok(update) => json!({ "jsonrpc": "2.0", "id": id, "result": version.update(update) }),
            Err(fault) => failed(&id, &fault),
        })),
    }
}
