//! Reading a server's streams: the one that answers a request, and the standing one.
//!
//! A stream that breaks before the answer is taken up again where the server numbers its
//! events (2025-11-25, transports, resumability); otherwise the answer is lost.

use super::{Asking, Http, MAX_BODY, chunk};
use crate::mcp::McpError;
use crate::mcp::connection::{Era, answer};
use crate::mcp::questions::Open;
use crate::mcp::wire::{Message, RpcError};
use crate::sse;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use http::Response;
use hyper::body::Incoming;
use policies::json::{Json, Limits, Object};
use std::time::Duration;

/// How long to wait before taking a stream up again, unless the server says.
const RETRY: Duration = Duration::from_secs(1);
/// How long a standing stream may take to open; some servers send its head with its first event.
const STAND_LIMIT: Duration = Duration::from_secs(300);
/// Times a stream is taken up again without anything new in it.
const MAX_RESUMES: u32 = 8;

type Answering<'a> = std::pin::Pin<Box<dyn Future<Output = Option<Message>> + Send + 'a>>;

/// Something heard on a standing stream.
pub(crate) enum Heard {
    /// The stream stands.
    Open,
    /// A message.
    Message(Message),
    /// It ended; where it can be taken up again, and when.
    Ended { after: Option<String>, retry: Option<Duration> },
}

/// Where a numbered stream stands.
#[derive(Default)]
struct Place {
    last: Option<String>,
    retry: Option<Duration>,
}

impl Http {
    /// Follows the stream that answers `id`, over breaks, to its answer.
    pub(super) async fn follow(
        &self,
        response: Response<Incoming>,
        id: &Json,
        asking: &Asking<'_>,
    ) -> Result<Json, McpError> {
        let mut place = Place::default();
        let mut response = response;
        let mut idle = 0;
        loop {
            let before = place.last.clone();
            let broke = match self.read_answer(response, id, asking, &mut place).await {
                Ok(outcome) => return outcome,
                Err(broke) => broke,
            };
            idle = if place.last == before { idle + 1 } else { 0 };
            let resumable = asking.era == Era::Legacy && idle <= MAX_RESUMES;
            let Some(last) = place.last.as_deref().filter(|_| resumable) else { return Err(McpError::Gone(broke)) };
            tokio::time::sleep(place.retry.unwrap_or(RETRY)).await;
            // The request was heard: whatever hinders now, it may have been done.
            let again = self.get(Some(last)).await;
            response = again.map_err(|e| McpError::Gone(format!("{broke}, and cannot be taken up: {e}")))?;
            if !response.status().is_success() {
                return Err(McpError::Gone(format!("{broke}, and cannot be taken up: HTTP {}", response.status())));
            }
        }
    }

    /// One stretch of the stream; `Err` when it ended without the answer.
    async fn read_answer(
        &self,
        response: Response<Incoming>,
        id: &Json,
        asking: &Asking<'_>,
        place: &mut Place,
    ) -> Result<Result<Json, McpError>, String> {
        let mut events = sse::Events::default();
        let mut body = response.into_body();
        let mut answers: FuturesUnordered<Answering<'_>> = FuturesUnordered::new();
        loop {
            let chunk = tokio::select! {
                chunk = chunk(&mut body) => chunk,
                Some(answer) = answers.next() => {
                    if let Some(answer) = answer {
                        self.notify(&answer).await;
                    }
                    continue;
                }
            };
            let chunk = match chunk {
                None => return Err("; its stream ended before the answer".into()),
                Some(Err(why)) => return Err(format!("; its stream broke: {why}")),
                Some(Ok(chunk)) => chunk,
            };
            let fed = match events.feed(&chunk, MAX_BODY) {
                Ok(fed) => fed,
                Err(why) => return Ok(Err(McpError::Protocol(why))),
            };
            for event in fed {
                place.note(&event);
                if event.data.is_empty() {
                    continue;
                }
                match read(&event.data) {
                    Ok(Message::Response { id: of, outcome }) if of == *id => {
                        return Ok(outcome.map_err(McpError::Rpc));
                    }
                    Ok(Message::Notification { method, params }) => said(asking, &method, params),
                    Ok(Message::Request { id, method, params }) => {
                        answers.push(Box::pin(answered(asking, asking.questions.open(id), method, params)));
                    }
                    Ok(_) => {}
                    Err(e) => {
                        return Ok(Err(McpError::Protocol(format!("its answer is unacceptable: {}", e.message()))));
                    }
                }
            }
        }
    }

