//! The A2A door and what is wrong on the wire: the table of errors (A2A 1.0.1, section 5.4) over
//! both bindings, versions, and the older generation.

use crate::a2a::message;
use crate::rest::{ALICE, folder};
use conformance::served::Served;
use serde_json::{Value, json};

const V1: (&str, &str) = ("a2a-version", "1.0");

#[tokio::test]
async fn errors_are_those_of_the_table() {
    let folder = folder();
    let served = Served::start(&folder);
    let call = |id: Value, method: &str, params: Value| {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
    };
    let said = |part: Value| json!({ "message": { "messageId": "m", "role": "ROLE_USER", "parts": [part] } });
    let none = json!({ "id": "r-0" });
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let cases: Vec<(String, i64)> = vec![
        ("{".into(), -32700),
        (deep, -32700),
        ("{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\"}".into(), -32700),
        ("[]".into(), -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"GetTask\"}]".into(), -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"GetTask\"}".into(), -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"GetTask\"}".into(), -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1}".into(), -32600),
        (call(Value::Null, "GetTask", none.clone()), -32600),
        (call(json!(1), "NoSuchMethod", json!({})), -32601),
        (call(json!(1), "message/send", json!({})), -32601),
        (call(json!(1), "SendMessage", json!([])), -32602),
        (call(json!(1), "SendMessage", json!({})), -32602),
        (call(json!(1), "SendMessage", json!({ "message": { "messageId": "m", "role": "ROLE_USER" } })), -32602),
        (call(json!(1), "SendMessage", json!({ "message": { "messageId": "m", "parts": [{ "text": "x" }] } })), -32602),
        (call(json!(1), "SendMessage", said(json!({}))), -32602),
        (call(json!(1), "SendMessage", said(json!({ "text": "x", "mediaType": "image/png" }))), -32005),
        (call(json!(1), "SendMessage", said(json!({ "text": "x", "metadata": { "m": "m".repeat(20_000) } }))), -32602),
        (call(json!(1), "GetTask", json!({})), -32602),
        (call(json!(1), "GetTask", none.clone()), -32001),
        (call(json!(1), "CancelTask", none.clone()), -32001),
        (call(json!(1), "SubscribeToTask", none.clone()), -32001),
        (call(json!(1), "CreateTaskPushNotificationConfig", none), -32003),
    ];
    for (body, code) in cases {
        let answer = served.post("/a2a/quick", &[ALICE, V1], body.clone()).await;
        let json = answer.json();
        assert_eq!((answer.status, &json["error"]["code"]), (200, &json!(code)), "{body:.200}: {answer:?}");
        assert!(json["error"]["message"].as_str().is_some_and(|m| !m.is_empty()));
        if (-32009..=-32001).contains(&code) {
            let info = &json["error"]["data"][0];
            assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo", "{json}");
            assert_eq!(info["domain"], "a2a-protocol.org");
        }
    }
    // The id comes back as it is.
    for id in [json!("a"), json!(12_345_678_901_i64)] {
        let answer = served.post("/a2a/quick/", &[ALICE, V1], call(id.clone(), "GetTask", json!({ "id": "x" }))).await;
        assert_eq!(answer.json()["id"], id);
    }
    let text = served.post("/a2a/quick", &[ALICE, V1, ("content-type", "text/plain")], "{}").await;
    assert_eq!(text.json()["error"]["code"], -32005);
    // Fields nobody knows are nobody's business.
    let mut more = message("m-more", "go");
    more["message"]["unknown"] = json!({ "a": 1 });
    more["message"]["parts"][0]["metadata"] = json!({ "m": "m".repeat(10_000) });
    more["tenant"] = json!("");
    let answer = served.post("/a2a/quick", &[ALICE, V1], call(json!(1), "SendMessage", more)).await;
    assert_eq!(answer.json()["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED");
}

#[tokio::test]
async fn over_http_they_have_a_status_and_a_name() {
    let folder = folder();
    let served = Served::start(&folder);
    let at = |path: &str| format!("/a2a/quick/rest/{path}");
    let done = served.post(&at("message:send"), &[ALICE, V1], message("m", "go").to_string()).await;
    let id = done.json()["task"]["id"].as_str().unwrap().to_owned();
    let posts: Vec<(String, String, u16, &str)> = vec![
        (at("message:send"), "{".into(), 400, "INVALID_ARGUMENT"),
        (at("message:send"), "{}".into(), 400, "INVALID_ARGUMENT"),
        (at("tasks/r-0:cancel"), String::new(), 404, "NOT_FOUND"),
        (at(&format!("tasks/{id}:cancel")), String::new(), 400, "FAILED_PRECONDITION"),
        (at(&format!("tasks/{id}:subscribe")), String::new(), 400, "FAILED_PRECONDITION"),
        (at(&format!("tasks/{id}/pushNotificationConfigs")), "{}".into(), 400, "FAILED_PRECONDITION"),
        (at("nothing"), "{}".into(), 404, "NOT_FOUND"),
    ];
    for (path, body, status, name) in posts {
        let answer = served.post(&path, &[ALICE, V1], body).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"], &error["status"]), (status, &json!(status), &json!(name)), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(error["details"].is_array(), "{error}");
    }
    // Without a version 0.3 is meant, and that is not spoken here.
    for version in [None, Some("0.3"), Some("2.0"), Some("1.0.1")] {
        let headers: Vec<(&str, &str)> = std::iter::once(ALICE).chain(version.map(|v| ("a2a-version", v))).collect();
        let answer = served.get(&at(&format!("tasks/{id}")), &headers).await;
        assert_eq!(answer.status, 400, "{version:?}");
        assert_eq!(answer.json()["error"]["details"][0]["reason"], "VERSION_NOT_SUPPORTED");
    }
    let queried = served.get(&at(&format!("tasks/{id}?A2A-Version=1.0")), &[ALICE]).await;
    assert_eq!(queried.status, 200, "{queried:?}");
}

/// The older generation, on the same URL.
#[tokio::test]
async fn without_a_version_0_3_is_spoken() {
    let folder = folder();
    let served = Served::start(&folder);
    let call = async |agent: &str, method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        served.post(&format!("/a2a/{agent}"), &[ALICE], body).await.json()
    };
    let said = |id: &str, text: &str, more: Value| {
        let mut message = json!({
            "kind": "message", "messageId": id, "role": "user", "parts": [{ "kind": "text", "text": text }],
        });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "message": message })
    };
    let asked = call("asker", "message/send", said("m-1", "go", json!({}))).await["result"].clone();
    assert_eq!((&asked["kind"], &asked["status"]["state"]), (&json!("task"), &json!("input-required")), "{asked}");
    let question = json!([{ "kind": "text", "text": "Which?" }]);
    assert_eq!(asked["status"]["message"]["parts"], question);
    assert_eq!((&asked["history"][0]["role"], &asked["history"][0]["kind"]), (&json!("user"), &json!("message")));
    let follow = said("m-2", "red", json!({ "taskId": asked["id"], "contextId": asked["contextId"] }));
    let done = call("asker", "message/send", follow).await["result"].clone();
    assert_eq!((&done["id"], &done["status"]["state"]), (&asked["id"], &json!("completed")));
    let answer = json!([{ "kind": "text", "text": "heard: red" }]);
    assert_eq!(done["artifacts"][0]["parts"], answer);
    let got = call("asker", "tasks/get", json!({ "id": asked["id"] })).await;
    assert_eq!(got["result"], done);
    assert_eq!(call("asker", "tasks/cancel", json!({ "id": asked["id"] })).await["error"]["code"], -32002);
    assert_eq!(call("asker", "GetTask", json!({ "id": asked["id"] })).await["error"]["code"], -32601);
    assert_eq!(call("asker", "tasks/list", json!({})).await["error"]["code"], -32601);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": said("m-3", "go", json!({})) });
    let mut stream = served.open("/a2a/quick", &[ALICE], body.to_string()).await;
    stream.end().await;
    let events: Vec<Value> = stream
        .heard
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["result"].clone())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("task", "status-update"), "{kinds:?}");
    let finals: Vec<&Value> = events.iter().filter(|e| e["final"] == true).collect();
    assert!(finals.len() == 1 && finals[0] == events.last().unwrap(), "only the last is final: {events:?}");
    assert!(kinds.contains(&"artifact-update"));
}

