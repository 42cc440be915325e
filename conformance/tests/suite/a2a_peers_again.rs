//! Peers that move, repeat themselves and speak late: nothing is said to them twice, nothing they
//! said is lost, and nothing of before is taken for an answer.

use crate::a2a_peers::{asking, call, near};
use crate::a2a_peers_faults::{card, event, peer, task};
use crate::rest::{ALICE, BOB};
use conformance::served::text;
use conformance::upstream::{Act, Seen, Upstream, saying};
use serde_json::{Value, json};

fn answer(word: &str) -> Value {
    json!({ "question": { "action": "accept", "content": { "answer": word } } })
}
fn asks(seen: &Seen) -> bool {
    seen.body["params"]["message"].get("taskId").is_none()
}

/// Whoever finds nobody at the address of a card looks at the card again.
#[tokio::test]
async fn a_peer_that_moved_is_found() {
    let moved = Upstream::of(|base| {
        let at = |path: &str| card(&format!("{base}{path}"), false);
        let (before, after) = (at("/old"), at("/new"));
        move |seen: &Seen| match (seen.method.as_str(), seen.path.as_str()) {
            // The card is the same for as long as it is listed, and another from the call on.
            ("GET", _) if seen.before < 2 => Act::Status(200, before.clone()),
            ("GET", _) => Act::Status(200, after.clone()),
            (_, "/new") => Act::Result(json!({ "task": task("COMPLETED") })),
            _ => Act::Status(404, Value::Null),
        }
    });
    let (_folder, served) = near(&[("m", &moved.base, "")], "");
    let done = call(&served, "m__act", json!({ "message": "go" })).await;
    assert_eq!(text(&done), "done", "{done:?}");
    let paths: Vec<String> = moved.came("SendMessage").iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(paths.last().map(String::as_str), Some("/new"), "{paths:?}");
}

/// Where a task stood before it was answered is no question.
#[tokio::test]
async fn an_answered_question_is_not_asked_again() {
    let stale = peer(true, |seen| {
        if asks(seen) {
            return saying([event(seen, json!({ "task": task("INPUT_REQUIRED") }))], true);
        }
        let part = json!({ "artifactId": "a", "parts": [{ "text": "done" }] });
        let made = json!({ "artifactUpdate": { "taskId": "t-1", "artifact": part } });
        let done = json!({ "statusUpdate": { "taskId": "t-1", "status": { "state": "TASK_STATE_COMPLETED" } } });
        saying([event(seen, json!({ "task": task("INPUT_REQUIRED") })), event(seen, made), event(seen, done)], true)
    });
    let (_folder, served) = near(&[("s", &stale.base, "")], "");
    let asked = asking(&served, "s__act", json!({ "message": "go" }), json!({})).await;
    let more = json!({ "requestState": asked["requestState"], "inputResponses": answer("red") });
    let done = asking(&served, "s__act", json!({ "message": "go" }), more.clone()).await;
    assert_eq!((&done["content"][0]["text"], done.get("inputRequests")), (&json!("done"), None), "{done}");
}

/// The same state brought twice: one answer over there, and what became of it here.
#[tokio::test]
async fn an_answer_is_given_once() {
    let once = peer(false, |seen| match seen.method.as_str() {
        "SendMessage" if asks(seen) => Act::Result(json!({ "task": task("INPUT_REQUIRED") })),
        "SendMessage" => Act::Result(json!({ "task": task("COMPLETED") })),
        "GetTask" => Act::Result(task("COMPLETED")),
        _ => Act::Status(500, json!({})),
    });
    let (_folder, served) = near(&[("o", &once.base, "")], "");
    let asked = asking(&served, "o__act", json!({ "message": "go" }), json!({})).await;
    let more = json!({ "requestState": asked["requestState"], "inputResponses": answer("red") });
    for _ in 0..2 {
        let done = asking(&served, "o__act", json!({ "message": "go" }), more.clone()).await;
        assert_eq!(done["content"][0]["text"], "done", "{done}");
    }
    assert_eq!(once.came("SendMessage").len(), 2);
    // The twin: another question has an answer of its own.
    let asked = asking(&served, "o__act", json!({ "message": "go" }), json!({})).await;
    let more = json!({ "requestState": asked["requestState"], "inputResponses": answer("blue") });
    asking(&served, "o__act", json!({ "message": "go" }), more).await;
    assert!(once.came("SendMessage").len() >= 3);
}

/// A peer that streamed an update of what was said has heard it, whatever it says of streams then.
#[tokio::test]
async fn a_late_refusal_repeats_nothing() {
    let refusal = |seen: &Seen| json!({ "jsonrpc": "2.0", "id": seen.body["id"], "error": { "code": -32004, "message": "no streams" } });
    let late = peer(true, move |seen| match seen.method.as_str() {
        "SendStreamingMessage" if asks(seen) => saying([event(seen, json!({ "task": task("INPUT_REQUIRED") }))], true),
        "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") })), refusal(seen)], true),
        _ => Act::Result(json!({ "task": task("COMPLETED") })),
    });
    // The twin refuses at once, and is sent the answer another way.
    let early = peer(true, move |seen| match seen.method.as_str() {
        "SendStreamingMessage" if asks(seen) => saying([event(seen, json!({ "task": task("INPUT_REQUIRED") }))], true),
        "SendStreamingMessage" => saying([refusal(seen)], true),
        _ => Act::Result(json!({ "task": task("COMPLETED") })),
    });
    let (_folder, served) = near(&[("l", &late.base, ""), ("e", &early.base, "")], "");
    for (tool, upstream, again) in [("l__act", &late, 0), ("e__act", &early, 1)] {
        let asked = asking(&served, tool, json!({ "message": "go" }), json!({})).await;
        let more = json!({ "requestState": asked["requestState"], "inputResponses": answer("red") });
        let answered = asking(&served, tool, json!({ "message": "go" }), more).await;
        assert_eq!(upstream.came("SendMessage").len(), again, "{tool}: {answered}");
    }
}

