//! Many that wait: rows, and nothing else. Smaller than the figures of `benches/tree.rs`, which
//! measure; this holds.

use crate::rest::{ALICE, BOB, BOSS, post, start, until};
use conformance::parked;
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["asker", "brief"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
may_start = ["asker"]
[clients.boss]
token = "boss-boss-boss-boss-boss"
can_approve = true
[agents.asker]
prompt = "p"
[agents.brief]
prompt = "p"
"#;

const REPLIES: &str = r#"
[[reply]]
agent = "asker"
[[reply.tool]]
name = "ask_user"
input = { question = "Which?", options = ["red", "blue"] }
[[reply]]
agent = "asker"
text = "heard: {{result}}"
[[reply]]
agent = "brief"
[[reply.tool]]
name = "ask_user"
input = { question = "Now?", timeout = "1s", default = "none" }
[[reply]]
agent = "brief"
text = "late: {{result}}"
"#;

/// All pages of a list: its entries, and how many pages.
async fn pages(served: &Served, who: (&str, &str), path: &str, key: &str) -> (Vec<Value>, usize) {
    let (mut all, mut cursor, mut count) = (Vec::new(), String::new(), 0);
    loop {
        let page = served.get(&format!("{path}{cursor}"), &[who]).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        all.extend(page[key].as_array().unwrap().iter().cloned());
        count += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (all, count),
        }
    }
}
fn ids(all: &[Value], key: &str) -> BTreeSet<String> {
    all.iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn two_thousand_that_wait_are_rows_and_nothing_else() {
    let folder = Folder::new(POLICY);
    folder.write("replies.toml", REPLIES);
    let served = Served::start(&folder);
    let (of_alice, of_bob) = (start(&served, ALICE, "asker").await, start(&served, BOB, "asker").await);
    let brief = start(&served, ALICE, "brief").await;
    for (who, run) in [(ALICE, &of_alice), (BOB, &of_bob)] {
        until(&served, who, run, "waiting").await;
    }
    let (few, _) = pages(&served, BOSS, "/v1/approvals?limit=200", "approvals").await;
    let before = served.memory();
    assert!(few.len() >= 2, "{few:?}");
    served.end();
    let store = parked::open(&folder.join("pleach.db")).await.unwrap();
    let copies = parked::copy(&store, &of_alice, "alice0", 1_199).await.unwrap();
    parked::copy(&store, &of_bob, "bob000", 799).await.unwrap();

    let served = Served::start(&folder);
    // What a process goes on with by itself it has looked for by then.
    assert!(until(&served, ALICE, &brief, "completed").await["text"].as_str().unwrap().contains("late: none"));
    for (who, expected) in [(ALICE, 1_200_usize), (BOB, 800), (BOSS, 2_000)] {
        let (asked, count) = pages(&served, who, "/v1/approvals?limit=200", "approvals").await;
        assert_eq!((asked.len(), ids(&asked, "id").len(), count), (expected, expected, expected.div_ceil(200)));
        let order: Vec<_> = asked.iter().map(|q| (q["asked"].as_u64().unwrap(), q["id"].as_str().unwrap())).collect();
        assert!(order.is_sorted(), "oldest first");
        let (runs, _) = pages(&served, who, "/v1/runs?state=waiting&limit=200", "runs").await;
        assert_eq!(ids(&runs, "run"), if who == BOSS { BTreeSet::new() } else { ids(&asked, "run") });
        let other = ["alice", "bob"].into_iter().filter(|name| who != BOSS && !who.1.contains(name));
        for name in other {
            assert!(asked.iter().all(|q| q["principal"] != *name), "{name}'s is no business of theirs");
        }
    }
    // A cursor is its owner's, and of the list it came with.
    let cursor = served.get("/v1/approvals?limit=1", &[ALICE]).await.json()["next_cursor"].as_str().unwrap().to_owned();
    let next = format!("/v1/approvals?limit=1&cursor={cursor}");
    assert_eq!(served.get(&next, &[ALICE]).await.status, 200);
    assert_eq!(served.get(&next, &[BOB]).await.status, 422);
    assert_eq!(served.get(&format!("{next}&root={of_alice}"), &[ALICE]).await.status, 422);
    let lines = |args: &[&str]| folder.run(args).out.lines().count();
    assert_eq!(lines(&["answer", "--json"]), 100);
    assert_eq!(lines(&["answer", "--json", "--limit", "5000"]), 2_000);
    assert_eq!(lines(&["runs", "--json"]), 100);

    let (run, question) = &copies[600];
    let at = format!("/v1/approvals/{question}");
    assert_eq!(post(&served, BOB, &at, json!({ "input": "red" })).await.status, 404, "a stranger's");
    assert_eq!(post(&served, ALICE, &at, json!({ "input": "red" })).await.status, 200);
    assert_eq!(until(&served, ALICE, run, "completed").await["text"], "heard: red");
    assert_eq!(pages(&served, ALICE, "/v1/approvals?limit=200", "approvals").await.0.len(), 1_199);
    let woken: Vec<String> = sqlx::query_scalar("SELECT DISTINCT run FROM events WHERE type = 'run.resumed'")
        .fetch_all(&store)
        .await
        .unwrap();
    assert_eq!(BTreeSet::from_iter(woken), BTreeSet::from([run.clone(), brief]), "nobody else was gone on with");
    let grown = served.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more than with three runs");
}
