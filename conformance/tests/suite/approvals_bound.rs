//! What an answer is good for at the doors of clients: for whom, for how long, on which record, and
//! what is seen of the call before it is given. Each thing it is not good for has its twin.

use crate::approvals::{POLICY, TWO, WRITE, decide, folder, listed, made, named, open, policy, to};
use crate::conversations::Client;
use crate::live::{call, change};
use crate::rest::{ALICE, BOB, BOSS, post};
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};

/// Who says no to a call that waits is heard, whatever else allows it by then: a rule that somebody
/// made meanwhile, or another policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_to_a_call_wins() {
    let folder = folder("30s");
    let served = Served::start(&folder);
    let own = policy("30s");
    for (by, decision) in [("rule", "deny"), ("rule", "allow"), ("policy", "deny"), ("policy", "allow")] {
        let path = format!("out/{by}-{decision}");
        let params = json!({ "name": WRITE, "arguments": to(&path) });
        let calling = async { text(&served.modern("/mcp", "tools/call", params, &[ALICE]).await) };
        let answering = async {
            let id = open(&served).await["id"].as_str().unwrap().to_owned();
            match by {
                "rule" => rule_besides(&served, &id).await,
                _ => change(&folder, &served, &own.replace(", ask = [\"files__Write\"]", "")).await,
            }
            let said = post(&served, BOSS, &format!("/v1/approvals/{id}"), decide(decision)).await;
            assert_eq!(said.status, 200, "{said:?}");
        };
        let (said, ()) = tokio::join!(calling, answering);
        assert_eq!(made(&folder, &path), decision == "allow", "{by} {decision}: {said}");
        assert_eq!(said.contains("boss said no"), decision == "deny", "{by} {decision}: {said}");
        for rule in listed(&folder, "rule") {
            assert_eq!(folder.run(&["approvals", "revoke", rule["id"].as_str().unwrap()]).code, 0);
        }
        if by == "policy" {
            change(&folder, &served, &own).await;
        }
    }
}

