//! Peers passed on where something is in the way: a person is asked, a grant is taken back, the peer
//! is away, late, too much, restarted, or says names that are nobody's here.

use crate::a2a::{code, message, result, send, state, to_task};
use crate::a2a_peers::{call, far_folder, near};
use crate::a2a_peers_faults::{card, event, peer, task};
use crate::live::change;
use crate::rest::{ALICE, BOB, BOSS};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use conformance::upstream::{Act, Seen, Upstream, saying};
use serde_json::{Value, json};
use std::process::Command;

const V1: (&str, &str) = ("a2a-version", "1.0");
/// Nobody in particular.
const ANY: (&str, &str) = ("x-nobody", "1");

async fn say(served: &Served, who: (&str, &str), agent: &str, params: Value) -> Answer {
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": params }).to_string();
    served.post(&format!("/a2a/{agent}"), &[who, V1], body).await
}
fn completes() -> Upstream {
    peer(false, |seen| match seen.method.as_str() {
        "SendMessage" => Act::Result(json!({ "task": task("COMPLETED") })),
        _ => Act::Result(task("COMPLETED")),
    })
}
/// A peer behind rules; Alice calls, the boss approves.
fn ruled(card: &str, rules: &str, more: &str) -> Folder {
    Folder::new(&format!(
        "version = 1\n[peers.w]\ncard = {card:?}\nexpose = true\ndefault_access = \"read-only\"\n\
         [policy]\n{rules}\n[clients.alice]\ntoken = {:?}\n[clients.boss]\ntoken = {:?}\ncan_approve = true\n{more}",
        &ALICE.1[7..],
        &BOSS.1[7..]
    ))
}
/// The questions that are open, once there is one.
async fn open(served: &Served) -> Value {
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let page = served.get("/v1/approvals", &[BOSS]).await.json();
            if let Some(first) = page["approvals"].as_array().unwrap().first() {
                return first.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    found.await.expect("something is asked")
}

/// A message that a person is asked about waits, and leaves once they said yes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_asked_before_it_leaves() {
    let asked = completes();
    let folder = ruled(&asked.base, "tools.ask = [\"w__*\"]", "[approvals]\nwait = \"30s\"\n");
    let served = Served::start(&folder);
    for (n, (decision, leaves)) in [("deny", 0), ("allow", 1)].into_iter().enumerate() {
        let saying = say(&served, ALICE, "w", message(&format!("m-{n}"), "go"));
        let answering = async {
            let question = open(&served).await;
            assert_eq!(question["principal"], "alice", "{question}");
            assert_eq!(question["detail"]["arguments"]["message"], "go", "{question}");
            assert_eq!(asked.came("SendMessage").len(), 0, "before anybody answered");
            let ran = folder.run(&["answer", question["id"].as_str().unwrap(), decision]);
            assert_eq!(ran.code, 0, "{ran:?}");
        };
        let (told, ()) = tokio::join!(saying, answering);
        assert_eq!(told.json().get("result").is_some(), leaves == 1, "{decision}: {told:?}");
        assert_eq!(asked.came("SendMessage").len(), leaves, "{decision}");
        let listed = result(&served, ALICE, "w", "ListTasks", json!({})).await;
        assert_eq!(listed["totalSize"], leaves, "{decision}: {listed}");
    }
}

