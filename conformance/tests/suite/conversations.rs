//! What passes between a legacy server and a legacy client beyond calls: roots, that they
//! changed, and questions that are taken back.

use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A legacy server that keeps what it is told. `eager` asks for roots as soon as it may.
const SERVER: &str = r#"
import json, sys, threading, time
def send(**m): sys.stdout.write(json.dumps({"jsonrpc": "2.0", **m}) + "\n"); sys.stdout.flush()
def form(id, message):
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    send(id=id, method="elicitation/create", params={"message": message, "requestedSchema": schema})
def later(method):
    time.sleep(1)
    if method == "roots/list": send(id="later", method=method)
    else: form("later", "too late")
kept = {"can": None, "answers": [], "changes": 0}
waits = None
for line in sys.stdin:
    m = json.loads(line)
    method, id = m.get("method"), m.get("id")
    if method is None:
        if id == "second":
            text = json.dumps(m["result"]["content"])
            send(id=waits, result={"content": [{"type": "text", "text": text}]})
        else:
            kept["answers"].append(m.get("result") or m.get("error"))
    elif method == "initialize":
        kept["can"] = m["params"]["capabilities"]
        about = {"name": "s", "version": "1"}
        send(id=id, result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "notifications/initialized":
        if sys.argv[1] == "eager": send(id="eager", method="roots/list")
    elif method == "notifications/roots/list_changed":
        kept["changes"] += 1
        send(id="again", method="roots/list")
    elif method == "tools/list":
        names = ["kept", "later", "changes_its_mind"]
        send(id=id, result={"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in names]})
    elif method == "tools/call" and m["params"]["name"] == "changes_its_mind":
        waits = id
        form("first", "first?")
        time.sleep(0.4)
        send(method="notifications/cancelled", params={"requestId": "first", "reason": "never mind"})
        form("second", "second?")
    elif method == "tools/call":
        if m["params"]["name"] == "later":
            threading.Thread(target=later, args=(m["params"]["arguments"]["method"],)).start()
        send(id=id, result={"content": [{"type": "text", "text": json.dumps(kept)}]})
    elif id is not None:
        send(id=id, error={"code": -32601, "message": "no"})
"#;

fn folder(how: &str, clients: &str) -> Folder {
    let folder = Folder::new(&format!(
        "version = 1\n[servers.s]\ncommand = \"python3\"\nargs = [\"server.py\", \"{how}\"]\ndefault_access = \"read-only\"\n\
         [policy]\nfilesystem.read = [\".\"]\ntools.allow = [\"*\"]\n{clients}"
    ));
    folder.write("server.py", SERVER);
    folder
}

const PATIENCE: Duration = Duration::from_secs(15);

/// A legacy client that started Pleach itself.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    heard: Receiver<Value>,
    next: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    pub(crate) fn start(folder: &Folder, capabilities: Value) -> Self {
        let mut command = folder.command(&["serve", "--stdio"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (send, heard) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap());
            }
        });
        let input = child.stdin.take().unwrap();
        let mut client = Self { child, input, heard, next: 0 };
        let info = json!({ "name": "t", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info });
        let id = client.request("initialize", params);
        client.until(|m| m["id"] == id);
        client.send(json!({ "method": "notifications/initialized" }));
        client
    }
    pub(crate) fn send(&mut self, mut message: Value) {
        message["jsonrpc"] = "2.0".into();
        writeln!(self.input, "{message}").unwrap();
    }
    pub(crate) fn request(&mut self, method: &str, params: Value) -> String {
        self.next += 1;
        let id = format!("c{}", self.next);
        self.send(json!({ "id": id, "method": method, "params": params }));
        id
    }
    fn call(&mut self, tool: &str) -> String {
        self.request("tools/call", json!({ "name": tool, "arguments": {} }))
    }
    /// The next message that is meant; others, such as changed lists, are passed over.
    pub(crate) fn until(&self, meant: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.heard.recv_timeout(PATIENCE).expect("nothing more is heard");
            if meant(&message) {
                return message;
            }
        }
    }
    fn answer_roots(&mut self, uri: &str) {
        let asked = self.until(|m| m["method"] == "roots/list");
        self.send(json!({ "id": asked["id"], "result": { "roots": [{ "uri": uri }] } }));
    }
    /// What the server keeps, once it has so many answers.
    fn kept(&mut self, answers: usize) -> Value {
        for _ in 0..50 {
            let id = self.call("s__kept");
            let kept = kept(&self.until(|m| m["id"] == id));
            if kept["answers"].as_array().unwrap().len() >= answers {
                return kept;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server has no {answers} answers");
    }
}

fn kept(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    serde_json::from_str(text).unwrap()
}

fn roots(uri: &str) -> Value {
    json!({ "roots": [{ "uri": uri }] })
}

#[test]
fn roots_are_asked_of_the_client_and_it_may_change_them() {
    let folder = folder("eager", "");
    let mut client = Client::start(&folder, json!({ "roots": { "listChanged": true } }));
    client.call("s__kept");
    // The server asks as soon as it may, about no call.
    client.answer_roots("file:///one");
    let before = client.kept(1);
    assert_eq!(before["can"], json!({ "roots": { "listChanged": true } }));
    assert_eq!(before["answers"], json!([roots("file:///one")]));
    // With no call in flight.
    client.send(json!({ "method": "notifications/roots/list_changed" }));
    client.answer_roots("file:///two");
    let after = client.kept(2);
    assert_eq!(after["answers"], json!([roots("file:///one"), roots("file:///two")]));
    assert_eq!(after["changes"], 1);
}

#[test]
fn a_client_without_roots_is_asked_nothing() {
    let folder = folder("eager", "");
    let mut client = Client::start(&folder, json!({}));
    let kept = client.kept(1);
    assert_eq!(kept["can"], json!({}));
    assert_eq!(kept["answers"][0]["code"], -32601, "{kept}");
    // Nor is its server told of what it never said.
    client.send(json!({ "method": "notifications/roots/list_changed" }));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.kept(1)["changes"], 0);
}

