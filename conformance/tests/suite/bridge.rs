//! The bridge between the eras, and the names on it, attacked from outside: questions reach
//! whose call they are about, and nobody else; what is sealed opens where it was given; every
//! address crosses in both directions.

use conformance::official::{Fixture, binary};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served, text};
use serde_json::{Value, json};

/// A policy in front of a fixture, with two clients and an agent's view.
fn policy(fixture: &str, more: &str) -> String {
    format!(
        "version = 1\n[servers.fix]\n{fixture}\ndefault_access = \"read-only\"\n[policy]\nmax_access = \"read-write\"\n\
         tools.allow = [\"*\"]\n{more}\n[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n[clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n\
         [models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[agents.narrow]\nprompt = \"p\"\n"
    )
}

fn stdio(era: &str) -> String {
    format!("command = {:?}\nargs = [\"fixture\", {era:?}, \"stdio\"]", binary().display().to_string())
}

const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");

/// A modern request by a client that can be asked everything.
async fn ask(served: &Served, path: &str, who: (&str, &str), method: &str, mut params: Value) -> Answer {
    let can = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} });
    params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": can });
    served.modern(path, method, params, &[who]).await
}

const ASKS: &str = "fix__test_elicitation";
/// Of a modern server that keeps a state of its own.
const KEEPS: &str = "fix__test_input_required_result_request_state";

async fn elicit(served: &Served, tool: &str) -> Value {
    elicit_as(served, tool, ALICE).await
}
async fn elicit_as(served: &Served, tool: &str, who: (&str, &str)) -> Value {
    let params = json!({ "name": tool, "arguments": { "message": "who?" } });
    ask(served, "/mcp", who, "tools/call", params).await.json()
}

/// The retry of an elicitation, with an answer to each of its questions.
fn retry(tool: &str, first: &Value) -> Value {
    let asked = first["result"]["inputRequests"].as_object().unwrap_or_else(|| panic!("{first}"));
    let content =
        json!({ "username": "u", "email": "e@example.com", "response": "r", "name": "n", "ok": true, "confirm": true });
    let answers = asked.keys().map(|key| (key.clone(), json!({ "action": "accept", "content": content })));
    json!({
        "name": tool,
        "arguments": { "message": "who?" },
        "inputResponses": Value::Object(answers.collect()),
        "requestState": first["result"]["requestState"],
    })
}

#[tokio::test]
async fn a_state_opens_only_where_it_was_given_and_once() {
    for (era, tool) in [("legacy", ASKS), ("modern", KEEPS)] {
        let folder = Folder::new(&policy(&stdio(era), ""));
        let served = Served::start(&folder);
        let first = elicit(&served, tool).await;
        assert_eq!(first["result"]["resultType"], "input_required", "{first}");
        let again = retry(tool, &first);
        // Another client, another door, another call, a changed state: none of them is it.
        let mut other_call = again.clone();
        other_call["arguments"]["message"] = "somebody else?".into();
        let mut changed = again.clone();
        changed["requestState"] = format!("{}A", again["requestState"].as_str().unwrap()).into();
        let attempts = [
            ("bob", "/mcp", BOB, &again),
            ("another door", "/mcp/agents/narrow", ALICE, &again),
            ("another call", "/mcp", ALICE, &other_call),
            ("a changed state", "/mcp", ALICE, &changed),
        ];
        for (what, path, who, params) in attempts {
            let answer = ask(&served, path, who, "tools/call", params.clone()).await.json();
            assert_eq!(answer["error"]["code"], -32602, "{era}, {what}: {answer}");
        }
        // The one it was given to.
        let done = ask(&served, "/mcp", ALICE, "tools/call", again.clone()).await.json();
        assert_eq!(done["result"]["resultType"], "complete", "{era}: {done}");
        if era == "legacy" {
            let twice = ask(&served, "/mcp", ALICE, "tools/call", again).await.json();
            assert_eq!(twice["error"]["code"], -32602, "{twice}");
        }
    }
}

#[tokio::test]
async fn a_parked_call_does_not_survive_a_restart_as_somebody_elses() {
    let folder = Folder::new(&policy(&stdio("legacy"), ""));
    let served = Served::start(&folder);
    let alices = elicit(&served, ASKS).await;
    drop(served);
    let served = Served::start(&folder);
    let bobs = elicit_as(&served, ASKS, BOB).await;
    assert_eq!(bobs["result"]["resultType"], "input_required");
    let stolen = ask(&served, "/mcp", ALICE, "tools/call", retry(ASKS, &alices)).await.json();
    assert_eq!(stolen["error"]["code"], -32602, "{stolen}");
    let own = ask(&served, "/mcp", BOB, "tools/call", retry(ASKS, &bobs)).await.json();
    assert_eq!(own["result"]["resultType"], "complete", "{own}");
}

#[tokio::test]
async fn policy_answers_for_a_client_that_may_not_be_asked() {
    let denied = "tools.deny = [\"*__elicitation/create\", \"*__sampling/createMessage\"]";
    for era in ["legacy", "modern"] {
        let folder = Folder::new(&policy(&stdio(era), denied));
        let served = Served::start(&folder);
        let answer = elicit(&served, ASKS).await;
        assert_ne!(answer["result"]["resultType"], "input_required", "{era}: {answer}");
        // The benign twin: another tool of the same server.
        let params = json!({ "name": "fix__test_simple_text", "arguments": {} });
        let simple = ask(&served, "/mcp", ALICE, "tools/call", params).await;
        assert!(text(&simple).contains("simple text"), "{era}: {simple:?}");
    }
}

