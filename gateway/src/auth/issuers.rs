//! The keys of the issuers whose tokens name clients: fetched when they are first needed, kept
//! for an hour, fetched again when a token names a key that is not among them, and no oftener
//! than twice a minute, whoever asks.

use adapters::jwt::{self, Flaw, Keys};
use adapters::net;
use policies::callers;
use policies::decide;
use policies::domain::Host;
use policies::json::{Json, Limits};
use policies::resolve::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// How long keys are good without asking.
const TTL: Duration = Duration::from_secs(3_600);
/// How long they are used where the issuer cannot be asked.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// How often an issuer is asked at most for what it did not give before.
const PAUSE: Duration = Duration::from_secs(30);

/// Why a token was not understood.
#[derive(Debug)]
pub(super) enum Doubt {
    /// It is not good.
    Bad(String),
    /// Whether it is cannot be said now.
    Later(String),
}

/// All issuers of a policy.
pub(super) struct Issuers(BTreeMap<String, Issuer>);

struct Issuer {
    issuer: String,
    audiences: BTreeSet<String>,
    jwks_url: Option<Url>,
    keys: Mutex<Option<(Instant, Arc<Keys>)>>,
    /// When it was asked in vain, or for newer keys than were kept; held while it is.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl Issuers {
    pub(super) fn new(policy: &Policy) -> Self {
        let mut all: BTreeMap<String, Issuer> = BTreeMap::new();
        for spec in callers::specs(policy) {
            let issuer = all.entry(spec.issuer.clone()).or_insert_with(|| Issuer {
                issuer: spec.issuer.clone(),
                audiences: BTreeSet::new(),
                jwks_url: spec.jwks_url.clone(),
                keys: Mutex::default(),
                asked: tokio::sync::Mutex::default(),
            });
            issuer.audiences.insert(spec.audience.clone());
        }
        Self(all)
    }

    /// The issuer of a token and its claims, if it is a good one.
    pub(super) async fn claims(&self, token: &str) -> Result<(&str, Json), Doubt> {
        let bad = |why: &str| Doubt::Bad(why.to_owned());
        let claimed = jwt::claimed_issuer(token).ok_or_else(|| bad("it is no token of a client"))?;
        let issuer = self.0.get(&claimed).ok_or_else(|| bad("its issuer names no client"))?;
        let keys = issuer.keys(false).await.map_err(Doubt::Later)?;
        let claims = match issuer.verify(token, &keys) {
            Err(Flaw::UnknownKey) => {
                let keys = issuer.keys(true).await.map_err(Doubt::Later)?;
                issuer.verify(token, &keys)
            }
            other => other,
        };
        claims.map(|claims| (issuer.issuer.as_str(), claims)).map_err(|flaw| Doubt::Bad(flaw.to_string()))
    }
}

impl Issuer {
    fn verify(&self, token: &str, keys: &Keys) -> Result<Json, Flaw> {
        let audiences: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        jwt::verify(token, keys, &self.issuer, &audiences)
    }

    /// The keys; `new` ones where those kept did not do.
    async fn keys(&self, new: bool) -> Result<Arc<Keys>, String> {
        if let Some(keys) = self.kept(TTL).filter(|_| !new) {
            return Ok(keys);
        }
        let mut asked = self.asked.lock().await;
        // Whoever waited has what the one before was given.
        if let Some(keys) = self.kept(TTL).filter(|_| !new) {
            return Ok(keys);
        }
        if asked.is_some_and(|at| at.elapsed() < PAUSE) {
            return self.kept(STALE).ok_or_else(|| format!("{} gave no keys a moment ago", self.issuer));
        }
        let fetched = self.fetch().await;
        if new || fetched.is_err() {
            *asked = Some(Instant::now());
        }
        match fetched {
            Ok(keys) => {
                tracing::info!(issuer = %self.issuer, keys = keys.len(), "keys fetched");
                let keys = Arc::new(keys);
                *lock(&self.keys) = Some((Instant::now(), keys.clone()));
                Ok(keys)
            }
            Err(why) => {
                tracing::warn!(issuer = %self.issuer, "keys: {why}");
                self.kept(STALE).ok_or(why)
            }
        }
    }

    fn kept(&self, for_: Duration) -> Option<Arc<Keys>> {
        lock(&self.keys).as_ref().filter(|(at, _)| at.elapsed() < for_).map(|(_, keys)| keys.clone())
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let issuer = Url::parse(&self.issuer).map_err(|e| e.to_string())?;
        let document = match &self.jwks_url {
            // The operator wrote it.
            Some(url) => {
                let (host, port) = net::origin(url)?;
                net::fetch(url, decide::registered(host, port)).await?
            }
            None => {
                let url = self.discover(&issuer).await?;
                let by = Host::of(&issuer).map_err(|e| e.to_string())?;
                let (host, port) = net::origin(&url)?;
                if url.scheme() != "https" && !(by.is_loopback() && host.is_loopback()) {
                    return Err(format!("{} names keys that are not behind https", self.issuer));
                }
                let permit = decide::named_by(&by, host, port).map_err(|denial| denial.for_model())?;
                net::fetch(&url, permit).await?
            }
        };
        let keys = Keys::read(&document)?;
        if keys.is_empty() { Err(format!("{} publishes no key that is accepted", self.issuer)) } else { Ok(keys) }
    }

    /// Where its metadata says that its keys are (OpenID Connect Discovery, RFC 8414). The
    /// metadata must be its own.
    async fn discover(&self, issuer: &Url) -> Result<Url, String> {
        let path = issuer.path().trim_end_matches('/');
        let mut why = String::new();
        for at in [
            format!("{path}/.well-known/openid-configuration"),
            format!("/.well-known/oauth-authorization-server{path}"),
        ] {
            let mut url = issuer.clone();
            url.set_path(&at);
            let (host, port) = net::origin(&url)?;
            let document = match net::fetch(&url, decide::registered(host, port)).await {
                Ok(document) => document,
                Err(e) => {
                    why = e;
                    continue;
                }
            };
            let json = Json::parse(&document, Limits::default()).map_err(|e| format!("{url}: {e}"))?;
            let text = |key: &str| json.get(key).and_then(Json::as_str);
            if text("issuer") != Some(self.issuer.as_str()) {
                why =
                    format!("{url} is the metadata of {}, not of {}", text("issuer").unwrap_or("nobody"), self.issuer);
                continue;
            }
            let keys = text("jwks_uri").and_then(|uri| Url::parse(uri).ok());
            return keys.ok_or_else(|| format!("{url} has no jwks_uri"));
        }
        Err(why)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
