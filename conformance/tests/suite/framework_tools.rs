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
    let other = with_tasks(&served, ALICE, "tasks/get", json!({ "taskId": second["taskId"] })).await;
    assert_eq!(
        (&other["result"]["taskId"], &other["result"]["status"]),
        (&second["taskId"], &json!("failed")),
        "{other}"
    );
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
