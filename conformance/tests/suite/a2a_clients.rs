//! Clients of the A2A protocol that are not ours, of both its generations, against the scripted
//! system under test: sending, streaming, several turns, subscribing, cancelling, being notified.

use crate::kits;
use conformance::a2a;
use conformance::pleach::Folder;
use conformance::served::Served;
use conformance::upstream::{Act, Upstream};
use serde_json::{Value, json};
use std::process::Command;

/// What a client printed.
fn said(command: &mut Command) -> Value {
    let ran = conformance::pleach::Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
    serde_json::from_str(ran.out.trim()).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn script(name: &str) -> String {
    format!("{}/tests/suite/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// All that the SDK of 1.0 does, over one binding.
fn the_python_sdk_over(binding: &str) {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    let mut command = Command::new(kits().join("a2a/venv/bin/python"));
    let mut said = said(command.arg(script("a2a_v1.py")).args([&served.base, binding]));
    let stream = said["stream"].take();
    assert_eq!(
        (&stream[0], &stream[stream.as_array().unwrap().len() - 2]),
        (&json!("task"), &json!("artifact_update"))
    );
    let wanted = json!({
        "stream": null, "got": ["COMPLETED", "Hello from TCK"], "asks": ["INPUT_REQUIRED", "What shall it be?"],
        "watched": ["INPUT_REQUIRED", "WORKING", "COMPLETED"], "answered": ["COMPLETED", "It shall be: red"],
        "cancelled": "CANCELED", "message": ["message"], "listed": [2, true], "missing": "TaskNotFoundError",
        "configs": [1, "c-1", 0],
    });
    assert_eq!(said, wanted, "{binding}");
}

#[test]
fn the_python_sdk_of_1_0_over_both_bindings() {
    for binding in ["JSONRPC", "HTTP+JSON"] {
        the_python_sdk_over(binding);
    }
}

/// Against a pleach that was built with it: `--features gateway/grpc,conformance/grpc`.
#[cfg(feature = "grpc")]
#[test]
fn the_python_sdk_of_1_0_over_grpc() {
    the_python_sdk_over("GRPC");
}

/// A client of the SDK's own runtime, off the thread that answers its notifications.
async fn ran(mut command: Command) -> Value {
    tokio::task::spawn_blocking(move || said(&mut command)).await.unwrap()
}

/// What a client in JavaScript said of itself, told whom to notify.
async fn script_said(name: &str, args: &[&str]) -> Value {
    let mut command = Command::new(kits().join("suite/node_modules/.bin/node"));
    command.arg(script(name)).args(args);
    ran(command).await
}

/// What arrived for a task of 0.3 is the task, to the end, proved as it was asked for.
async fn told_the_task(hook: &Upstream, task: &Value) {
    let seen = hook.until_at("/inline", 4).await;
    let last = &seen[seen.len() - 1].body;
    assert_eq!((&last["id"], &last["status"]["state"]), (task, &json!("completed")));
    assert_eq!(last["artifacts"][0]["parts"][0]["text"], "It shall be: red");
    for one in &seen {
        assert_eq!(one.header("authorization"), "Bearer sdk-secret");
        assert_eq!(one.header("x-a2a-notification-token"), "sdk-token");
    }
}

#[tokio::test]
async fn the_python_sdk_of_0_3() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    let hook = Upstream::start(|_| Act::Status(200, json!({})));
    let mut command = Command::new(kits().join("a2a/venv03/bin/python"));
    command.arg(script("a2a_v03.py")).args([&served.base, &hook.base]);
    let said = ran(command).await;
    let turns = json!([
        "completed",
        "Hello from TCK",
        "input-required",
        "What shall it be?",
        "completed",
        "It shall be: red",
        "canceled"
    ]);
    let mine = format!("{}/mine", hook.base);
    let task = said["push"][0].clone();
    let wanted = json!({
        "stream": turns, "send": turns, "message": "message", "watched": ["working", "working", "completed", "held"],
        "push": [task, mine, mine],
    });
    assert_eq!(said, wanted);
    told_the_task(&hook, &task).await;
}

#[tokio::test]
async fn the_javascript_sdk_of_1_0_over_both_bindings() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    for binding in ["JSONRPC", "HTTP+JSON"] {
        let hook = Upstream::start(|_| Act::Status(200, json!({})));
        let kits = kits().join("a2a").display().to_string();
        let said = script_said("a2a.mjs", &[&served.base, &kits, binding, &hook.base]).await;
        let mine = format!("{}/mine", hook.base);
        let wanted = json!({
            "binding": binding, "stream": ["task", "artifactUpdate", "statusUpdate"],
            "sent": [3, "Hello from TCK"], "task": said["task"], "asks": "What shall it be?",
            "made": mine, "got": mine, "listed": 2, "watched": [6, 2, 3], "answered": "It shall be: red",
            "known": 3, "after": 1, "cancelled": 5,
        });
        assert_eq!(said, wanted);
        told_changes(&hook, &said["task"]).await;
    }
}

#[tokio::test]
async fn the_javascript_sdk_of_0_3() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    let hook = Upstream::start(|_| Act::Status(200, json!({})));
    let kits = kits().join("a2a/js03").display().to_string();
    let said = script_said("a2a_v03.mjs", &[&served.base, &kits, &hook.base]).await;
    let mine = format!("{}/mine", hook.base);
    let wanted = json!({
        "stream": ["task", "artifact-update", "status-update"],
        "sent": ["completed", "Hello from TCK"], "task": said["task"], "asks": "What shall it be?",
        "made": mine, "got": mine, "listed": 2, "watched": ["working", "held", "completed"],
        "answered": "It shall be: red", "known": "completed", "after": 1, "cancelled": "canceled",
    });
    assert_eq!(said, wanted);
    told_the_task(&hook, &said["task"]).await;
}

