//! Connections as bytes: what a stream leaves behind, what many idle clients cost, and what becomes
//! of them when there are too many.

use crate::faults::memory;
use conformance::pleach::Folder;
use conformance::served::Served;
use futures_util::StreamExt;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// The end of a stream of chunks.
const END: &str = "\r\n0\r\n\r\n";

/// One connection, and everything it said.
struct Raw {
    socket: TcpStream,
    heard: String,
}

impl Raw {
    async fn to(served: &Served) -> Self {
        let address = served.base.strip_prefix("http://").unwrap();
        Self { socket: TcpStream::connect(address).await.unwrap(), heard: String::new() }
    }
    async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }
    /// Reads until it was said; takes it and what stands before it.
    async fn until(&mut self, words: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(words) {
                let rest = self.heard.split_off(at + words.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            assert!(self.read().await > 0, "{words:?} was not said: {}", self.heard);
        }
    }
    /// Reads to the end of the connection.
    async fn end(mut self) -> String {
        while self.read().await > 0 {}
        self.heard
    }
    async fn read(&mut self) -> usize {
        let mut bytes = vec![0; 4096];
        let n = tokio::time::timeout(PATIENCE, self.socket.read(&mut bytes)).await.expect("silence").unwrap_or(0);
        self.heard.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        n
    }
}

fn stream(session: &str, version: &str, more: &str) -> String {
    format!(
        "GET /mcp {version}\r\nhost: localhost\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\n{more}\r\n"
    )
}

