//! Tokens towards servers, for one principal each: shown with every request, renewed where no
//! person is needed, and asked of one where one is. A client's own token is never among them.
//!
//! ```text
//!             bearer ─▶ server ─▶ 401, 403 insufficient_scope
//!                                     │
//!    another process has renewed ◀────┤ the record says otherwise by now
//!    refresh token, or Pleach's own ◀─┤ renew, once for all who wait
//!    pleach login SERVER ◀────────────┘ the refusal is kept for it to answer
//! ```

mod login;
mod vault;

pub(crate) use login::Login;
pub(crate) use vault::{Record, Vault};

use adapters::mcp::{Refusal, Retry, Tokens};
use adapters::oauth::{OAuthError, Registration, Session};
use async_trait::async_trait;
use http::StatusCode;
use policies::names::Name;
use policies::resolve::{AuthSpec, Flow, Secret};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;
use vault::{Entry, Stamp, Wanted};

/// A token that ends within so many seconds is renewed before it is shown.
const EARLY: u64 = 30;
/// For this long nobody looks whether another process has logged in; a refusal looks at once.
const LOOKED: Duration = Duration::from_secs(1);
/// How long a renewal that failed is not tried again, where the old token may do.
const PAUSE: Duration = Duration::from_secs(15);

/// Pleach's standing with one server, for one principal.
#[derive(Clone)]
pub(crate) struct Account(Arc<Standing>);

/// What an account is.
pub(crate) struct Standing {
    server: Name,
    principal: String,
    url: Url,
    auth: AuthSpec,
    entry: Entry,
    /// What was read, of which file, and when that was looked at.
    read: Mutex<Option<(Instant, Stamp, Arc<Record>)>>,
    /// One renews at a time; how the last one failed, and for which token.
    turn: tokio::sync::Mutex<Option<(Instant, String, OAuthError)>>,
}

impl std::ops::Deref for Account {
    type Target = Standing;
    fn deref(&self) -> &Standing {
        &self.0
    }
}

