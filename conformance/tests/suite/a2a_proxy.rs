//! Peers passed on task for task at `/a2a/{peer}`: names of our own, whose each task is, what may be
//! said to whom, and what a restart leaves.

use crate::a2a::{code, message, result, send, state, to_task};
use crate::a2a_peers::{Sdk, call, far_folder, headers, narrowed, near, uvicorn};
use crate::a2a_peers_faults::{card, event, peer, task};
use crate::kits;
use crate::rest::{ALICE, BOB};
use conformance::pleach::Folder;
use conformance::served::Served;
use conformance::upstream::{Act, Seen, Upstream, saying};
use serde_json::{Value, json};
use std::process::Command;

const V1: (&str, &str) = ("a2a-version", "1.0");
/// Nobody in particular.
const ANY: (&str, &str) = ("x-nobody", "1");

fn exposed(more: &str) -> String {
    format!("expose = true\n{more}")
}
/// Alice may do everything; Bob what is said.
fn clients(bob: &str) -> String {
    format!(
        "[clients.alice]\ntoken = {:?}\n[clients.bob]\ntoken = {:?}\npolicy = {{ tools = {{ allow = {bob} }} }}\n",
        &ALICE.1[7..],
        &BOB.1[7..]
    )
}
fn kill(served: &mut Served) {
    Command::new("kill").args(["-9", &served.pid().to_string()]).status().unwrap();
    served.ended_within(std::time::Duration::from_secs(10)).expect("it lives on");
}

#[tokio::test]
async fn another_pleach_over_each_of_its_interfaces_and_ours() {
    let far_folder = far_folder();
    let far = Served::start(&far_folder);
    for (path, binding, version) in [("", "JSONRPC", "1.0"), ("/rest", "HTTP+JSON", "1.0"), ("", "JSONRPC", "0.3")] {
        for streaming in [true, false] {
            let which = format!("{binding} {version} {streaming}");
            let interface = |path| json!({ "path": path, "protocolBinding": binding, "protocolVersion": version, "streaming": streaming });
            let (quick, asker) = (narrowed(&far, "quick", interface(path)), narrowed(&far, "asker", interface(path)));
            let table = exposed(&format!("url = {:?}\n{}", far.base, headers()));
            let (_folder, served) = near(&[("q", &quick.base, &table), ("a", &asker.base, &table)], "");
            let done = send(&served, ANY, "q", message("m-1", "hello")).await;
            assert_eq!(state(&done), "TASK_STATE_COMPLETED", "{which}: {done}");
            assert_eq!(done["artifacts"][0]["parts"][0]["text"], "quick: hello", "{which}: {done}");
            // The names are ours, and the message has the client's.
            let theirs = result(&far, ALICE, "quick", "ListTasks", json!({})).await;
            let names = theirs["tasks"].to_string();
            let (id, context) = (done["id"].as_str().unwrap(), done["contextId"].as_str().unwrap());
            assert!(id.starts_with("p-") && !names.contains(id) && !names.contains(context), "{which}: {done}");
            assert_eq!(done["history"][0]["messageId"], "m-1", "{which}: {done}");
            let got = result(&served, ANY, "q", "GetTask", json!({ "id": id })).await;
            assert_eq!((&got["id"], &got["artifacts"]), (&done["id"], &done["artifacts"]), "{which}");
            // The same message again is the same task, and the peer is told nothing.
            let count = theirs["totalSize"].as_u64();
            assert_eq!(send(&served, ANY, "q", message("m-1", "hello")).await["id"], done["id"], "{which}");
            assert_eq!(result(&far, ALICE, "quick", "ListTasks", json!({})).await["totalSize"].as_u64(), count);
            // A question, over our other binding.
            let asked = served.post("/a2a/a/rest/message:send", &[V1], message("m-2", "go").to_string()).await.json();
            let asked = asked["task"].clone();
            assert_eq!(state(&asked), "TASK_STATE_INPUT_REQUIRED", "{which}: {asked}");
            assert_eq!(asked["status"]["message"]["taskId"], asked["id"], "{which}: {asked}");
            let answered = send(&served, ANY, "a", to_task(&asked, "m-3", "red")).await;
            assert!(answered["artifacts"].to_string().contains("red"), "{which}: {answered}");
            // And one that is cancelled, in the words of 0.3.
            let old = json!({ "message": { "kind": "message", "messageId": "m-4", "role": "user",
                "parts": [{ "kind": "text", "text": "go" }] } });
            let said = json!({ "jsonrpc": "2.0", "id": 1, "method": "message/send", "params": old }).to_string();
            let asked = served.post("/a2a/a", &[], said).await.json()["result"].clone();
            assert_eq!((&asked["kind"], &asked["status"]["state"]), (&json!("task"), &json!("input-required")));
            let cancelled = result(&served, ANY, "a", "CancelTask", json!({ "id": asked["id"] })).await;
            assert_eq!(state(&cancelled), "TASK_STATE_CANCELED", "{which}: {cancelled}");
            let listed = result(&served, ANY, "a", "ListTasks", json!({ "status": "TASK_STATE_CANCELED" })).await;
            assert_eq!((&listed["totalSize"], &listed["tasks"][0]["id"]), (&json!(1), &asked["id"]), "{which}");
            assert_eq!(code(&served, ANY, "a", "CancelTask", json!({ "id": asked["id"] })).await, -32002, "{which}");
            assert_eq!(code(&served, ANY, "a", "SubscribeToTask", json!({ "id": asked["id"] })).await, -32004);
        }
    }
}

