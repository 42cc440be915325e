//! Pleach as an MCP server of its own: agents as tools, runs as tasks, and each client with its
//! own runs only.

use conformance::pleach::Folder;
use conformance::served::{Answer, Served, text};
use serde_json::{Value, json};

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
filesystem = { read = ["docs"] }
tools = { allow = ["files__*"] }
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["quick", "slow"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
may_start = ["quick"]
[agents.quick]
description = "Answers."
prompt = "p"
[agents.slow]
description = "Takes its time."
prompt = "p"
"#;
const REPLIES: &str = "[[reply]]\nagent = \"quick\"\ntext = \"quick: {{prompt}}\"\n[[reply]]\nagent = \"slow\"\ntext = \"slow: {{prompt}}\"\ndelay = \"4s\"\n";
const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");
const TASKS: &str = "io.modelcontextprotocol/tasks";

fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("replies.toml", REPLIES);
    folder.write("docs/a.md", "hello");
    folder
}

async fn call(served: &Served, who: (&str, &str), tool: &str, arguments: Value) -> Answer {
    served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": arguments }), &[who]).await
}

fn agent(which: &str) -> Value {
    json!({ "subagent_type": which, "prompt": "what?" })
}

/// A request by a client that follows tasks.
async fn with_tasks(served: &Served, who: (&str, &str), method: &str, mut params: Value) -> Value {
    let can = json!({ "extensions": { TASKS: {} } });
    params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": can });
    let id = params["taskId"].as_str().unwrap_or_default().to_owned();
    let mut headers = vec![who];
    if method.starts_with("tasks/") {
        headers.push(("mcp-name", &id));
    }
    served.modern("/mcp", method, params, &headers).await.json()
}

