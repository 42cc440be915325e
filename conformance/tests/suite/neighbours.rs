//! Third-party servers behind Pleach and third-party clients in front of it, from the package
//! registries, in both eras where they have them.

use crate::kits;
use conformance::ledger::Ledger;
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

fn folder(grants: &str) -> Folder {
    let kits = kits().display().to_string();
    let folder = Folder::new(&format!(
        r#"
version = 1
[servers.everything]
command = "{kits}/node_modules/.bin/mcp-server-everything"
default_access = "read-only"
[servers.fs]
command = "{kits}/node_modules/.bin/mcp-server-filesystem"
args = ["docs", "out"]
annotations = "trust"
[servers.fs.tools.write_file]
access = "read-write"
[servers.git]
command = "{kits}/venv/bin/mcp-server-git"
default_access = "read-only"
[servers.fetch]
command = "{kits}/venv/bin/mcp-server-fetch"
args = ["--ignore-robots-txt", "--allow-private-ips"]
default_access = "read-only"
[servers.time]
command = "{kits}/venv/bin/mcp-server-time"
args = ["--local-timezone=UTC"]
default_access = "read-only"
[policy]
max_access = "read-write"
filesystem = {{ read = ["docs", "repo"], read_write = ["out"] }}
tools = {{ allow = ["*"] }}
{grants}
"#
    ));
    folder.write("docs/a.md", "hello");
    folder.write("outside.txt", "secret");
    folder.write("repo/f", "x");
    let git = |args: &[&str]| {
        let status =
            Command::new("git").args(args).current_dir(folder.join("repo")).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
    };
    git(&["init", "-q"]);
    git(&["add", "f"]);
    git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first commit"]);
    folder
}

async fn call(served: &Served, tool: &str, arguments: Value) -> String {
    let answer = served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": arguments }), &[]).await;
    let json = answer.json();
    if json["error"].is_object() { json["error"].to_string() } else { text(&answer) }
}

#[tokio::test]
async fn real_servers_do_their_work_in_the_sandbox_and_no_more() {
    let folder = folder("");
    let served = Served::start(&folder);
    let root = folder.path().display().to_string();
    assert_eq!(call(&served, "everything__echo", json!({ "message": "hi" })).await, "Echo: hi");
    assert!(call(&served, "time__get_current_time", json!({ "timezone": "UTC" })).await.contains("UTC"));

    assert_eq!(call(&served, "fs__read_text_file", json!({ "path": format!("{root}/docs/a.md") })).await, "hello");
    let outside = call(&served, "fs__read_text_file", json!({ "path": format!("{root}/outside.txt") })).await;
    assert!(outside.starts_with("denied: filesystem.read"), "{outside}");
    let write = |path: &str| json!({ "path": format!("{root}/{path}"), "content": "new" });
    call(&served, "fs__write_file", write("out/new.md")).await;
    assert_eq!(folder.read("out/new.md").as_deref(), Some("new"));
    let denied = call(&served, "fs__write_file", write("docs/new.md")).await;
    assert!(denied.starts_with("denied: filesystem.read_write"), "{denied}");
    assert!(!folder.join("docs/new.md").exists());

    let log = call(&served, "git__git_log", json!({ "repo_path": format!("{root}/repo") })).await;
    assert!(log.contains("first commit"), "{log}");
    let elsewhere = call(&served, "git__git_log", json!({ "repo_path": root })).await;
    assert!(elsewhere.starts_with("denied"), "{elsewhere}");
    // get-env of server-everything tells what a process can see: nothing of ours.
    let env = call(&served, "everything__get-env", json!({})).await;
    assert!(env.contains("PATH") && !env.contains("CARGO") && !env.contains("PLEACH"), "{env}");
}

