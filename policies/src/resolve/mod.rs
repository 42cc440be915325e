//! From the file to a [`Policy`]: defaults, cross-checks, and every name looked up.
//!
//! What needs the machine (environment, canonical paths, prompt files) is asked of
//! [`Surroundings`], so that this stays pure and the same file means the same in a test.

mod agents;
mod approvals;
mod audit;
mod auth;
mod grants;
mod models;
mod output;
mod peers;
mod prices;
mod secrets;
mod servers;

pub use agents::{AgentSpec, ClientSpec, SkillSpec};
pub use approvals::ApprovalsSpec;
pub use audit::AuditSpec;
pub use auth::{AuthSpec, Flow, KeyOrSecret, OAuthSpec, Proof};
pub use models::{BY_CLIENT, ModelSpec, Priced, Provider, RemoteModel, Wire};
pub use output::OutputSchema;
pub use peers::PeerSpec;
pub use secrets::{SecretFile, SecretSpec, Source};
pub use servers::{Builtin, Secret, ServerSpec, Transport};

use crate::authority::{AgentPolicy, Authority, Link, Sources};
use crate::file::{FileError, FileErrors, Node};
use crate::fs::FsGrant;
use crate::grant::Grant;
use crate::import::{self, Import, Note};
use crate::manifest::looks;
use crate::names::{Name, nearest};
use crate::pins::Pins;
use crate::place::Place;
use crate::price::Usd;
use crate::secrets::Hidden;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What resolving needs to know of the machine.
pub trait Surroundings {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The folder of the policy file, canonical.
    fn folder(&self) -> &Path;
    /// The policy file itself, canonical.
    fn file(&self) -> &Path;
    /// The user's home.
    fn home(&self) -> Option<PathBuf>;
    /// The canonical form of an absolute path: the longest existing part resolved through
    /// links, the rest appended.
    ///
    /// # Errors
    /// `..` in the rest, a loop of links, a folder that cannot be searched.
    fn canonical(&self, path: &Path) -> Result<PathBuf, String>;
    /// Whether something is there.
    fn exists(&self, path: &Path) -> bool;
    /// A text file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read_text(&self, path: &Path) -> Result<String, String>;
    /// The file of a secret.
    ///
    /// # Errors
    /// Why it cannot be read; nothing of what stands in it.
    fn secret_file(&self, path: &Path) -> Result<SecretFile, String> {
        let _ = path;
        Err("files of secrets are not read here".into())
    }
    /// What the command of a secret prints; `None` where none is run, because the file may be
    /// somebody else's that is only looked at.
    ///
    /// # Errors
    /// Why it failed; nothing of what it printed.
    fn secret_command(&self, command: &[String]) -> Result<Option<String>, String> {
        let _ = command;
        Ok(None)
    }
    /// The lock file beside the policy file; `None` where there is none.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn lock(&self) -> Result<Option<String>, String> {
        Ok(None)
    }
    /// The package, with its version, that `pleach install` fetched a program from.
    fn package(&self, command: &str) -> Option<String> {
        let _ = command;
        None
    }
    /// The names in a folder, sorted; `None` for what is no folder. A link is not followed.
    ///
    /// # Errors
    /// Why it cannot be listed.
    fn entries(&self, path: &Path) -> Result<Option<Vec<String>>, String> {
        let _ = path;
        Ok(None)
    }
}

/// Limits that are counted, not compared. `turns` and `tool_calls` are of one run each; `usd`,
/// `tokens` and `wall` hold for the run and everything it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Model calls.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Money; [`Usd::MAX`] is no limit.
    pub usd: Usd,
    /// Tokens read and written; `u64::MAX` is no limit.
    pub tokens: u64,
    /// Time from the start of the run.
    pub wall: Option<Duration>,
}

