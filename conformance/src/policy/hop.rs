//! Grants that travel, attacked: parts of a client (`pleach token mint`), and what one gateway gives
//! another along with a message. Each is tried stripped, torn, widened, replayed, too late, in another
//! place and by another hand. What arrived behind, or was written over there, decides.

use super::arena::Arena;
use super::gate::{ALICE, BOB, Gate, show, tools};
use super::{Act, Case, Happened};
use crate::pleach::{Folder, Ran};
use crate::served::{Answer, Served};
use crate::upstream::{Act as Does, Upstream};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    [parts(), messages()].into_iter().flatten().collect()
}

const PARTS: &str = r#"
version = 1
[servers.rec]
url = "{url}"
default_access = "read-only"
[servers.rec.tools]
put = { access = "read-write" }
[policy]
max_access = "read-write"
tools = { allow = ["rec__*"] }
[clients.alice]
token = "alice-alice-alice-alice"
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
policy = { max_access = "read-only" }
"#;

/// A gate, and parts of its clients.
struct Parts<'a> {
    gate: Gate,
    arena: &'a Arena,
}

fn out(ran: Ran) -> Result<String, String> {
    if ran.code == 0 { Ok(ran.out.trim().to_owned()) } else { Err(format!("no token: {ran:?}")) }
}

impl Parts<'_> {
    fn mint(&self, more: &[&str]) -> Result<String, String> {
        let base = self.gate.served.base.clone();
        let first = ["token", "mint", "--client", "alice", "--url", &base];
        out(self.gate.world.folder.run(&[&first[..], more].concat()))
    }
    fn less(&self, token: &str, more: &[&str]) -> Result<String, String> {
        out(self.gate.world.folder.run(&[&["token", "attenuate", token], more].concat()))
    }
    /// Whether a call with it reached the server behind.
    fn reaches(&self, token: &str, tool: &str) -> bool {
        let (tag, bearer) = (self.arena.tag(), format!("Bearer {token}"));
        let headers = [("authorization", bearer.as_str())];
        show(&self.gate.call(self.arena, tool, &json!({ "tag": tag }), if token.is_empty() { &[] } else { &headers }));
        self.gate.reached(&tag)
    }
}

