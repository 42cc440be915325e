//! Connections as bytes: what a stream leaves behind, and what many idle clients cost.

use crate::faults::memory;
use conformance::pleach::Folder;
use conformance::served::Served;
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
    first.say(&HEALTH.replace("healthz", "readyz")).await;
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
    let served = Served::start(&Folder::new("version = 1\n"));
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
    // What is there once is there before.
    let mut kept = Vec::new();
    for n in 0..100 {
        kept.push(open(n % 2 == 0).await);
    }
    let before = memory(pid);
    for n in 0..CLIENTS {
        kept.push(open(n % 2 == 0).await);
    }
    let began = Instant::now();
    while memory(pid) > before + CLIENTS as u64 * 16 {
        let now = (memory(pid) - before) / CLIENTS as u64;
        assert!(began.elapsed() < PATIENCE, "an idle client costs {now} KiB");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for raw in kept.iter_mut().skip(1).step_by(2) {
        raw.say(HEALTH).await;
        raw.until("ok\n").await;
    }
}
