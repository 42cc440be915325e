//! The matrix of the documentation: third-party clients of both eras, in front of one Pleach that
//! stands before servers of both eras. Each client calls a tool of every server, reads a
//! resource, gets a prompt, and is asked something by a server of each era.

use crate::kits;
use conformance::official::binary;
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Servers of npm, PyPI and our own with rmcp; the last two speak one era each.
fn folder() -> Folder {
    let (kits, own) = (kits().display().to_string(), binary().display().to_string());
    let npm = |name: &str, package: &str, args: &str| {
        format!(
            "[servers.{name}]\ncommand = \"{kits}/node_modules/.bin/{package}\"\nargs = [{args}]\ndefault_access = \"read-only\"\n"
        )
    };
    let pip = |name: &str, package: &str, args: &str| {
        format!(
            "[servers.{name}]\ncommand = \"{kits}/venv/bin/{package}\"\nargs = [{args}]\ndefault_access = \"read-only\"\n"
        )
    };
    let fixture = |era: &str| {
        format!(
            "[servers.{era}]\ncommand = {own:?}\nargs = [\"fixture\", {era:?}, \"stdio\"]\ndefault_access = \"read-only\"\n"
        )
    };
    let servers = [
        npm("everything", "mcp-server-everything", ""),
        npm("fs", "mcp-server-filesystem", "\"docs\""),
        pip("time", "mcp-server-time", "\"--local-timezone=UTC\""),
        pip("git", "mcp-server-git", ""),
        fixture("legacy"),
        fixture("modern"),
    ];
    let folder = Folder::new(&format!(
        "version = 1\n{}[policy]\nmax_access = \"read-write\"\nfilesystem.read = [\"docs\"]\ntools.allow = [\"*\"]\n",
        servers.concat()
    ));
    folder.write("docs/a.md", "hello");
    let status = Command::new("git").args(["init", "-q", "docs"]).current_dir(folder.path()).status().unwrap();
    assert!(status.success());
    folder
}

/// What a client is told, and what it then says it speaks.
const ERAS: [(&str, &str); 2] = [("legacy", "2025-11-25"), ("modern", "2026-07-28")];

/// What every client does: tool, arguments, and words of the answer.
fn calls(folder: &Folder) -> Vec<(&'static str, Value, &'static str)> {
    let docs = folder.join("docs").display().to_string();
    vec![
        ("everything__echo", json!({ "message": "hi" }), "Echo: hi"),
        ("fs__list_directory", json!({ "path": docs }), "a.md"),
        ("time__get_current_time", json!({ "timezone": "UTC" }), "UTC"),
        ("git__git_status", json!({ "repo_path": docs }), "No commits yet"),
        ("legacy__test_simple_text", json!({}), "simple text"),
        ("modern__test_simple_text", json!({}), "simple text"),
        ("legacy__test_elicitation", json!({ "message": "who?" }), "ada"),
        ("modern__test_elicitation", json!({ "message": "who?" }), "ada"),
    ]
}

/// Runs a client's script; it prints an object: tool to text, `resource`, `prompt`. `target` is a
/// URL, or the words of a command as JSON.
fn client(
    folder: &Folder,
    target: &str,
    name: &str,
    runtime: PathBuf,
    place: PathBuf,
    code: &str,
    mode: &str,
) -> Value {
    let calls = calls(folder);
    let work: Vec<Value> = calls.iter().map(|(tool, arguments, _)| json!([tool, arguments])).collect();
    let file = place.join(format!(
        "matrix-{name}-{mode}-{}.{}",
        std::process::id(),
        if code.contains("import asyncio") { "py" } else { "mjs" }
    ));
    std::fs::write(&file, code).unwrap();
    let mut command = Command::new(runtime);
    command.arg(&file).args([target, mode, &json!(work).to_string()]).current_dir(folder.path());
    command.env("XDG_STATE_HOME", folder.join(".state")).env("XDG_DATA_HOME", folder.join(".data"));
    let output = command.output().unwrap();
    let _ = std::fs::remove_file(&file);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Value = serde_json::from_str(out.lines().last().unwrap_or(""))
        .unwrap_or_else(|e| panic!("{name} {mode}: {e}: {out}\n{err}"));
    for (tool, _, words) in calls {
        let text = said[tool].as_str().unwrap_or_default();
        assert!(text.contains(words), "{name} {mode}: {tool}: {text}\n{err}");
    }
    for (what, words) in [("resource", "static"), ("prompt", "simple prompt")] {
        let text = said[what].as_str().unwrap_or_default();
        assert!(text.contains(words), "{name} {mode}: {what}: {text}\n{err}");
    }
    println!("{name} ({mode}): every server");
    said
}

