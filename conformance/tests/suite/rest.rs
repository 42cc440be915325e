//! The REST door: runs of a client and nobody else's, keys, cancels, messages, approvals, forks.

use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
pub(crate) const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");
pub(crate) const BOSS: (&str, &str) = ("authorization", "Bearer boss-boss-boss-boss-boss");

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "read-write"
filesystem = { read = ["docs"], read_write = ["out"] }
tools = { allow = ["files__*"], ask = ["files__Write"] }
NETWORKS
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["quick", "slow", "lead", "writer", "asker"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
may_start = ["quick"]
[clients.boss]
token = "boss-boss-boss-boss-boss"
can_approve = true
[agents.quick]
prompt = "p"
[agents.slow]
prompt = "p"
[agents.lead]
prompt = "p"
subagents = ["quick"]
[agents.writer]
prompt = "p"
[agents.asker]
prompt = "p"
"#;

const REPLIES: &str = r#"
[[reply]]
agent = "quick"
text = "quick: {{prompt}}"
chunks = 3
[[reply]]
agent = "quick"
text = "again"
[[reply]]
agent = "slow"
text = "slow"
delay = "30s"
[[reply]]
agent = "lead"
text = "I ask."
delay = "600ms"
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "child", subagent_type = "quick" }
[[reply]]
agent = "lead"
text = "led: {{result}}"
delay = "600ms"
[[reply]]
agent = "writer"
text = "w"
[[reply.tool]]
name = "files__Write"
input = { file_path = "out/f", content = "x" }
[[reply]]
agent = "writer"
text = "wrote: {{result}}"
[[reply]]
agent = "asker"
text = "a"
[[reply.tool]]
name = "ask_user"
input = { question = "Which?", options = ["red", "blue"] }
[[reply]]
agent = "asker"
text = "heard: {{result}}"
"#;

pub(crate) fn folder_with(networks: &str) -> Folder {
    let folder = Folder::new(&POLICY.replace("NETWORKS", networks));
    folder.write("replies.toml", REPLIES);
    folder.write("docs/a.md", "hello");
    folder
}
pub(crate) fn folder() -> Folder {
    folder_with("")
}