/// One part of a client: the attack and the twin differ in what was done to it.
fn part(id: &str, says: &str, does: fn(&Parts<'_>, bool) -> Happened) -> Case {
    let act = |attack: bool| -> Act {
        Box::new(move |arena| does(&Parts { gate: Gate::open(PARTS, tools())?, arena }, attack))
    };
    Case::new(id, says, act(true), act(false))
}

fn parts() -> Vec<Case> {
    vec![
        part("I14.01", "a part of a client that was stripped off", |parts, attack| {
            let token = parts.mint(&[])?;
            Ok(parts.reaches(if attack { "" } else { &token }, "rec__put"))
        }),
        part("I14.02", "a token cut in two", |parts, attack| {
            let token = parts.mint(&[])?;
            Ok(parts.reaches(if attack { &token[..token.len() / 2] } else { &token }, "rec__put"))
        }),
        part("I14.03", "a token with one character changed", |parts, attack| {
            let mut token = parts.mint(&[])?.into_bytes();
            if attack {
                token[100] = if token[100] == b'A' { b'B' } else { b'A' };
            }
            Ok(parts.reaches(&String::from_utf8_lossy(&token), "rec__put"))
        }),
        part("I14.04", "a part that may read, made to write again", |parts, attack| {
            let part = parts.mint(if attack { &["--max-access", "read-only"] } else { &[] })?;
            Ok(parts.reaches(&parts.less(&part, &["--max-access", "destructive"])?, "rec__put"))
        }),
        part("I14.05", "a part of one tool, given the others again", |parts, attack| {
            let part = parts.mint(&["--allow", if attack { "rec__peek" } else { "rec__*" }])?;
            Ok(parts.reaches(&parts.less(&part, &["--allow", "*"])?, "rec__list"))
        }),
        part("I14.06", "a grant added to it that grants everything", |parts, attack| {
            let part = parts.mint(&["--allow", if attack { "rec__peek" } else { "rec__list" }])?;
            let all = r#"{"tools":[{"allow":["*"]}],"max_access":"destructive"}"#;
            Ok(parts.reaches(&parts.less(&part, &["--grant", all])?, "rec__list"))
        }),
        part("I14.07", "a part whose time is over", |parts, attack| {
            let token = parts.mint(&["--ttl", if attack { "1s" } else { "1h" }])?;
            std::thread::sleep(Duration::from_millis(if attack { 2_100 } else { 0 }));
            Ok(parts.reaches(&token, "rec__peek"))
        }),
        part("I14.08", "a part whose time is over, given an hour more", |parts, attack| {
            let token = parts.mint(&["--ttl", if attack { "1s" } else { "1h" }])?;
            let longer = parts.less(&token, &["--ttl", "1h"])?;
            std::thread::sleep(Duration::from_millis(if attack { 2_100 } else { 0 }));
            Ok(parts.reaches(&longer, "rec__peek"))
        }),
        part("I14.09", "a part that another gateway gave, of a client of the same name", |parts, attack| {
            let other = Folder::new(&PARTS.replace("{url}", &parts.gate.upstream.url()));
            let base = parts.gate.served.base.clone();
            let by = if attack { &other } else { &parts.gate.world.folder };
            let token = out(by.run(&["token", "mint", "--client", "alice", "--url", &base]))?;
            Ok(parts.reaches(&token, "rec__peek"))
        }),
        part("I14.10", "a part that is good at another address", |parts, attack| {
            let base = if attack { "http://elsewhere.test".to_owned() } else { parts.gate.served.base.clone() };
            let folder = &parts.gate.world.folder;
            let token = out(folder.run(&["token", "mint", "--client", "alice", "--url", &base]))?;
            Ok(parts.reaches(&token, "rec__peek"))
        }),
        part("I14.11", "a part of a client that is taken out of the file", |parts, attack| {
            let token = parts.mint(&[])?;
            let policy = PARTS.replace("{url}", &parts.gate.upstream.url());
            let gone = if attack { "clients.alice" } else { "clients.bob" };
            parts.gate.world.folder.write("pleach.toml", &policy.replace(gone, "clients.carol"));
            let who = [("authorization", if attack { BOB } else { ALICE })];
            let taken = || {
                let page = parts.gate.get(parts.arena, "/metrics", &who).body;
                page.lines().any(|l| l.strip_prefix("pleach_policy_changes_total").is_some_and(|n| n.trim() != "0"))
            };
            if !super::arena::soon(Duration::from_secs(20), taken) {
                return Err("the policy was not taken".into());
            }
            Ok(parts.reaches(&token, "rec__peek"))
        }),
        part("I14.12", "a part of a client that may only read, which writes", |parts, attack| {
            let base = parts.gate.served.base.clone();
            let whose = if attack { "bob" } else { "alice" };
            let token = out(parts.gate.world.folder.run(&["token", "mint", "--client", whose, "--url", &base]))?;
            Ok(parts.reaches(&token, "rec__put"))
        }),
    ]
}

/// The far gateway: whoever holds grants of `key` may start `worker`, which writes a line where it is told.
const FAR: &str = r#"
version = 1
[gateway]
public_url = "{road}"
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "destructive"
filesystem = { read_write = ["out"] }
tools = { allow = ["files__*"] }
[clients.near]
grant_key = "{key}"
may_start = ["worker", "second"]
[agents.worker]
prompt = "p"
expose = true
[agents.second]
prompt = "p"
expose = true
"#;
const WORK: &str = r#"
[[reply]]
text = "I do."
turn = 0
[[reply.tool]]
name = "files__Bash"
input = { command = "echo line >> out/{{prompt}}" }
[[reply]]
text = "far: {{result}}"
"#;
const NEAR: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[peers.far]
card = "{card}"
delegate = true
default_access = "read-only"
[policy]
max_access = "destructive"
filesystem = { read_write = ["{out}"] }
tools = { allow = ["*"] }
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["boss", "reader"]
[agents.boss]
prompt = "p"
[agents.reader]
prompt = "p"
policy = { max_access = "read-only" }
"#;
const SEND: &str = r#"
[[reply]]
text = "I send it."
[[reply.tool]]
name = "far__worker"
input = { message = "{{prompt}}" }
[[reply]]
text = "near: {{result}}"
"#;
const V1: (&str, &str) = ("a2a-version", "1.0");
const AUTHORITY: &str = "urn:pleach:a2a:authority:v1";

/// Two gateways, and a message that was caught between them with the grant that went along.
struct Hop<'a> {
    arena: &'a Arena,
    far: Served,
    far_folder: Folder,
    near_folder: Folder,
    road: Upstream,
    params: Value,
    token: String,
    file: String,
}