/// Nobody answers in time: it is refused with the question's name; answered later, the same message
/// leaves, once, and another asks anew.
#[tokio::test]
async fn a_late_yes_is_for_that_message() {
    let asked = completes();
    let folder = ruled(&asked.base, "tools.ask = [\"w__*\"]", "[approvals]\nwait = \"50ms\"\n");
    let served = Served::start(&folder);
    let told = say(&served, ALICE, "w", message("m-1", "go")).await;
    let why = told.json()["error"]["message"].as_str().unwrap().to_owned();
    let id = why.split(' ').find(|word| word.starts_with("q-")).unwrap_or_else(|| panic!("{why}")).to_owned();
    assert_eq!((told.status, asked.came("SendMessage").len()), (403, 0), "{told:?}");
    assert_eq!(folder.run(&["answer", &id, "allow"]).code, 0);
    let other = say(&served, ALICE, "w", message("m-1", "something else")).await;
    assert_eq!((other.status, asked.came("SendMessage").len()), (403, 0), "{other:?}");
    let done = send(&served, ALICE, "w", message("m-1", "go")).await;
    assert_eq!((state(&done), asked.came("SendMessage").len()), ("TASK_STATE_COMPLETED", 1), "{done}");
    // What was answered is told again, and nobody is asked again.
    assert_eq!(send(&served, ALICE, "w", message("m-1", "go")).await["id"], done["id"]);
    assert_eq!((asked.came("SendMessage").len(), folder.run(&["approvals", "--json"]).out.lines().count()), (1, 1));
}

/// A message for no skill in particular cannot ask about one of them.
#[tokio::test]
async fn where_a_skill_is_asked_about_it_is_named() {
    let two = Upstream::of(|base| {
        let mut card = card(base, false);
        card["skills"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "id": "erase", "name": "erase", "description": "Erases.", "tags": [] }));
        move |seen: &Seen| match seen.method.as_str() {
            "GET" => Act::Status(200, card.clone()),
            _ => Act::Result(json!({ "task": task("COMPLETED") })),
        }
    });
    let rules = "tools = { allow = [\"w__act\"], ask = [\"w__erase\"] }";
    let folder = ruled(&two.base, rules, "[approvals]\nwait = \"50ms\"\n");
    let served = Served::start(&folder);
    let told = say(&served, ALICE, "w", message("m-1", "go")).await;
    assert!(told.body.contains("skillId") && told.json()["error"]["code"] == -32602, "{told:?}");
    assert_eq!(two.came("SendMessage").len(), 0);
    let mut params = message("m-2", "go");
    params["message"]["metadata"] = json!({ "skillId": "act" });
    assert_eq!(state(&send(&served, ALICE, "w", params).await), "TASK_STATE_COMPLETED");
}

/// What a message speaks of is under the rules of every argument: a link leads where one may go, and
/// what a file is called is no file here.
#[tokio::test]
async fn what_a_message_holds_is_judged() {
    let asked = completes();
    let table = "expose = true\n";
    let (_folder, served) = near(&[("w", &asked.base, table)], "[policy.domains]\nallow = [\"files.example\"]\n");
    let with = |id: &str, part: Value| {
        let mut params = message(id, "go");
        params["message"]["parts"].as_array_mut().unwrap().push(part);
        params
    };
    for (n, (part, leaves)) in [
        (json!({ "url": "https://elsewhere.example/a" }), false),
        (json!({ "url": "https://files.example/a" }), true),
        (json!({ "data": { "path": "/etc/passwd" } }), false),
        (json!({ "data": { "n": 1 } }), true),
        (json!({ "raw": "Yg==", "filename": "a.txt", "mediaType": "text/plain" }), true),
    ]
    .into_iter()
    .enumerate()
    {
        let before = asked.came("SendMessage").len();
        let told = say(&served, ANY, "w", with(&format!("m-{n}"), part.clone())).await;
        assert_eq!(told.json().get("result").is_some(), leaves, "{part}: {told:?}");
        let came = asked.came("SendMessage");
        assert_eq!(came.len(), before + usize::from(leaves), "{part}");
        if leaves {
            assert_eq!(came[before].body["params"]["message"]["parts"][1], part);
        }
    }
    // The skill as a tool takes no message of this door, so nothing goes around its own.
    let around = json!({ "message": "go", "a2a": { "message": message("m", "other")["message"] } });
    let before = asked.came("SendMessage").len();
    let told = call(&served, "w__act", around).await;
    assert!(told.body.contains("no argument of that name"), "{told:?}");
    assert_eq!(asked.came("SendMessage").len(), before);
}

