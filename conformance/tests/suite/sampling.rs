//! Agents whose model is the connected client's own: asked in both eras, on calls and as tasks,
//! through the same guard and the same budgets as any model.

use crate::conversations::Client;
use crate::sandbox_processes::wait_until;
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};
use std::time::Duration;

const TASKS: &str = "io.modelcontextprotocol/tasks";
const METHOD: &str = "sampling/createMessage";

fn folder(more: &str) -> Folder {
    let folder = Folder::new(&format!(
        r#"
version = 1
[gateway]
default_agent = "helper"
[models.default]
provider = "sampling"
model = "claude-sonnet"
{more}
[models.script]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "read-write"
filesystem = {{ read = ["docs"], read_write = ["out"] }}
tools.allow = ["files__*"]
[agents.helper]
prompt = "Help."
expose = true
[agents.small]
prompt = "Small."
expose = true
policy.budget.tokens = 50
[agents.barred]
prompt = "Barred."
model = "script"
expose = true
subagents = ["helper"]
policy.models = ["script"]
[agents.lead]
prompt = "Lead."
model = "script"
expose = true
subagents = ["helper"]
"#
    ));
    folder.write("docs/a.md", "hello");
    folder.write(
        "replies.toml",
        "[[reply]]\nagent = \"lead\"\ntext = \"one\"\ndelay = \"3s\"\n[[reply.tool]]\nname = \"Agent\"\ninput = { description = \"d\", prompt = \"Child.\", subagent_type = \"helper\" }\n\
         [[reply]]\nagent = \"lead\"\ntext = \"led: {{result}}\"\n[[reply]]\nagent = \"helper\"\ntext = \"by the script\"\n\
         [[reply]]\nagent = \"barred\"\ntext = \"one\"\n[[reply.tool]]\nname = \"Agent\"\ninput = { description = \"d\", prompt = \"Child.\", subagent_type = \"helper\" }\n\
         [[reply]]\nagent = \"barred\"\ntext = \"led: {{result}}\"\n",
    );
    std::fs::create_dir(folder.join("out")).unwrap();
    folder
}

fn start(agent: &str) -> Value {
    json!({ "name": "pleach__Agent", "arguments": { "subagent_type": agent, "prompt": "Go." } })
}

async fn ask(served: &Served, can: &Value, method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = can.clone();
    let id = params["taskId"].as_str().unwrap_or_default().to_owned();
    let headers = if id.is_empty() { Vec::new() } else { vec![("mcp-name", id.as_str())] };
    served.modern("/mcp", method, params, &headers).await.json()["result"].clone()
}