const PYTHON: &str = r#"
import asyncio, json, os, sys
from mcp import Client, StdioServerParameters
from mcp.types import ElicitResult
URI, PROMPT = "pleach:modern/test://static-text", "legacy__test_simple_prompt"
async def asked(context, params):
    return ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})
async def main():
    target, mode, calls = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if target.startswith("["):
        command, *args = json.loads(target)
        target = StdioServerParameters(command=command, args=args, env=dict(os.environ))
    said = {}
    async with Client(target, mode=mode if mode == "legacy" else "auto", elicitation_callback=asked) as client:
        said["era"] = client.protocol_version
        await client.list_tools()
        for tool, arguments in calls:
            result = await client.call_tool(tool, arguments)
            said[tool] = " ".join(getattr(c, "text", "") for c in result.content)
        said["resource"] = (await client.read_resource(URI)).contents[0].text
        said["prompt"] = (await client.get_prompt(PROMPT)).messages[0].content.text
    print(json.dumps(said))
asyncio.run(main())
"#;

const FASTMCP: &str = r#"
import asyncio, json, sys
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
URI, PROMPT = "pleach:modern/test://static-text", "legacy__test_simple_prompt"
async def asked(message, response_type, params, context):
    return ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})
async def main():
    url, mode, calls = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    said = {}
    async with Client(url, mode=mode if mode == "legacy" else "auto", elicitation_handler=asked) as client:
        await client.list_tools()
        for tool, arguments in calls:
            result = await client.call_tool(tool, arguments)
            said[tool] = " ".join(getattr(c, "text", "") for c in result.content)
        said["resource"] = (await client.read_resource(URI))[0].text
        said["prompt"] = (await client.get_prompt(PROMPT)).messages[0].content.text
    print(json.dumps(said))
asyncio.run(main())
"#;

const NODE_SDK: &str = r#"
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
const [url, mode, work] = process.argv.slice(2);
const client = new Client({ name: "t", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { username: "ada", email: "ada@example.com" } }));
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
await client.listTools();
const said = {};
for (const [name, args] of JSON.parse(work)) {
  const result = await client.callTool({ name, arguments: args });
  said[name] = result.content.map((c) => c.text ?? "").join(" ");
}
said.resource = (await client.readResource({ uri: "pleach:modern/test://static-text" })).contents[0].text;
said.prompt = (await client.getPrompt({ name: "legacy__test_simple_prompt" })).messages[0].content.text;
console.log(JSON.stringify(said));
await client.close();
"#;

