//! Servers that are dead, mute, slow or lying: each costs its own calls and nothing else.

use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};

/// A small MCP server in python, legacy era, whose misbehaviour is its argument.
const SERVER: &str = r#"
import json, sys, time, os
how = sys.argv[1]
def send(message): sys.stdout.write(json.dumps(message) + "\n"); sys.stdout.flush()
if how == "exits": sys.stderr.write("cannot find my config\n"); sys.exit(3)
if how == "mute": time.sleep(1000)
if how == "garbage":
    print("Welcome to my server!"); print("{not json"); print("[]"); sys.stdout.flush()
schema = {"type": "object"}
tools = [{"name": "echo", "inputSchema": schema}]
if how == "tools":
    tools += [{"name": "twice", "inputSchema": schema}, {"name": "twice", "inputSchema": schema},
              {"name": "invalid", "inputSchema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}},
              {"name": "null", "inputSchema": None}, {"inputSchema": schema}, 7]
for line in sys.stdin:
    request = json.loads(line)
    method, id = request.get("method"), request.get("id")
    if id is None: continue
    if method == "initialize":
        send({"jsonrpc": "2.0", "id": id, "result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": how, "version": "1"}}})
    elif method == "tools/list":
        if how == "no-list": send({"jsonrpc": "2.0", "id": id, "result": {"tools": "none"}}); continue
        send({"jsonrpc": "2.0", "id": id, "result": {"tools": tools}})
    elif method == "tools/call":
        if how == "huge": sys.stdout.write("x" * 100_000_000); sys.stdout.flush(); continue
        if how == "dies": os._exit(9)
        if how == "hangs": continue
        if how == "duplicate": sys.stdout.write('{"jsonrpc":"2.0","id":%d,"result":{"content":[],"content":[]}}\n' % id); sys.stdout.flush(); continue
        if how == "deep": sys.stdout.write('{"jsonrpc":"2.0","id":%d,"result":{"a":%s}}\n' % (id, "[" * 100_000)); sys.stdout.flush(); continue
        if how == "garbage": print("progress: 50%"); sys.stdout.flush()
        send({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": str(os.getpid())}], "x-unknown": [1.0, 1e2], "isError": False}})
    else:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}})
"#;

const KINDS: [&str; 11] =
    ["good", "exits", "mute", "garbage", "tools", "no-list", "huge", "dies", "hangs", "duplicate", "deep"];

fn folder(kinds: &[&str]) -> Folder {
    let servers: String = kinds
        .iter()
        .map(|k| format!("[servers.{k}]\ncommand = \"python3\"\nargs = [\"srv/server.py\", \"{k}\"]\ndefault_access = \"read-only\"\ntimeout = 3000\n"))
        .collect();
    let folder = Folder::new(&format!("version = 1\n{servers}[policy]\ntools = {{ allow = [\"*\"] }}\n"));
    folder.write("srv/server.py", SERVER);
    folder
}