/// In 0.3 a stream that is taken up tells what comes; what was made before is asked for.
#[tokio::test]
async fn nothing_is_lost_between_two_streams_of_0_3() {
    let old = Upstream::of(|base| {
        let card = json!({ "name": "p", "version": "1", "url": base, "protocolVersion": "0.3.0",
            "capabilities": { "streaming": true },
            "skills": [{ "id": "act", "name": "act", "description": "Acts.", "tags": [] }] });
        let task = |state: &str, made: Value| json!({ "kind": "task", "id": "t-1", "contextId": "c-1", "status": { "state": state }, "artifacts": made });
        move |seen: &Seen| match seen.method.as_str() {
            "GET" => Act::Status(200, card.clone()),
            "message/stream" => saying([event(seen, task("working", json!([])))], false),
            "tasks/resubscribe" => {
                let done = json!({ "kind": "status-update", "taskId": "t-1", "contextId": "c-1", "final": true,
                    "status": { "state": "completed" } });
                saying([event(seen, done)], true)
            }
            _ => {
                let parts = json!([{ "kind": "text", "text": "made meanwhile" }]);
                Act::Result(task("completed", json!([{ "artifactId": "a", "parts": parts }])))
            }
        }
    });
    let (_folder, served) = near(&[("o", &old.base, "")], "");
    let done = call(&served, "o__act", json!({ "message": "go" })).await;
    assert_eq!(text(&done), "made meanwhile", "{done:?}");
    assert_eq!(old.came("tasks/resubscribe").len(), 1);
}

/// What two clients call their messages is theirs; what one calls the same is the same.
#[tokio::test]
async fn a_key_is_one_clients_own() {
    let named = peer(false, |_| Act::Result(json!({ "task": task("COMPLETED") })));
    let clients = format!("[clients.alice]\ntoken = {:?}\n[clients.bob]\ntoken = {:?}\n", &ALICE.1[7..], &BOB.1[7..]);
    let (_folder, served) = near(&[("n", &named.base, "")], &clients);
    for who in [ALICE, BOB, ALICE] {
        let own = json!({ "pleach/idempotency-key": "k-1" });
        let params = json!({ "name": "n__act", "arguments": { "message": "go" }, "_meta": own });
        assert_eq!(text(&served.modern("/mcp", "tools/call", params, &[who]).await), "done");
    }
    let ids: Vec<Value> =
        named.came("SendMessage").iter().map(|s| s.body["params"]["message"]["messageId"].clone()).collect();
    assert!(ids[0] == ids[2] && ids[0] != ids[1], "{ids:?}");
    assert!(ids[0].as_str().unwrap().starts_with("k-1."), "{ids:?}");
}

/// Who ends pleach ends what it has others do for calls of its own.
#[tokio::test]
async fn the_end_of_this_process_takes_its_tasks_along() {
    let hung = peer(true, |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") }))], true),
        "CancelTask" => Act::Result(task("CANCELED")),
        _ => Act::Hang,
    });
    let (_folder, served) = near(&[("h", &hung.base, "")], "");
    let params = json!({ "name": "h__act", "arguments": { "message": "go" } });
    let leaving = served.begin("/mcp", "tools/call", params, &[]);
    tokio::pin!(leaving);
    tokio::select! {
        _ = &mut leaving => panic!("it answered"),
        _ = hung.until("SendStreamingMessage", 1) => {}
    }
    let pid = served.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    tokio::select! {
        _ = &mut leaving => {}
        _ = hung.until("CancelTask", 1) => {}
    }
    assert_eq!(hung.until("CancelTask", 1).await[0].body["params"]["id"], "t-1");
}

/// All streams of a call together say so much and no more.
#[tokio::test]
async fn streams_in_a_row_are_no_flood() {
    let much = "x".repeat(15 << 20);
    let flood = peer(true, move |seen| match seen.method.as_str() {
        "SendStreamingMessage" | "SubscribeToTask" => {
            let mut now = task("WORKING");
            let part = json!({ "artifactId": format!("a{}", seen.before), "parts": [{ "text": much }] });
            let more = json!({ "artifactUpdate": { "taskId": "t-1", "artifact": part } });
            now["artifacts"] = json!([]);
            saying([event(seen, json!({ "task": now })), event(seen, more)], false)
        }
        "CancelTask" => Act::Result(task("CANCELED")),
        _ => Act::Hang,
    });
    let (_folder, served) = near(&[("f", &flood.base, "")], "");
    let refused = call(&served, "f__act", json!({ "message": "go" })).await;
    assert!(refused.body.contains("it says more than"), "{:.300}", refused.body);
}
