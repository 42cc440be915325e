//! Callers that leave, or stay and do not read: whatever they asked for is taken back from the
//! server, and what it goes on saying costs nobody anything.

use crate::faults::{descriptors, memory};
use conformance::pleach::Folder;
use conformance::served::{Listening, Served, text};
use conformance::upstream::{Act, Upstream, legacy, saying, told};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Over standard streams, of the era in its argument. `until` is answered when it was told
/// something so many times, with all of it; `flood` reports progress as fast as it can be written,
/// and then answers or does not; `long` becomes a task, of which only one is ever told about.
const SERVER: &str = r#"
import json, sys, threading
modern, lock, heard, waits = sys.argv[1] == "modern", threading.RLock(), [], []
def send(**m):
    with lock: sys.stdout.write(json.dumps({"jsonrpc": "2.0", **m}) + "\n"); sys.stdout.flush()
def give(id, **result):
    if modern: result = {"resultType": "complete", "ttlMs": 60000, "cacheScope": "private", **result}
    send(id=id, result=result)
def say(id, text): give(id, content=[{"type": "text", "text": text}])
def task(id, name, kind):
    at = "2026-11-01T00:00:00Z"
    give(id, resultType=kind, taskId=name, status="working", createdAt=at, lastUpdatedAt=at, ttlMs=None)
def answer_waits():
    for wait in list(waits):
        id, wanted = wait
        met = [m for m in heard if m["method"] == wanted["method"]]
        if len(met) >= wanted["count"]: waits.remove(wait); say(id, json.dumps(met))
def happened(m):
    with lock: heard.append(m); answer_waits()
def flood(id, token, of):
    for n in range(of["count"]):
        send(method="notifications/progress", params={"progressToken": token, "progress": n, "message": "x" * of["size"]})
    happened({"method": "flooded"})
    if of["answers"]: say(id, "dry")
def call(id, name, arguments, token):
    if name == "until":
        with lock: waits.append((id, arguments)); answer_waits()
    elif name == "flood": threading.Thread(target=flood, args=(id, token, arguments)).start()
    elif name == "long": task(id, arguments["task"], "task")
for line in sys.stdin:
    m = json.loads(line)
    method, id, params = m.setdefault("method", "an answer"), m.get("id"), m.get("params", {})
    happened(m)
    if method == "notifications/roots/list_changed": send(id="roots-%d" % len(heard), method="roots/list")
    elif method == "an answer" or id is None: pass
    elif method == "server/discover" and modern:
        extensions = {"io.modelcontextprotocol/tasks": {}}
        give(id, supportedVersions=["2026-07-28"], capabilities={"tools": {}, "extensions": extensions}, serverInfo={"name": "s", "version": "1"})
    elif method == "initialize" and not modern:
        give(id, protocolVersion="2025-11-25", capabilities={"tools": {}}, serverInfo={"name": "s", "version": "1"})
    elif method == "tools/list":
        give(id, tools=[{"name": n, "inputSchema": {"type": "object"}} for n in ["until", "flood", "long"]])
    elif method == "tools/call":
        call(id, params["name"], params.get("arguments", {}), params.get("_meta", {}).get("progressToken"))
    elif method == "tasks/get":
        if params["taskId"] == "told": task(id, "told", "complete")
    else: send(id=id, error={"code": -32601, "message": "no"})
"#;

/// What comes at once has come by then on the slowest machine; what used to go wrong took a minute or more.
const AT_ONCE: Duration = Duration::from_secs(15);

fn serve(server: &str) -> (Folder, Served) {
    let folder = Folder::new(&format!(
        "version = 1\n[servers.s]\n{server}\ndefault_access = \"read-only\"\n\
         [policy]\nfilesystem.read = [\".\"]\ntools.allow = [\"*\"]\n"
    ));
    folder.write("server.py", SERVER);
    let served = Served::start(&folder);
    (folder, served)
}

fn process(era: &str) -> String {
    format!("command = \"python3\"\nargs = [\"server.py\", \"{era}\"]")
}

