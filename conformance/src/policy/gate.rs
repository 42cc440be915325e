//! Acts of a client at the door: one `pleach serve` in front of a server that keeps every call that
//! reached it, and the workspace server in the world.

use super::arena::Arena;
use super::world::{PUBLIC, SECRET, World, leaks};
use super::{Act, Case, Happened};
use crate::served::{Answer, Served, modern_body};
use crate::upstream::{self, Upstream};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A served policy and what stands behind it.
pub(super) struct Gate {
    pub(super) world: World,
    pub(super) served: Served,
    pub(super) upstream: Upstream,
}

/// Who listens, as clients write it.
pub(super) const ALICE: &str = "Bearer alice-alice-alice-alice";
pub(super) const BOB: &str = "Bearer bob-bob-bob-bob-bob-bob";
pub(super) const BOSS: &str = "Bearer boss-boss-boss-boss-boss";

/// The tools of the server behind, each with the arguments somebody would send.
pub(super) fn tools() -> Vec<Value> {
    let open = json!({ "type": "object" });
    ["peek", "dial", "guess", "list", "deep", "quiet", "delete_all", "put", "wipe"]
        .iter()
        .map(|name| json!({ "name": name, "description": format!("The tool {name}."), "inputSchema": open }))
        .collect()
}

impl Gate {
    /// Serves a policy; `{url}` in it is the server behind, which lists these tools.
    pub(super) fn open(policy: &str, tools: Vec<Value>) -> Result<Self, String> {
        Self::open_with(policy, tools, |_| Ok(()))
    }
    /// The same; something is done in its folder before it is served.
    pub(super) fn open_with(
        policy: &str,
        tools: Vec<Value>,
        before: impl FnOnce(&World) -> Result<(), String>,
    ) -> Result<Self, String> {
        let upstream = behind(tools);
        let world = World::new(&policy.replace("{url}", &upstream.url()), "")?;
        before(&world)?;
        let served = Served::start(&world.folder);
        Ok(Self { world, served, upstream })
    }
    /// Whether a call with this word reached the server behind.
    pub(super) fn reached(&self, word: &str) -> bool {
        let calls = self.upstream.came("tools/call");
        calls.iter().any(|seen| seen.body.to_string().contains(word))
    }
    /// A call of the modern era.
    pub(super) fn call(&self, arena: &Arena, tool: &str, arguments: &Value, more: &[(&str, &str)]) -> Answer {
        self.call_at(arena, "/mcp", tool, arguments, more)
    }
    /// The same at another door.
    pub(super) fn call_at(
        &self,
        arena: &Arena,
        path: &str,
        tool: &str,
        arguments: &Value,
        more: &[(&str, &str)],
    ) -> Answer {
        let params = json!({ "name": tool, "arguments": arguments });
        arena.runtime.block_on(self.served.modern(path, "tools/call", params, more))
    }
    /// Bytes to a path.
    pub(super) fn post(&self, arena: &Arena, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        arena.runtime.block_on(self.served.post(path, headers, body.into()))
    }
    /// Bytes to a path over a connection of their own, which may be closed before they are all sent.
    fn post_alone(&self, arena: &Arena, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Option<Answer> {
        let headers = [headers, &[("connection", "close")]].concat();
        arena.runtime.block_on(self.served.try_post(path, &headers, body)).ok()
    }
    /// A path.
    pub(super) fn get(&self, arena: &Arena, path: &str, headers: &[(&str, &str)]) -> Answer {
        arena.runtime.block_on(self.served.get(path, headers))
    }
}

/// A server that lists these tools and keeps what came.
pub(super) fn behind(tools: Vec<Value>) -> Upstream {
    behind_of(Arc::new(Mutex::new(tools)))
}
/// The same of tools that change.
pub(super) fn behind_of(tools: Arc<Mutex<Vec<Value>>>) -> Upstream {
    Upstream::start(move |seen| match seen.method.as_str() {
        "tools/list" => {
            let tools = tools.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let listed = json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", "tools": tools });
            upstream::Act::Result(listed)
        }
        _ => upstream::modern(seen, json!({ "tools": {} }), &[])
            .unwrap_or_else(|| upstream::Act::Result(upstream::told("done"))),
    })
}

/// Gates several cases go through, by name.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<&'static str, Arc<Gate>>>);

impl Gates {
    pub(super) fn get(&self, name: &'static str) -> Result<Arc<Gate>, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = all.get(name) {
            return Ok(gate.clone());
        }
        let policy = match name {
            "clients" => format!("{SHARED}{CLIENTS}"),
            _ => SHARED.to_owned(),
        };
        let gate = Arc::new(Gate::open_with(&policy, tools(), links)?);
        all.insert(name, gate.clone());
        Ok(gate)
    }
}

/// What somebody left in the granted folders before.
fn links(world: &World) -> Result<(), String> {
    world.folder.write("replies.toml", TELLER);
    let script = "cd out; ln -s ../outside/secret.txt link; ln -s ../outside dir; ln -s link chain; ln -s loop loop; \
                  ln -s ../outside/new.txt dangling; ln -s /proc/self/root root; ln -s ../docs good; \
                  ln -s ../docs/a.md goodfile; ln -s goodfile goodchain; mkdir -p a/b; mkfifo pipe";
    let mut command = std::process::Command::new("bash");
    let status = command.args(["-ec", script]).current_dir(world.folder.path()).status();
    match status.map_err(|e| e.to_string())?.success() {
        true => Ok(()),
        false => Err("links could not be made".into()),
    }
}

