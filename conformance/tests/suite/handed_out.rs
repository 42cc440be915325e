//! What the door hands out is good where it was given only: sessions, streams, cursors, tasks;
//! and what a client says goes on only where it means what it says.

use conformance::mirror_server::Mirror;
use conformance::official::binary;
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use conformance::upstream::{Act, Upstream, modern, told};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");

fn policy(server: &str) -> String {
    format!(
        "version = 1\n[servers.fix]\n{server}\ndefault_access = \"read-only\"\n[policy]\nmax_access = \"read-write\"\n\
         filesystem.read = [\"docs\"]\ntools.allow = [\"*\"]\n[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n\
         [clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n[models.default]\nprovider = \"scripted\"\n\
         script = \"replies.toml\"\n[agents.narrow]\nprompt = \"p\"\n"
    )
}
fn fixture(era: &str) -> String {
    format!("command = {:?}\nargs = [\"fixture\", {era:?}, \"stdio\"]", binary().display().to_string())
}

/// A notification in a session that nobody knows was taken as if it had been heard.
#[tokio::test]
async fn a_notification_of_no_session_is_refused() {
    let folder = Folder::new(&policy(&fixture("legacy")));
    let served = Served::start(&folder);
    let own = served.initialize("/mcp", &[ALICE]).await;
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
    for (session, who, status) in [(&*own, ALICE, 202), (&*own, BOB, 404), ("no-such-session", ALICE, 404)] {
        let headers = [who, ("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        let answer = served.post("/mcp", &headers, note.clone()).await;
        assert_eq!(answer.status, status, "{session} {}: {answer:?}", who.1);
    }
}

/// Every standing stream of a session stood on, and each was told everything.
#[tokio::test]
async fn a_session_has_one_standing_stream() {
    let folder = Folder::new(&policy(&fixture("legacy")));
    let served = Served::start(&folder);
    let session = served.initialize("/mcp", &[ALICE]).await;
    served.legacy("/mcp", &session, "tools/list", json!({}), &[ALICE]).await;
    let mut first = served.stand("/mcp", &session, &[ALICE]).await;
    let mut second = served.stand("/mcp", &session, &[ALICE]).await;
    assert_eq!((first.status(), second.status()), (200, 200));
    first.end().await;
    let change = json!({ "name": "fix__test_trigger_tool_change", "arguments": {} });
    served.legacy("/mcp", &session, "tools/call", change, &[ALICE]).await;
    second.until("notifications/tools/list_changed").await;
    assert!(!first.heard.contains("list_changed"), "{}", first.heard);
}

/// A page of a list could be taken up by another client and at another door.
#[tokio::test]
async fn a_cursor_is_good_where_it_was_given() {
    let names: Vec<String> = (0..2_001).map(|n| format!("t{n:04}")).collect();
    let upstream = Upstream::start(move |seen| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        modern(seen, json!({ "tools": {} }), &names).unwrap_or_else(|| Act::Result(told("done")))
    });
    let folder = Folder::new(&policy(&format!("url = {:?}", upstream.url())));
    let served = Served::start(&folder);
    let list = async |path: &str, who, params: Value| served.modern(path, "tools/list", params, &[who]).await.json();
    let first = list("/mcp", ALICE, json!({})).await;
    let next = json!({ "cursor": first["result"]["nextCursor"] });
    assert!(next["cursor"].is_string(), "{}", first["error"]);
    for (path, who) in [("/mcp", BOB), ("/mcp/agents/narrow", ALICE)] {
        let refused = list(path, who, next.clone()).await;
        assert_eq!(refused["error"]["code"], -32602, "{path} {}: {refused}", who.1);
    }
    let rest = list("/mcp", ALICE, next).await;
    assert!(rest["result"]["tools"].to_string().contains("fix__t2000"), "{rest}");
}

/// A server's task that was handed to one client was followed by another, and at another door.
#[tokio::test]
async fn a_servers_task_is_good_where_it_was_given() {
    let folder = Folder::new(&policy(&fixture("modern")));
    let served = Served::start(&folder);
    let ask = async |path: &str, who, method: &str, mut params: Value| {
        let can = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
        params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": can });
        let id = params["taskId"].as_str().unwrap_or_default().to_owned();
        let headers = [who, ("mcp-name", id.as_str())];
        let some = if id.is_empty() { &headers[..1] } else { &headers[..] };
        served.modern(path, method, params, some).await.json()
    };
    let slow = json!({ "name": "fix__slow_compute", "arguments": { "seconds": 0.1, "label": "mine" } });
    let created = ask("/mcp", ALICE, "tools/call", slow).await["result"].clone();
    assert_eq!(created["resultType"], "task", "{created}");
    let task = json!({ "taskId": created["taskId"] });
    for (path, who) in [("/mcp", BOB), ("/mcp/agents/narrow", ALICE)] {
        for method in ["tasks/get", "tasks/cancel"] {
            let refused = ask(path, who, method, task.clone()).await;
            assert_eq!(refused["error"]["code"], -32602, "{path} {} {method}: {refused}", who.1);
        }
    }
    let own = ask("/mcp", ALICE, "tasks/get", task).await;
    assert_eq!(own["result"]["taskId"], created["taskId"], "{own}");
}

/// What a client of one era put where the other era looks for answers and tasks reached servers,
/// unsealed and unjudged.
#[tokio::test]
async fn words_of_the_other_era_do_not_reach_a_server() {
    for era in ["modern", "legacy"] {
        let folder = Folder::new(&policy(&Mirror::entry(None, era)));
        let served = Served::start(&folder);
        let arrived = |answer: &Answer| answer.json()["result"]["arrived"].clone();
        let params = |more: Value| {
            let mut params = json!({ "name": "fix__echo", "arguments": { "value": 1 }, "odd": 2.5 });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            params
        };
        let session = served.initialize("/mcp", &[ALICE]).await;
        let answers = json!({ "q": { "action": "accept" } });
        let rounds = params(json!({ "inputResponses": answers, "requestState": "forged", "task": { "ttl": 1 } }));
        let legacy = arrived(&served.legacy("/mcp", &session, "tools/call", rounds, &[ALICE]).await);
        let modern = params(json!({ "task": { "ttl": 1 } }));
        let modern = arrived(&served.modern("/mcp", "tools/call", modern, &[ALICE]).await);
        for arrived in [legacy, modern] {
            assert_eq!((&arrived["name"], &arrived["odd"]), (&json!("echo"), &json!(2.5)), "{era}: {arrived}");
            for key in ["inputResponses", "requestState", "task"] {
                assert!(arrived.get(key).is_none(), "{era} {key}: {arrived}");
            }
        }
    }
}

/// A path to be completed was not judged, and told what there is outside of what may be read.
#[tokio::test]
async fn completion_is_judged_by_what_it_touches() {
    let folder = Folder::new(&policy(&fixture("legacy")));
    folder.write("docs/a.md", "hello");
    let served = Served::start(&folder);
    let inside = folder.join("docs/a").display().to_string();
    for (value, context, allowed) in [
        ("t", json!({}), true),
        (inside.as_str(), json!({}), true),
        ("/etc/pass", json!({}), false),
        ("t", json!({ "arguments": { "arg2": "/etc/passwd" } }), false),
    ] {
        let params = json!({
            "ref": { "type": "ref/prompt", "name": "fix__test_prompt_with_arguments" },
            "argument": { "name": "arg1", "value": value },
            "context": context,
        });
        let answer = served.modern("/mcp", "completion/complete", params, &[ALICE]).await.json();
        let completed = answer["result"]["completion"]["values"].is_array();
        assert_eq!(completed, allowed, "{value} {context}: {answer}");
        assert!(allowed || answer["error"].to_string().contains("filesystem.read"), "{answer}");
    }
}

/// Over standard streams, a second `initialize` replaced the conversation under the first one's
/// questions, and `subscriptions/listen` was not checked.
#[test]
fn standard_streams_are_one_conversation() {
    let folder =
        Folder::new("version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\ntools.allow = [\"*\"]\n");
    let mut command = folder.command(&["serve", "--stdio"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut say = |message: Value| -> Value {
        writeln!(input, "{message}").unwrap();
        serde_json::from_str(&lines.next().expect("it ended").unwrap()).unwrap()
    };
    let own = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let mut listen = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": { "_meta": own } });
    let refused = say(listen.clone());
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(1), &json!(-32602)), "{refused}");
    listen["params"]["notifications"] = json!({ "toolsListChanged": true });
    let taken = say(listen);
    assert_eq!(taken["method"], "notifications/subscriptions/acknowledged", "{taken}");

    let client = json!({ "name": "t", "version": "1" });
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let initialize = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": hello });
    let first = say(initialize(2));
    assert_eq!(first["result"]["serverInfo"]["name"], "pleach", "{first}");
    let second = say(initialize(3));
    assert_eq!((&second["id"], &second["error"]["code"]), (&json!(3), &json!(-32600)), "{second}");
    let ping = say(json!({ "jsonrpc": "2.0", "id": 4, "method": "ping" }));
    assert!(ping["result"].is_object(), "the first goes on: {ping}");
    drop(input);
    child.wait().unwrap();
}
