//! The HTTP+JSON binding (A2A 1.0, section 11), below `/a2a/{agent}/rest`. Of 0.3 there is JSON-RPC
//! only.

use super::Door;
use super::answer::{self, A2A_JSON, JSON};
use super::codec::Version;
use super::fault::{Fault, Kind};
use super::ops::{Answer, Asked, Op, perform};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

pub(super) async fn serve(
    State(door): State<Door>,
    Path((agent, path)): Path<(String, String)>,
    request: Request,
) -> Response {
    match call(&door, &agent, &path, request).await {
        Ok(response) => response,
        Err(fault) => answer::refused(&fault),
    }
}

/// Below the binding's own address nothing is served but its paths.
pub(super) async fn nothing(request: Request) -> Response {
    let why = format!("nothing is served at {}; the agent's card says what is", request.uri().path());
    answer::refused(&Fault::new(Kind::NoMethod, why))
}

async fn call(door: &Door, agent: &str, path: &str, request: Request) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let who = door.identify(&parts.headers).await?;
    let query = super::queried(&parts.uri);
    if Version::of(&parts.headers, &query)? == Version::V0_3 {
        let why = "A2A-Version is missing, which means 0.3, and that is spoken over JSON-RPC; send A2A-Version: 1.0";
        return Err(Fault::new(Kind::VersionNotSupported, why));
    }
    let agent = door.agent(&who, agent)?;
    let (op, task, config) = route(&parts.method, path).ok_or_else(|| misses(&parts.method, path))?;
    let params = match matches!(op, Op::Send | Op::Stream | Op::SetPush) {
        true => read(&parts.headers, body).await?,
        false => Value::Object(fields(&query)?),
    };
    let mut params = Version::V1.params(op, params);
    match op {
        Op::SetPush if params.get("taskId").is_some_and(|named| *named != task && *named != "") => {
            return Err(Fault::field("taskId", "it is not that of the path"));
        }
        Op::SetPush | Op::GetPush | Op::ListPush | Op::DeletePush => params["taskId"] = task.into(),
        _ if !task.is_empty() => params["id"] = task.into(),
        _ => {}
    }
    if !config.is_empty() {
        params["id"] = config.into();
    }
    let key = super::key(&parts.headers)?;
    let identity = who.identity.clone();
    let asked = Asked { door: door.clone(), who, agent, version: Version::V1, params, key, came: None };
    Ok(match perform(op, asked).await? {
        Answer::One(value) => answer::json(StatusCode::OK, A2A_JSON, value.to_string()),
        Answer::Many(updates) => answer::stream(door, identity, updates, |update| match update {
            Ok(update) => update,
            Err(fault) => fault.http(),
        }),
    })
}

/// A path that is none, or one that has other methods.
fn misses(method: &Method, path: &str) -> Fault {
    let others = [Method::GET, Method::POST, Method::DELETE];
    let served: Vec<&str> = others.iter().filter(|m| route(m, path).is_some()).map(Method::as_str).collect();
    let why = format!("{method} is not served at {path:?}");
    match served.is_empty() {
        true => Fault::new(Kind::NoMethod, why),
        false => {
            Fault::new(Kind::NotAllowed, format!("{why}; use {}", served.join(" or "))).with("allow", served.join(", "))
        }
    }
}

/// The segment of push configurations.
const PUSH: &str = "pushNotificationConfigs";

/// The operation at a path, and the task and the push configuration it names; empty: none.
/// `:subscribe` is a GET in the one place of the specification and a POST in the other.
fn route<'p>(method: &Method, path: &'p str) -> Option<(Op, &'p str, &'p str)> {
    let (get, post, delete) = (method == Method::GET, method == Method::POST, method == Method::DELETE);
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["message:send"] if post => Some((Op::Send, "", "")),
        ["message:stream"] if post => Some((Op::Stream, "", "")),
        ["extendedAgentCard"] if get => Some((Op::Card, "", "")),
        ["tasks"] if get => Some((Op::List, "", "")),
        ["tasks", task] => match task.rsplit_once(':') {
            None if get => Some((Op::Get, task, "")),
            Some((task, "cancel")) if post => Some((Op::Cancel, task, "")),
            Some((task, "subscribe")) if get || post => Some((Op::Subscribe, task, "")),
            _ => None,
        },
        ["tasks", task, PUSH] if post => Some((Op::SetPush, task, "")),
        ["tasks", task, PUSH] if get => Some((Op::ListPush, task, "")),
        ["tasks", task, PUSH, config] if get => Some((Op::GetPush, task, config)),
        ["tasks", task, PUSH, config] if delete => Some((Op::DeletePush, task, config)),
        _ => None,
    }
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Value, Fault> {
    let value = super::read(headers, &[A2A_JSON, JSON], body).await?;
    if value.is_object() { Ok(value) } else { Err(Fault::new(Kind::InvalidRequest, "the body is one object")) }
}

/// The query as fields: numbers and truth values are written as such in JSON.
fn fields(query: &[(String, String)]) -> Result<Map<String, Value>, Fault> {
    let mut fields = Map::new();
    for (name, text) in query {
        let value = match name.as_str() {
            "pageSize" | "historyLength" => match text.parse::<i64>() {
                Ok(number) => json!(number),
                Err(_) => return Err(Fault::new(Kind::InvalidParams, format!("{name} is {text:?}, and no number"))),
            },
            "includeArtifacts" => json!(text == "true"),
            _ => json!(text),
        };
        fields.insert(name.clone(), value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_operations() {
        let at = |method: Method, path| route(&method, path);
        assert_eq!(at(Method::POST, "message:send"), Some((Op::Send, "", "")));
        assert_eq!(at(Method::GET, "tasks/r-1"), Some((Op::Get, "r-1", "")));
        assert_eq!(at(Method::POST, "tasks/r-1:cancel"), Some((Op::Cancel, "r-1", "")));
        for method in [Method::GET, Method::POST] {
            assert_eq!(at(method, "tasks/r-1:subscribe"), Some((Op::Subscribe, "r-1", "")));
        }
        let (all, one) = ("tasks/r-1/pushNotificationConfigs", "tasks/r-1/pushNotificationConfigs/c");
        assert_eq!(at(Method::POST, all), Some((Op::SetPush, "r-1", "")));
        assert_eq!(at(Method::GET, all), Some((Op::ListPush, "r-1", "")));
        assert_eq!(at(Method::GET, one), Some((Op::GetPush, "r-1", "c")));
        assert_eq!(at(Method::DELETE, one), Some((Op::DeletePush, "r-1", "c")));
        assert_eq!(at(Method::DELETE, all), None);
        let other = misses(&Method::DELETE, all);
        assert_eq!((other.kind, other.header.unwrap().1.as_str()), (Kind::NotAllowed, "GET, POST"));
        assert_eq!(misses(&Method::GET, "nothing").kind, Kind::NoMethod);
        for (method, path) in [(Method::GET, "message:send"), (Method::POST, "tasks/r-1"), (Method::GET, "x")] {
            assert_eq!(at(method, path), None, "{path}");
        }
    }
}