/// A stream ends when its listener may not use the skill any more; another's goes on.
#[tokio::test]
async fn a_stream_ends_with_the_grant() {
    let works = peer(true, |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") }))], true),
        _ => Act::Result(task("WORKING")),
    });
    let clients = |bob: &str| {
        format!(
            "version = 1\n[peers.w]\ncard = {:?}\nexpose = true\ndefault_access = \"read-only\"\n\
             [policy]\ntools.allow = [\"*\"]\n[clients.alice]\ntoken = {:?}\n[clients.bob]\ntoken = {:?}\n\
             policy = {{ tools = {{ allow = {bob} }} }}\n",
            works.base,
            &ALICE.1[7..],
            &BOB.1[7..]
        )
    };
    let folder = Folder::new(&clients("[\"w__*\"]"));
    let served = Served::start(&folder);
    let open = async |who, id| {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message(id, "go") });
        let mut heard = served.open("/a2a/w", &[who, V1], body.to_string()).await;
        heard.until("TASK_STATE_WORKING").await;
        heard
    };
    let (mut bobs, mut alices) = (open(BOB, "m-1").await, open(ALICE, "m-2").await);
    let at = bobs.heard.find("\"id\":\"p-").map(|at| at + 6).unwrap();
    let task: String = bobs.heard[at..].chars().take_while(|c| *c != '"').collect();
    let got = result(&served, BOB, "w", "GetTask", json!({ "id": task })).await;
    assert_eq!(got["id"], task.as_str());
    change(&folder, &served, &clients("[]")).await;
    bobs.end().await;
    assert!(bobs.heard.contains("you may not use w__act any more"), "{}", bobs.heard);
    for method in ["GetTask", "CancelTask", "SubscribeToTask"] {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "id": task } }).to_string();
        let told = served.post("/a2a/w", &[BOB, V1], body).await;
        assert!(told.status == 404 && told.body.contains("there is no agent"), "{method}: {told:?}");
    }
    assert_eq!(works.came("CancelTask").len(), 0);
    let known = alices.heard.len();
    alices.until_more(known).await;
    assert!(alices.heard[known..].starts_with(": still here"), "it stands: {}", alices.heard);
}

/// What the peer calls a task is in no error and no answer.
#[tokio::test]
async fn a_peers_names_stay_with_it() {
    let tells = |code: i64| {
        peer(false, move |seen| match seen.method.as_str() {
            "SendMessage" => Act::Result(json!({ "task": task("INPUT_REQUIRED") })),
            _ => Act::Error(json!({ "code": code, "message": "task t-1 cannot be had" })),
        })
    };
    let mixed = peer(false, |seen| match seen.method.as_str() {
        "SendMessage" => Act::Result(json!({ "task": task("INPUT_REQUIRED") })),
        _ => Act::Result(json!({ "id": "t-2", "contextId": "c-2", "status": { "state": "TASK_STATE_COMPLETED" } })),
    });
    let (gone, broken, refuses) = (tells(-32001), tells(-32603), tells(-32002));
    let exposed = "expose = true\n";
    let peers = [("g", &gone), ("b", &broken), ("r", &refuses), ("m", &mixed)].map(|(n, p)| (n, &*p.base, exposed));
    let (_folder, served) = near(&peers, "");
    for (peer, code) in [("g", -32001), ("b", -32603), ("r", -32002), ("m", -32603)] {
        let own = send(&served, ANY, peer, message("m-1", "go")).await;
        for method in ["GetTask", "CancelTask", "SubscribeToTask"] {
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "id": own["id"] } });
            let told = served.post(&format!("/a2a/{peer}"), &[V1], body.to_string()).await;
            assert_eq!(told.json()["error"]["code"], code, "{peer} {method}: {told:?}");
            assert!(!told.body.contains("t-1") && !told.body.contains("t-2"), "{peer} {method}: {told:?}");
        }
        // The twin: it is still its own, as it was heard of.
        let listed = result(&served, ANY, peer, "ListTasks", json!({})).await;
        assert_eq!(listed["tasks"][0]["id"], own["id"], "{peer}: {listed}");
    }
}

