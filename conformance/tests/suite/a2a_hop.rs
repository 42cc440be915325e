//! Authority across the hop: two gateways, a tree of three levels across both, and grants that
//! travel as tokens. Every widening is scored by the files that are there, each with its twin.

use crate::a2a::{message, state};
use crate::rest::{ALICE, post, until};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use conformance::upstream::{Act, Upstream};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

pub(crate) const V1: (&str, &str) = ("a2a-version", "1.0");
pub(crate) const AUTHORITY: &str = "urn:pleach:a2a:authority:v1";

/// `put` makes a file, `other` as well, `append` writes one more line.
pub(crate) const SERVER: &str = r#"
import json, sys, time
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    if m["method"] == "tools/call":
        p = m["params"]; a = p["arguments"]
        try:
            with open(a["path"], "a") as f: f.write("line\n")
            r = {"content": [{"type": "text", "text": "left it"}]}
        except OSError as e: r = {"content": [{"type": "text", "text": str(e)}], "isError": True}
    else:
        tool = lambda n: {"name": n, "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}}}
        r = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}},
             "tools/list": {"tools": [tool(n) for n in ["put", "other"]]}}.get(m["method"])
    out = {"result": r} if r else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;

/// The far gateway: whoever holds grants of `key` may start `worker`, which has `kid` do the work.
const FAR: &str = r#"
version = 1
GATEWAY
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.s]
command = "python3"
args = ["srv/server.py"]
runtime_paths = ["srv"]
default_access = "read-write"
tools = { put = { path_args = ["/path"] }, other = { path_args = ["/path"] } }
[policy]
max_access = "read-write"
filesystem = { read_write = ["out"] }
tools = { allow = ["s__*"] }
[clients.near]
grant_key = "KEY"
may_start = ["worker", "second"]
[agents.worker]
prompt = "p"
expose = true
subagents = ["kid"]
[agents.second]
prompt = "p"
subagents = ["kid"]
[agents.kid]
prompt = "p"
"#;
const FAR_REPLIES: &str = r#"
[[reply]]
agent = "worker"
when = "7-put$"
turn = 0
text = "I have it done, and that was dear."
usage = { input = 9900, output = 10 }
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "{{prompt}}", subagent_type = "kid" }
[[reply]]
agent = "worker"
text = "I have it done."
usage = { input = 400, output = 100 }
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "{{prompt}}", subagent_type = "kid" }
[[reply]]
agent = "worker"
text = "far: {{result}}"
[[reply]]
agent = "second"
text = "I have it done."
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "{{prompt}}", subagent_type = "kid" }
KID
[[reply]]
agent = "kid"
text = "kid: {{result}}"
turn = 1
"#;

/// A prompt says where: `ok 1-put` is out/ok/"ok 1-put". It must not look like a path, which the near
/// gateway would judge itself.
fn kid(out: &str, delay: &str) -> String {
    let mut replies = String::new();
    for (first, folder) in [("root", ""), ("ok", "/ok"), ("deep", "/ok/deep")] {
        for tool in ["put", "other"] {
            replies += &format!(
                "[[reply]]\nagent = \"kid\"\nwhen = \"^{first} .*-{tool}$\"\ntext = \"I do.\"\nturn = 0\n{delay}\n\
                 [[reply.tool]]\nname = \"s__{tool}\"\ninput = {{ path = \"{out}{folder}/{{{{prompt}}}}\" }}\n"
            );
        }
    }
    replies
}

