//! A sandboxed process on its standard streams: one JSON message a line.
//!
//! Three tasks serve it: one writes, one reads and sorts, one keeps the tail of standard error
//! for the message that explains an end. They end with the process.

use super::McpError;
use super::connection::answer;
use super::party::{Events, Party};
use super::questions::{Open, Questions};
use super::standing::{ACKNOWLEDGED, Watches};
use super::wire::Message;
use crate::hidden;
use crate::sandbox::Instance;
use policies::json::{Json, Limits, Object};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// One line, and so one result, may have this many bytes.
const MAX_LINE: usize = 16 << 20;
/// How much of standard error is kept.
const STDERR_TAIL: usize = 2_000;
/// Messages waiting to be written.
const WRITE_QUEUE: usize = 256;

type Outcome = Result<Json, McpError>;

struct Waiting {
    done: oneshot::Sender<Outcome>,
    party: Option<Arc<dyn Party>>,
}

struct Shared {
    waiting: Mutex<HashMap<u64, Waiting>>,
    questions: Arc<Questions>,
    watches: Arc<Watches>,
    writer: mpsc::Sender<String>,
    alive: AtomicBool,
    stderr: Mutex<String>,
    /// Milliseconds after `born` at which the server last said anything.
    heard: AtomicU64,
    born: Instant,
    end: CancellationToken,
    events: Arc<dyn Events>,
}

pub(super) struct Stdio {
    shared: Arc<Shared>,
}

impl Drop for Stdio {
    fn drop(&mut self) {
        self.shared.end.cancel();
    }
}

impl Stdio {
    pub(super) fn start(
        mut instance: Instance,
        events: Arc<dyn Events>,
        (questions, watches): (Arc<Questions>, Arc<Watches>),
    ) -> Result<Self, McpError> {
        let child = &mut instance.child;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(McpError::Unreachable("its streams are not piped".into()));
        };
        let (writer, queue) = mpsc::channel(WRITE_QUEUE);
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            questions,
            watches,
            writer: writer.clone(),
            alive: AtomicBool::new(true),
            stderr: Mutex::default(),
            heard: AtomicU64::new(0),
            born: Instant::now(),
            end: CancellationToken::new(),
            events,
        });
        tokio::spawn(write(stdin, queue, shared.clone()));
        let errors = tokio::spawn(keep_tail(stderr, shared.clone()));
        tokio::spawn(live(instance, stdout, errors, shared.clone()));
        Ok(Self { shared })
    }
    pub(super) fn alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire) && !self.shared.end.is_cancelled()
    }
    /// Sends a request and waits for its answer.
    pub(super) async fn request(&self, number: u64, message: &Message, party: Option<Arc<dyn Party>>) -> Outcome {
        let shared = &self.shared;
        let (done, wait) = oneshot::channel();
        shared.lock().insert(number, Waiting { done, party });
        // Looked at after the insertion: whoever ends the process clears the map after this flag.
        if !self.alive() || shared.writer.send(message.to_line()).await.is_err() {
            self.forget(number);
            return Err(McpError::Gone(shared.last_words()));
        }
        wait.await.unwrap_or_else(|_| Err(McpError::Gone(shared.last_words())))
    }
    /// Ends the process.
    pub(super) fn end(&self) {
        self.shared.end.cancel();
    }
    pub(super) fn notify(&self, message: &Message) {
        self.shared.send(message);
    }
    pub(super) fn forget(&self, number: u64) {
        self.shared.lock().remove(&number);
    }
    /// A request ran into its limit. A server that said nothing at all meanwhile is hung, and is
    /// ended, so that the next call gets a fresh one.
    pub(super) fn suspect(&self, limit: Duration) {
        let now = self.shared.born.elapsed().as_millis() as u64;
        let heard = self.shared.heard.load(Ordering::Relaxed);
        if now.saturating_sub(heard) >= limit.as_millis() as u64 {
            self.shared.end.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn send(&self, message: &Message) {
        // A full queue means a server that does not read; the limit of the request it concerns
        // has its own consequence.
        let _ = self.writer.try_send(message.to_line());
    }
    fn last_words(&self) -> String {
        let tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        // The last lines say what went wrong; what stands above is how it got there.
        let lines: Vec<&str> = tail.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(3)..];
        if last.is_empty() { String::new() } else { format!("; its last words: {}", last.join(" / ")) }
    }
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<String>, shared: Arc<Shared>) {
    loop {
        let line = tokio::select! {
            () = shared.end.cancelled() => return,
            line = queue.recv() => line,
        };
        let Some(line) = line else { return };
        let written = tokio::select! {
            () = shared.end.cancelled() => return,
            written = stdin.write_all(line.as_bytes()) => written,
        };
        if written.is_err() || stdin.flush().await.is_err() {
            return;
        }
        crate::crash::sent(&line);
    }
}

async fn keep_tail(stderr: ChildStderr, shared: Arc<Shared>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(8_192).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = hidden::in_text(&text);
        shared.events.log(text.trim_end());
        let mut tail = shared.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        tail.push_str(&text);
        if tail.len() > STDERR_TAIL {
            let mut cut = tail.len() - STDERR_TAIL;
            while !tail.is_char_boundary(cut) {
                cut += 1;
            }
            *tail = tail.split_off(cut);
        }
    }
}

