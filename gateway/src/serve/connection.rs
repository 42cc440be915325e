//! One client's connection. hyper speaks HTTP on it while there is something to speak about, and
//! with it go its buffers: two of eight kilobytes and more, whatever they hold. Most clients are
//! idle most of the time, so most connections are without.
//!
//! ```text
//!            readable                  answered with a stream
//!   asleep ───────────▶ spoken (hyper) ──────────────────────▶ streaming
//!     ▲                  │          ▲                              │
//!     └──────────────────┘          └──────────────────────────────┘
//!      nothing said for a while             the stream ended
//! ```
//!
//! One that ends with a request that was answered before all of it was read lingers (`linger`).
//!
//! A client is waited for, but not for ever: what it began it finishes within the limits below.
//! One that only sleeps is let be until its seat is wanted.

use super::linger::linger;
use super::seats::Seats;
use super::streaming;
use super::turn::Turn;
use super::wire::{Busy, Owed, Tally, Wire};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection that said nothing from one look to the next falls asleep.
const LOOK: Duration = Duration::from_secs(2);
/// A request's head arrives within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Its body within this, however it trickles in.
const BODY_LIMIT: Duration = Duration::from_secs(120);
/// A client that reads nothing for so long of what is said to it is not there any more.
pub(super) const EAR_LIMIT: Duration = Duration::from_secs(60);
/// It may have this many bytes.
const MAX_HEAD: usize = 128 << 10;

/// Looks at the headers and the path of a request before any door sees it; why it may not come in.
pub(super) type Screen = Arc<dyn Fn(&http::HeaderMap, &str) -> Result<(), Response> + Send + Sync>;

/// What connections have in common.
pub(super) struct House {
    pub(super) doors: TowerToHyperService<Router>,
    pub(super) screen: Screen,
    pub(super) seats: Seats,
    pub(super) closing: CancellationToken,
    /// What is served over HTTP/2.
    #[cfg(feature = "grpc")]
    pub(super) second: TowerToHyperService<Router>,
}

/// Keeps a connection until it ends, or until it is idle and the house is closing or full.
pub(super) async fn keep(socket: TcpStream, house: Arc<House>) {
    let mut wire = Wire::new(socket);
    #[cfg(feature = "grpc")]
    let mut known = false;
    while !house.closing.is_cancelled() {
        if wire.ahead.is_empty() {
            // Looked at, not read: that a socket may be readable is no more than a guess.
            let mut byte = [0];
            tokio::select! {
                seen = wire.socket.peek(&mut byte) => if !seen.is_ok_and(|n| n > 0) { return },
                () = house.closing.cancelled() => return,
                () = house.seats.wanted() => return,
            }
        }
        // What a connection is, it says with its first line.
        #[cfg(feature = "grpc")]
        if !std::mem::replace(&mut known, true) {
            let Some((begun, second)) = Box::pin(super::second::begins(wire, &house)).await else { return };
            if second {
                return Box::pin(super::second::keep(begun, &house, &house.second)).await;
            }
            wire = begun;
        }
        // In a box of its own, or it would cost its size while it sleeps.
        wire = match Box::pin(spoken(wire, &house)).await {
            Then::Ended => return,
            Then::Lingers(wire) => return linger(&wire.socket, &house).await,
            Then::Rests(wire) => wire,
            Then::Streams(wire, stream) => {
                if streaming::stream(&wire, stream).await.is_err() {
                    return;
                }
                wire
            }
        };
    }
}

/// What follows when hyper was at work.
enum Then {
    Ended,
    /// It is answered, our side of it is shut, and the client may still be writing.
    Lingers(Wire),
    Rests(Wire),
    Streams(Wire, Response),
}

