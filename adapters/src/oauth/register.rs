//! Dynamic client registration (RFC 7591), for issuers that know neither us nor documents.

use super::web::Web;
use super::{METHODS, OAuthError, Registration};
use rmcp::transport::auth::AuthorizationMetadata;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<String>,
    token_endpoint_auth_method: Option<String>,
}

/// Registers Pleach as a native application that comes back to `redirect`.
pub(super) async fn register(
    web: &Web,
    metadata: &AuthorizationMetadata,
    redirect: &str,
    scopes: &[String],
) -> Result<Registration, OAuthError> {
    let issuer = metadata.issuer.as_deref().unwrap_or("the authorization server");
    let Some(endpoint) = &metadata.registration_endpoint else {
        return Err(OAuthError::Failed(format!(
            "{issuer} registers no clients by itself; register Pleach there and set auth.client_id (redirect {redirect})"
        )));
    };
    let asked = method(metadata.additional_fields.get(METHODS));
    let mut body = json!({
        "client_name": "Pleach",
        "redirect_uris": [redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": asked,
        "application_type": "native",
    });
    if !scopes.is_empty() {
        body["scope"] = scopes.join(" ").into();
    }
    let response = web.post(endpoint, "application/json", body.to_string()).await?;
    if !response.status().is_success() {
        let why: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let text = |key: &str| why.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let status = response.status();
        let (error, more) = (text("error"), text("error_description"));
        return Err(OAuthError::Failed(format!("{issuer} registers no such client: HTTP {status} {error} {more}")));
    }
    let registered: Registered = serde_json::from_slice(response.body()).map_err(OAuthError::of)?;
    // What it says it agreed to; some give a secret to a client that shall show none.
    let agreed = registered.token_endpoint_auth_method.unwrap_or_else(|| asked.to_owned());
    let secret = registered.client_secret.filter(|secret| !secret.is_empty() && agreed != "none");
    Ok(Registration {
        client_id: registered.client_id,
        method: secret.as_ref().map(|_| agreed),
        client_secret: secret,
        redirect: redirect.to_owned(),
    })
}

/// A program that people run keeps no secret, so none is the right one; else what there is.
fn method(supported: Option<&Value>) -> &'static str {
    let Some(supported) = supported.and_then(Value::as_array) else { return "none" };
    let known = ["none", "client_secret_basic", "client_secret_post"];
    known.into_iter().find(|m| supported.iter().any(|s| s.as_str() == Some(m))).unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_is_one_the_issuer_has() {
        assert_eq!(method(None), "none");
        assert_eq!(method(Some(&json!(["client_secret_post"]))), "client_secret_post");
        assert_eq!(method(Some(&json!(["client_secret_post", "client_secret_basic"]))), "client_secret_basic");
        assert_eq!(method(Some(&json!(["client_secret_basic", "none"]))), "none");
        assert_eq!(method(Some(&json!(["tls_client_auth"]))), "none");
    }
}
