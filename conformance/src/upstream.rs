//! An MCP server over HTTP in the test's own process. What it does to each request the test says;
//! what arrived, and which of its streams still stand, the test waits for as events.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Nobody waits longer for something to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method of its message; of one without, the method of HTTP.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; a form stays text.
    pub body: Value,
    /// When.
    pub at: Instant,
    /// How many of the same method came before it.
    pub before: usize,
}

impl Seen {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// What is done to a request.
pub enum Act {
    /// A result for its id.
    Result(Value),
    /// The same, with a session that begins.
    Session(String, Value),
    /// An error for its id.
    Error(Value),
    /// A status and a body that is no message of its.
    Status(u16, Value),
    /// A status and a header.
    Headed(u16, &'static str, String),
    /// It is taken, and that is all.
    Taken,
    /// The result comes this much later.
    Late(Duration, Value),
    /// No answer, ever.
    Hang,
    /// The answer comes when the test says so.
    Held(mpsc::UnboundedReceiver<Value>),
    /// A stream of events that ends when its sender is dropped.
    Stream(mpsc::UnboundedReceiver<Value>),
}

type Does = dyn Fn(&Seen) -> Act + Send + Sync;

#[derive(Clone)]
struct Shared {
    does: Arc<Does>,
    seen: watch::Sender<Vec<Seen>>,
    open: watch::Sender<usize>,
}

/// The server. It ends with the test process.
pub struct Upstream {
    /// `http://127.0.0.1:PORT`
    pub base: String,
    seen: watch::Receiver<Vec<Seen>>,
    open: watch::Receiver<usize>,
}

impl Upstream {
    /// Starts it on a free port, on a thread of its own: tests block theirs.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(does: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::of(|_| does)
    }
    /// The same for one that must know its own address.
    ///
    /// # Panics
    /// When there is no port.
    #[allow(clippy::unwrap_used)]
    pub fn of<D: Fn(&Seen) -> Act + Send + Sync + 'static>(make: impl FnOnce(&str) -> D) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (seen, seen_by) = watch::channel(Vec::new());
        let (open, open_by) = watch::channel(0);
        let shared = Shared { does: Arc::new(make(&base)), seen, open };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().fallback(on_request).with_state(shared)).await
            })
        });
        Self { base, seen: seen_by, open: open_by }
    }
    /// Where its MCP is.
    pub fn url(&self) -> String {
        format!("{}/mcp", self.base)
    }
    /// What came by a method so far.
    pub fn came(&self, method: &str) -> Vec<Seen> {
        self.seen.borrow().iter().filter(|s| s.method == method).cloned().collect()
    }
    /// What came to a path so far.
    pub fn came_to(&self, path: &str) -> Vec<Seen> {
        self.seen.borrow().iter().filter(|s| s.path == path).cloned().collect()
    }
    /// Waits until `count` requests of a method came; gives them.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn until(&self, method: &str, count: usize) -> Vec<Seen> {
        self.enough(method, count, |s| s.method == method).await
    }
    /// The same by the path they came to.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn until_at(&self, path: &str, count: usize) -> Vec<Seen> {
        self.enough(path, count, |s| s.path == path).await
    }
    async fn enough(&self, what: &str, count: usize, is: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let mut seen = self.seen.clone();
        let enough = |all: &Vec<Seen>| all.iter().filter(|s| is(s)).count() >= count;
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(enough)).await.map(|w| w.is_ok());
        let came: Vec<Seen> = self.seen.borrow().iter().filter(|s| is(s)).cloned().collect();
        assert_eq!(waited, Ok(true), "{what} came {} times of {count}: {:?}", came.len(), self.methods());
        came
    }
    /// Waits until so many of its streams stand.
    ///
    /// # Panics
    /// When it stays at another number.
    pub async fn until_open(&self, count: usize) {
        let mut open = self.open.clone();
        let waited = tokio::time::timeout(PATIENCE, open.wait_for(|n| *n == count)).await.map(|w| w.is_ok());
        assert_eq!(waited, Ok(true), "{} streams stand, not {count}", *self.open.borrow());
    }
    fn methods(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|s| s.method.clone()).collect()
    }
}

