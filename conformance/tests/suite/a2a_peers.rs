//! A2A peers as tools: other processes that live behind `[peers]`, in both generations and over
//! both bindings; under the same grants as every server's tools.

use crate::kits;
use crate::rest::{ALICE, BOB};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served, text};
use conformance::upstream::{Act, Upstream};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const TOKEN: &str = "Bearer alice-alice-alice-alice";

/// A pleach whose agents anybody sees, and its clients may start.
pub(crate) fn far_folder() -> Folder {
    let folder = crate::rest::folder();
    let policy = folder.read("pleach.toml").unwrap();
    folder.write("pleach.toml", &policy.replace("prompt = \"p\"", "prompt = \"p\"\nexpose = true"));
    folder
}
/// A pleach with peers: each an address of a card and more of its table.
pub(crate) fn near(peers: &[(&str, &str, &str)], more: &str) -> (Folder, Served) {
    let mut policy = "version = 1\n".to_owned();
    for (name, card, table) in peers {
        policy += &format!("[peers.{name}]\ncard = {card:?}\ndefault_access = \"read-only\"\n{table}\n");
    }
    let folder = Folder::new(&format!("{policy}\n[policy]\ntools.allow = [\"*\"]\n{more}"));
    let served = Served::start(&folder);
    (folder, served)
}
pub(crate) async fn call(served: &Served, tool: &str, arguments: Value) -> Answer {
    served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": arguments }), &[]).await
}
/// The same by a client that can be asked.
pub(crate) async fn asking(served: &Served, tool: &str, arguments: Value, more: Value) -> Value {
    let can = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
    let mut params = json!({ "name": tool, "arguments": arguments, "_meta": can });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        params[key] = value;
    }
    served.modern("/mcp", "tools/call", params, &[]).await.json()["result"].clone()
}
pub(crate) fn headers() -> String {
    format!("headers = {{ Authorization = {TOKEN:?} }}")
}
fn card_of(served: &Served, agent: &str) -> String {
    format!("{}/a2a/{agent}/.well-known/agent-card.json", served.base)
}

/// Another pleach, behind a card that names one of its interfaces; `url` says that it lives there.
pub(crate) fn narrowed(far: &Served, agent: &str, interface: Value) -> Upstream {
    let mut interface = interface;
    let url = format!("{}/a2a/{agent}{}", far.base, interface["path"].as_str().unwrap());
    interface["url"] = url.into();
    let skills = json!([{ "id": agent, "name": agent, "description": "Far away.", "tags": [] }]);
    let card = json!({ "name": agent, "version": "1", "capabilities": { "streaming": interface["streaming"] },
        "supportedInterfaces": [interface], "skills": skills });
    Upstream::start(move |_| Act::Status(200, card.clone()))
}

#[tokio::test]
async fn another_pleach_over_each_of_its_interfaces() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    for (path, binding, version) in [("", "JSONRPC", "1.0"), ("/rest", "HTTP+JSON", "1.0"), ("", "JSONRPC", "0.3")] {
        for streaming in [true, false] {
            let interface = |path| json!({ "path": path, "protocolBinding": binding, "protocolVersion": version, "streaming": streaming });
            let (quick, asker) = (narrowed(&far, "quick", interface(path)), narrowed(&far, "asker", interface(path)));
            let table = format!("url = {:?}\n{}", far.base, headers());
            let (_folder, served) = near(&[("q", &quick.base, &table), ("a", &asker.base, &table)], "");
            let which = format!("{binding} {version} {streaming}");
            let answer = call(&served, "q__quick", json!({ "message": "hello" })).await;
            assert_eq!(text(&answer), "quick: hello", "{which}: {answer:?}");
            let structured = answer.json()["result"]["structuredContent"].clone();
            assert_eq!(structured["state"], "completed", "{which}");
            // A client that can be asked is asked, and its answer is the peer's.
            let asked = asking(&served, "a__asker", json!({ "message": "go" }), json!({})).await;
            let question = &asked["inputRequests"]["question"];
            assert_eq!(
                (&asked["resultType"], &question["method"]),
                (&json!("input_required"), &json!("elicitation/create")),
                "{which}"
            );
            assert!(question["params"]["message"].as_str().unwrap().contains("Which?"), "{which}: {asked}");
            let answers = json!({ "question": { "action": "accept", "content": { "answer": "red" } } });
            let more = json!({ "requestState": asked["requestState"], "inputResponses": answers });
            let done = asking(&served, "a__asker", json!({ "message": "go" }), more).await;
            assert!(done["content"][0]["text"].as_str().unwrap().contains("red"), "{which}: {done}");
            // One that cannot is told how it goes on.
            let paused = call(&served, "a__asker", json!({ "message": "go" })).await.json()["result"].clone();
            let task = paused["structuredContent"]["task"].as_str().unwrap().to_owned();
            assert_eq!(paused["structuredContent"]["state"], "input-required", "{which}: {paused}");
            let done = call(&served, "a__asker", json!({ "message": "blue", "task": task })).await;
            assert!(text(&done).contains("blue"), "{which}: {done:?}");
        }
    }
}

