//! Clients of the A2A protocol that are not ours, of both its generations, against the scripted
//! system under test: sending, streaming, several turns, subscribing, cancelling.

use crate::kits;
use conformance::a2a;
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

#[test]
fn the_python_sdk_of_1_0_over_both_bindings() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    for binding in ["JSONRPC", "HTTP+JSON"] {
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
            "cancelled": "CANCELED", "message": ["message"], "listed": [2, true],
        });
        assert_eq!(said, wanted, "{binding}");
    }
}

#[test]
fn the_python_sdk_of_0_3() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    let mut command = Command::new(kits().join("a2a/venv03/bin/python"));
    let said = said(command.arg(script("a2a_v03.py")).arg(&served.base));
    let turns = json!([
        "completed",
        "Hello from TCK",
        "input-required",
        "What shall it be?",
        "completed",
        "It shall be: red",
        "canceled"
    ]);
    assert_eq!(said, json!({ "stream": turns, "send": turns, "message": "message" }));
}

#[test]
fn the_javascript_sdk() {
    let folder = a2a::folder();
    let served = Served::start(&folder);
    let mut command = Command::new(kits().join("suite/node_modules/.bin/node"));
    let mut said = said(command.arg(script("a2a.mjs")).arg(&served.base).arg(kits().join("a2a")));
    let stream = said["stream"].take();
    assert_eq!((&stream[0], stream.as_array().unwrap().last().unwrap()), (&json!("task"), &json!("statusUpdate")));
    let wanted = json!({ "stream": null, "asks": "What shall it be?", "answered": "It shall be: red", "cancelled": 5 });
    assert_eq!(said, wanted);
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
        let said = tokio::task::spawn_blocking(move || said(&mut command)).await.unwrap();
        let wanted = json!({
            "push": true, "task": said["task"], "made": format!("{}/mine", hook.base),
            "got": format!("{}/mine", hook.base), "listed": 2, "secrets": ["", ""], "after": 1,
        });
        assert_eq!(said, wanted, "{binding}");
        let seen = hook.until_at("/inline", 5).await;
        let last = &seen[seen.len() - 1].body["statusUpdate"];
        assert_eq!((&last["taskId"], &last["status"]["state"]), (&said["task"], &json!("TASK_STATE_COMPLETED")));
        for one in &seen {
            assert_eq!(one.header("authorization"), "Bearer sdk-secret");
            assert_eq!(one.header("x-a2a-notification-token"), "sdk-token");
        }
        let texts: Vec<&Value> =
            seen.iter().map(|s| &s.body["artifactUpdate"]["artifact"]["parts"][0]["text"]).collect();
        assert!(texts.contains(&&json!("It shall be: red")), "{texts:?}");
    }
}