async fn soon<T>(what: &str, came: impl Future<Output = T>) -> T {
    tokio::time::timeout(AT_ONCE, came).await.unwrap_or_else(|_| panic!("{what} within {AT_ONCE:?}"))
}

/// A request whose client leaves as soon as this came.
async fn left<T: std::fmt::Debug, W>(request: impl Future<Output = T>, when: impl Future<Output = W>) -> W {
    tokio::select! {
        answer = request => panic!("it was answered: {answer:?}"),
        came = when => came,
    }
}

/// A call by a client with these capabilities.
async fn call(served: &Served, can: &Value, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = can.clone();
    served.modern("/mcp", "tools/call", params, &[]).await.json()
}

fn until(method: &str, count: usize) -> Value {
    json!({ "name": "s__until", "arguments": { "method": method, "count": count } })
}

fn listed(answer: &Value) -> Vec<Value> {
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    serde_json::from_str(text).unwrap()
}

/// What the process was told by this method, once it was so many times.
async fn heard(served: &Served, can: &Value, method: &str, count: usize) -> Vec<Value> {
    listed(&soon(method, call(served, can, until(method, count))).await)
}

fn flood(count: usize, size: usize, answers: bool) -> Value {
    let arguments = json!({ "count": count, "size": size, "answers": answers });
    json!({ "name": "s__flood", "arguments": arguments, "_meta": { "progressToken": "mine" } })
}

/// Progress that waited for a client that had left was kept for as long as its call: all of it.
#[tokio::test]
async fn progress_of_an_abandoned_call_is_not_kept() {
    let (_folder, served) = serve(&process("legacy"));
    let nothing = json!({});
    // Warm.
    let answer = served.modern("/mcp", "tools/call", flood(50, 1_000, true), &[]).await;
    assert_eq!(text(&answer), "dry");
    assert!(answer.body.contains("\"progressToken\":\"mine\""), "{answer:?}");
    let before = memory(served.pid());
    for n in 1..=3 {
        // Forty megabytes, which a debug build reads in seconds.
        let unread = served.begin("/mcp", "tools/call", flood(400, 100_000, false), &[]).await;
        heard(&served, &nothing, "flooded", n + 1).await;
        drop(unread);
        let flooded = heard(&served, &nothing, "tools/call", 1).await;
        let flooded = flooded.iter().rfind(|m| m["params"]["name"] == "flood").unwrap();
        let taken_back = heard(&served, &nothing, "notifications/cancelled", n).await;
        assert_eq!(taken_back.last().unwrap()["params"]["requestId"], flooded["id"], "{taken_back:?}");
    }
    let after = memory(served.pid());
    assert!(after < before + 30 * 1024, "memory: {before} KiB before, {after} after");
    // Whoever reads gets the answer still.
    assert_eq!(text(&served.modern("/mcp", "tools/call", flood(50, 1_000, true), &[]).await), "dry");
}

const ROOTS: &str = "notifications/roots/list_changed";

async fn roots_changed(served: &Served, session: &str) {
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
    let message = json!({ "jsonrpc": "2.0", "method": ROOTS });
    assert_eq!(served.post("/mcp", &headers, message.to_string()).await.status, 202);
}

fn with_roots() -> Value {
    json!({ "roots": { "listChanged": true } })
}