#[test]
fn a_question_that_is_taken_back_is_taken_back_from_the_client() {
    let folder = folder("lazy", "");
    let mut client = Client::start(&folder, json!({ "elicitation": {} }));
    let call = client.call("s__changes_its_mind");
    let first = client.until(|m| m["method"] == "elicitation/create");
    assert_eq!(first["params"]["message"], "first?");
    // The two are of different questions, and come in either order.
    let one = client.until(|m| m["method"] == "notifications/cancelled" || m["method"] == "elicitation/create");
    let other = client.until(|m| {
        m["method"] != one["method"]
            && (m["method"] == "notifications/cancelled" || m["method"] == "elicitation/create")
    });
    let asked = one["method"] == "elicitation/create";
    let (taken_back, second) = if asked { (other, one) } else { (one, other) };
    assert_eq!(taken_back["params"]["requestId"], first["id"], "under the id the client knows");
    assert_eq!(second["params"]["message"], "second?");
    // Too late for the first; nobody minds.
    client.send(json!({ "id": first["id"], "result": { "action": "accept", "content": { "name": "one" } } }));
    client.send(json!({ "id": second["id"], "result": { "action": "accept", "content": { "name": "two" } } }));
    let done = client.until(|m| m["id"] == call);
    assert_eq!(done["result"]["content"][0]["text"], "{\"name\": \"two\"}", "{done}");
}

const CLIENTS: &str =
    "[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n[clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n";
const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");