impl<'a> Hop<'a> {
    fn of(arena: &'a Arena, agent: &str) -> Result<Self, String> {
        let file = arena.tag();
        let road = road();
        let near_folder = Folder::new("version = 1\n");
        let key = out(near_folder.run(&["token", "key"]))?;
        let far_folder = Folder::new(&FAR.replace("{road}", &road.base).replace("{key}", &key));
        far_folder.write("replies.toml", WORK);
        far_folder.write("out/.keep", "");
        let place = far_folder.join("out").display().to_string();
        let near = NEAR.replace("{card}", &format!("{}/card.json", road.base)).replace("{out}", &place);
        near_folder.write("pleach.toml", &near);
        near_folder.write("replies.toml", SEND);
        let (far, near) = (Served::start(&far_folder), Served::start(&near_folder));
        let body = json!({ "agent": agent, "prompt": file }).to_string();
        let mut seen = arena.runtime.block_on(async {
            let begun = near.post("/v1/runs", &[("authorization", ALICE)], body).await;
            if begun.status != 202 {
                return Err(format!("no run: {begun:?}"));
            }
            Ok(road.until_at("/a2a/worker", 1).await.remove(0))
        })?;
        seen.body["params"]["configuration"]["returnImmediately"] = false.into();
        let token = seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let params = seen.body["params"].clone();
        Ok(Self { arena, far, far_folder, near_folder, road, params, token, file })
    }
    fn tell_at(&self, far: &Served, path: &str, token: &str, params: &Value, more: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![V1];
        if !token.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        headers.extend(more);
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": params }).to_string();
        let answer = self.arena.runtime.block_on(far.post(path, &headers, body));
        show(&answer);
        answer
    }
    fn tell(&self, token: &str, params: &Value) -> Answer {
        self.tell_at(&self.far, "/a2a/worker", token, params, &[])
    }
    fn less(&self, more: &[&str]) -> Result<String, String> {
        out(self.far_folder.run(&[&["token", "attenuate", &self.token], more].concat()))
    }
    fn lines(&self, file: &str) -> usize {
        self.far_folder.read(&format!("out/{file}")).unwrap_or_default().lines().count()
    }
    fn done(&self) -> bool {
        self.lines(&self.file) > 0
    }
}