/// An agent of google-adk whose other half lives here: it is streamed to or polled, is asked, and its
/// person's answer goes on with the same task. It has no word for cancelling, watching or notifying.
#[test]
fn the_remote_agent_of_google_adk() {
    let folder = Folder::new(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\n\
         [agents.asker]\ndescription = \"Asks.\"\nprompt = \"\"\nexpose = true\n",
    );
    folder.write(
        "replies.toml",
        "[[reply]]\nturn = 0\n[[reply.tool]]\nname = \"ask_user\"\ninput = { question = \"Which?\" }\n\
         [[reply]]\nturn = 1\ntext = \"heard: {{result}}\"\n",
    );
    let served = Served::start(&folder);
    let card = format!("{}/a2a/asker/.well-known/agent-card.json", served.base);
    let ends = ["TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED"];
    for (mode, states) in [("stream", [&ends[..], &["TASK_STATE_WORKING"]].concat()), ("send", ends.to_vec())] {
        let mut command = Command::new(kits().join("a2a/venv/bin/python"));
        let said = said(command.arg(script("a2a_adk.py")).args([&card, mode]));
        let wanted = json!({
            "asked": { "input_required": "Which?" }, "tasks": 1, "last": "heard: red", "states": states, "errors": [],
            "calls": 0, "another": true,
        });
        assert_eq!(said, wanted, "{mode}");
    }
}

/// What arrived of a task of 1.0 is each change of it, to the end, proved as it was asked for.
async fn told_changes(hook: &Upstream, task: &Value) {
    let seen = hook.until_at("/inline", 5).await;
    let last = &seen[seen.len() - 1].body["statusUpdate"];
    assert_eq!((&last["taskId"], &last["status"]["state"]), (task, &json!("TASK_STATE_COMPLETED")));
    for one in &seen {
        assert_eq!(one.header("authorization"), "Bearer sdk-secret");
        assert_eq!(one.header("x-a2a-notification-token"), "sdk-token");
    }
    let texts: Vec<&Value> = seen.iter().map(|s| &s.body["artifactUpdate"]["artifact"]["parts"][0]["text"]).collect();
    assert!(texts.contains(&&json!("It shall be: red")), "{texts:?}");
}

/// The SDK asks for notifications in its own words; what arrived is read as the SDK would.
#[tokio::test]
async fn the_python_sdk_is_pushed_over_both_bindings() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    for binding in ["JSONRPC", "HTTP+JSON"] {
        let hook = Upstream::start(|_| Act::Status(200, json!({})));
        let mut command = Command::new(kits().join("a2a/venv/bin/python"));
        command.arg(script("a2a_push.py")).args([&served.base, binding, &hook.base]);
        let said = ran(command).await;
        let wanted = json!({
            "push": true, "task": said["task"], "made": format!("{}/mine", hook.base),
            "got": format!("{}/mine", hook.base), "listed": 2, "secrets": ["", ""], "after": 1,
        });
        assert_eq!(said, wanted, "{binding}");
        told_changes(&hook, &said["task"]).await;
    }
}
