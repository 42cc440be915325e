//! Servers over HTTP that lose sessions, hang, storm and change their era: each costs its own
//! calls, and none of them is asked twice for what it may have done.

use conformance::pleach::Folder;
use conformance::served::{Served, text};
use conformance::upstream::{Act, Upstream, legacy, modern, saying, told};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

fn serve(upstream: &Upstream, more: &str) -> (Folder, Served) {
    let folder = Folder::new(&format!(
        "version = 1\n[servers.far]\nurl = {:?}\ndefault_access = \"read-only\"\n{more}\n[policy]\ntools.allow = [\"*\"]\n",
        upstream.url()
    ));
    let served = Served::start(&folder);
    (folder, served)
}

async fn call(served: &Served, tool: &str) -> String {
    text(&served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": {} }), &[]).await)
}

/// What a request must not take: it waits for a server that never answers.
async fn soon<T>(what: &str, done: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(4), done)
        .await
        .unwrap_or_else(|_| panic!("{what} waits for a hung server"))
}

fn tools() -> Value {
    json!({ "tools": {} })
}

/// A call whose session was lost by a 503 was sent again, though the server may have acted on it.
#[tokio::test]
async fn a_call_is_repeated_only_where_the_server_refused_it() {
    for (status, repeated) in [(404, true), (400, true), (503, false), (500, false)] {
        let upstream = Upstream::start(move |seen| match seen.method.as_str() {
            "tools/call" if seen.before == 0 => Act::Status(status, json!({ "error": "no" })),
            "tools/call" => Act::Result(told("done")),
            _ => legacy(seen, tools(), &["act"]).unwrap_or(Act::Hang),
        });
        let (_folder, served) = serve(&upstream, "");
        let first = call(&served, "far__act").await;
        let came = upstream.came("tools/call").len();
        if repeated {
            assert_eq!((first.as_str(), came), ("done", 2), "{status}");
        } else {
            assert_ne!(first, "done", "{status}");
            assert_eq!(came, 1, "{status}: {first}");
        }
        // Either way the next one is served, in a session that the server knows.
        assert_eq!(call(&served, "far__act").await, "done", "{status}");
        let sessions = if status == 500 { 1 } else { 2 };
        let began = upstream.came("initialize").len();
        assert_eq!(began, sessions, "{status}");
        let last = upstream.came("tools/call").pop().unwrap();
        assert_eq!(last.header("mcp-session-id"), format!("session-{}", began - 1), "{status}");
    }
}

