//! The world outside the process that dies: a model and tools over HTTP, in the harness's own
//! process. They write down what reached them, and can kill at the very moment it does.

use super::scene;
use super::tools::{self, Made, Wish};
use super::victim::Victim;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

/// A moment at which the world kills whoever asks it something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// The call of a tool is there, and nothing was done.
    ToolAsked,
    /// The tool has done it, and has not said so.
    ToolDone,
    /// The request is with the model.
    ModelAsked,
    /// The model has said half of what it says.
    ModelHalf,
}

impl Moment {
    pub(super) const ALL: [Moment; 4] = [Moment::ToolAsked, Moment::ToolDone, Moment::ModelAsked, Moment::ModelHalf];
}

/// A request that reached the model.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Whose: the first thing its run was asked.
    pub(super) prompt: String,
    pub(super) turn: usize,
    /// What tools gave: the call, and the words.
    pub(super) told: Vec<(String, String)>,
}

/// What reached the world during one trial.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    pub(super) made: Vec<Made>,
    pub(super) requests: Vec<Request>,
    /// How often it was asked whether a call happened.
    pub(super) looked: usize,
}

struct World {
    book: Mutex<Book>,
    strike: Mutex<Option<(Moment, u32)>>,
    victim: Arc<Victim>,
}

/// The world, listening.
pub(super) struct Double {
    pub(super) base: String,
    world: Arc<World>,
}

impl Double {
    pub(super) fn start(runtime: &Handle, victim: Arc<Victim>) -> Result<Self, String> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).map_err(|e| e.to_string())?;
        let base = format!("http://{}", listener.local_addr().map_err(|e| e.to_string())?);
        let world = Arc::new(World { book: Mutex::default(), strike: Mutex::default(), victim });
        let router = Router::new().route("/v1/chat/completions", post(complete)).route("/mcp", post(call));
        let router = router.with_state(world.clone());
        // Ends with the harness.
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { base, world })
    }
    /// Kills at the n-th such moment from now on; `None` never.
    pub(super) fn strike(&self, at: Option<(Moment, u32)>) {
        *lock(&self.world.strike) = at;
    }
    /// A new trial.
    pub(super) fn begin(&self) {
        *lock(&self.world.book) = Book::default();
    }
    pub(super) fn book(&self) -> Book {
        lock(&self.world.book).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Whether this is the moment; whoever asks is dead then.
    fn kills(&self, moment: Moment) -> bool {
        let mut strike = lock(&self.strike);
        let Some((_, left)) = strike.as_mut().filter(|(at, _)| *at == moment) else { return false };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        *strike = None;
        self.victim.kill();
        true
    }
}

async fn call(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = match tools::wish(&message) {
        Wish::Nothing => return Response::new(Body::empty()),
        Wish::Answer(answer) => answer,
        Wish::Look(key, answer) => {
            let mut book = lock(&world.book);
            book.looked += 1;
            tools::looked(answer, book.made.iter().any(|made| made.key == key))
        }
        Wish::Use(made, answer) => {
            if world.kills(Moment::ToolAsked) {
                return nobody().await;
            }
            lock(&world.book).made.push(made);
            if world.kills(Moment::ToolDone) {
                return nobody().await;
            }
            answer
        }
    };
    said("application/json", Body::from(answer.to_string()))
}

/// Nobody is there to be answered; the connection closes by itself.
async fn nobody() -> Response {
    std::future::pending().await
}

fn said(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", axum::http::HeaderValue::from_static(kind));
    response
}

async fn complete(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let messages = asked["messages"].as_array().cloned().unwrap_or_default();
    let role = |message: &Value, role: &str| message["role"] == role;
    let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
    let prompt = messages.iter().find(|m| role(m, "user")).map(text).unwrap_or_default();
    let turn = messages.iter().filter(|m| role(m, "assistant")).count();
    let results = messages.iter().filter(|m| role(m, "tool"));
    let told = results.map(|m| (m["tool_call_id"].as_str().unwrap_or_default().to_owned(), text(m))).collect();
    let heard: Vec<String> = messages.iter().filter(|m| role(m, "tool") || role(m, "user")).map(text).collect();
    lock(&world.book).requests.push(Request { prompt: prompt.clone(), turn, told });
    if world.kills(Moment::ModelAsked) {
        return nobody().await;
    }
    let reply = scene::reply(&prompt, turn, &heard);
    let event = |event: Value| format!("data: {event}\n\n");
    let first = event(json!({ "model": "double", "choices": [
        { "index": 0, "delta": { "role": "assistant", "content": reply.text } }
    ] }));
    let calls = reply.calls.iter().enumerate().map(|(i, (name, input))| {
        json!({ "index": i, "id": format!("c{turn}-{i}"), "type": "function",
                "function": { "name": name, "arguments": input.to_string() } })
    });
    let calls: Vec<Value> = calls.collect();
    let stop = if calls.is_empty() { "stop" } else { "tool_calls" };
    let mut delta = json!({});
    if !calls.is_empty() {
        delta["tool_calls"] = calls.into();
    }
    let (input, output) = scene::usage(&prompt, turn);
    let last = event(json!({ "model": "double", "choices": [{ "index": 0, "delta": delta, "finish_reason": stop }] }))
        + &event(json!({ "model": "double", "choices": [],
                         "usage": { "prompt_tokens": input, "completion_tokens": output } }))
        + "data: [DONE]\n\n";
    let half = world.clone();
    let rest = stream::once(async move {
        if half.kills(Moment::ModelHalf) {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Bytes::from(last))
    });
    let body = stream::once(async move { Ok::<_, Infallible>(Bytes::from(first)) }).chain(rest);
    said("text/event-stream", Body::from_stream(body))
}
