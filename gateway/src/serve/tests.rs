//! Clients that hold on to a connection, over real sockets. The clock is the runtime's own and
//! leaps over the silence, so that minutes pass at once.

use super::connection::{House, keep};
use super::linger;
use super::seats::Seats;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const HELLO: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// More than all buffers between two sockets hold.
const MUCH: usize = 64 << 20;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What answers: `/` at once, `/echo` what it read, `/refused` without having read, `/slow` after an hour, `/much` and `/flood`
/// more than anybody reads, the second as a stream, and `/stream` as long as it is listened to.
struct Place {
    house: Arc<House>,
    listener: TcpListener,
    connections: TaskTracker,
    /// Cancelled when nobody listens to a stream any more.
    left: CancellationToken,
}

impl Place {
    async fn new(seats: usize) -> Self {
        let left = CancellationToken::new();
        let guard = left.clone();
        let router = Router::new()
            .route("/", get(|| async { "ok\n" }))
            .route("/echo", post(|body: Bytes| async move { body }))
            .route("/refused", post(|| async { (StatusCode::PAYLOAD_TOO_LARGE, "too much\n") }))
            .route("/slow", post(|_: Bytes| async { tokio::time::sleep(seconds(3_600)).await }))
            .route("/much", get(|| async { vec![b'x'; MUCH] }))
            .route("/flood", get(|| async { events(std::iter::repeat_n(MUCH / 1_024, 1_024), None) }))
            .route("/stream", get(move || async move { events([1], Some(guard.drop_guard())) }));
        let doors = TowerToHyperService::new(router);
        let house = House {
            #[cfg(feature = "grpc")]
            second: doors.clone(),
            doors,
            screen: Arc::new(|_, _| Ok(())),
            seats: Seats::of(seats),
            closing: CancellationToken::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { house: Arc::new(house), listener, connections: TaskTracker::new(), left }
    }
    /// A client, and the end of its connection.
    async fn client(&self) -> (TcpStream, JoinHandle<()>) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = self.listener.accept().await.unwrap();
        // A piece that waits for an acknowledgement waits in real time.
        for end in [&client, &socket] {
            end.set_nodelay(true).unwrap();
        }
        let (seat, house) = (self.house.seats.take().await, self.house.clone());
        let kept = self.connections.spawn(async move {
            keep(socket, house).await;
            drop(seat);
        });
        (client, kept)
    }
}

