//! Who calls over HTTP, and what a stranger is told: RFC 6750 on the refusal, RFC 9728 on where
//! a token can be had.

use super::issuers::{Doubt, Issuers};
use super::{Carried, Identity, identify};
use crate::guard::{A2A, LOCAL, MCP};
use crate::live::Live;
use adapters::jwt::LEEWAY;
use adapters::token::{self, Reader};
use http::StatusCode;
use policies::callers::{self, Named};
use policies::json::Json;
use policies::resolve::Policy;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why somebody may not come in.
#[derive(Debug)]
pub(crate) enum Stranger {
    /// No token.
    Unknown,
    /// One that names no client.
    Bad,
    /// One that would, with these scopes.
    Lacks(BTreeSet<String>),
    /// A good one of somebody who is no client.
    Nobody,
    /// One that cannot be checked now.
    Later,
    /// A grant that is not believed, or not here.
    Grant(String),
}

impl Stranger {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Stranger::Unknown | Stranger::Bad | Stranger::Grant(_) => StatusCode::UNAUTHORIZED,
            Stranger::Lacks(_) | Stranger::Nobody => StatusCode::FORBIDDEN,
            Stranger::Later => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
    /// What it is told: never which of a token's claims was wrong. What a grant lacks its holder can
    /// read itself.
    pub(crate) fn message(&self) -> String {
        match self {
            Stranger::Grant(why) => format!("the grant is refused: {why}"),
            other => other.word().to_owned(),
        }
    }
    fn word(&self) -> &'static str {
        match self {
            Stranger::Unknown => "a bearer token is needed: Authorization: Bearer …",
            Stranger::Bad => "the token names no client",
            Stranger::Lacks(_) => "the token lacks scopes",
            Stranger::Nobody => "the token is good and names no client",
            Stranger::Later => "the token cannot be checked now; try again",
            Stranger::Grant(_) => "the grant is refused",
        }
    }
}

/// Knows the clients of a policy.
pub(crate) struct Doorman {
    live: Arc<Live>,
    /// Those of a policy.
    issuers: Mutex<(Weak<Policy>, Arc<Issuers>)>,
    listens: std::net::SocketAddr,
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> Json {
    Json::from(items.into_iter().map(Json::from).collect::<Vec<Json>>())
}

/// The MCP endpoint, and that of an agent.
fn endpoint(agent: Option<&str>) -> String {
    agent.map_or_else(|| "/mcp".to_owned(), |agent| format!("/mcp/agents/{agent}"))
}

/// The path of the metadata (RFC 9728, section 3.1).
pub(crate) const METADATA: &str = "/.well-known/oauth-protected-resource";

impl Doorman {
    /// `listens` is where the door is, for policies that do not say what it is called. Its tasks
    /// are of `tasks` and end with `stop`.
    pub(crate) fn new(
        live: Arc<Live>,
        listens: std::net::SocketAddr,
        (tasks, stop): (TaskTracker, CancellationToken),
    ) -> Self {
        let policy = live.now().policy.clone();
        let issuers = Arc::new(Issuers::new(&policy, tasks, stop));
        Self { issuers: Mutex::new((Arc::downgrade(&policy), issuers)), live, listens }
    }
    /// `https://host[:port]`, as clients write it.
    pub(crate) fn base(&self) -> String {
        match &self.policy().gateway.public_url {
            Some(url) => url.origin().ascii_serialization(),
            None => format!("http://{}", self.listens),
        }
    }
    fn issuers(&self, policy: &Arc<Policy>) -> Arc<Issuers> {
        let mut known = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ptr() != Arc::as_ptr(policy) {
            *known = (Arc::downgrade(policy), Arc::new(known.1.under(policy)));
        }
        known.1.clone()
    }

    /// Names the caller at a door by its bearer token.
    ///
    /// # Errors
    /// For whoever is no client, where clients are named.
    pub(crate) async fn identify(&self, token: Option<&str>, door: &str) -> Result<Identity, Stranger> {
        let policy = self.policy();
        let known = identify(&policy, token);
        if let (Ok(identity), true) = (&known, policy.clients.is_some()) {
            return Ok(identity.clone());
        }
        // Where nobody is known by name, whoever brings a grant is held to it all the same.
        if let Some(token) = token.filter(|token| token::is_token(token)) {
            return self.granted(&policy, token, door);
        }
        if let Ok(identity) = known {
            return Ok(identity);
        }
        let Some(token) = token else { return Err(Stranger::Unknown) };
        let issuers = self.issuers(&policy);
        let (issuer, claims) = match Box::pin(issuers.claims(token)).await {
            Ok(found) => found,
            Err(Doubt::Bad(why)) => {
                tracing::debug!("a token was refused: {why}");
                return Err(Stranger::Bad);
            }
            Err(Doubt::Later(why)) => {
                tracing::warn!("a token could not be checked: {why}");
                return Err(Stranger::Later);
            }
        };
        let subject = claims.get("sub").and_then(Json::as_str).unwrap_or("nobody in particular");
        match callers::named(&policy, issuer, &claims) {
            Named::Client(client) => {
                let until = claims.get("exp").and_then(Json::as_f64).map(|exp| exp as u64 + LEEWAY);
                Ok(Identity::new(&policy, Some(client)).until(until))
            }
            Named::Lacks(scopes) => Err(Stranger::Lacks(scopes)),
            Named::Both(one, other) => {
                let (one, other) = (&one.name, &other.name);
                tracing::warn!("{subject} of {issuer} is client {one} and client {other}: match other claims");
                Err(Stranger::Nobody)
            }
            Named::Nobody => {
                tracing::info!("{subject} of {issuer} is no client");
                Err(Stranger::Nobody)
            }
        }
    }

