//! The MCP door: `/mcp` (everything the client may see) and `/mcp/agents/{agent}` (the view
//! under that agent's policy), over streamable HTTP and standard streams, for clients of both
//! eras.
//!
//! | | legacy (`initialize`) | modern (2026-07-28) |
//! |---|---|---|
//! | who am I talking to | session, bound to its principal | every request says |
//! | take a request back | `notifications/cancelled` | close its stream |
//! | told of changes | GET stream | `subscriptions/listen` |
//!
//! | asked by a server | on the stream of the call | `input_required`, and the call is parked |
//!
//! The transports read and check; [`dispatch`] answers; the guard decides.

mod approval;
mod call;
mod changes;
mod conversation;
mod dialogs;
mod dispatch;
mod followed;
pub(crate) mod framework;
pub(crate) mod http;
mod lists;
mod outbox;
mod parked;
pub(crate) mod sampling;
pub(crate) mod seal;
mod session;
pub(crate) mod stdio;

use crate::auth::Identity;
use crate::guard::{Guard, MCP, MCP_AGENT};
use adapters::mcp::{LEGACY, MODERN, Message, RpcError};
use framework::Framework;
use policies::authority::RunAuthority;
use policies::json::{Json, Object};
use std::sync::Arc;
use subagents::run::{Caller, Origin};

/// Revisions with `initialize` that are answered in kind.
pub(super) const LEGACY_VERSIONS: [&str; 4] = [LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];

/// What a legacy client says when its roots are others than before.
const ROOTS_CHANGED: &str = "notifications/roots/list_changed";

/// Where messages that belong to a request go; `false` when they no longer arrive.
type Sink = Arc<dyn Fn(Message) -> bool + Send + Sync>;

/// Who asks: a modern client says everything with each request, a legacy one said it before.
#[derive(Clone)]
enum Speaker {
    Modern,
    Legacy(Arc<conversation::Conversation>),
}

/// What all views share: the seal of what is handed out, the calls that wait for answers, and the
/// dialogs about them.
#[derive(Clone)]
pub(crate) struct Shared {
    seal: Arc<seal::Seal>,
    parking: Arc<parked::Parking>,
    dialogs: Arc<dialogs::Dialogs>,
    pub(crate) ground: framework::Ground,
}

impl Shared {
    /// For one process.
    ///
    /// # Errors
    /// When the key in the state folder can be neither read nor written.
    pub(crate) fn new(state: &std::path::Path, ground: framework::Ground) -> std::io::Result<Self> {
        Ok(Self { seal: Arc::new(seal::Seal::load(state)?), parking: Arc::default(), dialogs: Arc::default(), ground })
    }
}

/// What one client sees through one door. Every request has its own handle to it.
#[derive(Clone)]
pub(crate) struct View(Arc<Seen>);

pub(crate) struct Seen {
    pub(super) guard: Arc<Guard>,
    pub(super) caller: Caller,
    /// Pleach's own tools, at the main door.
    pub(super) framework: Option<Framework>,
    identity: Arc<Identity>,
    agent: Option<Arc<str>>,
    shared: Shared,
    seal: Arc<seal::Seal>,
    parking: Arc<parked::Parking>,
    /// The principal and the door: what is handed out here is good here only.
    place: Arc<str>,
}

impl std::ops::Deref for View {
    type Target = Seen;
    fn deref(&self) -> &Seen {
        &self.0
    }
}

impl View {
    /// The view of a client, narrowed to an agent's policy if one is named.
    ///
    /// # Errors
    /// When there is no such agent.
    pub(crate) fn new(
        (guard, shared): (Arc<Guard>, &Shared),
        identity: &Identity,
        agent: Option<&str>,
    ) -> Result<Self, String> {
        let caller = identity.caller(MCP);
        let (seal, parking) = (shared.seal.clone(), shared.parking.clone());
        // Whoever brings a grant along is somebody else than who gave it.
        let carried = identity.carried.as_ref().map(|carried| carried.at("\0")).unwrap_or_default();
        let goes_with = identity.goes_with().unwrap_or_default();
        let place = format!("{}\0{}{carried}{goes_with}", caller.principal, agent.unwrap_or_default()).into();
        let Some(name) = agent else {
            let framework = Framework::new(&shared.ground, identity);
            let (identity, shared) = (Arc::new(identity.clone()), shared.clone());
            let seen = Seen { guard, caller, framework, identity, agent: None, shared, seal, parking, place };
            return Ok(Self(Arc::new(seen)));
        };
        let spec = identity.policy.agents.get(name).ok_or_else(|| format!("no agent is named {name:?}"))?;
        let run = RunAuthority::spawn(&caller.authority, &spec.policy, None).map_err(|_| "the agent asks too much")?;
        let who = format!("{} as agent {name}", caller.who);
        let origin = Origin::new(&identity.policy, &identity.place(&format!("{MCP_AGENT}{name}")), &[]);
        let rest = caller.rest.meet(spec.limits);
        let caller = Caller { rest, ..Caller::new(&caller.principal, &who, run.use_).from(origin) };
        let caller = caller.giving(&run.delegate);
        let (identity, shared, agent) = (Arc::new(identity.clone()), shared.clone(), Some(name.into()));
        let seen = Seen { guard, caller, framework: None, identity, agent, shared, seal, parking, place };
        Ok(Self(Arc::new(seen)))
    }