/// The clients that are not ours find the same behind `/a2a/{peer}` as at the peer itself, but for
/// one thing: a peer that streams is always asked for a stream, so that its task has a name before
/// it is done, and one that has a word in the place of a task for whoever asks otherwise tells a task.
#[test]
fn the_sdk_clients_in_front_of_the_system_under_test() {
    let far_folder = conformance::a2a::folder();
    let far = Served::start(&far_folder);
    let card = format!("{}/.well-known/agent-card.json", far.base);
    let script = |name: &str| format!("{}/tests/suite/clients/{name}", env!("CARGO_MANIFEST_DIR"));
    let said = |command: &mut Command| -> Value {
        let ran = conformance::pleach::Ran::of(command.output().unwrap());
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
        serde_json::from_str(ran.out.trim()).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
    };
    let (_folder, served) = near(&[("far", &card, &exposed(""))], "");
    let base = format!("{}/a2a/far", served.base);
    for binding in ["JSONRPC", "HTTP+JSON"] {
        let mut command = Command::new(kits().join("a2a/venv/bin/python"));
        let mut said = said(command.arg(script("a2a_v1.py")).args([&base, binding]));
        let stream = said["stream"].take();
        assert_eq!(
            (&stream[0], &stream[stream.as_array().unwrap().len() - 2]),
            (&json!("task"), &json!("artifact_update"))
        );
        let wanted = json!({
            "stream": null, "got": ["COMPLETED", "Hello from TCK"], "asks": ["INPUT_REQUIRED", "What shall it be?"],
            "watched": ["INPUT_REQUIRED", "WORKING", "COMPLETED"], "answered": ["COMPLETED", "It shall be: red"],
            "cancelled": "CANCELED", "message": ["task"], "listed": [2, true], "missing": "TaskNotFoundError",
            "configs": "PushNotificationNotSupportedError",
        });
        assert_eq!(said, wanted, "{binding}");
    }
    let mut command = Command::new(kits().join("a2a/venv03/bin/python"));
    let said = said(command.arg(script("a2a_v03.py")).args([&base, ""]));
    let turns = json!([
        "completed",
        "Hello from TCK",
        "input-required",
        "What shall it be?",
        "completed",
        "It shall be: red",
        "canceled"
    ]);
    assert_eq!(
        said,
        json!({ "stream": turns, "send": turns, "message": "task",
        "watched": ["working", "working", "completed", "held"] })
    );
}

