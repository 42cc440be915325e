//! A connection of HTTP/2, which is gRPC's: it begins with a line that no request of HTTP/1 is.
//!
//! Its requests stand beside one another, so it never sleeps; it has one seat, and gives it up when
//! nothing is asked on it and the seat is wanted. Whoever does not answer a ping is not there any more.

use super::connection::{EAR_LIMIT, House, Screen};
use super::wire::Wire;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::HOST;
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio_util::task::TaskTracker;

/// What it begins with (RFC 9113, section 3.4), as far as it takes to know it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// Requests at a time on one connection.
const STREAMS: u32 = 32;
const MAX_HEAD: u32 = 64 << 10;
/// How long nothing is heard before a ping, and how long its answer is waited for.
const PING: Duration = Duration::from_secs(30);
const EAR: Duration = Duration::from_secs(20);
/// How often it is looked whether it is idle.
const LOOK: Duration = Duration::from_secs(2);
/// So long a first line may take.
const LINE_LIMIT: Duration = Duration::from_secs(30);

/// Whether a connection speaks HTTP/2; what was read to know it is ahead. `None`: it ended.
pub(super) async fn begins(mut wire: Wire, house: &House) -> Option<(Wire, bool)> {
    let mut read = BytesMut::from(&*std::mem::take(&mut wire.ahead));
    let decided = |read: &[u8]| match PREFACE.iter().zip(read).all(|(wanted, is)| wanted == is) {
        false => Some(false),
        true => (read.len() >= PREFACE.len()).then_some(true),
    };
    let limit = tokio::time::sleep(LINE_LIMIT);
    let mut limit = pin!(limit);
    loop {
        if !read.is_empty()
            && let Some(second) = decided(&read)
        {
            wire.ahead = read.freeze();
            return Some((wire, second));
        }
        tokio::select! {
            n = wire.socket.read_buf(&mut read) => if !n.is_ok_and(|n| n > 0) { return None },
            () = &mut limit => return None,
            () = house.closing.cancelled() => return None,
            () = house.seats.wanted() => return None,
        }
    }
}

/// Keeps it until it ends, or is idle and the house is closing or full.
pub(super) async fn keep(wire: Wire, house: &House, doors: &TowerToHyperService<Router>) {
    let (tasks, asked) = (Tasks(TaskTracker::new()), Arc::new(Asked::default()));
    let mut http = http2::Builder::new(tasks.clone());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING)
        .keep_alive_timeout(EAR);
    let service = Answers { doors: doors.clone(), screen: house.screen.clone(), asked: asked.clone() };
    let mut http = pin!(http.serve_connection(TokioIo::new(wire), service));
    let mut leaving = false;
    loop {
        let idle = asked.open.load(Ordering::Relaxed) == 0;
        tokio::select! {
            ended = &mut http => {
                if let Err(e) = ended {
                    tracing::debug!("a client's connection ended: {e}");
                }
                break;
            }
            () = house.closing.cancelled(), if !leaving => {
                leaving = true;
                http.as_mut().graceful_shutdown();
            }
            () = house.seats.wanted(), if idle && !leaving => {
                leaving = true;
                http.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(LOOK) => {
                if asked.is_unheard() {
                    tracing::debug!("a client's connection is ended: it does not read what it is told");
                    break;
                }
            }
        }
    }
    // Nothing it began is left behind.
    tasks.0.close();
    tasks.0.wait().await;
}

/// What hyper begins belongs to the connection.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

/// The doors, as hyper asks them.
struct Answers {
    doors: TowerToHyperService<Router>,
    screen: Screen,
    asked: Arc<Asked>,
}

/// What is asked on one connection.
#[derive(Default)]
struct Asked {
    open: AtomicUsize,
    next: AtomicU64,
    /// Of answers of which a piece is said and the next not asked for yet: since when.
    said: Mutex<HashMap<u64, Instant>>,
}

impl Asked {
    /// Whether somebody reads nothing of an answer: hyper asks for the next piece when there is room
    /// for it.
    fn is_unheard(&self) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.values().any(|since| since.elapsed() >= EAR_LIMIT)
    }
}

/// A request that is being answered.
struct Open(Arc<Asked>, u64);

impl Open {
    fn new(asked: &Arc<Asked>) -> Self {
        asked.open.fetch_add(1, Ordering::Relaxed);
        Self(asked.clone(), asked.next.fetch_add(1, Ordering::Relaxed))
    }
    /// A piece was said, or the next is waited for.
    fn said(&self, piece: bool) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        match piece {
            true => drop(said.insert(self.1, Instant::now())),
            false => drop(said.remove(&self.1)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.said(false);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // Which host is meant stands in its address here, and nothing else says so.
        let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        match host {
            Some(host) => drop(request.headers_mut().insert(HOST, host)),
            None => drop(request.headers_mut().remove(HOST)),
        }
        let open = Open::new(&self.asked);
        if let Err(refusal) = (self.screen)(request.headers(), request.uri().path()) {
            return Box::pin(std::future::ready(Ok(refusal.map(|body| Answer { body, open }))));
        }
        let answer = self.doors.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Answer { body, open })) })
    }
}

/// An answer's body. When it is gone, the request is answered.
struct Answer {
    body: Body,
    open: Open,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.open.said(matches!(polled, Poll::Ready(Some(_))));
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