    /// The same view under the policy in force, if this is not it.
    ///
    /// # Errors
    /// Why there is nobody to see anything any more.
    pub(crate) fn renewed(&self) -> Result<Option<Self>, String> {
        let policy = self.guard.servers.live.now().policy.clone();
        if Arc::ptr_eq(&self.identity.policy, &policy) {
            return Ok(None);
        }
        let gone = || format!("{} may not come in any more", self.caller.who);
        let identity = self.identity.again(&policy).ok_or_else(gone)?;
        Self::new((self.guard.clone(), &self.shared), &identity, self.agent.as_deref()).map(Some)
    }

    /// Waits until its token is over.
    async fn expired(&self) {
        tokio::select! {
            () = self.identity.expired() => {}
            () = self.identity.done() => {}
        }
    }

    /// Waits until there is nobody to see anything any more, and says why.
    async fn gone(&self) -> String {
        tokio::select! {
            why = self.unknown() => why,
            () = self.identity.done() => "what the grant was given along with is over".into(),
        }
    }
    async fn unknown(&self) -> String {
        let mut changes = self.guard.servers.live.changes();
        loop {
            changes.mark_unchanged();
            if let Err(why) = self.renewed() {
                return why;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

fn server_info() -> Json {
    Json::object([("name", "pleach".into()), ("title", "Pleach".into()), ("version", env!("CARGO_PKG_VERSION").into())])
}

/// What this door can do. It depends on the policy file alone: servers come and go.
fn capabilities(view: &View) -> Json {
    let empty = || Json::Object(Object::new());
    let changing = || Json::object([("listChanged", true.into())]);
    let mut own = Object::new();
    own.set("tools", changing());
    let policy = &view.guard.servers.live.now().policy;
    let foreign = policy.servers.values().any(|s| !s.words.builtin);
    if foreign {
        own.set("prompts", changing());
        own.set("resources", Json::object([("subscribe", true.into()), ("listChanged", true.into())]));
        own.set("completions", empty());
        own.set("logging", empty());
    }
    own.into()
}

/// The conversation `initialize` begins, and its result.
async fn initialize(view: &View, params: &Object) -> (conversation::Conversation, Json) {
    let asked = params.get("protocolVersion").and_then(Json::as_str).unwrap_or("");
    let version = LEGACY_VERSIONS.iter().find(|v| **v == asked).unwrap_or(&LEGACY);
    let mut result = Object::new();
    result.set("protocolVersion", *version);
    result.set("capabilities", capabilities(view));
    result.set("serverInfo", server_info());
    if let Some(instructions) = lists::instructions(view).await {
        result.set("instructions", instructions);
    }
    (conversation::Conversation::new(version, params), result.into())
}

/// The revision a request of the modern era names, if it names one.
fn asked_version(params: &Object) -> Option<&str> {
    params.get("_meta")?.get(adapters::mcp::meta::PROTOCOL_VERSION)?.as_str()
}

/// Checks that a modern request carries what it must.
fn check_present(params: &Object) -> Result<(), RpcError> {
    use adapters::mcp::meta;
    let lacks = |key: &str| Err(RpcError::new(-32602, format!("Invalid params: _meta lacks {key}")));
    if asked_version(params).is_none() {
        return lacks(meta::PROTOCOL_VERSION);
    }
    match params.get("_meta").and_then(|m| m.get(meta::CLIENT_CAPABILITIES)) {
        Some(Json::Object(_)) => Ok(()),
        _ => lacks(meta::CLIENT_CAPABILITIES),
    }
}

/// The same, and that it is of the revision spoken here.
fn check_modern(params: &Object) -> Result<(), RpcError> {
    check_present(params)?;
    match asked_version(params) {
        Some(MODERN) => Ok(()),
        other => Err(unsupported(other.unwrap_or(""))),
    }
}

fn unsupported(version: &str) -> RpcError {
    let supported: Vec<Json> = [MODERN].iter().chain(&LEGACY_VERSIONS).map(|v| (*v).into()).collect();
    RpcError::new(-32022, format!("Unsupported protocol version: {version}"))
        .with_data(Json::object([("supported", supported.into()), ("requested", version.into())]))
}
