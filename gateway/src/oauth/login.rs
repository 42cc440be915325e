//! A person's consent: from the refusal to the question, and from the answer to the tokens.

use super::{Account, Record};
use adapters::mcp::{Connection, Events, HttpTarget, Refusal, Retry, Tokens};
use adapters::oauth::{Asked, Credential, OAuthError, Registration, Session};
use async_trait::async_trait;
use policies::json::Object;
use policies::resolve::Secret;
use std::sync::{Arc, Mutex, PoisonError};
use url::Url;

/// What was found out before anybody is asked.
pub(crate) struct Start {
    session: Session,
    record: Record,
    scopes: Vec<String>,
}

/// A question that waits for its answer.
pub(crate) struct Login {
    session: Session,
    registration: Registration,
    asked: Asked,
}

impl Account {
    /// Finds out who gives tokens for the server, and what to ask for: what the server refused
    /// last, or what it says when it is asked without a token.
    ///
    /// # Errors
    /// When nobody does.
    pub(crate) async fn start(&self, target: HttpTarget) -> Result<Start, OAuthError> {
        let record = self.entry.load().map_err(|e| OAuthError::Failed(e.to_string()))?;
        let (challenge, scopes) = match record.wanted.as_ref().filter(|w| w.step_up) {
            Some(wanted) => (wanted.challenge.clone(), wanted.scopes.clone()),
            None => match challenge(target).await {
                Some(refusal) => (refusal.challenge.clone(), refusal.scopes()),
                None => (None, Vec::new()),
            },
        };
        let session = Session::discover(&self.url, &self.auth, challenge.as_deref()).await?;
        self.check_issuer(&record, session.issuer())?;
        let before = record.at(session.issuer()).and_then(|given| given.credential.as_ref());
        let before = before.map(|credential| credential.asked.clone()).unwrap_or_default();
        let scopes = session.scopes(&self.auth, &scopes, &before).await;
        Ok(Start { session, record, scopes })
    }

    /// Becomes a client of the issuer that is answered at `redirect`, and makes the question.
    ///
    /// # Errors
    /// When the issuer does not have us, or cannot do what is needed.
    pub(crate) async fn ask(&self, start: Start, redirect: &str) -> Result<Login, OAuthError> {
        let Start { mut session, record, scopes } = start;
        let known = record.at(session.issuer()).map(|given| &given.registration);
        let registration = session.identify(&self.auth, known, redirect, &scopes).await?;
        let asked = session.ask(scopes).await?;
        Ok(Login { session, registration, asked })
    }

    /// Takes the answer and keeps the tokens.
    ///
    /// # Errors
    /// When it is none, or a refusal.
    pub(crate) async fn finish(&self, login: Login, answer: &Url) -> Result<Credential, OAuthError> {
        let Login { session, registration, asked } = login;
        let credential = session.answered(&asked, answer).await?;
        let failed = |e: std::io::Error| OAuthError::Failed(e.to_string());
        let _one = self.entry.lock().await.map_err(failed)?;
        let mut record = self.entry.load().map_err(failed)?;
        record.keep(session.issuer(), registration, credential.clone());
        self.entry.save(&record).map_err(failed)?;
        Ok(credential)
    }

    /// Tokens for Pleach itself, now.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) async fn own(&self, target: HttpTarget) -> Result<(), OAuthError> {
        let record = self.entry.load().map_err(|e| OAuthError::Failed(e.to_string()))?;
        let stale = record.credential().map(|c| c.access.clone()).unwrap_or_default();
        let refusal = challenge(target).await;
        let scopes = refusal.as_ref().map(Refusal::scopes).unwrap_or_default();
        self.renew(&stale, refusal.as_ref().and_then(|r| r.challenge.as_deref()), &scopes).await
    }

    /// Lets everything go; whether there was anything.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) async fn forget(&self) -> std::io::Result<bool> {
        // A renewal that is under way would bring it back.
        let _one = self.entry.lock().await?;
        self.entry.forget()
    }
}

impl Start {
    /// Whose consent is asked for.
    pub(crate) fn issuer(&self) -> &str {
        self.session.issuer()
    }
    /// What for.
    pub(crate) fn scopes(&self) -> &[String] {
        &self.scopes
    }
    /// Where the issuer sent people back to last time: it may know no other place.
    pub(crate) fn redirect(&self) -> Option<&str> {
        let given = self.record.at(self.session.issuer())?;
        Some(given.registration.redirect.as_str()).filter(|redirect| !redirect.is_empty())
    }
}

impl Login {
    /// Where a person consents.
    pub(crate) fn url(&self) -> &Url {
        &self.asked.url
    }
    /// Consents without a person, where the issuer does.
    ///
    /// # Errors
    /// When it wants one.
    pub(crate) async fn follow(&self) -> Result<Url, OAuthError> {
        self.session.follow(&self.asked).await
    }
}

/// What the server says to whoever has no token: it is asked as any client would ask, since
/// some let everybody in and refuse only what comes after.
async fn challenge(target: HttpTarget) -> Option<Refusal> {
    let probe = Arc::new(Probe::default());
    let target = HttpTarget { tokens: Some(probe.clone()), ..target };
    if let Ok(connection) = Connection::http(target, (None, false), Object::new(), Arc::new(Deaf)).await {
        drop(connection.request("tools/list", Object::new(), &[], adapters::mcp::Exchange::default()).await);
    }
    probe.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[derive(Default)]
struct Probe {
    refusal: Mutex<Option<Refusal>>,
}

#[async_trait]
impl Tokens for Probe {
    async fn bearer(&self) -> Result<Option<Secret>, String> {
        Ok(None)
    }
    async fn refused(&self, refusal: Refusal) -> Retry {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
        Retry::No("a login is needed".into())
    }
}

struct Deaf;

impl Events for Deaf {
    fn notified(&self, _: &str, _: Object) {}
    fn resumed(&self) {}
    fn log(&self, _: &str) {}
    fn ended(&self) {}
}
