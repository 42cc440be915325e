//! OAuth towards a server, through rmcp: what it does on the wire is rmcp's, whom it may reach
//! is ours (`web`), what is kept is the caller's.
//!
//! ```text
//! challenge ─▶ discover ─▶ identify ─▶ ask ─▶ (a person) ─▶ answered ─▶ Credential
//!   RFC 9728     │ 8414        │ given id · CIMD · DCR        RFC 9207        │
//!                └─────────────┴──────────▶ refresh | own ◀────────────────────┘
//! ```
//!
//! A [`Session`] is made anew for each of these: the server says again whose tokens it takes,
//! and what belongs to one issuer is never shown to another.

mod assertion;
mod credential;
mod register;
mod web;

pub use credential::{Credential, Registration};

use credential::single;
use policies::resolve::{AuthSpec, KeyOrSecret};
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, ClientCredentialsConfig, CredentialStore,
    InMemoryCredentialStore, OAuthClientConfig, OAuthTokenResponse, StoredCredentials,
};
use std::sync::Arc;
use url::Url;
use web::Web;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OAuthError {
    /// The refresh token is good no more: a person has to consent again.
    #[error("the authorization server takes the refresh token no longer")]
    Expired,
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl OAuthError {
    fn of(error: impl std::error::Error) -> Self {
        Self::Failed(crate::net::reasons(&error))
    }
    fn auth(error: AuthError) -> Self {
        match error {
            AuthError::TokenRefreshRejected(_) | AuthError::AuthorizationRequired => Self::Expired,
            other => Self::of(other),
        }
    }
}

/// A question to a person.
pub struct Asked {
    /// Where they consent.
    pub url: Url,
    /// What comes back with their answer.
    state: String,
    scopes: Vec<String>,
}

/// The authorization server of a server, found and checked.
pub struct Session {
    manager: AuthorizationManager,
    web: Arc<Web>,
    metadata: AuthorizationMetadata,
    issuer: String,
    server: Url,
}

impl Session {
    /// Finds it (RFC 9728), beginning with the challenge of a refusal where there was one, and
    /// reads its metadata (RFC 8414, OpenID Connect Discovery).
    ///
    /// # Errors
    /// When there is none, when it is not the one the operator named, or when it cannot do what
    /// the flow needs.
    pub async fn discover(server: &Url, auth: &AuthSpec, challenge: Option<&str>) -> Result<Self, OAuthError> {
        // Its query may hold a key, which is for the server alone.
        let mut server = server.clone();
        server.set_query(None);
        server.set_fragment(None);
        let web = Arc::new(Web::new(&server, auth.issuer.as_deref())?);
        let manager = AuthorizationManager::new_with_oauth_http_client(server.clone(), web.clone());
        let mut manager = manager.await.map_err(OAuthError::auth)?;
        let found = manager.resolve_metadata_from_challenge(challenge).await.map_err(OAuthError::auth)?;
        let failed = |why: String| Err(OAuthError::Failed(why));
        // What 2025-03-26 guessed where nothing was published; later revisions do not.
        if !found.source.is_discovered() {
            return failed(format!("{} names no authorization server", web::shown(&server)));
        }
        let metadata = found.metadata;
        let Some(issuer) = metadata.issuer.clone() else { return failed("its metadata has no issuer".into()) };
        if let Some(wanted) = auth.issuer.as_ref().filter(|wanted| **wanted != issuer) {
            return failed(format!("{} names {issuer}, auth.issuer is {wanted}", web::shown(&server)));
        }
        for endpoint in [&metadata.authorization_endpoint, &metadata.token_endpoint] {
            drop(web.may(&Url::parse(endpoint).map_err(OAuthError::of)?)?);
        }
        // What the operator gave for an issuer is for the one they named, or for one that is the
        // server itself: not for whomever the server names.
        if auth.proof.is_some() && auth.issuer.is_none() && !web.is_own(&issuer) {
            return failed(format!(
                "set auth.issuer = \"{issuer}\" if the secret or key is for it; only then is it shown to it"
            ));
        }
        manager.set_metadata(metadata.clone());
        Ok(Self { manager, web, metadata, issuer, server })
    }

    /// Whose tokens these are.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What to ask for: what the operator says, else what the challenge says, else what the
    /// server's metadata says; what was asked before is kept.
    pub async fn scopes(&self, auth: &AuthSpec, challenged: &[String], before: &[String]) -> Vec<String> {
        let mut scopes = match auth.scopes.is_empty() {
            true => self.manager.select_initial_scopes(&[]).await,
            false => auth.scopes.clone(),
        };
        // A step up is about what the challenge says and what was had; not about all there is.
        if !before.is_empty() && !challenged.is_empty() && auth.scopes.is_empty() {
            scopes = Vec::new();
        }
        scopes.extend(before.iter().chain(challenged).cloned());
        let supported = self.metadata.scopes_supported.iter().flatten().any(|s| s == "offline_access");
        if supported && !scopes.is_empty() {
            scopes.push("offline_access".into());
        }
        let mut seen = std::collections::BTreeSet::new();
        scopes.retain(|scope| seen.insert(scope.clone()));
        scopes
    }

    /// Becomes a client of it: the id the operator gave, else the document that is one, else the
    /// registration kept from last time, else a new one.
    ///
    /// # Errors
    /// When it registers no clients, or refuses this one.
    pub async fn identify(
        &mut self,
        auth: &AuthSpec,
        known: Option<&Registration>,
        redirect: &str,
        scopes: &[String],
    ) -> Result<Registration, OAuthError> {
        let own = |client_id: &str, client_secret| Registration {
            client_id: client_id.to_owned(),
            client_secret,
            method: None,
            redirect: redirect.to_owned(),
        };
        let secret = match &auth.proof {
            Some(KeyOrSecret::Secret(secret)) => Some(secret.expose().to_owned()),
            _ => None,
        };
        let registration = match (&auth.client_id, &auth.metadata_url) {
            (Some(id), _) => own(id, secret),
            (None, Some(url)) if self.says("client_id_metadata_document_supported") => own(url.as_str(), None),
            _ => match known.filter(|known| known.redirect == redirect) {
                Some(known) => known.clone(),
                None => register::register(&self.web, &self.metadata, redirect, scopes).await?,
            },
        };
        self.assume(&registration)?;
        Ok(registration)
    }

    /// Makes the question for a person, with PKCE (S256) and for this server alone (RFC 8707).
    ///
    /// # Errors
    /// When the issuer does not say that it can PKCE.
    pub async fn ask(&self, scopes: Vec<String>) -> Result<Asked, OAuthError> {
        let methods = self.metadata.code_challenge_methods_supported.as_deref().unwrap_or_default();
        if !methods.iter().any(|method| method == "S256") {
            return Err(OAuthError::Failed(format!(
                "{} does not support PKCE with S256, which is required",
                self.issuer
            )));
        }
        let wanted: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let url = self.manager.get_authorization_url(&wanted).await.map_err(OAuthError::auth)?;
        let url = Url::parse(&url).map_err(OAuthError::of)?;
        let state = single(&url, "state")?.unwrap_or_default();
        Ok(Asked { url, state, scopes })
    }

    /// Asks without a person, for issuers that consent by themselves.
    ///
    /// # Errors
    /// When it does not send us back at once.
    pub async fn follow(&self, asked: &Asked) -> Result<Url, OAuthError> {
        self.web.pointed(&asked.url).await
    }

    /// Takes the answer a person was sent back with, and the tokens for it. Who answers is
    /// checked before anything of the answer is believed or shown (RFC 9207).
    ///
    /// # Errors
    /// When it is no answer to this question, not of this issuer, or a refusal.
    pub async fn answered(&self, asked: &Asked, answer: &Url) -> Result<Credential, OAuthError> {
        let failed = |why: String| Err(OAuthError::Failed(why));
        if asked.state.is_empty() || single(answer, "state")?.as_ref() != Some(&asked.state) {
            return failed("the answer is not to this question (state)".into());
        }
        let issuer = single(answer, "iss")?;
        match &issuer {
            Some(iss) if *iss == self.issuer => {}
            Some(_) => return failed(format!("the answer is not of {} (iss)", self.issuer)),
            None if self.says("authorization_response_iss_parameter_supported") => {
                return failed(format!("the answer does not say that it is of {} (iss)", self.issuer));
            }
            None => {}
        }
        if let Some(error) = single(answer, "error")? {
            let more = single(answer, "error_description")?.map(|d| format!(": {d}")).unwrap_or_default();
            return failed(format!("{} refused: {error}{more}", self.issuer));
        }
        let Some(code) = single(answer, "code")? else { return failed("the answer has no code".into()) };
        let tokens = self.manager.exchange_code_for_token_with_issuer(&code, &asked.state, issuer.as_deref());
        Credential::of(tokens.await.map_err(OAuthError::auth)?, &asked.scopes)
    }

    /// New tokens for a refresh token.
    ///
    /// # Errors
    /// [`OAuthError::Expired`] when a person has to consent again.
    pub async fn refresh(&mut self, known: &Registration, old: &Credential) -> Result<Credential, OAuthError> {
        self.assume(known)?;
        let Some(refresh) = &old.refresh else { return Err(OAuthError::Expired) };
        let held = serde_json::json!({ "access_token": old.access, "token_type": "bearer", "refresh_token": refresh });
        let held: OAuthTokenResponse = serde_json::from_value(held).map_err(OAuthError::of)?;
        let stored = StoredCredentials::new(known.client_id.clone(), Some(held), old.scopes.clone(), None);
        let store = InMemoryCredentialStore::new();
        store.save(stored.with_issuer(Some(self.issuer.clone()))).await.map_err(OAuthError::auth)?;
        self.manager.set_credential_store(store);
        let fresh = self.manager.refresh_token().await.map_err(OAuthError::auth)?;
        let fresh = Credential::of(fresh, &old.scopes)?;
        Ok(Credential { asked: old.asked.clone(), ..fresh })
    }

    /// Tokens for Pleach itself (client credentials).
    ///
    /// # Errors
    /// When the issuer does not give any.
    pub async fn own(&mut self, auth: &AuthSpec, scopes: Vec<String>) -> Result<Credential, OAuthError> {
        let (Some(client_id), Some(proof)) = (&auth.client_id, &auth.proof) else {
            return Err(OAuthError::Failed("client-credentials needs client_id and a secret or key".into()));
        };
        let resource = self.server.as_str().trim_end_matches('/').to_owned();
        let tokens = match proof {
            KeyOrSecret::Secret(secret) => {
                let config = ClientCredentialsConfig::ClientSecret {
                    client_id: client_id.clone(),
                    client_secret: secret.expose().to_owned(),
                    scopes: scopes.clone(),
                    resource: Some(resource),
                };
                self.manager.validate_client_credentials_metadata(&config).map_err(OAuthError::auth)?;
                self.manager.configure_client_credentials(&config).map_err(OAuthError::auth)?;
                self.manager.exchange_client_credentials(&config).await.map_err(OAuthError::auth)?
            }
            KeyOrSecret::Key(pem) => {
                let signed = assertion::sign(client_id, &self.issuer, pem)?;
                let scope = scopes.join(" ");
                assertion::exchange(&self.web, &self.metadata.token_endpoint, &signed, &scope, &resource).await?
            }
        };
        Credential::of(tokens, &scopes)
    }

    /// Takes an identity on.
    fn assume(&mut self, registration: &Registration) -> Result<(), OAuthError> {
        if let Some(method) = &registration.method {
            // rmcp chooses by what the issuer supports; what it agreed on with us is narrower.
            let mut metadata = self.metadata.clone();
            metadata.additional_fields.insert(METHODS.into(), serde_json::json!([method]));
            self.manager.set_metadata(metadata);
        }
        let mut config = OAuthClientConfig::new(registration.client_id.clone(), registration.redirect.clone());
        if let Some(secret) = &registration.client_secret {
            config = config.with_client_secret(secret.clone());
        }
        self.manager.configure_client(config).map_err(OAuthError::auth)
    }

    fn says(&self, flag: &str) -> bool {
        self.metadata.additional_fields.get(flag).and_then(serde_json::Value::as_bool).unwrap_or(false)
    }
}

/// How clients may authenticate at the token endpoint.
const METHODS: &str = "token_endpoint_auth_methods_supported";