pub(crate) async fn post(served: &Served, who: (&str, &str), path: &str, body: Value) -> Answer {
    served.post(path, &[who], body.to_string()).await
}
pub(crate) async fn start(served: &Served, who: (&str, &str), agent: &str) -> String {
    let answer = post(served, who, "/v1/runs", json!({ "agent": agent, "prompt": "go" })).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["run"].as_str().unwrap().to_owned()
}
/// Waits until a run is in a state.
pub(crate) async fn until(served: &Served, who: (&str, &str), run: &str, state: &str) -> Value {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let now = served.get(&format!("/v1/runs/{run}"), &[who]).await.json();
            if now["state"] == state {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match waited.await {
        Ok(run) => run,
        Err(_) => panic!("not {state}: {:?}", served.get(&format!("/v1/runs/{run}"), &[who]).await),
    }
}
fn problem(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let said = answer.json();
    assert_eq!(said["status"], status);
    for field in ["type", "title", "detail", "next"] {
        assert!(said[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {said}");
    }
    assert!(answer.body.contains(words), "{words}: {said}");
}

#[tokio::test]
async fn a_run_is_started_listed_and_read() {
    let folder = folder();
    let served = Served::start(&folder);
    let begun = post(&served, ALICE, "/v1/runs", json!({ "agent": "quick", "prompt": "go" })).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let run = begun.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(begun.headers["location"], format!("/v1/runs/{run}"));
    let done = until(&served, ALICE, &run, "completed").await;
    assert_eq!((&done["text"], &done["agent"], &done["turns"]), (&json!("quick: go"), &json!("quick"), &json!(1)));
    assert_eq!((&done["root"], &done["depth"], &done["questions"]), (&json!(run), &json!(0), &json!([])));
    let lead = start(&served, ALICE, "lead").await;
    until(&served, ALICE, &lead, "completed").await;

    let list = async |query: &str| served.get(&format!("/v1/runs{query}"), &[ALICE]).await.json();
    let ids = |page: &Value| -> Vec<String> {
        page["runs"].as_array().unwrap().iter().map(|r| r["run"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&list("").await), [lead.clone(), run.clone()], "roots, newest first");
    let first = list("?limit=1").await;
    assert_eq!(ids(&first), std::slice::from_ref(&lead));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = list(&format!("?limit=1&cursor={cursor}")).await;
    assert_eq!((ids(&second), second.get("next_cursor")), (vec![run.clone()], None));
    assert_eq!(ids(&list("?parent=any").await).len(), 3);
    assert_eq!(list(&format!("?parent={lead}")).await["runs"][0]["agent"], "quick");
    assert_eq!(ids(&list("?agent=quick&state=completed").await), [run]);
    assert!(ids(&list("?state=failed").await).is_empty());
    // A cursor is its client's, and of its filters.
    problem(&served.get(&format!("/v1/runs?cursor={cursor}"), &[BOB]).await, 422, "no such cursor");
    problem(&served.get(&format!("/v1/runs?state=failed&cursor={cursor}"), &[ALICE]).await, 422, "no such cursor");
}

#[tokio::test]
async fn a_key_is_one_run() {
    let folder = folder();
    let served = Served::start(&folder);
    let body = json!({ "agent": "quick", "prompt": "go" }).to_string();
    let send = async |served: &Served, who, key: &str, body: String| {
        served.post("/v1/runs", &[who, ("idempotency-key", key)], body).await
    };
    let (one, two) = tokio::join!(send(&served, ALICE, "k", body.clone()), send(&served, ALICE, "k", body.clone()));
    assert_eq!((one.status, two.status), (202, 202), "{one:?} {two:?}");
    assert_eq!(one.json()["run"], two.json()["run"]);
    let other = send(&served, ALICE, "k", body.replace("go", "stop")).await;
    problem(&other, 422, "key-reused");
    let bob = send(&served, BOB, "k", body.clone()).await;
    assert_ne!(bob.json()["run"], one.json()["run"], "a key is its client's own");
    drop(served);
    let served = Served::start(&folder);
    let spaced = body.replace(',', " , ");
    let again = send(&served, ALICE, "k", spaced).await;
    assert_eq!(again.json()["run"], one.json()["run"], "over a restart, and however it is spaced");
    assert_eq!(again.headers["idempotency-replayed"], "true");
    problem(&send(&served, ALICE, &"k".repeat(300), body).await, 422, "1 to 255");
}

#[tokio::test]
async fn a_client_has_its_own_runs_only() {
    let folder = folder();
    let served = Served::start(&folder);
    let run = start(&served, ALICE, "quick").await;
    until(&served, ALICE, &run, "completed").await;
    let text = json!({ "text": "x" });
    for stranger in [BOB, BOSS] {
        for id in [run.as_str(), "r-none"] {
            let at = |rest: &str| format!("/v1/runs/{id}{rest}");
            problem(&served.get(&at(""), &[stranger]).await, 404, "no run of yours");
            problem(&served.get(&at("/events"), &[stranger]).await, 404, "no run of yours");
            problem(&served.post(&at("/cancel"), &[stranger], "").await, 404, "no run of yours");
            problem(&post(&served, stranger, &at("/messages"), text.clone()).await, 404, "no run of yours");
            problem(&post(&served, stranger, &at("/fork"), json!({ "at": 1 })).await, 404, "no run of yours");
        }
        assert_eq!(served.get("/v1/runs?parent=any", &[stranger]).await.json()["runs"], json!([]));
    }
    let refused = post(&served, BOB, "/v1/runs", json!({ "agent": "slow", "prompt": "go" })).await;
    problem(&refused, 403, "agent is one of: quick");
    let nobody = served.get("/v1/runs", &[]).await;
    problem(&nobody, 401, "bearer token");
    assert!(nobody.headers.contains_key("www-authenticate"));
    problem(&served.get("/v1/runs", &[("authorization", "Bearer x")]).await, 401, "names no client");
}

#[tokio::test]
async fn a_run_is_cancelled_told_more_and_forked() {
    let folder = folder();
    let served = Served::start(&folder);
    let slow = start(&served, ALICE, "slow").await;
    assert_eq!(served.post(&format!("/v1/runs/{slow}/cancel"), &[ALICE], "").await.status, 202);
    until(&served, ALICE, &slow, "cancelled").await;
    problem(&served.post(&format!("/v1/runs/{slow}/cancel"), &[ALICE], "").await, 409, "cancelled already");
    let more = post(&served, ALICE, &format!("/v1/runs/{slow}/messages"), json!({ "text": "more" })).await;
    problem(&more, 409, "conflict");

    let quick = start(&served, ALICE, "quick").await;
    until(&served, ALICE, &quick, "completed").await;
    let told = post(&served, ALICE, &format!("/v1/runs/{quick}/messages"), json!({ "text": "more" })).await;
    assert_eq!(told.status, 202, "{told:?}");
    let waited = async {
        while until(&served, ALICE, &quick, "completed").await["text"] != "again" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap();

    problem(&post(&served, ALICE, &format!("/v1/runs/{quick}/fork"), json!({ "at": 999 })).await, 422, "events 1 to");
    let fork = post(&served, ALICE, &format!("/v1/runs/{quick}/fork"), json!({ "at": 1 })).await;
    assert_eq!(fork.status, 201, "{fork:?}");
    let id = fork.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(fork.headers["location"], format!("/v1/runs/{id}"));
    assert_ne!(id, quick);
    assert_eq!(until(&served, ALICE, &id, "completed").await["text"], "quick: go");
}

#[tokio::test]
async fn approvals_are_answered_by_those_who_may() {
    let folder = folder();
    let served = Served::start(&folder);
    let writer = start(&served, ALICE, "writer").await;
    let waiting = until(&served, ALICE, &writer, "waiting").await;
    let question = waiting["questions"][0].clone();
    assert_eq!(
        (&question["kind"], &question["state"], &question["run"]),
        (&json!("approval"), &json!("open"), &json!(writer))
    );
    let at = format!("/v1/approvals/{}", question["id"].as_str().unwrap());
    let list = async |who| served.get("/v1/approvals", &[who]).await.json()["approvals"].as_array().unwrap().len();
    assert_eq!((list(ALICE).await, list(BOB).await, list(BOSS).await), (1, 0, 1));
    let allow = json!({ "decision": "allow", "note": "fine" });
    problem(&post(&served, ALICE, &at, allow.clone()).await, 403, "may not approve");
    problem(&post(&served, BOB, &at, allow.clone()).await, 404, "is asked of you");
    problem(&served.get(&at, &[BOB]).await, 404, "is asked of you");
    problem(&post(&served, BOSS, &at, json!({ "input": "x" })).await, 422, "give decision");
    problem(&post(&served, BOSS, &at, json!({})).await, 422, "either decision");
    let answered = post(&served, BOSS, &at, allow.clone()).await;
    assert_eq!((answered.status, &answered.json()["state"]), (200, &json!("answered")), "{answered:?}");
    until(&served, ALICE, &writer, "completed").await;
    assert_eq!(folder.read("out/f").as_deref(), Some("x"));
    problem(&post(&served, BOSS, &at, allow).await, 409, "closed already");
    assert_eq!(served.get(&at, &[ALICE]).await.json()["by"], "boss");
}

#[tokio::test]
async fn what_an_agent_asks_its_owner_answers() {
    let folder = folder();
    let served = Served::start(&folder);
    let asker = start(&served, ALICE, "asker").await;
    let waiting = until(&served, ALICE, &asker, "waiting").await;
    let at = format!("/v1/approvals/{}", waiting["questions"][0]["id"].as_str().unwrap());
    problem(&post(&served, ALICE, &at, json!({ "input": "green" })).await, 422, "one of");
    // It waits as a row: over a restart.
    drop(served);
    let served = Served::start(&folder);
    let answered = post(&served, ALICE, &at, json!({ "input": "blue" })).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!(until(&served, ALICE, &asker, "completed").await["text"], "heard: blue");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let folder = folder();
    let served = Served::start(&folder);
    let bad = async |body: &str| served.post("/v1/runs", &[ALICE], body.to_owned()).await;
    problem(&bad("{").await, 400, "bad-request");
    problem(&bad(r#"{"agent":"quick"}"#).await, 422, "prompt");
    problem(&bad(r#"{"agent":"quick","prompt":"x","prmopt":1}"#).await, 422, "prmopt");
    problem(&bad(r#"{"agent":"quick","prompt":" "}"#).await, 422, "empty");
    problem(&bad(r#"{"agent":"quick","prompt":"x","budget":{"euro":1}}"#).await, 422, "budget");
    problem(&bad(&format!("{{\"agent\":\"quick\",\"prompt\":\"{}\"}}", "x".repeat(1 << 20))).await, 413, "too-large");
    let form = served.post("/v1/runs", &[ALICE, ("content-type", "text/plain")], "x").await;
    problem(&form, 415, "application/json");
    problem(&served.get("/v1/nothing", &[ALICE]).await, 404, "/v1/nothing");
    problem(&served.get("/v1/runs?limit=0", &[ALICE]).await, 422, "1 to 200");
    problem(&served.get("/v1/runs?stat=x", &[ALICE]).await, 422, "state, agent, parent");
    let wrong = served.get("/v1/runs/r-x/cancel", &[ALICE]).await;
    problem(&wrong, 405, "POST");
    assert_eq!(wrong.headers["allow"], "POST");
    problem(&served.get("/v1/runs", &[ALICE, ("origin", "https://evil.example")]).await, 403, "allowed_origins");
    let budget = json!({ "agent": "lead", "prompt": "x", "budget": { "turns": 1 } });
    let over = post(&served, ALICE, "/v1/runs", budget).await.json();
    until(&served, ALICE, over["run"].as_str().unwrap(), "over_budget").await;
    assert!(folder.run(&["runs", "--json"]).out.contains("over_budget"));
}

/// What is described is served, under the very path and method.
#[tokio::test]
async fn the_openapi_document_is_the_door() {
    let folder = folder();
    let served = Served::start(&folder);
    let document = served.get("/openapi.json", &[]).await;
    assert_eq!(document.status, 200);
    let document = document.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{id}", "r-x");
            let answer = match method.as_str() {
                "get" => served.get(&path, &[]).await,
                _ => served.post(&path, &[], "{}").await,
            };
            let expected = if path == "/openapi.json" { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{method} {path}");
            count += 1;
        }
    }
    assert_eq!(count, 14);
    let metrics = served.get("/metrics", &[BOB]).await;
    assert!(metrics.body.contains("# TYPE pleach_runs gauge"), "{metrics:?}");
}

/// What it may do follows the policy, and so does what it may use.
#[tokio::test]
async fn a_run_that_waited_has_the_turns_its_client_has_by_now() {
    for (budget, end) in [("", "completed"), ("policy.budget = { turns = 1 }\n", "over_budget")] {
        let folder = folder();
        let served = Served::start(&folder);
        let run = start(&served, ALICE, "asker").await;
        let waiting = until(&served, ALICE, &run, "waiting").await;
        served.end();
        let alice = "[clients.alice]\n";
        folder.write("pleach.toml", &folder.read("pleach.toml").unwrap().replace(alice, &format!("{alice}{budget}")));
        let served = Served::start(&folder);
        let at = format!("/v1/approvals/{}", waiting["questions"][0]["id"].as_str().unwrap());
        assert_eq!(post(&served, ALICE, &at, json!({ "input": "red" })).await.status, 200);
        let ended = until(&served, ALICE, &run, end).await;
        assert!(budget.is_empty() || ended["text"].as_str().unwrap().contains("budget.turns"), "{ended}");
    }
}
