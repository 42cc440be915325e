//! The A2A door: agents that live here, for any A2A client. A task is a root run.
//!
//! ```text
//!  JSON-RPC /a2a/{agent} ──────┐            ┌ codec: 1.0, or 0.3 translated
//!  HTTP+JSON /a2a/{agent}/rest ┼▶ doorman ─▶┤
//!                              │            └▶ ops ─▶ the host's verbs, the store ─▶ tale: events as a task
//!  cards /.well-known/… ───────┘ open to everybody: what the policy exposes and no more
//! ```
//!
//! Bindings ([`rpc`], [`http`]) and generations ([`codec`]) differ in words only: what is done is
//! done in [`ops`], under the same guard as everywhere.

mod answer;
mod card;
mod codec;
mod fault;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
mod list;
mod ops;
mod parts;
mod peer;
mod push;
mod rpc;
mod send;
mod tale;
mod updates;

use crate::auth::{self, Doorman};
use crate::compose::App;
use crate::guard::{A2A, Guard};
use crate::hosted::{Crowd, Lanes, Place, Who};
use crate::live::Live;
use crate::mcp::seal::Seal;
use ::http::{HeaderMap, StatusCode, Uri};
use adapters::jwt::OwnKey;
use adapters::store::Store;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use codec::Version;
use fault::{Fault, Kind};
use policies::json::{Json, Limits};
use policies::names::Name;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use subagents::host::Host;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A body may have this many bytes.
const MAX_BODY: usize = 4 << 20;
/// Tasks of one client that are worked on at a time, and its streams that stand.
const WORKING: usize = 1_024;
const WATCHING: usize = 2_048;
/// Where the keys are that cards and notifications are signed with.
const JWKS: &str = "/.well-known/jwks.json";
/// The key itself, in the state folder.
const KEY: &str = "signing.key";
/// Cards whose age is remembered.
const KNOWN_CARDS: usize = 1_024;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door(Arc<Inner>);

struct Inner {
    live: Arc<Live>,
    guard: Arc<Guard>,
    host: Arc<Host>,
    store: Store,
    doorman: Arc<Doorman>,
    seal: Seal,
    tasks: TaskTracker,
    stop: CancellationToken,
    working: Arc<Crowd>,
    watching: Arc<Crowd>,
    lanes: Lanes,
    /// Since when each card is what it is, and it as it was signed, by its digest.
    cards: Mutex<BTreeMap<String, (String, String)>>,
    /// What cards and notifications are signed with.
    key: OwnKey,
    /// Whether there is anybody to be told of a task.
    pushes: AtomicBool,
    /// Somebody asked to be told what has come about already.
    asked_to_tell: Notify,
}

impl Door {
    /// The door.
    ///
    /// # Errors
    /// When a key in the state folder can be neither read nor written.
    pub(crate) fn new(app: &App, doorman: Arc<Doorman>) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            live: app.live.clone(),
            guard: app.guard.clone(),
            host: app.host.clone(),
            store: app.store.clone(),
            doorman,
            seal: Seal::load(&app.live.now().state)?,
            tasks: app.servers.tasks.clone(),
            stop: app.servers.stop.clone(),
            working: Arc::new(Crowd::of(WORKING)),
            watching: Arc::new(Crowd::of(WATCHING)),
            lanes: Lanes::default(),
            cards: Mutex::default(),
            key: OwnKey::load(&app.live.now().state.join(KEY))?,
            pushes: AtomicBool::new(false),
            asked_to_tell: Notify::new(),
        })))
    }
    /// Its routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/.well-known/agent-card.json", get(root_card))
            .route("/a2a/{agent}/.well-known/agent-card.json", get(agent_card))
            .route("/a2a/{agent}", post(rpc::serve))
            .route("/a2a/{agent}/", post(rpc::serve))
            .route("/a2a/{agent}/rest/{*path}", any(http::serve))
            .route("/a2a/{agent}/rest", any(http::nothing))
            .route("/a2a/{agent}/rest/", any(http::nothing))
            .route(JWKS, get(keys))
            .method_not_allowed_fallback(not_allowed)
            .with_state(self)
    }
    /// Since when a card is what it is, as far as this process knows (RFC 9110, section 8.8.2), and
    /// it as it was signed then: no two signatures are the same.
    fn known(&self, etag: &str, sign: impl FnOnce() -> String) -> (String, String) {
        let now = || jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut cards = self.0.cards.lock().unwrap_or_else(PoisonError::into_inner);
        if cards.len() > KNOWN_CARDS {
            cards.clear();
        }
        cards.entry(etag.to_owned()).or_insert_with(|| (now(), sign())).clone()
    }
    /// Who asks.
    async fn identify(&self, headers: &HeaderMap) -> Result<Who, Fault> {
        match self.0.doorman.identify(auth::bearer(headers), A2A).await {
            Ok(identity) => Ok(Who::of(identity, A2A)),
            Err(stranger) => {
                let kind = match stranger.status() {
                    StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
                    StatusCode::FORBIDDEN => Kind::Forbidden,
                    _ => Kind::Unavailable,
                };
                let fault = Fault::new(kind, stranger.message());
                Err(match self.0.doorman.challenge(&stranger, None) {
                    Some(challenge) => fault.with("www-authenticate", challenge),
                    None => fault,
                })
            }
        }
    }
    /// The agent of a path, if whoever asks may start it.
    fn agent(&self, who: &Who, name: &str) -> Result<Name, Fault> {
        let policy = self.0.live.now().policy.clone();
        let agent = Name::try_from(name).ok().and_then(|name| policy.agents.get(&name));
        match agent {
            Some(agent) if who.may_start.contains(&agent.name) => Ok(agent.name.clone()),
            Some(agent) if agent.expose => {
                Err(Fault::new(Kind::Forbidden, format!("agent {name} may not be started by you; ask the operator")))
            }
            // What of it whoever asks may use is asked later, by the rules of its skills.
            None => match peer::exposed(&policy, name) {
                Some((peer, _)) => Ok(peer.clone()),
                None => Err(Fault::new(Kind::NoAgent, format!("there is no agent {name:?}"))),
            },
            Some(_) => Err(Fault::new(Kind::NoAgent, format!("there is no agent {name:?}"))),
        }
    }
    /// Room for one more task of a client that is worked on.
    fn working(&self, who: &Who) -> Result<Place, Fault> {
        let too_many = || Fault::new(Kind::TooMany, "too many tasks of yours are under way").with("retry-after", "5");
        self.0.working.enter(&who.caller.principal).ok_or_else(too_many)
    }
    /// Room for one more stream of a client.
    fn watching(&self, who: &Who) -> Result<Place, Fault> {
        let too_many = || Fault::new(Kind::TooMany, "too many streams of yours stand").with("retry-after", "5");
        self.0.watching.enter(&who.caller.principal).ok_or_else(too_many)
    }
}