impl Limits {
    /// What an absent `[policy.budget]` means: 100 turns, all else unlimited.
    pub const DEFAULT: Self = Self { turns: 100, ..Self::NONE };
    /// The lesser of each.
    pub fn meet(self, other: Self) -> Self {
        Self {
            turns: self.turns.min(other.turns),
            tool_calls: self.tool_calls.min(other.tool_calls),
            usd: self.usd.min(other.usd),
            tokens: self.tokens.min(other.tokens),
            wall: match (self.wall, other.wall) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
    /// No limit, for tables that name none.
    pub const NONE: Self = Self { turns: u32::MAX, tool_calls: u32::MAX, usd: Usd::MAX, tokens: u64::MAX, wall: None };
}

/// `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySpec {
    /// `listen`
    pub listen: SocketAddr,
    /// `public_url`, without a slash at its end.
    pub public_url: Option<url::Url>,
    /// `allowed_hosts`
    pub allowed_hosts: Vec<String>,
    /// `allowed_origins`
    pub allowed_origins: Vec<String>,
    /// `default_agent`
    pub default_agent: Option<Name>,
    /// `framework_tools`; absent: where agents exist.
    pub framework_tools: bool,
}

/// A policy file, understood.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file, as named.
    pub file: Arc<str>,
    /// `[gateway]`
    pub gateway: GatewaySpec,
    /// The SQLite file of `[store]`, absolute.
    pub store: PathBuf,
    /// `[audit]`
    pub audit: AuditSpec,
    /// `[approvals]`
    pub approvals: ApprovalsSpec,
    /// `[models]`
    pub models: BTreeMap<Name, ModelSpec>,
    /// `[servers]`
    pub servers: BTreeMap<Name, ServerSpec>,
    /// `[secrets]`, without their values.
    pub secrets: BTreeMap<Name, SecretSpec>,
    /// Their values, to be taken out of what others read.
    pub hidden: Hidden,
    /// `[clients]`; `None` when the table is absent, and a loopback caller is anonymous.
    pub clients: Option<BTreeMap<Name, ClientSpec>>,
    /// `[policy]`
    pub root: Arc<Grant>,
    /// Where its rules stand.
    pub root_sources: Arc<Sources>,
    /// Its counted limits.
    pub root_limits: Limits,
    /// `[agents]`
    pub agents: BTreeMap<Name, AgentSpec>,
    /// Folders that are created at start when missing.
    pub create: Vec<PathBuf>,
    /// What a reviewer should know.
    pub warnings: Vec<FileError>,
    /// What became of what `import` names.
    pub imported: Vec<Note>,
    /// The files and folders `import` names, canonical; they are policy, and in no grant.
    pub import_sources: Vec<PathBuf>,
    /// What the lock file says; `None` where there is none.
    pub pins: Option<Arc<Pins>>,
}

impl Policy {
    /// The files of secrets, as named and with links followed.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        self.secrets.values().flat_map(|spec| spec.source.files()).collect()
    }
    /// The authority of a door for a caller: `None` is the anonymous one.
    pub fn door(&self, client: Option<&ClientSpec>) -> Authority {
        Authority::root(self.root.clone(), self.root_sources.clone(), client.map(ClientSpec::link))
    }
    /// The agents a client may start: those of its table, else those exposed.
    pub fn may_start(&self, client: Option<&ClientSpec>) -> BTreeSet<Name> {
        let exposed = || self.agents.values().filter(|a| a.expose).map(|a| a.name.clone()).collect();
        client.and_then(|c| c.may_start.clone()).unwrap_or_else(exposed)
    }
    /// The agent that runs when none is named: `default_agent`, else the only one.
    pub fn default_agent(&self) -> Option<&AgentSpec> {
        match &self.gateway.default_agent {
            Some(name) => self.agents.get(name),
            None if self.agents.len() == 1 => self.agents.values().next(),
            None => None,
        }
    }
}

/// Whether an address may be listened on without `[clients]`.
///
/// # Errors
/// What to do about it.
pub fn check_listen(listen: SocketAddr, has_clients: bool) -> Result<(), String> {
    if listen.ip().is_loopback() || has_clients {
        return Ok(());
    }
    Err(format!(
        "listening on {listen} lets other machines in without authentication; name callers in [clients], \
         or listen on 127.0.0.1:{}",
        listen.port()
    ))
}

