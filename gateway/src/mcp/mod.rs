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
//! The transports read and check; [`dispatch`] answers; the guard decides.

mod dispatch;
pub(crate) mod framework;
pub(crate) mod http;
mod session;
pub(crate) mod stdio;

use crate::guard::Guard;
use adapters::mcp::{LEGACY, MODERN, RpcError};
use framework::Framework;
use policies::authority::RunAuthority;
use policies::json::{Json, Object};
use policies::resolve::Policy;
use std::sync::Arc;
use subagents::run::Caller;

/// Revisions with `initialize` that are answered in kind.
pub(super) const LEGACY_VERSIONS: [&str; 4] = [LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    Modern,
    Legacy,
}

/// What one client sees through one door.
#[derive(Clone)]
pub(crate) struct View {
    pub(super) guard: Arc<Guard>,
    pub(super) caller: Caller,
    /// Pleach's own tools, at the main door.
    pub(super) framework: Option<Framework>,
}

impl View {
    /// The view of `caller`, narrowed to an agent's policy if one is named.
    ///
    /// # Errors
    /// When there is no such agent.
    pub(crate) fn new(
        guard: Arc<Guard>,
        caller: Caller,
        policy: &Policy,
        agent: Option<&str>,
        framework: Option<Framework>,
    ) -> Result<Self, String> {
        let Some(name) = agent else { return Ok(Self { guard, caller, framework }) };
        let spec = policy.agents.get(name).ok_or_else(|| format!("no agent is named {name:?}"))?;
        let run = RunAuthority::spawn(&caller.authority, &spec.policy, None).map_err(|_| "the agent asks too much")?;
        let who = format!("{} as agent {name}", caller.who);
        let caller = Caller::new(&caller.principal, &who, run.use_);
        Ok(Self { guard, caller, framework: None })
    }
}

fn server_info() -> Json {
    Json::object([("name", "pleach".into()), ("title", "Pleach".into()), ("version", env!("CARGO_PKG_VERSION").into())])
}

fn capabilities() -> Json {
    Json::object([("tools", Json::object([("listChanged", true.into())]))])
}

/// The result of `initialize`.
fn initialize(params: &Object) -> Json {
    let asked = params.get("protocolVersion").and_then(Json::as_str).unwrap_or("");
    let version = LEGACY_VERSIONS.iter().find(|v| **v == asked).unwrap_or(&LEGACY);
    Json::object([
        ("protocolVersion", (*version).into()),
        ("capabilities", capabilities()),
        ("serverInfo", server_info()),
    ])
}

/// The revision a request of the modern era names, if it names one.
fn asked_version(params: &Object) -> Option<&str> {
    params.get("_meta")?.get(adapters::mcp::meta::PROTOCOL_VERSION)?.as_str()
}

/// Checks what every modern request must carry.
fn check_modern(params: &Object) -> Result<(), RpcError> {
    use adapters::mcp::meta;
    let version = asked_version(params)
        .ok_or_else(|| RpcError::new(-32602, format!("Invalid params: _meta lacks {}", meta::PROTOCOL_VERSION)))?;
    if version != MODERN {
        return Err(unsupported(version));
    }
    let capabilities = params.get("_meta").and_then(|m| m.get(meta::CLIENT_CAPABILITIES));
    if !matches!(capabilities, Some(Json::Object(_))) {
        return Err(RpcError::new(-32602, format!("Invalid params: _meta lacks {}", meta::CLIENT_CAPABILITIES)));
    }
    Ok(())
}

fn unsupported(version: &str) -> RpcError {
    let supported: Vec<Json> = [MODERN].iter().chain(&LEGACY_VERSIONS).map(|v| (*v).into()).collect();
    RpcError::new(-32022, format!("Unsupported protocol version: {version}"))
        .with_data(Json::object([("supported", supported.into()), ("requested", version.into())]))
}
