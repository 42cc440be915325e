//! The A2A door over both bindings: tasks of a client and nobody else's, questions, approvals,
//! streams, crashes, and the table of errors.

use crate::rest::{ALICE, BOB, BOSS, folder};
use conformance::pleach::Folder;
use conformance::served::{Answer, Listening, Served};
use serde_json::{Value, json};

const V1: (&str, &str) = ("a2a-version", "1.0");

pub(crate) fn message(id: &str, text: &str) -> Value {
    json!({ "message": { "messageId": id, "role": "ROLE_USER", "parts": [{ "text": text }] } })
}
pub(crate) fn to_task(task: &Value, id: &str, text: &str) -> Value {
    let mut params = message(id, text);
    params["message"]["taskId"] = task["id"].clone();
    params
}
fn body(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string()
}
async fn rpc(served: &Served, who: (&str, &str), agent: &str, method: &str, params: Value) -> Answer {
    served.post(&format!("/a2a/{agent}"), &[who, V1], body(method, &params)).await
}
/// A result of JSON-RPC.
pub(crate) async fn result(served: &Served, who: (&str, &str), agent: &str, method: &str, params: Value) -> Value {
    let answer = rpc(served, who, agent, method, params).await;
    let json = answer.json();
    assert!(answer.status == 200 && json["id"] == 7 && json.get("error").is_none(), "{method}: {answer:?}");
    json["result"].clone()
}
pub(crate) async fn send(served: &Served, who: (&str, &str), agent: &str, params: Value) -> Value {
    result(served, who, agent, "SendMessage", params).await["task"].clone()
}
pub(crate) async fn code(served: &Served, who: (&str, &str), agent: &str, method: &str, params: Value) -> i64 {
    let answer = rpc(served, who, agent, method, params).await;
    answer.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer:?}"))
}
pub(crate) fn state(task: &Value) -> &str {
    task["status"]["state"].as_str().unwrap_or_default()
}
/// The task once it is as is wanted.
pub(crate) async fn answered(served: &Served, agent: &str, task: &Value, is: impl Fn(&Value) -> bool) -> Value {
    let wanted = async {
        loop {
            let now = result(served, ("x-nobody", "1"), agent, "GetTask", json!({ "id": task["id"] })).await;
            if is(&now) {
                return now;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wanted).await.expect("it did not become so")
}
/// The updates of a stream: `(kind, value)` each.
fn updates(heard: &str) -> Vec<(String, Value)> {
    let frames = heard.lines().filter_map(|line| line.strip_prefix("data: "));
    let values = frames.map(|data| serde_json::from_str::<Value>(data).unwrap());
    let bare = values.map(|v| if v["jsonrpc"] == "2.0" { v["result"].clone() } else { v });
    let one = |v: Value| v.as_object().and_then(|o| o.iter().next()).map(|(k, v)| (k.clone(), v.clone()));
    bare.filter_map(one).collect()
}
fn kinds(heard: &str) -> Vec<String> {
    let said = |(kind, value): (String, Value)| match kind.as_str() {
        "artifactUpdate" => format!("artifact {}", value["artifact"]["parts"][0]["text"]),
        _ => format!("{kind} {}", state(&value)).replace("TASK_STATE_", ""),
    };
    updates(heard).into_iter().map(said).collect()
}

#[tokio::test]
async fn a_task_is_its_clients_and_nobody_elses() {
    let folder = folder();
    let served = Served::start(&folder);
    let task = send(&served, ALICE, "quick", message("m-1", "go")).await;
    assert_eq!((state(&task), &task["contextId"]), ("TASK_STATE_COMPLETED", &task["id"]), "{task}");
    assert_eq!(task["artifacts"][0]["parts"], json!([{ "text": "quick: go", "mediaType": "text/plain" }]));
    assert_eq!((&task["history"][0]["messageId"], &task["history"][0]["role"]), (&json!("m-1"), &json!("ROLE_USER")));
    let got = result(&served, ALICE, "quick", "GetTask", json!({ "id": task["id"] })).await;
    assert_eq!(got, task, "a snapshot is what was sent");
    let bare = result(&served, ALICE, "quick", "GetTask", json!({ "id": task["id"], "historyLength": 0 })).await;
    assert_eq!(bare.get("history"), None);
    // Over the other binding it is the same.
    let path = format!("/a2a/quick/rest/tasks/{}", task["id"].as_str().unwrap());
    let over_http = served.get(&path, &[ALICE, V1]).await;
    assert_eq!((over_http.status, over_http.json()), (200, task.clone()));
    assert_eq!(over_http.headers["content-type"], "application/a2a+json");
    let waiting = send(&served, ALICE, "asker", message("m-2", "go")).await;
    assert_eq!(state(&waiting), "TASK_STATE_INPUT_REQUIRED");
    // Another's task and one that never was look the same, on every way to it.
    for (method, more) in [("GetTask", false), ("CancelTask", false), ("SubscribeToTask", false), ("SendMessage", true)]
    {
        for (id, agent) in [(&task["id"], "quick"), (&json!("r-0000000000000000"), "quick"), (&waiting["id"], "quick")]
        {
            let params = if more { to_task(&json!({ "id": id }), "m", "x") } else { json!({ "id": id }) };
            let answer = rpc(&served, BOB, agent, method, params).await;
            let told = answer.json()["error"].clone();
            let wanted = format!("no task of yours is named {id} here");
            assert_eq!(
                (&told["code"], told["message"].as_str().unwrap()),
                (&json!(-32001), wanted.as_str()),
                "{method}"
            );
        }
    }
    let strange = served.get(&path, &[BOB, V1]).await;
    let absent = served.get("/a2a/quick/rest/tasks/r-0000000000000000", &[BOB, V1]).await;
    assert_eq!((strange.status, absent.status), (404, 404));
    assert_eq!(strange.json()["error"]["details"][0]["reason"], "TASK_NOT_FOUND");
    // Nor is it another agent's.
    assert_eq!(code(&served, ALICE, "asker", "GetTask", json!({ "id": task["id"] })).await, -32001);
    assert_eq!(result(&served, BOB, "quick", "ListTasks", json!({})).await["totalSize"], 0);
    assert_eq!(
        state(&result(&served, ALICE, "asker", "GetTask", json!({ "id": waiting["id"] })).await),
        state(&waiting)
    );
    // Whoever may not start an agent sends it nothing, and nobody in particular sends nothing at all.
    assert_eq!(rpc(&served, BOB, "asker", "SendMessage", message("m", "x")).await.status, 404);
    let nobody = served.post("/a2a/quick", &[V1], body("SendMessage", &message("m", "x"))).await;
    assert_eq!(nobody.status, 401, "{nobody:?}");
    assert!(nobody.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    let runs = folder.run(&["runs", "--json"]).out;
    assert_eq!(runs.lines().count(), 2, "{runs}");
}

#[tokio::test]
async fn tasks_are_listed_page_by_page() {
    let folder = folder();
    let served = Served::start(&folder);
    let mut sent = Vec::new();
    for n in 0..5 {
        let mut params = message(&format!("m-{n}"), "go");
        params["message"]["contextId"] = json!(if n % 2 == 0 { "even" } else { "odd" });
        sent.push(send(&served, ALICE, "quick", params).await["id"].clone());
    }
    let list = async |params: Value| result(&served, ALICE, "quick", "ListTasks", params).await;
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = list(json!({ "pageSize": 2, "pageToken": token })).await;
        assert_eq!((&page["totalSize"], &page["pageSize"]), (&json!(5), &json!(2)));
        let tasks = page["tasks"].as_array().unwrap();
        assert!(tasks.iter().all(|t| t.get("artifacts").is_none()), "only on demand");
        seen.extend(tasks.iter().map(|t| t["id"].clone()));
        token = page["nextPageToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
    }
    sent.reverse();
    assert_eq!(seen, sent, "latest first, each once");
    let stamp = list(json!({ "pageSize": 1 })).await["tasks"][0]["status"]["timestamp"].clone();
    assert_eq!(list(json!({ "statusTimestampAfter": stamp })).await["totalSize"], 1, "its own time is included");
    let odd = list(json!({ "contextId": "odd", "includeArtifacts": true })).await;
    assert_eq!(odd["totalSize"], 2);
    assert_eq!(odd["tasks"][0]["artifacts"][0]["parts"][0]["text"], "quick: go");
    assert_eq!(list(json!({ "status": "TASK_STATE_COMPLETED" })).await["totalSize"], 5);
    assert_eq!(list(json!({ "status": "TASK_STATE_WORKING" })).await["totalSize"], 0);
    assert_eq!(list(json!({ "statusTimestampAfter": "2999-01-01T00:00:00Z" })).await["totalSize"], 0);
    assert_eq!(list(json!({ "statusTimestampAfter": "2001-01-01T00:00:00Z" })).await["totalSize"], 5);
    let first = list(json!({ "pageSize": 1 })).await["nextPageToken"].clone();
    for wrong in [
        json!({ "pageSize": 0 }),
        json!({ "pageSize": 101 }),
        json!({ "historyLength": -1 }),
        json!({ "status": "working" }),
        json!({ "pageToken": "2" }),
        json!({ "pageToken": first, "contextId": "odd" }),
        json!({ "statusTimestampAfter": "yesterday" }),
    ] {
        assert_eq!(code(&served, ALICE, "quick", "ListTasks", wrong.clone()).await, -32602, "{wrong}");
    }
    // A page of one client is nothing to another.
    let token = list(json!({ "pageSize": 1 })).await["nextPageToken"].clone();
    assert_eq!(code(&served, BOB, "quick", "ListTasks", json!({ "pageSize": 1, "pageToken": token })).await, -32602);
    let path = "/a2a/quick/rest/tasks?pageSize=3&includeArtifacts=true";
    let over_http = served.get(path, &[ALICE, V1]).await.json();
    assert_eq!(over_http["tasks"].as_array().unwrap().len(), 3);
    assert!(over_http["tasks"][0]["artifacts"].is_array());
}

#[tokio::test]
async fn a_question_is_answered_by_the_next_message_once() {
    let folder = folder();
    let served = Served::start(&folder);
    let asked = send(&served, ALICE, "asker", message("m-1", "go")).await;
    assert_eq!(state(&asked), "TASK_STATE_INPUT_REQUIRED");
    assert_eq!(asked["status"]["message"]["parts"][0]["text"], "Which?");
    assert_eq!(asked.get("artifacts"), None, "none while it asks");
    // One of another conversation, and one that is none of the options, change nothing.
    let mut elsewhere = to_task(&asked, "m-2", "red");
    elsewhere["message"]["contextId"] = json!("another");
    assert_eq!(code(&served, ALICE, "asker", "SendMessage", elsewhere).await, -32602);
    assert_eq!(code(&served, ALICE, "asker", "SendMessage", to_task(&asked, "m-3", "green")).await, -32602);
    let done = send(&served, ALICE, "asker", to_task(&asked, "m-4", "red")).await;
    assert_eq!((&done["id"], state(&done)), (&asked["id"], "TASK_STATE_COMPLETED"));
    assert_eq!(done["artifacts"][0]["parts"][0]["text"], "heard: red");
    let said: Vec<&str> =
        done["history"].as_array().unwrap().iter().map(|m| m["messageId"].as_str().unwrap()).collect();
    assert!(said.first() == Some(&"m-1") && said.last() == Some(&"m-4"), "{said:?}");
    // Said again it is known; said anew it is too late.
    let again = send(&served, ALICE, "asker", to_task(&asked, "m-4", "red")).await;
    assert_eq!(again, done);
    assert_eq!(code(&served, ALICE, "asker", "SendMessage", to_task(&asked, "m-5", "blue")).await, -32004);
}

#[tokio::test]
async fn what_is_sent_twice_is_done_once() {
    let folder = folder();
    let served = Served::start(&folder);
    let one = || send(&served, ALICE, "quick", message("the-same", "go"));
    let tasks = futures_util::future::join_all((0..8).map(|_| one())).await;
    assert!(tasks.iter().all(|task| task["id"] == tasks[0]["id"]), "{tasks:?}");
    // Of another client it is another, and so is one that says something else.
    let others = send(&served, BOB, "quick", message("the-same", "go")).await;
    let another = send(&served, ALICE, "quick", message("the-same", "go on")).await;
    assert!(others["id"] != tasks[0]["id"] && another["id"] != tasks[0]["id"]);
    let keyed = async |text: &str| {
        let headers = [ALICE, V1, ("idempotency-key", "k-1")];
        served.post("/a2a/quick", &headers, body("SendMessage", &message("m", text))).await.json()
    };
    let first = keyed("a").await;
    assert_eq!(keyed("a").await["result"]["task"]["id"], first["result"]["task"]["id"]);
    assert_eq!(keyed("b").await["error"]["code"], -32602, "a key is of one message");
    assert_eq!(folder.run(&["runs", "--json"]).out.lines().count(), 4);
}

/// What the policy asks is asked of whoever may approve, and what was denied is not done.
#[tokio::test]
async fn an_approval_is_given_by_whoever_may_and_nobody_else() {
    let folder = folder();
    std::fs::create_dir_all(folder.join("out")).unwrap();
    let served = Served::start(&folder);
    let asked = send(&served, ALICE, "writer", message("m-1", "go")).await;
    assert_eq!(state(&asked), "TASK_STATE_AUTH_REQUIRED", "{asked}");
    assert_eq!(code(&served, ALICE, "writer", "SendMessage", to_task(&asked, "m-2", "allow")).await, -32004);
    assert_eq!(folder.read("out/f"), None);
    // Who may approve does so where questions of others are, which is not here.
    let open = served.get("/v1/approvals", &[BOSS]).await.json();
    let id = open["approvals"][0]["id"].as_str().unwrap().to_owned();
    let mut stream = subscribe(&served, ALICE, "writer", &asked).await;
    stream.until("AUTH_REQUIRED").await;
    let said = served.post(&format!("/v1/approvals/{id}"), &[BOSS], json!({ "decision": "allow" }).to_string()).await;
    assert_eq!(said.status, 200, "{said:?}");
    stream.end().await;
    assert_eq!(kinds(&stream.heard).last().unwrap(), "statusUpdate COMPLETED", "{}", stream.heard);
    assert_eq!(folder.read("out/f").as_deref(), Some("x"));
    // Where the caller may, the next message says so.
    let own = folder.read("pleach.toml").unwrap();
    let local = crate::a2a::anonymous(&own);
    for (word, written) in [("deny", None), ("allow", Some("x"))] {
        let folder = Folder::new(&local);
        folder.write("replies.toml", &self::folder().read("replies.toml").unwrap());
        std::fs::create_dir_all(folder.join("out")).unwrap();
        let served = Served::start(&folder);
        let nobody = ("x-nobody", "1");
        let asked = send(&served, nobody, "writer", message("m-1", "go")).await;
        assert_eq!(asked["status"]["message"]["metadata"]["pleach/form"]["arguments"]["file_path"], "out/f");
        // Leave is given to what was seen: not without a name, and not to another.
        assert_eq!(code(&served, nobody, "writer", "SendMessage", to_task(&asked, "m-2", word)).await, -32602);
        let said = |id: &str, word: &str, question: &Value| {
            let mut params = to_task(&asked, id, word);
            params["message"]["metadata"] = json!({ "pleach/question": question });
            params
        };
        let question = &asked["status"]["message"]["metadata"]["pleach/question"];
        assert_eq!(code(&served, nobody, "writer", "SendMessage", said("m-3", word, &json!("q-0"))).await, -32602);
        assert_eq!(code(&served, nobody, "writer", "SendMessage", said("m-4", "perhaps", question)).await, -32602);
        assert_eq!(folder.read("out/f"), None);
        let done = send(&served, nobody, "writer", said("m-5", word, question)).await;
        assert_eq!(
            (state(&done), folder.read("out/f").as_deref()),
            ("TASK_STATE_COMPLETED", written),
            "{word}: {done}"
        );
    }
}

/// The same file without named clients.
fn anonymous(policy: &str) -> String {
    let (before, rest) = policy.split_once("[clients.alice]").unwrap();
    let agents = rest.split_once("[agents.quick]").unwrap().1;
    format!("{before}[agents.quick]{agents}").replace("prompt = \"p\"", "prompt = \"p\"\nexpose = true")
}

async fn subscribe(served: &Served, who: (&str, &str), agent: &str, task: &Value) -> Listening {
    served.open(&format!("/a2a/{agent}"), &[who, V1], body("SubscribeToTask", &json!({ "id": task["id"] }))).await
}

#[tokio::test]
async fn streams_tell_a_task_from_its_first_word_to_its_last() {
    let folder = folder();
    let served = Served::start(&folder);
    let mut stream = served.open("/a2a/lead", &[ALICE, V1], body("SendStreamingMessage", &message("m-1", "go"))).await;
    stream.end().await;
    let wanted = [
        "task SUBMITTED",
        "statusUpdate WORKING",
        "statusUpdate WORKING",
        "artifact \"led: quick: child\"",
        "statusUpdate COMPLETED",
    ];
    let told = kinds(&stream.heard);
    assert!(told.len() == wanted.len() || told.len() == wanted.len() - 1, "{told:?}");
    assert_eq!(told[told.len() - 2..], wanted[3..]);
    assert!(told[0].starts_with("task "));
    // Over the other binding the frames are bare.
    let path = "/a2a/quick/rest/message:stream";
    let mut bare = served.open(path, &[ALICE, V1], message("m-2", "go").to_string()).await;
    bare.end().await;
    assert!(!bare.heard.contains("jsonrpc"));
    assert_eq!(kinds(&bare.heard).last().unwrap(), "statusUpdate COMPLETED");
    // One that asks ends the stream, and whoever subscribes hears it to its end, each the same.
    let mut asks = served.open("/a2a/asker", &[ALICE, V1], body("SendStreamingMessage", &message("m-3", "go"))).await;
    asks.end().await;
    let told = updates(&asks.heard);
    assert_eq!(kinds(&asks.heard).last().unwrap(), "statusUpdate INPUT_REQUIRED");
    let task = told[0].1.clone();
    let (mut one, mut two) =
        (subscribe(&served, ALICE, "asker", &task).await, subscribe(&served, ALICE, "asker", &task).await);
    let gone = subscribe(&served, ALICE, "asker", &task).await;
    one.until("INPUT_REQUIRED").await;
    two.until("INPUT_REQUIRED").await;
    drop(gone);
    let done = send(&served, ALICE, "asker", to_task(&task, "m-4", "blue")).await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED");
    one.end().await;
    two.end().await;
    assert_eq!(updates(&one.heard), updates(&two.heard));
    assert_eq!(kinds(&one.heard)[0], "task INPUT_REQUIRED");
    assert_eq!(kinds(&one.heard).last().unwrap(), "statusUpdate COMPLETED");
    assert_eq!(
        code(&served, ALICE, "asker", "SubscribeToTask", json!({ "id": task["id"] })).await,
        -32004,
        "it has ended"
    );
}

#[tokio::test]
async fn a_task_is_cancelled_and_stays_so() {
    let folder = folder();
    let served = Served::start(&folder);
    let mut at_once = message("m-1", "go");
    at_once["configuration"] = json!({ "returnImmediately": true });
    let task = send(&served, ALICE, "slow", at_once).await;
    assert!(["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].contains(&state(&task)), "{task}");
    let ended = result(&served, ALICE, "slow", "CancelTask", json!({ "id": task["id"] })).await;
    assert_eq!(state(&ended), "TASK_STATE_CANCELED");
    assert_eq!(code(&served, ALICE, "slow", "CancelTask", json!({ "id": task["id"] })).await, -32002);
    assert_eq!(code(&served, ALICE, "slow", "SendMessage", to_task(&task, "m-2", "go on")).await, -32004);
    // One that waits for an answer is cancelled where it lies.
    let asked = send(&served, ALICE, "asker", message("m-3", "go")).await;
    let path = format!("/a2a/asker/rest/tasks/{}:cancel", asked["id"].as_str().unwrap());
    let ended = served.post(&path, &[ALICE, V1], "").await;
    assert_eq!((ended.status, state(&ended.json())), (200, "TASK_STATE_CANCELED"), "{ended:?}");
}

/// The process dies while a task works and while another asks: both go on with the next one, and
/// nothing is begun twice.
#[tokio::test]
async fn tasks_outlive_the_process_that_took_them() {
    let folder = folder();
    let replies = folder.read("replies.toml").unwrap().replace("delay = \"30s\"", "delay = \"2s\"");
    folder.write("replies.toml", &replies);
    let served = Served::start(&folder);
    let mut at_once = message("m-1", "go");
    at_once["configuration"] = json!({ "returnImmediately": true });
    let works = send(&served, ALICE, "slow", at_once).await;
    let asks = send(&served, ALICE, "asker", message("m-2", "go")).await;
    // Dropped, it is killed.
    drop(served);
    let served = Served::start(&folder);
    let again = send(&served, ALICE, "slow", message("m-1", "go")).await;
    assert_eq!((&again["id"], state(&again)), (&works["id"], "TASK_STATE_COMPLETED"), "{again}");
    assert_eq!(again["artifacts"][0]["parts"][0]["text"], "slow");
    let done = send(&served, ALICE, "asker", to_task(&asks, "m-3", "red")).await;
    assert_eq!((&done["id"], state(&done)), (&asks["id"], "TASK_STATE_COMPLETED"));
    assert_eq!(folder.run(&["runs", "--json"]).out.lines().count(), 2);
}

#[tokio::test]
async fn cards_are_of_the_policy_and_of_both_generations() {
    let folder = Folder::new(&anonymous(&folder().read("pleach.toml").unwrap()).replacen("expose = true", "", 1));
    let served = Served::start(&folder);
    let card = served.get("/a2a/asker/.well-known/agent-card.json", &[]).await;
    assert_eq!((card.status, card.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let (json, own) = (card.json(), format!("{}/a2a/asker", served.base));
    for interface in json["supportedInterfaces"].as_array().unwrap() {
        assert!(interface["url"].as_str().unwrap().starts_with(&own), "{interface}");
    }
    assert_eq!((&json["url"], &json["protocolVersion"]), (&json!(own), &json!("0.3.0")));
    assert_eq!(json["skills"][0]["id"], "asker");
    // Of one generation for whoever names it.
    let pure = served.get("/a2a/asker/.well-known/agent-card.json", &[V1]).await.json();
    assert!(pure.get("url").is_none() && pure["supportedInterfaces"] == json["supportedInterfaces"], "{pure}");
    // Whoever has it is told so.
    let etag = card.headers["etag"].to_str().unwrap().to_owned();
    let modified = card.headers["last-modified"].to_str().unwrap().to_owned();
    for (name, value) in [("if-none-match", etag.as_str()), ("if-modified-since", &modified)] {
        let same = served.get("/a2a/asker/.well-known/agent-card.json", &[(name, value)]).await;
        assert_eq!((same.status, same.body.as_str()), (304, ""), "{name}");
    }
    let other = served.get("/a2a/asker/.well-known/agent-card.json", &[("if-none-match", "\"x\"")]).await;
    assert_eq!(other.status, 200);
    assert!(card.headers["cache-control"].to_str().unwrap().contains("max-age="));
    // A Host of the client's choice is no part of it, and what is not exposed has none.
    let forged = served.get("/a2a/asker/.well-known/agent-card.json", &[("x-forwarded-host", "evil.example")]).await;
    assert_eq!(forged.json()["url"], own);
    assert_eq!(served.get("/a2a/quick/.well-known/agent-card.json", &[]).await.status, 404);
    assert_eq!(served.get("/a2a/nobody/.well-known/agent-card.json", &[]).await.status, 404);
    assert!(served.get("/.well-known/agent-card.json", &[]).await.status == 200);
    // Where clients are named the card says how they are known, and more to whoever is.
    let clients = crate::rest::folder();
    let named = Served::start(&clients);
    let wanted = result(&named, ALICE, "lead", "GetExtendedAgentCard", json!({})).await;
    assert_eq!(wanted["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"], "Bearer");
    let skills: Vec<&str> = wanted["skills"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(skills, ["lead", "quick"]);
    assert_eq!(code(&served, ("x-nobody", "1"), "asker", "GetExtendedAgentCard", json!({})).await, -32004);
}
