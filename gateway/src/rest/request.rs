//! From an HTTP request to a [`Call`]: who asks, and what, read and checked.

use super::problem::{Kind, Problem};
use super::routes::Route;
use super::{Door, object};
use crate::auth;
use crate::guard::REST;
use crate::hosted::Who;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// A body may have this many bytes.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Of a body that is too large so much is read and thrown away.
const DRAINED: usize = 16 * MAX_BODY;

/// What a handler gives.
pub(super) type Answered = Result<Response, Problem>;

/// A request, read.
pub(super) struct Call {
    pub(super) door: Door,
    pub(super) who: Who,
    /// What stands at `{id}` in the path.
    pub(super) id: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    query: BTreeMap<String, String>,
}

impl Call {
    /// The body as what the route wants.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => Problem::unfit(format!("body: {e}")),
            _ => Problem::new(Kind::BadRequest, format!("body: {e}"), "send one JSON object"),
        })
    }
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
    /// How many entries a page has.
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        let Some(given) = self.query("limit") else { return Ok(50) };
        let limit = given.parse().ok().filter(|n| (1..=200).contains(n));
        limit.ok_or_else(|| Problem::unfit(format!("limit is {given:?}; it is a number from 1 to 200")))
    }
    /// What a cursor of ours holds.
    pub(super) fn cursor(&self, purpose: &str) -> Result<Option<Value>, Problem> {
        let Some(given) = self.query("cursor") else { return Ok(None) };
        let opened = self.door.0.seal.open(purpose, self.who.principal(), given);
        let value = opened.and_then(|json| serde_json::from_str(&json.to_text()).ok());
        let next = "begin again without cursor, or with the filters it came with";
        value.map(Some).ok_or_else(|| Problem::new(Kind::Unfit, "no such cursor", next))
    }
    pub(super) fn seal(&self, purpose: &str, value: &Value) -> String {
        self.door.0.seal.seal(purpose, self.who.principal(), &value.into())
    }
    /// A header that may stand once.
    pub(super) fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        match (values.next(), value.to_str()) {
            (None, Ok(value)) => Ok(Some(value)),
            _ => Err(Problem::new(Kind::BadRequest, format!("{name} stands twice, or is no text"), "send it once")),
        }
    }
}

/// Serves one request of a route.
pub(super) async fn serve(door: Door, route: &'static Route, request: Request) -> Response {
    match read(door, route, request).await {
        Ok(call) => (route.handler)(call).await.unwrap_or_else(Problem::response),
        Err(problem) => problem.response(),
    }
}

async fn read(door: Door, route: &'static Route, request: Request) -> Result<Call, Problem> {
    let (parts, body) = request.into_parts();
    let who = if route.open { nobody(&door) } else { identify(&door, &parts.headers).await? };
    let captured = route.captures(parts.uri.path()).unwrap_or_default();
    let query = query(route, parts.uri.query().unwrap_or(""))?;
    let body = match parts.method == Method::POST {
        true => body_of(route, &parts.headers, body).await?,
        false => Bytes::new(),
    };
    Ok(Call { door, who, id: captured.to_owned(), headers: parts.headers, body, query })
}

async fn identify(door: &Door, headers: &HeaderMap) -> Result<Who, Problem> {
    let identity = match door.0.doorman.identify(auth::bearer(headers), REST).await {
        Ok(identity) => identity,
        Err(stranger) => {
            let kind = match stranger.status() {
                StatusCode::UNAUTHORIZED => Kind::Unauthorized,
                StatusCode::FORBIDDEN => Kind::Forbidden,
                _ => Kind::Unavailable,
            };
            let problem = Problem::new(kind, stranger.message(), "send Authorization: Bearer with a client's token");
            return Err(match door.0.doorman.challenge(&stranger, None) {
                Some(challenge) => problem.with("www-authenticate", challenge),
                None if kind == Kind::Unavailable => problem.with("retry-after", "5"),
                None => problem,
            });
        }
    };
    Ok(Who::of(identity, REST))
}

/// Who reads what everybody may.
fn nobody(door: &Door) -> Who {
    Who::nobody(&door.0.live.now().policy)
}

fn query(route: &Route, text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut query = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        if !route.query.iter().any(|p| p.name == name) {
            let known: Vec<&str> = route.query.iter().map(|p| p.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Problem::unfit(format!("{name:?} is no parameter of this; there are: {known}")));
        }
        if query.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Problem::unfit(format!("{name} stands twice")));
        }
    }
    Ok(query)
}

async fn body_of(route: &Route, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body is larger than {MAX_BODY} bytes, or its transfer broke");
        Problem::new(Kind::TooLarge, detail, "send less; large inputs belong into files the agent may read")
    };
    let declared = headers.get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if declared.is_some_and(|n| n > MAX_BODY) {
        drain(body).await;
        return Err(too_large());
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| too_large())?;
    if route.body.is_none() {
        return match bytes.trim_ascii() {
            b"" | b"{}" => Ok(bytes),
            _ => Err(Problem::unfit("this takes no body")),
        };
    }
    let kind = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        let detail = format!("Content-Type is {kind:?}");
        return Err(Problem::new(Kind::NotJson, detail, "send JSON with Content-Type: application/json"));
    }
    Ok(bytes)
}

/// Lets a client say what it is saying, within reason: one that is cut off while it writes may
/// never read the answer.
pub(crate) async fn drain(body: Body) {
    let mut body = body.into_data_stream();
    let all = async {
        let mut heard = 0;
        while let Some(Ok(chunk)) = body.next().await
            && heard < DRAINED
        {
            heard += chunk.len();
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), all).await;
}

/// An answer of JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

/// The same for a run that is elsewhere.
pub(super) fn located(status: StatusCode, run: &Value) -> Response {
    let mut response = json(status, run);
    let path = format!("/v1/runs/{}", object::text(run, "run"));
    if let Ok(path) = HeaderValue::try_from(path) {
        response.headers_mut().insert("location", path);
    }
    response
}