async fn on_request(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap_or_default();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
    let method = body["method"].as_str().map_or_else(|| parts.method.to_string(), str::to_owned);
    let mut seen =
        Seen { method, path: parts.uri.to_string(), headers: parts.headers, body, at: Instant::now(), before: 0 };
    shared.seen.send_modify(|all| {
        seen.before = all.iter().filter(|s| s.method == seen.method).count();
        all.push(seen.clone());
    });
    let said = |key: &str, value: Value| json!({ "jsonrpc": "2.0", "id": seen.body["id"], (key): value });
    match (shared.does)(&seen) {
        Act::Result(result) => response(200, &said("result", result)),
        Act::Session(session, result) => {
            let mut response = response(200, &said("result", result));
            if let Ok(session) = HeaderValue::from_str(&session) {
                response.headers_mut().insert("mcp-session-id", session);
            }
            response
        }
        Act::Error(error) => response(200, &said("error", error)),
        Act::Status(status, body) => response(status, &body),
        Act::Headed(status, name, value) => {
            let mut response = response(status, &Value::Null);
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
            response
        }
        Act::Taken => response(202, &Value::Null),
        Act::Late(wait, result) => {
            tokio::time::sleep(wait).await;
            response(200, &said("result", result))
        }
        Act::Hang => std::future::pending().await,
        Act::Held(mut answer) => match answer.recv().await {
            Some(value) if seen.body["id"].is_null() => response(200, &value),
            Some(value) => response(200, &said("result", value)),
            None => std::future::pending().await,
        },
        Act::Stream(events) => events_of(events, Open::new(shared.open)),
    }
}

fn response(status: u16, body: &Value) -> Response {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// One stream that stands; dropped with its body.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(all: watch::Sender<usize>) -> Self {
        all.send_modify(|n| *n += 1);
        Self(all)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

fn events_of(events: mpsc::UnboundedReceiver<Value>, open: Open) -> Response {
    // The head goes out with the first bytes on some ways, so there are some at once.
    let first = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b": open\n\n"))]);
    let rest = stream::unfold((events, open), |(mut events, open)| async move {
        let event = events.recv().await?;
        Some((Ok(Bytes::from(format!("data: {event}\n\n"))), (events, open)))
    });
    let mut response = Response::new(Body::from_stream(futures_util::StreamExt::chain(first, rest)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}

/// A stream that says these things and then stands, or ends.
pub fn saying(messages: impl IntoIterator<Item = Value>, stands: bool) -> Act {
    let (say, said) = mpsc::unbounded_channel();
    messages.into_iter().for_each(|m| drop(say.send(m)));
    if stands {
        // It stands for as long as the process does.
        std::mem::forget(say);
    }
    Act::Stream(said)
}

/// The plain part of a server with sessions: the tools are named, everything else the test does.
pub fn legacy(seen: &Seen, capabilities: Value, tools: &[&str]) -> Option<Act> {
    Some(match seen.method.as_str() {
        "server/discover" => Act::Status(400, json!({ "error": "Bad Request: unknown method" })),
        "initialize" => Act::Session(
            format!("session-{}", seen.before),
            json!({
                "protocolVersion": "2025-11-25",
                "capabilities": capabilities,
                "serverInfo": { "name": "upstream", "version": "1" },
            }),
        ),
        "tools/list" => Act::Result(listed(tools)),
        method if method.starts_with("notifications/") => Act::Taken,
        "GET" => Act::Status(405, Value::Null),
        "DELETE" => Act::Status(200, Value::Null),
        _ => return None,
    })
}

/// The plain part of a server without sessions.
pub fn modern(seen: &Seen, capabilities: Value, tools: &[&str]) -> Option<Act> {
    Some(match seen.method.as_str() {
        "server/discover" => Act::Result(json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": capabilities,
            "serverInfo": { "name": "upstream", "version": "1" },
            "ttlMs": 0,
            "cacheScope": "private",
        })),
        "tools/list" => Act::Result(listed(tools)),
        _ => return None,
    })
}

fn listed(tools: &[&str]) -> Value {
    let tools: Vec<Value> =
        tools.iter().map(|name| json!({ "name": name, "inputSchema": { "type": "object" } })).collect();
    json!({ "resultType": "complete", "ttlMs": 60000, "cacheScope": "private", "tools": tools })
}

/// A tool's result of one text.
pub fn told(text: &str) -> Value {
    json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] })
}