/// A word said to a task is an answer, and no state of it.
#[tokio::test]
async fn a_reply_to_a_task_is_no_state() {
    let replies = peer(false, |seen| match seen.method.as_str() {
        "SendMessage" if seen.body["params"]["message"].get("taskId").is_some() => {
            let said =
                json!({ "messageId": "r-1", "role": "ROLE_AGENT", "taskId": "t-1", "parts": [{ "text": "hm" }] });
            Act::Result(json!({ "message": said }))
        }
        "SendMessage" => Act::Result(json!({ "task": task("INPUT_REQUIRED") })),
        _ => Act::Result(task("INPUT_REQUIRED")),
    });
    let (_folder, served) = near(&[("w", &replies.base, "expose = true\n")], "");
    let own = send(&served, ANY, "w", message("m-1", "go")).await;
    let said = result(&served, ANY, "w", "SendMessage", to_task(&own, "m-2", "well?")).await;
    assert_eq!(
        (&said["message"]["taskId"], &said["message"]["parts"][0]["text"]),
        (&own["id"], &json!("hm")),
        "{said}"
    );
    let listed = result(&served, ANY, "w", "ListTasks", json!({ "status": "TASK_STATE_INPUT_REQUIRED" })).await;
    assert_eq!((&listed["totalSize"], &listed["tasks"][0]["id"]), (&json!(1), &own["id"]), "{listed}");
    assert_eq!(state(&listed["tasks"][0]), "TASK_STATE_INPUT_REQUIRED", "{listed}");
    // Said again it is not passed on again.
    let before = replies.came("SendMessage").len();
    send(&served, ANY, "w", to_task(&own, "m-2", "well?")).await;
    assert_eq!(replies.came("SendMessage").len(), before);
}

/// Page by page, latest change first; what is merely looked at keeps its place, and a page is its
/// client's own.
#[tokio::test]
async fn tasks_are_listed_page_by_page() {
    let asks = peer(false, |seen| {
        let mut task = task("INPUT_REQUIRED");
        let n = seen.body["params"]["message"]["messageId"].as_str().map(|id| id[..3].to_owned());
        task["id"] = n.or(seen.body["params"]["id"].as_str().map(str::to_owned)).unwrap_or_default().into();
        Act::Result(if seen.method == "SendMessage" { json!({ "task": task }) } else { task })
    });
    let clients = format!("[clients.alice]\ntoken = {:?}\n[clients.bob]\ntoken = {:?}\n", &ALICE.1[7..], &BOB.1[7..]);
    let (_folder, served) = near(&[("w", &asks.base, "expose = true\n")], &clients);
    let mut made = Vec::new();
    for n in 1..=5 {
        made.push(send(&served, ALICE, "w", message(&format!("m-{n}"), "go")).await["id"].clone());
    }
    send(&served, BOB, "w", message("m-9", "go")).await;
    // The first is looked at again, and is still the first that changed.
    result(&served, ALICE, "w", "GetTask", json!({ "id": made[0] })).await;
    let (mut told, mut token, mut pages) = (Vec::new(), json!(""), Vec::new());
    loop {
        let params = json!({ "pageSize": 2, "pageToken": token, "includeArtifacts": true });
        let page = result(&served, ALICE, "w", "ListTasks", params).await;
        assert_eq!(page["totalSize"], 5, "{page}");
        told.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["id"].clone()));
        token = page["nextPageToken"].clone();
        pages.push(token.clone());
        if token == "" {
            break;
        }
    }
    made.reverse();
    assert_eq!((&told, pages.len()), (&made, 3));
    let of = json!({ "pageSize": 2, "pageToken": pages[0] });
    assert_eq!(code(&served, BOB, "w", "ListTasks", of).await, -32602);
    for wrong in
        [json!({ "pageSize": 0 }), json!({ "pageSize": 101 }), json!({ "status": true }), json!({ "pageToken": "x" })]
    {
        assert_eq!(code(&served, ALICE, "w", "ListTasks", wrong.clone()).await, -32602, "{wrong}");
    }
    let listed = served.get("/a2a/w/rest/tasks?pageSize=1", &[ALICE, V1]).await.json();
    assert_eq!((&listed["tasks"][0]["id"], &listed["pageSize"]), (&made[0], &json!(1)), "{listed}");
}

