//! Skills of peers that take long, as tasks of MCP: whoever called has it and nobody else, over restarts
//! too; what the peer asks is asked, once; a cancel reaches it.

use crate::a2a_peers::near;
use crate::a2a_peers_faults::{event, peer, task};
use conformance::served::Served;
use conformance::upstream::{Act, Seen, Upstream, saying};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A peer whose one task stands where the test says, and whose stream tells no more than that it began.
fn slow() -> (Upstream, Arc<Mutex<Value>>) {
    let stands = Arc::new(Mutex::new(task("WORKING")));
    let now = stands.clone();
    let upstream = peer(true, move |seen: &Seen| {
        let mut now = now.lock().unwrap();
        match seen.method.as_str() {
            "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") }))], true),
            "GetTask" => Act::Result(now.clone()),
            "SendMessage" => Act::Result(json!({ "task": now.clone() })),
            "CancelTask" => {
                *now = task("CANCELED");
                Act::Result(now.clone())
            }
            _ => Act::Status(500, json!({})),
        }
    });
    (upstream, stands)
}

fn asks(at: &str) -> Value {
    let mut asks = task("INPUT_REQUIRED");
    asks["status"]["timestamp"] = at.into();
    asks["status"]["message"] =
        json!({ "messageId": "q", "role": "ROLE_AGENT", "parts": [{ "text": "Which colour?" }] });
    asks
}

/// By a client that follows tasks and can be asked.
async fn with_tasks(served: &Served, method: &str, mut params: Value) -> Value {
    let can = json!({ "elicitation": { "form": {} }, "extensions": { "io.modelcontextprotocol/tasks": {} } });
    params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": can });
    let answer = asked(served, method, params).await;
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}
async fn asked(served: &Served, method: &str, params: Value) -> Value {
    let id = params["taskId"].as_str().unwrap_or_default().to_owned();
    let named = [("mcp-name", id.as_str())];
    let headers = if method.starts_with("tasks/") { &named[..] } else { &[] };
    served.modern("/mcp", method, params, headers).await.json()
}

async fn called(served: &Served) -> Value {
    let created = with_tasks(served, "tools/call", json!({ "name": "p__act", "arguments": { "message": "go" } })).await;
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("working")), "{created}");
    created
}

#[tokio::test]
async fn a_long_skill_is_a_task_that_asks_and_outlives_its_request_and_a_restart() {
    let (upstream, stands) = slow();
    let (folder, served) = near(&[("p", &upstream.base, "")], "");
    let created = called(&served).await;
    let get = json!({ "taskId": created["taskId"] });
    let now = with_tasks(&served, "tasks/get", get.clone()).await;
    assert_eq!((&now["status"], &now["taskId"]), (&json!("working"), &created["taskId"]), "{now}");
    assert!(upstream.came("CancelTask").is_empty(), "whoever called has gone, and the task goes on");

    // What it asks is asked, and what is answered goes there once.
    *stands.lock().unwrap() = asks("2026-11-20T10:00:00Z");
    let asked = with_tasks(&served, "tasks/get", get.clone()).await;
    assert_eq!(asked["status"], "input_required", "{asked}");
    assert_eq!(asked["inputRequests"]["question"]["params"]["message"], "Which colour?", "{asked}");
    let same = with_tasks(&served, "tasks/get", get.clone()).await;
    assert_eq!(same["inputRequests"], asked["inputRequests"], "looked at twice, it is one question");
    let mut update = get.clone();
    update["inputResponses"] = json!({ "question": { "action": "accept", "content": { "answer": "red" } } });
    for _ in 0..2 {
        with_tasks(&served, "tasks/update", update.clone()).await;
    }
    let said = upstream.came("SendMessage");
    assert_eq!(said.len(), 1, "{said:?}");
    let message = &said[0].body["params"]["message"];
    assert_eq!((&message["taskId"], &message["parts"][0]["text"]), (&json!("t-1"), &json!("red")), "{message}");
    let now = with_tasks(&served, "tasks/get", get.clone()).await;
    assert_eq!(now["status"], "working", "the peer has still to see it: {now}");
    // The same words later are another question.
    *stands.lock().unwrap() = asks("2026-11-20T10:00:01Z");
    assert_eq!(with_tasks(&served, "tasks/get", get.clone()).await["status"], "input_required");

    // Another process finds it as this one left it.
    drop(served);
    assert!(upstream.came("CancelTask").is_empty(), "the end of a process is not the task's");
    let served = Served::start(&folder);
    assert_eq!(with_tasks(&served, "tasks/get", get.clone()).await["status"], "input_required");
    with_tasks(&served, "tasks/update", update).await;
    assert_eq!(upstream.came("SendMessage").len(), 2);
    *stands.lock().unwrap() = task("COMPLETED");
    let done = with_tasks(&served, "tasks/get", get).await;
    assert_eq!((&done["status"], &done["result"]["content"][0]["text"]), (&json!("completed"), &json!("done")));
    assert_eq!(done["result"]["structuredContent"]["context"], "c-1", "{done}");
    // Its conversation goes on by its name, for whoever had it.
    let more = json!({ "name": "p__act", "arguments": { "message": "more", "context": "c-1" } });
    with_tasks(&served, "tools/call", more).await;
    let last = upstream.came("SendStreamingMessage").pop().unwrap();
    assert_eq!(last.body["params"]["message"]["contextId"], "c-1");
}

#[tokio::test]
async fn a_cancel_reaches_the_peer_and_without_the_extension_nothing_is_a_task() {
    let (upstream, stands) = slow();
    let (_folder, served) = near(&[("p", &upstream.base, "timeout = 4000")], "");
    let created = called(&served).await;
    let get = json!({ "taskId": created["taskId"] });
    with_tasks(&served, "tasks/cancel", get.clone()).await;
    assert_eq!(upstream.came("CancelTask")[0].body["params"]["id"], "t-1");
    assert_eq!(with_tasks(&served, "tasks/get", get).await["status"], "cancelled");
    // Nor is there one under another name.
    for id in ["1.t-1", "t-1"] {
        let can = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
        let params = json!({ "taskId": id, "_meta": { "io.modelcontextprotocol/clientCapabilities": can } });
        let answer = asked(&served, "tasks/get", params).await;
        assert_eq!(answer["error"]["code"], -32602, "{id}: {answer}");
    }
    // The twin: whoever has no tasks waits for the result, as long as the peer may take.
    *stands.lock().unwrap() = task("WORKING");
    let late = crate::a2a_peers::call(&served, "p__act", json!({ "message": "go" })).await;
    assert!(late.body.contains("within 4 s"), "{late:?}");
}
