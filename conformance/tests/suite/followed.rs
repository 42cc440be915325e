//! Tasks on a stream of `subscriptions/listen`: a server's and Pleach's own, told of under the
//! id their client has, and to nobody else.

use conformance::pleach::Folder;
use conformance::served::{Served, modern_body};
use serde_json::{Value, json};
use std::time::Duration;

/// A modern server whose every call is a task; whoever listens for it is told of it twice.
const SERVER: &str = r#"
import json, sys, threading, time
def send(**m): sys.stdout.write(json.dumps({"jsonrpc": "2.0", **m}) + "\n"); sys.stdout.flush()
tasks = {}
EXTENSION = "io.modelcontextprotocol/tasks"
def task(id): return {"taskId": id, "createdAt": "2026-11-01T00:00:00Z", "lastUpdatedAt": "2026-11-01T00:00:00Z", "ttlMs": None, **tasks[id]}
def tell(to, ids):
    def say(id): send(method="notifications/tasks", params={**task(id), "_meta": {"io.modelcontextprotocol/subscriptionId": to}})
    for id in ids:
        time.sleep(0.3)
        tasks[id] = {"status": "working", "statusMessage": "half"}
        say(id)
        time.sleep(0.3)
        tasks[id] = {"status": "completed", "result": {"content": [{"type": "text", "text": "done " + id}]}}
        say(id)
        # One that nobody here asked for.
        send(method="notifications/tasks", params={**task(id), "taskId": "a stranger's"})
for line in sys.stdin:
    m = json.loads(line)
    method, id, params = m.get("method"), m.get("id"), m.get("params", {})
    if id is None: continue
    if method == "server/discover":
        can = {"tools": {}, "extensions": {EXTENSION: {}}}
        send(id=id, result={"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": can, "ttlMs": 0, "cacheScope": "public"})
    elif method == "tools/list":
        send(id=id, result={"resultType": "complete", "tools": [{"name": "long", "inputSchema": {"type": "object"}}], "ttlMs": 60000, "cacheScope": "public"})
    elif method == "tools/call":
        name = "t-%d" % (len(tasks) + 1)
        tasks[name] = {"status": "working"}
        send(id=id, result={"resultType": "task", **task(name)})
    elif method == "tasks/get":
        send(id=id, result={"resultType": "complete", **task(params["taskId"])})
    elif method == "subscriptions/listen":
        wanted = params["notifications"].get("taskIds", [])
        can = params["_meta"]["io.modelcontextprotocol/clientCapabilities"].get("extensions", {})
        if wanted and EXTENSION not in can:
            send(id=id, error={"code": -32021, "message": "taskIds needs the tasks extension"}); continue
        known = [t for t in wanted if t in tasks]
        own = {"io.modelcontextprotocol/subscriptionId": id}
        send(method="notifications/subscriptions/acknowledged", params={"notifications": {"taskIds": known}, "_meta": own})
        threading.Thread(target=tell, args=(id, known), daemon=True).start()
    else:
        send(id=id, error={"code": -32601, "message": "no"})
"#;

