//! `[servers]`: how each is reached and what the operator says about its tools.

use super::Resolver;
use super::auth::AuthSpec;
use super::peers::PeerSpec;
use crate::action::Effect;
use crate::file::Node;
use crate::import::Kind;
use crate::json::{Json, Object, digest};
use crate::manifest::{Prefix, ServerWords, ToolWords};
use crate::names::Name;
use crate::permission::Access;
use crate::pins::PinnedServer;
use crate::place::Place;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A value that may be secret: never in `Debug`, logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A server that ships with Pleach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Read, Write, Edit, Glob, Grep, Bash.
    Workspace,
    /// WebFetch.
    Web,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Our own program.
    Builtin(Builtin),
    /// A child process, in a sandbox.
    Stdio {
        /// The program: a name for PATH, or a path.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its environment, besides the standard one.
        env: BTreeMap<String, Secret>,
    },
    /// Streamable HTTP.
    Http {
        /// The address.
        url: url::Url,
        /// Headers to send.
        headers: BTreeMap<String, Secret>,
        /// Who Pleach is there, unless a header says so.
        auth: Option<Box<AuthSpec>>,
    },
    /// An A2A peer, whose skills are tools.
    Peer(Box<PeerSpec>),
}

impl Transport {
    /// Whether it is a process of ours, with a sandbox of its own.
    pub fn is_process(&self) -> bool {
        matches!(self, Transport::Builtin(_) | Transport::Stdio { .. })
    }
}

/// A registered server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its name.
    pub name: Name,
    /// Where it is registered.
    pub place: Place,
    /// How it is reached.
    pub transport: Transport,
    /// The working folder of its process, and what its relative paths are against.
    pub cwd: PathBuf,
    /// How long a call may take.
    pub timeout: Duration,
    /// More folders its program needs.
    pub runtime_paths: Vec<PathBuf>,
    /// What is said about its tools.
    pub words: ServerWords,
    /// Why it must not be started, where it must not: it was imported and nobody approved it, or
    /// it is not what the lock file says.
    pub unapproved: Option<String>,
    /// Who it is, for the lock file: its command, arguments, working folder and environment, or its
    /// address, as the file writes them, before variables are put in. Values of the environment
    /// that are more than one variable's name stand as their SHA-256. Empty for a built-in one.
    pub identity: Json,
    /// What is pinned of it; `None` where there is no lock file, or nothing to pin.
    pub pinned: Option<Arc<PinnedServer>>,
}

/// The value of a variable of a server's environment, for a file that others read: the name of
/// the variable or secret it is.
fn reference(text: &str) -> Json {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let variable = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let secret = |name: &str| name.strip_prefix("secret:").is_some_and(|name| Name::try_from(name).is_ok());
    match name.filter(|name| variable(name) || secret(name)) {
        Some(_) => text.into(),
        None => format!("sha256:{}", digest(text)).into(),
    }
}