    /// Whoever comes with a grant: another gateway, by the key of its table; or a part of somebody
    /// here, whom our own key names.
    fn granted(&self, policy: &Arc<Policy>, token: &str, door: &str) -> Result<Identity, Stranger> {
        let refused = |why: String| {
            tracing::info!("a grant was refused: {why}");
            Stranger::Grant(why)
        };
        let own = self.live.granter().map(|own| own.public());
        let gateways = policy.clients.iter().flatten().filter_map(|(_, client)| Some((client.proof.grants()?, client)));
        let gateways = gateways.flat_map(|(keys, client)| keys.iter().map(move |key| (key.as_str(), client)));
        let reader = Reader::new(gateways.clone().map(|(key, _)| key).chain(own));
        let said = reader.read(token, SystemTime::now()).map_err(|flaw| refused(flaw.to_string()))?;
        // Where exactly only its door can say (`a2a/ops.rs`).
        let here = said.audience == self.base() || said.audience.starts_with(&format!("{}/", self.base()));
        if !here {
            return Err(refused(format!("it is good at {}, and this is {}", said.audience, self.base())));
        }
        let mut gateway = None;
        let client = match (&said.principal, &policy.clients) {
            (None, _) => {
                gateway = gateways.clone().find(|(key, _)| *key == said.by).map(|(_, client)| client);
                if gateway.is_none() {
                    return Err(refused("it is of nobody who is a client here".into()));
                }
                gateway
            }
            (Some(_), _) if own != Some(said.by.as_str()) => {
                return Err(refused("it names somebody, which only grants given here do".into()));
            }
            (Some(name), None) if name == LOCAL => None,
            (Some(name), Some(clients)) if clients.contains_key(name.as_str()) => clients.get(name.as_str()),
            (Some(name), _) => return Err(refused(format!("{name:?} is no client here any more"))),
        };
        // Another gateway sends messages; what was given here is used where tools are.
        let (only, where_) = if gateway.is_some() { (A2A, "over A2A") } else { (MCP, "at /mcp") };
        let calls_back = gateway.is_none() && said.message.is_some();
        let place = if calls_back { format!("{}{}", self.base(), endpoint(None)) } else { self.base() };
        if door != only || (door == MCP && said.audience != place) {
            return Err(refused(format!("it is good {where_} and nowhere else")));
        }
        let task = match &said.message {
            Some(goes_with) if calls_back => {
                let over = || refused("what it was given along with is over, or was taken back".into());
                Some((goes_with.clone(), self.live.hops.end_of(goes_with).ok_or_else(over)?))
            }
            _ => None,
        };
        // What goes with one message is shown once, and in time.
        let until = gateway.is_none().then_some(said.until);
        let carried = Carried::of(said).map_err(|e| refused(e.to_string()))?;
        let identity = Identity::new(policy, client).with(carried).until(until);
        Ok(identity.during(task.as_ref().map(|(name, end)| (name.as_str(), end.clone()))))
    }

    /// The `WWW-Authenticate` of a refusal at the endpoint of `agent`, or at the main one.
    pub(crate) fn challenge(&self, stranger: &Stranger, agent: Option<&str>) -> Option<String> {
        let (error, scopes) = match stranger {
            Stranger::Unknown => (None, callers::scopes_needed(&self.policy())),
            Stranger::Bad | Stranger::Grant(_) => (Some("invalid_token"), callers::scopes_needed(&self.policy())),
            Stranger::Lacks(scopes) => (Some("insufficient_scope"), scopes.clone()),
            Stranger::Nobody | Stranger::Later => return None,
        };
        let mut parts = Vec::new();
        if let Some(error) = error {
            parts.push(format!("error=\"{error}\", error_description=\"{}\"", stranger.word()));
        }
        if self.has_issuers() {
            parts.push(format!("resource_metadata=\"{}{METADATA}{}\"", self.base(), endpoint(agent)));
        } else {
            parts.push("realm=\"pleach\"".into());
        }
        if !scopes.is_empty() {
            parts.push(format!("scope=\"{}\"", scopes.into_iter().collect::<Vec<_>>().join(" ")));
        }
        Some(format!("Bearer {}", parts.join(", ")))
    }

    /// The metadata of the resource at a path below ours; `None` where no issuer gives tokens.
    pub(crate) fn metadata(&self, path: &str) -> Option<Json> {
        if !self.has_issuers() {
            return None;
        }
        let policy = self.policy();
        let mut metadata = Json::object([
            ("resource", format!("{}{path}", self.base()).into()),
            ("authorization_servers", list(callers::issuers(&policy))),
            ("bearer_methods_supported", list(["header"])),
            ("resource_name", "Pleach".into()),
        ]);
        let scopes = callers::scopes_supported(&policy);
        if let Some(object) = metadata.as_object_mut().filter(|_| !scopes.is_empty()) {
            object.set("scopes_supported", list(scopes.iter().map(String::as_str)));
        }
        Some(metadata)
    }

    fn policy(&self) -> Arc<Policy> {
        self.live.now().policy.clone()
    }
    fn has_issuers(&self) -> bool {
        callers::specs(&self.policy()).next().is_some()
    }
}