const POLICY: &str = r#"
version = 1
[servers.s]
command = "python3"
args = ["server.py"]
default_access = "read-only"
[policy]
filesystem.read = ["."]
tools.allow = ["*"]
[models.default]
provider = "scripted"
script = "replies.toml"
[agents.slow]
description = "Takes its time."
prompt = "p"
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["slow"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
may_start = ["slow"]
"#;
const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");

fn served() -> (Folder, Served) {
    let folder = Folder::new(POLICY);
    folder.write("server.py", SERVER);
    folder.write("replies.toml", "[[reply]]\nagent = \"slow\"\ntext = \"slow: {{prompt}}\"\ndelay = \"4s\"\n");
    let served = Served::start(&folder);
    (folder, served)
}

/// What a client that follows tasks says of itself.
fn can() -> Value {
    let extensions = json!({ "io.modelcontextprotocol/tasks": {} });
    json!({ "io.modelcontextprotocol/clientCapabilities": { "extensions": extensions } })
}

/// Calls a tool that becomes a task; gives its id.
async fn begin(served: &Served, tool: &str, arguments: Value) -> String {
    let params = json!({ "name": tool, "arguments": arguments, "_meta": can() });
    let created = served.modern("/mcp", "tools/call", params, &[ALICE]).await.json();
    assert_eq!(created["result"]["resultType"], "task", "{created}");
    created["result"]["taskId"].as_str().unwrap().to_owned()
}

/// A stream of `subscriptions/listen`, message by message.
struct Listening {
    response: reqwest::Response,
    text: String,
}

impl Listening {
    async fn start(served: &Served, who: (&str, &str), ids: Value) -> Self {
        let params = json!({ "notifications": { "taskIds": ids }, "_meta": can() });
        let body = modern_body("subscriptions/listen", params).to_string();
        let request = Served::client().post(format!("{}/mcp", served.base)).body(body).header(who.0, who.1);
        let request =
            request.header("content-type", "application/json").header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
        Self { response: request.send().await.unwrap(), text: String::new() }
    }
    /// The next message; `None` when nothing more is said for a while.
    async fn next(&mut self, patience: Duration) -> Option<Value> {
        let hear = async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let data = event.lines().find_map(|l| l.strip_prefix("data: ")).map(str::to_owned);
                    self.text = rest.to_owned();
                    match data {
                        Some(data) => return serde_json::from_str(&data).unwrap(),
                        None => continue,
                    }
                }
                let chunk = self.response.chunk().await.unwrap().expect("the stream ended");
                self.text.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        tokio::time::timeout(patience, hear).await.ok()
    }
    async fn acknowledged(&mut self) -> Value {
        let first = self.next(Duration::from_secs(15)).await.expect("an acknowledgement");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
        first["params"]["notifications"]["taskIds"].clone()
    }
    async fn told(&mut self) -> Value {
        let told = self.next(Duration::from_secs(15)).await.expect("a task");
        assert_eq!(told["method"], "notifications/tasks", "{told}");
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1, "{told}");
        told["params"].clone()
    }
}

#[tokio::test]
async fn a_servers_task_is_told_of_to_whom_it_belongs() {
    let (_folder, served) = served();
    let id = begin(&served, "s__long", json!({})).await;
    assert_ne!(id, "t-1", "its own id is not shown");
    // A stranger's, the server's own and a made-up one are not followed.
    let mut bobs = Listening::start(&served, BOB, json!([id])).await;
    assert_eq!(bobs.acknowledged().await, json!([]));
    let mut stream = Listening::start(&served, ALICE, json!([id, "t-1", "nonsense"])).await;
    assert_eq!(stream.acknowledged().await, json!([id]));
    let half = stream.told().await;
    assert_eq!((&half["taskId"], &half["status"]), (&json!(id), &json!("working")), "{half}");
    let done = stream.told().await;
    assert_eq!((&done["taskId"], &done["status"]), (&json!(id), &json!("completed")), "{done}");
    assert_eq!(done["result"]["content"][0]["text"], "done t-1");
    let quiet = Duration::from_millis(500);
    assert_eq!((stream.next(quiet).await, bobs.next(quiet).await), (None, None));
}

#[tokio::test]
async fn a_run_is_told_of_when_it_ends() {
    let (_folder, served) = served();
    let agent = json!({ "subagent_type": "slow", "prompt": "what?" });
    let id = begin(&served, "pleach__Agent", agent).await;
    let mut bobs = Listening::start(&served, BOB, json!([id])).await;
    assert_eq!(bobs.acknowledged().await, json!([]));
    let mut stream = Listening::start(&served, ALICE, json!([id])).await;
    assert_eq!(stream.acknowledged().await, json!([id]));
    let done = stream.told().await;
    assert_eq!((&done["taskId"], &done["status"]), (&json!(id), &json!("completed")), "{done}");
    assert_eq!(done["result"]["content"][0]["text"], "slow: what?");
    // One that ended before is told of at once.
    let mut late = Listening::start(&served, ALICE, json!([id])).await;
    assert_eq!(late.acknowledged().await, json!([id]));
    assert_eq!(late.told().await["status"], "completed");
    assert_eq!(bobs.next(Duration::from_millis(300)).await, None);
}
