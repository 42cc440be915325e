//! One answer of a model that is somewhere else: asked for through the breaker and the limiter,
//! tried again where that may help, read as a stream within limits of time and size, and asked
//! to go on where it paused. Dropping the future closes the connection.

use super::breaker::Breaker;
use super::endpoint::Endpoint;
use super::format::{Ask, Format, Heard, Reader};
use super::limiter::Limiter;
use super::retry::{self, Again, MAX_WAIT, Said, TRIES, Verdict};
use super::{estimate, tools};
use crate::net;
use crate::sse::Events;
use futures_util::StreamExt;
use policies::resolve::{ModelSpec, RemoteModel};
use serde_json::Value;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use subagents::event::Usage;
use subagents::ports::{Delta, ModelError, ModelFacts, ModelFailure, Reply, Request};

/// How long an answer may take to begin: a model on a small machine reads slowly.
const FIRST: Duration = Duration::from_secs(300);
/// How long it may stand still.
const IDLE: Duration = Duration::from_secs(120);
/// How long it may take altogether.
const WHOLE: Duration = Duration::from_secs(3600);
/// How long counting tokens may take.
const COUNTING: Duration = Duration::from_secs(10);
/// An event, and a whole answer, may have so many bytes.
const MAX_EVENT: usize = 16 << 20;
const MAX_STREAM: usize = 64 << 20;
/// How often a model may pause in one answer.
const MAX_ROUNDS: usize = 8;

/// What the models of one family share under one credential.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) limiter: Limiter,
    pub(super) breaker: Breaker,
}

/// A model that is somewhere else.
pub(super) struct Remote {
    provider: &'static str,
    model: String,
    effort: Option<String>,
    facts: ModelFacts,
    endpoint: Endpoint,
    format: Box<dyn Format>,
    shared: Arc<Shared>,
    /// Whether it has said that it counts no tokens; then it is not asked before each turn.
    countless: AtomicBool,
}

/// Why one try did not give an answer.
struct Failure {
    said: Said,
    verdict: Verdict,
    usage: Usage,
}