/// Each change of roots was a connection of its own to the server, until none were left for anybody.
#[tokio::test]
async fn a_storm_of_roots_is_told_once_at_a_time() {
    let server = |hangs: bool| {
        Upstream::start(move |seen| match seen.method.as_str() {
            ROOTS if hangs => Act::Hang,
            "tools/call" => Act::Result(told("done")),
            _ => legacy(seen, json!({ "tools": {} }), &["act"]).unwrap_or(Act::Hang),
        })
    };
    let (hung, good) = (server(true), server(false));
    let other = format!("[servers.good]\nurl = {:?}", good.url());
    let (_folder, served) = serve(&format!("url = {:?}\ndefault_access = \"read-only\"\n{other}", hung.url()));
    let session = served.initialize_as("/mcp", with_roots(), &[]).await;
    let act = async |tool: &str| {
        let params = json!({ "name": tool, "arguments": {} });
        text(&soon(tool, served.legacy("/mcp", &session, "tools/call", params, &[])).await)
    };
    assert_eq!((act("s__act").await.as_str(), act("good__act").await.as_str()), ("done", "done"));
    let before = descriptors(served.pid());
    for _ in 1..2_000 {
        roots_changed(&served, &session).await;
    }
    let last = Instant::now();
    roots_changed(&served, &session).await;
    let after = descriptors(served.pid());
    assert!(after < before + 20, "descriptors: {before} before, {after} after");
    let health = Served::client().get(format!("{}/healthz", served.base)).send();
    assert_eq!(soon("health", health).await.unwrap().text().await.unwrap(), "ok\n");
    assert_eq!(act("s__act").await, "done");
    // One that takes them hears of the last.
    let mut came = good.until(ROOTS, 1).await;
    while came.last().unwrap().at < last {
        came = good.until(ROOTS, came.len() + 1).await;
    }
    assert!(!hung.came(ROOTS).is_empty());
}