/// A standing stream ends when another takes its place; the connection it stood on goes on, with
/// what was asked of it meanwhile first.
#[tokio::test]
async fn after_a_stream_its_connection_goes_on() {
    let served = Served::start(&Folder::new("version = 1\n"));
    let session = served.initialize("/mcp", &[]).await;
    let mut first = Raw::to(&served).await;
    first.say(HEALTH).await;
    first.until("ok\n").await;
    first.say(&stream(&session, "HTTP/1.1", "")).await;
    let head = first.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert!(head.contains("content-type: text/event-stream\r\n") && head.contains("\r\ndate: "), "{head}");
    // Asked behind the stream, in two pieces, and once more.
    first.say(&HEALTH[..20]).await;
    first.say(&HEALTH[20..]).await;
    first.say(HEALTH).await;
    let mut second = Raw::to(&served).await;
    second.say(&stream(&session, "HTTP/1.1", "")).await;
    second.until("\r\n\r\n").await;
    assert!(format!("\r\n{}", first.until("0\r\n\r\n").await).ends_with(END), "the stream is ended as chunks are");
    for _ in 0..2 {
        assert!(first.until("ok\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    first.say(HEALTH).await;
    first.until("ok\n").await;
    // And another stream on it, which takes the place of the second.
    first.say(&stream(&session, "HTTP/1.1", "")).await;
    first.until("\r\n\r\n").await;
    second.until("0\r\n\r\n").await;
    // Whoever leaves a stream leaves nothing that speaks.
    drop(first);
    second.say(HEALTH).await;
    second.until("ok\n").await;
}

/// Who wants no more after the stream, or knows no chunks, gets it to the end of the connection.
#[tokio::test]
async fn a_stream_may_be_the_last_of_its_connection() {
    let served = Served::start(&Folder::new("version = 1\n"));
    let session = served.initialize("/mcp", &[]).await;
    for (version, more, chunks) in [("HTTP/1.1", "connection: foo, Close\r\n", true), ("HTTP/1.0", "", false)] {
        let mut first = Raw::to(&served).await;
        first.say(&stream(&session, version, more)).await;
        let head = first.until("\r\n\r\n").await;
        assert_eq!(head.contains("transfer-encoding: chunked"), chunks, "{head}");
        let mut second = Raw::to(&served).await;
        second.say(&stream(&session, "HTTP/1.1", "")).await;
        second.until("\r\n\r\n").await;
        first.say(HEALTH).await;
        let rest = first.end().await;
        assert!(!rest.contains("ok\n"), "{rest}");
    }
}

/// The body of a request that was answered with a stream is not taken for the next request.
#[tokio::test]
async fn a_body_nobody_read_is_no_request() {
    let served = Served::start(&Folder::new("version = 1\n"));
    let session = served.initialize("/mcp", &[]).await;
    let mut first = Raw::to(&served).await;
    first.say(&stream(&session, "HTTP/1.1", &format!("content-length: {}\r\n", HEALTH.len()))).await;
    first.until("\r\n\r\n").await;
    first.say(HEALTH).await;
    let mut second = Raw::to(&served).await;
    second.say(&stream(&session, "HTTP/1.1", "")).await;
    second.until("\r\n\r\n").await;
    first.until("0\r\n\r\n").await;
    // Whether the connection goes on or not, the body was no request.
    let _ = first.socket.write_all(HEALTH.replace("healthz", "readyz").as_bytes()).await;
    let rest = first.end_or("ready\n").await;
    assert!(!rest.contains("ok\n"), "{rest}");
}

impl Raw {
    /// Reads to the end of the connection, or until it was said.
    async fn end_or(&mut self, words: &str) -> String {
        while !self.heard.contains(words) && self.read().await > 0 {}
        std::mem::take(&mut self.heard)
    }
}

/// Clients that do nothing cost next to nothing, and are there when they do something again.
#[tokio::test]
async fn idle_clients_cost_little() {
    const CLIENTS: usize = 400;
    // The allocator gives back at once what it no longer needs: what counts is what is held.
    let exact = [("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ALLOW_THP", "0")];
    let served = Served::start_with(&Folder::new("version = 1\n"), &exact);
    let pid = served.pid();
    let open = async |streams: bool| {
        let mut raw = Raw::to(&served).await;
        raw.say(HEALTH).await;
        raw.until("ok\n").await;
        if streams {
            let session = served.initialize("/mcp", &[]).await;
            raw.say(&stream(&session, "HTTP/1.1", "")).await;
            raw.until("\r\n\r\n").await;
        }
        raw
    };
    let many = async |n: usize| {
        let opened = futures_util::stream::iter((0..n).map(|n| open(n % 2 == 0)));
        opened.buffered(16).collect::<Vec<Raw>>().await
    };
    // What is there once is there before.
    let mut kept = many(100).await;
    let before = memory(pid);
    kept.extend(many(CLIENTS).await);
    let began = Instant::now();
    while memory(pid) > before + CLIENTS as u64 * 16 {
        let now = (memory(pid) - before) / CLIENTS as u64;
        assert!(began.elapsed() < PATIENCE, "an idle client costs {now} KiB");
        // What a thread freed of another's, the other gives back when it allocates again.
        for answer in futures_util::future::join_all((0..8).map(|_| served.get("/healthz", &[]))).await {
            assert_eq!(answer.body, "ok\n");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for raw in kept.iter_mut().skip(1).step_by(2) {
        raw.say(HEALTH).await;
        raw.until("ok\n").await;
    }
}

/// Half of what a process may have open is for clients. Whoever took all of that by doing nothing
/// kept everybody out for ever.
#[tokio::test]
async fn who_does_nothing_keeps_nobody_out() {
    let served = Served::start_within(&Folder::new("version = 1\n"), 128);
    let session = served.initialize("/mcp", &[]).await;
    let mut listens = Raw::to(&served).await;
    listens.say(&stream(&session, "HTTP/1.1", "")).await;
    listens.until("\r\n\r\n").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Raw::to(&served).await);
    }
    let mut speaks = Raw::to(&served).await;
    speaks.say(HEALTH).await;
    speaks.until("ok\n").await;
    // The first to sleep were the first to leave.
    assert_eq!(silent.remove(0).end().await, "");
    // Whoever says something stays: a stream that stands, and the last of those that were silent.
    let mut last = silent.pop().unwrap();
    last.say(HEALTH).await;
    last.until("ok\n").await;
    listens.say(HEALTH).await;
    let mut other = Raw::to(&served).await;
    other.say(&stream(&session, "HTTP/1.1", "")).await;
    listens.until("ok\n").await;
}

/// An end waits for calls, not for clients that say nothing, half of something, or only listen.
#[tokio::test]
async fn who_does_nothing_does_not_hold_up_the_end() {
    let served = Served::start(&Folder::new("version = 1\n"));
    let session = served.initialize("/mcp", &[]).await;
    let mut kept = Vec::new();
    for text in ["", &HEALTH[..20], HEALTH, &stream(&session, "HTTP/1.1", "")] {
        let mut raw = Raw::to(&served).await;
        raw.say(text).await;
        if text.ends_with("\r\n\r\n") {
            raw.until("\r\n\r\n").await;
        }
        kept.push(raw);
    }
    let began = Instant::now();
    served.end();
    // So long it would wait for a call.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// What is refused for its size is answered, whole, to a client that writes all of it first; and
/// one that never stops is cut.
#[test]
fn who_sends_too_much_reads_why() {
    use std::io::{Read, Write};
    let served = Served::start(&Folder::new("version = 1\n"));
    let address = served.base.strip_prefix("http://").unwrap().to_owned();
    let connect = || {
        let socket = std::net::TcpStream::connect(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let head = |path: &str, length: usize, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {length}\r\n{more}\r\n"
        )
    };
    let body = vec![b' '; 24 << 20];
    for (nth, (path, more, status)) in
        [("/mcp", "", "413"), ("/v1/runs", "", "413"), ("/mcp", "origin: http://evil.example\r\n", "403")]
            .iter()
            .cycle()
            .take(60)
            .enumerate()
    {
        let mut socket = connect();
        socket.write_all(head(path, body.len(), more).as_bytes()).unwrap();
        socket.write_all(&body).unwrap_or_else(|e| panic!("{nth}: {path} was cut off while writing: {e}"));
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap_or_else(|e| panic!("{nth}: {path}: {e}"));
        let answer = String::from_utf8(answer).unwrap();
        let (head, said) = answer.split_once("\r\n\r\n").unwrap();
        let length =
            head.to_lowercase().split("content-length: ").nth(1).map(|l| l.split("\r\n").next().unwrap().to_owned());
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{nth}: {answer}");
        assert_eq!(length.as_deref(), Some(said.len().to_string().as_str()), "{nth}: {answer}");
    }
    // The twin: as much as is allowed is read, and the connection goes on.
    let mut socket = connect();
    socket.write_all(head("/mcp", 1 << 20, "").as_bytes()).unwrap();
    socket.write_all(&vec![b' '; 1 << 20]).unwrap();
    let mut some = [0; 4096];
    let n = socket.read(&mut some).unwrap();
    assert!(some[..n].starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&some[..n]));
    socket.write_all(HEALTH.as_bytes()).unwrap();
    let n = socket.read(&mut some).unwrap();
    assert!(some[..n].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&some[..n]));

    let mut socket = connect();
    socket.write_all(head("/mcp", 1 << 40, "").as_bytes()).unwrap();
    let (piece, began, mut wrote) = (vec![b' '; 1 << 20], Instant::now(), 0u64);
    while socket.write_all(&piece).is_ok() {
        wrote += 1;
        assert!(wrote < 512 && began.elapsed() < PATIENCE, "{wrote} MiB were taken");
    }
    assert!(wrote >= 24, "{wrote}");
}