/// Reads until the process ends or is to end, then ends it for good and tells everybody who
/// waits.
async fn live(mut instance: Instance, stdout: ChildStdout, errors: tokio::task::JoinHandle<()>, shared: Arc<Shared>) {
    let why = tokio::select! {
        why = read(stdout, &shared) => why,
        () = shared.end.cancelled() => "pleach ended it".to_owned(),
    };
    instance.kill().await;
    // The tail of standard error is complete once its writer is gone.
    let _ = tokio::time::timeout(Duration::from_secs(1), errors).await;
    shared.alive.store(false, Ordering::Release);
    shared.end.cancel();
    let words = format!(" ({why}){}", shared.last_words());
    for (_, waiting) in shared.lock().drain() {
        let _ = waiting.done.send(Err(McpError::Gone(words.clone())));
    }
    shared.events.ended();
}

async fn read(stdout: ChildStdout, shared: &Arc<Shared>) -> String {
    let mut reader = BufReader::with_capacity(64 << 10, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line).await {
            Ok(0) => return "it closed its output".to_owned(),
            Ok(_) if line.len() > MAX_LINE => return format!("it sent a line larger than {MAX_LINE} bytes"),
            Ok(_) => {}
            Err(e) => return format!("its output broke: {e}"),
        }
        shared.heard.store(shared.born.elapsed().as_millis() as u64, Ordering::Relaxed);
        let text = line.trim_ascii();
        if !text.is_empty() {
            sort(text, shared);
        }
    }
}

fn sort(text: &[u8], shared: &Arc<Shared>) {
    let limits = Limits { bytes: MAX_LINE, ..Limits::default() };
    match Message::heard(text, limits) {
        Ok(Message::Response { id, outcome }) => {
            let waiting = id.as_u64().and_then(|id| shared.lock().remove(&id));
            match waiting {
                Some(waiting) => drop(waiting.done.send(outcome.map_err(McpError::Rpc))),
                None => drop(id.as_u64().map(|id| shared.questions.late(id))),
            }
        }
        Ok(Message::Notification { method, params }) => notification(&method, params, shared),
        Ok(Message::Request { id, method, .. }) if method == "ping" => {
            shared.send(&Message::Response { id, outcome: answer(&method) });
        }
        Ok(Message::Request { id, method, params }) => {
            tokio::spawn(put(shared.questions.open(id), method, params, shared.clone()));
        }
        Err(error) => unreadable(text, error.message(), shared),
    }
}

/// Puts a question to the one it concerns, and the answer to the server.
async fn put(open: Open, method: String, params: Object, shared: Arc<Shared>) {
    let answer = tokio::select! {
        answer = open.answered(shared.questions.ask(&method, params)) => answer,
        () = shared.end.cancelled() => return,
    };
    if let Some(answer) = answer {
        shared.send(&answer);
    }
}

fn notification(method: &str, params: Object, shared: &Shared) {
    if method == "notifications/message" {
        // Of the only call in flight, or of nobody's in particular.
        let waiting = shared.lock();
        let mut parties = waiting.values().filter_map(|w| w.party.clone());
        let only = parties.next().filter(|_| parties.next().is_none());
        drop(parties);
        drop(waiting);
        return match only {
            Some(party) => party.notify(method, params),
            None => shared.events.notified(method, params),
        };
    }
    if method == "notifications/cancelled" {
        return shared.questions.taken_back(&params);
    }
    if method == ACKNOWLEDGED {
        shared.watches.acknowledged(&params);
        return;
    }
    if method != "notifications/progress" {
        return shared.events.notified(method, params);
    }
    let token = params.get(super::meta::PROGRESS_TOKEN).and_then(Json::as_u64);
    let party = token.and_then(|t| shared.lock().get(&t).and_then(|w| w.party.clone()));
    if let Some(party) = party {
        party.notify(method, params);
    }
}

/// A line we refuse. If it was the answer to a request, that request fails with the reason;
/// anything else is noise some servers print, and is ignored.
fn unreadable(text: &[u8], why: &str, shared: &Shared) {
    let id = match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(value) => value.get("id").and_then(serde_json::Value::as_u64),
        // Too deep or too odd for serde_json too: then it is the answer to the only question.
        Err(_) => lone_pending(text, shared),
    };
    if let Some(waiting) = id.and_then(|id| shared.lock().remove(&id)) {
        let _ = waiting.done.send(Err(McpError::Protocol(format!("its answer is unacceptable: {why}"))));
        return;
    }
    let text = String::from_utf8_lossy(text);
    let start: String = hidden::in_text(&text).chars().take(120).collect();
    shared.events.log(&format!("ignored on stdout: {start}"));
}

/// The only request in flight, when a broken line looks like a response at all.
fn lone_pending(text: &[u8], shared: &Shared) -> Option<u64> {
    if !text.starts_with(b"{") {
        return None;
    }
    let waiting = shared.lock();
    (waiting.len() == 1).then(|| waiting.keys().next().copied())?
}