impl Account {
    pub(crate) fn new(vault: &Arc<Vault>, server: &Name, url: &Url, auth: &AuthSpec, principal: &str) -> Self {
        Self(Arc::new(Standing {
            server: server.clone(),
            principal: principal.to_owned(),
            url: url.clone(),
            auth: auth.clone(),
            entry: vault.entry(server, principal),
            read: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// The record, read again when the file changed: another process may have logged in.
    fn record(&self) -> Result<Arc<Record>, String> {
        if let Some((at, _, record)) = &*lock(&self.read)
            && at.elapsed() < LOOKED
        {
            return Ok(record.clone());
        }
        let stamp = self.entry.stamp();
        if let Some((at, of, record)) = &mut *lock(&self.read)
            && *of == stamp
        {
            *at = Instant::now();
            return Ok(record.clone());
        }
        let record = Arc::new(self.entry.load().map_err(|e| e.to_string())?);
        *lock(&self.read) = Some((Instant::now(), stamp, record.clone()));
        Ok(record)
    }
    /// The next look is at the file itself.
    fn look_again(&self) {
        *lock(&self.read) = None;
    }

    /// New tokens without a person, once for all who need them. `stale` is the token that was
    /// not good enough. It goes on whatever becomes of whoever waits for it: an issuer that has
    /// given a new refresh token takes the old one no longer.
    ///
    /// # Errors
    /// [`OAuthError::Expired`] where a person is needed.
    pub(crate) async fn renew(
        &self,
        stale: &str,
        challenge: Option<&str>,
        scopes: &[String],
    ) -> Result<(), OAuthError> {
        let (account, stale) = (self.clone(), stale.to_owned());
        let (challenge, scopes) = (challenge.map(str::to_owned), scopes.to_vec());
        let renewal = tokio::spawn(async move {
            let mut turn = account.turn.lock().await;
            if let Some((at, of, why)) = &*turn
                && *of == stale
                && at.elapsed() < PAUSE
            {
                return Err(why.clone());
            }
            let renewed = account.renew_now(&stale, challenge.as_deref(), &scopes).await;
            *turn = renewed.as_ref().err().map(|why| (Instant::now(), stale, why.clone()));
            renewed
        });
        renewal.await.unwrap_or_else(|e| Err(OAuthError::Failed(e.to_string())))
    }

    async fn renew_now(&self, stale: &str, challenge: Option<&str>, scopes: &[String]) -> Result<(), OAuthError> {
        let failed = |e: std::io::Error| OAuthError::Failed(e.to_string());
        let _one = self.entry.lock().await.map_err(failed)?;
        let mut record = self.entry.load().map_err(failed)?;
        if record.credential().map_or("", |c| c.access.as_str()) != stale {
            return Ok(());
        }
        let mut session = Session::discover(&self.url, &self.auth, challenge).await?;
        self.check_issuer(&record, session.issuer())?;
        let issuer = session.issuer().to_owned();
        let (registration, fresh) = match self.auth.flow {
            Flow::ClientCredentials => {
                let before = record.at(&issuer).and_then(|g| g.credential.as_ref()).map(|c| c.asked.clone());
                let wanted = session.scopes(&self.auth, scopes, &before.unwrap_or_default()).await;
                (self.own_registration(), session.own(&self.auth, wanted).await?)
            }
            Flow::Code | Flow::Grant => {
                let given = record.at(&issuer).ok_or(OAuthError::Expired)?;
                let old = given.credential.as_ref().ok_or(OAuthError::Expired)?;
                (given.registration.clone(), session.refresh(&given.registration, old).await?)
            }
        };
        tracing::info!(server = %self.server, principal = %self.principal, %issuer, "token renewed");
        record.keep(&issuer, registration, fresh);
        self.entry.save(&record).map_err(failed)
    }

    /// An id that was registered with one issuer is not shown to another.
    fn check_issuer(&self, record: &Record, now: &str) -> Result<(), OAuthError> {
        let before = record.issuer.as_deref().filter(|before| *before != now);
        match before {
            Some(before) if self.auth.client_id.is_some() && self.auth.issuer.is_none() => {
                Err(OAuthError::Failed(format!(
                    "server {} names {now} now, and auth.client_id was used at {before}; set auth.issuer to the one it belongs to",
                    self.server
                )))
            }
            _ => Ok(()),
        }
    }

    fn own_registration(&self) -> Registration {
        let client_id = self.auth.client_id.clone().unwrap_or_default();
        Registration { client_id, client_secret: None, method: None, redirect: String::new() }
    }

    /// Keeps what a login is to answer; the words for whoever can do that.
    async fn want(&self, refusal: &Refusal) -> String {
        let step_up = refusal.status == StatusCode::FORBIDDEN;
        let wanted = Wanted { challenge: refusal.challenge.clone(), scopes: refusal.scopes(), step_up };
        let kept: std::io::Result<bool> = async {
            let _one = self.entry.lock().await?;
            let mut record = self.entry.load()?;
            if record.wanted.as_ref() == Some(&wanted) {
                return Ok(false);
            }
            record.wanted = Some(wanted.clone());
            self.entry.save(&record).map(|()| true)
        }
        .await;
        let (server, who) = (&self.server, self.for_whom());
        let message = match step_up {
            true => {
                let scopes = wanted.scopes.join(" ");
                format!("server {server} wants more scopes ({scopes}); run `pleach login {server}{who}`")
            }
            false => format!("server {server} asks for authorization; run `pleach login {server}{who}`"),
        };
        match kept {
            Ok(true) => tracing::warn!("{message}"),
            Ok(false) => {}
            Err(e) => tracing::warn!(server = %server, "{e}"),
        }
        message
    }

    fn for_whom(&self) -> String {
        if self.principal == "local" { String::new() } else { format!(" --client {}", self.principal) }
    }
}

#[async_trait]
impl Tokens for Account {
    async fn bearer(&self) -> Result<Option<Secret>, String> {
        let mut record = self.record()?;
        let renewable = |record: &Record| {
            let held = record.credential().filter(|c| c.ends_within(EARLY));
            held.filter(|c| c.refresh.is_some() || self.auth.flow == Flow::ClientCredentials).map(|c| c.access.clone())
        };
        if let Some(stale) = renewable(&record) {
            match self.renew(&stale, None, &[]).await {
                Ok(()) => {
                    self.look_again();
                    record = self.record()?;
                }
                // It may do for a moment yet; the server decides.
                Err(e) => {
                    tracing::warn!(server = %self.server, principal = %self.principal, "the token was not renewed: {e}");
                }
            }
        }
        Ok(record.credential().map(|c| Secret::new(c.access.as_str())))
    }

    async fn refused(&self, refusal: Refusal) -> Retry {
        self.look_again();
        let shown = refusal.shown.as_ref().map_or("", Secret::expose);
        let record = match self.entry.load() {
            Ok(record) => record,
            Err(e) => return Retry::No(e.to_string()),
        };
        let held = record.credential();
        if held.is_some_and(|c| c.access != shown) {
            return Retry::Again;
        }
        let (server, scopes) = (&self.server, refusal.scopes());
        let more = refusal.status == StatusCode::FORBIDDEN;
        if more && held.is_some_and(|c| scopes.iter().all(|s| c.asked.contains(s))) {
            let scopes = scopes.join(" ");
            return Retry::No(format!(
                "server {server} refuses for want of scopes that were asked for already ({scopes})"
            ));
        }
        let own = self.auth.flow == Flow::ClientCredentials;
        if own || (!more && held.is_some_and(|c| c.refresh.is_some())) {
            match self.renew(shown, refusal.challenge.as_deref(), &scopes).await {
                Ok(()) => {
                    self.look_again();
                    return Retry::Again;
                }
                Err(OAuthError::Expired) if !own => {}
                Err(e) => return Retry::No(format!("server {server} asks for authorization: {e}")),
            }
        }
        Retry::No(self.want(&refusal).await)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
