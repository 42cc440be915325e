//! Clients of the A2A protocol that are not ours, of both its generations, against the scripted
//! system under test: sending, streaming, several turns, subscribing, cancelling.

use crate::kits;
use conformance::a2a;
use conformance::served::Served;
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
