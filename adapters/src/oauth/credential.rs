//! What is kept between flows, and what is read from an issuer's answers.

use super::OAuthError;
use rmcp::transport::auth::OAuthTokenResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use url::Url;

/// Who Pleach is at one issuer. Holds a secret: no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The id.
    pub client_id: String,
    /// The secret, if it has one.
    pub client_secret: Option<String>,
    /// How it is shown (`client_secret_basic`, `client_secret_post`), where the issuer said.
    pub method: Option<String>,
    /// Where a person is sent back to.
    pub redirect: String,
}

/// Tokens of one issuer for one server. Holds secrets: no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The access token.
    pub access: String,
    /// The refresh token, if one was given.
    pub refresh: Option<String>,
    /// When the access token ends, in seconds since 1970, where that is known.
    pub expires_at: Option<u64>,
    /// The scopes it has.
    pub scopes: Vec<String>,
    /// The scopes that were asked for.
    pub asked: Vec<String>,
}

impl Credential {
    /// Whether it ends within `seconds`.
    pub fn ends_within(&self, seconds: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now() + seconds)
    }
    /// What a token response says.
    pub(super) fn of(tokens: OAuthTokenResponse, asked: &[String]) -> Result<Self, OAuthError> {
        let json = serde_json::to_value(&tokens).map_err(OAuthError::of)?;
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(OAuthError::Failed("the token is no bearer token".into()));
        }
        let access = text("access_token").filter(|token| !token.is_empty());
        let access = access.ok_or_else(|| OAuthError::Failed("the token is empty".into()))?;
        // An omitted scope means that all was given (RFC 6749, section 5.1).
        let scopes = text("scope").map(|s| s.split_whitespace().map(str::to_owned).collect());
        Ok(Self {
            access,
            refresh: text("refresh_token"),
            expires_at: json.get("expires_in").and_then(Value::as_u64).map(|s| now().saturating_add(s)),
            scopes: scopes.unwrap_or_else(|| asked.to_vec()),
            asked: asked.to_vec(),
        })
    }
}

/// The one value of a query parameter: of two, none is believed.
pub(super) fn single(url: &Url, name: &str) -> Result<Option<String>, OAuthError> {
    let mut values = url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(OAuthError::Failed(format!("{name} stands twice in the answer"))),
        (value, None) => Ok(value),
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