/// The near gateway: `boss` may give all that is here, the others less.
pub(crate) const NEAR: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[peers.far]
card = "CARD"
delegate = true
default_access = "read-only"
tools = { worker = { effect = "idempotent" } }
[policy]
max_access = "read-write"
filesystem = { read_write = ["OUT/ok"] }
tools = { allow = ["*"], deny = ["s__other"] }
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["boss", "reader", "narrow", "silent", "shallow", "alone", "poor"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
policy = { max_access = "read-only" }
[agents.kid]
prompt = "here it only has a name"
[agents.boss]
prompt = "p"
subagents = ["kid"]
[agents.reader]
prompt = "p"
subagents = ["kid"]
subagent_policy = { max_access = "read-only" }
[agents.narrow]
prompt = "p"
subagents = ["kid"]
policy = { filesystem = { read_write = ["OUT/ok/deep"] } }
[agents.silent]
prompt = "p"
subagents = ["kid"]
policy = { tools = { allow = ["far__*"] } }
[agents.shallow]
prompt = "p"
subagents = ["kid"]
policy = { spawn = { max_depth = 1 } }
[agents.alone]
prompt = "p"
[agents.poor]
prompt = "p"
subagents = ["kid"]
policy = { budget = { tokens = 10000 } }
"#;
pub(crate) const NEAR_REPLIES: &str = r#"
[[reply]]
text = "I send it."
usage = { input = 10, output = 10 }
[[reply.tool]]
name = "far__worker"
input = { message = "{{prompt}}" }
[[reply]]
text = "near: {{result}}"
"#;

pub(crate) struct Pair {
    pub(crate) near_folder: Folder,
    pub(crate) far_folder: Folder,
    pub(crate) out: String,
}

/// Both folders; the far one believes the key of the near one.
pub(crate) fn pair(gateway: &str, delay: &str) -> Pair {
    let near_folder = Folder::new("version = 1\n");
    let key = near_folder.run(&["token", "key"]);
    assert!(key.code == 0 && key.out.starts_with("ed25519/"), "{key:?}");
    let far_folder = Folder::new(&FAR.replace("GATEWAY", gateway).replace("KEY", key.out.trim()));
    let kid = kid(&far_folder.join("out").display().to_string(), delay);
    far_folder.write("replies.toml", &FAR_REPLIES.replace("KID", &kid));
    far_folder.write("srv/server.py", SERVER);
    far_folder.write("out/ok/deep/.keep", "");
    let out = far_folder.join("out").display().to_string();
    Pair { near_folder, far_folder, out }
}
impl Pair {
    /// The near one, with the card of `worker` there.
    pub(crate) fn near(&self, base: &str) -> Served {
        self.near_at(&format!("{base}/a2a/worker/.well-known/agent-card.json"))
    }
    pub(crate) fn near_at(&self, card: &str) -> Served {
        self.near_folder.write("pleach.toml", &NEAR.replace("CARD", card).replace("OUT", &self.out));
        self.near_folder.write("replies.toml", NEAR_REPLIES);
        Served::start(&self.near_folder)
    }
    fn lines(&self, prompt: &str) -> usize {
        let folder = match prompt.split(' ').next() {
            Some("root") => "out",
            Some("ok") => "out/ok",
            _ => "out/ok/deep",
        };
        self.far_folder.read(&format!("{folder}/{prompt}")).unwrap_or_default().lines().count()
    }
    pub(crate) fn is_there(&self, prompt: &str) -> bool {
        self.lines(prompt) > 0
    }
}

pub(crate) fn said(served: &Served) -> String {
    served.log.lock().unwrap().clone()
}

pub(crate) async fn run(served: &Served, agent: &str, prompt: &str) -> Value {
    let answer = post(served, ALICE, "/v1/runs", json!({ "agent": agent, "prompt": prompt })).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let run = answer.json()["run"].as_str().unwrap().to_owned();
    until(served, ALICE, &run, "completed").await
}

#[tokio::test]
async fn a_child_on_another_machine_holds_no_more_than_its_parent_gives() {
    let pair = pair("", "");
    let far = Served::start(&pair.far_folder);
    let near = pair.near(&far.base);
    // Agent, file, whether it may be there at the end, and words of the reason.
    let cases = [
        ("boss", "ok 1-put", true, "left it"),
        ("boss", "root 1-put", false, "read_write does not cover"),
        ("boss", "ok 1-other", false, "covers s__other"),
        ("reader", "ok 2-put", false, "read-only"),
        ("narrow", "ok 3-put", false, "read_write does not cover"),
        ("narrow", "deep 3-put", true, "left it"),
        ("silent", "ok 4-put", false, "s__put"),
        ("shallow", "ok 5-put", false, "max_depth"),
        ("alone", "ok 6-put", false, "subagents does not list kid"),
        ("poor", "ok 7-put", false, "budget.tokens"),
        ("boss", "ok 7-put", true, "left it"),
    ];
    for (agent, file, there, words) in cases {
        let done = run(&near, agent, file).await;
        assert_eq!(pair.is_there(file), there, "{agent} {file}: {done}\n{}", said(&far));
        assert!(done.to_string().contains(words), "{agent} {file}: {words:?} is not in {done}");
    }
    // Who refused is named, across the hop.
    let done = run(&near, "boss", "ok 8-other").await;
    assert!(done.to_string().contains("grant of client near"), "{done}");
    // A client's own call gives what the client holds: alice's leaves a file, bob's does not.
    for (who, file, there) in [(ALICE, "ok 9-put", true), (crate::rest::BOB, "ok 10-put", false)] {
        let arguments = json!({ "message": file });
        let call = json!({ "name": "far__worker", "arguments": arguments });
        let answer = near.modern("/mcp", "tools/call", call, &[who]).await;
        assert_eq!(pair.is_there(file), there, "{who:?}: {answer:?}");
    }
    // And so does what is passed on as it is.
    drop(near);
    let near = {
        let policy =
            pair.near_folder.read("pleach.toml").unwrap().replace("delegate = true", "delegate = true\nexpose = true");
        pair.near_folder.write("pleach.toml", &policy);
        Served::start(&pair.near_folder)
    };
    for (who, file, there) in [(ALICE, "ok 11-put", true), (crate::rest::BOB, "ok 12-put", false)] {
        let sent = message(file, file);
        let task = crate::a2a::send(&near, who, "far", sent).await;
        assert_eq!(state(&task), "TASK_STATE_COMPLETED", "{task}");
        assert_eq!(pair.is_there(file), there, "{who:?}: {task}");
    }
}

pub(crate) async fn shown(served: &Served, token: &str, method: &str, params: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let who = if token.is_empty() { ("x-nobody", "1") } else { ("authorization", bearer.as_str()) };
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    served.post("/a2a/worker", &[who, V1], body.to_string()).await
}

/// What the near gateway sends along, caught on its way: the message and the token.
pub(crate) async fn caught(pair: &Pair, road: &Upstream, file: &str) -> (Value, String) {
    let near = pair.near_at(&format!("{}/card.json", road.base));
    let answer = post(&near, ALICE, "/v1/runs", json!({ "agent": "boss", "prompt": file })).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let mut seen = road.until_at("/a2a/worker", 1).await.remove(0);
    seen.body["params"]["configuration"]["returnImmediately"] = false.into();
    let token = seen.header("authorization").strip_prefix("Bearer ").unwrap().to_owned();
    assert_eq!(seen.header("a2a-extensions"), AUTHORITY);
    (seen.body["params"].clone(), token)
}

pub(crate) fn road() -> Upstream {
    Upstream::of(|base| {
        let base = base.to_owned();
        move |seen| match seen.path.as_str() {
            "/card.json" => Act::Status(
                200,
                json!({
                    "name": "worker", "version": "1", "description": "d",
                    "capabilities": { "streaming": false, "extensions": [{ "uri": AUTHORITY }] },
                    "supportedInterfaces": [{ "url": format!("{base}/a2a/worker"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0" }],
                    "skills": [{ "id": "worker", "name": "worker", "description": "d", "tags": [] }],
                }),
            ),
            _ => Act::Hang,
        }
    })
}

#[tokio::test]
async fn a_grant_is_good_for_its_message_in_its_place_and_never_for_more() {
    let road = road();
    let pair = pair(&format!("[gateway]\npublic_url = {:?}", road.base), "");
    let far = Served::start(&pair.far_folder);
    let (params, token) = caught(&pair, &road, "ok 1-put").await;
    // Stripped, torn, foreign, and good elsewhere only.
    let refused = |answer: &Answer, status: u16, words: &str| {
        assert!(answer.status == status && answer.body.contains(words), "{status} {words:?}: {answer:?}");
    };
    refused(&shown(&far, "", "SendMessage", &params).await, 401, "bearer token is needed");
    let mut torn = token.clone().into_bytes();
    torn[120] ^= 1;
    let torn = shown(&far, &String::from_utf8_lossy(&torn), "SendMessage", &params).await;
    assert_eq!(torn.status, 401, "{torn:?}");
    let stranger = Folder::new("version = 1\n");
    let minted = stranger.run(&["token", "mint", "--url", &road.base]).out;
    refused(&shown(&far, minted.trim(), "SendMessage", &params).await, 401, "no key that is known here signed it");
    let elsewhere = self::pair("[gateway]\npublic_url = \"http://elsewhere.test\"", "");
    let key = pair.near_folder.run(&["token", "key"]).out;
    let policy = FAR.replace("GATEWAY", "[gateway]\npublic_url = \"http://elsewhere.test\"").replace("KEY", key.trim());
    elsewhere.far_folder.write("pleach.toml", &policy);
    let other = Served::start(&elsewhere.far_folder);
    refused(&shown(&other, &token, "SendMessage", &params).await, 401, "and this is http://elsewhere.test");
    // With another message, for another operation, at another door.
    let mut changed = params.clone();
    changed["message"]["messageId"] = "another".into();
    refused(&shown(&far, &token, "SendMessage", &changed).await, 403, "goes with");
    refused(&shown(&far, &token, "ListTasks", &json!({})).await, 403, "goes with");
    let bearer = format!("Bearer {token}");
    let tools = far.modern("/mcp", "tools/list", json!({}), &[("authorization", &bearer)]).await;
    refused(&tools, 401, "good over A2A");
    let runs = far.get("/v1/runs", &[("authorization", &bearer)]).await;
    refused(&runs, 401, "good over A2A");
    assert!(!pair.is_there("ok 1-put"));
    // Whoever holds it can take away from it, and not put that back.
    let less = pair.far_folder.run(&["token", "attenuate", &token, "--max-access", "read-only"]);
    assert_eq!(less.code, 0, "{less:?}");
    let widened = ["token", "attenuate", less.out.trim(), "--max-access", "destructive"];
    let widened = pair.far_folder.run(&widened).out;
    let done = shown(&far, widened.trim(), "SendMessage", &params).await.json();
    assert_eq!(state(&done["result"]["task"]), "TASK_STATE_COMPLETED", "{done}");
    assert!(!pair.is_there("ok 1-put") && done.to_string().contains("read-only"), "{done}");
    // The twin: as it is, it has its one message done; shown again, it has nothing done.
    let (params, token) = caught_again(&pair, &road, "ok 2-put").await;
    let done = shown(&far, &token, "SendMessage", &params).await.json();
    assert_eq!(state(&done["result"]["task"]), "TASK_STATE_COMPLETED", "{done}");
    assert_eq!(pair.lines("ok 2-put"), 1);
    // Under a key of its own, or another one, it is still that message; at another agent it is none.
    let bearer = format!("Bearer {token}");
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": params }).to_string();
    for key in ["1", "2"] {
        let headers = [("authorization", bearer.as_str()), V1, ("idempotency-key", key)];
        let again = far.post("/a2a/worker", &headers, body.clone()).await.json();
        assert_eq!(again["result"]["task"]["id"], done["result"]["task"]["id"], "{again}");
    }
    let other = far.post("/a2a/second", &[("authorization", &bearer), V1], body).await;
    refused(&other, 403, "the grant is good at");
    let mut told = params.clone();
    told["configuration"]["taskPushNotificationConfig"] = json!({ "url": "https://hook.test/" });
    refused(&shown(&far, &token, "SendMessage", &told).await, 403, "taskPushNotificationConfig");
    assert_eq!(pair.lines("ok 2-put"), 1);
    let again = shown(&far, &token, "SendMessage", &params).await.json();
    assert_eq!(again["result"]["task"]["id"], done["result"]["task"]["id"], "{again}");
    let mut wider = params.clone();
    wider["message"]["parts"] = json!([{ "text": "ok 3-put" }]);
    let wider = shown(&far, &token, "SendMessage", &wider).await;
    refused(&wider, 403, "goes with");
    assert_eq!((pair.lines("ok 2-put"), pair.is_there("ok 3-put")), (1, false), "{wider:?}");
    // A key that is taken away ends what was granted with it.
    let policy = pair.far_folder.read("pleach.toml").unwrap();
    pair.far_folder.write("pleach.toml", &policy.replace(key.trim(), stranger.run(&["token", "key"]).out.trim()));
    let gone = tokio::time::timeout(Duration::from_secs(20), async {
        while shown(&far, &token, "SendMessage", &params).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    gone.await.expect("the key is still believed");
}

/// Another one, by another run.
pub(crate) async fn caught_again(pair: &Pair, road: &Upstream, file: &str) -> (Value, String) {
    let before = road.came_to("/a2a/worker").len();
    let near = Served::start(&pair.near_folder);
    let answer = post(&near, ALICE, "/v1/runs", json!({ "agent": "boss", "prompt": file })).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let mut count = before;
    loop {
        count += 1;
        let mut seen = road.until_at("/a2a/worker", count).await.remove(count - 1);
        seen.body["params"]["configuration"]["returnImmediately"] = false.into();
        if seen.body["params"]["message"]["parts"][0]["text"] == file {
            let token = seen.header("authorization").strip_prefix("Bearer ").unwrap().to_owned();
            return (seen.body["params"].clone(), token);
        }
    }
}

fn kill(served: &mut Served) {
    Command::new("kill").args(["-9", &served.pid().to_string()]).status().unwrap();
    served.ended_within(Duration::from_secs(10)).expect("it lives on");
}

/// Either side is killed at some time of the work; what was begun is finished, and done once.
#[tokio::test]
async fn whichever_side_is_killed_the_work_is_done_once() {
    let pair = pair("", "delay = \"600ms\"");
    let mut far = Served::start(&pair.far_folder);
    let port = far.base.rsplit(':').next().unwrap().to_owned();
    let again =
        |folder: &Folder, port: &str| Served::of(folder.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]));
    let mut near = pair.near(&far.base);
    let near_port = near.base.rsplit(':').next().unwrap().to_owned();
    for (n, (side, after)) in
        [("near", 100), ("far", 100), ("near", 500), ("far", 500), ("both", 300), ("far", 800)].into_iter().enumerate()
    {
        let file = format!("ok k{n}-put");
        let answer = post(&near, ALICE, "/v1/runs", json!({ "agent": "boss", "prompt": file })).await;
        let id = answer.json()["run"].as_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(after)).await;
        if side != "far" {
            kill(&mut near);
        }
        if side != "near" {
            kill(&mut far);
            far = again(&pair.far_folder, &port);
        }
        if side != "far" {
            near = again(&pair.near_folder, &near_port);
        }
        let done = until(&near, ALICE, &id, "completed").await;
        assert_eq!(pair.lines(&file), 1, "{side} after {after} ms: {done}\n{}\n{}", said(&near), said(&far));
    }
}

/// What was given along may be too much when the policy changes: then what is done with it is taken
/// back, and a change that takes nothing of it away takes nothing back.
#[tokio::test]
async fn what_may_not_be_given_any_more_is_taken_back() {
    let pair = pair("", "delay = \"3s\"");
    let far = Served::start(&pair.far_folder);
    let near = pair.near(&far.base);
    for (change, there) in [
        (("max_access = \"read-write\"", "max_access = \"read-only\""), false),
        (("prompt = \"p\"", "prompt = \"q\""), true),
    ] {
        let policy = pair.near_folder.read("pleach.toml").unwrap();
        let file = format!("ok t{there}-put");
        let answer = post(&near, ALICE, "/v1/runs", json!({ "agent": "boss", "prompt": file })).await;
        let id = answer.json()["run"].as_str().unwrap().to_owned();
        // It is under way over there.
        let begun = tokio::time::timeout(Duration::from_secs(20), async {
            while !pair.far_folder.run(&["runs", "--json"]).out.contains("\"kid\"") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        begun.await.expect("it did not begin");
        pair.near_folder.write("pleach.toml", &policy.replacen(change.0, change.1, 1));
        let done = until(&near, ALICE, &id, "completed").await;
        if !there {
            assert!(done.to_string().contains("more than may be given now: max_access"), "{done}");
        }
        // Whatever is still done over there ends first.
        let ended = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let runs = pair.far_folder.run(&["runs", "--json"]).out;
                if runs.lines().all(|run| !run.contains("\"ended\":null")) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        ended.await.expect("it goes on over there");
        assert_eq!(pair.is_there(&file), there, "{done}");
        // In force again before the twin begins.
        pair.near_folder.write("pleach.toml", &policy);
        let again = tokio::time::timeout(Duration::from_secs(20), async {
            while !near
                .get("/metrics", &[ALICE])
                .await
                .body
                .contains(&format!("pleach_policy_changes_total {}", if there { 4 } else { 2 }))
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        again.await.expect("the policy is not back");
    }
}

/// Pleach as its own peer: the same verdicts as over any hop, and a circle that ends.
#[tokio::test]
async fn its_own_peer_gives_nobody_more() {
    let folder = Folder::new("version = 1\n");
    let key = folder.run(&["token", "key"]).out;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policy = FAR
        .replace("GATEWAY", &format!("[peers.me]\ncard = \"http://127.0.0.1:{port}/a2a/worker/.well-known/agent-card.json\"\ndelegate = true\ndefault_access = \"read-only\""))
        .replace("KEY", key.trim())
        .replace("tools = { allow = [\"s__*\"] }", "tools = { allow = [\"s__*\", \"me__*\"] }");
    let more = "[clients.alice]\ntoken = \"alice-alice-alice-alice\"\nmay_start = [\"boss\", \"reader\"]\n\
        [agents.boss]\nprompt = \"p\"\nsubagents = [\"kid\"]\n[agents.reader]\nprompt = \"p\"\nsubagents = [\"kid\"]\n\
        subagent_policy = { max_access = \"read-only\" }\n";
    folder.write("pleach.toml", &(policy + more));
    let circle = "[[reply]]\nagent = \"worker\"\nwhen = \"^circle\"\ntext = \"I ask myself.\"\nturn = 0\n[[reply.tool]]\nname = \"me__worker\"\n\
        input = { message = \"{{prompt}}\" }\n";
    let front = |agent: &str| {
        format!(
            "[[reply]]\nagent = \"{agent}\"\ntext = \"I send it.\"\n[[reply.tool]]\nname = \"me__worker\"\ninput = {{ message = \"{{{{prompt}}}}\" }}\n\
                 [[reply]]\nagent = \"{agent}\"\ntext = \"near: {{{{result}}}}\"\n"
        )
    };
    let kid = kid(&folder.join("out").display().to_string(), "");
    folder.write(
        "replies.toml",
        &format!("{circle}{}{}{}", front("boss"), front("reader"), FAR_REPLIES.replace("KID", &kid)),
    );
    folder.write("srv/server.py", SERVER);
    folder.write("out/ok/.keep", "");
    let served = Served::of(folder.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]));
    for (agent, file, there) in [("boss", "ok 1-put", true), ("reader", "ok 2-put", false)] {
        let done = run(&served, agent, file).await;
        assert_eq!(folder.join("out/ok").join(file).exists(), there, "{agent}: {done}\n{}", said(&served));
    }
    let done = run(&served, "boss", "circle").await;
    assert!(done.to_string().contains("max_depth is reached"), "{done}");
    let runs = folder.run(&["runs", "--json"]).out;
    let workers = runs.lines().filter(|run| run.contains("\"agent\":\"worker\"")).count();
    // One for each file, and three levels below the boss of the circle.
    assert_eq!(workers, 2 + 3, "{runs}");
}

/// What `pleach token mint` prints is good at /mcp, for a part of what its client holds.
#[tokio::test]
async fn a_minted_token_is_a_part_of_its_client() {
    let policy = "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\nmax_access = \"read-write\"\n\
        filesystem = { read_write = [\"out\"] }\ntools.allow = [\"files__*\"]\n\
        [models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n\
        [agents.a]\nprompt = \"p\"\nexpose = true\n\
        [clients.alice]\ntoken = \"alice-alice-alice-alice\"\ncan_approve = true\n";
    let folder = Folder::new(policy);
    folder.write("out/a.md", "a");
    let served = Served::start(&folder);
    let mint = |more: &[&str]| {
        let minted = folder.run(&[&["token", "mint", "--client", "alice", "--url", &served.base], more].concat());
        assert_eq!(minted.code, 0, "{minted:?}");
        format!("Bearer {}", minted.out.trim())
    };
    let write = async |token: &str, path: &str| {
        let arguments = json!({ "file_path": folder.join(path), "content": "x" });
        let call = json!({ "name": "files__Write", "arguments": arguments });
        served.modern("/mcp", "tools/call", call, &[("authorization", token)]).await
    };
    let (full, reader) = (mint(&[]), mint(&["--max-access", "read-only", "--allow", "files__*"]));
    let answer = write(&full, "out/full.md").await;
    assert!(folder.join("out/full.md").exists(), "{answer:?}");
    let answer = write(&reader, "out/reader.md").await;
    assert!(!folder.join("out/reader.md").exists(), "{answer:?}");
    // It is shown what it may use, and none of what is said for all of its client.
    let listed = served.modern("/mcp", "tools/list", json!({}), &[("authorization", &reader)]).await.json();
    let names: Vec<&str> =
        listed["result"]["tools"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(
        names.contains(&"files__Read") && !names.iter().any(|n| n.starts_with("pleach__") || *n == "files__Write"),
        "{names:?}"
    );
    let own = served.modern("/mcp", "tools/list", json!({}), &[ALICE]).await.body;
    assert!(own.contains("pleach__runs"), "{own}");
    for path in ["/v1/runs", "/v1/approvals"] {
        assert_eq!(served.get(path, &[("authorization", &full)]).await.status, 401, "{path}");
    }
    // It ends with its client.
    folder.write("pleach.toml", &policy.replace("clients.alice", "clients.carol"));
    let gone = tokio::time::timeout(Duration::from_secs(20), async {
        while served.modern("/mcp", "tools/list", json!({}), &[("authorization", &full)]).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    gone.await.expect("it is still believed");
}