/// Notifications of a peer's tasks are not served, which its card says, and so does every operation
/// of them, in the words of both generations and bindings.
#[tokio::test]
async fn notifications_of_a_peer_are_refused() {
    let asks = peer(false, |seen| {
        Act::Result(if seen.method == "SendMessage" {
            json!({ "task": task("INPUT_REQUIRED") })
        } else {
            task("INPUT_REQUIRED")
        })
    });
    let (_folder, served) = near(&[("w", &asks.base, "expose = true\n")], "");
    let card = served.get("/a2a/w/.well-known/agent-card.json", &[]).await.json();
    assert_eq!(card["capabilities"]["pushNotifications"], false, "{card}");
    assert_eq!(card["signatures"].as_array().map(Vec::len), Some(2), "ours, for readers of both generations: {card}");
    let own = send(&served, ANY, "w", message("m-1", "go")).await;
    let id = own["id"].as_str().unwrap();
    let config = json!({ "taskId": id, "id": "c", "url": "https://x.example/" });
    for operation in ["CreateTask", "GetTask", "DeleteTask"] {
        let method = format!("{operation}PushNotificationConfig");
        assert_eq!(code(&served, ANY, "w", &method, config.clone()).await, -32003, "{method}");
    }
    assert_eq!(code(&served, ANY, "w", "ListTaskPushNotificationConfigs", config.clone()).await, -32003);
    let old = json!({ "jsonrpc": "2.0", "id": 7, "method": "tasks/pushNotificationConfig/set",
        "params": { "taskId": id, "pushNotificationConfig": { "url": "https://x.example/" } } });
    assert_eq!(served.post("/a2a/w", &[], old.to_string()).await.json()["error"]["code"], -32003);
    let path = format!("/a2a/w/rest/tasks/{id}/pushNotificationConfigs");
    let told = served.post(&path, &[V1], config.to_string()).await;
    assert_eq!(
        (told.status, &told.json()["error"]["details"][0]["reason"]),
        (400, &json!("PUSH_NOTIFICATION_NOT_SUPPORTED"))
    );
    // Nor with a message, which then does not leave; its twin does.
    let before = asks.came("SendMessage").len();
    let mut params = message("m-2", "go");
    params["configuration"] = json!({ "taskPushNotificationConfig": { "url": "https://x.example/" } });
    assert_eq!(code(&served, ANY, "w", "SendMessage", params).await, -32003);
    assert_eq!(asks.came("SendMessage").len(), before);
    send(&served, ANY, "w", message("m-2", "go")).await;
    assert_eq!(asks.came("SendMessage").len(), before + 1);
}

/// That a peer is away is told to whoever might use it; for anybody else it is none.
#[tokio::test]
async fn a_peer_that_is_away() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let card = format!("http://{}/card.json", free.local_addr().unwrap());
    drop(free);
    let clients = format!(
        "[clients.alice]\ntoken = {:?}\n[clients.bob]\ntoken = {:?}\npolicy = {{ tools = {{ allow = [] }} }}\n",
        &ALICE.1[7..],
        &BOB.1[7..]
    );
    let (_folder, served) = near(&[("w", &card, "expose = true\n")], &clients);
    let told = say(&served, ALICE, "w", message("m-1", "go")).await;
    assert!(told.status == 503 && told.headers.contains_key("retry-after"), "{told:?}");
    let told = say(&served, BOB, "w", message("m-1", "go")).await;
    assert!(told.status == 404 && told.body.contains("there is no agent \\\"w\\\""), "{told:?}");
    let shown = served.get("/a2a/w/.well-known/agent-card.json", &[BOB]).await;
    let absent = served.get("/a2a/x/.well-known/agent-card.json", &[BOB]).await;
    assert_eq!((shown.status, absent.status), (404, 404), "{shown:?}");
}