/// Neither a decline nor silence leaves a task behind over there.
#[tokio::test]
async fn a_question_nobody_answers_ends_its_task() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    let (_folder, served) = near(&[("a", &card_of(&far, "asker"), &headers())], "");
    let asked = asking(&served, "a__asker", json!({ "message": "go" }), json!({})).await;
    let answers = json!({ "question": { "action": "decline" } });
    let more = json!({ "requestState": asked["requestState"], "inputResponses": answers });
    let done = asking(&served, "a__asker", json!({ "message": "go" }), more).await;
    assert_eq!(done["isError"], true, "{done}");
    let listed = crate::a2a::result(&far, ALICE, "asker", "ListTasks", json!({})).await;
    assert_eq!(listed["tasks"][0]["status"]["state"], "TASK_STATE_CANCELED", "{listed}");
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_task_along() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    let (_folder, served) = near(&[("s", &card_of(&far, "slow"), &headers())], "");
    let params = json!({ "name": "s__slow", "arguments": { "message": "go" } });
    let leaving = served.begin("/mcp", "tools/call", params, &[]);
    let state = async |wanted: &str| loop {
        let listed = crate::a2a::result(&far, ALICE, "slow", "ListTasks", json!({})).await;
        if listed["tasks"][0]["status"]["state"] == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let patience = std::time::Duration::from_secs(20);
    {
        tokio::pin!(leaving);
        tokio::select! {
            _ = &mut leaving => panic!("it answered"),
            began = tokio::time::timeout(patience, state("TASK_STATE_WORKING")) => began.expect("it never began"),
        }
    }
    tokio::time::timeout(patience, state("TASK_STATE_CANCELED")).await.expect("it goes on over there");
}

/// A long task says how it goes.
#[tokio::test]
async fn progress_is_told_to_whoever_wants_it() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    let (_folder, served) = near(&[("s", &card_of(&far, "slow"), &headers())], "");
    let token = json!({ "progressToken": "mine" });
    let params = json!({ "name": "s__slow", "arguments": { "message": "go" }, "_meta": token });
    let mut telling = served.begin("/mcp", "tools/call", params, &[]).await;
    telling.until("notifications/progress").await;
    telling.until("\"mine\"").await;
}

/// The class and the grant decide, as for every tool; what is denied never reaches the peer.
#[tokio::test]
async fn a_peers_skills_are_under_the_same_grants() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    let clients = format!(
        "[clients.alice]\ntoken = {:?}\npolicy = {{ tools = {{ allow = [\"q__*\"] }} }}\n[clients.bob]\ntoken = {:?}\npolicy = {{ tools = {{ allow = [] }} }}\n",
        &ALICE.1[7..],
        &BOB.1[7..]
    );
    let (folder, served) = near(&[("q", &card_of(&far, "quick"), &headers())], &clients);
    let ask = async |who| {
        let params = json!({ "name": "q__quick", "arguments": { "message": "hi" } });
        served.modern("/mcp", "tools/call", params, &[who]).await
    };
    let listed = async |who| {
        let answer = served.modern("/mcp", "tools/list", json!({}), &[who]).await;
        answer.json()["result"]["tools"].to_string().contains("q__quick")
    };
    assert_eq!(text(&ask(ALICE).await), "quick: hi");
    let denied = ask(BOB).await;
    assert!(!denied.body.contains("quick: hi"), "{denied:?}");
    assert_eq!((listed(ALICE).await, listed(BOB).await), (true, false));
    let made = crate::a2a::result(&far, ALICE, "quick", "ListTasks", json!({})).await;
    assert_eq!(made["totalSize"], 1, "{made}");
    // Nobody classified it: then it is destructive, and beyond the ceiling.
    let own = folder.read("pleach.toml").unwrap();
    let (_other, wild) = {
        let other = Folder::new(&own.replace("default_access = \"read-only\"\n", ""));
        let served = Served::start(&other);
        (other, served)
    };
    let params = json!({ "name": "q__quick", "arguments": { "message": "hi" } });
    let denied = wild.modern("/mcp", "tools/call", params, &[ALICE]).await;
    assert!(!denied.body.contains("quick: hi"), "{denied:?}");
    assert_eq!(crate::a2a::result(&far, ALICE, "quick", "ListTasks", json!({})).await["totalSize"], 1);
    // And `pleach tools` shows it as any other.
    assert!(folder.run(&["tools"]).out.contains("q__quick"));
}

