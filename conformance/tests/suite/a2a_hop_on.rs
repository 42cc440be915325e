//! Grants on their way: through a gateway in the middle, and while a gateway changes its key.

use crate::a2a_hop::{NEAR, NEAR_REPLIES, V1, caught, caught_again, pair, road, run, said};
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};
use std::time::Duration;

/// The gateway in the middle: it has no agents of its own and passes the far one's on.
const MIDDLE: &str = r#"
version = 1
[peers.far]
card = "CARD"
delegate = true
expose = true
default_access = "read-only"
[policy]
max_access = "read-write"
filesystem = { read_write = ["OUT/ok"] }
tools = { allow = ["*"] }
[clients.near]
grant_key = "KEY"
policy = { POLICY }
"#;

/// A grant goes on through a gateway in the middle, less what that one does not allow.
#[tokio::test]
async fn a_grant_goes_on_through_whoever_passes_an_agent_on() {
    let pair = pair("", "");
    let far = Served::start(&pair.far_folder);
    let first = Folder::new("version = 1\n");
    let key = first.run(&["token", "key"]).out;
    let middle = |policy: &str| {
        let card = format!("{}/a2a/worker/.well-known/agent-card.json", far.base);
        let file = MIDDLE.replace("CARD", &card).replace("OUT", &pair.out).replace("KEY", key.trim());
        pair.near_folder.write("pleach.toml", &file.replace("POLICY", policy));
        Served::start(&pair.near_folder)
    };
    let near = |base: &str| {
        let card = format!("{base}/a2a/far/.well-known/agent-card.json");
        // The first one gives all of the folder, and s__other as well.
        let file = NEAR.replace("OUT/ok\"]", "OUT\"]").replace(", deny = [\"s__other\"]", "");
        first.write("pleach.toml", &file.replace("CARD", &card).replace("OUT", &pair.out));
        first.write("replies.toml", NEAR_REPLIES);
        Served::start(&first)
    };
    // What the one in the middle says of its client; agent, file, whether it may be there, and why not.
    type Case = (&'static str, &'static str, bool, &'static str);
    let cases: [(&str, &[Case]); 3] = [
        (
            "",
            &[
                ("boss", "ok 31-put", true, "left it"),
                ("boss", "ok 31-other", true, "left it"),
                // The first gives less than the one in the middle would.
                ("reader", "ok 32-put", false, "read-only"),
                ("narrow", "ok 33-put", false, "read_write does not cover"),
                ("narrow", "deep 33-put", true, "left it"),
                // The one in the middle gives less than it was given.
                ("boss", "root 34-put", false, "read_write does not cover"),
                // Two hops are two levels.
                ("shallow", "ok 35-put", false, "max_depth"),
            ],
        ),
        ("max_access = \"read-only\"", &[("boss", "ok 36-put", false, "read-only")]),
        (
            "tools = { allow = [\"*\"], deny = [\"s__other\"] }",
            &[("boss", "ok 37-other", false, "s__other"), ("boss", "ok 37-put", true, "left it")],
        ),
    ];
    for (policy, cases) in cases {
        let between = middle(policy);
        let near = near(&between.base);
        for (agent, file, there, words) in cases {
            let done = run(&near, agent, file).await;
            let told = format!("{agent} {file}: {done}\n{}\n{}", said(&far), said(&between));
            assert_eq!(pair.is_there(file), *there, "{told}");
            assert!(done.to_string().contains(words), "{words:?} is not in {told}");
        }
    }
}

const EVE: (&str, &str) = ("authorization", "Bearer eve-eve-eve-eve-eve-eve");

/// A gateway may change its key: both are believed while both are named, and what goes on goes on.
#[tokio::test]
async fn a_key_may_be_changed_while_tasks_go_on() {
    let road = road();
    let pair = pair(&format!("[gateway]\npublic_url = {:?}", road.base), "delay = \"6s\"");
    let eve = "[clients.eve]\ntoken = \"eve-eve-eve-eve-eve-eve\"\n";
    pair.far_folder.write("pleach.toml", &(pair.far_folder.read("pleach.toml").unwrap() + eve));
    let far = Served::start(&pair.far_folder);
    let (params, token) = caught(&pair, &road, "ok 41-put").await;
    let bearer = format!("Bearer {token}");
    let open = async |params: &Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": params });
        let mut stream = far.open("/a2a/worker", &[("authorization", &bearer), V1], body.to_string()).await;
        stream.until("TASK_STATE_WORKING").await;
        stream
    };
    let mut stream = open(&params).await;
    let policy = pair.far_folder.read("pleach.toml").unwrap();
    let key = pair.near_folder.run(&["token", "key"]).out;
    let (key, stranger) = (key.trim(), Folder::new("version = 1\n").run(&["token", "key"]).out);
    let both = format!("[\"{}\", \"{key}\"]", stranger.trim());
    pair.far_folder.write("pleach.toml", &policy.replace(&format!("\"{key}\""), &both));
    let changed = tokio::time::timeout(Duration::from_secs(20), async {
        while !far.get("/metrics", &[EVE]).await.body.contains("pleach_policy_changes_total 1") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    changed.await.expect("the policy is not changed");
    // It was opened under the old key, and is heard to the end.
    stream.until("TASK_STATE_COMPLETED").await;
    assert!(pair.is_there("ok 41-put"), "{}", stream.heard);
    // With the old key gone, so is whatever listens by it.
    let (params, token) = caught_again(&pair, &road, "ok 42-put").await;
    let bearer = format!("Bearer {token}");
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": params }).to_string();
    let mut stream = far.open("/a2a/worker", &[("authorization", &bearer), V1], body).await;
    stream.until("TASK_STATE_WORKING").await;
    pair.far_folder.write("pleach.toml", &policy.replace(key, stranger.trim()));
    stream.end().await;
    assert!(!stream.heard.contains("TASK_STATE_COMPLETED"), "{}", stream.heard);
}