const SHARED: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[servers.rec]
url = "{url}"
default_access = "read-only"
[servers.rec.tools]
peek = { path_args = ["/path"], url_args = [] }
dial = { url_args = ["/url"], path_args = [] }
list = { path_args = ["/paths"], url_args = [] }
deep = { path_args = ["/a/b", "/a~1b", "/c/0"], url_args = [] }
put = { access = "read-write", path_args = ["/path"], url_args = [] }
wipe = { access = "destructive" }
[policy]
max_access = "read-write"
filesystem = { read = ["docs"], read_write = ["out"], deny = ["docs/private", "docs/hidden.txt", "out/kept"] }
domains = { allow = ["good.test", "*.good.test", "ported.test:8443"] }
networks = { allow = ["10.9.0.0/16"] }
tools = { allow = ["*"], deny = ["*__quiet", "*__delete_*"] }
[agents.narrow]
description = "Narrow."
prompt = "p"
[agents.narrow.policy]
filesystem = { read = ["docs/sub"] }
"#;

const CLIENTS: &str = r#"
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["teller"]
[clients.alice.policy]
filesystem = { read = ["docs"] }
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
[clients.bob.policy]
max_access = "read-only"
filesystem = { read = ["docs/sub"] }
[clients.boss]
token = "boss-boss-boss-boss-boss"
can_approve = true
[agents.teller]
description = "Tells."
prompt = "p"
expose = true
"#;
const TELLER: &str = "[[reply]]\nagent = \"teller\"\ntext = \"S3CR3T-canary-9f41\"\n";

/// A call that reaches the server behind or does not: arguments are JSON, `{root}` the world.
pub(super) fn reaches(tool: &'static str, arguments: &str) -> Act {
    let arguments = arguments.to_owned();
    Box::new(move |arena| {
        let gate = arena.gates.get("shared")?;
        let tag = arena.tag();
        let text = arguments.replace("{root}", &gate.world.root());
        let mut arguments: Value = serde_json::from_str(&text).map_err(|e| format!("{text}: {e}"))?;
        arguments["tag"] = tag.clone().into();
        show(&gate.call(arena, &format!("rec__{tool}"), &arguments, &[]));
        Ok(gate.reached(&tag))
    })
}

/// A case of two such calls of one tool.
pub(super) fn reaching(id: String, says: &str, tool: &'static str, attack: &str, twin: &str) -> Case {
    Case::new(id, says, reaches(tool, attack), reaches(tool, twin))
}

/// A case of two paths, read by the workspace server: what came back decides.
pub(super) fn reading(id: String, says: &str, attack: &str, twin: &str) -> Case {
    let read = |path: &str, word: &'static str| -> Act {
        let path = path.to_owned();
        Box::new(move |arena: &Arena| -> Happened {
            let gate = arena.gates.get("shared")?;
            let path = path.replace("{root}", &gate.world.root());
            let answer = gate.call(arena, "files__Read", &json!({ "file_path": path }), &[]);
            show(&answer);
            Ok(answer.body.contains(word) || word == SECRET && leaks(&answer.body))
        })
    };
    Case::new(id, says, read(attack, SECRET), read(twin, PUBLIC))
}

/// A case of two paths, written by the workspace server: the world decides. Each has a world of
/// its own.
pub(super) fn writing(id: String, says: &str, attack: &str, twin: &str) -> Case {
    let write = |path: &str, attack: bool| -> Act {
        let path = path.to_owned();
        Box::new(move |arena: &Arena| -> Happened {
            let gate = Gate::open_with(SHARED, tools(), links)?;
            let before = gate.world.state();
            let path = path.replace("{root}", &gate.world.root());
            let arguments = json!({ "file_path": path, "content": "written" });
            show(&gate.call(arena, "files__Write", &arguments, &[]));
            match attack {
                true => Ok(gate.world.state() != before),
                false => Ok(gate.world.folder.read("out/done").as_deref() == Some("written")),
            }
        })
    };
    Case::new(id, says, write(attack, true), write(twin, false))
}

/// A case of two bodies as they are, posted to a path: what reached the server behind decides.
/// `{tag}` is the word to look for.
pub(super) fn posting(id: &str, says: &str, path: &'static str, attack: &[u8], twin: &[u8]) -> Case {
    let post = |body: &[u8]| -> Act {
        let body = body.to_vec();
        Box::new(move |arena: &Arena| -> Happened {
            let gate = arena.gates.get("shared")?;
            let tag = arena.tag();
            let body = replace(&body, b"{tag}", tag.as_bytes());
            let headers =
                [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "rec__peek")];
            if let Some(answer) = gate.post_alone(arena, path, &headers, body) {
                show(&answer);
            }
            Ok(gate.reached(&tag))
        })
    };
    Case::new(id, says, post(attack), post(twin))
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(from) {
            out.extend_from_slice(to);
            at += from.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// The body of a call of `rec__peek` with this in its arguments, as text.
pub(super) fn body(arguments: &Value) -> String {
    modern_body("tools/call", json!({ "name": "rec__peek", "arguments": arguments })).to_string()
}

pub(super) fn show(answer: &Answer) {
    if std::env::var_os("PLEACH_POLICY_SHOW").is_some() {
        println!("{} {}", answer.status, answer.body);
    }
}