/// Servers of both SDKs, killed gateway in between: what was begun is gone on with.
#[tokio::test]
async fn the_sdk_servers_and_a_kill_in_the_middle() {
    for (python, script, more) in [
        ("a2a/venv/bin/python", "peer_v1.py", &["JSONRPC"][..]),
        ("a2a/venv/bin/python", "peer_v1.py", &["HTTP+JSON"]),
        ("a2a/venv03/bin/python", "peer_v03.py", &[]),
    ] {
        let which = format!("{script} {more:?}");
        let peer = Sdk::start(python, script, &uvicorn(), more);
        let card = format!("{}/.well-known/agent-card.json", peer.1);
        let (folder, mut served) = near(&[("sdk", &card, &exposed(""))], "");
        let done = send(&served, ANY, "sdk", message("m-1", "hello")).await;
        assert_eq!(done["artifacts"][0]["parts"][0]["text"], "echo: hello", "{which}: {done}");
        let asked = send(&served, ANY, "sdk", message("m-2", "ask")).await;
        assert_eq!(asked["status"]["message"]["parts"][0]["text"], "Which?", "{which}: {asked}");
        let left = send(&served, ANY, "sdk", message("m-0", "ask")).await;
        let paused = call(&served, "sdk__echo", json!({ "message": "ask" })).await.json()["result"].clone();
        kill(&mut served);
        let served = Served::start(&folder);
        let got = result(&served, ANY, "sdk", "GetTask", json!({ "id": done["id"] })).await;
        assert_eq!(got["artifacts"], done["artifacts"], "{which}");
        let listed = result(&served, ANY, "sdk", "ListTasks", json!({})).await;
        assert_eq!(listed["totalSize"], 3, "{which}: {listed}");
        let path = format!("/a2a/sdk/rest/tasks/{}:subscribe", left["id"].as_str().unwrap());
        let mut watched = served.open(&path, &[V1], "{}".into()).await;
        watched.until("TASK_STATE_INPUT_REQUIRED").await;
        let cancelled = result(&served, ANY, "sdk", "CancelTask", json!({ "id": left["id"] })).await;
        assert_eq!((&cancelled["id"], state(&cancelled)), (&left["id"], "TASK_STATE_CANCELED"), "{which}: {cancelled}");
        watched.until("TASK_STATE_CANCELED").await;
        watched.end().await;
        assert!(watched.heard.contains(left["id"].as_str().unwrap()), "{which}: {}", watched.heard);
        let again = send(&served, ANY, "sdk", message("m-2", "ask")).await;
        assert_eq!((&again["id"], state(&again)), (&asked["id"], "TASK_STATE_INPUT_REQUIRED"), "{which}");
        let answered = send(&served, ANY, "sdk", to_task(&asked, "m-3", "red")).await;
        assert_eq!((&answered["id"], state(&answered)), (&asked["id"], "TASK_STATE_COMPLETED"), "{which}: {answered}");
        assert_eq!(answered["artifacts"][0]["parts"][0]["text"], "echo: red", "{which}: {answered}");
        // A skill's task, too: what was given out before the kill is its client's after it.
        let task = paused["structuredContent"]["task"].as_str().unwrap();
        let done = call(&served, "sdk__echo", json!({ "message": "blue", "task": task })).await;
        assert_eq!(done.json()["result"]["content"][0]["text"], "echo: blue", "{which}: {done:?}");
    }
}

