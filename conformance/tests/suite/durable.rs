//! Runs that outlive their process and wait for people. Scored by what happened outside: the
//! lines a tool wrote, not what anybody said of it.

use crate::conversations::Client;
use crate::sandbox_processes::wait_until;
use conformance::pleach::{Folder, Ran};
use conformance::served::{Served, text};
use serde_json::{Value, json};
use std::process::{Child, Stdio};

/// Each call leaves a line with its key, then stands until `out/go` is there.
const SERVER: &str = r#"
import json, os, sys, time
def tool(name): return {"name": name, "inputSchema": {"type": "object"}}
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    if m["method"] == "tools/call":
        p = m["params"]
        key = str(p.get("_meta", {}).get("pleach/idempotency-key"))
        if p["name"] == "seen":
            r = {"content": [{"type": "text", "text": "yes" if key in open("out/sent.log").read() else "no"}]}
            print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": r}), flush=True)
            continue
        with open("out/" + p["name"] + ".log", "a") as f:
            f.write(key + "\n")
        while not os.path.exists("out/go"): time.sleep(0.02)
        r = {"content": [{"type": "text", "text": p["name"] + " done"}]}
    else:
        r = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}},
             "tools/list": {"tools": [tool("once"), tool("idem"), tool("asked"), tool("sent"), tool("seen")]}}.get(m["method"])
    out = {"result": r} if r else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;

fn policy(extra: &str) -> String {
    format!(
        r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.s]
command = "python3"
args = ["srv/server.py"]
default_access = "read-write"
[servers.s.tools.idem]
effect = "idempotent"
[servers.s.tools.sent]
effect = "verifiable"
verify_with = "seen"
[servers.s.tools.seen]
access = "read-only"
[policy]
max_access = "read-write"
filesystem = {{ read = ["srv"], read_write = ["out"] }}
tools = {{ allow = ["s__*"], ask = ["s__asked"] }}
{extra}
[agents.lead]
prompt = "Lead."
expose = true
"#
    )
}

fn calls(name: &str, input: &str) -> String {
    format!("[[reply]]\ntext = \"calls\"\n[[reply.tool]]\nname = \"{name}\"\ninput = {input}\n")
}

const LAST: &str = "[[reply]]\ntext = \"last: {{results}}\"\n";

fn folder(extra: &str, replies: &str) -> Folder {
    let folder = Folder::new(&policy(extra));
    folder.write("replies.toml", replies);
    folder.write("srv/server.py", SERVER);
    std::fs::create_dir(folder.join("out")).unwrap();
    folder
}