#[tokio::test]
async fn a_client_sees_its_own_runs_only() {
    let folder = folder();
    let served = Served::start(&folder);
    assert_eq!(text(&call(&served, ALICE, "pleach__Agent", agent("quick")).await), "quick: what?");
    let refused = text(&call(&served, BOB, "pleach__Agent", agent("slow")).await);
    assert!(refused.contains("subagent_type is one of: quick"), "{refused}");

    let runs =
        call(&served, ALICE, "pleach__runs", json!({})).await.json()["result"]["structuredContent"]["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
    assert_eq!((&runs[0]["agent"], &runs[0]["state"]), (&json!("quick"), &json!("completed")));
    assert_eq!(text(&call(&served, BOB, "pleach__runs", json!({})).await), "no run yet");

    let run = json!({ "run": runs[0]["run"] });
    let shown = text(&call(&served, ALICE, "pleach__run", run.clone()).await);
    assert!(
        shown.contains("run.started") && shown.contains("quick: what?") && !shown.contains("\"system\""),
        "{shown}"
    );
    for tool in ["pleach__run", "pleach__cancel"] {
        let stranger = text(&call(&served, BOB, tool, run.clone()).await);
        let nobody = text(&call(&served, BOB, tool, json!({ "run": "r-none" })).await);
        assert!(stranger.contains("no run of yours") && nobody.contains("no run of yours"), "{stranger} {nobody}");
    }
    // Half an id is nobody's.
    let half = &runs[0]["run"].as_str().unwrap()[..4];
    assert!(text(&call(&served, ALICE, "pleach__run", json!({ "run": half })).await).contains("no run of yours"));
    let unknown = text(&call(&served, ALICE, "pleach__runs", json!({ "limt": 3 })).await);
    assert!(unknown.contains("\"limt\" is no argument"), "{unknown}");
}

#[tokio::test]
async fn a_long_run_is_a_task_that_outlives_its_request() {
    let folder = folder();
    let served = Served::start(&folder);
    let start = json!({ "name": "pleach__Agent", "arguments": agent("slow") });
    let quick = json!({ "name": "pleach__Agent", "arguments": agent("quick") });
    let at_once = with_tasks(&served, ALICE, "tools/call", quick).await;
    assert_eq!(at_once["result"]["resultType"], "complete", "{at_once}");
    let created = with_tasks(&served, ALICE, "tools/call", start.clone()).await["result"].clone();
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("working")), "{created}");
    let get = json!({ "taskId": created["taskId"] });
    let stranger = with_tasks(&served, BOB, "tasks/get", get.clone()).await;
    assert_eq!(stranger["error"]["code"], -32602, "{stranger}");
    let done = loop {
        let task = with_tasks(&served, ALICE, "tasks/get", get.clone()).await["result"].clone();
        assert_eq!(task["taskId"], created["taskId"], "{task}");
        if task["status"] != "working" {
            break task;
        }
        assert_eq!(task["pollIntervalMs"], 1000, "{task}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!((&done["status"], &done["resultType"]), (&json!("completed"), &json!("complete")), "{done}");
    assert_eq!(done["result"]["content"][0]["text"], "slow: what?");
    // And over a restart.
    let second = with_tasks(&served, ALICE, "tools/call", start).await["result"].clone();
    drop(served);
    let served = Served::start(&folder);
    let again = with_tasks(&served, ALICE, "tasks/get", get).await["result"].clone();
    assert_eq!(again["result"]["content"][0]["text"], "slow: what?", "{again}");
    // One that was killed with its process goes on by itself.
    let get = json!({ "taskId": second["taskId"] });
    let done = async {
        loop {
            let task = with_tasks(&served, ALICE, "tasks/get", get.clone()).await["result"].clone();
            assert_ne!(task["status"], "failed", "{task}");
            if task["status"] != "working" {
                return task;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let done = tokio::time::timeout(std::time::Duration::from_secs(30), done).await.expect("it ends");
    assert_eq!(done["result"]["content"][0]["text"], "slow: what?", "{done}");
}

#[tokio::test]
async fn a_task_is_cancelled_by_its_client_and_a_call_is_explained() {
    let folder = folder();
    let served = Served::start(&folder);
    let start = json!({ "name": "pleach__Agent", "arguments": agent("slow") });
    let created = with_tasks(&served, ALICE, "tools/call", start).await["result"].clone();
    let task = json!({ "taskId": created["taskId"] });
    assert!(with_tasks(&served, BOB, "tasks/cancel", task.clone()).await["error"].is_object());
    let ack = with_tasks(&served, ALICE, "tasks/cancel", task.clone()).await;
    assert_eq!(ack["result"]["resultType"], "complete", "{ack}");
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            let now = with_tasks(&served, ALICE, "tasks/get", task.clone()).await["result"].clone();
            if now["status"] != "working" {
                return now;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert_eq!(ended.await.unwrap()["status"], "cancelled");

    // What is explained is what was listed.
    served.modern("/mcp", "tools/list", json!({}), &[ALICE]).await;
    let explain = async |path: &str| {
        let arguments = json!({ "tool": "files__Read", "arguments": { "file_path": path } });
        call(&served, ALICE, "pleach__explain", arguments).await.json()["result"]["structuredContent"].clone()
    };
    let (yes, no) = (explain("docs/a.md").await, explain("/etc/passwd").await);
    assert_eq!((&yes["verdict"], &no["verdict"]), (&json!("allow"), &json!("deny")), "{yes} {no}");
    assert!(
        no["why"].as_str().unwrap().contains("filesystem.read does not cover")
            && !no.to_string().contains("pleach.toml")
    );
}

/// Its start is seen in the file it makes.
const SERVER: &str = r#"
import json, sys
open("out/started", "w").close()
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    r = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}},
         "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}}.get(m["method"])
    out = {"result": r} if r else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;

/// A client had every server started, unseen by any list, by asking what would become of a call.
#[tokio::test]
async fn what_was_not_listed_is_not_started_to_be_explained() {
    // A legacy client has every server started by `initialize`, which gathers their instructions.
    let policy = "version = 1\n[servers.s]\ncommand = \"python3\"\nargs = [\"srv/server.py\"]\ndefault_access = \"read-only\"\n\
        [policy]\nmax_access = \"read-write\"\nfilesystem = { read = [\"srv\"], read_write = [\"out\"] }\ntools.allow = [\"*\"]\n\
        [clients.alice]\ntoken = \"alice-alice-alice-alice\"\nmay_start = [\"quick\"]\n\
        [models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[agents.quick]\nprompt = \"p\"\n";
    let folder = Folder::new(policy);
    folder.write("srv/server.py", SERVER);
    std::fs::create_dir(folder.join("out")).unwrap();
    let served = Served::start(&folder);
    let explain = json!({ "name": "pleach__explain", "arguments": { "tool": "s__echo", "arguments": {} } });
    let explained = async || served.modern("/mcp", "tools/call", explain.clone(), &[ALICE]).await;
    let before = text(&explained().await);
    assert!(before.contains("no tool is named s__echo"), "{before}");
    assert!(!folder.join("out/started").exists());
    served.modern("/mcp", "tools/list", json!({}), &[ALICE]).await;
    let after = text(&explained().await);
    assert!(after.starts_with("allow") && folder.join("out/started").exists(), "{after}");
}

/// A client read in the events of its run where the operator's rules stand in their file.
#[tokio::test]
async fn a_client_is_told_the_rule_and_not_its_place() {
    let folder = folder();
    let read = "[[reply]]\nagent = \"quick\"\ntext = \"one\"\n[[reply.tool]]\nname = \"files__Read\"\ninput = { file_path = \"docs/a.md\" }\n";
    folder.write("replies.toml", &format!("{read}[[reply]]\nagent = \"quick\"\ntext = \"done\"\n"));
    let served = Served::start(&folder);
    let ran = call(&served, ALICE, "pleach__Agent", agent("quick")).await;
    assert_eq!(text(&ran), "done");
    let run = ran.json()["result"]["_meta"]["pleach/run"].as_str().unwrap().to_owned();
    let seen = text(&call(&served, ALICE, "pleach__run", json!({ "run": run })).await);
    assert!(seen.contains("tools.allow \\\"files__*\\\"") && !seen.contains("pleach.toml"), "{seen}");
    let own = folder.run(&["show", &run]);
    assert!(own.out.contains("pleach.toml:"), "the operator is told: {own:?}");
}

/// One client could have as many runs under way as it had requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_runs_of_a_client_are_bounded() {
    let folder = folder();
    folder.write("pleach.toml", &POLICY.replace("may_start = [\"quick\"]", "may_start = [\"quick\", \"slow\"]"));
    folder.write("replies.toml", &REPLIES.replace("4s", "600s"));
    let served = Served::start(&folder);
    let start =
        |who| with_tasks(&served, who, "tools/call", json!({ "name": "pleach__Agent", "arguments": agent("slow") }));
    let began = futures_util::future::join_all((0..64).map(|_| start(ALICE))).await;
    assert!(began.iter().all(|b| b["result"]["status"] == "working"), "{began:?}");
    let refused = start(ALICE).await;
    let why = refused["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(refused["result"]["isError"] == true && why.contains("too many runs of yours"), "{refused}");
    // Another client has its own number, and this one has room again when one ends.
    assert_eq!(start(BOB).await["result"]["status"], "working");
    let task = json!({ "taskId": began[0]["result"]["taskId"] });
    with_tasks(&served, ALICE, "tasks/cancel", task.clone()).await;
    let ended =
        async { while with_tasks(&served, ALICE, "tasks/get", task.clone()).await["result"]["status"] == "working" {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("it ends");
    assert_eq!(start(ALICE).await["result"]["status"], "working");
}
