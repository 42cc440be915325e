//! What an HTTP server is shown so that it lets us in: asked for with each request, told when
//! it was not enough. Where the tokens come from is somebody else's business.

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use policies::resolve::Secret;

/// The tokens for one server and one principal.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// The token to show now, if there is one.
    ///
    /// # Errors
    /// Why the request must not be sent.
    async fn bearer(&self) -> Result<Option<Secret>, String>;
    /// The server refused what it was shown.
    async fn refused(&self, refusal: Refusal) -> Retry;
}

/// Whether it is worth asking once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// There is another token.
    Again,
    /// No, with the reason and the cure.
    No(String),
}

/// A refusal for want of authorization (RFC 6750, section 3).
#[derive(Debug, Clone)]
pub struct Refusal {
    /// 401: no token or a bad one; 403: one that is not enough.
    pub status: StatusCode,
    /// The `WWW-Authenticate` of the scheme Bearer, if there was one.
    pub challenge: Option<String>,
    /// What was shown.
    pub shown: Option<Secret>,
}

impl Refusal {
    /// Reads one from a response. A 403 without `insufficient_scope` is no question of tokens.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, shown: Option<Secret>) -> Option<Self> {
        let challenges = headers.get_all("www-authenticate").iter().filter_map(|v| v.to_str().ok());
        let challenge = challenges.filter_map(bearer).next().map(str::to_owned);
        let refusal = Self { status, challenge, shown };
        let asks = match status {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::FORBIDDEN => refusal.parameter("error").as_deref() == Some("insufficient_scope"),
            _ => false,
        };
        asks.then_some(refusal)
    }
    /// The scopes the challenge names.
    pub fn scopes(&self) -> Vec<String> {
        let scope = self.parameter("scope").unwrap_or_default();
        scope.split_whitespace().map(str::to_owned).collect()
    }
    /// A parameter of the challenge.
    fn parameter(&self, name: &str) -> Option<String> {
        parameters(self.challenge.as_deref()?).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// The part of a header that begins with the scheme Bearer.
fn bearer(header: &str) -> Option<&str> {
    let lower = header.to_ascii_lowercase();
    let starts = |at: &usize| *at == 0 || lower[..*at].trim_end().ends_with(',');
    let at = lower.match_indices("bearer").map(|(at, _)| at).find(starts)?;
    Some(&header[at..])
}

/// `Bearer a="b", c=d` as pairs, up to the next scheme.
fn parameters(challenge: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = challenge.split_once(' ').map_or("", |(_, rest)| rest).trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim();
        // `scheme key=…`: another challenge begins.
        if key.is_empty() || key.contains(char::is_whitespace) {
            break;
        }
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        out.push((key.to_ascii_lowercase(), value));
        rest = next.trim_start().trim_start_matches(',').trim_start();
    }
    out
}

fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[&str]) -> Option<Refusal> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append("www-authenticate", header.parse().unwrap());
        }
        Refusal::of(StatusCode::from_u16(status).unwrap(), &map, None)
    }

    #[test]
    fn refusals_are_read() {
        let found = refusal(401, &["Basic realm=\"x\"", "bearer scope=\"a b\", resource_metadata=\"https://x/y\""]);
        assert_eq!(found.unwrap().scopes(), ["a", "b"]);
        let found =
            refusal(401, &["Basic realm=\"x\", Bearer error=invalid_token,scope=a, DPoP algs=\"ES256\""]).unwrap();
        assert_eq!(found.scopes(), ["a"]);
        assert_eq!(found.parameter("algs"), None);
        let tricky = "Bearer error=\"insufficient_scope\", error_description=\"say scope=\\\"x\\\"\", scope=\"real\"";
        assert_eq!(refusal(403, &[tricky]).unwrap().scopes(), ["real"]);
        assert!(refusal(401, &[]).unwrap().challenge.is_none());
        assert!(refusal(403, &[]).is_none());
        assert!(refusal(403, &["Bearer error=\"invalid_token\""]).is_none());
        assert!(refusal(200, &["Bearer"]).is_none());
        for odd in ["Bearer", "Bearer =", "Bearer scope=\"never closed", "Bearer scope", "NotBearer scope=x"] {
            let _ = refusal(401, &[odd]).unwrap().scopes();
        }
    }
}