    /// Opens a standing stream: a GET of a legacy session, or a request whose answer is one.
    ///
    /// # Errors
    /// When it does not come to stand.
    pub(crate) async fn stand(
        &self,
        listen: Option<&Message>,
        after: Option<&str>,
    ) -> Result<impl Stream<Item = Heard> + Send + use<>, McpError> {
        let opening = async {
            match listen {
                Some(message) => self.post(message, Era::Modern, &[]).await,
                None => self.get(after).await,
            }
        };
        let opened = tokio::time::timeout(STAND_LIMIT, opening).await;
        let response = opened.unwrap_or_else(|_| Err(McpError::Unreachable("its stream does not open".into())))?;
        let status = response.status();
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        if !status.is_success() || !kind.starts_with("text/event-stream") {
            let lost = listen.is_none() && status.as_u16() == 404 && self.session().is_some();
            return Err(if lost {
                McpError::SessionLost { refused: true }
            } else if status.is_server_error() {
                McpError::Unreachable(format!("HTTP {status}"))
            } else {
                McpError::Protocol(format!("HTTP {status}: no stream"))
            });
        }
        let start = (response.into_body(), sse::Events::default(), Place::default(), false);
        let stream = futures_util::stream::unfold(start, |(mut body, mut events, mut place, ended)| async move {
            if ended {
                return None;
            }
            let fed = match chunk(&mut body).await {
                Some(Ok(chunk)) => events.feed(&chunk, MAX_BODY).ok(),
                _ => None,
            };
            let Some(fed) = fed else {
                let end = Heard::Ended { after: place.last.take(), retry: place.retry };
                return Some((vec![end], (body, events, place, true)));
            };
            let mut heard = Vec::new();
            for event in fed {
                place.note(&event);
                if let Ok(message) = read(&event.data) {
                    heard.push(Heard::Message(message));
                }
            }
            Some((heard, (body, events, place, false)))
        });
        let opened = futures_util::stream::once(async { Heard::Open });
        Ok(opened.chain(stream.flat_map(futures_util::stream::iter)))
    }
}

impl Place {
    fn note(&mut self, event: &sse::Event) {
        if event.id.is_some() {
            self.last.clone_from(&event.id);
        }
        self.retry = event.retry.or(self.retry);
    }
}

fn read(data: &[u8]) -> Result<Message, RpcError> {
    Message::heard(data, Limits { bytes: MAX_BODY, ..Limits::default() })
}

/// What is said on a request's stream belongs to it; what concerns everybody goes to everybody.
fn said(asking: &Asking<'_>, method: &str, params: Object) {
    match (method, &asking.party) {
        ("notifications/progress" | "notifications/message", Some(party)) => party.notify(method, params),
        ("notifications/progress", None) => {}
        ("notifications/cancelled", _) => asking.questions.taken_back(&params),
        _ => asking.events.notified(method, params),
    }
}

async fn answered(asking: &Asking<'_>, open: Open, method: String, params: Object) -> Option<Message> {
    let answer = async {
        match &asking.party {
            Some(party) if method != "ping" => {
                let _asking = asking.clock.pause();
                party.ask(&method, params).await
            }
            // On the stream of a request of Pleach's own: it is about no call.
            None if asking.era == Era::Legacy => asking.questions.ask_unowned(&method, params).await,
            _ => answer(&method),
        }
    };
    open.answered(answer).await
}
