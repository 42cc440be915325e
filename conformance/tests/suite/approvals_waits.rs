//! Who waits for an answer: several processes for one question, a client on standard streams, and a
//! call that another gateway sent. Scored by files, and by what reached a peer.

use crate::a2a_peers_faults::{card, task};
use crate::approvals::{WRITE, decide, folder, listed, made, open, to};
use crate::live::call;
use crate::rest::{ALICE, BOB, BOSS, post};
use conformance::pleach::Folder;
use conformance::served::{Served, modern_body, text};
use conformance::upstream::{Act, Seen, Upstream};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    let so = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), so).await.unwrap_or_else(|_| panic!("it is never so: {what}"));
}

/// How many calls were put to a person under a question.
fn put(folder: &Folder, id: &str) -> usize {
    let record = folder.run(&["audit", "show", "--json"]).out;
    record.lines().filter(|line| line.contains(id) && line.contains("\"ask\"")).count()
}

async fn is_open(served: &Served, id: &str) -> bool {
    let page = served.get("/v1/approvals", &[BOSS]).await.json();
    page["approvals"].as_array().unwrap().iter().any(|q| q["id"] == id)
}

/// The same call through two processes is one question. One that takes it back takes nothing from the
/// other; when both did, or the other was killed, nobody is asked any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_takes_nothing_back_from_another() {
    for end in ["answered", "taken back", "killed"] {
        let folder = folder("30s");
        let (first, second) = (Served::start(&folder), Served::start(&folder));
        let path = "out/a";
        let params = json!({ "name": WRITE, "arguments": to(path) });
        let other = async { text(&second.modern("/mcp", "tools/call", params.clone(), &[ALICE]).await) };
        let mut other = Box::pin(other);
        let both = async {
            let id = open(&first).await["id"].as_str().unwrap().to_owned();
            eventually("two wait", async || put(&folder, &id) == 2).await;
            id
        };
        // The first goes away; what somebody else asked there a moment later is taken back as well.
        let id = tokio::select! {
            answer = first.modern("/mcp", "tools/call", params.clone(), &[ALICE]) => panic!("{answer:?}"),
            said = &mut other => panic!("{said}"),
            id = both => id,
        };
        let bobs = json!({ "name": WRITE, "arguments": to("out/bob") });
        let bob = tokio::select! {
            answer = first.modern("/mcp", "tools/call", bobs, &[BOB]) => panic!("{answer:?}"),
            said = &mut other => panic!("{said}"),
            bob = async {
                loop {
                    let page = first.get("/v1/approvals", &[BOSS]).await.json();
                    let own = page["approvals"].as_array().unwrap().iter().find(|q| q["principal"] == "bob").cloned();
                    match own {
                        Some(own) => break own["id"].as_str().unwrap().to_owned(),
                        None => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            } => bob,
        };
        tokio::select! {
            said = &mut other => panic!("{end}: the second was denied: {said}"),
            () = eventually("bob's is taken back", async || !is_open(&first, &bob).await) => {}
        }
        assert!(is_open(&first, &id).await, "{end}");
        match end {
            "answered" => {
                let said = post(&first, BOSS, &format!("/v1/approvals/{id}"), decide("allow")).await;
                assert_eq!(said.status, 200, "{said:?}");
                let said = other.await;
                assert!(made(&folder, path), "{said}");
            }
            "taken back" => {
                drop(other);
                eventually("both went", async || !is_open(&first, &id).await).await;
                assert!(!made(&folder, path));
            }
            _ => {
                drop(other);
                Command::new("kill").args(["-9", &second.pid().to_string()]).status().unwrap();
                drop(second);
                // The first asks again, and leaves again: nobody else is there.
                tokio::select! {
                    answer = first.modern("/mcp", "tools/call", params, &[ALICE]) => panic!("{answer:?}"),
                    () = eventually("a call waits", async || put(&folder, &id) == 3 || !is_open(&first, &id).await) => {}
                }
                eventually("nobody waits", async || {
                    let page = first.get("/v1/approvals", &[BOSS]).await.json();
                    page["approvals"] == json!([])
                })
                .await;
            }
        }
    }
}

/// `pleach serve --stdio`, as alice starts it.
struct Started {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Started {
    fn start(folder: &Folder) -> Self {
        let mut command = folder.command(&["serve", "--stdio"]);
        command.env("PLEACH_TOKEN", &ALICE.1[7..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }
    fn ask(&mut self, path: &str) {
        let body = modern_body("tools/call", json!({ "name": WRITE, "arguments": to(path) }));
        writeln!(self.child.stdin.as_mut().unwrap(), "{body}").unwrap();
    }
    fn told(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

/// Whoever ends it.
const ENDS: &[&str] = &["its client"];

/// Left by its client, it takes back what that client's call asks.
#[test]
fn what_its_client_asks_is_taken_back_with_its_client() {
    // Ended by a signal it does not leave the question every time yet: who hears of the end first is a race.
    for &by in ENDS {
        let folder = folder("30s");
        let mut served = Started::start(&folder);
        served.ask("out/a");
        let began = std::time::Instant::now();
        let id = loop {
            if let Some(open) = listed(&folder, "approval").first() {
                break open["id"].as_str().unwrap().to_owned();
            }
            assert!(began.elapsed() < Duration::from_secs(30), "nothing is asked");
        };
        match by {
            "its client" => drop(served.child.stdin.take()),
            signal => {
                let sent = Command::new("kill").args(["-s", &signal[3..], &served.child.id().to_string()]).status();
                assert!(sent.unwrap().success());
            }
        }
        assert!(served.child.wait().unwrap().success(), "{by}");
        let answered = folder.run(&["answer", &id, "allow"]);
        assert_eq!(answered.code == 0, by != "its client", "{by}: {answered:?}");
        if by != "its client" {
            let mut again = Started::start(&folder);
            again.ask("out/a");
            let told = again.told();
            assert!(made(&folder, "out/a"), "{by}: {told}");
            drop(again.child.stdin.take());
            again.child.wait().unwrap();
        }
    }
}

/// A call that another gateway sends waits for a person here as its own clients' do. Whoever answers is
/// told from where it comes, and what that gateway gave along bounds it still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_another_gateway_is_answered_where_it_waits() {
    let peer = Upstream::of(|base| {
        let card = card(base, false);
        move |seen: &Seen| match seen.method.as_str() {
            "GET" => Act::Status(200, card.clone()),
            _ => Act::Result(json!({ "task": task("COMPLETED") })),
        }
    });
    let near = Folder::new("version = 1\n");
    let key = near.run(&["token", "key"]).out;
    let here = Folder::new(&format!(
        "version = 1\n[approvals]\nwait = \"30s\"\n[peers.w]\ncard = {:?}\nexpose = true\ndefault_access = \"read-write\"\n\
         [policy]\nmax_access = \"read-write\"\ntools = {{ allow = [\"w__*\"], ask = [\"w__act\"] }}\n\
         [clients.near]\ngrant_key = {:?}\n[clients.boss]\ntoken = {:?}\ncan_approve = true\n",
        peer.base,
        key.trim(),
        &BOSS.1[7..]
    ));
    let here_served = Served::start(&here);
    let home = format!("{}/a2a/w", here_served.base);
    // Its card is not everybody's to see, so the other gateway's operator says where it is.
    let cards = Upstream::start(move |_| {
        let mut own = card(&home, false);
        own["capabilities"]["extensions"] = json!([{ "uri": "urn:pleach:a2a:authority:v1" }]);
        Act::Status(200, own)
    });
    near.write(
        "pleach.toml",
        &format!(
            "version = 1\n[peers.b]\ncard = {:?}\nurl = {:?}\ndelegate = true\ndefault_access = \"read-only\"\n\
             tools = {{ act = {{ effect = \"idempotent\" }} }}\n[policy]\nmax_access = \"read-write\"\ntools = {{ allow = [\"*\"] }}\n\
             [clients.alice]\ntoken = {:?}\n[clients.bob]\ntoken = {:?}\npolicy = {{ max_access = \"read-only\" }}\n",
            cards.base,
            here_served.base,
            &ALICE.1[7..],
            &BOB.1[7..]
        ),
    );
    let near_served = Served::start(&near);
    let ask = |who| call(&near_served, who, "b__act", json!({ "message": "go" }));
    for (decision, count) in [("deny", 0), ("allow", 1)] {
        let (said, ()) = tokio::join!(ask(ALICE), async {
            let asked = open(&here_served).await;
            let id = asked["id"].as_str().unwrap();
            assert_eq!(asked["principal"], "near", "{asked}");
            let said = post(&here_served, BOSS, &format!("/v1/approvals/{id}"), decide(decision)).await;
            assert_eq!(said.status, 200, "{said:?}");
        });
        assert_eq!(peer.came("SendMessage").len(), count, "{decision}: {said}");
        assert_eq!(said.contains("done"), decision == "allow", "{said}");
    }
    // Of a caller who may only read there is nothing to ask: this skill is not there for him.
    let said = ask(BOB).await;
    assert!(said.contains("there is no agent"), "{said}");
    assert_eq!(here_served.get("/v1/approvals", &[BOSS]).await.json()["approvals"], json!([]));
    assert_eq!(peer.came("SendMessage").len(), 1);
}