/// Whether clients that come with an issuer's tokens can be told what this gateway is called.
///
/// # Errors
/// What to do about it.
pub fn check_public(listen: SocketAddr, policy: &Policy) -> Result<(), String> {
    if listen.ip().is_loopback() || policy.gateway.public_url.is_some() || crate::callers::issuers(policy).is_empty() {
        return Ok(());
    }
    Err(format!(
        "clients with oauth are told where their tokens are good, and {listen} is no name for that; set [gateway] public_url"
    ))
}

/// Where the lock file of a policy file is: `pleach.lock` beside `pleach.toml`.
pub fn lock_of(file: &Path) -> PathBuf {
    file.with_extension("lock")
}

/// Gives a checked file its meaning.
///
/// # Errors
/// Every cross-check that fails, at its place.
pub fn resolve(file: &Node, around: &dyn Surroundings) -> Result<Policy, FileErrors> {
    if file.get("import").is_none() {
        return resolved(file, around, Import::default());
    }
    let mut import = import::read(file, around);
    let merged = import.merged(file);
    // The file itself passed this before; what is found now is in the imported tables.
    crate::file::shape::check(&merged, &crate::file::shapes::FILE, "", &mut import.errors);
    resolved(&merged, around, import)
}

fn resolved(file: &Node, around: &dyn Surroundings, import: Import) -> Result<Policy, FileErrors> {
    let mut cx = Resolver {
        around,
        errors: Vec::new(),
        warnings: Vec::new(),
        create: Vec::new(),
        root: file,
        import,
        pins: None,
        secrets: BTreeMap::new(),
        hidden: Hidden::default(),
        granted: None,
    };
    let policy = cx.policy(file);
    cx.errors.append(&mut cx.import.errors);
    cx.errors.sort_by(|a, b| a.place.cmp(&b.place));
    match policy {
        Some(policy) if cx.errors.is_empty() => Ok(policy),
        _ => Err(FileErrors(cx.errors)),
    }
}

/// What a spawn request asks for, from the `policy` of its JSON. Variables are not expanded:
/// a model wrote it.
///
/// # Errors
/// What is wrong with it, for the model to correct.
pub fn request(
    json: &crate::json::Json,
    around: &dyn Surroundings,
) -> Result<(crate::grant::Narrowing, Limits), String> {
    let node = crate::file::read_request(json).map_err(|e| plain(&e))?;
    let around = NoVariables(around);
    let mut cx = Resolver {
        around: &around,
        errors: Vec::new(),
        warnings: Vec::new(),
        create: Vec::new(),
        root: &node,
        import: Import::default(),
        pins: None,
        secrets: BTreeMap::new(),
        hidden: Hidden::default(),
        granted: None,
    };
    let (asks, _, limits) = cx.narrowing(&node, false, &[]);
    if cx.errors.is_empty() { Ok((asks, limits)) } else { Err(plain(&FileErrors(cx.errors))) }
}

/// The `budget` of a spawn request.
///
/// # Errors
/// What is wrong with it, for the model to correct.
pub fn budget_request(json: &crate::json::Json) -> Result<Limits, String> {
    let node = crate::file::read_budget(json).map_err(|e| plain(&e))?;
    Ok(grants::limits(&node, Limits::NONE))
}

fn plain(errors: &FileErrors) -> String {
    errors.0.iter().map(|e| e.message.as_str()).collect::<Vec<_>>().join("; ")
}

struct NoVariables<'a>(&'a dyn Surroundings);

impl Surroundings for NoVariables<'_> {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
    fn folder(&self) -> &Path {
        self.0.folder()
    }
    fn file(&self) -> &Path {
        self.0.file()
    }
    fn home(&self) -> Option<PathBuf> {
        self.0.home()
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf, String> {
        self.0.canonical(path)
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }
    fn read_text(&self, path: &Path) -> Result<String, String> {
        self.0.read_text(path)
    }
    fn entries(&self, path: &Path) -> Result<Option<Vec<String>>, String> {
        self.0.entries(path)
    }
}

