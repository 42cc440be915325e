//! An event stream written by hand, chunk by chunk, on a connection taken out of hyper's hands:
//! it stands for hours and says a line a minute, and needs no buffer for that. When it ended, the
//! next request is read from where it left.

use super::connection::EAR_LIMIT;
use super::wire::Wire;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use std::io::{Error, ErrorKind, Result, Write};
use tokio::net::TcpStream;

/// Events that came at once are written at once, up to this many bytes.
const GATHERED: usize = 16 << 10;

/// Whether the answer to a request may be a stream of chunks after which the connection goes on.
pub(super) fn can<B>(request: &Request<B>) -> bool {
    let closes = request.headers().get_all(header::CONNECTION).iter();
    let closes = closes.flat_map(|v| v.as_bytes().split(|b| *b == b','));
    let mut closes = closes.filter(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
    matches!(*request.method(), Method::GET | Method::POST) && closes.next().is_none()
}

/// Whether an answer is one.
pub(super) fn is(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
}

/// Writes it to its end.
///
/// # Errors
/// When the client went, or the stream broke off.
pub(super) async fn stream(wire: &Wire, stream: Response) -> Result<()> {
    let (socket, gone) = (&wire.socket, gone(&wire.socket, !wire.ahead.is_empty()));
    tokio::select! {
        written = write(socket, stream) => written,
        () = gone => Err(ErrorKind::ConnectionReset.into()),
    }
}

async fn write(socket: &TcpStream, stream: Response) -> Result<()> {
    let (mut out, mut more) = (head(&stream)?, true);
    let mut body = stream.into_body();
    loop {
        more = more && gather_ready(&mut out, &mut body)?;
        if !more {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        // Given away with what it holds: between two events there is no buffer.
        all(socket, std::mem::take(&mut out)).await?;
        if !more {
            return Ok(());
        }
        more = gather(&mut out, body.frame().await)?;
    }
}

/// What is there already; `false` at the end.
fn gather_ready(out: &mut Vec<u8>, body: &mut Body) -> Result<bool> {
    while out.len() < GATHERED
        && let Some(next) = body.frame().now_or_never()
    {
        if !gather(out, next)? {
            return Ok(false);
        }
    }
    Ok(true)
}

type Next = Option<std::result::Result<hyper::body::Frame<Bytes>, axum::Error>>;

/// One more chunk; `false` at the end.
fn gather(out: &mut Vec<u8>, next: Next) -> Result<bool> {
    let Some(frame) = next else { return Ok(false) };
    // Trailers are promised to nobody, and a chunk of no bytes would be the last.
    if let Ok(data) = frame.map_err(Error::other)?.into_data()
        && !data.is_empty()
    {
        write!(out, "{:x}\r\n", data.len())?;
        out.extend_from_slice(&data);
        out.extend_from_slice(b"\r\n");
    }
    Ok(true)
}

fn head(stream: &Response) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    let status = stream.status();
    write!(out, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""))?;
    for (name, value) in stream.headers() {
        write!(out, "{name}: ")?;
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    write!(out, "transfer-encoding: chunked\r\ndate: {date}\r\n\r\n")?;
    Ok(out)
}

/// # Errors
/// When the client went, or reads nothing any more.
async fn all(socket: &TcpStream, bytes: Vec<u8>) -> Result<()> {
    let mut rest = bytes.as_slice();
    // Who reads as fast as is written leaves nothing to wait for, and others have their turn too.
    tokio::task::consume_budget().await;
    while !rest.is_empty() {
        match socket.try_write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                tokio::time::timeout(EAR_LIMIT, socket.writable()).await??;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Returns when the client closed its side. With a request waiting behind the stream, which is
/// left where it is, that cannot be seen; then a write will tell.
async fn gone(socket: &TcpStream, waits: bool) {
    if waits || socket.peek(&mut [0]).await.is_ok_and(|n| n > 0) {
        std::future::pending::<()>().await;
    }
}