/// The one request for the client's model among the questions of an answer.
fn asked(result: &Value) -> (String, Value) {
    assert_eq!(result["inputRequests"].as_object().map(|all| all.len()), Some(1), "{result}");
    let (key, request) = result["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(request["method"], METHOD, "{result}");
    (key.clone(), request["params"].clone())
}

fn says(words: &str) -> Value {
    json!({ "role": "assistant", "content": { "type": "text", "text": words }, "model": "own-1", "stopReason": "endTurn" })
}
fn calls(tool: &str, input: Value) -> Value {
    let call = json!({ "type": "tool_use", "id": "t1", "name": tool, "input": input });
    json!({ "role": "assistant", "content": [{ "type": "text", "text": "I do it." }, call], "model": "own-1", "stopReason": "toolUse" })
}

/// The same call again with the model's answer.
fn again(mut params: Value, result: &Value, answer: Value) -> Value {
    let (key, _) = asked(result);
    params["inputResponses"] = json!({ key: answer });
    params["requestState"] = result["requestState"].clone();
    params
}

fn rows(folder: &Folder) -> Vec<Value> {
    folder.run(&["runs", "--json"]).out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}
fn events(folder: &Folder, kind: &str) -> Vec<Value> {
    let run = rows(folder)[0]["run"].as_str().unwrap().to_owned();
    let all = folder.run(&["show", &run, "--json"]).out;
    all.lines().map(|l| serde_json::from_str(l).unwrap()).filter(|e: &Value| e["type"] == kind).collect()
}

#[tokio::test]
async fn a_modern_client_answers_with_its_own_model_and_its_calls_pass_the_guard() {
    let folder = folder("");
    let served = Served::start(&folder);
    let can = json!({ "sampling": { "tools": {} } });
    let first = ask(&served, &can, "tools/call", start("helper")).await;
    assert_eq!(first["resultType"], "input_required", "{first}");
    let (_, params) = asked(&first);
    assert_eq!((&params["systemPrompt"], &params["maxTokens"]), (&json!("Help."), &json!(8192)), "{params}");
    assert_eq!(params["messages"], json!([{ "role": "user", "content": { "type": "text", "text": "Go." } }]));
    assert_eq!(params["modelPreferences"]["hints"][0]["name"], "claude-sonnet");
    let tools: Vec<&str> = params["tools"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(tools.contains(&"files__Write") && tools.contains(&"files__Read"), "{tools:?}");

    // One call that is allowed, one that is not: seen on the disk, and told to the client's model.
    let write = |path: &str| calls("files__Write", json!({ "file_path": path, "content": "by the client's model" }));
    let second = ask(&served, &can, "tools/call", again(start("helper"), &first, write("out/f"))).await;
    let (_, params) = asked(&second);
    assert_eq!(folder.read("out/f").as_deref(), Some("by the client's model"));
    assert_eq!(params["messages"][1]["content"][1]["name"], "files__Write", "{params}");
    let result = &params["messages"][2]["content"][0];
    assert_eq!(
        (&result["type"], &result["toolUseId"], &result["isError"]),
        (&json!("tool_result"), &json!("t1"), &json!(false))
    );
    let third = ask(&served, &can, "tools/call", again(start("helper"), &second, write("docs/g"))).await;
    let (_, params) = asked(&third);
    let denied = &params["messages"][4]["content"][0];
    assert_eq!(denied["isError"], true, "{params}");
    assert!(denied["content"][0]["text"].as_str().unwrap().starts_with("denied:"), "{denied}");
    assert_eq!(folder.read("docs/g"), None);
    let done = ask(&served, &can, "tools/call", again(start("helper"), &third, says("done"))).await;
    assert_eq!(done["content"][0]["text"], "done", "{done}");

    // Nobody said what it used: it is estimated, and said to be.
    let replied = events(&folder, "model.replied");
    assert!(replied.iter().all(|r| r["usage"]["estimated"] == true && r["usage"]["input"].as_u64() > Some(0)));
    assert!(replied.iter().all(|r| r["answered_by"] == "client/own-1" && r["cost"].is_null()), "{replied:?}");
}

#[tokio::test]
async fn a_client_whose_model_takes_no_tools_is_sent_none() {
    let folder = folder("");
    let served = Served::start(&folder);
    let can = json!({ "sampling": {} });
    let first = ask(&served, &can, "tools/call", start("helper")).await;
    let (_, params) = asked(&first);
    assert!(params["tools"].is_null(), "{params}");
    assert!(params["systemPrompt"].as_str().unwrap().contains("No tools can be called"), "{params}");
    let done = ask(&served, &can, "tools/call", again(start("helper"), &first, says("done"))).await;
    assert_eq!(done["content"][0]["text"], "done", "{done}");
}

/// No client, one without the capability, one that says no: an error with the reason, at once.
#[tokio::test]
async fn without_a_client_that_lends_its_model_the_run_fails_with_the_reason() {
    let folder = folder("");
    let served = Served::start(&folder);
    let quick = async { ask(&served, &json!({}), "tools/call", start("helper")).await };
    let failed = tokio::time::timeout(Duration::from_secs(10), quick).await.expect("it hangs");
    let why = failed["content"][0]["text"].as_str().unwrap_or_default();
    assert!(failed["isError"] == true && why.contains("no capability \"sampling\""), "{failed}");
    let can = json!({ "sampling": {} });
    let first = ask(&served, &can, "tools/call", start("helper")).await;
    let nonsense =
        ask(&served, &can, "tools/call", again(start("helper"), &first, json!({ "role": "assistant" }))).await;
    assert!(nonsense["isError"] == true && nonsense.to_string().contains("holds no content"), "{nonsense}");
    // Over REST and at the command line there is no client of that kind at all.
    let begun = served.post("/v1/runs", &[], json!({ "agent": "helper", "prompt": "Go." }).to_string()).await;
    let run = begun.json()["run"].as_str().unwrap().to_owned();
    wait_until("it fails", || rows(&folder)[0]["state"] == "failed");
    assert!(folder.run(&["show", &run]).out.contains("the MCP client that starts the run"));
    let local = folder.run(&["run", "--agent", "helper", "Go."]);
    assert!(local.code == 1 && local.err.contains("the MCP client that starts the run"), "{local:?}");
}

#[tokio::test]
async fn what_the_grant_or_the_budget_refuses_is_not_asked_of_the_client() {
    let folder = folder("");
    let served = Served::start(&folder);
    let can = json!({ "sampling": { "tools": {} } });
    // What a child may ask is bounded by its parent too.
    for (agent, reason) in [("small", "budget.tokens"), ("barred", "model default is not in models")] {
        let refused = ask(&served, &can, "tools/call", start(agent)).await;
        let why = refused["content"][0]["text"].as_str().unwrap_or_default();
        assert!(refused["resultType"] == "complete" && why.contains(reason), "{agent}: {refused}");
    }
    assert_eq!(ask(&served, &can, "tools/call", start("helper")).await["resultType"], "input_required");
}

#[tokio::test]
async fn a_fallback_answers_for_a_client_that_cannot() {
    let folder = folder("fallback = [\"script\"]");
    let served = Served::start(&folder);
    let done = ask(&served, &json!({}), "tools/call", start("helper")).await;
    assert_eq!(done["content"][0]["text"], "by the script", "{done}");
}

/// A legacy client is asked on the stream of its call, for itself and for what it started.
#[test]
fn a_legacy_client_answers_for_the_whole_tree() {
    let folder = folder("");
    let mut client = Client::start(&folder, json!({ "sampling": { "tools": {} } }));
    let call = client.request("tools/call", start("lead"));
    let request = client.until(|m| m["method"] == METHOD);
    assert_eq!(request["params"]["messages"][0]["content"]["text"], "Child.", "{request}");
    let input = json!({ "file_path": "docs/a.md" });
    client.send(json!({ "id": request["id"], "result": calls("files__Read", input) }));
    let request = client.until(|m| m["method"] == METHOD);
    assert!(request["params"]["messages"][2].to_string().contains("hello"), "{request}");
    client.send(json!({ "id": request["id"], "result": says("child done") }));
    let done = client.until(|m| m["id"] == call);
    assert_eq!(done["result"]["content"][0]["text"], "led: child done", "{done}");
    // What its person does not want is the end of the run, with its words.
    let call = client.request("tools/call", start("helper"));
    let request = client.until(|m| m["method"] == METHOD);
    client.send(json!({ "id": request["id"], "error": { "code": -1, "message": "User rejected sampling request" } }));
    let refused = client.until(|m| m["id"] == call);
    assert!(refused["result"]["isError"] == true && refused.to_string().contains("User rejected"), "{refused}");
}

async fn settled(served: &Served, can: &Value, id: &Value) -> Value {
    let moved = async {
        loop {
            let now = ask(served, can, "tasks/get", json!({ "taskId": id })).await;
            if now["status"] != "working" {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), moved).await.expect("it moves")
}

/// A run that became a task asks as a task, and a client that follows is told; after a restart it
/// asks again, of the client that comes back for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_asks_for_its_clients_model_over_a_restart_too() {
    let folder = folder("");
    let served = Served::start(&folder);
    let can = json!({ "sampling": { "tools": {} }, "extensions": { TASKS: {} } });
    let created = ask(&served, &can, "tools/call", start("lead")).await;
    assert_eq!(created["resultType"], "task", "{created}");
    let id = &created["taskId"];
    let params =
        json!({ "notifications": { "taskIds": [id] }, "_meta": { "io.modelcontextprotocol/clientCapabilities": can } });
    let mut told = served.begin("/mcp", "subscriptions/listen", params, &[]).await;
    told.until("\"status\":\"input_required\"").await;
    assert!(told.heard.contains("notifications/tasks") && told.heard.contains(METHOD), "{}", told.heard);
    let (old, params) = asked(&settled(&served, &can, id).await);
    assert_eq!(params["messages"][0]["content"]["text"], "Child.", "{params}");
    drop(served);
    let served = Served::start(&folder);
    let (key, params) = asked(&settled(&served, &can, id).await);
    assert!(key != old && params["messages"][0]["content"]["text"] == "Child.", "{params}");
    // The answer to what was asked before the restart is an answer to nothing.
    let late = json!({ "taskId": id, "inputResponses": { old: says("too late") } });
    ask(&served, &can, "tasks/update", late).await;
    let own = json!({ "taskId": id, "inputResponses": { key: says("child done") } });
    ask(&served, &can, "tasks/update", own).await;
    let done = settled(&served, &can, id).await;
    assert_eq!(done["result"]["content"][0]["text"], "led: child done", "{done}");
}

/// After a restart, a run whose client does not come back ends with the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_a_client_that_is_gone_ends() {
    let folder = folder("");
    let served = Served::start(&folder);
    let first = ask(&served, &json!({ "sampling": {} }), "tools/call", start("helper")).await;
    assert_eq!(first["resultType"], "input_required", "{first}");
    drop(served);
    assert_eq!(rows(&folder)[0]["state"], "thinking");
    let _again = Served::start(&folder);
    wait_until("it ends", || rows(&folder)[0]["state"] == "failed");
    let finished = events(&folder, "run.finished");
    assert!(finished[0]["text"].as_str().unwrap().contains("is not there any more"), "{finished:?}");
}

/// A session that ends takes what it began along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_session_that_ends_leaves_nothing_that_asks() {
    let folder = folder("");
    let served = std::sync::Arc::new(Served::start(&folder));
    let session = served.initialize_as("/mcp", json!({ "sampling": {} }), &[]).await;
    let (same, own) = (served.clone(), session.clone());
    let call = tokio::spawn(async move { same.legacy("/mcp", &own, "tools/call", start("helper"), &[]).await });
    wait_until("it asks", || rows(&folder).first().is_some_and(|row| row["state"] == "thinking"));
    let headers = [("mcp-session-id", session.as_str())];
    let gone = Served::client().delete(format!("{}/mcp", served.base)).header(headers[0].0, headers[0].1).send().await;
    assert!(gone.unwrap().status().is_success());
    wait_until("it ends", || rows(&folder)[0]["state"] == "cancelled");
    let ended = call.await.unwrap();
    assert!(!text(&ended).contains("done"), "{ended:?}");
}