/// `mcp-server-fetch` reaches exactly what is granted, and nothing with one grant fewer.
#[tokio::test]
async fn fetch_reaches_what_is_granted() {
    let ledger = Ledger::start();
    let url = json!({ "url": format!("http://{}/page", ledger.address) });
    let with = folder("networks = { allow = [\"127.0.0.1/32\"] }");
    let served = Served::start(&with);
    let fetched = call(&served, "fetch__fetch", url.clone()).await;
    assert!(fetched.contains("pong"), "{fetched}");
    assert!(ledger.seen().iter().any(|r| r.starts_with("GET /page ")), "{:?}", ledger.seen());

    let before = ledger.seen().len();
    let without = folder("");
    let served = Served::start(&without);
    let refused = call(&served, "fetch__fetch", url).await;
    assert!(refused.starts_with("denied: networks.allow does not cover 127.0.0.1"), "{refused}");
    let url = json!({ "url": format!("http://localhost:{}/named", ledger.address.port()) });
    let refused = call(&served, "fetch__fetch", url.clone()).await;
    assert!(refused.starts_with("denied: domains.allow does not cover localhost"), "{refused}");
    assert_eq!(ledger.seen().len(), before, "not one byte more");
    let named = folder("domains = { allow = [\"localhost\"] }\nnetworks = { allow = [\"127.0.0.0/8\", \"::1/128\"] }");
    let served = Served::start(&named);
    let fetched = call(&served, "fetch__fetch", url).await;
    assert!(fetched.contains("pong"), "{fetched}");
}

/// Progress of a long call reaches a client of each era under its own token.
#[tokio::test]
async fn progress_comes_back_under_the_clients_token() {
    let folder = folder("");
    let served = Served::start(&folder);
    let params = || {
        json!({ "name": "everything__trigger-long-running-operation", "arguments": { "duration": 1, "steps": 4 },
        "_meta": { "progressToken": "my-token" } })
    };
    let modern = served.modern("/mcp", "tools/call", params(), &[]).await;
    let session = served.initialize("/mcp", &[]).await;
    let legacy = served.legacy("/mcp", &session, "tools/call", params(), &[]).await;
    for answer in [modern, legacy] {
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert_eq!(answer.body.matches("\"progressToken\":\"my-token\"").count(), 4, "{}", answer.body);
        assert!(text(&answer).contains("Long running operation completed"), "{}", answer.body);
    }
}

fn script(runtime: &std::path::Path, code: &str, args: &[&str], folder: &Folder) -> Value {
    let mut command = Command::new(runtime);
    command.current_dir(kits()).env("XDG_STATE_HOME", folder.join(".state")).stdin(Stdio::null());
    let file = if runtime.ends_with("node") { "client.mjs" } else { "client.py" };
    // Node resolves packages beside the script.
    let path = kits().join(format!("{}-{file}", std::process::id()));
    std::fs::write(&path, code).unwrap();
    let output = command.arg(&path).args(args).output().unwrap();
    let _ = std::fs::remove_file(&path);
    let out = String::from_utf8_lossy(&output.stdout);
    let last = out.lines().last().unwrap_or("");
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {out}\n{}", String::from_utf8_lossy(&output.stderr)))
}

const PYTHON: &str = r#"
import asyncio, json, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
async def use(read, write):
    async with ClientSession(read, write) as session:
        hello = await session.initialize()
        tools = await session.list_tools()
        result = await session.call_tool("everything__echo", {"message": "py"})
        print(json.dumps({"server": hello.server_info.name if hasattr(hello, "server_info") else hello.serverInfo.name,
                          "tools": len(tools.tools), "text": result.content[0].text}))
async def main():
    if sys.argv[1] == "http":
        async with streamable_http_client(sys.argv[2]) as streams: await use(streams[0], streams[1])
    else:
        async with stdio_client(StdioServerParameters(command=sys.argv[2], args=sys.argv[3:])) as (r, w): await use(r, w)
asyncio.run(main())
"#;

#[tokio::test]
async fn the_python_client_works_over_http_and_stdio() {
    let folder = folder("");
    let served = Served::start(&folder);
    let python = kits().join("venv/bin/python");
    let config = folder.join("pleach.toml").display().to_string();
    let pleach = conformance::pleach::binary().display().to_string();
    let http = script(&python, PYTHON, &["http", &format!("{}/mcp", served.base)], &folder);
    let stdio = script(&python, PYTHON, &["stdio", &pleach, "serve", "--stdio", "--config", &config], &folder);
    for seen in [http, stdio] {
        assert_eq!((&seen["server"], &seen["text"]), (&json!("pleach"), &json!("Echo: py")), "{seen}");
        assert!(seen["tools"].as_u64().unwrap() > 20, "{seen}");
    }
}

const NODE: &str = r#"
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
const [how, target, ...args] = process.argv.slice(2);
const client = new Client({ name: "t", version: "1" });
await client.connect(how === "http" ? new StreamableHTTPClientTransport(new URL(target)) : new StdioClientTransport({ command: target, args }));
const tools = await client.listTools();
const result = await client.callTool({ name: "everything__echo", arguments: { message: "js" } });
console.log(JSON.stringify({ server: client.getServerVersion().name, tools: tools.tools.length, text: result.content[0].text }));
await client.close();
"#;