/// Killed while the peer works: the message that is said again is not passed on again.
#[tokio::test]
async fn a_message_is_passed_on_once_whatever_happens() {
    let works = peer(true, |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") }))], true),
        "GetTask" => Act::Result(task("COMPLETED")),
        _ => Act::Error(json!({ "code": -32004, "message": "no" })),
    });
    let (folder, mut served) = near(&[("w", &works.base, &exposed(""))], "");
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message("m-1", "go") });
    let mut heard = served.open("/a2a/w", &[V1], body.to_string()).await;
    heard.until("TASK_STATE_WORKING").await;
    kill(&mut served);
    let served = Served::start(&folder);
    let done = send(&served, ANY, "w", message("m-1", "go")).await;
    assert_eq!((state(&done), &done["artifacts"][0]["parts"][0]["text"]), ("TASK_STATE_COMPLETED", &json!("done")));
    assert_eq!((works.came("SendStreamingMessage").len(), works.came("SendMessage").len()), (1, 0));
    // The twin: another message is another task.
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message("m-2", "go") });
    let mut heard = served.open("/a2a/w", &[V1], body.to_string()).await;
    heard.until("TASK_STATE_WORKING").await;
    assert_eq!(works.came("SendStreamingMessage").len(), 2);
}

/// Foreign and absent look the same; and what two clients call the same is not the same over there.
#[tokio::test]
async fn a_task_is_its_clients_and_nobody_elses() {
    let asks = peer(false, |seen| match seen.method.as_str() {
        "SendMessage" | "GetTask" | "CancelTask" => {
            let n = seen.body["params"]["message"]["messageId"].as_str().map_or(0, str::len);
            let mut task = task("INPUT_REQUIRED");
            task["contextId"] = format!("c-{n}").into();
            Act::Result(if seen.method == "SendMessage" { json!({ "task": task }) } else { task })
        }
        _ => Act::Error(json!({ "code": -32004, "message": "no" })),
    });
    let table = exposed("headers = { Authorization = \"Bearer the-operators\" }");
    let (_folder, served) = near(&[("w", &asks.base, &table)], &clients("[\"w__*\"]"));
    let own = send(&served, ALICE, "w", message("m-1", "go")).await;
    let got = result(&served, ALICE, "w", "GetTask", json!({ "id": own["id"] })).await;
    assert_eq!(got["id"], own["id"]);
    let count = asks.came("GetTask").len();
    for method in ["GetTask", "CancelTask", "SubscribeToTask", "SendMessage"] {
        for id in [&own["id"], &json!("p-0000000000000000")] {
            let params =
                if method == "SendMessage" { to_task(&json!({ "id": id }), "m", "x") } else { json!({ "id": id }) };
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
            let told = served.post("/a2a/w", &[BOB, V1], body).await.json()["error"].clone();
            let wanted = format!("no task of yours is named {id} here");
            assert_eq!((&told["code"], told["message"].as_str().unwrap()), (&json!(-32001), wanted.as_str()));
        }
    }
    let rest = |id: &str| format!("/a2a/w/rest/tasks/{id}");
    let strange = served.get(&rest(own["id"].as_str().unwrap()), &[BOB, V1]).await;
    let absent = served.get(&rest("p-0000000000000000"), &[BOB, V1]).await;
    assert_eq!((strange.status, absent.status), (404, 404));
    assert_eq!(result(&served, BOB, "w", "ListTasks", json!({})).await["totalSize"], 0);
    assert_eq!((asks.came("GetTask").len(), asks.came("CancelTask").len()), (count, 0), "the peer hears nothing");
    // The peer's own name of it is nobody's here, and a foreign conversation begins another.
    assert_eq!(code(&served, ALICE, "w", "GetTask", json!({ "id": "t-1" })).await, -32001);
    let mut into = message("m-9", "go");
    into["message"]["contextId"] = own["contextId"].clone();
    send(&served, BOB, "w", into.clone()).await;
    send(&served, BOB, "w", message("m-1", "go")).await;
    send(&served, ALICE, "w", into).await;
    let came: Vec<Value> = asks.came("SendMessage").iter().map(|s| s.body["params"]["message"].clone()).collect();
    assert_eq!((came.len(), came[1].get("contextId")), (4, None), "{came:?}");
    assert_ne!(came[0]["messageId"], came[2]["messageId"], "{came:?}");
    assert!(came[3]["contextId"].as_str().unwrap().starts_with("c-"), "its own conversation goes on: {came:?}");
    // What a client shows to us goes no further.
    for seen in asks.came("SendMessage") {
        assert_eq!(seen.header("authorization"), "Bearer the-operators");
    }
}