#[tokio::test]
async fn a_question_that_is_taken_back_is_no_longer_asked_of_a_modern_client() {
    let folder = folder("lazy", CLIENTS);
    let served = Served::start(&folder);
    let can = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
    let ask = async |more: Value| {
        let mut params = json!({ "name": "s__changes_its_mind", "arguments": {}, "_meta": can });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        served.modern("/mcp", "tools/call", params, &[ALICE]).await.json()["result"].clone()
    };
    let messages = |result: &Value| -> Vec<(String, String)> {
        let asked = result["inputRequests"].as_object().unwrap_or_else(|| panic!("{result}"));
        asked.iter().map(|(k, q)| (k.clone(), q["params"]["message"].as_str().unwrap().to_owned())).collect()
    };
    let first = ask(json!({})).await;
    assert_eq!(messages(&first)[0].1, "first?", "{first}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = ask(json!({ "requestState": first["requestState"] })).await;
    let asked = messages(&second);
    assert_eq!(asked.len(), 1, "{second}");
    assert_eq!(asked[0].1, "second?");
    let answers = json!({ &asked[0].0: { "action": "accept", "content": { "name": "two" } } });
    let done = ask(json!({ "requestState": second["requestState"], "inputResponses": answers })).await;
    assert_eq!(done["content"][0]["text"], "{\"name\": \"two\"}", "{done}");
}

/// A legacy session over HTTP of a client that has roots and can be asked by form.
async fn session(served: &Served, who: (&str, &str)) -> String {
    let can = json!({ "roots": { "listChanged": true }, "elicitation": {} });
    let info = json!({ "name": "t", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": info });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
    let answer = served.post("/mcp", &[who], body).await;
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn keeps(served: &Served, session: &str, who: (&str, &str)) -> Value {
    let params = json!({ "name": "s__kept", "arguments": {} });
    kept(&served.legacy("/mcp", session, "tools/call", params, &[who]).await.json())
}

async fn tell(served: &Served, session: &str, who: (&str, &str), mut message: Value) {
    message["jsonrpc"] = "2.0".into();
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25"), who];
    assert_eq!(served.post("/mcp", &headers, message.to_string()).await.status, 202);
}

#[tokio::test]
async fn nobodys_roots_are_asked_of_a_stranger() {
    let folder = folder("lazy", CLIENTS);
    let served = Served::start(&folder);
    let (alice, bob) = (session(&served, ALICE).await, session(&served, BOB).await);
    keeps(&served, &alice, ALICE).await;
    keeps(&served, &bob, BOB).await;
    let get = Served::client().get(format!("{}/mcp", served.base)).header("accept", "text/event-stream");
    let get = get.header("mcp-session-id", &bob).header(BOB.0, BOB.1).send();
    let mut stream = get.await.unwrap();

    // Alice listens to nothing, so her server cannot be answered; bob, who does, is not asked.
    tell(&served, &alice, ALICE, json!({ "method": "notifications/roots/list_changed" })).await;
    // A question that is about no call is refused, whoever listens.
    let later = json!({ "name": "s__later", "arguments": { "method": "elicitation/create" } });
    assert_eq!(served.legacy("/mcp", &bob, "tools/call", later, &[BOB]).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let hers = keeps(&served, &alice, ALICE).await;
    assert_eq!((&hers["changes"], &hers["answers"][0]["code"]), (&json!(1), &json!(-32603)), "{hers}");
    let his = keeps(&served, &bob, BOB).await;
    assert_eq!((&his["changes"], &his["answers"][0]["code"]), (&json!(0), &json!(-32601)), "{his}");

    tell(&served, &bob, BOB, json!({ "method": "notifications/roots/list_changed" })).await;
    let mut heard = String::new();
    let asked = |heard: &str| -> Vec<Value> {
        let whole = heard.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let all = whole.lines().filter_map(|l| serde_json::from_str(l.strip_prefix("data: ")?).ok());
        all.filter(|m: &Value| m["method"] == "roots/list").collect()
    };
    let hear = async {
        while asked(&heard).is_empty() {
            heard.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(PATIENCE, hear).await.unwrap();
    let asked = asked(&heard);
    assert_eq!(asked.len(), 1, "only his own server's question: {heard}");
    tell(&served, &bob, BOB, json!({ "id": asked[0]["id"], "result": roots("file:///bob") })).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(keeps(&served, &bob, BOB).await["answers"][1], roots("file:///bob"));
}

#[tokio::test]
async fn where_nobody_is_left_there_are_no_roots() {
    let folder = folder("lazy", CLIENTS);
    let served = Served::start(&folder);
    let first = session(&served, ALICE).await;
    let later = json!({ "name": "s__later", "arguments": { "method": "roots/list" } });
    assert_eq!(served.legacy("/mcp", &first, "tools/call", later, &[ALICE]).await.status, 200);
    let delete = Served::client().delete(format!("{}/mcp", served.base)).header("mcp-session-id", &first);
    assert!(delete.header(ALICE.0, ALICE.1).send().await.unwrap().status().is_success());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let second = session(&served, ALICE).await;
    assert_eq!(keeps(&served, &second, ALICE).await["answers"], json!([{ "roots": [] }]));
}