#[tokio::test]
async fn the_npm_client_works_over_http_and_stdio() {
    let folder = folder("");
    let served = Served::start(&folder);
    let config = folder.join("pleach.toml").display().to_string();
    let pleach = conformance::pleach::binary().display().to_string();
    let node = which("node");
    let http = script(&node, NODE, &["http", &format!("{}/mcp", served.base)], &folder);
    let stdio = script(&node, NODE, &["stdio", &pleach, "serve", "--stdio", "--config", &config], &folder);
    for seen in [http, stdio] {
        assert_eq!((&seen["server"], &seen["text"]), (&json!("pleach"), &json!("Echo: js")), "{seen}");
        assert!(seen["tools"].as_u64().unwrap() > 20, "{seen}");
    }
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|f| f.join(program)).find(|p| p.is_file()).unwrap()
}

#[tokio::test]
async fn the_rmcp_client_works_in_both_eras() {
    let folder = folder("");
    let served = Served::start(&folder);
    let echo = || {
        let mut params = CallToolRequestParams::new("everything__echo");
        params.arguments = json!({ "message": "rs" }).as_object().cloned();
        params
    };
    let url = format!("{}/mcp", served.base);
    let http = || {
        StreamableHttpClientTransport::with_client(
            Served::client(),
            rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig::with_uri(url.clone()),
        )
    };
    let check = |result: rmcp::model::CallToolResult, era: &str| {
        let value = serde_json::to_value(&result).unwrap();
        assert_eq!(value["content"][0]["text"], "Echo: rs", "{era}");
    };
    // Legacy: initialize.
    let legacy = ().serve(http()).await.unwrap();
    assert!(legacy.list_all_tools().await.unwrap().len() > 20);
    check(legacy.call_tool(echo()).await.unwrap(), "legacy");
    legacy.cancel().await.unwrap();
    // Modern: discover, stateless.
    let preferred_versions = vec![rmcp::model::ProtocolVersion::LATEST];
    let mode = ClientLifecycleMode::Discover { preferred_versions };
    let modern = ().serve_with_lifecycle(http(), mode).await.unwrap();
    assert!(modern.list_all_tools().await.unwrap().len() > 20);
    check(modern.call_tool(echo()).await.unwrap(), "modern");
    modern.cancel().await.unwrap();
    // Over standard streams.
    let mut command = tokio::process::Command::new(conformance::pleach::binary());
    command.args(["serve", "--stdio"]).current_dir(folder.path()).env("XDG_STATE_HOME", folder.join(".state"));
    let stdio = ().serve(TokioChildProcess::new(command).unwrap()).await.unwrap();
    check(stdio.call_tool(echo()).await.unwrap(), "stdio");
    stdio.cancel().await.unwrap();
}

/// A server reached by URL: its tools are imported, guarded and called like any other, in the
/// era it speaks, and its session is found again after it restarted.
#[tokio::test]
async fn a_server_by_url_is_guarded_and_survived() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = || {
        let mut command = Command::new(which("node"));
        command
            .arg(kits().join("node_modules/.bin/mcp-server-everything"))
            .arg("streamableHttp")
            .env("PORT", port.to_string());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        crate::sandbox_processes::wait_until("its port", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    };
    let mut upstream = start();
    let folder = Folder::new(&format!(
        "version = 1\n[servers.web]\nurl = \"http://127.0.0.1:{port}/mcp?key=hunter2\"\ndefault_access = \"read-only\"\n[policy]\ntools = {{ allow = [\"*\"], deny = [\"web__get-env\"] }}\n"
    ));
    let served = Served::start(&folder);
    let echo = json!({ "message": "hi" });
    assert_eq!(call(&served, "web__echo", echo.clone()).await, "Echo: hi");
    assert!(call(&served, "web__get-env", json!({})).await.contains("Unknown tool"));
    upstream.kill().unwrap();
    upstream.wait().unwrap();
    let down = call(&served, "web__echo", echo.clone()).await;
    assert!(down.contains("127.0.0.1") && !down.contains("hunter2"), "{down}");
    let mut upstream = start();
    assert_eq!(call(&served, "web__echo", echo).await, "Echo: hi", "it came back by itself");
    upstream.kill().unwrap();
    upstream.wait().unwrap();
}
