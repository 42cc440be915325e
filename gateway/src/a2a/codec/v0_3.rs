//! A2A 0.3: pure translations of JSON, both ways. What is not known is left as it is.

use super::super::ops::Op;
use serde_json::{Map, Value, json};

/// Parameters, from 0.3 to 1.0.
pub(crate) fn params(op: Op, mut params: Value) -> Value {
    if matches!(op, Op::SetPush | Op::GetPush | Op::ListPush | Op::DeletePush) {
        return incoming_push(op, &params);
    }
    if !matches!(op, Op::Send | Op::Stream) {
        return params;
    }
    if let Some(message) = params.get_mut("message").filter(|m| m.is_object()) {
        incoming_message(message);
    }
    if let Some(configuration) = params.get_mut("configuration").and_then(Value::as_object_mut) {
        if let Some(blocking) = configuration.remove("blocking") {
            configuration.insert("returnImmediately".into(), Value::Bool(blocking == Value::Bool(false)));
        }
        if let Some(config) = configuration.remove("pushNotificationConfig").filter(|config| !config.is_null()) {
            configuration.insert("taskPushNotificationConfig".into(), incoming_config(&config));
        }
    }
    params
}

/// What is asked of push configurations: 1.0 has it flat, and calls a task `taskId`.
fn incoming_push(op: Op, params: &Value) -> Value {
    let text = |key: &str| params.get(key).cloned().unwrap_or_default();
    match op {
        Op::SetPush => {
            let mut config = incoming_config(params.get("pushNotificationConfig").unwrap_or(&Value::Null));
            config["taskId"] = text("taskId");
            // It is set, not made: without a name there is the one of the task.
            if config.get("id").and_then(Value::as_str).is_none_or(str::is_empty) {
                config["id"] = text("taskId");
            }
            config
        }
        _ => json!({ "taskId": text("id"), "id": text("pushNotificationConfigId") }),
    }
}

fn incoming_config(config: &Value) -> Value {
    let mut out = Map::new();
    for key in ["id", "url", "token"] {
        if let Some(value) = config.get(key) {
            out.insert(key.into(), value.clone());
        }
    }
    if let Some(given) = config.get("authentication").filter(|given| !given.is_null()) {
        // Of several it is the first.
        let scheme = given.pointer("/schemes/0").cloned().unwrap_or_default();
        let credentials = given.get("credentials").cloned().unwrap_or_default();
        // An empty list is none.
        if !scheme.is_null() || !credentials.is_null() {
            out.insert("authentication".into(), json!({ "scheme": scheme, "credentials": credentials }));
        }
    }
    Value::Object(out)
}

fn config(config: &Value) -> Value {
    let mut inner = json!({ "id": config["id"], "url": config["url"] });
    if let Some(scheme) = config.pointer("/authentication/scheme") {
        inner["authentication"] = json!({ "schemes": [scheme] });
    }
    json!({ "taskId": config["taskId"], "pushNotificationConfig": inner })
}

fn incoming_message(message: &mut Value) {
    match message.get("role").and_then(Value::as_str) {
        Some("user") => message["role"] = "ROLE_USER".into(),
        Some("agent") => message["role"] = "ROLE_AGENT".into(),
        // A name of 1.0 is none here.
        Some(_) => message["role"] = "unknown".into(),
        None => {}
    }
    for part in message.get_mut("parts").and_then(Value::as_array_mut).into_iter().flatten() {
        *part = incoming_part(part);
    }
}

fn incoming_part(part: &Value) -> Value {
    let mut out = match part.get("kind").and_then(Value::as_str) {
        Some("text") => json!({ "text": part.get("text").cloned().unwrap_or_default() }),
        Some("data") => json!({ "data": part.get("data").cloned().unwrap_or_default() }),
        Some("file") => {
            let file = part.get("file").unwrap_or(&Value::Null);
            let mut out = Map::new();
            for (from, to) in [("bytes", "raw"), ("uri", "url"), ("mimeType", "mediaType"), ("name", "filename")] {
                if let Some(value) = file.get(from) {
                    out.insert(to.to_owned(), value.clone());
                }
            }
            Value::Object(out)
        }
        // No kind it knows: a part of nothing, which is refused.
        _ => json!({}),
    };
    if let Some(metadata) = part.get("metadata").filter(|_| part.get("kind").is_some()) {
        out["metadata"] = metadata.clone();
    }
    out
}

