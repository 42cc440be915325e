//! Webhooks: signed, told until they have heard, over a restart, and only where the policy lets
//! their client reach.

use crate::rest::{ALICE, BOB, folder, folder_with, post, until};
use conformance::served::Served;
use conformance::upstream::{Act, Upstream};
use ring::hmac;
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef0123";
const LOOPBACK: &str = "networks = { allow = [\"127.0.0.0/8\"] }";

fn wanted(agent: &str, url: &str) -> Value {
    json!({ "agent": agent, "prompt": "go", "webhook": { "url": url, "secret": SECRET } })
}

/// The signature over the very bytes; the listener keeps them parsed, so they are written again
/// in the order they came.
fn signed(seen: &conformance::upstream::Seen) -> bool {
    let header = seen.header("pleach-signature");
    let (t, v1) = header.split_once(",v1=").unwrap();
    let t = t.strip_prefix("t=").unwrap();
    let tag: Vec<u8> = (0..v1.len()).step_by(2).map(|i| u8::from_str_radix(&v1[i..i + 2], 16).unwrap()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, format!("{t}.{}", seen.body).as_bytes(), &tag).is_ok()
}

#[tokio::test]
async fn a_webhook_is_signed_and_told_again_after_an_error() {
    let hook = Upstream::start(|seen| match seen.before {
        0 => Act::Status(500, Value::Null),
        _ => Act::Status(204, Value::Null),
    });
    let folder = folder_with(LOOPBACK);
    let served = Served::start(&folder);
    let begun = post(&served, ALICE, "/v1/runs", wanted("quick", &format!("{}/hook", hook.base))).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    assert!(!begun.body.contains(SECRET));
    let run = begun.json()["run"].as_str().unwrap().to_owned();
    let seen = hook.until_at("/hook", 2).await;
    assert_eq!(seen[0].body, seen[1].body, "the same message");
    let body = &seen[1].body;
    assert_eq!(
        (&body["type"], &body["run"], &body["event"]["text"]),
        (&json!("run.finished"), &json!(run), &json!("quick: go"))
    );
    assert!(seen.iter().all(signed), "{seen:?}");
    assert_eq!(seen[1].header("pleach-event"), "run.finished");
    let told = async {
        loop {
            let now = served.get(&format!("/v1/runs/{run}"), &[ALICE]).await.json()["webhook"].clone();
            if now["delivered"] == 1 {
                return now;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(5), told).await.unwrap();
    assert_eq!((&told["pending"], &told["dead"], &told["signed"]), (&json!(0), &json!(0), &json!(true)));
}

#[tokio::test]
async fn what_waits_is_told_too_and_a_restart_loses_nothing() {
    let hook = Upstream::start(|seen| match seen.before {
        0 => Act::Status(503, Value::Null),
        _ => Act::Status(200, json!({})),
    });
    let folder = folder_with(LOOPBACK);
    let served = Served::start(&folder);
    let begun = post(&served, ALICE, "/v1/runs", wanted("asker", &format!("{}/hook", hook.base))).await;
    let run = begun.json()["run"].as_str().unwrap().to_owned();
    until(&served, ALICE, &run, "waiting").await;
    hook.until_at("/hook", 1).await;
    // Killed: nothing was noted but that it is due again.
    drop(served);
    let served = Served::start(&folder);
    let seen = hook.until_at("/hook", 2).await;
    let body = &seen[1].body;
    assert_eq!((&body["type"], &body["event"]["question"]), (&json!("run.waiting"), &json!("Which?")));
    let at = format!("/v1/approvals/{}", body["event"]["id"].as_str().unwrap());
    assert_eq!(post(&served, ALICE, &at, json!({ "input": "red" })).await.status, 200);
    let seen = hook.until_at("/hook", 3).await;
    assert_eq!(seen[2].body["type"], "run.finished");
}

#[tokio::test]
async fn a_webhook_goes_nowhere_its_client_may_not() {
    let folder = folder();
    let served = Served::start(&folder);
    for url in [
        "http://127.0.0.1:9/x",
        "http://localhost:9/x",
        "http://169.254.169.254/latest",
        "http://[::1]/x",
        "http://10.0.0.1/",
        "https://example.com/x",
        "ftp://example.com/",
        "http://user:pw@127.0.0.1/",
        "nothing",
    ] {
        let answer = post(&served, ALICE, "/v1/runs", wanted("quick", url)).await;
        assert_eq!(answer.status, 422, "{url}: {answer:?}");
        assert!(answer.body.contains("webhook.url"), "{url}: {answer:?}");
    }
    assert_eq!(served.get("/v1/runs", &[ALICE]).await.json()["runs"], json!([]), "nothing was begun");
}

/// The policy of the day decides, not that of the registration.
#[tokio::test]
async fn a_webhook_is_judged_again_when_it_is_told() {
    let hook = Upstream::start(|_| Act::Status(200, Value::Null));
    let folder = folder_with(LOOPBACK);
    let served = Served::start(&folder);
    let begun = post(&served, ALICE, "/v1/runs", wanted("asker", &format!("{}/hook", hook.base))).await;
    let run = begun.json()["run"].as_str().unwrap().to_owned();
    let waiting = until(&served, ALICE, &run, "waiting").await;
    hook.until_at("/hook", 1).await;
    drop(served);
    let policy = folder.read("pleach.toml").unwrap().replace(LOOPBACK, "");
    folder.write("pleach.toml", &policy);
    let served = Served::start(&folder);
    let at = format!("/v1/approvals/{}", waiting["questions"][0]["id"].as_str().unwrap());
    assert_eq!(post(&served, ALICE, &at, json!({ "input": "red" })).await.status, 200);
    let done = until(&served, ALICE, &run, "completed").await;
    assert_eq!(done["text"], "heard: red");
    let refused = async {
        loop {
            let now = served.get(&format!("/v1/runs/{run}"), &[ALICE]).await.json()["webhook"].clone();
            if now["why"].as_str().is_some_and(|why| why.contains("networks.allow")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), refused).await.unwrap();
    assert_eq!(hook.came_to("/hook").len(), 1, "nothing more arrived");
}

/// One endpoint that hangs, with more to be told than may be under way at a time, holds up neither
/// another client's nor another of the same client.
#[tokio::test]
async fn an_endpoint_that_hangs_holds_up_nobody_else() {
    let (slow, quick) = (Upstream::start(|_| Act::Hang), Upstream::start(|_| Act::Status(204, Value::Null)));
    let folder = folder_with(LOOPBACK);
    let served = Served::start(&folder);
    for n in 0..20 {
        let begun = post(&served, ALICE, "/v1/runs", wanted("quick", &format!("{}/slow?{n}", slow.base))).await;
        assert_eq!(begun.status, 202, "{begun:?}");
    }
    while served.get("/v1/runs?state=completed", &[ALICE]).await.json()["runs"].as_array().unwrap().len() < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    slow.until("POST", 1).await;
    for (who, path) in [(ALICE, "/alice"), (BOB, "/bob")] {
        let begun = post(&served, who, "/v1/runs", wanted("quick", &format!("{}{path}", quick.base))).await;
        assert_eq!(begun.status, 202, "{begun:?}");
        quick.until_at(path, 1).await;
    }
    // Few were under way to the one that hangs, while more waited; those were not what had to end first.
    let tried = slow.came("POST").len();
    assert!(tried < 16, "{tried} were told it before anybody else was");
}