/// A peer with two skills.
fn two() -> Upstream {
    Upstream::of(|base| {
        let mut card = card(base, false);
        card["skills"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "id": "erase", "name": "erase", "description": "Erases.", "tags": ["x"] }));
        card["securitySchemes"] = json!({ "theirs": { "httpAuthSecurityScheme": { "scheme": "Bearer" } } });
        move |seen: &Seen| match seen.method.as_str() {
            "GET" => Act::Status(200, card.clone()),
            _ => Act::Result(json!({ "task": task("COMPLETED") })),
        }
    })
}

/// What is denied never reaches the peer, and is not to be seen; its twin does and is.
#[tokio::test]
async fn the_rules_of_its_skills_decide() {
    let both = two();
    let (folder, served) = near(&[("w", &both.base, &exposed(""))], &clients("[\"w__act\"]"));
    let said = |id: &str, skill: Option<&str>| {
        let mut params = message(id, "go");
        if let Some(skill) = skill {
            params["message"]["metadata"] = json!({ "skillId": skill });
        }
        params
    };
    let card_for = async |who: &[(&str, &str)]| {
        let answer = served.get("/a2a/w/.well-known/agent-card.json", who).await;
        let skills = answer.json()["skills"].as_array().cloned().unwrap_or_default();
        let ids: Vec<String> = skills.iter().map(|skill| skill["id"].as_str().unwrap().to_owned()).collect();
        (ids, answer)
    };
    let (all, answer) = card_for(&[ALICE]).await;
    assert_eq!(all, ["act", "erase"]);
    let shown = answer.json();
    assert_eq!(shown["supportedInterfaces"][0]["url"], format!("{}/a2a/w", served.base), "{shown}");
    assert!(shown["securitySchemes"].get("theirs").is_none() && shown["securitySchemes"].get("bearer").is_some());
    assert!(!answer.body.contains(&both.base), "{shown}");
    assert_eq!(card_for(&[BOB]).await.0, ["act"]);
    // Bob: one skill is his, the other is none.
    assert_eq!(code(&served, BOB, "w", "SendMessage", said("m-1", Some("erase"))).await, -32602);
    assert_eq!(both.came("SendMessage").len(), 0);
    for (id, skill) in [("m-2", Some("act")), ("m-3", None)] {
        assert_eq!(state(&send(&served, BOB, "w", said(id, skill)).await), "TASK_STATE_COMPLETED");
    }
    let named = |n: usize| both.came("SendMessage")[n].body["params"]["message"]["metadata"]["skillId"].clone();
    assert_eq!((both.came("SendMessage").len(), named(0), named(1)), (2, json!("act"), json!("act")));
    // Alice may use both, and need not say which.
    send(&served, ALICE, "w", said("m-4", Some("erase"))).await;
    send(&served, ALICE, "w", said("m-5", None)).await;
    assert_eq!((named(2), named(3)), (json!("erase"), Value::Null));
    // Each that left is on record, and the one that did not is not.
    let record = folder.run(&["audit", "show", "--json"]);
    let calls = record.out.lines().filter(|l| l.contains("\"w__") && l.contains("\"call\"")).count();
    assert!(calls >= 4, "{record:?}");
    // Nobody in particular, a client of none of its skills, and a peer nobody exposes.
    assert_eq!(served.post("/a2a/w", &[V1], "{}").await.status, 401);
    let (_folder, other) = near(&[("w", &both.base, &exposed("")), ("h", &both.base, "")], &clients("[]"));
    let before = both.came("SendMessage").len();
    for (who, peer) in [(BOB, "w"), (ALICE, "h"), (BOB, "x")] {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": message("m-1", "go") });
        let told = other.post(&format!("/a2a/{peer}"), &[who, V1], body.to_string()).await;
        assert!(told.status == 404 && told.body.contains("there is no agent"), "{peer}: {told:?}");
        let card = other.get(&format!("/a2a/{peer}/.well-known/agent-card.json"), &[who]).await;
        assert_eq!(card.status, 404, "{peer}: {card:?}");
    }
    assert_eq!(both.came("SendMessage").len(), before);
    send(&other, ALICE, "w", message("m-1", "go")).await;
    assert_eq!(both.came("SendMessage").len(), before + 1);
}