/// What the parts of resolving share.
struct Resolver<'a> {
    around: &'a dyn Surroundings,
    root: &'a Node,
    errors: Vec<FileError>,
    warnings: Vec<FileError>,
    create: Vec<PathBuf>,
    import: Import,
    pins: Option<Arc<Pins>>,
    secrets: BTreeMap<Name, secrets::Known>,
    hidden: Hidden,
    /// The files of the root grant, once they are known.
    granted: Option<FsGrant>,
}

impl Resolver<'_> {
    fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(FileError::new(place, message));
    }
    fn warn(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.push(FileError::new(place, message));
    }

    fn policy(&mut self, file: &Node) -> Option<Policy> {
        if file.get("version").is_none() {
            self.error(&file.place, "version is missing; write `version = 1` at the top");
        }
        let gateway = self.gateway(file)?;
        let store = self.store(file)?;
        self.read_lock(file);
        let audit = self.audit(file, &store)?;
        self.read_secrets(file);
        // Before anything is fetched: a command that agents could write is not run.
        let (root, root_sources, root_limits) = self.root_grant(file, &store, &audit.folder);
        self.granted = Some(root.filesystem.clone());
        let servers = self.servers(file);
        let models = self.models(file);
        let agents = self.agents(file);
        let clients = self.clients(file);
        // Only what the root grants is made; a narrower table cannot make folders elsewhere.
        self.create.retain(|path| root.filesystem.allows(path, crate::fs::FileOp::Write));
        let policy = Policy {
            file: file.place.file.clone(),
            gateway,
            store,
            audit,
            approvals: Self::approvals(file),
            models,
            servers,
            secrets: self.known_secrets(),
            hidden: std::mem::take(&mut self.hidden),
            clients,
            root: Arc::new(root),
            root_sources: Arc::new(root_sources),
            root_limits,
            agents,
            create: std::mem::take(&mut self.create),
            warnings: Vec::new(),
            imported: std::mem::take(&mut self.import.notes),
            import_sources: std::mem::take(&mut self.import.sources),
            pins: self.pins.take(),
        };
        self.cross_check(&policy);
        Some(Policy { warnings: std::mem::take(&mut self.warnings), ..policy })
    }

    /// A lock file that cannot be read is an error like one of the policy file: without it, what
    /// it holds back would run.
    fn read_lock(&mut self, file: &Node) {
        let shown: Arc<str> = lock_of(Path::new(&*file.place.file)).display().to_string().into();
        // An empty one is none: so it is held in sandboxes, lest somebody beneath makes one.
        let text = self.around.lock().map(|text| text.filter(|text| !text.trim().is_empty()));
        match text.map(|text| text.map(|text| Pins::read(&shown, &text))) {
            Ok(None) => {}
            Ok(Some(Ok(pins))) => self.pins = Some(Arc::new(pins)),
            Ok(Some(Err(error))) => self.errors.push(error),
            Err(why) => self.error(&Place { file: shown, line: 1, column: 1 }, why),
        }
    }

    fn gateway(&mut self, file: &Node) -> Option<GatewaySpec> {
        let table = file.get("gateway");
        let at = |key: &str| table.and_then(|t| t.get(key));
        let texts = |key: &str| -> Vec<String> {
            at(key).map(|n| n.items().iter().filter_map(Node::text).map(str::to_owned).collect()).unwrap_or_default()
        };
        let listen_text = at("listen").and_then(Node::text).unwrap_or("127.0.0.1:7420");
        let listen: SocketAddr = listen_text.parse().ok()?;
        if let Err(why) = check_listen(listen, file.get("clients").is_some()) {
            let place = at("listen").map_or(&file.place, |n| &n.place).clone();
            self.error(&place, why);
        }
        let public_url = self.public_url(at("public_url"));
        let default_agent = self.known(at("default_agent"), "agents", "agent");
        let has_agents = file.get("agents").is_some_and(|a| !a.entries().is_empty());
        let mut allowed_hosts = texts("allowed_hosts");
        allowed_hosts.extend(public_url.as_ref().and_then(|u| u.host_str()).map(str::to_owned));
        Some(GatewaySpec {
            listen,
            public_url,
            allowed_hosts,
            allowed_origins: texts("allowed_origins"),
            default_agent,
            framework_tools: at("framework_tools").and_then(Node::bool).unwrap_or(has_agents),
        })
    }

    fn store(&mut self, file: &Node) -> Option<PathBuf> {
        let node = file.get("store").and_then(|s| s.get("url"));
        let url = node.and_then(Node::text).unwrap_or("sqlite:pleach.db");
        let path = self.absolute(url.strip_prefix("sqlite:")?.trim_start_matches("//"));
        match self.around.canonical(&path) {
            Ok(path) => Some(path),
            Err(why) => {
                let place = node.map_or(&file.place, |n| &n.place).clone();
                self.error(&place, format!("store.url: {why}"));
                None
            }
        }
    }

    /// A name that must be defined in `[table]`.
    fn known(&mut self, node: Option<&Node>, table: &str, kind: &str) -> Option<Name> {
        let node = node?;
        let text = node.text()?;
        let name = Name::try_from(text).ok()?;
        let defined: Vec<&str> =
            self.root.get(table).map(|t| t.entries().iter().map(|(k, _, _)| k.as_str()).collect()).unwrap_or_default();
        if defined.contains(&text) {
            return Some(name);
        }
        let hint = match nearest(text, defined.iter().copied()) {
            Some(near) => format!("; did you mean {near:?}?"),
            None if defined.is_empty() => format!("; the file defines none in [{table}]"),
            None => format!("; the file defines {}", defined.join(", ")),
        };
        let place = node.place.clone();
        self.error(&place, format!("no {kind} is named {text:?}{hint}"));
        None
    }

    /// A path of the file: `~` is the home, relative is against the file's folder.
    fn absolute(&self, text: &str) -> PathBuf {
        if let Some(rest) = text.strip_prefix('~')
            && let Some(home) = self.around.home()
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return home.join(rest.trim_start_matches('/'));
        }
        self.around.folder().join(text)
    }

    /// `${VAR}` and `${VAR:-default}`; an unset variable is an error, and so is a secret.
    fn expand(&mut self, node: &Node) -> Option<String> {
        self.put_in(node, None)
    }

    /// The same, with secrets for whoever it is for.
    fn put_in(&mut self, node: &Node, whose: Option<&str>) -> Option<String> {
        let text = node.text()?;
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                self.error(&node.place, format!("{text:?}: `${{` without `}}`"));
                return None;
            };
            let inner = &rest[start + 2..start + end];
            rest = &rest[start + end + 1..];
            if let Some(name) = inner.strip_prefix("secret:") {
                out.push_str(&self.secret(node, name, whose)?);
                continue;
            }
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            match self.around.variable(name).or_else(|| default.map(str::to_owned)) {
                Some(value) => out.push_str(&value),
                None => {
                    self.error(
                        &node.place,
                        format!("${{{name}}} is not set; export {name}, or write ${{{name}:-default}}"),
                    );
                    return None;
                }
            }
        }
        out.push_str(rest);
        Some(out)
    }

    /// A budget greater than the root's is met with it; whoever wrote it should know.
    fn check_budgets(&mut self, policy: &Policy, agent: &AgentSpec) {
        let tables = [
            ("policy", &agent.limits, &agent.policy.sources),
            ("subagent_policy", &agent.subagent_limits, &agent.policy.subagent_sources),
        ];
        for (table, limits, sources) in tables {
            let more = crate::budget::exceeds(limits, &policy.root_limits);
            if more.is_empty() {
                continue;
            }
            let place = sources.place("budget").unwrap_or(&agent.place).clone();
            let message = format!(
                "agent {}: {table}.budget names more {} than the root policy holds; the lesser counts",
                agent.name,
                more.join(", ")
            );
            self.warn(&place, message);
        }
    }

    /// Servers that nobody can tell apart have tools that nobody can tell apart.
    fn cross_check_looks(&mut self, policy: &Policy) {
        let mut seen: BTreeMap<String, &str> = looks("pleach").into_iter().map(|form| (form, "pleach")).collect();
        for server in policy.servers.values() {
            let name = server.name.as_str();
            let others = looks(name).into_iter().filter_map(|form| seen.insert(form, name)).filter(|n| *n != name);
            if let Some(other) = others.collect::<Vec<_>>().first() {
                let message = format!("server {} looks like {other}; give it another name", server.name);
                self.error(&server.place, message);
            }
        }
    }

    /// Checks that need everything resolved.
    fn cross_check(&mut self, policy: &Policy) {
        if let Err(why) = check_public(policy.gateway.listen, policy) {
            let place = self.root.key_place("clients").unwrap_or(&self.root.place).clone();
            self.error(&place, why);
        }
        self.cross_check_looks(policy);
        for server in policy.servers.values() {
            let name = &server.name;
            if let Transport::Stdio { command, .. } = &server.transport
                && ["npx", "uvx", "bunx", "pnpx", "pipx"].contains(&command.rsplit('/').next().unwrap_or(""))
            {
                let message = format!(
                    "{command} downloads at start, which the sandbox does not let it do; run `pleach install {name}`"
                );
                self.warn(&server.place, message);
            }
            let prefixed = server.words.prefix == crate::manifest::Prefix::Always;
            if prefixed && !policy.root.tools.may_cover(&format!("{name}__")) {
                let message = format!(
                    "{name}: 0 tools reachable, because [policy.tools] allows no name that begins with {name}__"
                );
                self.warn(&server.place, message);
            }
        }
        self.cross_check_models(policy);
        for agent in policy.agents.values() {
            let Ok(own) = crate::authority::RunAuthority::spawn(&policy.door(None), &agent.policy, None) else {
                continue;
            };
            let grant = own.use_.grant();
            let asked = policy.root.asked(&agent.policy.policy);
            for component in asked.exceeds(&policy.root) {
                let place = agent.policy.sources.place(component.as_str()).unwrap_or(&agent.place).clone();
                let message = format!(
                    "agent {} asks for more {component} than the root policy holds; it gets what both allow",
                    agent.name
                );
                self.warn(&place, message);
            }
            self.check_budgets(policy, agent);
            if !grant.models.allows(agent.model.as_str()) {
                let message = format!("agent {} uses model {}, which its models do not allow", agent.name, agent.model);
                self.error(&agent.place, message);
            }
            for other in policy.chain(&agent.model).iter().skip(1).filter(|m| !grant.models.allows(m.name.as_str())) {
                let message = format!(
                    "agent {} may be answered by {}, which its models do not list: {} falls back on it",
                    agent.name, other.name, agent.model
                );
                self.warn(&agent.place, message);
            }
            for child in &agent.subagents {
                let Some(spec) = policy.agents.get(child) else { continue };
                for grandchild in &spec.subagents {
                    if !agent.subagents.contains(grandchild) {
                        let message = format!(
                            "{child} may start {grandchild}, but not beneath {}: its subagents do not list {grandchild}",
                            agent.name
                        );
                        self.warn(&agent.place, message);
                    }
                }
            }
        }
    }
}

impl AgentSpec {
    /// The policy side, for the two equations.
    pub fn policy(&self) -> &AgentPolicy {
        &self.policy
    }
}

impl ClientSpec {
    fn link(&self) -> Link {
        Link { who: format!("client {}", self.name).into(), asks: self.policy.clone(), sources: self.sources.clone() }
    }
}