/// What no path or method serves is refused in the form of the binding, not of the library.
#[tokio::test]
async fn what_is_not_served_is_refused_in_the_words_of_the_protocol() {
    let folder = folder();
    let served = Served::start(&folder);
    let refused = |answer: &conformance::served::Answer, status: u16| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["code"], status, "{answer:?}");
        assert!(error["status"].is_string() && error["message"].as_str().is_some_and(|m| !m.is_empty()));
    };
    for path in ["/a2a/quick/rest", "/a2a/quick/rest/", "/a2a/quick/rest/nothing", "/a2a/quick/rest/tasks/r-0/x"] {
        refused(&served.get(path, &[ALICE, V1]).await, 404);
        refused(&served.post(path, &[ALICE, V1], "{}").await, 404);
    }
    for (path, allow) in [("/a2a/quick/rest/message:send", "POST"), ("/a2a/quick", "POST")] {
        let answer = served.get(path, &[ALICE, V1]).await;
        refused(&answer, 405);
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    let answer = served.post("/.well-known/agent-card.json", &[], "{}").await;
    refused(&answer, 405);
    assert_eq!(answer.headers["allow"], "GET, HEAD");
    refused(&served.delete("/a2a/quick/rest/tasks/r-0", &[ALICE, V1]).await, 405);
    // The benign twin: what is served there is.
    assert_eq!(served.get("/a2a/quick/rest/tasks", &[ALICE, V1]).await.status, 200);
}