const NODE_CLIENT: &str = r#"
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
const [target, mode, work] = process.argv.slice(2);
const negotiation = mode === "legacy" ? "legacy" : { pin: "2026-07-28" };
const client = new Client({ name: "t", version: "1" }, { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: negotiation } });
client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: { username: "ada", email: "ada@example.com" } }));
const [command, ...args] = target.startsWith("[") ? JSON.parse(target) : [];
const transport = command ? new StdioClientTransport({ command, args, env: process.env }) : new StreamableHTTPClientTransport(new URL(target));
await client.connect(transport);
await client.listTools();
const said = { era: client.getNegotiatedProtocolVersion() };
for (const [name, args] of JSON.parse(work)) {
  const result = await client.callTool({ name, arguments: args });
  said[name] = result.content.map((c) => c.text ?? "").join(" ");
}
said.resource = (await client.readResource({ uri: "pleach:modern/test://static-text" })).contents[0].text;
said.prompt = (await client.getPrompt({ name: "legacy__test_simple_prompt" })).messages[0].content.text;
console.log(JSON.stringify(said));
await client.close();
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_client_reaches_every_server() {
    let folder = folder();
    let served = Served::start(&folder);
    let python = kits().join("venv/bin/python");
    let node = kits().join("suite/node_modules/.bin/node");
    let url = format!("{}/mcp", served.base);
    for (mode, era) in ERAS {
        let said = client(&folder, &url, "mcp", python.clone(), kits(), PYTHON, mode);
        assert_eq!(said["era"], era, "{said}");
        client(&folder, &url, "fastmcp", python.clone(), kits(), FASTMCP, mode);
        let said = client(&folder, &url, "client", node.clone(), kits().join("suite"), NODE_CLIENT, mode);
        assert_eq!(said["era"], era, "{said}");
    }
    client(&folder, &url, "sdk", node, kits(), NODE_SDK, "legacy");
}

/// The same two that have both eras, in front of `pleach serve --stdio`: over a pipe it is the
/// first message that says which era it is.
#[tokio::test(flavor = "multi_thread")]
async fn clients_over_stdio_reach_every_server_in_both_eras() {
    let folder = folder();
    let (pleach, config) = (conformance::pleach::binary(), folder.join("pleach.toml"));
    let target = json!([pleach, "serve", "--stdio", "--config", config]).to_string();
    let python = kits().join("venv/bin/python");
    let node = kits().join("suite/node_modules/.bin/node");
    for (mode, era) in ERAS {
        for (name, runtime, place, code) in
            [("mcp-stdio", &python, kits(), PYTHON), ("client-stdio", &node, kits().join("suite"), NODE_CLIENT)]
        {
            let said = client(&folder, &target, name, runtime.clone(), place, code, mode);
            assert_eq!(said["era"], era, "{name}: {said}");
        }
    }
}

/// The inspector's command line, which asks nobody and so is asked nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_inspectors_command_line_reaches_every_server() {
    let folder = folder();
    let served = Served::start(&folder);
    let modules = kits().join("suite/node_modules/.bin");
    for (tool, arguments, words) in calls(&folder).into_iter().filter(|(tool, ..)| !tool.contains("elicitation")) {
        let mut command = Command::new(modules.join("node"));
        command.arg(modules.join("mcp-inspector")).args(["--cli", &format!("{}/mcp", served.base)]);
        command.args(["--transport", "http", "--method", "tools/call", "--tool-name", tool]);
        for (key, value) in arguments.as_object().unwrap() {
            command.args(["--tool-arg", &format!("{key}={}", value.as_str().unwrap())]);
        }
        let output = command.output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.contains(words), "{tool}: {out}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// server-everything alone is legacy-only and answers a foreign Host; behind Pleach it is reached
/// in the modern era, and a rebound name is refused before anything runs.
#[tokio::test]
async fn server_everything_becomes_modern_and_safe_from_rebinding() {
    let folder = folder();
    let served = Served::start(&folder);
    let params = || json!({ "name": "everything__echo", "arguments": { "message": "hi" } });
    let modern = served.modern("/mcp", "tools/call", params(), &[]).await.json();
    assert_eq!(
        (&modern["result"]["resultType"], &modern["result"]["content"][0]["text"]),
        (&json!("complete"), &json!("Echo: hi"))
    );
    for (header, value) in [("host", "evil.example.com"), ("origin", "http://evil.example.com")] {
        let rebound = served.modern("/mcp", "tools/call", params(), &[(header, value)]).await;
        assert_eq!(rebound.status, 403, "{rebound:?}");
    }
}
