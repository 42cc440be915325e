//! What a failure means: whether it is tried again and when, and what is said of it in the end.
//! One policy for all providers, which is that of their own clients.

use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;
use subagents::ports::ModelFailure;

/// Tries of one request.
pub(super) const TRIES: u32 = 5;
/// Longer than this nobody waits: whoever asked is told instead.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(120);
/// Of what a provider says, so many characters are told.
const MAX_SAID: usize = 600;

/// What a provider said went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// The HTTP status, or the one its type stands for.
    pub(super) status: u16,
    /// Its type, such as `overloaded_error`.
    pub(super) kind: String,
    /// Its code, such as `context_length_exceeded`.
    pub(super) code: String,
    /// In words.
    pub(super) message: String,
}

impl Said {
    /// Words of our own about an answer that is none.
    pub(super) fn nonsense(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
    /// Reads the document of an error; a text that is none is what was said.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(document) => Self::of(status, &document),
            Err(_) => Self { status, message: shortened(&String::from_utf8_lossy(body)), ..Self::default() },
        }
    }
    /// The error in a document: `{"error": {"type", "code", "message", "details"}}`, or what
    /// other servers make of it.
    pub(super) fn of(status: u16, document: &Value) -> Self {
        let error = document.get("error").filter(|e| !e.is_null()).unwrap_or(document);
        let text = |at: &Value, key: &str| match at.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let detail = [error, document].into_iter().filter_map(|at| at.get("details")).map(|d| text(d, "error_code"));
        let code = detail.chain([text(error, "code")]).find(|c| !c.is_empty()).unwrap_or_default();
        let kind = text(error, "type");
        let words = ["message", "detail", "error"].into_iter().map(|key| text(error, key)).find(|w| !w.is_empty());
        let message = match error {
            Value::String(text) => text.clone(),
            _ => words.unwrap_or_else(|| error.to_string()),
        };
        let status = if status == 200 { status_of(&kind, &code) } else { status };
        Self { status, kind, code, message: shortened(&message) }
    }
    fn has(&self, words: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        words.iter().any(|w| message.contains(w) || self.code == *w)
    }
    /// `HTTP 429 rate_limit_error: slow down`.
    pub(super) fn shown(&self) -> String {
        let status = if self.status == 0 { String::new() } else { format!("HTTP {}", self.status) };
        let kind = if self.code.is_empty() { &self.kind } else { &self.code };
        let head: Vec<&str> = [status.as_str(), kind].into_iter().filter(|t| !t.is_empty()).collect();
        match (head.is_empty(), self.message.is_empty()) {
            (true, _) => self.message.clone(),
            (_, true) => head.join(" "),
            _ => format!("{}: {}", head.join(" "), self.message),
        }
    }
}

/// One line of bounded length, without control characters.
fn shortened(text: &str) -> String {
    let mut out: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    out.retain(|c| !c.is_control());
    if let Some((at, _)) = out.char_indices().nth(MAX_SAID) {
        out.truncate(at);
        out.push('…');
    }
    out
}

/// The status an error within a stream stands for.
fn status_of(kind: &str, code: &str) -> u16 {
    match kind {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => code.parse().ok().filter(|s| (400..600).contains(s)).unwrap_or(500),
    }
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// No.
    Never,
    /// When the provider said.
    After(Duration),
    /// After a while, longer each time.
    Later,
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Its kind, should it stay.
    pub(super) kind: ModelFailure,
    /// Whether to try again.
    pub(super) again: Again,
}

/// Judges an answer that is an error.
pub(super) fn judge(said: &Said, headers: &HeaderMap) -> Verdict {
    let kind = match said.status {
        _ if spent(said) => return Verdict { kind: ModelFailure::Spend, again: Again::Never },
        413 => ModelFailure::TooLong,
        400 | 422 if too_long(said) => ModelFailure::TooLong,
        // Nothing that was an answer at all: the network, a proxy, a server that is not well.
        0 | 408 | 409 | 429 | 500.. => ModelFailure::Unavailable,
        _ => ModelFailure::Refused,
    };
    let word = headers.get("x-should-retry").and_then(|v| v.to_str().ok());
    let retry = match word {
        Some("true") => true,
        Some("false") => false,
        _ => kind == ModelFailure::Unavailable,
    };
    let again = match (retry, after(headers)) {
        (false, _) => Again::Never,
        (true, Some(after)) => Again::After(after),
        (true, None) => Again::Later,
    };
    Verdict { kind, again }
}

/// A limit of money: nothing changes by waiting.
fn spent(said: &Said) -> bool {
    let code = said.code.as_str();
    said.status == 402
        || code.ends_with("spend_limit_reached")
        || matches!(code, "insufficient_quota" | "billing_hard_limit_reached")
}

fn too_long(said: &Said) -> bool {
    said.has(&[
        "context_length_exceeded",
        "prompt is too long",
        "maximum context length",
        "context window",
        "context length",
        "exceed context limit",
    ])
}

