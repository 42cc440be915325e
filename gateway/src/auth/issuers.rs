//! The keys of the issuers whose tokens name clients: fetched when they are first needed, kept
//! for an hour, fetched again when a token names a key that is not among them, and no oftener
//! than twice a minute, whoever asks.
//!
//! ```text
//!   none ─(first token)─▶ fetching, waited for ─▶ fresh ─(1 h)─▶ stale ─(24 h)─▶ none
//!                                                   ▲              │ used as they are, fetched
//!                                                   └──────────────┘ again in the background
//! ```
//!
//! So an issuer that hangs holds up nobody whose key is known: only a token with an unknown key
//! waits, with whoever else has one, for one fetch.

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
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

/// How long keys are good without asking.
const TTL: Duration = Duration::from_secs(3_600);
/// How long they are used where the issuer cannot be asked.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// How often an issuer is asked at most for what it did not give before.
const PAUSE: Duration = Duration::from_secs(30);
/// How long stale keys wait for their successors.
const BRIEFLY: Duration = Duration::from_millis(500);
/// How long it may take to answer, its metadata included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a token was not understood.
#[derive(Debug)]
pub(super) enum Doubt {
    /// It is not good.
    Bad(String),
    /// Whether it is cannot be said now.
    Later(String),
}

/// All issuers of a policy.
pub(super) struct Issuers {
    all: BTreeMap<String, Arc<Issuer>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Issuer {
    issuer: String,
    audiences: BTreeSet<String>,
    jwks_url: Option<Url>,
    keys: Mutex<Option<(Instant, Arc<Keys>)>>,
    /// When it was asked in vain, or for newer keys than were kept; held while it is.
    asked: Arc<tokio::sync::Mutex<Asked>>,
}

type Asked = Option<Instant>;

impl Issuers {
    /// For a policy; what is fetched in the background is tracked, and ends with `stop`.
    pub(super) fn new(policy: &Policy, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let mut all: BTreeMap<String, Issuer> = BTreeMap::new();
        for spec in callers::specs(policy) {
            let issuer = all
                .entry(spec.issuer.clone())
                .or_insert_with(|| Issuer::new(spec.issuer.clone(), spec.jwks_url.clone()));
            issuer.audiences.insert(spec.audience.clone());
        }
        Self { all: all.into_iter().map(|(name, issuer)| (name, Arc::new(issuer))).collect(), tasks, stop }
    }

    /// Those of another policy. What was fetched from an issuer that stands in both is kept.
    pub(super) fn under(&self, policy: &Policy) -> Self {
        let mut next = Self::new(policy, self.tasks.clone(), self.stop.clone());
        for (name, issuer) in &mut next.all {
            let known = self.all.get(name).filter(|known| known.jwks_url == issuer.jwks_url);
            if let Some((known, issuer)) = known.zip(Arc::get_mut(issuer)) {
                issuer.keys = Mutex::new(lock(&known.keys).clone());
                issuer.asked = known.asked.clone();
            }
        }
        next
    }

    /// The issuer of a token and its claims, if it is a good one.
    pub(super) async fn claims(&self, token: &str) -> Result<(&str, Json), Doubt> {
        let bad = |why: &str| Doubt::Bad(why.to_owned());
        let claimed = jwt::claimed_issuer(token).ok_or_else(|| bad("it is no token of a client"))?;
        let issuer = self.all.get(&claimed).ok_or_else(|| bad("its issuer names no client"))?;
        let keys = self.keys(issuer).await.map_err(Doubt::Later)?;
        let claims = match issuer.verify(token, &keys) {
            Err(Flaw::UnknownKey) => {
                let keys = self.newer(issuer, &keys).await.map_err(Doubt::Later)?;
                issuer.verify(token, &keys)
            }
            other => other,
        };
        claims.map(|claims| (issuer.issuer.as_str(), claims)).map_err(|flaw| Doubt::Bad(flaw.to_string()))
    }

    /// The keys of an issuer: those kept, if there are any, unless their successors come at once.
    async fn keys(&self, issuer: &Arc<Issuer>) -> Result<Arc<Keys>, String> {
        let Some(keys) = issuer.kept(STALE) else { return self.first(issuer).await };
        if issuer.kept(TTL).is_none()
            && let Some(asked) = issuer.turn()
        {
            // A key that was withdrawn meanwhile is not believed for want of a moment's patience.
            let newer = tokio::time::timeout(BRIEFLY, asked_for(self.ask(issuer, asked, false))).await;
            return Ok(newer.ok().and_then(Result::ok).unwrap_or(keys));
        }
        Ok(keys)
    }

    /// The first keys. Whoever waited has what the one before was given.
    async fn first(&self, issuer: &Arc<Issuer>) -> Result<Arc<Keys>, String> {
        let asked = issuer.asked.clone().lock_owned().await;
        match issuer.kept(STALE) {
            Some(keys) => Ok(keys),
            None if resting(&asked) => Err(format!("{} gave no keys a moment ago", issuer.issuer)),
            None => asked_for(self.ask(issuer, asked, false)).await,
        }
    }