/// A server that did not take the notification of a cancellation held up the call it was about.
#[tokio::test]
async fn nobody_waits_for_a_hung_server_to_take_a_cancellation() {
    let upstream = Upstream::start(|seen| match (seen.method.as_str(), seen.body["params"]["name"].as_str()) {
        ("tools/call", Some("hang")) | ("notifications/cancelled", _) => Act::Hang,
        ("tools/call", _) => Act::Result(told("done")),
        _ => legacy(seen, tools(), &["hang", "act"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&upstream, "timeout = 1000");
    assert_eq!(call(&served, "far__act").await, "done");
    let hung = soon("the call", call(&served, "far__hang")).await;
    assert!(hung.contains("no answer to tools/call within 1 s"), "{hung}");
    let told = upstream.until("notifications/cancelled", 1).await;
    let asked = upstream.came("tools/call").into_iter().find(|s| s.body["params"]["name"] == "hang").unwrap();
    assert_eq!(told[0].body["params"]["requestId"], asked.body["id"]);
    assert_eq!(call(&served, "far__act").await, "done");
}

/// A log level was given only when every server had taken it, and one that hung took a minute.
#[tokio::test]
async fn a_hung_server_does_not_hold_up_the_log_level() {
    let logs = json!({ "tools": {}, "logging": {} });
    let server = move |hangs: bool| {
        let logs = logs.clone();
        Upstream::start(move |seen| match seen.method.as_str() {
            "logging/setLevel" if hangs => Act::Hang,
            "logging/setLevel" => Act::Result(json!({})),
            "tools/call" => Act::Result(told("done")),
            _ => legacy(seen, logs.clone(), &["act"]).unwrap_or(Act::Hang),
        })
    };
    let (hung, good) = (server(true), server(false));
    let (_folder, served) =
        serve(&hung, &format!("[servers.good]\nurl = {:?}\ndefault_access = \"read-only\"", good.url()));
    let session = served.initialize("/mcp", &[]).await;
    for tool in ["far__act", "good__act"] {
        let params = json!({ "name": tool, "arguments": {} });
        assert_eq!(text(&served.legacy("/mcp", &session, "tools/call", params, &[]).await), "done");
    }
    let level = served.legacy("/mcp", &session, "logging/setLevel", json!({ "level": "warning" }), &[]);
    let answer = soon("the log level", level).await;
    assert!(answer.json()["result"].is_object(), "{answer:?}");
    hung.until("logging/setLevel", 1).await;
    let taken = good.until("logging/setLevel", 1).await;
    assert_eq!(taken[0].body["params"]["level"], "warning");
}

/// A standing stream that ended as soon as it began was opened ten times a second, for ever.
#[tokio::test]
async fn a_stream_that_ends_at_once_is_come_back_to_ever_later() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "GET" => saying([], false),
        _ => legacy(seen, tools(), &["act"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&upstream, "");
    served.modern("/mcp", "tools/list", json!({}), &[]).await;
    let came = upstream.until("GET", 5).await;
    let took = came[4].at - came[0].at;
    assert!(took > Duration::from_millis(1_200), "five times within {took:?}");
}

/// A server that knows sessions and no standing stream was introduced to again and again.
#[tokio::test]
async fn a_server_without_a_stream_is_left_in_peace() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "GET" => Act::Status(404, json!({ "error": "Not Found" })),
        "tools/call" => Act::Result(told(seen.header("mcp-session-id"))),
        _ => legacy(seen, tools(), &["act"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&upstream, "");
    call(&served, "far__act").await;
    upstream.until("GET", 2).await;
    // That nothing comes has no event.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((upstream.came("GET").len(), upstream.came("initialize").len()), (2, 2));
    assert_eq!(call(&served, "far__act").await, "session-1", "the session it was introduced with last");
}

/// A server whose list changes whenever it is read was read fifty times a second.
#[tokio::test]
async fn a_storm_of_changes_is_read_ever_later() {
    let (say, said) = mpsc::unbounded_channel();
    let stream = Mutex::new(Some(said));
    let upstream = Upstream::start(move |seen| {
        let changes = || say.send(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).unwrap();
        match seen.method.as_str() {
            "GET" => stream.lock().unwrap().take().map_or(Act::Status(405, Value::Null), Act::Stream),
            "tools/list" => {
                changes();
                // Later than the news of it.
                let tool = json!({ "name": format!("act{}", seen.before), "inputSchema": { "type": "object" } });
                Act::Late(Duration::from_millis(50), json!({ "tools": [tool] }))
            }
            "tools/call" => {
                changes();
                Act::Result(told("done"))
            }
            _ => legacy(seen, json!({ "tools": { "listChanged": true } }), &[]).unwrap_or(Act::Hang),
        }
    });
    let (_folder, served) = serve(&upstream, "");
    served.modern("/mcp", "tools/list", json!({}), &[]).await;
    assert_eq!(call(&served, "far__act0").await, "done");
    let came = upstream.until("tools/list", 7).await;
    let took = came[6].at - came[1].at;
    assert!(took > Duration::from_millis(600), "five readings within {took:?}");
    // It is read all the same: the tool of the sixth reading is there.
    let list = served.modern("/mcp", "tools/list", json!({}), &[]).await.body;
    assert!((5..9).any(|n| list.contains(&format!("far__act{n}"))), "{list}");
}

/// A server that spoke another era from one moment to the next, and said so in some words only,
/// was spoken to in the old one for ever.
#[tokio::test]
async fn a_server_that_changes_its_era_is_followed() {
    let words =
        [(-32022, "Unsupported protocol version"), (-32020, "Header mismatch"), (-32602, "protocolVersion is missing")];
    for (code, message) in words {
        let now = Arc::new(AtomicBool::new(false));
        let flag = now.clone();
        let upstream = Upstream::start(move |seen| {
            let era = seen.body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string();
            match (flag.load(Ordering::SeqCst), seen.method.as_str()) {
                (true, "DELETE" | "GET") => Act::Status(405, Value::Null),
                (true, _) if !era => Act::Error(json!({ "code": code, "message": message })),
                (_, "tools/call") => Act::Result(told(if era { "modern" } else { "legacy" })),
                (true, _) => modern(seen, tools(), &["act"]).unwrap_or(Act::Hang),
                (false, _) => legacy(seen, tools(), &["act"]).unwrap_or(Act::Hang),
            }
        });
        let (_folder, served) = serve(&upstream, "");
        assert_eq!(call(&served, "far__act").await, "legacy");
        now.store(true, Ordering::SeqCst);
        // One call may learn of it; the next must know.
        call(&served, "far__act").await;
        assert_eq!(call(&served, "far__act").await, "modern", "{code}");
    }
}

/// A legacy server's error that asks for a page to be visited passed a rule that denies asking,
/// and so did questions beside a result.
#[tokio::test]
async fn questions_are_judged_wherever_they_stand() {
    let page = json!({ "mode": "url", "elicitationId": "e", "url": "https://example.com/", "message": "go there" });
    let error = json!({ "code": -32042, "message": "go there", "data": { "elicitations": [page] } });
    let form = json!({ "message": "who?", "requestedSchema": { "type": "object", "properties": {} } });
    let question = json!({ "method": "elicitation/create", "params": form });
    for denied in [true, false] {
        let rule = if denied { "tools.deny = [\"far__elicitation/create\"]" } else { "" };
        let error = error.clone();
        let old = Upstream::start(move |seen| match seen.method.as_str() {
            "tools/call" => Act::Error(error.clone()),
            _ => legacy(seen, tools(), &["act"]).unwrap_or(Act::Hang),
        });
        let question = question.clone();
        let new = Upstream::start(move |seen| match seen.method.as_str() {
            "tools/call" => {
                let mut result = told("done");
                result["inputRequests"] = json!({ "q": question });
                Act::Result(result)
            }
            _ => modern(seen, tools(), &["act"]).unwrap_or(Act::Hang),
        });
        let policy = |url: &str| {
            format!(
                "version = 1\n[servers.far]\nurl = {url:?}\ndefault_access = \"read-only\"\n[policy]\ntools.allow = [\"*\"]\n{rule}\n"
            )
        };
        let folder = Folder::new(&policy(&old.url()));
        let served = Served::start(&folder);
        let session = served.initialize("/mcp", &[]).await;
        let params = json!({ "name": "far__act", "arguments": {} });
        let answer = served.legacy("/mcp", &session, "tools/call", params.clone(), &[]).await;
        assert_eq!(answer.body.contains("example.com"), !denied, "{answer:?}");
        assert_eq!(answer.json()["error"]["code"], if denied { -32602 } else { -32042 }, "{answer:?}");

        let folder = Folder::new(&policy(&new.url()));
        let served = Served::start(&folder);
        let answer = served.modern("/mcp", "tools/call", params, &[]).await;
        assert_eq!(answer.body.contains("who?"), !denied, "{answer:?}");
        assert_eq!(text(&answer) == "done", !denied, "{answer:?}");
    }
}
