//! Questions of a server that does not say whose call they are about: they reach the right call
//! or nobody, the clock stands for them, and a call that waits for its turn harms no other.

use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};
use std::time::Duration;

/// One process, one thread, standard streams. `ask` asks and then works for a while; `pair` asks
/// after it has waited for another call; `page` asks for a visit; `chatty` reports progress around
/// its question; `left` asks when it was cancelled, and says the answer to every `wait`.
const SERVER: &str = r#"
import json, os, select, time
buffer, asked, lefts, waits, number = b"", {}, set(), [], 0
def send(**m): os.write(1, (json.dumps({"jsonrpc": "2.0", **m}) + "\n").encode())
def say(id, text): send(id=id, result={"content": [{"type": "text", "text": text}]})
def line(limit=None):
    global buffer
    while b"\n" not in buffer:
        if not select.select([0], [], [], limit)[0]: return None
        more = os.read(0, 65536)
        if not more: os._exit(0)
        buffer += more
    text, _, buffer = buffer.partition(b"\n")
    return json.loads(text)
def ask(then, **params):
    global number
    number += 1
    asked["q%d" % number] = then
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    params = params or {"message": "who?", "requestedSchema": schema}
    send(id="q%d" % number, method="elicitation/create", params=params)
def outcome(m): return m["result"]["action"] if "result" in m else "error %d" % m["error"]["code"]
def progress(token, n):
    if token is not None: send(method="notifications/progress", params={"progressToken": token, "progress": n})
def call(id, name, arguments, token):
    if name == "ask":
        def worked(answer): time.sleep(arguments.get("work", 0) / 1000); say(id, outcome(answer))
        ask(worked)
    elif name == "pair":
        other = line(0.5)
        if other is not None: later.append(other)
        ask(lambda answer: say(id, outcome(answer)))
    elif name == "page":
        ask(lambda answer: say(id, outcome(answer)), mode="url", message="go", url="https://example.com/", elicitationId="e")
    elif name == "chatty":
        progress(token, 1)
        def end(answer): progress(token, 2); say(id, outcome(answer))
        ask(end)
    elif name == "flood":
        for n in range(1, 1201):
            progress(token, n)
            if n % 100 == 0: time.sleep(0.03)
        say(id, "dry")
    elif name == "left": lefts.add(id)
    elif name == "wait": waits.append(id)
    elif name == "held": say(id, str(len(lefts) + len(waits)))
    elif name == "die": os._exit(3)
def heard(answer):
    while waits: say(waits.pop(), outcome(answer))