/// A client that came back with an answer and left then left its call running at the server.
#[tokio::test]
async fn a_call_abandoned_after_its_question_is_taken_back() {
    let asked = Mutex::new(HashMap::new());
    let upstream = Upstream::start(move |seen| match seen.method.as_str() {
        "tools/call" => {
            let (say, said) = mpsc::unbounded_channel();
            let question = format!("q{}", seen.before);
            let form = json!({ "message": "who?", "requestedSchema": { "type": "object", "properties": {} } });
            say.send(json!({ "jsonrpc": "2.0", "id": question, "method": "elicitation/create", "params": form }))
                .unwrap();
            asked.lock().unwrap().insert(question, (say, seen.body.clone()));
            Act::Stream(said)
        }
        // An answer to a question.
        "POST" => {
            let asked = asked.lock().unwrap();
            let (say, call) = &asked[seen.body["id"].as_str().unwrap()];
            if call["params"]["arguments"]["answers"] == true {
                say.send(json!({ "jsonrpc": "2.0", "id": call["id"], "result": told("done") })).unwrap();
            }
            Act::Taken
        }
        _ => legacy(seen, json!({ "tools": {} }), &["ask"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&format!("url = {:?}", upstream.url()));
    let form = json!({ "elicitation": { "form": {} } });
    let retry = async |answers: bool| {
        let mut params = json!({ "name": "s__ask", "arguments": { "answers": answers } });
        let first = call(&served, &form, params.clone()).await;
        let questions = first["result"]["inputRequests"].as_object().unwrap_or_else(|| panic!("no question: {first}"));
        let accept = json!({ "action": "accept", "content": {} });
        params["inputResponses"] = questions.keys().map(|key| (key.clone(), accept.clone())).collect();
        params["requestState"] = first["result"]["requestState"].clone();
        params
    };
    let leaves = retry(false).await;
    left(call(&served, &form, leaves), upstream.until("POST", 1)).await;
    let taken_back = soon("a cancellation", upstream.until("notifications/cancelled", 1)).await;
    assert_eq!(taken_back[0].body["params"]["requestId"], upstream.came("tools/call")[0].body["id"]);
    let stays = retry(true).await;
    let done = call(&served, &form, stays).await;
    assert_eq!(done["result"]["content"][0]["text"], "done", "{done}");
    assert_eq!(upstream.came("notifications/cancelled").len(), 1);
}

/// Only calls of tools were taken back from a server when their clients left, not what else was asked.
#[tokio::test]
async fn an_abandoned_question_about_a_task_is_taken_back() {
    let (_folder, served) = serve(&process("modern"));
    let can = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let begin = async |task: &str| {
        let begun = call(&served, &can, json!({ "name": "s__long", "arguments": { "task": task } })).await;
        begun["result"]["taskId"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned()
    };
    let get = async |task: String| {
        let params = json!({ "taskId": task, "_meta": { "io.modelcontextprotocol/clientCapabilities": can } });
        served.modern("/mcp", "tasks/get", params, &[("mcp-name", &task)]).await.json()
    };
    let (told, untold) = (begin("told").await, begin("untold").await);
    let asked = left(get(untold), heard(&served, &can, "tasks/get", 1)).await;
    let taken_back = heard(&served, &can, "notifications/cancelled", 1).await;
    assert_eq!(taken_back[0]["params"]["requestId"], asked[0]["id"], "{taken_back:?}");
    let stays = get(told).await;
    assert_eq!(stays["result"]["status"], "working", "{stays}");
    assert_eq!(heard(&served, &can, "notifications/cancelled", 1).await.len(), 1);
}

/// A question on a standing stream waited as long as a person may take for a client that had left.
#[tokio::test]
async fn roots_asked_of_a_client_that_leaves_are_refused_at_once() {
    let (_folder, served) = serve(&process("legacy"));
    let hears = async |session: &str, count: usize| {
        let call = served.legacy("/mcp", session, "tools/call", until("an answer", count), &[]);
        listed(&soon("an answer", call).await.json())
    };
    let asked = async |stream: &mut Listening, session: &str| -> Value {
        stream.heard.clear();
        roots_changed(&served, session).await;
        soon("a question", stream.until("\"roots/list\"")).await;
        let question = stream.heard.lines().filter_map(|l| l.strip_prefix("data: ")).find(|l| l.contains("roots/list"));
        serde_json::from_str::<Value>(question.unwrap()).unwrap()["id"].clone()
    };
    let session = served.initialize_as("/mcp", with_roots(), &[]).await;
    let mut stream = served.stand("/mcp", &session, &[]).await;
    served.legacy("/mcp", &session, "tools/call", until("tools/call", 1), &[]).await;
    // One that stays is waited for.
    let question = asked(&mut stream, &session).await;
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let roots = json!({ "roots": [{ "uri": "file:///mine" }] });
    let answer = json!({ "jsonrpc": "2.0", "id": question, "result": roots });
    assert_eq!(served.post("/mcp", &headers, answer.to_string()).await.status, 202);
    assert_eq!(hears(&session, 1).await[0]["result"], roots);
    // One that leaves is not.
    asked(&mut stream, &session).await;
    let delete = Served::client().delete(format!("{}/mcp", served.base)).header("mcp-session-id", &session);
    assert!(delete.send().await.unwrap().status().is_success());
    let next = served.initialize_as("/mcp", with_roots(), &[]).await;
    let answers = hears(&next, 2).await;
    assert!(answers[1]["error"]["code"].is_i64(), "{answers:?}");
}

/// The clock of a call stood as long as its client did not read what came before the answer.
#[tokio::test]
async fn a_client_that_does_not_read_does_not_stop_the_clock() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "tools/call" => {
            let token = seen.body["params"]["_meta"]["progressToken"].clone();
            let (size, message) = (400, "x".repeat(100_000));
            let progress = move |n| {
                let params = json!({ "progressToken": token, "progress": n, "message": message });
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
            };
            saying((0..size).map(progress), true)
        }
        _ => legacy(seen, json!({ "tools": {} }), &["flood"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&format!("url = {:?}\ntimeout = 4000", upstream.url()));
    let flood = || json!({ "name": "s__flood", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let unread = served.begin("/mcp", "tools/call", flood(), &[]).await;
    let read = served.modern("/mcp", "tools/call", flood(), &[]).await;
    assert!(text(&read).contains("no answer to tools/call within 4 s"), "{}", text(&read));
    let taken_back = soon("both cancellations", upstream.until("notifications/cancelled", 2)).await;
    let began: HashMap<String, Instant> =
        upstream.came("tools/call").iter().map(|s| (s.body["id"].to_string(), s.at)).collect();
    for cancelled in taken_back {
        let took = cancelled.at - began[&cancelled.body["params"]["requestId"].to_string()];
        assert!(took < AT_ONCE, "after {took:?}");
    }
    drop(unread);
}