impl Remote {
    pub(super) fn new(
        spec: &ModelSpec,
        remote: &RemoteModel,
        format: Box<dyn Format>,
        shared: Arc<Shared>,
    ) -> Result<Self, String> {
        let price = spec.price.as_ref().map(|p| p.price);
        Ok(Self {
            provider: remote.provider(),
            model: remote.model.clone(),
            effort: remote.effort.clone(),
            facts: ModelFacts { context: spec.context, max_output: spec.max_output, price },
            endpoint: Endpoint::new(remote)?,
            format,
            shared,
            countless: AtomicBool::new(false),
        })
    }
    pub(super) fn facts(&self) -> ModelFacts {
        self.facts.clone()
    }
    /// The provider's name for it.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    fn ask<'a>(&'a self, request: &'a Request<'a>, paused: &'a [Value]) -> Ask<'a> {
        Ask {
            request,
            model: &self.model,
            max_output: request.max_output.min(self.facts.max_output).max(1),
            effort: request.effort.or(self.effort.as_deref()),
            paused,
        }
    }

    /// Whether its provider is asked how many tokens a request has.
    pub(super) fn counts(&self) -> bool {
        self.format.counts() && !self.countless.load(Ordering::Relaxed)
    }
    /// Tokens of a request, counted there if they can be, else estimated.
    pub(super) async fn count(&self, request: &Request<'_>) -> u64 {
        if !self.counts() {
            return estimate::of(request);
        }
        let counted = async {
            let (path, body) = self.format.counting(&self.ask(request, &[]))?;
            let response = self.endpoint.post(self.format.as_ref(), path, &body).await.ok()?;
            let good = response.status().is_success();
            self.countless.fetch_or(matches!(response.status().as_u16(), 404 | 405 | 501), Ordering::Relaxed);
            let body = net::bounded(response, 1 << 16).await.ok().filter(|_| good)?;
            self.format.counted(&serde_json::from_slice(&body).ok()?)
        };
        match tokio::time::timeout(COUNTING, counted).await {
            Ok(Some(tokens)) => tokens,
            _ => estimate::of(request),
        }
    }

    /// Answers. What broken tries used is counted with the answer, or with the error.
    pub(super) async fn answer(&self, request: &Request<'_>, delta: Delta<'_>) -> Result<Reply, ModelError> {
        let mut lost = Usage::default();
        let admission = self.shared.breaker.admit().map_err(|open| {
            let why = format!("it did not answer before and is left alone for {} s more", open.0.as_secs());
            self.error(ModelFailure::Unavailable, &why, 0, lost)
        })?;
        let tries = if admission.probe { 1 } else { TRIES };
        let outcome = self.rounds(request, delta, tries, &mut lost).await;
        match &outcome {
            Err(e) if e.kind == ModelFailure::Unavailable => admission.bad(),
            _ => admission.good(),
        }
        let mut heard = outcome?;
        heard.usage = heard.usage.plus(&lost);
        Ok(self.format.reply(&self.ask(request, &[]), heard))
    }

    /// As long as it pauses, it is asked to go on; the pieces are one answer.
    async fn rounds(
        &self,
        request: &Request<'_>,
        delta: Delta<'_>,
        tries: u32,
        lost: &mut Usage,
    ) -> Result<Heard, ModelError> {
        let mut whole = Heard::default();
        for _ in 0..MAX_ROUNDS {
            let heard = self.tries(&self.ask(request, &whole.content), delta, tries, lost).await.map_err(|mut e| {
                e.usage = e.usage.plus(&whole.usage);
                e
            })?;
            whole.content.extend(heard.content);
            whole.usage = whole.usage.plus(&heard.usage);
            whole = Heard { stop: heard.stop, model: heard.model, notice: heard.notice, ..whole };
            if whole.stop != "pause_turn" {
                break;
            }
        }
        Ok(whole)
    }

    async fn tries(&self, ask: &Ask<'_>, delta: Delta<'_>, most: u32, lost: &mut Usage) -> Result<Heard, ModelError> {
        let told = AtomicBool::new(false);
        let delta = |text: &str| {
            told.store(true, Ordering::Relaxed);
            delta(text);
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let began = tokio::time::timeout(WHOLE, self.attempt(ask, &delta)).await;
            let failure = match began {
                Ok(Ok(heard)) => return Ok(Heard { usage: counted(ask, heard.usage), ..heard }),
                Ok(Err(failure)) => Failure { usage: counted(ask, failure.usage), ..failure },
                Err(_) => self.broken(&format!("it took more than {} s", WHOLE.as_secs()), Again::Never),
            };
            *lost = lost.plus(&failure.usage);
            let wait = match failure.verdict.again {
                Again::After(wait) if wait <= MAX_WAIT => Some(wait),
                Again::Later => Some(retry::backoff(tries)),
                _ => None,
            };
            // What somebody has read already cannot be said again in other words.
            let wait = wait.filter(|_| tries < most && !told.load(Ordering::Relaxed));
            let Some(wait) = wait else {
                return Err(self.error(failure.verdict.kind, &failure.said.shown(), tries, *lost));
            };
            tracing::debug!(provider = self.provider, model = %self.model, tries, ?wait, run = ask.request.run.as_str(),
                why = %self.endpoint.clean(&failure.said.shown()), "a model is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    /// One try: the first of them that is refused for its form may be sent in another.
    async fn attempt(&self, ask: &Ask<'_>, delta: Delta<'_>) -> Result<Heard, Failure> {
        loop {
            let slot = self.shared.limiter.enter().await.map_err(|wait| {
                let why = format!("its limit of requests is reached for {} s more", wait.as_secs());
                self.broken(&why, Again::Never)
            })?;
            let body = self.format.body(ask);
            let sent = self.endpoint.post(self.format.as_ref(), self.format.path(), &body);
            let response = match tokio::time::timeout(FIRST, sent).await {
                Ok(Ok(response)) => response,
                Ok(Err(why)) => return Err(self.broken(&why, Again::Later)),
                Err(_) => return Err(self.broken(&format!("no answer within {} s", FIRST.as_secs()), Again::Later)),
            };
            let headers = response.headers().clone();
            let status = response.status().as_u16();
            if response.status().is_success() {
                slot.answered(&headers);
                return self.read(response, delta).await;
            }
            let said = Said::read(status, &self.endpoint.error_of(response).await);
            let verdict = retry::judge(&said, &headers);
            match (status, verdict.again) {
                (429, Again::After(wait)) => slot.refused(Some(wait)),
                (429, Again::Later) => slot.refused(None),
                _ => slot.answered(&headers),
            }
            if matches!(status, 400 | 422) && self.format.adapt(&said) {
                continue;
            }
            return Err(Failure { said, verdict, usage: Usage::default() });
        }
    }

    /// Reads an answer: a stream of events, or, of servers that know no streams, one document.
    async fn read(&self, response: reqwest::Response, delta: Delta<'_>) -> Result<Heard, Failure> {
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let mut reader = self.format.reader();
        if kind.starts_with("application/json") {
            let body = net::bounded(response, MAX_EVENT).await.map_err(|why| self.broken(&why, Again::Later))?;
            let answer: Value = serde_json::from_slice(&body)
                .map_err(|e| self.broken(&format!("its answer is no JSON: {e}"), Again::Later))?;
            reader.whole(&answer, delta).map_err(|said| self.said(said, reader.usage()))?;
        } else {
            self.stream(response, reader.as_mut(), delta).await?;
        }
        let usage = reader.usage();
        reader.finish().ok_or_else(|| Failure { usage, ..self.broken("its stream ended in the middle", Again::Later) })
    }

    async fn stream(
        &self,
        response: reqwest::Response,
        reader: &mut dyn Reader,
        delta: Delta<'_>,
    ) -> Result<(), Failure> {
        let mut events = Events::default();
        let mut bytes = pin!(response.bytes_stream());
        let mut size = 0usize;
        loop {
            let broken =
                |why: &str, reader: &dyn Reader| Failure { usage: reader.usage(), ..self.broken(why, Again::Later) };
            let chunk = match tokio::time::timeout(IDLE, bytes.next()).await {
                Err(_) => {
                    return Err(broken(&format!("its stream stood still for {} s", IDLE.as_secs()), reader));
                }
                // Whether that was the end of the answer, the reader knows.
                Ok(None) => return Ok(()),
                Ok(Some(Err(e))) => {
                    return Err(broken(&format!("its stream broke: {}", net::reasons(&e.without_url())), reader));
                }
                Ok(Some(Ok(chunk))) => chunk,
            };
            size += chunk.len();
            if size > MAX_STREAM {
                let why = format!("its answer is larger than {MAX_STREAM} bytes");
                return Err(Failure { usage: reader.usage(), ..self.broken(&why, Again::Never) });
            }
            for event in events.feed(&chunk, MAX_EVENT).map_err(|why| broken(&why, reader))? {
                if event.data.is_empty() {
                    continue;
                }
                if event.data == b"[DONE]" {
                    return Ok(());
                }
                let document: Value = match serde_json::from_slice(&event.data) {
                    Ok(document) => document,
                    Err(e) => return Err(broken(&format!("its stream holds what is no JSON: {e}"), reader)),
                };
                match reader.event(&document, delta) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(said) => return Err(self.said(said, reader.usage())),
                }
            }
        }
    }

    /// An error that was said within an answer.
    fn said(&self, said: Said, usage: Usage) -> Failure {
        let verdict = retry::judge(&said, &http::HeaderMap::new());
        Failure { said, verdict, usage }
    }
    fn broken(&self, why: &str, again: Again) -> Failure {
        let verdict = Verdict { kind: ModelFailure::Unavailable, again };
        Failure { said: Said::nonsense(why), verdict, usage: Usage::default() }
    }
    fn error(&self, kind: ModelFailure, why: &str, tries: u32, usage: Usage) -> ModelError {
        let tries = if tries > 1 { format!(" ({tries} tries)") } else { String::new() };
        let why = format!("{} {} at {}: {why}{tries}", self.provider, self.model, self.endpoint.host());
        ModelError { kind, why: self.endpoint.clean(&why), usage }
    }
}

/// Where nobody said how much was read, it is estimated: an answer was not for nothing.
fn counted(ask: &Ask<'_>, usage: Usage) -> Usage {
    let unsaid = usage.read() == 0 && usage.output > 0;
    if unsaid { Usage { input: estimate::of(ask.request), estimated: true, ..usage } } else { usage }
}

/// The ids of an answer's calls, made such that they are there and that no two are the same.
pub(super) fn settle_ids<'a>(ids: impl Iterator<Item = &'a mut String>, turn: usize) {
    let mut taken: Vec<String> = Vec::new();
    for (place, id) in ids.enumerate() {
        let settled = tools::settle_id(id, place, turn, &|id| taken.iter().any(|t| t == id));
        taken.push(settled.clone());
        *id = settled;
    }
}