async fn spoken(wire: Wire, house: &House) -> Then {
    let tally = wire.tally.clone();
    let answers = Answers { doors: house.doors.clone(), screen: house.screen.clone(), tally: tally.clone() };
    let mut http = http1::Builder::new().max_header_size(MAX_HEAD).serve_connection(TokioIo::new(wire), answers);
    let mut closed = pin!(house.closing.cancelled());
    let mut asked_to_close = false;
    let mut look = pin!(tokio::time::sleep(LOOK));
    let (mut seen, mut waits, turns) = (0, Waits::default(), Turn::new());
    loop {
        let turn = poll_fn(|cx| {
            turns.poll(cx, |cx| match Pin::new(&mut http).poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Err(ended)),
                Poll::Pending => tally.take_stream().map_or(Poll::Pending, |stream| Poll::Ready(Ok(stream))),
            })
        });
        let stream = tokio::select! {
            biased;
            turn = turn => match turn {
                Ok(stream) => Some(stream),
                Err(ended) => {
                    if let Err(e) = ended {
                        tracing::debug!("a client's connection ended: {e}");
                    }
                    return if tally.is_cut_short() { Then::Lingers(http.into_parts().io.into_inner()) } else { Then::Ended };
                }
            },
            () = &mut look => {
                look.as_mut().reset(Instant::now() + LOOK);
                let before = std::mem::replace(&mut seen, tally.bytes());
                if let Some(what) = waits.too_long_for(tally.owed()) {
                    tracing::debug!("a client's connection is ended: {what}");
                    return Then::Ended;
                }
                if !(tally.is_idle() && before == seen) {
                    continue;
                }
                None
            }
            () = &mut closed, if !asked_to_close => {
                asked_to_close = true;
                // What is not asked yet is not waited for.
                if tally.is_amid_head() {
                    return Then::Ended;
                }
                Pin::new(&mut http).graceful_shutdown();
                continue;
            }
        };
        let parts = http.into_parts();
        let wire = parts.io.into_inner().again(parts.read_buf);
        return match stream {
            Some(stream) => Then::Streams(wire, stream),
            None => Then::Rests(wire),
        };
    }
}

/// What a client is waited for, and since when.
#[derive(Default)]
struct Waits(Option<(Owed, Instant)>);

impl Waits {
    /// What did not come in time.
    fn too_long_for(&mut self, owed: Option<Owed>) -> Option<&'static str> {
        let now = Instant::now();
        let before = self.0.take_if(|(before, _)| owed == Some(*before));
        self.0 = owed.map(|owed| (owed, before.map_or(now, |(_, since)| since)));
        let (owed, since) = self.0?;
        let (limit, what) = match owed {
            Owed::Head(_) => (HEAD_LIMIT, "the head of its request does not end"),
            Owed::Body(_) => (BODY_LIMIT, "the body of its request does not end"),
            Owed::Ear(_) => (EAR_LIMIT, "it does not read what it is told"),
        };
        (now - since >= limit).then_some(what)
    }
}

/// The doors, as hyper asks them.
struct Answers {
    doors: TowerToHyperService<Router>,
    screen: Screen,
    tally: Arc<Tally>,
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.tally.begin(!request.body().is_end_stream());
        let may_stream = streaming::can(&request) && request.version() == Version::HTTP_11;
        let tally = self.tally.clone();
        if let Err(refusal) = (self.screen)(request.headers(), request.uri().path()) {
            return Box::pin(std::future::ready(Ok(refusal.map(|body| Answer { body, _busy: busy }))));
        }
        let answer = self.doors.call(request.map(|body| Asked { body, tally }));
        Box::pin(async move {
            let response = answer.await?;
            // Of a body that was not read, the rest would be taken for the next request.
            if may_stream && busy.is_read() && streaming::is(&response) {
                busy.hand_over(response);
                // Whoever polls hyper takes it, and puts hyper down.
                return std::future::pending().await;
            }
            Ok(response.map(|body| Answer { body, _busy: busy }))
        })
    }
}

/// A request's body, which tells when it was read.
struct Asked {
    body: Incoming,
    tally: Arc<Tally>,
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.tally.was_read();
        }
        frame
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.tally.let_go();
    }
}

/// An answer's body. When it is gone, the request is answered.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