/// How long the provider asks to wait.
pub(super) fn after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str, unit: f64| {
        let n: f64 = text.parse().ok()?;
        Duration::try_from_secs_f64(n * unit).ok()
    };
    if let Some(wait) = text("retry-after-ms").and_then(|t| seconds(t, 0.001)) {
        return Some(wait);
    }
    let retry_after = text("retry-after")?;
    seconds(retry_after, 1.0).or_else(|| {
        let date = jiff::fmt::rfc2822::parse(retry_after).ok()?;
        Some(Duration::try_from(date.timestamp() - jiff::Timestamp::now()).unwrap_or_default())
    })
}

/// How long to wait after so many tries in vain: half a second, doubled each time up to eight,
/// less up to a quarter, so that many who fail together do not return together.
pub(super) fn backoff(tries: u32) -> Duration {
    let whole = Duration::from_millis(500) * 2u32.saturating_pow(tries.saturating_sub(1).min(4));
    let mut random = [0u8; 2];
    // Without randomness everybody waits the whole time.
    let _ = getrandom::fill(&mut random);
    whole.mul_f64(1.0 - f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX) * 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn said(status: u16, body: &str) -> Said {
        Said::read(status, body.as_bytes())
    }
    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn errors_of_many_servers_are_read() {
        for (body, shown) in [
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Over\nloaded"}}"#,
                "HTTP 400 overloaded_error: Over loaded",
            ),
            (
                r#"{"error":{"message":"no","type":"invalid_request_error","code":"model_not_found"}}"#,
                "HTTP 400 model_not_found: no",
            ),
            (r#"{"error":"model 'x' not found"}"#, "HTTP 400: model 'x' not found"),
            (r#"{"object":"error","message":"bad","code":400}"#, "HTTP 400 400: bad"),
            (r#"{"detail":"Not Found"}"#, "HTTP 400: Not Found"),
            ("<html>\n bad  gateway</html>", "HTTP 400: <html> bad gateway</html>"),
            ("", "HTTP 400"),
        ] {
            assert_eq!(said(400, body).shown(), shown);
        }
        let long = said(500, &"x".repeat(10_000));
        assert!(long.shown().chars().count() < 700);
    }

    #[test]
    fn failures_are_told_apart() {
        let none = HeaderMap::new();
        for (status, body, kind, again) in [
            (400, "{}", ModelFailure::Refused, Again::Never),
            (401, "{}", ModelFailure::Refused, Again::Never),
            (404, "{}", ModelFailure::Refused, Again::Never),
            (408, "{}", ModelFailure::Unavailable, Again::Later),
            (409, "{}", ModelFailure::Unavailable, Again::Later),
            (429, "{}", ModelFailure::Unavailable, Again::Later),
            (500, "", ModelFailure::Unavailable, Again::Later),
            (529, "", ModelFailure::Unavailable, Again::Later),
            (413, "{}", ModelFailure::TooLong, Again::Never),
            (
                400,
                r#"{"error":{"message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
                ModelFailure::TooLong,
                Again::Never,
            ),
            (400, r#"{"error":{"code":"context_length_exceeded","message":"x"}}"#, ModelFailure::TooLong, Again::Never),
            (402, "{}", ModelFailure::Spend, Again::Never),
            (
                429,
                r#"{"error":{"details":{"error_code":"enforced_spend_limit_reached"}}}"#,
                ModelFailure::Spend,
                Again::Never,
            ),
            (
                429,
                r#"{"error":{},"details":{"error_code":"linked_organization_spend_limit_reached"}}"#,
                ModelFailure::Spend,
                Again::Never,
            ),
            (429, r#"{"error":{"code":"insufficient_quota"}}"#, ModelFailure::Spend, Again::Never),
        ] {
            assert_eq!(judge(&said(status, body), &none), Verdict { kind, again }, "{status} {body}");
        }
        let told = |status, word| judge(&said(status, "{}"), &headers(&[("x-should-retry", word)])).again;
        assert_eq!((told(400, "true"), told(529, "false")), (Again::Later, Again::Never));
    }

    #[test]
    fn waiting_times_are_obeyed_in_all_their_forms() {
        assert_eq!(
            after(&headers(&[("retry-after-ms", "1500"), ("retry-after", "9")])),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(after(&headers(&[("retry-after", "2.5")])), Some(Duration::from_millis(2500)));
        assert_eq!(after(&headers(&[("retry-after", "-3")])), None);
        assert_eq!(after(&headers(&[("retry-after", "soon")])), None);
        let date = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC) + Duration::from_secs(60);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date.timestamp()).unwrap();
        let wait = after(&headers(&[("retry-after", &date)])).unwrap();
        assert!((58..=60).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(after(&headers(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")])), Some(Duration::ZERO));
        for (tries, most) in [(1, 500), (2, 1000), (3, 2000), (5, 8000), (9, 8000)] {
            let wait = backoff(tries).as_millis();
            assert!(wait <= most && wait * 4 >= most * 3 - 4, "{tries}: {wait}");
        }
    }
}