/// An answer, from 1.0 to 0.3.
pub(crate) fn answer(op: Op, answer: Value) -> Value {
    match op {
        Op::Send => update(answer),
        Op::Get | Op::Cancel => task(answer),
        Op::SetPush | Op::GetPush => config(&answer),
        Op::ListPush => answer["configs"].as_array().into_iter().flatten().map(config).collect(),
        Op::DeletePush => Value::Null,
        _ => answer,
    }
}

/// A `StreamResponse`, from 1.0 to 0.3.
pub(crate) fn update(mut update: Value) -> Value {
    for (key, to) in [("task", task as fn(Value) -> Value), ("message", message)] {
        if let Some(inner) = update.get_mut(key) {
            return to(inner.take());
        }
    }
    if let Some(inner) = update.get_mut("statusUpdate") {
        let mut event = inner.take();
        let last = event.pointer("/status/state").and_then(Value::as_str).is_some_and(ends_the_turn);
        if let Some(of) = event.get_mut("status") {
            *of = status(of.take());
        }
        event["kind"] = "status-update".into();
        event["final"] = last.into();
        return event;
    }
    if let Some(inner) = update.get_mut("artifactUpdate") {
        let mut event = inner.take();
        if let Some(of) = event.get_mut("artifact") {
            *of = artifact(of.take());
        }
        event["kind"] = "artifact-update".into();
        return event;
    }
    update
}

fn ends_the_turn(state: &str) -> bool {
    !matches!(state, "TASK_STATE_SUBMITTED" | "TASK_STATE_WORKING")
}

fn state(state: &str) -> &'static str {
    match state {
        "TASK_STATE_SUBMITTED" => "submitted",
        "TASK_STATE_WORKING" => "working",
        "TASK_STATE_INPUT_REQUIRED" => "input-required",
        "TASK_STATE_AUTH_REQUIRED" => "auth-required",
        "TASK_STATE_COMPLETED" => "completed",
        "TASK_STATE_FAILED" => "failed",
        "TASK_STATE_CANCELED" => "canceled",
        "TASK_STATE_REJECTED" => "rejected",
        _ => "unknown",
    }
}

fn task(mut task: Value) -> Value {
    if let Some(of) = task.get_mut("status") {
        *of = status(of.take());
    }
    for said in task.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        *said = message(said.take());
    }
    for made in task.get_mut("artifacts").and_then(Value::as_array_mut).into_iter().flatten() {
        *made = artifact(made.take());
    }
    task["kind"] = "task".into();
    task
}

fn status(mut status: Value) -> Value {
    if let Some(word) = status.get("state").and_then(Value::as_str) {
        status["state"] = state(word).into();
    }
    if let Some(of) = status.get_mut("message") {
        *of = message(of.take());
    }
    status
}

fn message(mut message: Value) -> Value {
    let role = if message.get("role").and_then(Value::as_str) == Some("ROLE_USER") { "user" } else { "agent" };
    message["role"] = role.into();
    message["kind"] = "message".into();
    parts(&mut message);
    message
}

fn artifact(mut artifact: Value) -> Value {
    parts(&mut artifact);
    artifact
}

