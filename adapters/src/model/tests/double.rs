//! A provider: answers each request with the next answer of its list, and remembers them all.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What it answers.
#[derive(Clone, Default)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    chunks: Vec<String>,
    /// Before each chunk.
    pause: Duration,
    end: End,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum End {
    #[default]
    Whole,
    Broken,
    Never,
}

impl Answer {
    /// Events, each a document.
    pub(super) fn events(events: &[Value]) -> Self {
        let frame = |event: &Value| match event["type"].as_str() {
            Some(kind) => format!("event: {kind}\ndata: {event}\n\n"),
            None => format!("data: {event}\n\n"),
        };
        Self::raw("text/event-stream", events.iter().map(frame).collect())
    }
    /// Any chunks.
    pub(super) fn raw(kind: &str, chunks: Vec<String>) -> Self {
        Self { status: 200, headers: vec![("content-type", kind.into())], chunks, ..Self::default() }
    }
    /// An error.
    pub(super) fn error(status: u16, body: &Value) -> Self {
        Self { status, ..Self::raw("application/json", vec![body.to_string()]) }
    }
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
    /// More text at the end.
    pub(super) fn then(mut self, text: &str) -> Self {
        self.chunks.push(text.to_owned());
        self
    }
    /// The connection is cut after the chunks.
    pub(super) fn broken(self) -> Self {
        Self { end: End::Broken, ..self }
    }
    /// Nothing comes after the chunks.
    pub(super) fn endless(self) -> Self {
        Self { end: End::Never, ..self }
    }
    pub(super) fn slow(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

/// A request it was sent.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    pub(super) at: Duration,
}

struct State {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    /// Connections that are open.
    open: watch::Sender<usize>,
    began: Instant,
}

/// The provider; gone with the value.
pub(super) struct Double {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

impl Double {
    /// Answers in this order; the last one again and again.
    pub(super) async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answers: Mutex::new(answers.into_iter().collect()),
            seen: Mutex::default(),
            open: watch::Sender::new(0),
            began: Instant::now(),
        });
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                state.open.send_modify(|open| *open += 1);
                connections.spawn(async move {
                    let service = hyper::service::service_fn(|request| respond(state.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    state.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
    /// Returns when no connection is open.
    pub(super) async fn left(&self) {
        self.state.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    state.seen.lock().unwrap().push(Seen {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap(),
        at: state.began.elapsed(),
    });
    let answer = {
        let mut answers = state.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    };
    let answer = answer.expect("an answer");
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let Answer { chunks, pause, end, .. } = answer;
    let body = stream::unfold((chunks.into_iter(), false), move |(mut chunks, ended)| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        match (chunks.next(), end) {
            (Some(chunk), _) => Some((Ok(Frame::data(Bytes::from(chunk))), (chunks, false))),
            (None, End::Broken) if !ended => {
                // What was said before is heard before.
                tokio::time::sleep(Duration::from_millis(10)).await;
                Some((Err(std::io::Error::other("cut")), (chunks, true)))
            }
            (None, End::Never) => std::future::pending().await,
            (None, _) => None,
        }
    });
    Ok(response.body(StreamBody::new(body).boxed_unsync()).unwrap())
}