async fn call(served: &Served, tool: &str) -> Value {
    let answer = served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": {} }), &[]).await;
    answer.json()
}
fn error(answer: &Value) -> String {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_bad_server_never_breaks_the_others() {
    let folder = folder(&KINDS);
    let served = Served::start(&folder);
    // The list waits for nobody longer than its patience, and holds everybody who answered.
    let list = served.modern("/mcp", "tools/list", json!({}), &[]).await.json();
    let names: Vec<&str> =
        list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    for kind in ["good", "garbage", "tools", "huge", "dies", "hangs", "duplicate", "deep"] {
        assert!(names.contains(&format!("{kind}__echo").as_str()), "{kind}: {names:?}");
    }
    assert!(!names.iter().any(|n| n.contains("twice") || n.contains("invalid") || n.contains("null")), "{names:?}");

    let ok = async |tool: &str| call(&served, tool).await["result"]["content"][0]["text"].as_str().map(str::to_owned);
    let pid = ok("good__echo").await.unwrap();
    assert!(ok("garbage__echo").await.is_some(), "noise on stdout is ignored");
    let huge = error(&call(&served, "huge__echo").await);
    assert!(huge.contains("a line larger than 16777216 bytes"), "{huge}");
    let dies = error(&call(&served, "dies__echo").await);
    assert!(dies.contains("the server ended"), "{dies}");
    let hangs = error(&call(&served, "hangs__echo").await);
    assert!(hangs.contains("no answer to tools/call within 3 s"), "{hangs}");
    let duplicate = error(&call(&served, "duplicate__echo").await);
    assert!(duplicate.contains("duplicate key \"content\""), "{duplicate}");
    let deep = error(&call(&served, "deep__echo").await);
    assert!(deep.contains("nested deeper than"), "{deep}");
    assert_eq!(ok("good__echo").await, Some(pid), "the good one is the same process as before");
    // Those that ended come back by themselves.
    assert!(error(&call(&served, "dies__echo").await).contains("the server ended"));
    // Unknown fields and number text pass unchanged.
    let body = json!({ "name": "good__echo", "arguments": {} });
    let raw = served.modern("/mcp", "tools/call", body, &[]).await.body;
    assert!(raw.contains("\"x-unknown\":[1.0,100.0]"), "{raw}");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let folder = folder(&["good", "exits"]);
    let ran = folder.run(&["tools"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("good__echo"), "{ran:?}");
    assert!(ran.err.contains("exits: ") && ran.err.contains("cannot find my config"), "{ran:?}");
    let missing = Folder::new("version = 1\n[servers.s]\ncommand = \"no-such-server\"\n");
    let ran = missing.run(&["tools"]);
    assert!(ran.err.contains("no-such-server: not found on PATH"), "{ran:?}");
}

#[tokio::test]
async fn a_hung_server_is_replaced() {
    let folder = folder(&["hangs"]);
    let served = Served::start(&folder);
    for _ in 0..2 {
        let answer = error(&call(&served, "hangs__echo").await);
        assert!(answer.contains("no answer"), "{answer}");
    }
}

/// Two agents with different grants get two processes, each under its own sandbox.
#[tokio::test]
async fn one_instance_for_each_grant() {
    let base = "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[servers.good]\ncommand = \"python3\"\nargs = [\"srv/server.py\", \"good\"]\ndefault_access = \"read-only\"\n[policy]\nfilesystem = { read = [\"srv\", \"docs\"] }\ntools = { allow = [\"*\"] }\n[agents.same]\nprompt = \"\"\n[agents.less]\nprompt = \"\"\n[agents.less.policy]\nfilesystem = { read = [\"srv\"] }\n";
    let folder = Folder::new(base);
    folder.write("srv/server.py", SERVER);
    folder.write("docs/a", "");
    let served = Served::start(&folder);
    let pid = async |path: &str| {
        let call = json!({ "name": "good__echo", "arguments": {} });
        served.modern(path, "tools/call", call.clone(), &[]).await;
        // Inside, every instance counts from 1; outside, only the processes tell.
        text(&served.modern(path, "tools/call", call, &[]).await)
    };
    let servers = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let root = folder.path().display().to_string();
        let mine =
            |p: &std::path::Path| std::fs::read_link(p.join("cwd")).is_ok_and(|c| c.display().to_string() == root);
        processes
            .filter(|p| mine(&p.path()))
            .filter(|p| {
                std::fs::read(p.path().join("cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains("server.py"))
            })
            .count()
    };
    assert!(!pid("/mcp").await.is_empty());
    assert_eq!(servers(), 1);
    assert!(!pid("/mcp/agents/same").await.is_empty());
    assert_eq!(servers(), 1, "the same grant shares the process");
    assert!(!pid("/mcp/agents/less").await.is_empty());
    assert_eq!(servers(), 2, "a narrower one has its own");
}

/// The environment of a server is the server's: the launcher, which runs outside the sandbox,
/// must not obey a loader variable of it.
#[tokio::test]
async fn a_servers_environment_does_not_reach_the_launcher() {
    let policy = "version = 1\n[servers.good]\ncommand = \"python3\"\nargs = [\"srv/server.py\", \"good\"]\nenv = { LD_PRELOAD = \"out/evil.so\" }\ndefault_access = \"read-only\"\n[policy]\nmax_access = \"read-write\"\nfilesystem = { read_write = [\"out\"] }\ntools = { allow = [\"*\"] }\n";
    let folder = Folder::new(policy);
    folder.write("srv/server.py", SERVER);
    folder.write("evil.c", "#include <stdio.h>\n__attribute__((constructor)) static void f(void) { FILE *x = fopen(\"OUTSIDE\", \"w\"); if (x) fclose(x); x = fopen(\"out/inside\", \"w\"); if (x) fclose(x); }\n".replace("OUTSIDE", &folder.join("outside").display().to_string()).as_str());
    std::fs::create_dir(folder.join("out")).unwrap();
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "out/evil.so", "evil.c"])
        .current_dir(folder.path())
        .status();
    assert!(built.unwrap().success());
    let served = Served::start(&folder);
    call(&served, "good__echo").await;
    assert!(folder.join("out/inside").exists(), "the server itself obeys its own environment");
    assert!(!folder.join("outside").exists(), "but only inside the sandbox");
}

/// `kill -9` of `pleach serve` takes the servers along, and whatever they started.
#[tokio::test]
async fn no_server_outlives_pleach() {
    let marker = format!("{}", 73_000_000 + std::process::id());
    let policy = "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\nmax_access = \"destructive\"\ntools = { allow = [\"*\"] }\n";
    let folder = Folder::new(policy);
    let served = Served::start(&folder);
    let command = format!("setsid sleep {marker} >/dev/null 2>&1 & disown; echo started");
    let started = json!({ "name": "files__Bash", "arguments": { "command": command } });
    let answer = served.modern("/mcp", "tools/call", started, &[]).await;
    assert_eq!(text(&answer), "started\n");
    crate::sandbox_processes::wait_until("the sleeper", || crate::sandbox_processes::sleepers(&marker) == 1);
    drop(served);
    crate::sandbox_processes::wait_until("no sleeper", || crate::sandbox_processes::sleepers(&marker) == 0);
}
