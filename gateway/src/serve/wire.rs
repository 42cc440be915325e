//! A client's socket as hyper is given it, and what is known of its use from outside: whether
//! something is being answered, whether all that was said has left, and what was read since.

use axum::response::Response;
use bytes::{Buf, Bytes};
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What hyper's keeper knows of a connection. All of it is of one task, which is why nothing here
/// orders anything.
#[derive(Default)]
pub(super) struct Tally {
    /// A request is being answered.
    busy: AtomicBool,
    /// Requests so far.
    asked: AtomicU64,
    /// The last one's body was not read to the end.
    unread: AtomicBool,
    /// Somebody is still to read it.
    wanted: AtomicBool,
    /// Something was written and not yet flushed.
    unsaid: AtomicBool,
    /// Bytes written.
    written: AtomicU64,
    /// Bytes read.
    read: AtomicU64,
    /// The same when the last request was answered.
    answered: AtomicU64,
    /// An answer that is a stream, and is taken out of hyper's hands.
    stream: Mutex<Option<Response>>,
}

impl Tally {
    /// A request came; it is answered when what this gives is dropped.
    pub(super) fn begin(self: &Arc<Self>, unread: bool) -> Busy {
        self.busy.store(true, Relaxed);
        self.asked.fetch_add(1, Relaxed);
        self.unread.store(unread, Relaxed);
        self.wanted.store(unread, Relaxed);
        Busy(self.clone())
    }
    /// The request's body was read to the end.
    pub(super) fn was_read(&self) {
        self.unread.store(false, Relaxed);
    }
    /// Nobody reads of it any more.
    pub(super) fn let_go(&self) {
        self.wanted.store(false, Relaxed);
    }
    pub(super) fn is_read(&self) -> bool {
        !self.unread.load(Relaxed)
    }
    /// The last request was answered before its body was read to the end.
    pub(super) fn is_cut_short(&self) -> bool {
        !self.is_read() && !self.busy.load(Relaxed)
    }
    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.read.load(Relaxed)
    }
    /// Nothing is being answered, said, or asked.
    pub(super) fn is_idle(&self) -> bool {
        !self.busy.load(Relaxed) && !self.unsaid.load(Relaxed) && !self.is_amid_head()
    }
    /// What the client is waited for.
    pub(super) fn owed(&self) -> Option<Owed> {
        let (unread, wanted) = (self.unread.load(Relaxed), self.wanted.load(Relaxed));
        match (self.unsaid.load(Relaxed), self.is_amid_head()) {
            (true, _) => Some(Owed::Ear(self.written.load(Relaxed))),
            (false, true) => Some(Owed::Head(self.asked.load(Relaxed))),
            (false, false) => (unread && wanted).then(|| Owed::Body(self.asked.load(Relaxed))),
        }
    }
    /// Something was read since the last answer, and it is no request yet.
    pub(super) fn is_amid_head(&self) -> bool {
        !self.busy.load(Relaxed) && self.read.load(Relaxed) != self.answered.load(Relaxed)
    }
    pub(super) fn hand_over(&self, stream: Response) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }
    /// The stream that was handed over, once all that was said before it has left.
    pub(super) fn take_stream(&self) -> Option<Response> {
        if self.unsaid.load(Relaxed) {
            return None;
        }
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a client owes that was begun: two that are equal are one, and nothing came of it between.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Owed {
    /// The rest of a request's head.
    Head(u64),
    /// The rest of its body.
    Body(u64),
    /// To read what is said to it, of which so many bytes have left.
    Ear(u64),
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Tally>);

impl std::ops::Deref for Busy {
    type Target = Tally;
    fn deref(&self) -> &Tally {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.answered.store(self.0.bytes(), Relaxed);
        self.0.busy.store(false, Relaxed);
    }
}

/// The socket.
pub(super) struct Wire {
    pub(super) socket: TcpStream,
    /// What was read of it and belongs to the next request.
    pub(super) ahead: Bytes,
    pub(super) tally: Arc<Tally>,
}

impl Wire {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, ahead: Bytes::new(), tally: Arc::default() }
    }
    /// As it came out of hyper's hands: with what hyper read ahead.
    pub(super) fn again(self, ahead: Bytes) -> Self {
        // What hyper did not use of what it was given a second time comes first.
        let ahead = match (ahead.is_empty(), self.ahead.is_empty()) {
            (true, _) => self.ahead,
            (_, true) => ahead,
            _ => [ahead, self.ahead].concat().into(),
        };
        Self { socket: self.socket, ahead, tally: Arc::default() }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        } else {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
        }
        self.tally.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.tally.unsaid.store(true, Relaxed);
        let n = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.tally.written.fetch_add(n as u64, Relaxed);
        Poll::Ready(Ok(n))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.tally.unsaid.store(true, Relaxed);
        let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?;
        self.tally.written.fetch_add(n as u64, Relaxed);
        Poll::Ready(Ok(n))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    /// hyper flushes when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.tally.unsaid.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
