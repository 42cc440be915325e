//! One instance of a server: from its registration and a caller's grant to a connection.

use super::Servers;
use super::callback::Brought;
use super::said::{What, Who};
use super::slot::Slot;
use crate::audit::{Audit, Before, Entry};
use crate::egress::{self, Owner};
use crate::live::Live;
use crate::oauth::Account;
use adapters::a2a::{PeerTarget, known_as};
use adapters::jwt::Keys;
use adapters::mcp::{self, Connection, Era, HttpTarget, McpError, Tokens};
use adapters::sandbox::{LaunchError, Pipes, Spec, prepare, runtime};
use adapters::{builtin, net};
use policies::authority::Authority;
use policies::decide;
use policies::json::Object;
use policies::names::Name;
use policies::resolve::{Builtin, Flow, PeerSpec, Secret, ServerSpec, Transport};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use subagents::run::Caller;

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The process ended before it said anything useful.
    #[error("{0}")]
    EndedEarly(String),
    /// The server asks for tokens there are none of.
    #[error("{0}")]
    Refused(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

pub(super) async fn start(
    servers: &Arc<Servers>,
    spec: &ServerSpec,
    slot: &Slot,
    known: (Option<Era>, bool),
    events: Arc<dyn mcp::Events>,
) -> Result<Connection, StartError> {
    // Nothing is started or dialled because a checkout brought a file along.
    if let Some(why) = &spec.unapproved {
        return Err(StartError::Failed(why.clone()));
    }
    let (caller, capabilities) = (&slot.caller, slot.abilities.to_json());
    let outcome = match &spec.transport {
        Transport::Http { url, headers, auth } => {
            let tokens: Option<Arc<dyn Tokens>> = match auth {
                Some(auth) if auth.flow == Flow::Grant => {
                    Some(Arc::new(Brought::by(servers, spec, caller).map_err(StartError::Refused)?))
                }
                Some(auth) => Some(Arc::new(Account::new(&servers.vault, &spec.name, url, auth, &caller.principal))),
                None => None,
            };
            let target = target(url, headers, tokens).map_err(StartError::Failed)?;
            let entry = Entry::new("connect").by(caller).with("server", spec.name.as_str());
            let entry = entry.with("target", url.origin().ascii_serialization()).with("verdict", "allow");
            on_record(servers, entry.with("rule", "registered").with("place", spec.place.to_string())).await?;
            Connection::http(target, known, capabilities, events).await
        }
        Transport::Peer(peer) => {
            let target = peer_target(servers, (spec, peer), caller).map_err(StartError::Failed)?;
            let entry = Entry::new("connect").by(caller).with("server", spec.name.as_str());
            let entry = entry.with("target", peer.home().origin().ascii_serialization()).with("verdict", "allow");
            on_record(servers, entry.with("rule", "registered").with("place", spec.place.to_string())).await?;
            Connection::peer(target, events).await
        }
        _ => {
            let profile = caller.authority.grant().sandbox;
            // The launcher gets ready while the rest is found out and put on record.
            let mut ready = prepare(Pipes::piped()).map_err(unlaunched)?;
            ready.under(profile);
            let sandbox = sandbox_spec(servers, spec, caller).map_err(StartError::Failed)?;
            let entry = Entry::new("process").by(caller).with("server", spec.name.as_str());
            let entry =
                entry.with("program", sandbox.program.display().to_string()).with("sandbox", format!("{profile:?}"));
            on_record(servers, entry.with("verdict", "allow")).await?;
            let mut instance = ready.launch(&sandbox).await.map_err(unlaunched)?;
            if let Some(listener) = instance.proxy.take() {
                let (live, audit) = (servers.live.clone(), servers.audit.clone());
                let owner = Arc::new(Instance { server: spec.name.clone(), caller: caller.clone(), live, audit });
                // Served as long as the instance lives: an open socket would keep its network
                // namespace alive after it.
                let stop = slot.end.child_token();
                instance.keep = Some(Box::new(stop.clone().drop_guard()));
                egress::serve(listener, owner, &servers.tasks, stop).map_err(|e| StartError::Failed(e.to_string()))?;
            }
            Connection::stdio(instance, known, capabilities, events).await
        }
    };
    outcome.map_err(|e| match e {
        McpError::Gone(_) => StartError::EndedEarly(e.to_string()),
        McpError::Unauthorized(why) => StartError::Refused(why),
        other => StartError::Failed(other.to_string()),
    })
}

fn unlaunched(error: LaunchError) -> StartError {
    StartError::Failed(match error {
        LaunchError::Refused { .. } => format!("{error}; `pleach doctor` tells more"),
        other => other.to_string(),
    })
}

/// Where a server with a url is reached, and what it is shown.
///
/// # Errors
/// When it cannot be dialled at all.
pub(crate) fn target(
    url: &url::Url,
    headers: &BTreeMap<String, Secret>,
    tokens: Option<Arc<dyn Tokens>>,
) -> Result<HttpTarget, String> {
    let (host, port) = net::origin(url)?;
    let line = net::Line::to(decide::registered(host, port))?;
    Ok(HttpTarget { url: url.clone(), headers: headers.clone(), line, tokens })
}

/// Where a peer is, and what it is shown.
fn peer_target(
    servers: &Servers,
    (spec, peer): (&ServerSpec, &PeerSpec),
    caller: &Caller,
) -> Result<PeerTarget, String> {
    let client = |url: &url::Url| -> Result<_, String> {
        let (host, port) = net::origin(url)?;
        net::client(decide::registered(host, port)).map_err(|e| e.to_string())
    };
    let home = peer.home();
    let (card_client, client) = (client(&peer.card)?, client(home)?);
    let keys = peer.keys.as_ref().map(|keys| Keys::read(keys.to_text().as_bytes())).transpose()?;
    if keys.as_ref().is_some_and(Keys::is_empty) {
        return Err("none of its keys can be used: RSA, P-256 and Ed25519 can".into());
    }
    let (card, home, headers) = (peer.card.clone(), home.clone(), peer.headers.clone());
    let (principal, delegate) = (caller.principal.clone(), peer.delegate);
    let (store, tasks, stop) = (servers.kept.get().cloned(), servers.tasks.clone(), servers.stop.clone());
    let (peer, patience) = (known_as(spec.name.as_str(), &card), spec.timeout.max(Duration::from_millis(1)));
    let granter = match delegate {
        true => Some(servers.live.granter().cloned().ok_or("there is no key to sign grants with; see the log")?),
        false => None,
    };
    Ok(PeerTarget {
        card,
        card_client,
        home,
        client,
        headers,
        keys,
        granter,
        patience,
        principal,
        peer,
        store,
        tasks,
        stop,
    })
}

/// What the process of a stdio server is told and given.
fn sandbox_spec(servers: &Servers, spec: &ServerSpec, caller: &Caller) -> Result<Spec, String> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    let loaded = servers.live.now();
    let home = loaded.home(spec.name.as_str(), &caller.principal).map_err(|e| format!("its home: {e}"))?;
    let (found, args, env) = match &spec.transport {
        Transport::Stdio { command, args, env } => {
            let found = runtime::discover(command, args, &spec.cwd, &path).map_err(|e| e.to_string())?;
            (found, args.clone(), Some(env))
        }
        Transport::Http { .. } | Transport::Peer(_) => return Err("it is reached by url".into()),
        Transport::Builtin(which) => {
            let which = match which {
                Builtin::Workspace => builtin::WORKSPACE,
                Builtin::Web => builtin::WEB,
            };
            let program = std::env::current_exe().and_then(|p| p.canonicalize()).map_err(|e| e.to_string())?;
            let found = runtime::Runtime { paths: [program.clone()].into(), program };
            (found, vec![builtin::ENTRY.to_owned(), which.to_owned()], None)
        }
    };
    let mut sandbox = Spec::new(found, args, spec.cwd.clone(), home);
    sandbox.runtime.extend(spec.runtime_paths.iter().flat_map(|p| [Some(p.clone()), p.canonicalize().ok()]).flatten());
    sandbox.grant(caller.authority.grant(), &loaded.own());
    sandbox.standard_env(crate::settings::environment());
    for (name, value) in env.into_iter().flatten() {
        sandbox.env.insert(name.clone(), value.expose().to_owned());
    }
    // A cwd outside every grant is where relative paths point, not something to be read.
    if !sandbox.cwd.is_dir() {
        sandbox.cwd = PathBuf::from("/");
    }
    Ok(sandbox)
}