/// A body of JSON, of one of these kinds.
async fn read(headers: &HeaderMap, kinds: &[&str], body: Body) -> Result<serde_json::Value, Fault> {
    let kind = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
    let bare = kind.split(';').next().unwrap_or("").trim();
    if !kinds.iter().any(|known| bare.eq_ignore_ascii_case(known)) {
        let why = format!("Content-Type is {kind:?}; send {}", kinds.join(" or "));
        return Err(Fault::new(Kind::ContentTypeNotSupported, why));
    }
    let body = axum::body::to_bytes(body, MAX_BODY).await;
    let body = body.map_err(|_| {
        Fault::new(Kind::InvalidRequest, format!("the body is larger than {MAX_BODY} bytes, or its transfer broke"))
    })?;
    let value = Json::parse(&body, Limits::default()).map_err(|e| Fault::new(Kind::Parse, format!("body: {e}")))?;
    Ok(value.to_serde())
}

/// The query of a request, decoded.
fn queried(uri: &Uri) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// `Idempotency-Key`, if there is one.
fn key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && given.next().is_none());
    let why = "Idempotency-Key stands once, with 1 to 255 printable characters";
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Fault::new(Kind::InvalidParams, why))
}

/// Whether a path is this door's.
pub(crate) fn is_mine(path: &str) -> bool {
    path.starts_with("/a2a/")
}

/// What a request from a foreign Host or Origin is told here.
pub(crate) fn foreign(why: String) -> Response {
    answer::refused(&Fault::new(Kind::Forbidden, why))
}

async fn root_card(State(door): State<Door>, request: Request) -> Response {
    carded(&door, card::root(&door, named(request.headers())), request.headers())
}

async fn agent_card(State(door): State<Door>, Path(agent): Path<String>, request: Request) -> Response {
    let headers = request.headers();
    match card::of(&door, &agent, named(headers)) {
        Some(card) => carded(&door, Some(card), headers),
        None => match peer::card::of(&door, &agent, headers).await {
            Ok(card) => {
                let mut response = carded(&door, card, headers);
                // It is another one for whoever may use other skills.
                answer::set(&mut response, "vary", "a2a-version, authorization");
                answer::set(&mut response, "cache-control", &card::lasts().replace("public", "private"));
                response
            }
            Err(fault) => answer::refused(&fault),
        },
    }
}

/// The keys cards and notifications are signed with (RFC 7517).
async fn keys(State(door): State<Door>) -> Response {
    let mut response = answer::json(StatusCode::OK, "application/jwk-set+json", door.0.key.jwks().to_string());
    answer::set(&mut response, "cache-control", &card::lasts());
    response
}

/// A path of this door that has other methods.
async fn not_allowed(request: Request) -> Response {
    let path = request.uri().path();
    let allow =
        if path.starts_with("/.well-known/") || path.ends_with("/agent-card.json") { "GET, HEAD" } else { "POST" };
    let why = format!("{} is not served at {path}; use {allow}", request.method());
    answer::refused(&Fault::new(Kind::NotAllowed, why).with("allow", allow))
}

/// The generation a request for a card names; none is both.
fn named(headers: &HeaderMap) -> Option<Version> {
    headers.contains_key("a2a-version").then(|| Version::of(headers, &[]).ok()).flatten()
}

/// A card, unless the client has it already (RFC 9110, sections 13.1.2 and 13.1.3).
fn carded(door: &Door, card: Option<card::Card>, headers: &HeaderMap) -> Response {
    let Some(card) = card else {
        return answer::refused(&Fault::new(Kind::NoAgent, "no agent is shown here; set expose = true for one"));
    };
    let known = headers.get_all("if-none-match").iter().filter_map(|value| value.to_str().ok());
    let bare = card.etag.trim_start_matches("W/");
    let same = |tag: &str| matches!(tag.trim().trim_start_matches("W/"), tag if tag == bare || tag == "*");
    let tagged = headers.contains_key("if-none-match");
    let (since, text) = door.known(&card.etag, || card.signed(door));
    let has_it = match tagged {
        true => known.flat_map(|tags| tags.split(',')).any(same),
        false => headers.get("if-modified-since").is_some_and(|at| at.as_bytes() == since.as_bytes()),
    };
    let mut response = match has_it {
        true => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => answer::json(StatusCode::OK, answer::JSON, text),
    };
    answer::set(&mut response, "etag", &card.etag);
    answer::set(&mut response, "last-modified", &since);
    answer::set(&mut response, "vary", "a2a-version");
    answer::set(&mut response, "cache-control", &card::lasts());
    response
}
