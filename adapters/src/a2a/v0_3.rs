//! A2A 0.3 as a client speaks it: our requests in its words, its answers in those of 1.0. What is
//! not known is left as it is, and numbers keep their text.

use policies::json::{Json, Object};

/// The name of an operation.
pub(super) fn method(name: &'static str) -> &'static str {
    match name {
        "SendMessage" => "message/send",
        "SendStreamingMessage" => "message/stream",
        "GetTask" => "tasks/get",
        "CancelTask" => "tasks/cancel",
        "SubscribeToTask" => "tasks/resubscribe",
        other => other,
    }
}

/// The parameters of a request.
pub(super) fn params(params: &mut Object) {
    if let Some(Json::Object(message)) = params.get_mut("message") {
        message.set("kind", "message");
        message.set("role", "user");
        for part in message.get_mut("parts").and_then(Json::as_array_mut).into_iter().flatten() {
            let Some(part) = part.as_object_mut() else { continue };
            if part.get("text").is_some() {
                part.set("kind", "text");
            } else if let Some(data) = part.remove("data") {
                part.set("kind", "data");
                // It has objects only.
                let data = if data.as_object().is_some() { data } else { Json::object([("value", data)]) };
                part.set("data", data);
            } else {
                let mut file = Object::new();
                for (ours, its) in [("raw", "bytes"), ("url", "uri"), ("mediaType", "mimeType"), ("filename", "name")] {
                    if let Some(value) = part.remove(ours) {
                        file.set(its, value);
                    }
                }
                part.set("kind", "file");
                part.set("file", file);
            }
        }
    }
    if let Some(Json::Object(configuration)) = params.get_mut("configuration")
        && let Some(at_once) = configuration.remove("returnImmediately")
    {
        configuration.set("blocking", at_once != Json::Bool(true));
    }
}

/// An answer to a message, or an event, with the one key that says what it is.
pub(super) fn update(update: Json) -> Json {
    let kind = update.get("kind").and_then(Json::as_str).unwrap_or_default().to_owned();
    let (key, inner) = match kind.as_str() {
        "task" => ("task", task(update)),
        "message" => ("message", message(update)),
        "status-update" => ("statusUpdate", inner(update, "status", status)),
        "artifact-update" => ("artifactUpdate", inner(update, "artifact", artifact)),
        _ => return update,
    };
    Json::object([(key, inner)])
}

/// A task.
pub(super) fn task(task: Json) -> Json {
    let mut task = inner(task, "status", status);
    for made in task.as_object_mut().and_then(|t| t.get_mut("artifacts")?.as_array_mut()).into_iter().flatten() {
        *made = artifact(std::mem::replace(made, Json::Null));
    }
    task
}

/// The value under a key, changed.
fn inner(mut of: Json, key: &str, change: fn(Json) -> Json) -> Json {
    if let Some(value) = of.as_object_mut().and_then(|o| o.get_mut(key)) {
        *value = change(std::mem::replace(value, Json::Null));
    }
    of
}

fn status(status: Json) -> Json {
    let mut status = inner(status, "message", message);
    let state = match status.get("state").and_then(Json::as_str) {
        Some("submitted") => "TASK_STATE_SUBMITTED",
        Some("working") => "TASK_STATE_WORKING",
        Some("input-required") => "TASK_STATE_INPUT_REQUIRED",
        Some("auth-required") => "TASK_STATE_AUTH_REQUIRED",
        Some("completed") => "TASK_STATE_COMPLETED",
        Some("failed") => "TASK_STATE_FAILED",
        Some("canceled") => "TASK_STATE_CANCELED",
        Some("rejected") => "TASK_STATE_REJECTED",
        _ => return status,
    };
    if let Some(status) = status.as_object_mut() {
        status.set("state", state);
    }
    status
}

fn message(message: Json) -> Json {
    let mut message = parts(message);
    let role = if message.get("role").and_then(Json::as_str) == Some("user") { "ROLE_USER" } else { "ROLE_AGENT" };
    if let Some(message) = message.as_object_mut() {
        message.set("role", role);
    }
    message
}

fn artifact(artifact: Json) -> Json {
    parts(artifact)
}

fn parts(mut of: Json) -> Json {
    for part in of.as_object_mut().and_then(|o| o.get_mut("parts")?.as_array_mut()).into_iter().flatten() {
        let Some(part) = part.as_object_mut() else { continue };
        part.remove("kind");
        let Some(Json::Object(file)) = part.remove("file") else { continue };
        for (key, value) in file.into_entries() {
            let key = match key.as_str() {
                "bytes" => "raw",
                "uri" => "url",
                "mimeType" => "mediaType",
                "name" => "filename",
                other => other,
            };
            part.set(key, value);
        }
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::json::Limits;

    fn parsed(text: &str) -> Json {
        Json::parse(text.as_bytes(), Limits::default()).unwrap()
    }

    #[test]
    fn requests_in_its_words() {
        let given = r#"{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"a"},{"data":{"n":1E2}},{"data":[1]},{"raw":"Yg==","mediaType":"text/plain","filename":"f"}]},"configuration":{"returnImmediately":true}}"#;
        let Json::Object(mut object) = parsed(given) else { panic!() };
        params(&mut object);
        let wanted = r#"{"message":{"messageId":"m","role":"user","parts":[{"text":"a","kind":"text"},{"kind":"data","data":{"n":1E2}},{"kind":"data","data":{"value":[1]}},{"kind":"file","file":{"bytes":"Yg==","mimeType":"text/plain","name":"f"}}],"kind":"message"},"configuration":{"blocking":false}}"#;
        assert_eq!(Json::Object(object).to_text(), wanted);
    }

    #[test]
    fn answers_in_ours() {
        let given = r#"{"kind":"task","id":"t","x":1.50,"status":{"state":"input-required","message":{"kind":"message","role":"agent","parts":[{"kind":"text","text":"?"}]}},"artifacts":[{"artifactId":"a","parts":[{"kind":"file","file":{"uri":"u","mimeType":"x/y"}},{"kind":"data","data":{"n":1E2}}]}]}"#;
        let wanted = r#"{"task":{"kind":"task","id":"t","x":1.50,"status":{"state":"TASK_STATE_INPUT_REQUIRED","message":{"kind":"message","role":"ROLE_AGENT","parts":[{"text":"?"}]}},"artifacts":[{"artifactId":"a","parts":[{"url":"u","mediaType":"x/y"},{"data":{"n":1E2}}]}]}}"#;
        assert_eq!(update(parsed(given)).to_text(), wanted);
        let event = update(parsed(r#"{"kind":"status-update","taskId":"t","status":{"state":"working"}}"#));
        assert_eq!(event.pointer("/statusUpdate/status/state").and_then(Json::as_str), Some("TASK_STATE_WORKING"));
        let event = update(parsed(r#"{"kind":"artifact-update","artifact":{"artifactId":"a","parts":[]}}"#));
        assert!(event.get("artifactUpdate").is_some());
    }
}