/// A stream that breaks is taken up, and nothing is told twice.
#[tokio::test]
async fn a_broken_stream_is_one_stream_to_the_client() {
    let made = |text: &str| json!({ "artifactId": "a", "parts": [{ "text": text }] });
    let breaks = peer(true, move |seen| match seen.method.as_str() {
        "SendStreamingMessage" => {
            let part = json!({ "artifactUpdate": { "taskId": "t-1", "contextId": "c-1", "artifact": made("one") } });
            saying([event(seen, json!({ "task": task("WORKING") })), event(seen, part)], false)
        }
        "SubscribeToTask" => {
            let mut now = task("WORKING");
            now["artifacts"] = json!([made("one"), { "artifactId": "b", "parts": [{ "text": "two" }] }]);
            let done = json!({ "statusUpdate": { "taskId": "t-1", "status": { "state": "TASK_STATE_COMPLETED" } } });
            saying([event(seen, json!({ "task": now })), event(seen, done)], true)
        }
        _ => Act::Status(500, json!({})),
    });
    let (_folder, served) = near(&[("w", &breaks.base, &exposed(""))], "");
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message("m-1", "go") });
    let mut heard = served.open("/a2a/w", &[V1], body.to_string()).await;
    heard.end().await;
    let kinds: Vec<String> = heard
        .heard
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| {
            let (kind, value) = serde_json::from_str::<Value>(data).unwrap()["result"]
                .as_object()
                .unwrap()
                .iter()
                .next()
                .map(|(k, v)| (k.clone(), v.clone()))
                .unwrap();
            let said = value.to_string();
            assert!(!said.contains("\"t-1\"") && !said.contains("\"c-1\""), "{value}");
            match kind.as_str() {
                "artifactUpdate" => value["artifact"]["parts"][0]["text"].as_str().unwrap().to_owned(),
                _ => format!("{kind} {}", state(&value)),
            }
        })
        .collect();
    assert_eq!(kinds, ["task TASK_STATE_WORKING", "one", "two", "statusUpdate TASK_STATE_COMPLETED"]);
}

/// The secrets of this house are in no word of a peer that is passed on.
#[tokio::test]
async fn a_peers_words_hold_no_secrets() {
    let leaks = peer(false, |seen| {
        let mut task = task("COMPLETED");
        task["artifacts"][0]["parts"][0]["text"] = seen.header("authorization").into();
        Act::Result(json!({ "task": task }))
    });
    let folder = Folder::new(&format!(
        "version = 1\n[secrets.key]\nenv = \"PEER_KEY\"\n[peers.w]\ncard = {:?}\nexpose = true\ndefault_access = \"read-only\"\nheaders = {{ Authorization = \"${{secret:key}}\" }}\n[policy]\ntools.allow = [\"*\"]\n",
        leaks.base
    ));
    let served = Served::start_with(&folder, &[("PEER_KEY", "very-secret-word-1")]);
    let done = send(&served, ANY, "w", message("m-1", "go")).await;
    assert_eq!(leaks.came("SendMessage")[0].header("authorization"), "very-secret-word-1");
    assert!(!done.to_string().contains("very-secret-word-1"), "{done}");
    assert_eq!(state(&done), "TASK_STATE_COMPLETED", "{done}");
}
