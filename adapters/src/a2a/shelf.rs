//! Where a peer's card is kept: as long as its headers say (RFC 9111), then asked for again with
//! what it was known by. A card that is not what it must be is not kept, and the one before stays.

use super::card::Card;
use super::{PeerTarget, lock, signature};
use crate::mcp::McpError;
use crate::net::{bounded, reasons};
use http::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use policies::json::{Json, Limits};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A card may have this many bytes.
const MAX_CARD: usize = 1 << 20;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(15);
/// One that says nothing of it is kept for so long.
const UNSAID: Duration = Duration::from_secs(5 * 60);
/// No card is kept longer without a look.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Shelf {
    target: Arc<PeerTarget>,
    kept: Mutex<Option<Kept>>,
    /// Held while it is fetched.
    turn: tokio::sync::Mutex<()>,
}

/// When a card is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// When its time is over.
    Due,
    /// When its time is over, or it says nothing of that.
    Unsaid,
    /// Now: it is not as it was.
    Now,
}

struct Kept {
    card: Arc<Card>,
    /// The same as the peer wrote it.
    written: Arc<Json>,
    /// When it was asked for last.
    at: Instant,
    /// `ETag` and `Last-Modified`, as they came.
    tag: Option<String>,
    modified: Option<String>,
    /// How long that holds, and whether the peer says so.
    until: Instant,
    says: bool,
}

impl Shelf {
    pub(super) fn new(target: Arc<PeerTarget>) -> Self {
        Self { target, kept: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
    /// The card as it is known.
    pub(super) fn known(&self) -> Option<Arc<Card>> {
        lock(&self.kept).as_ref().map(|kept| kept.card.clone())
    }
    /// The card as the peer wrote it.
    pub(super) fn written(&self) -> Option<Arc<Json>> {
        lock(&self.kept).as_ref().map(|kept| kept.written.clone())
    }
    /// The card as it is now; and how long that holds, where it says.
    ///
    /// # Errors
    /// Why there is none that could be used.
    pub(super) async fn fresh(&self, when: When) -> Result<(Arc<Card>, Option<Duration>), McpError> {
        let arrived = Instant::now();
        if let Some(good) = self.good(when, arrived) {
            return Ok(good);
        }
        let _one = self.turn.lock().await;
        // Who waited while it was asked for has it.
        if let Some(good) = self.good(when, arrived) {
            return Ok(good);
        }
        let mut request = self.target.card_client.get(self.target.card.clone()).timeout(LIMIT);
        request = request.header("accept", "application/json").header("a2a-version", "1.0");
        // Only to whom they are meant for: a card may lie elsewhere.
        if self.target.card.origin() == self.target.home.origin() {
            for (name, value) in &self.target.headers {
                request = request.header(name, value.expose());
            }
        }
        if let Some(kept) = lock(&self.kept).as_ref() {
            if let Some(tag) = &kept.tag {
                request = request.header(IF_NONE_MATCH, tag);
            } else if let Some(modified) = &kept.modified {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
        }
        let shown = format!("its card, {}{}", self.target.card.origin().ascii_serialization(), self.target.card.path());
        let response = request
            .send()
            .await
            .map_err(|e| McpError::Unreachable(format!("{shown}: {}", reasons(&e.without_url()))))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let lasts = lasts(&headers);
        let (at, says) = (Instant::now(), lasts.is_some());
        let until = at + lasts.unwrap_or(if is_silent(&headers) { UNSAID } else { Duration::ZERO });
        if status.as_u16() == 304
            && let Some(kept) = lock(&self.kept).as_mut()
        {
            (kept.until, kept.says, kept.at) = (until, says, at);
            return Ok((kept.card.clone(), lasts));
        }
        let refused = |why: String| McpError::Unreachable(format!("{shown}: {why}"));
        match status.as_u16() {
            200 => {}
            401 | 403 => {
                let why = "it asks who we are, or refuses who we say; see headers in its [peers] table";
                return Err(refused(format!("HTTP {status}: {why}")));
            }
            300..=399 => {
                return Err(refused(format!("HTTP {status}: a redirect is not followed; give its own address")));
            }
            _ => return Err(refused(format!("HTTP {status}"))),
        }
        let body = bounded(response, MAX_CARD).await.map_err(&refused)?;
        let json = Json::parse(&body, Limits { bytes: MAX_CARD, ..Limits::default() });
        let json = json.map_err(|e| refused(format!("it is no JSON: {e}")))?;
        if let Some(keys) = &self.target.keys {
            signature::check(&json, keys).map_err(&refused)?;
        }
        let mut json = json;
        crate::hidden::in_json(&mut json);
        let card = Arc::new(Card::read(&json, &self.target.home).map_err(&refused)?);
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (tag, modified, written) = (text(ETAG), text(LAST_MODIFIED), Arc::new(json));
        let kept = Kept { card: card.clone(), written, at, tag, modified, until, says };
        *lock(&self.kept) = Some(kept);
        Ok((card, lasts))
    }

    /// The card that is kept, where it is good enough.
    fn good(&self, when: When, arrived: Instant) -> Option<(Arc<Card>, Option<Duration>)> {
        let kept = lock(&self.kept);
        let kept = kept.as_ref()?;
        let left = kept.until.saturating_duration_since(Instant::now());
        let good = kept.at >= arrived
            || match when {
                When::Due => !left.is_zero(),
                When::Unsaid => kept.says && !left.is_zero(),
                When::Now => false,
            };
        good.then(|| (kept.card.clone(), Some(left).filter(|left| kept.says && !left.is_zero())))
    }
}

/// Whether a response says nothing of how long it may be kept.
fn is_silent(headers: &HeaderMap) -> bool {
    !headers.contains_key(CACHE_CONTROL)
}

/// How long a response may be kept, where it says.
fn lasts(headers: &HeaderMap) -> Option<Duration> {
    let words = headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let words: Vec<String> = words.map(|word| word.trim().to_ascii_lowercase()).collect();
    if words.iter().any(|word| word == "no-store" || word == "no-cache") {
        return None;
    }
    let age = words.iter().find_map(|word| word.strip_prefix("max-age=")?.trim_matches('"').parse::<u64>().ok())?;
    let old = headers.get(AGE).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
    let left = Duration::from_secs(age.saturating_sub(old)).min(MAX_AGE);
    (!left.is_zero()).then_some(left)
}