/// So much, so deep and so late, and no more; and each costs its own request.
#[tokio::test]
async fn a_peers_answer_has_bounds() {
    let deep = (0..400).fold(json!(1), |inner, _| json!([inner]));
    let huge = "x".repeat(17 << 20);
    let bad = peer(false, move |seen| match seen.body["params"]["message"]["parts"][0]["text"].as_str() {
        Some("deep") => Act::Result(json!({ "task": { "id": "t-1", "metadata": { "x": deep } } })),
        Some("huge") => Act::Result(json!({ "task": { "id": "t-1", "metadata": { "x": huge } } })),
        Some("late") => Act::Hang,
        _ => Act::Result(json!({ "task": task("COMPLETED") })),
    });
    // It begins a task, and is never heard of again.
    let lost = peer(true, |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") }))], false),
        _ => Act::Hang,
    });
    let (table, soon) = ("expose = true\n", "expose = true\ntimeout = 3000\n");
    let (_folder, served) = near(&[("w", &bad.base, table), ("h", &bad.base, soon), ("l", &lost.base, soon)], "");
    for (peer, text, why) in [("w", "deep", "unacceptable"), ("w", "huge", "its answer"), ("h", "late", "no answer to")]
    {
        let told = say(&served, ANY, peer, message(text, text)).await;
        assert_eq!(told.json()["error"]["code"], -32603, "{text}: {:.300}", told.body);
        assert!(told.body.contains(why), "{text}: {:.300}", told.body);
        assert_eq!(state(&send(&served, ANY, "w", message(&format!("{text}-2"), "go")).await), "TASK_STATE_COMPLETED");
    }
    let told = say(&served, ANY, "l", message("m-1", "go")).await;
    assert!(told.json()["error"]["code"] == -32603 && !told.body.contains("t-1"), "{told:?}");
    let listed = result(&served, ANY, "l", "ListTasks", json!({})).await;
    assert_eq!(state(&listed["tasks"][0]), "TASK_STATE_WORKING", "it is known all the same: {listed}");
}

/// A peer that is killed and comes back has its task, and so has its client here.
#[tokio::test]
async fn a_restart_of_the_peer_changes_nothing() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = free.local_addr().unwrap().to_string();
    drop(free);
    let far_folder = far_folder();
    let begin = || Served::of(far_folder.command(&["serve", "--listen", &at]));
    let mut far = begin();
    let card = format!("{}/a2a/asker/.well-known/agent-card.json", far.base);
    let table = format!("expose = true\n{}", crate::a2a_peers::headers());
    let (_folder, served) = near(&[("a", &card, &table)], "");
    let asked = send(&served, ANY, "a", message("m-1", "go")).await;
    assert_eq!(state(&asked), "TASK_STATE_INPUT_REQUIRED", "{asked}");
    Command::new("kill").args(["-9", &far.pid().to_string()]).status().unwrap();
    far.ended_within(std::time::Duration::from_secs(10)).expect("it lives on");
    let away = say(&served, ANY, "a", to_task(&asked, "m-2", "red")).await;
    assert_eq!(away.status, 503, "told nothing, so it may be said again: {away:?}");
    let listed = result(&served, ANY, "a", "ListTasks", json!({})).await;
    assert_eq!(listed["tasks"][0]["id"], asked["id"], "{listed}");
    let far = begin();
    let got = result(&served, ANY, "a", "GetTask", json!({ "id": asked["id"] })).await;
    assert_eq!((&got["id"], state(&got)), (&asked["id"], "TASK_STATE_INPUT_REQUIRED"), "{got}");
    let done = send(&served, ANY, "a", to_task(&asked, "m-2", "red")).await;
    assert!(done["artifacts"].to_string().contains("red"), "{done}");
    let theirs = result(&far, ALICE, "asker", "ListTasks", json!({})).await;
    assert_eq!(theirs["totalSize"], 1, "nothing is done twice: {theirs}");
}
