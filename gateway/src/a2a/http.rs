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

async fn call(door: &Door, agent: &str, path: &str, request: Request) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let who = door.identify(&parts.headers).await?;
    let query = super::queried(&parts.uri);
    if Version::of(&parts.headers, &query)? == Version::V0_3 {
        let why = "A2A-Version is missing, which means 0.3, and that is spoken over JSON-RPC; send A2A-Version: 1.0";
        return Err(Fault::new(Kind::VersionNotSupported, why));
    }
    let agent = door.agent(&who, agent)?;
    let (op, task) = route(&parts.method, path)
        .ok_or_else(|| Fault::new(Kind::NoMethod, format!("{} is not served at {path:?}", parts.method)))?;
    let mut params = match matches!(op, Op::Send | Op::Stream) {
        true => read(&parts.headers, body).await?,
        false => Value::Object(fields(&query)?),
    };
    if let Some(task) = task {
        params["id"] = task.into();
    }
    let key = super::key(&parts.headers)?;
    let identity = who.identity.clone();
    let asked = Asked { door: door.clone(), who, agent, version: Version::V1, params, key };
    Ok(match perform(op, asked).await? {
        Answer::One(value) => answer::json(StatusCode::OK, A2A_JSON, value.to_string()),
        Answer::Many(updates) => answer::stream(door, identity, updates, |update| match update {
            Ok(update) => update,
            Err(fault) => fault.http(),
        }),
    })
}

/// The operation at a path, and the task it names. `:subscribe` is a GET in the one place of the
/// specification and a POST in the other.
fn route<'p>(method: &Method, path: &'p str) -> Option<(Op, Option<&'p str>)> {
    let (get, post) = (method == Method::GET, method == Method::POST);
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["message:send"] if post => Some((Op::Send, None)),
        ["message:stream"] if post => Some((Op::Stream, None)),
        ["extendedAgentCard"] if get => Some((Op::Card, None)),
        ["tasks"] if get => Some((Op::List, None)),
        ["tasks", task] => match task.rsplit_once(':') {
            None if get => Some((Op::Get, Some(task))),
            Some((task, "cancel")) if post => Some((Op::Cancel, Some(task))),
            Some((task, "subscribe")) if get || post => Some((Op::Subscribe, Some(task))),
            _ => None,
        },
        ["tasks", _, "pushNotificationConfigs"] | ["tasks", _, "pushNotificationConfigs", _] => Some((Op::Push, None)),
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
        assert_eq!(at(Method::POST, "message:send"), Some((Op::Send, None)));
        assert_eq!(at(Method::GET, "tasks/r-1"), Some((Op::Get, Some("r-1"))));
        assert_eq!(at(Method::POST, "tasks/r-1:cancel"), Some((Op::Cancel, Some("r-1"))));
        for method in [Method::GET, Method::POST] {
            assert_eq!(at(method, "tasks/r-1:subscribe"), Some((Op::Subscribe, Some("r-1"))));
        }
        assert_eq!(at(Method::DELETE, "tasks/r-1/pushNotificationConfigs/c"), Some((Op::Push, None)));
        for (method, path) in [(Method::GET, "message:send"), (Method::POST, "tasks/r-1"), (Method::GET, "x")] {
            assert_eq!(at(method, path), None, "{path}");
        }
    }
}