#[tokio::test]
async fn addresses_and_names_cross_in_both_directions() {
    for era in ["legacy", "modern"] {
        let fixture = Fixture::start(&binary(), era).unwrap();
        let folder = Folder::new(&policy(&format!("url = {:?}", fixture.url), ""));
        let served = Served::start(&folder);
        let get = async |method: &str, params: Value| ask(&served, "/mcp", ALICE, method, params).await.json();
        let list = |answer: &Value, list: &str, key: &str| -> Vec<String> {
            let items = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
            items.iter().map(|i| i[key].as_str().unwrap().to_owned()).collect()
        };
        let resources = list(&get("resources/list", json!({})).await, "resources", "uri");
        assert!(resources.contains(&"pleach:fix/test://static-text".to_owned()), "{resources:?}");
        let templates = list(&get("resources/templates/list", json!({})).await, "resourceTemplates", "uriTemplate");
        assert!(templates.contains(&"pleach:fix/test://template/{id}/data".to_owned()), "{templates:?}");
        let prompts = list(&get("prompts/list", json!({})).await, "prompts", "name");
        assert!(prompts.contains(&"fix__test_simple_prompt".to_owned()), "{prompts:?}");

        for uri in ["pleach:fix/test://static-text", "pleach:fix/test://template/7/data"] {
            let read = get("resources/read", json!({ "uri": uri })).await;
            assert_eq!(read["result"]["contents"][0]["uri"], uri, "{era}: {read}");
        }
        // A stranger's spelling, and one of nobody's.
        for uri in ["test://static-text", "pleach:other/test://static-text", "pleach:fix/test://nowhere"] {
            let missing = get("resources/read", json!({ "uri": uri })).await;
            assert_eq!(
                (&missing["error"]["code"], &missing["error"]["data"]["uri"]),
                (&json!(-32602), &json!(uri)),
                "{missing}"
            );
        }
        let embedded = get("tools/call", json!({ "name": "fix__test_embedded_resource", "arguments": {} })).await;
        let uri = embedded["result"]["content"][0]["resource"]["uri"].as_str().unwrap();
        assert!(uri.starts_with("pleach:fix/test://"), "{embedded}");
        let prompt = get("prompts/get", json!({ "name": "fix__test_simple_prompt" })).await;
        assert!(prompt["result"]["messages"].is_array(), "{prompt}");
        let reference = json!({ "type": "ref/prompt", "name": "fix__test_prompt_with_arguments" });
        let argument = json!({ "name": "arg1", "value": "t" });
        let complete = get("completion/complete", json!({ "ref": reference, "argument": argument })).await;
        assert!(complete["result"]["completion"]["values"].is_array(), "{complete}");
    }
}

/// What a process lists it lists for one principal.
#[tokio::test]
async fn one_principals_resources_are_not_shown_to_another() {
    const SERVER: &str = r#"
import json, os, sys
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    home = "home:" + os.environ["HOME"]
    r = {
        "initialize": {"protocolVersion": "2025-11-25", "serverInfo": {"name": "s", "version": "1"},
                       "capabilities": {"tools": {}, "resources": {"listChanged": True}}},
        "tools/list": {"tools": []},
        "resources/list": {"resources": [{"uri": home, "name": "n"}]},
        "resources/templates/list": {"resourceTemplates": []},
    }.get(m["method"])
    out = {"result": r} if r is not None else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;
    let folder = Folder::new(&policy("command = \"python3\"\nargs = [\"server.py\"]", "filesystem.read = [\".\"]"));
    folder.write("server.py", SERVER);
    let served = Served::start(&folder);
    let mut seen = Vec::new();
    for who in [ALICE, BOB, ALICE] {
        let list = ask(&served, "/mcp", who, "resources/list", json!({})).await.json();
        let all = list["result"]["resources"].as_array().unwrap_or_else(|| panic!("{list}")).clone();
        assert_eq!(all.len(), 1, "{list}");
        seen.push(all[0]["uri"].as_str().unwrap().to_owned());
    }
    assert!(seen[0].ends_with("/alice") && seen[1].ends_with("/bob"), "{seen:?}");
    assert_eq!(seen[0], seen[2]);
}

/// Changes of a watched resource reach who watches it, in both eras of both sides.
#[tokio::test]
async fn a_watched_resource_is_heard_of() {
    for era in ["legacy", "modern"] {
        let fixture = Fixture::start(&binary(), era).unwrap();
        let folder = Folder::new(&policy(&format!("url = {:?}", fixture.url), ""));
        let served = Served::start(&folder);
        let uri = "pleach:fix/test://watched-resource";
        let wanted = json!({ "notifications": { "resourceSubscriptions": [uri, "pleach:fix/test://nowhere"] } });
        let body = conformance::served::modern_body("subscriptions/listen", wanted).to_string();
        let request = Served::client().post(format!("{}/mcp", served.base)).body(body).header(ALICE.0, ALICE.1);
        let request =
            request.header("content-type", "application/json").header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
        let mut stream = request.send().await.unwrap();
        let (mut heard, mut triggered) = (String::new(), false);
        let hear = async {
            while let Some(chunk) = stream.chunk().await.unwrap() {
                heard.push_str(&String::from_utf8_lossy(&chunk));
                if heard.contains("acknowledged") && !std::mem::replace(&mut triggered, true) {
                    assert!(heard.contains(uri), "{heard}");
                    let params = json!({ "name": "fix__test_trigger_resource_update", "arguments": {} });
                    let answer = ask(&served, "/mcp", ALICE, "tools/call", params).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
                if heard.contains("notifications/resources/updated") {
                    return;
                }
            }
            panic!("{era}: the stream ended: {heard}");
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), hear)
            .await
            .unwrap_or_else(|_| panic!("{era}: not told"));
        assert!(heard.contains(&format!("\"uri\":\"{uri}\"")), "{heard}");
    }
}