/// A stream of pieces of these sizes; it ends with them, or never if somebody is to hear of its end.
fn events(sizes: impl IntoIterator<Item = usize, IntoIter: Send + 'static>, guard: Option<DropGuard>) -> Response {
    let pieces = futures_util::stream::iter(sizes).map(|n| Bytes::from(vec![b'x'; n]));
    let waits = guard.is_some();
    let last = futures_util::stream::once(async move {
        if waits {
            std::future::pending::<()>().await;
        }
        drop(guard);
        Bytes::new()
    });
    let body = Body::from_stream(pieces.chain(last).map(Ok::<_, Infallible>));
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn say(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until it is said, or to the end of the connection.
async fn heard(client: &mut TcpStream, words: &str) -> String {
    let mut heard = String::new();
    let mut piece = [0; 1_024];
    while !heard.contains(words) {
        match client.read(&mut piece).await {
            Ok(n @ 1..) => heard.push_str(std::str::from_utf8(&piece[..n]).unwrap()),
            _ => break,
        }
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn a_head_may_come_in_pieces() {
    let place = Place::new(8).await;
    let (mut client, _kept) = place.client().await;
    for piece in [&HELLO[..9], &HELLO[9..30], &HELLO[30..], &HELLO[..9], &HELLO[9..]] {
        say(&mut client, piece).await;
        tokio::time::sleep(seconds(8)).await;
    }
    for _ in 0..2 {
        assert!(heard(&mut client, "ok\n").await.ends_with("ok\n"));
        // And be idle in between for as long as one likes.
        tokio::time::sleep(seconds(86_400)).await;
        say(&mut client, HELLO).await;
    }
    assert!(heard(&mut client, "ok\n").await.ends_with("ok\n"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_not_waited_for() {
    let place = Place::new(8).await;
    for first in ["", HELLO] {
        let (mut bad, kept) = place.client().await;
        say(&mut bad, first).await;
        say(&mut bad, &HELLO[..20]).await;
        let began = Instant::now();
        let trickle = async {
            loop {
                tokio::time::sleep(seconds(5)).await;
                if bad.write_all(b"x-a: b\r\n").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            ended = kept => ended.unwrap(),
            () = trickle => {}
        }
        let took = began.elapsed();
        assert!(took >= seconds(30) && took < seconds(60), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_waited_for_so_long() {
    let place = Place::new(8).await;
    let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\n\r\n";
    let (mut good, _kept) = place.client().await;
    say(&mut good, head).await;
    for piece in ["ab", "cd", "ef"] {
        tokio::time::sleep(seconds(30)).await;
        say(&mut good, piece).await;
    }
    assert!(heard(&mut good, "abcdef").await.ends_with("abcdef"));
    for head in [head, &head.replace("content-length: 6", "transfer-encoding: chunked")] {
        let (mut bad, kept) = place.client().await;
        say(&mut bad, head).await;
        let began = Instant::now();
        kept.await.unwrap();
        let took = began.elapsed();
        assert!(took >= seconds(120) && took < seconds(180), "{took:?}");
    }
}

/// Only the client is limited here, not who answers it.
#[tokio::test(start_paused = true)]
async fn an_answer_may_take_as_long_as_it_takes() {
    let place = Place::new(8).await;
    let (mut client, _kept) = place.client().await;
    say(&mut client, "POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nhi").await;
    let began = Instant::now();
    assert!(heard(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(began.elapsed() >= seconds(3_600));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_gone() {
    let place = Place::new(8).await;
    for path in ["/much", "/flood"] {
        let ask = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let (mut bad, kept) = place.client().await;
        say(&mut bad, &ask).await;
        let began = Instant::now();
        kept.await.unwrap();
        let took = began.elapsed();
        assert!(took >= seconds(60) && took < seconds(120), "{path}: {took:?}");
        // One that reads slowly gets all of it.
        let (mut good, _kept) = place.client().await;
        say(&mut good, &ask).await;
        let (mut read, mut piece) = (0, vec![0; MUCH / 4]);
        while read < MUCH {
            tokio::time::sleep(seconds(40)).await;
            let mut now = 0;
            while now < piece.len() && read < MUCH {
                let n = good.read(&mut piece).await.unwrap();
                assert!(n > 0, "{path} broke off after {read} bytes");
                (now, read) = (now + n, read + n);
            }
        }
        assert!(began.elapsed() >= took + seconds(160));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_client_leaves() {
    let place = Place::new(8).await;
    let (mut client, kept) = place.client().await;
    say(&mut client, &HELLO.replace("/ ", "/stream ")).await;
    assert!(heard(&mut client, "1\r\nx\r\n").await.contains("transfer-encoding: chunked"));
    assert!(!place.left.is_cancelled());
    drop(client);
    place.left.cancelled().await;
    kept.await.unwrap();
}

/// With every seat taken, who has been idle longest leaves; nobody else does.
#[tokio::test(start_paused = true)]
async fn the_longest_idle_gives_way() {
    let place = Place::new(4).await;
    let (mut listens, listening) = place.client().await;
    say(&mut listens, &HELLO.replace("/ ", "/stream ")).await;
    heard(&mut listens, "1\r\nx\r\n").await;
    let (mut silent, never_spoke) = place.client().await;
    let (mut first, spoke_first) = place.client().await;
    let (mut last, spoke_last) = place.client().await;
    for client in [&mut first, &mut last] {
        say(client, HELLO).await;
        heard(client, "ok\n").await;
        tokio::time::sleep(seconds(10)).await;
    }
    let (mut more, _kept) = place.client().await;
    never_spoke.await.unwrap();
    assert_eq!(heard(&mut silent, "never").await, "");
    let (_another, _kept) = place.client().await;
    spoke_first.await.unwrap();
    for client in [&mut more, &mut last] {
        say(client, HELLO).await;
        assert!(heard(client, "ok\n").await.ends_with("ok\n"));
    }
    assert!(!listening.is_finished() && !spoke_last.is_finished() && !place.left.is_cancelled());
}

/// Who is in the middle of asking is not waited for by a house that closes; who has asked is.
#[tokio::test(start_paused = true)]
async fn the_end_waits_for_answers_only() {
    let place = Place::new(8).await;
    let (mut asked, answered) = place.client().await;
    say(&mut asked, "POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nhi").await;
    let mut kept = Vec::new();
    let mut clients = Vec::new();
    for text in ["", &HELLO[..20], HELLO] {
        let (mut client, ended) = place.client().await;
        say(&mut client, text).await;
        kept.push(ended);
        clients.push(client);
    }
    heard(&mut clients[2], "ok\n").await;
    let began = Instant::now();
    place.house.closing.cancel();
    for ended in kept {
        ended.await.unwrap();
    }
    assert!(began.elapsed() < seconds(30), "{:?}", began.elapsed());
    assert!(!answered.is_finished());
    assert!(heard(&mut asked, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    answered.await.unwrap();
}

const TOO_MUCH: &str = "POST /refused HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000000\r\n\r\n";

/// A client that writes before it reads is told why it was refused.
#[tokio::test(start_paused = true)]
async fn who_is_refused_while_writing_hears_of_it() {
    let place = Place::new(8).await;
    let (mut client, kept) = place.client().await;
    say(&mut client, TOO_MUCH).await;
    for _ in 0..64 {
        client.write_all(&[b'x'; 1 << 20]).await.unwrap();
    }
    let answer = heard(&mut client, "too much\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too much\n"), "{answer}");
    drop(client);
    kept.await.unwrap();
}

/// And one that never stops, or falls silent, is waited for so long.
#[tokio::test(start_paused = true)]
async fn who_is_refused_is_waited_for_so_long() {
    let place = Place::new(8).await;
    let (mut client, kept) = place.client().await;
    say(&mut client, TOO_MUCH).await;
    heard(&mut client, "too much\n").await;
    let began = Instant::now();
    kept.await.unwrap();
    assert!(began.elapsed() >= linger::SILENCE && began.elapsed() < linger::LIMIT, "{:?}", began.elapsed());

    let (mut client, kept) = place.client().await;
    say(&mut client, TOO_MUCH).await;
    let began = Instant::now();
    while client.write_all(b"x").await.is_ok() && !kept.is_finished() {
        tokio::time::sleep(seconds(1)).await;
    }
    let took = began.elapsed();
    assert!(took >= linger::LIMIT && took < linger::LIMIT + seconds(10), "{took:?}");

    let (mut client, kept) = place.client().await;
    say(&mut client, TOO_MUCH).await;
    let (mut wrote, piece) = (0, vec![b'x'; 1 << 20]);
    while client.write_all(&piece).await.is_ok() {
        wrote += piece.len();
        assert!(wrote < 2 * linger::MOST, "{wrote}");
    }
    assert!(wrote >= linger::MOST, "{wrote}");
    kept.await.unwrap();
}