/// Whose connections an instance's are.
struct Instance {
    server: Name,
    caller: Caller,
    live: Arc<Live>,
    audit: Audit,
}

impl Owner for Instance {
    fn name(&self) -> String {
        format!("{} for {}", self.server, self.caller.who)
    }
    fn authority(&self) -> Option<Authority> {
        self.live.current(&self.caller).ok().map(|caller| caller.authority.clone())
    }
    fn audit(&self) -> &Audit {
        &self.audit
    }
    fn entry(&self, what: &str) -> Entry {
        let now = self.live.current(&self.caller);
        Entry::new(what).by(now.as_deref().unwrap_or(&self.caller)).with("server", self.server.as_str())
    }
}

/// Nothing is started or dialled that cannot be put on record.
async fn on_record(servers: &Servers, entry: Entry) -> Result<(), StartError> {
    let recorded = servers.audit.record(entry, Before::Acting).await;
    recorded.map(drop).map_err(|failed| StartError::Failed(failed.to_string()))
}

/// What an instance says unasked.
pub(super) struct Events {
    server: Name,
    caller: Caller,
    who: Who,
    slot: Weak<Slot>,
    servers: Weak<Servers>,
}

impl Events {
    pub(super) fn new(server: Name, slot: &Arc<Slot>, servers: Weak<Servers>) -> Self {
        Self { server, caller: slot.caller.clone(), who: slot.who.clone(), slot: Arc::downgrade(slot), servers }
    }
}

