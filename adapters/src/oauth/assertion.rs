//! Client authentication by a signature instead of a secret (RFC 7523, `private_key_jwt`).

use super::OAuthError;
use super::credential::now;
use super::web::Web;
use crate::jwt;
use policies::resolve::Secret;
use rmcp::transport::auth::OAuthTokenResponse;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion is good.
const LIFE: u64 = 300;

/// An assertion that whoever holds the key is `client_id`, for `issuer` alone.
pub(super) fn sign(client_id: &str, issuer: &str, key: &Secret) -> Result<String, OAuthError> {
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|e| OAuthError::Failed(e.to_string()))?;
    let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
    let at = now();
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": issuer, "iat": at, "exp": at + LIFE, "jti": id,
    });
    jwt::sign(&claims, "client-authentication+jwt", key).map_err(OAuthError::Failed)
}

/// Tokens for an assertion. The client is named by it, not beside it.
pub(super) async fn exchange(
    web: &Web,
    endpoint: &str,
    assertion: &str,
    scope: &str,
    resource: &str,
) -> Result<OAuthTokenResponse, OAuthError> {
    let form = form(assertion, scope, resource);
    let response = web.post(endpoint, "application/x-www-form-urlencoded", form).await?;
    if response.status().is_success() {
        return serde_json::from_slice(response.body()).map_err(OAuthError::of);
    }
    let why: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let text = |key: &str| why.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let status = response.status();
    Err(OAuthError::Failed(format!("no token: HTTP {status} {} {}", text("error"), text("error_description"))))
}

fn form(assertion: &str, scope: &str, resource: &str) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    form.append_pair("client_assertion_type", BEARER);
    form.append_pair("client_assertion", assertion);
    form.append_pair("resource", resource);
    if !scope.is_empty() {
        form.append_pair("scope", scope);
    }
    form.finish()
}