impl Resolver<'_> {
    pub(super) fn servers(&mut self, file: &Node) -> BTreeMap<Name, ServerSpec> {
        let mut out = BTreeMap::new();
        for (key, place, node) in file.get("servers").map(Node::entries).unwrap_or_default() {
            let Ok(name) = Name::try_from(key.as_str()) else { continue };
            if key == "pleach" {
                self.error(place, "the name \"pleach\" belongs to pleach's own tools; choose another");
                continue;
            }
            if let Some(spec) = self.server(&name, place, node) {
                out.insert(name, spec);
            }
        }
        self.peers(file, &mut out);
        out
    }

    fn server(&mut self, name: &Name, place: &Place, node: &Node) -> Option<ServerSpec> {
        let transport = self.transport(name, place, node)?;
        let cwd = match node.get("cwd") {
            None => self.around.folder().to_owned(),
            Some(cwd) => {
                let text = self.expand(cwd)?;
                match self.around.canonical(&self.absolute(&text)) {
                    Ok(path) => path,
                    Err(why) => {
                        self.error(&cwd.place, format!("cwd {text:?}: {why}"));
                        return None;
                    }
                }
            }
        };
        let mut runtime_paths = Vec::new();
        for item in node.get("runtime_paths").map(Node::items).unwrap_or_default() {
            let text = self.expand(item)?;
            let path = self.absolute(&text);
            if !self.around.exists(&path) {
                self.warn(&item.place, format!("{} does not exist", path.display()));
            }
            runtime_paths.push(path);
        }
        let identity = self.identity(&transport, node);
        let (unapproved, pinned) = self.approval(name, place, &transport, &identity);
        let timeout = node.get("timeout").and_then(Node::int).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(60_000);
        Some(ServerSpec {
            name: name.clone(),
            place: place.clone(),
            words: self.words(node, matches!(transport, Transport::Builtin(_)), &identity),
            transport,
            cwd,
            timeout: Duration::from_millis(timeout),
            runtime_paths,
            unapproved,
            identity,
            pinned,
        })
    }

    /// See [`ServerSpec::identity`].
    pub(super) fn identity(&self, transport: &Transport, node: &Node) -> Json {
        let written = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
        let mut out = Object::new();
        match transport {
            Transport::Builtin(_) => {}
            Transport::Http { .. } => out.set("url", written("url")),
            Transport::Peer(peer) => {
                out.set("card", written("card"));
                if peer.delegate {
                    out.set("delegate", true);
                }
                if peer.callback {
                    out.set("callback", true);
                }
                if node.get("url").is_some() {
                    out.set("url", written("url"));
                }
            }
            Transport::Stdio { command, .. } => {
                out.set("command", written("command"));
                let args = node.get("args").map(Node::items).unwrap_or_default();
                out.set("args", args.iter().filter_map(Node::text).map(Json::from).collect::<Vec<_>>());
                let env = node.get("env").map(Node::entries).unwrap_or_default();
                let env =
                    env.iter().map(|(name, _, value)| (name.clone(), reference(value.text().unwrap_or_default())));
                out.set("env", env.collect::<Object>());
                if let Some(package) = self.around.package(command) {
                    out.set("package", package);
                }
                if let Some(cwd) = node.get("cwd").and_then(Node::text) {
                    out.set("cwd", cwd);
                }
            }
        }
        out.into()
    }

    /// Whether a server may run, and what is pinned of it.
    pub(super) fn approval(
        &mut self,
        name: &Name,
        place: &Place,
        transport: &Transport,
        identity: &Json,
    ) -> (Option<String>, Option<Arc<PinnedServer>>) {
        let imported = self.import.servers.iter().any(|(n, _, _)| n == name.as_str());
        let waits = crate::import::unapproved(name.as_str());
        if matches!(transport, Transport::Builtin(_)) {
            return (imported.then_some(waits), None);
        }
        let Some(pins) = &self.pins else { return (imported.then_some(waits), None) };
        let nothing = || PinnedServer { identity: Json::Null, instructions: None, tools: BTreeMap::new() };
        let pinned = pins.servers.get(name).cloned().unwrap_or_else(|| Arc::new(nothing()));
        let refused = pins.refuses(name, identity);
        if imported && refused.is_none() {
            let told = format!("server {name}: {waits}");
            self.import.notes.retain(|note| note.what != told);
            self.import.note(place, Kind::Taken, format!("server {name}: approved by the lock file"));
        }
        (refused, Some(pinned))
    }

    fn transport(&mut self, name: &Name, place: &Place, node: &Node) -> Option<Transport> {
        let given: Vec<&str> = ["builtin", "command", "url"].into_iter().filter(|k| node.get(k).is_some()).collect();
        if given.len() != 1 {
            let message = match given.as_slice() {
                [] => format!("server {name} needs one of builtin, command or url"),
                several => format!("server {name} has {}; it can have only one", several.join(" and ")),
            };
            self.error(place, message);
            return None;
        }
        let fits: &[&str] = match given[0] {
            "builtin" => &["builtin"],
            "command" => &["command", "args", "env"],
            _ => &["url", "headers", "auth"],
        };
        for (key, place, _) in node.entries() {
            if ["args", "env", "headers", "auth"].contains(&key.as_str()) && !fits.contains(&key.as_str()) {
                self.error(place, format!("{key} does not belong to a server with {}", given[0]));
            }
        }
        if let Some(kind) = node.get("type")
            && (kind.text() == Some("stdio")) != (given[0] == "command")
        {
            self.error(
                &kind.place,
                format!("type {:?} does not fit a server with {}", kind.text().unwrap_or(""), given[0]),
            );
        }
        match given[0] {
            "builtin" => Some(Transport::Builtin(match node.text_at("builtin") {
                Some("web") => Builtin::Web,
                _ => Builtin::Workspace,
            })),
            "command" => {
                let command = self.expand(node.get("command")?)?;
                let args = node.get("args").map(Node::items).unwrap_or_default();
                let args: Option<Vec<String>> = args.iter().map(|a| self.expand(a)).collect();
                Some(Transport::Stdio {
                    command,
                    args: args?,
                    env: self.secrets(&format!("server {name}"), node.get("env"))?,
                })
            }
            _ => {
                let url = self.address(node.get("url")?, "url")?;
                let headers = self.secrets(&format!("server {name}"), node.get("headers"))?;
                let auth = self.server_auth(name, node, &url, &headers)?;
                Some(Transport::Http { url, headers, auth: auth.map(Box::new) })
            }
        }
    }

    /// An address of HTTP without a password in it.
    pub(super) fn address(&mut self, at: &Node, key: &str) -> Option<url::Url> {
        let text = self.expand(at)?;
        let url = match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => url,
            _ => {
                self.error(&at.place, format!("{key} is no http(s) address"));
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.error(&at.place, format!("{key} holds a user or password; use headers = {{ Authorization = … }}"));
            return None;
        }
        Some(url)
    }

    /// All of them, so that each error is told.
    pub(super) fn secrets(&mut self, whose: &str, table: Option<&Node>) -> Option<BTreeMap<String, Secret>> {
        let entries = table.map(Node::entries).unwrap_or_default();
        let values: Vec<_> =
            entries.iter().map(|(key, _, value)| self.private(value, whose).map(|v| (key.clone(), v))).collect();
        values.into_iter().collect()
    }

    pub(super) fn words(&mut self, node: &Node, builtin: bool, identity: &Json) -> ServerWords {
        let access = |n: Option<&Node>| {
            let n = n?;
            Some((n.text().and_then(Access::from_word)?, Some(n.place.clone())))
        };
        let texts = |n: Option<&Node>| -> Option<Vec<String>> {
            Some(n?.items().iter().filter_map(Node::text).map(str::to_owned).collect())
        };
        let mut tools = BTreeMap::new();
        for (name, _, tool) in node.get("tools").map(Node::entries).unwrap_or_default() {
            let rename = tool.get("rename");
            if let Some(rename) = rename
                && rename.text().is_some_and(|t| t.contains('*'))
            {
                self.error(&rename.place, "rename is a name, not a pattern");
            }
            let (effect, verify_with) = self.effect(name, tool, node);
            let words = ToolWords {
                access: access(tool.get("access")),
                path_args: texts(tool.get("path_args")),
                url_args: texts(tool.get("url_args")),
                rename: rename.and_then(Node::text).map(str::to_owned),
                effect,
                verify_with,
            };
            tools.insert(name.clone(), words);
        }
        ServerWords {
            default_access: access(node.get("default_access")),
            trust_annotations: node.text_at("annotations") == Some("trust"),
            prefix: match node.text_at("prefix") {
                Some("auto") => Prefix::Auto,
                Some("none") => Prefix::None,
                _ => Prefix::Always,
            },
            tools,
            builtin,
            peer: false,
            identity: digest(&identity.to_canonical()),
        }
    }

    /// `effect` and `verify_with`: one needs the other, and what verifies must bear repetition.
    /// Whether the server offers the tool is seen when its tools are imported.
    fn effect(&mut self, name: &str, tool: &Node, server: &Node) -> (Option<Effect>, Option<String>) {
        let effect = tool.text_at("effect").and_then(Effect::from_word);
        let with = tool.get("verify_with");
        match (effect, with) {
            (Some(Effect::Verifiable), None) => {
                let place = tool.get("effect").map_or(&tool.place, |e| &e.place);
                let message =
                    "effect = \"verifiable\" needs verify_with = \"tool\": the tool that tells whether a call happened";
                self.error(place, message);
            }
            (Some(Effect::Verifiable), Some(with)) if with.text() == Some(name) => {
                self.error(
                    &with.place,
                    format!("verify_with is {name} itself; name the tool that reads what it wrote"),
                );
            }
            (Some(Effect::Verifiable), Some(with)) => {
                let other = server.get("tools").and_then(|t| t.get(with.text().unwrap_or_default()));
                let other = other.and_then(|t| t.text_at("effect")).and_then(Effect::from_word);
                if let Some(effect) = other.filter(|e| !matches!(e, Effect::Pure | Effect::Idempotent)) {
                    let message = format!(
                        "verify_with = {:?}, whose effect is {}; what verifies is asked again after a crash and must be pure or idempotent",
                        with.text().unwrap_or_default(),
                        effect.as_str()
                    );
                    self.error(&with.place, message);
                }
            }
            (_, Some(with)) => {
                self.error(&with.place, "verify_with belongs to effect = \"verifiable\"; write that, or remove it");
            }
            (_, None) => {}
        }
        (effect, with.and_then(Node::text).map(str::to_owned))
    }
}