/// Where the card says that the far gateway lives; whoever is sent there is not answered.
fn road() -> Upstream {
    Upstream::of(|base| {
        let base = base.to_owned();
        move |seen| match seen.path.as_str() {
            "/card.json" => Does::Status(
                200,
                json!({
                    "name": "worker", "version": "1", "description": "d",
                    "capabilities": { "streaming": false, "extensions": [{ "uri": AUTHORITY }] },
                    "supportedInterfaces": [{ "url": format!("{base}/a2a/worker"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0" }],
                    "skills": [{ "id": "worker", "name": "worker", "description": "d", "tags": [] }],
                }),
            ),
            _ => Does::Hang,
        }
    })
}

fn hop(id: &str, says: &str, does: fn(&Hop<'_>, bool) -> Happened) -> Case {
    let act = |attack: bool| -> Act { Box::new(move |arena| does(&Hop::of(arena, "boss")?, attack)) };
    Case::new(id, says, act(true), act(false))
}

fn messages() -> Vec<Case> {
    let child = |agent: &'static str| -> Act {
        Box::new(move |arena| {
            let hop = Hop::of(arena, agent)?;
            hop.tell(&hop.token, &hop.params);
            Ok(hop.done())
        })
    };
    [
        placed(),
        timed(),
        vec![Case::new(
            "I14.40",
            "a child over the hop that writes, of a parent that may only read",
            child("reader"),
            child("boss"),
        )],
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// With another message, in another place, by another hand.
fn placed() -> Vec<Case> {
    vec![
        hop("I14.20", "a message whose grant was stripped", |hop, attack| {
            hop.tell(if attack { "" } else { &hop.token }, &hop.params);
            Ok(hop.done())
        }),
        hop("I14.21", "a grant shown with other words", |hop, attack| {
            let (mut params, file) = (hop.params.clone(), if attack { "evil" } else { &hop.file });
            params["message"]["parts"][0]["text"] = file.into();
            hop.tell(&hop.token, &params);
            Ok(hop.lines(file) > 0)
        }),
        hop("I14.22", "a grant shown with the same words under another name", |hop, attack| {
            let mut params = hop.params.clone();
            if attack {
                params["message"]["messageId"] = "another".into();
            }
            hop.tell(&hop.token, &params);
            Ok(hop.done())
        }),
        hop("I14.23", "a grant that has its answers told elsewhere", |hop, attack| {
            let mut params = hop.params.clone();
            if attack {
                params["configuration"]["taskPushNotificationConfig"] = json!({ "url": "https://hook.test/" });
            }
            hop.tell(&hop.token, &params);
            Ok(hop.done())
        }),
        hop("I14.24", "a grant shown at another agent", |hop, attack| {
            hop.tell_at(&hop.far, if attack { "/a2a/second" } else { "/a2a/worker" }, &hop.token, &hop.params, &[]);
            Ok(hop.done())
        }),
        hop("I14.25", "a grant shown at a gateway elsewhere", |hop, attack| {
            if attack {
                let policy = hop.far_folder.read("pleach.toml").unwrap_or_default();
                let policy = policy.replace(&hop.road.base, "http://elsewhere.test");
                hop.far_folder.write("pleach.toml", &policy);
            }
            let far = Served::start(&hop.far_folder);
            hop.tell_at(&far, "/a2a/worker", &hop.token, &hop.params, &[]);
            Ok(hop.done())
        }),
        hop("I14.26", "a grant of a message used for a tool", |hop, attack| {
            let bearer = format!("Bearer {}", hop.token);
            let command = format!("echo line >> out/{}", hop.file);
            let params = json!({ "name": "files__Bash", "arguments": { "command": command } });
            let headers = [("authorization", bearer.as_str())];
            match attack {
                true => show(&hop.arena.runtime.block_on(hop.far.modern("/mcp", "tools/call", params, &headers))),
                false => show(&hop.tell(&hop.token, &hop.params)),
            }
            Ok(hop.done())
        }),
        hop("I14.27", "a grant that another gateway signed", |hop, attack| {
            let stranger = Folder::new("version = 1\n");
            let minted = out(stranger.run(&["token", "mint", "--url", &format!("{}/a2a/worker", hop.road.base)]))?;
            hop.tell(if attack { &minted } else { &hop.token }, &hop.params);
            Ok(hop.done())
        }),
        hop("I14.28", "a grant of a gateway that is not believed any more", |hop, attack| {
            let key = out(if attack { &hop.near_folder } else { &hop.far_folder }.run(&["token", "key"]))?;
            let other = out(Folder::new("version = 1\n").run(&["token", "key"]))?;
            let policy = hop.far_folder.read("pleach.toml").unwrap_or_default();
            hop.far_folder.write("pleach.toml", &policy.replace(&key, &other));
            let far = Served::start(&hop.far_folder);
            hop.tell_at(&far, "/a2a/worker", &hop.token, &hop.params, &[]);
            Ok(hop.done())
        }),
    ]
}

/// Too often, too late, too wide.
fn timed() -> Vec<Case> {
    vec![
        hop("I14.30", "a grant shown again when its message was done", |hop, attack| {
            hop.tell(&hop.token, &hop.params);
            if attack {
                hop.tell(&hop.token, &hop.params);
            }
            Ok(if attack { hop.lines(&hop.file) > 1 } else { hop.lines(&hop.file) == 1 })
        }),
        hop("I14.31", "the same under keys of its own", |hop, attack| {
            for key in if attack { &["1", "2", "3"][..] } else { &["1"] } {
                let keyed = [("idempotency-key", *key)];
                hop.tell_at(&hop.far, "/a2a/worker", &hop.token, &hop.params, &keyed);
            }
            Ok(if attack { hop.lines(&hop.file) > 1 } else { hop.lines(&hop.file) == 1 })
        }),
        hop("I14.32", "the same when the gateway was started again", |hop, attack| {
            hop.tell(&hop.token, &hop.params);
            if attack {
                let far = Served::start(&hop.far_folder);
                hop.tell_at(&far, "/a2a/worker", &hop.token, &hop.params, &[]);
            }
            Ok(if attack { hop.lines(&hop.file) > 1 } else { hop.lines(&hop.file) == 1 })
        }),
        hop("I14.33", "a grant whose time is over", |hop, attack| {
            let less = hop.less(&["--ttl", if attack { "1s" } else { "1m" }])?;
            std::thread::sleep(Duration::from_millis(if attack { 2_100 } else { 0 }));
            hop.tell(&less, &hop.params);
            Ok(hop.done())
        }),
        hop("I14.34", "a grant that was narrowed, made wide again", |hop, attack| {
            let less = hop.less(if attack { &["--max-access", "read-only"] } else { &[] })?;
            let wide = out(hop.far_folder.run(&["token", "attenuate", &less, "--max-access", "destructive"]))?;
            hop.tell(&wide, &hop.params);
            Ok(hop.done())
        }),
        hop("I14.35", "a grant of other tools than the work takes", |hop, attack| {
            let less = hop.less(&["--allow", if attack { "files__Read" } else { "files__*" }])?;
            hop.tell(&less, &hop.params);
            Ok(hop.done())
        }),
    ]
}
