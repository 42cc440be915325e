//! `ask` at the doors of clients: a client's own call waits for a person as a row, whatever becomes
//! of the process; an answer is good for that call, once; rules that answers make stand until they
//! are revoked and never go beyond the grant; and nobody is buried in questions. Scored by files.

use crate::conversations::Client;
use crate::live::{call, change};
use crate::rest::{ALICE, BOB, BOSS, post};
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};

/// `{wait}` is how long a call waits, `{more}` whatever else.
pub(crate) const POLICY: &str = r#"
version = 1
[approvals]
wait = "{wait}"
per_tree = 3
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "read-write"
filesystem = { read = ["docs"], read_write = ["out"] }
tools = { allow = ["files__*"], ask = ["files__Write"] }
[agents.writer]
prompt = "p"
expose = true
"#;

const CLIENTS: &str = r#"
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["writer"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
[clients.boss]
token = "boss-boss-boss-boss-boss"
can_approve = true
"#;

pub(crate) const WRITE: &str = "files__Write";

pub(crate) fn policy(wait: &str) -> String {
    format!("{POLICY}{CLIENTS}").replace("{wait}", wait)
}

pub(crate) fn folder(wait: &str) -> Folder {
    let folder = Folder::new(&policy(wait));
    std::fs::create_dir(folder.join("out")).unwrap();
    folder
}
pub(crate) fn to(path: &str) -> Value {
    json!({ "file_path": path, "content": "x" })
}

/// The question that a text names.
pub(crate) fn named(said: &str) -> String {
    let words = said.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.into_iter().find(|word| word.starts_with("q-")).unwrap_or_else(|| panic!("no question: {said}")).to_owned()
}

pub(crate) fn made(folder: &Folder, path: &str) -> bool {
    folder.join(path).exists()
}

/// What `pleach approvals --json` lists of a type.
pub(crate) fn listed(folder: &Folder, kind: &str) -> Vec<Value> {
    let ran = folder.run(&["approvals", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["type"] == kind).collect()
}

/// The question that is open, once one is.
pub(crate) async fn open(served: &Served) -> Value {
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

pub(crate) fn decide(decision: &str) -> Value {
    json!({ "decision": decision })
}

/// The call of a client of either era stands until somebody answers, wherever they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_and_goes_on_when_it_is_answered() {
    let folder = folder("30s");
    let served = Served::start(&folder);
    let session = served.initialize("/mcp", &[ALICE]).await;
    for (n, (era, by, decision)) in
        [("modern", "cli", "allow"), ("modern", "rest", "deny"), ("legacy", "rest", "allow"), ("legacy", "cli", "deny")]
            .into_iter()
            .enumerate()
    {
        let path = format!("out/{n}");
        let params = json!({ "name": WRITE, "arguments": to(&path) });
        let calling = async {
            match era {
                "modern" => served.modern("/mcp", "tools/call", params, &[ALICE]).await,
                _ => served.legacy("/mcp", &session, "tools/call", params, &[ALICE]).await,
            }
        };
        let answering = async {
            let asked = open(&served).await;
            // Everything a person needs to see.
            assert_eq!((&asked["principal"], &asked["run"]), (&json!("alice"), &Value::Null), "{asked}");
            assert_eq!(asked["chain"], json!(["root policy", "client alice"]), "{asked}");
            assert_eq!(asked["detail"]["arguments"], to(&path), "{asked}");
            let effect = json!([{ "does": "write", "path": folder.join(&path).display().to_string() }]);
            assert_eq!(asked["detail"]["touches"], effect, "{asked}");
            assert!(!made(&folder, &path), "before anybody answered");
            let id = asked["id"].as_str().unwrap().to_owned();
            match by {
                "cli" => {
                    let ran = folder.run(&["answer", &id, decision]);
                    assert_eq!(ran.code, 0, "{ran:?}");
                }
                _ => {
                    let answered = post(&served, BOSS, &format!("/v1/approvals/{id}"), decide(decision)).await;
                    assert_eq!(answered.status, 200, "{answered:?}");
                }
            }
        };
        let (answer, ()) = tokio::join!(calling, answering);
        let (said, allowed) = (text(&answer), decision == "allow");
        assert_eq!(made(&folder, &path), allowed, "{era} {by}: {said}");
        assert_eq!(said.contains("said no"), !allowed, "{era} {by}: {said}");
    }
    // A no is heard by the same call, without asking again.
    let again = call(&served, ALICE, WRITE, to("out/1")).await;
    assert!(again.contains("boss said no"), "{again}");
}

/// A yes is to what a person was shown: where the same words lead elsewhere meanwhile, it is asked
/// again. Where they lead to the same place, it is good.
#[tokio::test]
async fn a_yes_is_to_where_the_call_led() {
    let folder = folder("100ms");
    let served = Served::start(&folder);
    for inner in ["out/a", "out/b", "out/here"] {
        std::fs::create_dir(folder.join(inner)).unwrap();
    }
    let link = folder.join("out/here");
    for (moved, name) in [(true, "one"), (false, "two")] {
        let words = to(&format!("out/here/{name}"));
        let first = named(&call(&served, ALICE, WRITE, words.clone()).await);
        assert_eq!(folder.run(&["answer", &first, "allow"]).code, 0);
        if moved {
            std::fs::remove_dir(&link).unwrap();
            std::os::unix::fs::symlink("b", &link).unwrap();
        }
        let said = call(&served, ALICE, WRITE, words).await;
        assert_eq!(made(&folder, &format!("out/b/{name}")), !moved, "{said}");
        if moved {
            assert_ne!(named(&said), first, "another question: {said}");
        }
    }
}

/// Nobody is there: denied, with the question's name. The row outlives the call and the process,
/// and is good for that call, once.
#[tokio::test]
async fn an_answer_given_later_lets_that_call_through_once() {
    let folder = folder("100ms");
    let served = Served::start(&folder);
    let denied = call(&served, ALICE, WRITE, to("out/a")).await;
    assert!(denied.contains("pleach answer q-") && denied.contains("nobody answered within 100"), "{denied}");
    let id = named(&denied);
    // The same again is the same question; others' and other arguments are not.
    assert_eq!(named(&call(&served, ALICE, WRITE, to("out/a")).await), id);
    assert_ne!(named(&call(&served, ALICE, WRITE, to("out/b")).await), id);
    assert_ne!(named(&call(&served, BOB, WRITE, to("out/a")).await), id);
    let at =
        served.modern("/mcp/agents/writer", "tools/call", json!({ "name": WRITE, "arguments": to("out/a") }), &[ALICE]);
    assert_ne!(named(&text(&at.await)), id, "another door");
    // Killed with the question open; answered while nothing runs; killed with the answer given.
    drop(served);
    let ran = folder.run(&["answer", &id[id.len() - 6..], "allow"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let served = Served::start(&folder);
    drop(served);
    let served = Served::start(&folder);
    for (who, path) in [(ALICE, "out/b"), (BOB, "out/a")] {
        let other = call(&served, who, WRITE, to(path)).await;
        assert!(other.contains("nobody answered"), "{other}");
    }
    assert!(!made(&folder, "out/a") && !made(&folder, "out/b"));
    let through = call(&served, ALICE, WRITE, to("out/a")).await;
    assert!(made(&folder, "out/a"), "{through}");
    std::fs::remove_file(folder.join("out/a")).unwrap();
    let again = call(&served, ALICE, WRITE, to("out/a")).await;
    assert!(!made(&folder, "out/a") && named(&again) != id, "once: {again}");
    // Answered once, too.
    let ran = folder.run(&["answer", &id, "allow"]);
    assert!(ran.code != 0 && ran.err.contains("answered by local already"), "{ran:?}");
}

#[tokio::test]
async fn what_is_late_is_good_for_nothing() {
    let folder = folder("50ms");
    folder.write("pleach.toml", &policy("50ms").replace("per_tree = 3", "expire = \"2s\""));
    let served = Served::start(&folder);
    let first = named(&call(&served, ALICE, WRITE, to("out/late")).await);
    let second = named(&call(&served, ALICE, WRITE, to("out/given")).await);
    let answered = post(&served, BOSS, &format!("/v1/approvals/{second}"), decide("allow")).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    tokio::time::sleep(std::time::Duration::from_millis(2_300)).await;
    let late = post(&served, BOSS, &format!("/v1/approvals/{first}"), decide("allow")).await;
    assert_eq!(late.status, 409, "{late:?}");
    for path in ["out/late", "out/given"] {
        let denied = call(&served, ALICE, WRITE, to(path)).await;
        assert!(!made(&folder, path) && ![&first, &second].contains(&&named(&denied)), "{path}: {denied}");
    }
}

/// A tool that is not what it was is asked about anew, whatever was said of it before.
#[tokio::test]
async fn a_changed_tool_is_another_question() {
    let describes = std::sync::Arc::new(std::sync::Mutex::new("Puts."));
    let told = describes.clone();
    let upstream = conformance::upstream::Upstream::start(move |seen| match seen.method.as_str() {
        "tools/list" => {
            let tool =
                json!({ "name": "put", "description": *told.lock().unwrap(), "inputSchema": { "type": "object" } });
            conformance::upstream::Act::Result(
                json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", "tools": [tool] }),
            )
        }
        _ => conformance::upstream::modern(seen, json!({ "tools": {} }), &[])
            .unwrap_or_else(|| conformance::upstream::Act::Result(conformance::upstream::told("done"))),
    });
    let own = policy("50ms").replace(
        "tools = { allow = [\"files__*\"], ask = [\"files__Write\"] }",
        "tools = { allow = [\"s__*\"], ask = [\"s__put\"] }",
    );
    let server = format!("[servers.s]\nurl = {:?}\ndefault_access = \"read-write\"\n[policy]", upstream.url());
    let folder = Folder::new(&own.replace("[policy]", &server));
    let served = Served::start(&folder);
    let (once, always) = (json!({ "n": "once" }), json!({ "n": "always" }));
    for (arguments, more) in [(&once, None), (&always, Some("tool"))] {
        let id = named(&call(&served, ALICE, "s__put", arguments.clone()).await);
        let said = json!({ "decision": "allow", "always": more });
        let answered = post(&served, BOSS, &format!("/v1/approvals/{id}"), said).await;
        assert_eq!(answered.status, 200, "{answered:?}");
    }
    *describes.lock().unwrap() = "Puts, and sends a copy elsewhere.";
    drop(served);
    let served = Served::start(&folder);
    for arguments in [&once, &always] {
        let denied = call(&served, ALICE, "s__put", arguments.clone()).await;
        assert!(denied.contains("pleach answer q-"), "{denied}");
    }
    assert_eq!(upstream.came("tools/call").len(), 0);
    // What it was, it may still do: the rule, and the answer.
    *describes.lock().unwrap() = "Puts.";
    drop(served);
    let served = Served::start(&folder);
    for arguments in [&once, &always] {
        assert_eq!(call(&served, ALICE, "s__put", arguments.clone()).await, "done");
    }
    assert_eq!(upstream.came("tools/call").len(), 2);
}

/// A client's person is asked on its own stream, where the policy says they may approve.
#[test]
fn a_legacy_clients_person_is_asked_on_the_stream_of_its_call() {
    let folder = Folder::new(&POLICY.replace("{wait}", "100ms"));
    std::fs::create_dir(folder.join("out")).unwrap();
    let mut client = Client::start(&folder, json!({ "elicitation": {} }));
    for (n, (said, allowed)) in [
        (json!({ "action": "accept", "content": { "allow": true } }), true),
        (json!({ "action": "accept", "content": { "allow": false, "note": "not now" } }), false),
        (json!({ "action": "decline" }), false),
        (json!({ "action": "cancel" }), false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("out/{n}");
        let call = client.request("tools/call", json!({ "name": WRITE, "arguments": to(&path) }));
        let asked = client.until(|m| m["method"] == "elicitation/create");
        let message = asked["params"]["message"].as_str().unwrap();
        let effect = format!("write {}", folder.join(&path).display());
        assert!(message.contains(&effect) && message.contains("root policy") && message.contains(WRITE), "{message}");
        client.send(json!({ "id": asked["id"], "result": said }));
        let done = client.until(|m| m["id"] == call);
        assert_eq!(made(&folder, &path), allowed, "{said}: {done}");
        if said["action"] == "cancel" {
            assert!(done.to_string().contains("pleach answer q-"), "put off, and still open: {done}");
        }
    }
}

#[tokio::test]
async fn a_modern_clients_person_is_asked_with_its_answer() {
    let folder = folder("100ms");
    let served = Served::start(&folder);
    let ask = async |who: (&str, &str), mut params: Value| {
        params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
        served.modern("/mcp", "tools/call", params, &[who]).await.json()["result"].clone()
    };
    let first = json!({ "name": WRITE, "arguments": to("out/a") });
    // Alice's person may not approve, and is not asked.
    let denied = ask(ALICE, first.clone()).await;
    assert!(denied["inputRequests"].is_null() && denied.to_string().contains("pleach answer q-"), "{denied}");
    for (path, allow) in [("out/a", true), ("out/b", false)] {
        let call = json!({ "name": WRITE, "arguments": to(path) });
        let asked = ask(BOSS, call.clone()).await;
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        let (key, request) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(request["method"], "elicitation/create", "{asked}");
        let mut again = call;
        again["inputResponses"] = json!({ key: { "action": "accept", "content": { "allow": allow } } });
        again["requestState"] = asked["requestState"].clone();
        // The answer is for what was asked about: with other arguments it is no answer.
        let mut other = again.clone();
        other["arguments"] = to("out/c");
        ask(BOSS, other).await;
        let done = ask(BOSS, again).await;
        assert_eq!(made(&folder, path), allow, "{done}");
        assert!(!made(&folder, "out/c"));
    }
}

/// A client's model calls tools, and none of them takes the approval of the client's own call.
#[tokio::test]
async fn no_client_approves_its_own_call_by_a_tool() {
    let folder = folder("100ms");
    folder.write(
        "pleach.toml",
        &policy("100ms").replace("can_approve = true", "can_approve = true\nmay_start = [\"writer\"]"),
    );
    let served = Served::start(&folder);
    let own = named(&call(&served, BOSS, WRITE, to("out/own")).await);
    let said = call(&served, BOSS, "pleach__answer", json!({ "id": own, "verdict": "allow" })).await;
    assert!(said.contains("given by a person"), "{said}");
    call(&served, BOSS, WRITE, to("out/own")).await;
    assert!(!made(&folder, "out/own"));
    // Nor may who may not approve, through any door.
    let alices = named(&call(&served, ALICE, WRITE, to("out/alice")).await);
    let said = call(&served, ALICE, "pleach__answer", json!({ "id": alices, "verdict": "allow" })).await;
    assert!(said.contains("given by a person"), "{said}");
    for (who, status) in [(ALICE, 403), (BOB, 404)] {
        let refused = post(&served, who, &format!("/v1/approvals/{alices}"), decide("allow")).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
    // The twin: another who may, by the same tool.
    let said = call(&served, BOSS, "pleach__answer", json!({ "id": alices, "verdict": "allow" })).await;
    assert!(said.contains("answered"), "{said}");
    call(&served, ALICE, WRITE, to("out/alice")).await;
    assert!(made(&folder, "out/alice"));
}

/// A rule is as wide as was said, is seen, named in the record, revoked, and less than the grant.
#[tokio::test]
async fn a_rule_stands_until_it_is_revoked() {
    let folder = folder("100ms");
    folder.write("out/in/kept", "");
    let served = Served::start(&folder);
    let id = named(&call(&served, ALICE, WRITE, to("out/in/a")).await);
    let within = folder.join("out/in").display().to_string();
    for (args, code) in [
        (vec!["answer", &id, "allow", "--always", "run"], 1),
        (vec!["answer", &id, "allow", "--always", "path", "--within", "docs"], 2),
        (vec!["answer", &id, "deny", "--always", "tool"], 2),
        (vec!["answer", &id, "allow", "--always", "path", "--within", "out/in"], 0),
    ] {
        let ran = folder.run(&args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    }
    let rules = listed(&folder, "rule");
    assert_eq!(rules.len(), 1, "{rules:?}");
    let rule = &rules[0];
    assert_eq!((&rule["tool"], &rule["by"], &rule["paths"]), (&json!(WRITE), &json!("local"), &json!([within])));
    for path in ["out/in/a", "out/in/b"] {
        let said = call(&served, ALICE, WRITE, to(path)).await;
        assert!(made(&folder, path), "{said}");
    }
    // Not beyond its paths, nor for anybody else, nor for an agent of the same client.
    for (who, path) in [(ALICE, "out/other"), (ALICE, "out/inner"), (BOB, "out/in/bob")] {
        let said = call(&served, who, WRITE, to(path)).await;
        assert!(!made(&folder, path) && said.contains("pleach answer q-"), "{said}");
    }
    let id = rule["id"].as_str().unwrap();
    let audit = std::fs::read_dir(folder.join("pleach.audit.d")).unwrap();
    let record: String = audit.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
    assert_eq!(record.matches(&format!("standing rule {id} by local")).count(), 2, "each call names it");
    // What the policy denies it cannot allow, and it is asked again when it says so no more.
    let own = policy("100ms");
    change(&folder, &served, &own.replace("ask = [\"files__Write\"]", "deny = [\"files__Write\"]")).await;
    let said = call(&served, ALICE, WRITE, to("out/in/denied")).await;
    assert!(!made(&folder, "out/in/denied"), "{said}");
    change(&folder, &served, &own.replace("read_write = [\"out\"]", "read_write = [\"out/elsewhere\"]")).await;
    let said = call(&served, ALICE, WRITE, to("out/in/denied")).await;
    assert!(!made(&folder, "out/in/denied"), "{said}");
    change(&folder, &served, &own).await;
    call(&served, ALICE, WRITE, to("out/in/allowed")).await;
    assert!(made(&folder, "out/in/allowed"), "it still stands");
    // Seen by its client, revoked by who may approve.
    let seen = |page: &Value| page["rules"].as_array().unwrap().len();
    for (who, count) in [(ALICE, 1), (BOB, 0), (BOSS, 1)] {
        assert_eq!(seen(&served.get("/v1/rules", &[who]).await.json()), count, "{who:?}");
    }
    for (who, status) in [(ALICE, 403), (BOB, 404), (BOSS, 200), (BOSS, 404)] {
        let revoked = post(&served, who, &format!("/v1/rules/{id}/revoke"), json!({})).await;
        assert_eq!(revoked.status, status, "{revoked:?}");
    }
    let said = call(&served, ALICE, WRITE, to("out/in/late")).await;
    assert!(!made(&folder, "out/in/late") && said.contains("pleach answer q-"), "{said}");
    assert_eq!(listed(&folder, "rule").len(), 0);
}

pub(crate) const TWO: &str = r#"
[[reply]]
agent = "writer"
text = "so"
[[reply.tool]]
name = "files__Write"
input = { file_path = "out/{{prompt}}1", content = "x" }
[[reply]]
agent = "writer"
text = "so"
[[reply.tool]]
name = "files__Write"
input = { file_path = "out/{{prompt}}2", content = "x" }
[[reply]]
agent = "writer"
text = "done"
"#;

/// A run's rule is that run's; an agent's is that agent's, not its client's own calls'.
#[tokio::test]
async fn a_rule_of_a_run_is_no_other_runs() {
    let folder = folder("100ms");
    folder.write("replies.toml", TWO);
    let run = |prompt: &str| {
        let ran = folder.run(&["run", "--agent", "writer", prompt]);
        assert_eq!(ran.code, 5, "it waits: {ran:?}");
        named(&ran.err)
    };
    let first = run("a");
    let ran = folder.run(&["answer", &first, "allow", "--always", "run"]);
    assert_eq!(ran.code, 0, "the second write is not asked about: {ran:?}");
    assert!(made(&folder, "out/a1") && made(&folder, "out/a2"));
    // Another run asks, once, and then is asked about each, for that was a yes for once.
    let second = run("b");
    let ran = folder.run(&["answer", &second, "allow"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(made(&folder, "out/b1") && !made(&folder, "out/b2"));
    let ran = folder.run(&["answer", &named(&ran.err), "allow", "--always", "tool"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // From now on the agent is not asked, and the client's own calls are.
    let ran = folder.run(&["run", "--agent", "writer", "c"]);
    assert!(ran.code == 0 && made(&folder, "out/c2"), "{ran:?}");
    let served = Served::start(&folder);
    for who in [ALICE, BOSS] {
        let said = call(&served, who, WRITE, to("out/own")).await;
        assert!(!made(&folder, "out/own"), "{said}");
    }
    drop(served);
    let rules = listed(&folder, "rule");
    assert_eq!(rules.len(), 2, "{rules:?}");
    for rule in rules {
        let ran = folder.run(&["approvals", "revoke", rule["id"].as_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    run("d");
}

/// Whoever asks for much is refused, with the reason; an answer makes room.
#[tokio::test]
async fn nobody_is_buried_in_questions() {
    let folder = folder("50ms");
    let four: String = (1..=5)
        .map(|n| {
            format!(
                "[[reply.tool]]\nname = \"files__Write\"\ninput = {{ file_path = \"out/{}\", content = \"x\" }}\n",
                n.min(4)
            )
        })
        .collect();
    let replies = format!(
        "[[reply]]\nagent = \"writer\"\ntext = \"so\"\n{four}[[reply]]\nagent = \"writer\"\ntext = \"{{{{results}}}}\"\n"
    );
    folder.write("replies.toml", &replies);
    let served = Served::start(&folder);
    let mut open = Vec::new();
    for n in 0..6 {
        let said = call(&served, ALICE, WRITE, to(&format!("out/own{n}"))).await;
        match n {
            0..3 => open.push(named(&said)),
            _ => assert!(said.contains("3 approvals of this client's own calls are open"), "{n}: {said}"),
        }
    }
    // Another client is not held back, nor is this one once somebody answered.
    named(&call(&served, BOB, WRITE, to("out/bob")).await);
    post(&served, BOSS, &format!("/v1/approvals/{}", open[0]), decide("deny")).await;
    named(&call(&served, ALICE, WRITE, to("out/own4")).await);
    drop(served);
    // A run that asks for five at once, two of them the same: three are asked about.
    let ran = folder.run(&["run", "--agent", "writer", "--json", "go"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    let of_runs = listed(&folder, "approval").into_iter().filter(|q| q["run"].is_string()).count();
    assert_eq!(of_runs, 3);
    assert!(ran.out.contains("3 approvals of this tree of runs are open"), "{ran:?}");
    assert_eq!(ran.out.matches("\"verdict\":\"ask\"").count(), 3, "{ran:?}");
}
