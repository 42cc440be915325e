//! A server that changes nothing: it says back, byte for byte, what reached it, so that a test
//! sees both ways of the relay. It also misbehaves on demand.
//!
//! Tools: `echo` (result, progress and errors made of the argument `value`), `hang`, `slow`,
//! `garbage`, `die`.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A message as far as it is read; the rest stays text.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(default)]
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Arguments<'a> {
    #[serde(default)]
    mode: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'a RawValue>,
}

/// What is to be done about a message.
enum Act {
    /// Nothing is said.
    Silence,
    /// These lines, the answer last.
    Say(Vec<String>),
    /// The same, later.
    Late(Duration, Vec<String>),
    /// No answer ever.
    Hang,
    /// The process ends.
    Die,
}

/// Serves `mirror ERA http|stdio [ADDRESS]`; over HTTP the first line printed is the URL.
///
/// # Errors
/// When the words name nothing, or the address cannot be bound.
pub fn run(era: &str, transport: &str, address: &str) -> std::io::Result<()> {
    let modern = era == "modern";
    if transport == "stdio" {
        return stdio(modern);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("http://{}/mcp", listener.local_addr()?);
        let state = Http { modern, sessions: Arc::default(), begun: Arc::default() };
        let router = Router::new().route("/mcp", post(on_post).delete(on_delete));
        let router = router.route("/sessions", get(count)).with_state(state);
        axum::serve(listener, router).await
    })
}

fn stdio(modern: bool) -> std::io::Result<()> {
    let out = Arc::new(Mutex::new(std::io::stdout()));
    let say = |out: &Mutex<std::io::Stdout>, lines: &[String]| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush())
    };
    for line in std::io::stdin().lock().lines() {
        match act(modern, &line?) {
            Act::Silence | Act::Hang => {}
            Act::Say(lines) => say(&out, &lines)?,
            Act::Late(wait, lines) => {
                let out = out.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    let _ = say(&out, &lines);
                });
            }
            Act::Die => std::process::exit(3),
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Http {
    modern: bool,
    sessions: Arc<Mutex<BTreeSet<String>>>,
    begun: Arc<AtomicUsize>,
}

/// The sessions that live, for the test.
async fn count(State(http): State<Http>) -> String {
    http.sessions.lock().unwrap_or_else(PoisonError::into_inner).len().to_string()
}

async fn on_delete(State(http): State<Http>, headers: HeaderMap) -> StatusCode {
    let session = headers.get("mcp-session-id").and_then(|v| v.to_str().ok()).unwrap_or("");
    let known = http.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(session);
    if known { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn on_post(State(http): State<Http>, headers: HeaderMap, body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body).into_owned();
    let mut response = Response::new(Body::empty());
    let begins = text.contains("\"initialize\"");
    if !http.modern && !begins {
        let session = headers.get("mcp-session-id").and_then(|v| v.to_str().ok()).unwrap_or("");
        if !http.sessions.lock().unwrap_or_else(PoisonError::into_inner).contains(session) {
            *response.status_mut() = if session.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND };
            return response;
        }
    }
    let lines = match act(http.modern, &text) {
        Act::Silence => {
            *response.status_mut() = StatusCode::ACCEPTED;
            return response;
        }
        Act::Hang => return std::future::pending().await,
        Act::Die => std::process::exit(3),
        Act::Say(lines) => lines,
        Act::Late(wait, lines) => {
            tokio::time::sleep(wait).await;
            lines
        }
    };
    if begins {
        let mut sessions = http.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = format!("{}-{}", std::process::id(), http.begun.fetch_add(1, Ordering::Relaxed));
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert("mcp-session-id", value);
        }
        sessions.insert(session);
    }
    let (kind, body) = match &lines[..] {
        [one] => ("application/json", one.clone()),
        more => ("text/event-stream", more.iter().map(|l| format!("data: {l}\n\n")).collect()),
    };
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    *response.body_mut() = Body::from(body);
    response
}

fn act(modern: bool, text: &str) -> Act {
    let Ok(message) = serde_json::from_str::<Incoming<'_>>(text) else { return Act::Silence };
    let (Some(id), Some(method)) = (message.id, message.method) else { return Act::Silence };
    let params = message.params.map_or("{}", RawValue::get);
    let error = |code: i32| Act::Say(vec![answer(id, "error", &format!(r#"{{"code":{code},"message":"no"}}"#))]);
    let result = |text: &str| Act::Say(vec![answer(id, "result", text)]);
    let capabilities = r#""capabilities":{"tools":{}}"#;
    match (method.as_str(), modern) {
        ("initialize", false) => result(&format!(
            r#"{{"protocolVersion":"2025-11-25",{capabilities},"serverInfo":{{"name":"mirror","version":"1"}}}}"#
        )),
        ("server/discover", true) => result(&format!(
            r#"{{"resultType":"complete","supportedVersions":["2026-07-28"],{capabilities},"ttlMs":0,"cacheScope":"private"}}"#
        )),
        ("tools/list", _) => result(&tools()),
        ("tools/call", _) => call(modern, id, params),
        _ => error(-32601),
    }
}

fn tools() -> String {
    let tool = |name: &str| format!(r#"{{"name":"{name}","x-odd":1.0,"inputSchema":{{"type":"object"}}}}"#);
    let all: Vec<String> = ["echo", "hang", "slow", "garbage", "die"].into_iter().map(tool).collect();
    // One of them is broken, and costs itself only.
    format!(
        r#"{{"resultType":"complete","ttlMs":60000,"cacheScope":"private","tools":[{},{{"name":"broken","inputSchema":null}}]}}"#,
        all.join(",")
    )
}

fn call(modern: bool, id: &RawValue, text: &str) -> Act {
    let params: Params<'_> = serde_json::from_str(text).unwrap_or_default();
    let arguments = params.arguments.map_or("{}", RawValue::get);
    let arguments: Arguments<'_> = serde_json::from_str(arguments).unwrap_or_default();
    let value = arguments.value.map_or("null", RawValue::get);
    let kind = if modern { r#""resultType":"complete","# } else { "" };
    // The whole of what arrived, and the value wherever a result can hold it.
    let result = format!(
        r#"{{{kind}"odd":{value},"content":[{{"type":"strange","x":{value}}},{{"type":"text","text":"t","annotations":{{"audience":["system"]}}}}],"structuredContent":{value},"action":"accept","_meta":{{"own":{value}}},"arrived":{text}}}"#
    );
    let said = answer(id, "result", &result);
    match (params.name.as_str(), arguments.mode.as_str()) {
        ("hang", _) => Act::Hang,
        ("die", _) => Act::Die,
        ("slow", _) => Act::Late(Duration::from_millis(300), vec![said]),
        ("garbage", _) => Act::Say(vec![format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{{")]),
        (_, "error") => {
            let error = format!(r#"{{"code":-32099,"message":"m","odd":{value},"data":{value}}}"#);
            Act::Say(vec![answer(id, "error", &error)])
        }
        (_, "progress") => {
            let token = params.meta.and_then(|m| serde_json::from_str::<Meta<'_>>(m.get()).ok());
            let Some(token) = token.and_then(|m| m.token) else { return Act::Say(vec![said]) };
            let progress = format!(r#"{{"progressToken":{token},"progress":1.50,"total":2E0,"odd":{value}}}"#);
            let note = format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{progress}}}"#);
            Act::Say(vec![note, said])
        }
        _ => Act::Say(vec![said]),
    }
}

fn answer(id: &RawValue, key: &str, value: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"{key}":{value}}}"#)
}