/// Has another call of the same client wait, and allows such calls from then on.
async fn rule_besides(served: &Served, first: &str) {
    let params = json!({ "name": WRITE, "arguments": to("out/besides") });
    let ruling = async {
        let second = loop {
            let page = served.get("/v1/approvals", &[BOSS]).await.json();
            let open = page["approvals"].as_array().unwrap();
            match open.iter().find(|q| q["id"] != first) {
                Some(other) => break other["id"].as_str().unwrap().to_owned(),
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        let always = json!({ "decision": "allow", "always": "tool" });
        assert_eq!(post(served, BOSS, &format!("/v1/approvals/{second}"), always).await.status, 200);
    };
    let (_, ()) = tokio::join!(served.modern("/mcp", "tools/call", params, &[ALICE]), ruling);
}

/// A call that the policy allowed for a moment, without anybody's yes, ends when the policy asks
/// again; one that somebody said yes to goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_said_yes_to_ends_when_the_policy_asks() {
    use conformance::upstream::{Act, Upstream, modern, told};
    for yes in [false, true] {
        let (send, held) = tokio::sync::mpsc::unbounded_channel();
        let held = std::sync::Mutex::new(Some(held));
        let upstream = Upstream::start(move |seen| {
            modern(seen, json!({ "tools": {} }), &["put"])
                .unwrap_or_else(|| held.lock().unwrap().take().map_or(Act::Hang, Act::Held))
        });
        let server = format!("[servers.s]\nurl = {:?}\ndefault_access = \"read-write\"\n[policy]", upstream.url());
        let asks = policy("30s").replace("[policy]", &server).replace(
            "tools = { allow = [\"files__*\"], ask = [\"files__Write\"] }",
            "tools = { allow = [\"s__*\"], ask = [\"s__put\"] }",
        );
        let folder = Folder::new(&asks);
        let served = Served::start(&folder);
        let params = json!({ "name": "s__put", "arguments": {} });
        let calling = async { text(&served.modern("/mcp", "tools/call", params, &[ALICE]).await) };
        let steering = async {
            let id = open(&served).await["id"].as_str().unwrap().to_owned();
            if !yes {
                change(&folder, &served, &asks.replace(", ask = [\"s__put\"]", "")).await;
            }
            let said = post(&served, BOSS, &format!("/v1/approvals/{id}"), decide("allow")).await;
            assert_eq!(said.status, 200, "{said:?}");
            eventually(&served, async || upstream.came("tools/call").len() == 1).await;
            change(&folder, &served, &format!("{asks}\n# once more")).await;
            if yes {
                send.send(told("done")).unwrap();
            }
        };
        let both = async { tokio::join!(calling, steering).0 };
        let said = tokio::time::timeout(std::time::Duration::from_secs(60), both).await.expect("it ends");
        match yes {
            true => assert_eq!(said, "done"),
            false => assert!(said.contains("asks a person now"), "{said}"),
        }
    }
}

/// So many calls of one client wait, even for one answer, and no more; another client's wait too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_so_many_calls_wait() {
    const MOST: usize = 64;
    let folder = folder("60s");
    let served = std::sync::Arc::new(Served::start(&folder));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..=MOST {
        let served = served.clone();
        calls.spawn(async move { call(&served, ALICE, WRITE, to("out/a")).await });
    }
    let refused = calls.join_next().await.unwrap().unwrap();
    assert!(refused.contains("so many calls of this client wait"), "{refused}");
    let id = open(&served).await["id"].as_str().unwrap().to_owned();
    let bobs = {
        let served = served.clone();
        tokio::spawn(async move { call(&served, BOB, WRITE, to("out/bob")).await })
    };
    eventually(&served, async || {
        served.get("/v1/approvals", &[BOSS]).await.json()["approvals"].as_array().unwrap().len() == 2
    })
    .await;
    bobs.abort();
    assert_eq!(calls.len(), MOST, "the others wait");
    // One answer is for all of them, and then there is room again.
    let said = post(&served, BOSS, &format!("/v1/approvals/{id}"), decide("deny")).await;
    assert_eq!(said.status, 200, "{said:?}");
    while let Some(said) = calls.join_next().await {
        let said = said.unwrap();
        assert!(said.contains("boss said no"), "{said}");
    }
    let (other, id) = tokio::join!(call(&served, ALICE, WRITE, to("out/b")), async {
        // Bob's, which was taken back, may still be there.
        let id = loop {
            let page = served.get("/v1/approvals", &[BOSS]).await.json();
            match page["approvals"].as_array().unwrap().iter().find(|q| q["principal"] == "alice") {
                Some(own) => break own["id"].as_str().unwrap().to_owned(),
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        post(&served, BOSS, &format!("/v1/approvals/{id}"), decide("allow")).await.status
    });
    assert!(id == 200 && made(&folder, "out/b"), "{other}");
}

/// Whoever takes a call back takes back what it asked: nobody is asked for nothing, and a yes does
/// not wait for the next such call. Denied for want of an answer, it stays for whoever comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_waited_for_is_taken_back() {
    let folder = folder("30s");
    let served = Served::start(&folder);
    let params = json!({ "name": WRITE, "arguments": to("out/a") });
    // The client goes away: modern ones by closing the stream, legacy ones by saying so.
    let id = tokio::select! {
        answer = served.modern("/mcp", "tools/call", params.clone(), &[ALICE]) => panic!("{answer:?}"),
        asked = open(&served) => asked["id"].as_str().unwrap().to_owned(),
    };
    eventually(&served, async || served.get("/v1/approvals", &[BOSS]).await.json()["approvals"] == json!([])).await;
    let row = served.get(&format!("/v1/approvals/{id}"), &[BOSS]).await.json();
    assert!(row.to_string().contains("whoever asked"), "{row}");
    let late = post(&served, BOSS, &format!("/v1/approvals/{id}"), decide("allow")).await;
    assert_eq!(late.status, 409, "{late:?}");
    let ran = folder.run(&["answer", &id, "allow"]);
    assert!(ran.code != 0 && ran.err.contains("was taken back"), "{ran:?}");
    // A yes that the call did not need, for the policy allowed it meanwhile, is not kept for later.
    let own = policy("30s");
    let calling = async { text(&served.modern("/mcp", "tools/call", params.clone(), &[ALICE]).await) };
    let answering = async {
        let id = open(&served).await["id"].as_str().unwrap().to_owned();
        change(&folder, &served, &own.replace(", ask = [\"files__Write\"]", "")).await;
        let said = post(&served, BOSS, &format!("/v1/approvals/{id}"), decide("allow")).await;
        assert_eq!(said.status, 200, "{said:?}");
    };
    let (said, ()) = tokio::join!(calling, answering);
    assert!(made(&folder, "out/a"), "{said}");
    std::fs::remove_file(folder.join("out/a")).unwrap();
    change(&folder, &served, &policy("100ms")).await;
    let again = call(&served, ALICE, WRITE, to("out/a")).await;
    assert!(!made(&folder, "out/a") && again.contains("nobody answered"), "{again}");
    // The twin: denied for want of an answer, it is answered later, and the call made again.
    let ran = folder.run(&["answer", &named(&again), "allow"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    call(&served, ALICE, WRITE, to("out/a")).await;
    assert!(made(&folder, "out/a"));
}

/// Waits until something is so.
async fn eventually(served: &Served, so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while !so().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {}", served.log.lock().unwrap());
}

/// The same words at another address are another server's: neither a yes nor a rule goes with them.
#[tokio::test]
async fn a_tool_of_another_server_is_another_question() {
    let put = || {
        conformance::upstream::Upstream::start(|seen| {
            conformance::upstream::modern(seen, json!({ "tools": {} }), &["put"])
                .unwrap_or_else(|| conformance::upstream::Act::Result(conformance::upstream::told("done")))
        })
    };
    let (first, second) = (put(), put());
    let own = policy("50ms").replace(
        "tools = { allow = [\"files__*\"], ask = [\"files__Write\"] }",
        "tools = { allow = [\"s__*\"], ask = [\"s__put\"] }",
    );
    let at = |url: &str| {
        own.replace("[policy]", &format!("[servers.s]\nurl = {url:?}\ndefault_access = \"read-write\"\n[policy]"))
    };
    let folder = Folder::new(&at(&first.url()));
    let served = Served::start(&folder);
    let (once, always) = (json!({ "n": "once" }), json!({ "n": "always" }));
    for (arguments, more) in [(&once, None), (&always, Some("tool"))] {
        let id = named(&call(&served, ALICE, "s__put", arguments.clone()).await);
        let said = json!({ "decision": "allow", "always": more });
        assert_eq!(post(&served, BOSS, &format!("/v1/approvals/{id}"), said).await.status, 200);
    }
    assert_eq!(call(&served, ALICE, "s__put", always.clone()).await, "done", "the rule");
    change(&folder, &served, &at(&second.url())).await;
    for arguments in [&once, &always] {
        let denied = call(&served, ALICE, "s__put", arguments.clone()).await;
        assert!(denied.contains("pleach answer q-"), "{denied}");
    }
    assert_eq!(second.came("tools/call").len(), 0);
    // It was said of the first, and holds there: the rule, and the yes.
    change(&folder, &served, &at(&first.url())).await;
    assert_eq!(call(&served, ALICE, "s__put", always).await, "done");
    assert_eq!(call(&served, ALICE, "s__put", once).await, "done");
    assert_eq!(first.came("tools/call").len(), 3);
}

/// A person is asked once about a question, however many calls of their session are about it, and
/// not again about what they put off.
#[test]
fn nobody_is_asked_twice_in_a_session() {
    let folder = Folder::new(&POLICY.replace("{wait}", "100ms"));
    std::fs::create_dir(folder.join("out")).unwrap();
    let mut client = Client::start(&folder, json!({ "elicitation": {} }));
    let is_dialog = |m: &Value| m["method"] == "elicitation/create";
    let call = |client: &mut Client| client.request("tools/call", json!({ "name": WRITE, "arguments": to("out/a") }));
    // Two calls of the same words: the second waits for the same answer, without a dialog of its own.
    let first = call(&mut client);
    let dialog = client.until(is_dialog);
    let second = call(&mut client);
    let denied = client.until(|m| m["id"] == second || is_dialog(m));
    assert!(denied["id"] == second && denied.to_string().contains("pleach answer q-"), "{denied}");
    client.send(json!({ "id": dialog["id"], "result": { "action": "cancel" } }));
    let put_off = client.until(|m| m["id"] == first || is_dialog(m));
    assert!(put_off.to_string().contains("they put it off"), "{put_off}");
    // It is open, and others may answer it; this person is not bothered again.
    let third = call(&mut client);
    let denied = client.until(|m| m["id"] == third || is_dialog(m));
    assert_eq!(named(&denied.to_string()), named(&put_off.to_string()), "{denied}");
    // The twin: about something else they are, and in another session, too.
    let other = client.request("tools/call", json!({ "name": WRITE, "arguments": to("out/b") }));
    let dialog = client.until(|m| m["id"] == other || is_dialog(m));
    client.send(json!({ "id": dialog["id"], "result": { "action": "accept", "content": { "allow": true } } }));
    client.until(|m| m["id"] == other);
    assert!(made(&folder, "out/b") && !made(&folder, "out/a"));
    drop(client);
    let mut client = Client::start(&folder, json!({ "elicitation": {} }));
    let again = call(&mut client);
    let dialog = client.until(|m| m["id"] == again || is_dialog(m));
    client.send(json!({ "id": dialog["id"], "result": { "action": "accept", "content": { "allow": true } } }));
    client.until(|m| m["id"] == again);
    assert!(made(&folder, "out/a"));
}

/// An agent's door and a run of that agent have the same policy above them, and a rule made for a
/// client's own call at the door is no leave for the run, nor the other way round.
#[tokio::test]
async fn a_rule_holds_for_who_asked() {
    for by_run in [false, true] {
        let folder = folder("100ms");
        folder.write("replies.toml", TWO);
        let served = Served::start(&folder);
        let own = async |path: &str| {
            let params = json!({ "name": WRITE, "arguments": to(path) });
            text(&served.modern("/mcp/agents/writer", "tools/call", params, &[ALICE]).await)
        };
        let run = async |prompt: &str| {
            let begun = post(&served, ALICE, "/v1/runs", json!({ "agent": "writer", "prompt": prompt })).await;
            assert_eq!(begun.status, 202, "{begun:?}");
            begun.json()["run"].as_str().unwrap().to_owned()
        };
        let always = async |id: &str| {
            let said = json!({ "decision": "allow", "always": "tool" });
            let answered = post(&served, BOSS, &format!("/v1/approvals/{id}"), said).await;
            assert_eq!(answered.status, 200, "{answered:?}");
        };
        if by_run {
            run("a").await;
            always(open(&served).await["id"].as_str().unwrap()).await;
            let other = run("b").await;
            let ended = crate::rest::until(&served, ALICE, &other, "completed").await;
            assert!(made(&folder, "out/b2"), "its runs may: {ended}");
            let denied = own("out/own").await;
            assert!(!made(&folder, "out/own") && denied.contains("pleach answer q-"), "{denied}");
        } else {
            always(&named(&own("out/own1").await)).await;
            let said = own("out/own2").await;
            assert!(made(&folder, "out/own2"), "the client may: {said}");
            run("a").await;
            let asked = open(&served).await;
            assert!(asked["run"].is_string() && !made(&folder, "out/a1"), "the run is asked about: {asked}");
            assert_eq!(asked["chain"], listed(&folder, "rule")[0]["chain"], "though the chain is the same");
        }
    }
}

/// What matters comes first and nothing of it is hidden: what it would do, who asks, and only then
/// the arguments, of which both ends are seen.
#[test]
fn a_long_call_hides_nothing() {
    let folder = Folder::new(&POLICY.replace("{wait}", "100ms"));
    std::fs::create_dir(folder.join("out")).unwrap();
    let content = format!("\u{202e}begin {} the end", "x".repeat(5_000));
    let arguments = json!({ "content": content, "file_path": "out/a" });
    let seen = |text: &str| {
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}: {text}"));
        let effect = at(&format!("write {}", folder.join("out/a").display()));
        assert!(effect < at("root policy") && at("root policy") < at("\\u{202e}begin"), "{text}");
        assert!(at("begin") < at("bytes not shown") && at("bytes not shown") < at(" the end"), "{text}");
        assert!(!text.contains('\u{202e}') && text.len() < 2_500, "{text}");
    };
    let mut client = Client::start(&folder, json!({ "elicitation": {} }));
    let call = client.request("tools/call", json!({ "name": WRITE, "arguments": arguments }));
    let asked = client.until(|m| m["method"] == "elicitation/create");
    seen(asked["params"]["message"].as_str().unwrap());
    client.send(json!({ "id": asked["id"], "result": { "action": "cancel" } }));
    client.until(|m| m["id"] == call);
    let listed = folder.run(&["answer"]);
    seen(&listed.out);
    // The whole is seen where the text says so.
    assert!(listed.out.contains("pleach answer --json"), "{listed:?}");
    let whole = folder.run(&["answer", "--json"]).out;
    assert_eq!(serde_json::from_str::<Value>(&whole).unwrap()["detail"]["arguments"], arguments);
}

/// What the record holds.
fn recorded(folder: &Folder) -> Vec<Value> {
    let files = std::fs::read_dir(folder.join("pleach.audit.d")).unwrap().flatten();
    let text: String = files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Every answer and what became of it is in the record, with who gave it and through which door;
/// so is what ended without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_and_every_use_of_one_is_on_record() {
    let folder = folder("100ms");
    folder.write("pleach.toml", &policy("100ms").replace("per_tree = 3", "per_tree = 9"));
    folder.write("replies.toml", TWO);
    let served = Served::start(&folder);
    let ask = async |path: &str| named(&call(&served, ALICE, WRITE, to(path)).await);
    let of = |what: &str, id: &str| -> Vec<Value> {
        recorded(&folder).into_iter().filter(|r| r["what"] == what && r["question"] == id).collect()
    };
    let answer = |id: &str| -> Value {
        let mut said = of("answer", id);
        assert_eq!(said.len(), 1, "{id}: {said:?}");
        said.remove(0)
    };
    // A client's own calls: yes and its use, no, always; over REST and on the command line.
    let (yes, no, always) = (ask("out/yes").await, ask("out/no").await, ask("out/always").await);
    assert_eq!(post(&served, BOSS, &format!("/v1/approvals/{yes}"), decide("allow")).await.status, 200);
    assert_eq!(folder.run(&["answer", &no, "deny"]).code, 0);
    assert_eq!(folder.run(&["answer", &always, "allow", "--always", "path"]).code, 0);
    for (id, said, by, door) in [
        (&yes, "allow", "boss", "rest"),
        (&no, "deny", "local", "cli"),
        (&always, "allow, always these paths", "local", "cli"),
    ] {
        let record = answer(id);
        assert_eq!((&record["answer"], &record["by"], &record["through"]), (&json!(said), &json!(by), &json!(door)));
        assert_eq!((&record["principal"], &record["door"]), (&json!("alice"), &json!("mcp")), "whose it was: {record}");
    }
    assert_eq!(of("spend", &yes).len(), 0);
    for path in ["out/yes", "out/no"] {
        call(&served, ALICE, WRITE, to(path)).await;
    }
    let spent = of("spend", &yes);
    assert!(spent.len() == 1 && spent[0]["by"] == "boss" && spent[0]["principal"] == "alice", "{spent:?}");
    assert_eq!(of("spend", &no).len(), 0);
    // One that its client took back.
    folder.write("pleach.toml", &policy("30s").replace("per_tree = 3", "per_tree = 9"));
    eventually(&served, async || crate::live::taken(&served).await > 0).await;
    let params = json!({ "name": WRITE, "arguments": to("out/gone") });
    let gone = tokio::select! {
        answer = served.modern("/mcp", "tools/call", params, &[ALICE]) => panic!("{answer:?}"),
        asked = open(&served) => asked["id"].as_str().unwrap().to_owned(),
    };
    eventually(&served, async || of("answer", &gone).iter().any(|r| r["answer"] == "withdrawn")).await;
    // A run's: yes and its use, no and what came of it.
    drop(served);
    let run = folder.run(&["run", "--agent", "writer", "a"]);
    let (first, run) = (named(&run.err), run);
    assert_eq!(run.code, 5, "{run:?}");
    let second = named(&folder.run(&["answer", &first, "allow"]).err);
    assert_eq!(folder.run(&["answer", &second, "deny"]).code, 0);
    for (id, said) in [(&first, "allow"), (&second, "deny")] {
        let record = answer(id);
        assert_eq!(
            (&record["answer"], &record["by"], &record["through"]),
            (&json!(said), &json!("local"), &json!("cli"))
        );
        assert!(record["run"].is_string(), "{record}");
    }
    assert_eq!((of("spend", &first).len(), of("spend", &second).len()), (1, 0));
    assert_eq!(of("call", &second).iter().filter(|r| r["verdict"] == "deny").count(), 1);
    // What nobody answered in time: noted by whoever is there next.
    folder.write("pleach.toml", &policy("50ms").replace("per_tree = 3", "expire = \"1s\""));
    let served = Served::start(&folder);
    let late = named(&call(&served, ALICE, WRITE, to("out/late")).await);
    eventually(&served, async || of("answer", &late).iter().any(|r| r["answer"] == "expired")).await;
    drop(served);
    let verified = folder.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
}
