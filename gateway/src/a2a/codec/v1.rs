//! A2A 1.0 as ProtoJSON has it: what a field may be written as besides its own form. A name may be
//! that of the proto (`message_id`), a number a string, an enum its number; null is absent. What is
//! the client's own (`data`, `metadata`) is left as it is, and so is what is not known.

use serde_json::{Map, Value};

/// What a field is.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Int,
    Role,
    State,
    /// An object with fields of its own, or a list of them.
    Inner,
}

/// The fields of requests, whatever the request: no name means two things.
const FIELDS: [(&str, Kind); 26] = [
    ("id", Kind::Plain),
    ("taskId", Kind::Plain),
    ("messageId", Kind::Plain),
    ("contextId", Kind::Plain),
    ("referenceTaskIds", Kind::Plain),
    ("tenant", Kind::Plain),
    ("message", Kind::Inner),
    ("parts", Kind::Inner),
    ("configuration", Kind::Inner),
    ("taskPushNotificationConfig", Kind::Inner),
    ("authentication", Kind::Inner),
    ("role", Kind::Role),
    ("status", Kind::State),
    ("historyLength", Kind::Int),
    ("pageSize", Kind::Int),
    ("pageToken", Kind::Plain),
    ("statusTimestampAfter", Kind::Plain),
    ("includeArtifacts", Kind::Plain),
    ("returnImmediately", Kind::Plain),
    ("acceptedOutputModes", Kind::Plain),
    ("mediaType", Kind::Plain),
    ("filename", Kind::Plain),
    ("url", Kind::Plain),
    ("token", Kind::Plain),
    ("scheme", Kind::Plain),
    ("credentials", Kind::Plain),
];

const ROLES: [&str; 3] = ["ROLE_UNSPECIFIED", "ROLE_USER", "ROLE_AGENT"];
const STATES: [&str; 9] = [
    "TASK_STATE_UNSPECIFIED",
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
    "TASK_STATE_AUTH_REQUIRED",
];

/// Parameters in their own form.
pub(super) fn params(params: Value) -> Value {
    match params {
        Value::Object(given) => {
            let mut out = Map::new();
            for (name, value) in given {
                let camel = camel(&name);
                let known = FIELDS.iter().find(|(known, _)| *known == camel);
                match known {
                    // Its own name counts before the other one.
                    Some((known, kind)) if *known == name || !out.contains_key(*known) => {
                        if !value.is_null() {
                            out.insert((*known).to_owned(), form(*kind, value));
                        }
                    }
                    Some(_) => {}
                    None => drop(out.insert(name, value)),
                }
            }
            Value::Object(out)
        }
        other => other,
    }
}

fn form(kind: Kind, value: Value) -> Value {
    match (kind, value) {
        (Kind::Inner, Value::Array(items)) => items.into_iter().map(params).collect(),
        (Kind::Inner, inner) => params(inner),
        (Kind::Int, value) => whole(&value).map_or(value, Value::from),
        (Kind::Role, value) => named(&value, &ROLES).unwrap_or(value),
        (Kind::State, value) => named(&value, &STATES).unwrap_or(value),
        (Kind::Plain, value) => value,
    }
}

/// `"3"`, `3.0` and `3` are one number.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            let float = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= f64::from(i32::MAX));
            // Whole and small by the line above.
            number.as_i64().or_else(|| float.map(|f| f as i64))
        }
        _ => None,
    }
}

fn named(value: &Value, names: &[&str]) -> Option<Value> {
    let number = usize::try_from(value.as_u64()?).ok()?;
    names.get(number).map(|name| Value::from(*name))
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or("").to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn other_forms_become_the_one() {
        let given = json!({
            "message": {
                "message_id": "m", "role": 1, "task_id": null, "context_id": "c",
                "parts": [{ "text": "a", "media_type": "text/plain", "metadata": { "media_type": "mine" } },
                          { "data": { "message_id": 1, "role": 1, "x": null } }],
                "metadata": { "history_length": "1" }, "unknown_field": null,
            },
            "configuration": { "history_length": "2", "return_immediately": true,
                               "task_push_notification_config": { "url": "u", "authentication": null } },
        });
        let wanted = json!({
            "message": {
                "messageId": "m", "role": "ROLE_USER", "contextId": "c",
                "parts": [{ "text": "a", "mediaType": "text/plain", "metadata": { "media_type": "mine" } },
                          { "data": { "message_id": 1, "role": 1, "x": null } }],
                "metadata": { "history_length": "1" }, "unknown_field": null,
            },
            "configuration": { "historyLength": 2, "returnImmediately": true,
                               "taskPushNotificationConfig": { "url": "u" } },
        });
        assert_eq!(params(given), wanted);
        let list = json!({ "page_size": 3.0, "status": 6, "historyLength": -1, "pageToken": "1" });
        let wanted =
            json!({ "pageSize": 3, "status": "TASK_STATE_INPUT_REQUIRED", "historyLength": -1, "pageToken": "1" });
        assert_eq!(params(list), wanted);
        // What is none stays wrong, for whoever looks at it next.
        let wrong = json!({ "pageSize": "many", "status": 99, "historyLength": 1.5 });
        assert_eq!(params(wrong.clone()), wrong);
        assert_eq!(params(json!({ "message_id": "a", "messageId": "b" })), json!({ "messageId": "b" }));
    }
}