/// Requests in every form that ProtoJSON takes come to the same.
#[tokio::test]
async fn other_forms_of_a_request_are_taken() {
    let folder = folder();
    let served = Served::start(&folder);
    let call = async |method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        served.post("/a2a/quick", &[ALICE, V1], body).await.json()
    };
    let said = json!({ "message": {
        "message_id": "m-1", "role": 1, "context_id": "c", "task_id": null, "what_is_this": [1],
        "parts": [{ "raw": "Pz8_Pg", "media_type": "text/plain", "filename": "f" }],
    }, "configuration": { "history_length": "1", "accepted_output_modes": null } });
    let task = call("SendMessage", said).await["result"]["task"].clone();
    assert_eq!(task["artifacts"][0]["parts"][0]["text"], "quick: [f]\n???>", "{task}");
    assert_eq!((&task["contextId"], task["history"].as_array().unwrap().len()), (&json!("c"), 1));
    let listed = call("ListTasks", json!({ "page_size": "1", "status": 3, "context_id": "c" })).await;
    assert_eq!((&listed["result"]["totalSize"], &listed["result"]["pageSize"]), (&json!(1), &json!(1)), "{listed}");
    for wrong in [json!({ "pageSize": "one" }), json!({ "status": 99 }), json!({ "pageSize": 1.5 })] {
        assert_eq!(call("ListTasks", wrong.clone()).await["error"]["code"], -32602, "{wrong}");
    }
    let wrong = json!({ "message": { "messageId": "m", "role": 2, "parts": [{ "text": "x" }] } });
    assert_eq!(call("SendMessage", wrong).await["error"]["code"], -32602, "an agent's role");
}

/// Clients of 0.3 read a stream where they asked for one, also when it is an error and nothing else.
#[tokio::test]
async fn a_stream_that_cannot_begin_says_so_to_clients_of_0_3() {
    let folder = folder();
    let served = Served::start(&folder);
    let body = |method: &str, params: Value| {
        json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string()
    };
    let stream = ("accept", "text/event-stream");
    let none = body("tasks/resubscribe", json!({ "id": "r-0000000000000000" }));
    let answer = served.post("/a2a/quick", &[ALICE, stream], none.clone()).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    assert!(answer.body.starts_with("data: {") && answer.body.ends_with("}\n\n"), "{answer:?}");
    assert_eq!((&answer.json()["error"]["code"], &answer.json()["id"]), (&json!(-32001), &json!(7)));
    // Whoever takes JSON gets it, and so does whoever asks for no stream, and whoever speaks 1.0.
    for (headers, body) in [
        (vec![ALICE], none.clone()),
        (vec![ALICE, stream], body("tasks/get", json!({ "id": "r-0000000000000000" }))),
        (vec![ALICE, stream, V1], body("SubscribeToTask", json!({ "id": "r-0000000000000000" }))),
    ] {
        let answer = served.post("/a2a/quick", &headers, body).await;
        assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
        assert_eq!(answer.json()["error"]["code"], -32001);
    }
    let nobody = served.post("/a2a/quick", &[stream], none).await;
    assert_eq!((nobody.status, nobody.headers["content-type"].to_str().unwrap()), (401, "application/json"));
}