fn lines(folder: &Folder, path: &str) -> Vec<String> {
    folder.read(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn rows(folder: &Folder, args: &[&str]) -> Vec<Value> {
    let ran = folder.run(args);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn only_run(folder: &Folder) -> Value {
    let runs = rows(folder, &["runs", "--json"]);
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

fn id(folder: &Folder) -> String {
    only_run(folder)["run"].as_str().unwrap().to_owned()
}

fn question(folder: &Folder) -> String {
    let open = rows(folder, &["answer", "--json"]);
    assert_eq!(open.len(), 1, "{open:?}");
    open[0]["id"].as_str().unwrap().to_owned()
}

fn begin(folder: &Folder) -> Child {
    folder.command(&["run", "Go."]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A run killed while its call of a tool stands; then the tool may end, and the run is resumed.
fn killed_in(tool: &str) -> (Folder, Ran) {
    let folder = folder("", &(calls(&format!("s__{tool}"), "{}") + LAST));
    let mut child = begin(&folder);
    let log = format!("out/{tool}.log");
    wait_until("the call arrived", || lines(&folder, &log).len() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(folder.run(&["runs"]).out.contains("acting!"));
    folder.write("out/go", "");
    let resumed = folder.run(&["resume", &id(&folder)]);
    (folder, resumed)
}

#[test]
fn a_call_that_must_not_be_repeated_is_not_and_its_outcome_is_unknown() {
    let (folder, resumed) = killed_in("once");
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert_eq!(lines(&folder, "out/once.log").len(), 1);
    assert!(resumed.out.contains("last: unknown:") && resumed.out.contains("it was not repeated"), "{resumed:?}");
    let shown = rows(&folder, &["show", &id(&folder), "--json"]);
    assert!(shown.iter().any(|e| e["type"] == "tool.finished" && e["outcome"] == "unknown"), "{shown:?}");
    assert_eq!(only_run(&folder)["state"], "completed");
    // Once more finds nothing to do, and says the same.
    assert_eq!(folder.run(&["resume", &id(&folder)]).out, resumed.out);
}

#[test]
fn a_call_that_may_be_repeated_is_with_the_same_key() {
    let (folder, resumed) = killed_in("idem");
    assert_eq!((resumed.code, resumed.out.as_str()), (0, "last: idem done\n"), "{resumed:?}");
    let keys = lines(&folder, "out/idem.log");
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].len() == 32, "{keys:?}");
}

#[test]
fn a_call_that_can_be_verified_is_looked_for_and_not_repeated() {
    let (folder, resumed) = killed_in("sent");
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert!(resumed.out.contains("it happened, as s__seen says"), "{resumed:?}");
    assert_eq!(lines(&folder, "out/sent.log").len(), 1);
}

#[test]
fn a_run_killed_while_its_model_thinks_is_resumed() {
    let slow = "[[reply]]\ntext = \"the answer\"\ndelay = \"3s\"\n";
    let folder = folder("", slow);
    let mut child = begin(&folder);
    let asked = || folder.run(&["runs", "--json"]).out.contains("\"turns\":1");
    wait_until("the model is asked", asked);
    child.kill().unwrap();
    child.wait().unwrap();
    folder.write("replies.toml", &slow.replace("3s", "1ms"));
    let resumed = folder.run(&["resume", &id(&folder)]);
    assert_eq!((resumed.code, resumed.out.as_str()), (0, "the answer\n"), "{resumed:?}");
}

#[test]
fn a_question_is_answered_once_and_the_run_goes_on() {
    let asks = calls("ask_user", "{ question = \"Which?\", options = [\"red\", \"blue\"] }");
    let folder = folder("", &(asks + LAST));
    let ran = folder.run(&["run", "Go."]);
    let q = question(&folder);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains(&format!("pleach answer {q} --input")), "{ran:?}");
    let runs = folder.run(&["runs"]);
    assert!(runs.out.contains("waiting ") && !runs.out.contains("waiting!"), "{runs:?}");
    let wrong = folder.run(&["answer", &q, "--input", "green"]);
    assert!(wrong.code == 1 && wrong.err.contains("one of: red, blue"), "{wrong:?}");
    let right = folder.run(&["answer", &q, "--input", "red", "--note", "as ever"]);
    assert_eq!((right.code, right.out.as_str()), (0, "last: red\n[note: as ever]\n"), "{right:?}");
    let again = folder.run(&["answer", &q, "--input", "blue"]);
    assert!(again.code == 1 && again.err.contains("answered by local already"), "{again:?}");
    let nobody = folder.run(&["answer", "q-none", "allow"]);
    assert!(nobody.code == 1 && nobody.err.contains("lists the open ones"), "{nobody:?}");
}

#[test]
fn an_approval_allows_this_call_and_a_denial_none() {
    for (word, written) in [("allow", 1), ("deny", 0)] {
        let folder = folder("", &(calls("s__asked", "{ n = 1 }") + LAST));
        folder.write("out/go", "");
        let ran = folder.run(&["run", "Go."]);
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.err.contains("tools.ask \"s__asked\"") && ran.err.contains(" allow "), "{ran:?}");
        assert!(lines(&folder, "out/asked.log").is_empty(), "nothing was done unasked");
        let left = folder.run(&["answer", &question(&folder), word, "--note", "so be it", "--no-wait"]);
        assert!(left.code == 0 && left.err.contains("pleach resume"), "{left:?}");
        let resumed = folder.run(&["resume", &id(&folder)]);
        assert_eq!(resumed.code, 0, "{resumed:?}");
        assert_eq!(lines(&folder, "out/asked.log").len(), written, "{resumed:?}");
        if word == "deny" {
            assert!(resumed.out.contains("local said no: so be it"), "{resumed:?}");
        }
    }
}

/// A call of a tool with two names was asked about under the one, then the other, for ever.
#[test]
fn a_spawn_is_asked_about_once() {
    let folder = Folder::new(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\ntools = { ask = [\"*\"] }\n\
         [agents.lead]\nprompt = \"p\"\nexpose = true\nsubagents = [\"kid\"]\n[agents.kid]\nprompt = \"k\"\n[gateway]\ndefault_agent = \"lead\"\n",
    );
    let spawn = "{ description = \"d\", prompt = \"p\", subagent_type = \"kid\" }";
    let all = calls("Agent", spawn).replace("text =", "agent = \"lead\"\ntext =")
        + "[[reply]]\nagent = \"lead\"\ntext = \"last: {{results}}\"\n[[reply]]\nagent = \"kid\"\ntext = \"kid\"\n";
    folder.write("replies.toml", &all);
    assert_eq!(folder.run(&["run", "Go."]).code, 5);
    let answered = folder.run(&["answer", &question(&folder), "allow"]);
    assert_eq!((answered.code, answered.out.as_str()), (0, "last: kid\n"), "{answered:?}");
}

/// The copied question had its first one's name, and the store took neither.
#[test]
fn a_run_can_be_forked_after_a_question() {
    let folder = folder("", &(calls("s__asked", "{ n = 1 }") + LAST));
    folder.write("out/go", "");
    assert_eq!(folder.run(&["run", "Go."]).code, 5);
    let first = id(&folder);
    assert_eq!(folder.run(&["answer", &question(&folder), "allow"]).out, "last: asked done\n");
    let events = rows(&folder, &["show", &first, "--json"]);
    let waiting = events.iter().find(|e| e["type"] == "run.waiting").unwrap();
    let fork = folder.run(&["fork", &first, "--at", &waiting["seq"].to_string()]);
    assert_eq!(fork.code, 0, "{fork:?}");
    assert_eq!(rows(&folder, &["runs", "--json"]).len(), 2);
}

#[test]
fn the_request_that_would_pass_the_tokens_is_not_made() {
    let turn = calls("s__idem", "{}").replace("text =", "usage = { input = 3000, output = 100 }\ntext =");
    let folder = folder("budget = { tokens = 4000 }", &(turn.repeat(3) + LAST));
    folder.write("out/go", "");
    let ran = folder.run(&["run", "Go."]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("budget.tokens"), "{ran:?}");
    assert!(only_run(&folder)["tokens"].as_u64().unwrap() <= 4000, "{ran:?}");
}

#[test]
fn a_fork_goes_its_own_way() {
    let asks = calls("ask_user", "{ question = \"Which?\" }");
    let folder = folder("", &(asks + LAST));
    folder.run(&["run", "Go."]);
    let first = id(&folder);
    assert_eq!(folder.run(&["answer", &question(&folder), "--input", "red"]).out, "last: red\n");
    let forked = folder.run(&["fork", &first, "--at", "3"]);
    assert_eq!(forked.code, 0, "{forked:?}");
    let resumed = folder.run(&["resume", forked.out.trim()]);
    assert!(resumed.code == 0 && resumed.out.contains("last: unknown"), "{resumed:?}");
    let beyond = folder.run(&["fork", &first, "--at", "99"]);
    assert!(beyond.code == 1 && beyond.err.contains("has the events 1 to"), "{beyond:?}");
}

#[test]
fn one_process_owns_a_tree_and_another_cancels_it() {
    let folder = folder("", &(calls("s__once", "{}") + LAST));
    let child = begin(&folder);
    wait_until("the call arrived", || lines(&folder, "out/once.log").len() == 1);
    let run = id(&folder);
    let second = folder.run(&["resume", &run]);
    assert!(second.code == 1 && second.err.contains("works on it"), "{second:?}");
    let cancelled = folder.run(&["cancel", &run]);
    assert!(cancelled.code == 0 && cancelled.err.contains("is cancelled"), "{cancelled:?}");
    let ended = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(only_run(&folder)["state"], "cancelled");
    let again = folder.run(&["cancel", &run]);
    assert!(again.code == 1 && again.err.contains("is cancelled already"), "{again:?}");
}

fn start(prompt: &str) -> Value {
    json!({ "name": "pleach__Agent", "arguments": { "subagent_type": "lead", "prompt": prompt } })
}

/// Killed or told to end, `serve` finishes its runs when it is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_goes_on_with_its_runs_after_its_end() {
    for kill in [true, false] {
        let folder = folder("", &(calls("s__idem", "{}") + LAST));
        let served = Served::start(&folder);
        let (base, client) = (served.base.clone(), Served::client());
        let asking = tokio::spawn(async move {
            let body = conformance::served::modern_body("tools/call", start("Go."));
            let request = client.post(format!("{base}/mcp")).header("content-type", "application/json");
            let request = request.header("accept", "application/json, text/event-stream");
            let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
            let _ = request.header("mcp-name", "pleach__Agent").body(body.to_string()).send().await;
        });
        wait_until("the call arrived", || lines(&folder, "out/idem.log").len() == 1);
        match kill {
            true => drop(served),
            false => served.end(),
        }
        asking.abort();
        assert_eq!(only_run(&folder)["state"], "acting", "nobody ended it (killed: {kill})");
        folder.write("out/go", "");
        let _again = Served::start(&folder);
        wait_until("it ends by itself", || only_run(&folder)["state"] == "completed");
        let keys = lines(&folder, "out/idem.log");
        assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    }
}

/// What a run asks reaches the client that started it, if that can be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_asks_reaches_its_client() {
    let asks = calls("ask_user", "{ question = \"Which?\" }") + &calls("s__asked", "{}");
    let folder = folder("", &(asks + LAST));
    folder.write("out/go", "");
    let served = Served::start(&folder);
    let can = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
    let mut params = start("Go.");
    params["_meta"] = can;
    let mut answers = [json!({ "answer": "red" }), json!({ "allow": true })].into_iter();
    let done = loop {
        let answer = served.modern("/mcp", "tools/call", params.clone(), &[]).await.json();
        let result = &answer["result"];
        if result["resultType"] != "input_required" {
            break answer;
        }
        let asked = result["inputRequests"].as_object().unwrap();
        let content = answers.next().expect("two questions");
        let said = asked.keys().map(|k| (k.clone(), json!({ "action": "accept", "content": content.clone() })));
        params["inputResponses"] = Value::Object(said.collect());
        params["requestState"] = result["requestState"].clone();
    };
    assert_eq!(done["result"]["content"][0]["text"], "last: asked done", "{done}");
    assert_eq!(lines(&folder, "out/asked.log").len(), 1);
}

/// A legacy client is asked on the stream of its call.
#[test]
fn what_a_run_asks_reaches_a_legacy_client() {
    let asks = calls("ask_user", "{ question = \"Which?\" }") + &calls("s__asked", "{}");
    let folder = folder("", &(asks + LAST));
    folder.write("out/go", "");
    let mut client = Client::start(&folder, json!({ "elicitation": {} }));
    let call = client.request("tools/call", start("Go."));
    for content in [json!({ "answer": "red" }), json!({ "allow": true })] {
        let asked = client.until(|m| m["method"] == "elicitation/create");
        client.send(json!({ "id": asked["id"], "result": { "action": "accept", "content": content } }));
    }
    let done = client.until(|m| m["id"] == call);
    assert_eq!(done["result"]["content"][0]["text"], "last: asked done", "{done}");
    assert_eq!(lines(&folder, "out/asked.log").len(), 1);
}

/// The questions of a run that became a task are the task's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_asks_and_is_answered() {
    let asks = calls("ask_user", "{ question = \"Which?\" }").replace("text =", "delay = \"3s\"\ntext =");
    let folder = folder("", &(asks + LAST));
    let served = Served::start(&folder);
    let task = async |method: &str, mut params: Value| {
        let can = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
        params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": can });
        let id = params["taskId"].as_str().unwrap_or_default().to_owned();
        let headers = if id.is_empty() { Vec::new() } else { vec![("mcp-name", id.as_str())] };
        served.modern("/mcp", method, params, &headers).await.json()["result"].clone()
    };
    let id = task("tools/call", start("Go.")).await["taskId"].clone();
    let settled = async |from: &str| {
        let moved = async {
            loop {
                let now = task("tasks/get", json!({ "taskId": id })).await;
                if now["status"] != from {
                    return now;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), moved).await.expect("it moves")
    };
    let asked = settled("working").await;
    assert_eq!(asked["status"], "input_required", "{asked}");
    let question = asked["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let said = json!({ "action": "accept", "content": { "answer": "red" } });
    task("tasks/update", json!({ "taskId": id, "inputResponses": { question: said } })).await;
    wait_until("it ends", || only_run(&folder)["state"] == "completed");
    assert_eq!(settled("working").await["result"]["content"][0]["text"], "last: red");
}

const CLIENTS: &str = r#"
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["lead"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
may_start = ["lead"]
[clients.boss]
token = "boss-boss-boss-boss-boss"
may_start = ["lead"]
can_approve = true
"#;

/// A client that cannot be asked is told how to answer; only who may, does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_answers_its_own_questions_and_approves_only_if_it_may() {
    let asks = calls("ask_user", "{ question = \"Which?\" }") + &calls("s__asked", "{}");
    let folder = folder(CLIENTS, &(asks + LAST));
    folder.write("out/go", "");
    let served = Served::start(&folder);
    let alice = ("authorization", "Bearer alice-alice-alice-alice");
    let bob = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");
    let boss = ("authorization", "Bearer boss-boss-boss-boss-boss");
    let call = async |who, tool: &str, arguments: Value| {
        served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": arguments }), &[who]).await
    };
    let first = call(alice, "pleach__Agent", start("Go.")["arguments"].clone()).await.json()["result"].clone();
    let asked = &first["structuredContent"];
    assert_eq!((&asked["state"], &asked["questions"][0]["kind"]), (&json!("waiting"), &json!("question")), "{first}");
    let say = json!({ "id": asked["questions"][0]["id"], "input": "red" });
    let stranger = text(&call(bob, "pleach__answer", say.clone()).await);
    let nothing = text(&call(bob, "pleach__answer", json!({ "id": "q-none", "input": "red" })).await);
    assert!(stranger.starts_with("no question of yours") && nothing.starts_with("no question of yours"), "{stranger}");
    assert_eq!(text(&call(bob, "pleach__answer", json!({})).await), "no run of yours asks anything");
    let said = text(&call(alice, "pleach__answer", say).await);
    assert!(said.starts_with("answered"), "{said}");
    wait_until("it asks for an approval", || folder.run(&["answer", "--json"]).out.contains("\"approval\""));
    let allow = json!({ "id": question(&folder), "verdict": "allow" });
    let own = text(&call(alice, "pleach__answer", allow.clone()).await);
    assert!(own.contains("can_approve") && lines(&folder, "out/asked.log").is_empty(), "{own}");
    let boss_said = text(&call(boss, "pleach__answer", allow).await);
    assert!(boss_said.starts_with("answered"), "{boss_said}");
    wait_until("it ends", || only_run(&folder)["state"] == "completed");
    assert_eq!(lines(&folder, "out/asked.log").len(), 1);
    // And a word to a run that has ended opens it again, for its own client only.
    let run = id(&folder);
    let word = json!({ "run": run, "message": "And now?" });
    assert!(text(&call(bob, "pleach__send", word.clone()).await).contains("no run of yours"));
    let more = folder.read("replies.toml").unwrap() + "[[reply]]\ntext = \"more\"\n";
    folder.write("replies.toml", &more);
    let told = text(&call(alice, "pleach__send", word).await);
    assert!(told.contains("is told"), "{told}");
}