impl mcp::Events for Events {
    fn notified(&self, method: &str, params: Object) {
        let Some(servers) = self.servers.upgrade() else { return };
        match method {
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                let live = self.slot.upgrade().and_then(|s| s.live());
                if let Some(entry) = servers.entry(&self.server) {
                    let whose = servers.manifests.whose(&self.server, &self.caller);
                    servers.relist(&entry, whose, live.map(|live| (live, self.caller.clone())));
                }
            }
            "notifications/resources/updated" => servers.said.say(&self.server, &self.who, What::Updated(params)),
            "notifications/message" => {
                tracing::debug!(server = %self.server, "{}", policies::json::Json::Object(params.clone()));
                servers.said.say(&self.server, &self.who, What::Log(params));
            }
            "notifications/tasks" => servers.said.say(&self.server, &self.who, What::Task(params)),
            // What belongs to a request or to a connection goes no further; the rest may concern
            // whoever listens.
            "notifications/progress" | "notifications/cancelled" | "notifications/initialized" => {}
            _ => servers.said.say(&self.server, &self.who, What::Other(method.to_owned(), params)),
        }
    }
    fn resumed(&self) {
        let (Some(servers), Some(slot)) = (self.servers.upgrade(), self.slot.upgrade()) else { return };
        if let (Some(entry), Some(live)) = (servers.entry(&self.server), slot.live()) {
            servers.look_again(&entry, &slot, live);
        }
    }
    fn log(&self, line: &str) {
        tracing::debug!(server = %self.server, "{line}");
    }
    fn ended(&self) {
        let (Some(servers), Some(slot)) = (self.servers.upgrade(), self.slot.upgrade()) else { return };
        servers.revive(&self.server, slot);
    }
}