    /// Newer keys than `known`, among which one was missing; the same where there are none.
    async fn newer(&self, issuer: &Arc<Issuer>, known: &Arc<Keys>) -> Result<Arc<Keys>, String> {
        let asked = issuer.asked.clone().lock_owned().await;
        match issuer.kept(STALE) {
            // They came while this waited for its turn.
            Some(keys) if !Arc::ptr_eq(&keys, known) || resting(&asked) => Ok(keys),
            None if resting(&asked) => Err(format!("{} gave no keys a moment ago", issuer.issuer)),
            _ => asked_for(self.ask(issuer, asked, true)).await,
        }
    }

    /// Asks an issuer, whose turn this is, whatever becomes of whoever waits for it: one that
    /// leaves at once must not make it be asked oftener.
    fn ask(&self, issuer: &Arc<Issuer>, asked: OwnedMutexGuard<Asked>, newer: bool) -> JoinHandle<Answer> {
        let (issuer, stop) = (issuer.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                answer = issuer.ask(asked, newer) => answer,
                () = stop.cancelled() => Err("pleach is ending".to_owned()),
            }
        })
    }
}

type Answer = Result<Arc<Keys>, String>;

async fn asked_for(answer: JoinHandle<Answer>) -> Answer {
    answer.await.unwrap_or_else(|e| Err(e.to_string()))
}

impl Issuer {
    fn new(issuer: String, jwks_url: Option<Url>) -> Self {
        Self { issuer, audiences: BTreeSet::new(), jwks_url, keys: Mutex::default(), asked: Arc::default() }
    }
    fn verify(&self, token: &str, keys: &Keys) -> Result<Json, Flaw> {
        let audiences: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        jwt::verify(token, keys, &self.issuer, &audiences)
    }

    /// The turn to ask, if nobody has it and it may be asked now.
    fn turn(&self) -> Option<OwnedMutexGuard<Asked>> {
        self.asked.clone().try_lock_owned().ok().filter(|asked| !resting(asked))
    }

    /// Asks it, one at a time; `newer` where the keys it gave before lacked one.
    async fn ask(&self, mut asked: OwnedMutexGuard<Asked>, newer: bool) -> Answer {
        let late = || Err(format!("{} did not answer within {} s", self.issuer, PATIENCE.as_secs()));
        let fetched = tokio::time::timeout(PATIENCE, self.fetch()).await.unwrap_or_else(|_| late());
        if newer || fetched.is_err() {
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

/// Whether an issuer was asked so lately that it is left in peace.
fn resting(asked: &Asked) -> bool {
    asked.is_some_and(|at| at.elapsed() < PAUSE)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const KEY: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// An issuer whose keys are `age` old, and what becomes of a wish for them.
    fn issuers(url: Url, age: Option<Duration>) -> (Issuers, Arc<Issuer>) {
        let issuer = Arc::new(Issuer::new("http://127.0.0.1".into(), Some(url)));
        if let Some(age) = age {
            let at = Instant::now().checked_sub(age).unwrap();
            *lock(&issuer.keys) = Some((at, Arc::new(Keys::read(KEY.as_bytes()).unwrap())));
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        (Issuers { all: BTreeMap::from([("i".to_owned(), issuer.clone())]), tasks, stop }, issuer)
    }

    /// Takes connections and never answers.
    async fn hanging() -> (TcpListener, Url) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        (listener, Url::parse(&url).unwrap())
    }

    #[tokio::test]
    async fn stale_keys_are_used_while_the_issuer_hangs() {
        let (listener, url) = hanging().await;
        let (all, issuer) = issuers(url, Some(TTL * 2));
        for _ in 0..10 {
            let keys = tokio::time::timeout(Duration::from_secs(1), all.keys(&issuer)).await;
            assert_eq!(keys.unwrap().unwrap().len(), 1);
        }
        // Asked once, in the background, and no more while that lasts.
        let _one = tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.unwrap().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(300), listener.accept()).await.is_err());
        assert_eq!(all.tasks.len(), 1);
        all.tasks.close();
        all.stop.cancel();
        tokio::time::timeout(Duration::from_secs(1), all.tasks.wait()).await.unwrap();
    }

    #[tokio::test]
    async fn fresh_keys_need_nobody_and_old_ones_are_none() {
        let (listener, url) = hanging().await;
        let (all, issuer) = issuers(url.clone(), Some(Duration::ZERO));
        assert!(all.keys(&issuer).await.is_ok());
        assert_eq!(all.tasks.len(), 0);
        let (all, issuer) = issuers(url, Some(STALE * 2));
        assert!(tokio::time::timeout(Duration::from_millis(200), all.keys(&issuer)).await.is_err());
        drop(listener);
    }

    #[tokio::test]
    async fn an_issuer_that_refuses_is_left_in_peace() {
        let (listener, url) = hanging().await;
        drop(listener);
        let (all, issuer) = issuers(url, Some(Duration::ZERO));
        let known = issuer.kept(TTL).unwrap();
        assert!(all.newer(&issuer, &known).await.is_ok());
        assert!(issuer.turn().is_none(), "it was asked a moment ago");
        assert!(all.newer(&issuer, &known).await.is_ok());
    }
}
