//! The MCP door over the wire, byte by byte: both eras, and everything that is refused.

use conformance::pleach::Folder;
use conformance::served::{Served, modern_body, text};
use serde_json::{Value, json};

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "read-write"
filesystem = { read = ["docs"], read_write = ["out"], deny = ["docs/private"] }
tools = { allow = ["files__*"], deny = ["files__Edit"] }
[agents.reader]
description = "Reads."
prompt = "p"
[agents.reader.policy]
max_access = "read-only"
filesystem = { read = ["docs/papers"] }
"#;

fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("docs/a.md", "hello");
    folder.write("docs/papers/p.md", "paper");
    folder.write("docs/private/s.md", "secret");
    folder.write("replies.toml", "[[reply]]\ntext = \"the answer to {{prompt}}\"\n");
    folder
}

fn read(path: &str) -> Value {
    json!({ "name": "files__Read", "arguments": { "file_path": path } })
}
fn names(list: &Value) -> Vec<String> {
    list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn both_eras_list_and_call() {
    let folder = folder();
    let served = Served::start(&folder);
    let visible = [
        "files__Glob",
        "files__Grep",
        "files__Read",
        "files__Write",
        "pleach__Agent",
        "pleach__answer",
        "pleach__cancel",
        "pleach__explain",
        "pleach__run",
        "pleach__runs",
        "pleach__send",
    ];

    let discover = served.modern("/mcp", "server/discover", json!({}), &[]).await.json();
    assert!(discover["result"]["supportedVersions"].as_array().unwrap().contains(&"2026-07-28".into()));
    let list = served.modern("/mcp", "tools/list", json!({}), &[]).await.json();
    assert_eq!(names(&list), visible);
    assert_eq!((&list["result"]["resultType"], &list["result"]["cacheScope"]), (&json!("complete"), &json!("private")));
    assert!(list["result"]["ttlMs"].is_number());
    let call = served.modern("/mcp", "tools/call", read("docs/a.md"), &[]).await;
    assert_eq!(text(&call), "     1\thello\n");
    assert_eq!(call.json()["result"]["resultType"], "complete");

    let session = served.initialize("/mcp", &[]).await;
    let list = served.legacy("/mcp", &session, "tools/list", json!({}), &[]).await.json();
    assert_eq!(names(&list), visible);
    assert!(list["result"].get("resultType").is_none());
    let call = served.legacy("/mcp", &session, "tools/call", read("docs/a.md"), &[]).await;
    assert_eq!(text(&call), "     1\thello\n");
    assert!(call.json()["result"].get("resultType").is_none());
    assert_eq!(served.legacy("/mcp", &session, "ping", json!({}), &[]).await.json()["result"], json!({}));
}

#[tokio::test]
async fn denials_are_tool_results_and_hidden_looks_like_unknown() {
    let folder = folder();
    let served = Served::start(&folder);
    let call = async |params: Value| served.modern("/mcp", "tools/call", params, &[]).await;
    let denied = call(read("docs/private/s.md")).await;
    assert_eq!(denied.json()["result"]["isError"], true);
    assert!(text(&denied).starts_with("denied: filesystem.deny"), "{denied:?}");
    assert!(!text(&denied).contains("Fix"));
    let hidden = call(json!({ "name": "files__Edit", "arguments": {} })).await;
    let unknown = call(json!({ "name": "files__Nope", "arguments": {} })).await;
    let over = call(json!({ "name": "files__Bash", "arguments": { "command": "true" } })).await;
    for (answer, name) in [(&hidden, "files__Edit"), (&unknown, "files__Nope"), (&over, "files__Bash")] {
        assert_eq!(answer.json()["error"], json!({ "code": -32602, "message": format!("Unknown tool: {name}") }));
    }
    let wrong = call(json!({ "name": "files__Read", "arguments": { "file_path": 7 } })).await;
    assert!(text(&wrong).contains("do not fit its input schema"), "{wrong:?}");
    let write = |path: &str| json!({ "name": "files__Write", "arguments": { "file_path": path, "content": "x" } });
    assert!(text(&call(write("docs/new.md")).await).starts_with("denied: filesystem.read_write"));
    assert!(!folder.join("docs/new.md").exists());
    assert!(text(&call(write("out/new.md")).await).starts_with("Created"));
    assert_eq!(folder.read("out/new.md").as_deref(), Some("x"));
}

#[tokio::test]
async fn an_agents_view_is_that_agents_policy() {
    let folder = folder();
    let served = Served::start(&folder);
    let list = served.modern("/mcp/agents/reader", "tools/list", json!({}), &[]).await.json();
    assert_eq!(names(&list), ["files__Glob", "files__Grep", "files__Read"]);
    let call = async |path: &str| text(&served.modern("/mcp/agents/reader", "tools/call", read(path), &[]).await);
    assert_eq!(call("docs/papers/p.md").await, "     1\tpaper\n");
    assert!(call("docs/a.md").await.contains("at agent reader"), "the same call passes on /mcp");
    assert_eq!(served.modern("/mcp/agents/nobody", "tools/list", json!({}), &[]).await.status, 404);
}

#[tokio::test]
async fn an_agent_runs_for_a_client() {
    let folder = folder();
    let served = Served::start(&folder);
    let params = json!({ "name": "pleach__Agent", "arguments": { "prompt": "why?", "subagent_type": "reader" } });
    let answer = served.modern("/mcp", "tools/call", params, &[]).await;
    assert_eq!(text(&answer), "the answer to why?");
    let params = json!({ "name": "pleach__Agent", "_meta": { "progressToken": "t1" },
        "arguments": { "prompt": "why?", "subagent_type": "reader" } });
    let answer = served.modern("/mcp", "tools/call", params, &[]).await;
    assert!(answer.body.contains("\"progressToken\":\"t1\"") && answer.body.contains("reader started"), "{answer:?}");
    let runs = folder.run(&["runs", "--json"]);
    assert_eq!(runs.out.lines().count(), 2, "{runs:?}");
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_on_every_route() {
    let served = Served::start(&folder());
    for path in ["/mcp", "/mcp/agents/reader", "/healthz", "/readyz", "/nothing"] {
        for (name, value) in [("host", "evil.example.com"), ("origin", "http://evil.example.com"), ("origin", "null")] {
            assert_eq!(served.post(path, &[(name, value)], "{}").await.status, 403, "{path} {name}");
        }
    }
    let fine = served.modern("/mcp", "tools/list", json!({}), &[("origin", "http://localhost:5173")]).await;
    assert_eq!(fine.status, 200);
    for path in ["/healthz", "/readyz"] {
        let response = Served::client().get(format!("{}{path}", served.base)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn bad_input_gets_a_clear_error_and_breaks_nothing() {
    let folder = folder();
    let served = Served::start(&folder);
    let post = async |body: Vec<u8>| served.post("/mcp", &[], body).await;
    let code = |answer: &conformance::served::Answer| (answer.status, answer.json()["error"]["code"].as_i64().unwrap());
    for bad in [
        &b"{"[..],
        b"",
        b"nonsense",
        b"\xff\xfe{}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{} {}",
    ] {
        assert_eq!(code(&post(bad.to_vec()).await), (400, -32700), "{}", String::from_utf8_lossy(bad));
    }
    let deep = "[".repeat(100_000);
    let answer = post(deep.into_bytes()).await;
    assert_eq!(code(&answer), (400, -32700));
    assert!(answer.body.contains("nested deeper than 128 levels"), "{answer:?}");
    for bad in [
        "[]",
        "7",
        "null",
        "{}",
        "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}",
        "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
        "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}",
    ] {
        assert_eq!(code(&post(bad.as_bytes().to_vec()).await), (400, -32600), "{bad}");
    }
    let large = post(vec![b' '; (4 << 20) + 1]).await;
    assert_eq!(large.status, 413, "{}", large.body);

    let unknown = served.modern("/mcp", "resources/nonsense", json!({}), &[]).await;
    assert_eq!(code(&unknown), (404, -32601));
    assert_eq!(served.post("/mcp", &[("content-type", "text/plain")], "{}").await.status, 415);
    assert_eq!(served.post("/mcp", &[("accept", "text/html")], "{}").await.status, 406);

    // Everything above broke nothing.
    assert_eq!(text(&served.modern("/mcp", "tools/call", read("docs/a.md"), &[]).await), "     1\thello\n");
}

#[tokio::test]
async fn versions_and_headers_must_agree() {
    let served = Served::start(&folder());
    let good = modern_body("tools/list", json!({}));
    let post = async |headers: &[(&str, &str)], body: &Value| {
        let answer = served.post("/mcp", headers, body.to_string()).await;
        (answer.status, answer.json()["error"]["code"].as_i64())
    };
    let version = ("mcp-protocol-version", "2026-07-28");
    assert_eq!(post(&[version, ("mcp-method", "tools/list")], &good).await, (200, None));
    assert_eq!(post(&[version, ("mcp-method", "tools/call")], &good).await, (400, Some(-32020)));
    assert_eq!(post(&[version], &good).await, (400, Some(-32020)));
    assert_eq!(post(&[("mcp-method", "tools/list")], &good).await, (400, Some(-32020)));
    assert_eq!(
        post(&[("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/list")], &good).await,
        (400, Some(-32020))
    );
    let mut future = good.clone();
    future["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2099-01-01".into();
    let headers = [("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list")];
    let answer = served.post("/mcp", &headers, future.to_string()).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_i64()), (400, Some(-32022)));
    assert_eq!(answer.json()["error"]["data"]["requested"], "2099-01-01");
    let mut bare = good.clone();
    bare["params"]["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/clientCapabilities");
    assert_eq!(post(&[version, ("mcp-method", "tools/list")], &bare).await, (400, Some(-32602)));
    let call = modern_body("tools/call", read("docs/a.md"));
    let headers = [version, ("mcp-method", "tools/call"), ("mcp-name", "files__Write")];
    assert_eq!(post(&headers, &call).await, (400, Some(-32020)));
}

#[tokio::test]
async fn sessions_are_bound_and_end() {
    let served = Served::start(&folder());
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    assert_eq!(served.post("/mcp", &[], list.clone()).await.status, 400, "no session");
    assert_eq!(served.post("/mcp", &[("mcp-session-id", "made-up")], list.clone()).await.status, 404);
    let session = served.initialize("/mcp", &[]).await;
    let header = [("mcp-session-id", session.as_str())];
    assert_eq!(served.post("/mcp", &header, list.clone()).await.status, 200);
    assert_eq!(served.post("/mcp/agents/reader", &header, list.clone()).await.status, 404, "of another door");
    let delete = Served::client().delete(format!("{}/mcp", served.base)).header("mcp-session-id", &session);
    assert_eq!(delete.send().await.unwrap().status(), 200);
    assert_eq!(served.post("/mcp", &header, list).await.status, 404, "it has ended");
}

#[tokio::test]
async fn named_clients_only() {
    let policy = format!(
        "{POLICY}\n[clients.ci]\ntoken = \"${{CI_TOKEN}}\"\nmay_start = []\npolicy.max_access = \"read-only\"\n[clients.dev]\ntoken = \"dev-token-0123456789\"\n"
    );
    let folder = Folder::new(&policy);
    folder.write("docs/a.md", "hello");
    let served = Served::start_with(&folder, &[("CI_TOKEN", "ci-token-0123456789")]);
    let list = async |headers: &[(&str, &str)]| served.modern("/mcp", "tools/list", json!({}), headers).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Basic ci-token-0123456789")],
        &[("authorization", "Bearer ")],
    ] {
        let answer = list(headers).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    let ci = list(&[("authorization", "Bearer ci-token-0123456789")]).await.json();
    assert_eq!(names(&ci), ["files__Glob", "files__Grep", "files__Read"], "capped, and may start nobody");
    let dev = [("authorization", "bearer dev-token-0123456789")];
    assert!(names(&list(&dev).await.json()).contains(&"files__Write".to_owned()));
    // A session belongs to the principal that made it.
    let session = served.initialize("/mcp", &dev).await;
    let mine = served.legacy("/mcp", &session, "tools/list", json!({}), &dev).await;
    let theirs = served
        .legacy("/mcp", &session, "tools/list", json!({}), &[("authorization", "Bearer ci-token-0123456789")])
        .await;
    assert_eq!((mine.status, theirs.status), (200, 404));
}

#[test]
fn other_machines_need_authentication() {
    let ran = folder().run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("without authentication"), "{}", ran.err);
}

/// The file may disappear while serving; what was read is what holds.
#[tokio::test]
async fn a_policy_file_that_disappears_changes_nothing() {
    let folder = folder();
    let served = Served::start(&folder);
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    assert_eq!(text(&served.modern("/mcp", "tools/call", read("docs/a.md"), &[]).await), "     1\thello\n");
    assert!(text(&served.modern("/mcp", "tools/call", read("docs/private/s.md"), &[]).await).starts_with("denied"));
}

/// Cancelled upstream: by the closed stream of a modern client, by the notification of a legacy
/// one; a legacy client that only goes away cancels nothing.
#[tokio::test]
async fn cancellation_has_each_eras_meaning() {
    let policy = POLICY.replace("max_access = \"read-write\"", "max_access = \"destructive\"");
    let folder = Folder::new(&policy);
    folder.write("docs/a.md", "hello");
    let served = Served::start(&folder);
    let slow = |mark: &str| json!({ "name": "files__Bash", "arguments": { "command": format!("touch out/{mark}.began; sleep 2; touch out/{mark}.done") } });
    let began = async |mark: &str| {
        while !folder.join(&format!("out/{mark}.began")).exists() {
            tokio::task::yield_now().await;
        }
    };
    let modern = served.modern("/mcp", "tools/call", slow("modern"), &[]);
    tokio::select! { _ = modern => panic!("it ended by itself"), () = began("modern") => {} }

    let session = served.initialize("/mcp", &[]).await;
    let gone = served.legacy("/mcp", &session, "tools/call", slow("gone"), &[]);
    tokio::select! { _ = gone => panic!("it ended by itself"), () = began("gone") => {} }

    let header = [("mcp-session-id", session.as_str())];
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }).to_string();
    let notified = served.legacy("/mcp", &session, "tools/call", slow("notified"), &[]);
    let cancelled = async {
        began("notified").await;
        assert_eq!(served.post("/mcp", &header, cancel).await.status, 202);
    };
    tokio::join!(notified, cancelled);
    // The one that was not cancelled finishes; by then the others would have, too.
    crate::sandbox_processes::wait_until("the call whose client went away", || folder.join("out/gone.done").exists());
    let after = json!({ "name": "files__Bash", "arguments": { "command": "sleep 2" } });
    served.modern("/mcp", "tools/call", after, &[]).await;
    assert!(!folder.join("out/modern.done").exists(), "the closed stream cancelled it");
    assert!(!folder.join("out/notified.done").exists(), "the notification cancelled it");
}

/// An open stream of changes does not keep the server alive.
#[tokio::test]
async fn sigterm_ends_the_server_with_streams_open() {
    let folder = folder();
    let served = Served::start(&folder);
    let session = served.initialize("/mcp", &[]).await;
    let get = Served::client().get(format!("{}/mcp", served.base)).header("accept", "text/event-stream");
    let stream = get.header("mcp-session-id", &session).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let pid = served.pid();
    std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
    let gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
    crate::sandbox_processes::wait_until("the server's end", gone);
    drop(stream);
}

/// A `deny` on Pleach's own tools hides them and refuses them.
#[tokio::test]
async fn framework_tools_obey_deny() {
    let policy = POLICY.replace("deny = [\"files__Edit\"]", "deny = [\"files__Edit\", \"pleach__Agent\"]");
    let folder = Folder::new(&policy);
    let served = Served::start(&folder);
    let list = served.modern("/mcp", "tools/list", json!({}), &[]).await.json();
    assert!(!names(&list).contains(&"pleach__Agent".to_owned()));
    let params = json!({ "name": "pleach__Agent", "arguments": { "prompt": "p", "subagent_type": "reader" } });
    assert!(text(&served.modern("/mcp", "tools/call", params, &[]).await).starts_with("denied"));
    assert_eq!(folder.run(&["runs", "--json"]).out, "", "nothing ran");
}