fn parts(of: &mut Value) {
    for part in of.get_mut("parts").and_then(Value::as_array_mut).into_iter().flatten() {
        let mut out = Map::new();
        if let Some(text) = part.get("text") {
            out.insert("kind".into(), "text".into());
            out.insert("text".into(), text.clone());
        } else if let Some(data) = part.get("data") {
            out.insert("kind".into(), "data".into());
            // 0.3 has objects only.
            let data = if data.is_object() { data.clone() } else { json!({ "value": data }) };
            out.insert("data".into(), data);
        } else {
            let mut file = Map::new();
            for (from, to) in [("raw", "bytes"), ("url", "uri"), ("mediaType", "mimeType"), ("filename", "name")] {
                if let Some(value) = part.get(from) {
                    file.insert(to.into(), value.clone());
                }
            }
            out.insert("kind".into(), "file".into());
            out.insert("file".into(), file.into());
        }
        if let Some(metadata) = part.get("metadata") {
            out.insert("metadata".into(), metadata.clone());
        }
        *part = Value::Object(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_is_said_in_the_words_of_1_0() {
        let given = json!({
            "message": { "kind": "message", "messageId": "m", "role": "user", "parts": [
                { "kind": "text", "text": "a" }, { "kind": "data", "data": { "n": 1 } },
                { "kind": "file", "file": { "bytes": "Yg==", "mimeType": "text/plain", "name": "f" } },
                { "kind": "file", "file": { "uri": "https://x.example" } }, { "text": "of 1.0" },
            ] },
            "configuration": { "blocking": false, "historyLength": 2 },
        });
        let wanted = json!({
            "message": { "kind": "message", "messageId": "m", "role": "ROLE_USER", "parts": [
                { "text": "a" }, { "data": { "n": 1 } },
                { "raw": "Yg==", "mediaType": "text/plain", "filename": "f" }, { "url": "https://x.example" }, {},
            ] },
            "configuration": { "returnImmediately": true, "historyLength": 2 },
        });
        assert_eq!(params(Op::Send, given), wanted);
        assert_eq!(params(Op::Get, json!({ "id": "t" })), json!({ "id": "t" }));
    }

    #[test]
    fn push_configurations_are_flat_in_1_0() {
        let given = json!({ "taskId": "t", "pushNotificationConfig": {
            "url": "https://x.example", "token": "s", "authentication": { "schemes": ["Bearer", "Basic"], "credentials": "c" },
        } });
        let flat = json!({ "url": "https://x.example", "token": "s", "taskId": "t", "id": "t",
                           "authentication": { "scheme": "Bearer", "credentials": "c" } });
        assert_eq!(params(Op::SetPush, given.clone()), flat);
        let named = json!({ "id": "t", "pushNotificationConfigId": "c" });
        assert_eq!(params(Op::GetPush, named.clone()), json!({ "taskId": "t", "id": "c" }));
        assert_eq!(params(Op::ListPush, json!({ "id": "t" })), json!({ "taskId": "t", "id": null }));
        let sent = json!({ "configuration": { "pushNotificationConfig": given["pushNotificationConfig"] } });
        let sent = params(Op::Send, sent);
        assert_eq!(sent["configuration"]["taskPushNotificationConfig"]["authentication"]["scheme"], "Bearer");
        let shown = json!({ "id": "c", "taskId": "t", "url": "u", "authentication": { "scheme": "Bearer" } });
        let old = json!({ "taskId": "t", "pushNotificationConfig": {
            "id": "c", "url": "u", "authentication": { "schemes": ["Bearer"] },
        } });
        assert_eq!(answer(Op::GetPush, shown.clone()), old);
        assert_eq!(answer(Op::ListPush, json!({ "configs": [shown] })), json!([old]));
        assert_eq!(answer(Op::DeletePush, json!({})), Value::Null);
    }

    #[test]
    fn what_goes_out_is_said_in_the_words_of_0_3() {
        let message = json!({ "messageId": "m", "role": "ROLE_AGENT", "parts": [{ "text": "a" }, { "data": [1] }] });
        let task = json!({
            "id": "t", "status": { "state": "TASK_STATE_INPUT_REQUIRED", "message": message },
            "artifacts": [{ "artifactId": "a", "parts": [{ "url": "u", "mediaType": "x/y" }] }],
        });
        let said = answer(Op::Send, json!({ "task": task }));
        assert_eq!(said["kind"], "task");
        assert_eq!(said["status"]["state"], "input-required");
        let parts = json!([{ "kind": "text", "text": "a" }, { "kind": "data", "data": { "value": [1] } }]);
        assert_eq!(said["status"]["message"]["parts"], parts);
        assert_eq!(
            (&said["status"]["message"]["role"], &said["status"]["message"]["kind"]),
            (&json!("agent"), &json!("message"))
        );
        let file = json!([{ "kind": "file", "file": { "uri": "u", "mimeType": "x/y" } }]);
        assert_eq!(said["artifacts"][0]["parts"], file);
        for (state, last) in [("WORKING", false), ("COMPLETED", true), ("AUTH_REQUIRED", true)] {
            let state = format!("TASK_STATE_{state}");
            let event = update(json!({ "statusUpdate": { "taskId": "t", "status": { "state": state } } }));
            assert_eq!((&event["kind"], &event["final"]), (&json!("status-update"), &json!(last)), "{state}");
        }
    }
}