#[tokio::test]
async fn an_agent_uses_a_peer() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    let agents = "[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[agents.lead]\nprompt = \"p\"\ntools = [\"q__*\"]\n";
    let folder = Folder::new(&format!(
        "version = 1\n[peers.q]\ncard = {:?}\ndefault_access = \"read-only\"\n{}\n[policy]\ntools.allow = [\"*\"]\n{agents}",
        card_of(&far, "quick"),
        headers()
    ));
    folder.write(
        "replies.toml",
        "[[reply]]\n[[reply.tool]]\nname = \"q__quick\"\ninput = { message = \"from afar\" }\n[[reply]]\ntext = \"it said {{result}}\"\n",
    );
    let ran = folder.run(&["run", "go"]);
    assert!(ran.out.contains("it said quick: from afar"), "{ran:?}");
}

/// A peer of the SDK's; it ends with the test.
pub(crate) struct Sdk(Child, pub(crate) String);

impl Sdk {
    /// A script, by its runtime among the kits; `packages` is where it finds what it imports.
    pub(crate) fn start(runtime: &str, script: &str, packages: &Path, more: &[&str]) -> Self {
        let script = format!("{}/tests/suite/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(kits().join(runtime));
        command.arg(script).arg(packages).args(more).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut base = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
        assert!(base.starts_with("http"), "{base}");
        Self(child, base.trim().to_owned())
    }
}
impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages, data, and a question whose answer goes on with the same task.
async fn is_used(peer: &Sdk, which: &str) {
    let (_folder, served) = near(&[("sdk", &format!("{}/.well-known/agent-card.json", peer.1), "")], "");
    let answer = call(&served, "sdk__echo", json!({ "message": "hello", "data": { "n": 1 } })).await;
    assert!(text(&answer).starts_with("echo: hello"), "{which}: {answer:?}");
    let asked = asking(&served, "sdk__echo", json!({ "message": "ask" }), json!({})).await;
    assert_eq!(asked["inputRequests"]["question"]["params"]["message"], "Which?", "{which}: {asked}");
    let answers = json!({ "question": { "action": "accept", "content": { "answer": "red" } } });
    let more = json!({ "requestState": asked["requestState"], "inputResponses": answers });
    let done = asking(&served, "sdk__echo", json!({ "message": "ask" }), more).await;
    assert_eq!(done["content"][0]["text"], "echo: red", "{which}: {done}");
}

/// A server of the Python SDKs needs uvicorn, which the other kits have.
pub(crate) fn uvicorn() -> PathBuf {
    let lib = std::fs::read_dir(kits().join("venv/lib")).unwrap().next().unwrap().unwrap().path();
    lib.join("site-packages")
}

#[tokio::test]
async fn peers_written_with_the_python_sdks() {
    let packages = uvicorn();
    for (python, script, more) in [
        ("a2a/venv/bin/python", "peer_v1.py", &["JSONRPC"][..]),
        ("a2a/venv/bin/python", "peer_v1.py", &["HTTP+JSON"]),
        ("a2a/venv03/bin/python", "peer_v03.py", &[]),
    ] {
        let peer = Sdk::start(python, script, &packages, more);
        is_used(&peer, &format!("{script} {more:?}")).await;
    }
}

#[tokio::test]
async fn peers_written_with_the_javascript_sdks() {
    for (packages, script, more) in
        [("a2a", "peer.mjs", &["JSONRPC"][..]), ("a2a", "peer.mjs", &["HTTP+JSON"]), ("a2a/js03", "peer_v03.mjs", &[])]
    {
        let peer = Sdk::start("suite/node_modules/.bin/node", script, &kits().join(packages), more);
        is_used(&peer, &format!("{script} {more:?}")).await;
    }
}