def handle(m):
    id, method, params = m.get("id"), m.get("method"), m.get("params", {})
    if method is None: asked.pop(id)(m)
    elif method == "initialize":
        send(id=id, result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "q", "version": "1"}})
    elif method == "tools/list":
        names = ["ask", "pair", "page", "chatty", "flood", "left", "wait", "held", "die"]
        send(id=id, result={"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in names]})
    elif method == "tools/call":
        call(id, params["name"], params.get("arguments", {}), params.get("_meta", {}).get("progressToken"))
    elif method == "notifications/cancelled":
        if params["requestId"] in lefts: ask(heard)
    elif id is not None: send(id=id, error={"code": -32601, "message": "no"})
later = []
while True: handle(later.pop(0) if later else line())
"#;

fn serve(more: &str) -> (Folder, Served) {
    let folder = Folder::new(&format!(
        "version = 1\n[servers.q]\ncommand = \"python3\"\nargs = [\"server.py\"]\ndefault_access = \"read-only\"\n{more}\n\
         [policy]\nfilesystem.read = [\".\"]\ntools.allow = [\"*\"]\n"
    ));
    folder.write("server.py", SERVER);
    let served = Served::start(&folder);
    (folder, served)
}

fn form() -> Value {
    json!({ "elicitation": { "form": {} } })
}

/// A modern call by a client with these capabilities.
async fn call(served: &Served, can: &Value, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = can.clone();
    served.modern("/mcp", "tools/call", params, &[]).await.json()
}

fn ask(work: u64) -> Value {
    json!({ "name": "q__ask", "arguments": { "work": work } })
}

/// The same request with an answer to every question of its first answer.
fn again(mut params: Value, first: &Value) -> Value {
    let asked = first["result"]["inputRequests"].as_object().unwrap_or_else(|| panic!("no question: {first}"));
    let accept = json!({ "action": "accept", "content": { "name": "ada" } });
    params["inputResponses"] = asked.keys().map(|key| (key.clone(), accept.clone())).collect();
    params["requestState"] = first["result"]["requestState"].clone();
    params
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// The time a person took to answer was taken from the server, which then had none left.
#[tokio::test]
async fn the_clock_stands_while_a_person_is_asked() {
    let (_folder, served) = serve("timeout = 2000");
    let first = call(&served, &form(), ask(1200)).await;
    // A person who takes their time: with the work it is more than the limit, neither alone is.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let done = call(&served, &form(), again(ask(1200), &first)).await;
    assert_eq!(said(&done), "accept");
    // The server's own time counts.
    let first = call(&served, &form(), ask(4000)).await;
    let late = call(&served, &form(), again(ask(4000), &first)).await;
    assert!(said(&late).contains("no answer to tools/call within 2 s"), "{late}");
}

/// A call that found no turn within its limit had the server killed under the call whose turn it was.
#[tokio::test]
async fn a_call_that_waits_for_its_turn_suspects_nobody() {
    let (_folder, served) = serve("timeout = 2000");
    // As many processes as there may be, each with a call that waits for a person.
    let mut asked = Vec::new();
    for work in 0..8 {
        let first = call(&served, &form(), ask(work)).await;
        assert_eq!(first["result"]["resultType"], "input_required", "{first}");
        asked.push((work, first));
    }
    let ninth = call(&served, &form(), ask(8)).await;
    assert!(said(&ninth).contains("no answer to tools/call within 2 s"), "{ninth}");
    for (work, first) in asked {
        let done = call(&served, &form(), again(ask(work), &first)).await;
        assert_eq!(said(&done), "accept", "{work}: {done}");
    }
}

/// A question about a call whose client had left was put to whichever call was left.
#[tokio::test]
async fn a_question_about_a_call_that_left_reaches_nobody() {
    let (_folder, served) = serve("");
    let served = std::sync::Arc::new(served);
    let session = served.initialize_as("/mcp", form(), &[]).await;
    let start = |id: u64, tool: &'static str| {
        let (served, session) = (served.clone(), session.clone());
        tokio::spawn(async move {
            let params = json!({ "name": tool, "arguments": {} });
            let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string();
            let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
            served.post("/mcp", &headers, body).await
        })
    };
    let (left, wait) = (start(7, "q__left"), start(8, "q__wait"));
    let held = async { while text(&start(9, "q__held").await.unwrap()) != "2" {} };
    tokio::time::timeout(Duration::from_secs(20), held).await.expect("both calls arrive");
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    assert_eq!(served.post("/mcp", &headers, cancel.to_string()).await.status, 202);
    let other = tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it was asked").unwrap();
    assert!(!other.body.contains("elicitation/create"), "{other:?}");
    assert!(text(&other).starts_with("error -"), "the server was told that nobody answers: {other:?}");
    assert!(!left.await.unwrap().body.contains("elicitation/create"));
    // Whoever comes next is asked for themselves.
    let first = call(&served, &form(), ask(0)).await;
    assert_eq!(said(&call(&served, &form(), again(ask(0), &first)).await), "accept");
}

/// A fresh process of a server that is known to ask was given two calls at once, and then neither
/// could be asked anything.
#[tokio::test]
async fn a_server_that_asks_is_known_to_after_it_died() {
    let (_folder, served) = serve("");
    let pair = |n: u64| json!({ "name": "q__pair", "arguments": { "n": n } });
    let dialog = async |n: u64| {
        let first = call(&served, &form(), pair(n)).await;
        call(&served, &form(), again(pair(n), &first)).await
    };
    assert_eq!(said(&dialog(0).await), "accept");
    let died = call(&served, &form(), json!({ "name": "q__die", "arguments": {} })).await;
    assert_eq!(died["result"]["isError"], true, "{died}");
    let (one, two) = tokio::join!(dialog(1), dialog(2));
    assert_eq!((said(&one), said(&two)), ("accept", "accept"));
}

/// A client that fills in forms was asked to visit a page.
#[tokio::test]
async fn a_client_is_asked_only_in_the_ways_it_takes() {
    let (_folder, served) = serve("");
    let page = || json!({ "name": "q__page", "arguments": {} });
    let refused = call(&served, &form(), page()).await;
    assert_eq!(said(&refused), "error -32602");
    let both = json!({ "elicitation": { "form": {}, "url": {} } });
    let first = call(&served, &both, page()).await;
    assert!(first.to_string().contains("https://example.com/"), "{first}");
    assert_eq!(said(&call(&served, &both, again(page(), &first)).await), "accept");
}

/// The stream of a request that was answered by a question stood until the whole call was over.
#[tokio::test]
async fn a_stream_ends_with_the_answer_to_its_request() {
    let (_folder, served) = serve("");
    let chatty = || json!({ "name": "q__chatty", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let whole = async |mut params: Value| {
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = form();
        let answer = served.modern("/mcp", "tools/call", params, &[]);
        tokio::time::timeout(Duration::from_secs(20), answer).await.expect("its stream does not end")
    };
    let first = whole(chatty()).await;
    assert_eq!(first.headers["content-type"], "text/event-stream");
    assert!(first.body.contains("\"progressToken\":\"mine\",\"progress\":1"), "{}", first.body);
    let second = whole(again(chatty(), &first.json())).await;
    assert!(second.body.contains("\"progressToken\":\"mine\",\"progress\":2"), "{}", second.body);
    assert_eq!(text(&second), "accept");
}

/// Of two answers to the same question, the second waited for ever.
#[tokio::test]
async fn a_question_is_answered_once() {
    let (_folder, served) = serve("");
    let first = call(&served, &form(), ask(500)).await;
    let retry = async || call(&served, &form(), again(ask(500), &first)).await;
    let both = async { tokio::join!(retry(), retry()) };
    let (one, two) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("one of them hangs");
    let (done, refused) = if one["error"].is_object() { (two, one) } else { (one, two) };
    assert_eq!(said(&done), "accept");
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
}

/// A client that kept up with a long stream lost all progress after the five hundredth.
#[tokio::test]
async fn whoever_reads_along_misses_no_progress() {
    let (_folder, served) = serve("");
    let session = served.initialize("/mcp", &[]).await;
    let params = json!({ "name": "q__flood", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let answer = served.legacy("/mcp", &session, "tools/call", params, &[]).await;
    assert_eq!(text(&answer), "dry");
    let told = answer.body.matches("\"progressToken\":\"mine\"").count();
    assert!(told > 1_000, "{told} of 1,200");
}
