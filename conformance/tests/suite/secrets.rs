//! Values of secrets are planted, and everything Pleach wrote, said and started is searched for
//! them; that they reached whom they are for is the twin.

use conformance::pleach::{Folder, Ran};
use conformance::served::{Served, text};
use conformance::upstream::{Act, Upstream, legacy, told};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// With what JSON and URLs write otherwise.
const FILE: &str = "canary-file \"q\"/0123456789";
const COMMAND: &str = "canary-command-0123456789";
const VARIABLE: &str = "canary-variable-0123456789";

/// Tells all it knows wherever a server can tell something.
const LEAKY: &str = r#"
import hashlib, json, os, sys
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
everything = json.dumps(dict(os.environ)) + " " + os.environ.get("TOKEN", "")
print("stderr:", everything, file=sys.stderr, flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    method, id = asked.get("method"), asked.get("id")
    if method == "initialize":
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}},
             "serverInfo": {"name": "leaky", "version": "1"}}})
    elif method == "tools/list":
        say({"id": id, "result": {"tools": [{"name": name, "inputSchema": {"type": "object"}}
             for name in ("dump", "hash", "fail", "die")]}})
    elif method == "tools/call":
        say({"method": "notifications/message", "params": {"level": "error", "data": everything}})
        name = asked["params"]["name"]
        if name == "die":
            print(os.environ.get("TOKEN", ""), file=sys.stderr, flush=True)
            sys.exit(1)
        if name == "fail":
            say({"id": id, "error": {"code": -32000, "message": everything, "data": dict(os.environ)}})
        else:
            shown = hashlib.sha256(os.environ.get("TOKEN", "").encode()).hexdigest() if name == "hash" else everything
            say({"id": id, "result": {"content": [{"type": "text", "text": shown}]}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "no"}})
"#;

fn write_private(folder: &Folder, path: &str, value: &str, mode: u32) {
    let path = folder.write(path, value);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn folder(far: &str) -> Folder {
    let folder = Folder::new(&format!(
        r#"version = 1
[secrets.kept]
file = "keys/token"
[secrets.made]
command = ["./keys/make", "--now"]
[secrets.set]
env = "CANARY_VARIABLE"
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.one]
command = "python3"
args = ["leaky.py"]
env = {{ TOKEN = "${{secret:kept}}" }}
[servers.two]
command = "python3"
args = ["leaky.py"]
[servers.far]
url = "{far}"
headers = {{ Authorization = "Bearer ${{secret:made}}" }}
[servers.files]
builtin = "workspace"
[clients.ci]
token = "${{secret:set}}"
[policy]
max_access = "destructive"
filesystem = {{ read = ["."] }}
tools = {{ allow = ["*"] }}
[agents.a]
prompt = "x"
expose = true
"#
    ));
    write_private(&folder, "keys/token", &format!("{FILE}\n"), 0o600);
    write_private(&folder, "keys/make", &format!("#!/bin/sh\necho {COMMAND}\n"), 0o700);
    folder.write("leaky.py", LEAKY);
    folder.write("docs/a.md", "benign");
    folder
}

/// Everything that was written beneath a folder, but the keys themselves.
fn written(at: &Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("keys") {
            continue;
        }
        match path.is_dir() {
            true => written(&path, into),
            false => into.extend(std::fs::read(&path).unwrap_or_default()),
        }
    }
}

#[track_caller]
fn holds_none(what: &str, bytes: &[u8]) {
    let all = String::from_utf8_lossy(bytes);
    let escaped = FILE.replace('"', "\\\"");
    for canary in [FILE, escaped.as_str(), "canary-file", COMMAND, VARIABLE] {
        if let Some(at) = all.find(canary) {
            let around: String = all[..at].chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            panic!("{what} holds {canary:?} after {around:?}");
        }
    }
}

fn sha256(value: &str) -> String {
    use std::io::Write;
    let mut sum = std::process::Command::new("sha256sum");
    let sum = sum.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let mut sum = sum.unwrap();
    sum.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let told = sum.wait_with_output().unwrap().stdout;
    String::from_utf8(told).unwrap().split(' ').next().unwrap().to_owned()
}

/// A server that says what it was shown, in a result, in an error and in a status.
fn shows_headers() -> Upstream {
    Upstream::start(|seen| {
        let shown = format!("{} {}", seen.header("authorization"), seen.header("x-more"));
        legacy(seen, json!({ "tools": {} }), &["show", "fail", "break"]).unwrap_or_else(|| {
            match seen.body["params"]["name"].as_str() {
                Some("show") => Act::Result(told(&shown)),
                Some("fail") => Act::Error(json!({ "code": -32000, "message": shown, "data": { (&shown): 1 } })),
                _ => Act::Status(418, json!({ "said": shown })),
            }
        })
    })
}

#[tokio::test]
async fn a_planted_value_reaches_whom_it_is_for_and_nothing_else_holds_it() {
    let far = shows_headers();
    let folder = folder(&far.url());
    folder.write(
        "replies.toml",
        "[[reply]]\ntext = \"w\"\n[[reply.tool]]\nname = \"one__dump\"\ninput = {}\n[[reply.tool]]\n\
         name = \"far__show\"\ninput = {}\n[[reply.tool]]\nname = \"one__fail\"\ninput = {}\n\
         [[reply.tool]]\nname = \"files__Read\"\ninput = { file_path = \"keys/token\" }\n\
         [[reply]]\ntext = \"done: {{results}}\"\n",
    );
    let served = Served::start_with(&folder, &[("CANARY_VARIABLE", VARIABLE), ("PLEACH_LOG", "trace")]);
    let bearer = format!("Bearer {VARIABLE}");
    let who = [("authorization", bearer.as_str())];
    let session = served.initialize("/mcp", &who).await;
    let mut told = String::new();
    for tool in ["one__dump", "one__fail", "one__die", "two__dump", "far__show", "far__fail", "far__break"] {
        let params = json!({ "name": tool, "arguments": {} });
        told += &served.modern("/mcp", "tools/call", params.clone(), &who).await.body;
        told += &served.legacy("/mcp", &session, "tools/call", params, &who).await.body;
    }
    // The twins: each value arrived where it is for, and not at the neighbour.
    let hash = |tool: &'static str| {
        let params = json!({ "name": tool, "arguments": {} });
        async { text(&served.modern("/mcp", "tools/call", params, &who).await) }
    };
    assert_eq!(hash("one__hash").await, sha256(FILE));
    assert_eq!(hash("two__hash").await, sha256(""));
    let shown = far.came("tools/call");
    assert!(!shown.is_empty() && shown.iter().all(|s| s.header("authorization") == format!("Bearer {COMMAND}")));
    assert!(told.contains("[secret kept]") && told.contains("Bearer [secret made]"), "{told}");

    let begun = served.post("/v1/runs", &who, json!({ "agent": "a", "prompt": "go" }).to_string()).await;
    let path = format!("/v1/runs/{}", begun.json()["run"].as_str().unwrap());
    while !["completed", "failed"].contains(&served.get(&path, &who).await.json()["state"].as_str().unwrap()) {
        tokio::task::yield_now().await;
    }
    let run = served.get(&path, &who).await.body;
    assert!(run.contains("completed"), "{run}");
    told += &run;
    told += &served.follow(&format!("{path}/events"), &who).await.heard;
    let log = served.log.clone();
    served.end();

    holds_none("an answer", told.as_bytes());
    let log = log.lock().unwrap().clone();
    assert!(log.contains("[secret kept]"), "the trace holds what the server said: {log}");
    holds_none("the log", log.as_bytes());
    for args in [&["check"][..], &["check", "--json"], &["runs", "--json"], &["diff", "pleach.toml", "pleach.toml"]] {
        let ran = with_variable(&folder, args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        holds_none(&format!("{args:?}"), format!("{}{}", ran.out, ran.err).as_bytes());
    }
    let runs = with_variable(&folder, &["runs", "--json"]).out;
    let run = serde_json::from_str::<serde_json::Value>(runs.lines().next().unwrap()).unwrap();
    let shown = with_variable(&folder, &["show", run["run"].as_str().unwrap(), "--json"]);
    assert!(shown.out.contains("[secret kept]"), "{shown:?}");
    holds_none("show", shown.out.as_bytes());
    let mut all = Vec::new();
    written(folder.path(), &mut all);
    assert!(String::from_utf8_lossy(&all).contains("[secret kept]"), "the journal was searched");
    holds_none("a file", &all);
}

fn with_variable(folder: &Folder, args: &[&str]) -> Ran {
    Ran::of(folder.command(args).env("CANARY_VARIABLE", VARIABLE).output().unwrap())
}

#[test]
fn the_file_of_a_secret_is_in_no_grant_and_its_neighbours_are() {
    let folder = folder("http://127.0.0.1:1/mcp");
    std::os::unix::fs::symlink("keys/token", folder.join("alias")).unwrap();
    let cat = |path: &str| with_variable(&folder, &["exec", "--", "cat", path]);
    for path in ["keys/token", "alias", "keys/../keys/token"] {
        let ran = cat(path);
        holds_none(path, format!("{}{}", ran.out, ran.err).as_bytes());
    }
    assert_eq!(cat("docs/a.md").out, "benign");
    assert!(cat("keys/make").out.contains("echo"), "the folder is granted");
    let args = json!({ "file_path": "keys/token" }).to_string();
    let ran = with_variable(&folder, &["explain", "--agent", "a", "--tool", "files__Read", "--args", &args]);
    assert!(ran.out.contains("deny") || ran.out.contains("denied"), "{ran:?}");
    let args = json!({ "file_path": "docs/a.md" }).to_string();
    let ran = with_variable(&folder, &["explain", "--agent", "a", "--tool", "files__Read", "--args", &args]);
    assert!(ran.out.contains("allow"), "{ran:?}");
}

#[test]
fn what_is_wrong_with_a_secret_is_said_at_its_place_without_a_word_of_it() {
    let wrong = |prepare: &dyn Fn(&Folder), args: &[&str]| {
        let folder = folder("http://127.0.0.1:1/mcp");
        prepare(&folder);
        let ran = with_variable(&folder, args);
        let said = format!("{}{}", ran.out, ran.err);
        holds_none("an error", said.as_bytes());
        (ran.code, said)
    };
    let (code, said) = wrong(&|f| std::fs::remove_file(f.join("keys/token")).unwrap(), &["check"]);
    assert!(
        code == 2 && said.contains("pleach.toml:2:10: secret kept: ") && said.contains("it is not there"),
        "{said}"
    );
    let (code, said) = wrong(&|f| write_private(f, "keys/token", "\n", 0o600), &["check"]);
    assert!(code == 2 && said.contains("secret kept: ") && said.contains("is empty"), "{said}");
    let broken = format!("#!/bin/sh\necho {COMMAND}; echo {COMMAND} >&2; exit 7\n");
    let (code, said) = wrong(&|f| write_private(f, "keys/make", &broken, 0o700), &["exec", "--", "true"]);
    assert!(code == 2 && said.contains("pleach.toml:4:10: secret made: "), "{code}: {said}");
    assert!(said.contains("exit code 7"), "{said}");
    // Looking at a file runs nothing of it.
    let (code, said) =
        wrong(&|f| write_private(f, "keys/make", "#!/bin/sh\ntouch \"${0%/*}/../ran\"; echo x\n", 0o700), &["check"]);
    assert!(code == 0 && said.contains("Secret made comes from the command"), "{said}");
    let (code, said) = wrong(&|f| write_private(f, "keys/token", FILE, 0o644), &["check"]);
    assert!(code == 0 && said.contains("can be read or changed by others (mode 644); run chmod 600"), "{said}");
    let (_, said) = wrong(&|_| {}, &["check"]);
    assert!(!said.contains("chmod"), "{said}");
}

/// A command that an agent could write would be a way out of every sandbox.
#[test]
fn a_command_that_agents_may_write_is_not_run() {
    let folder = folder("http://127.0.0.1:1/mcp");
    write_private(&folder, "keys/make", "#!/bin/sh\ntouch \"${0%/*}/../ran\"\necho long-enough-value\n", 0o700);
    let ran = with_variable(&folder, &["exec", "--", "true"]);
    assert!(ran.code == 0 && folder.join("ran").exists(), "its benign twin runs: {ran:?}");
    std::fs::remove_file(folder.join("ran")).unwrap();
    let policy = folder.read("pleach.toml").unwrap();
    folder.write("pleach.toml", &policy.replace("read = [\".\"]", "read_write = [\"keys\"]"));
    let ran = with_variable(&folder, &["exec", "--", "true"]);
    assert!(ran.code == 2 && ran.err.contains("can be written under [policy] filesystem"), "{ran:?}");
    assert!(!folder.join("ran").exists());

    // The same where the program is found on PATH, in a folder they may write.
    let by_name = policy.replace("./keys/make", "make");
    let found = format!("{}:{}", folder.join("keys").display(), std::env::var("PATH").unwrap());
    let tried = || {
        let mut command = folder.command(&["exec", "--", "true"]);
        Ran::of(command.env("CANARY_VARIABLE", VARIABLE).env("PATH", &found).output().unwrap())
    };
    folder.write("pleach.toml", &by_name);
    let ran = tried();
    assert!(ran.code == 0 && folder.join("ran").exists(), "its benign twin runs: {ran:?}");
    std::fs::remove_file(folder.join("ran")).unwrap();
    folder.write("pleach.toml", &by_name.replace("read = [\".\"]", "read_write = [\"keys\"]"));
    let ran = tried();
    assert!(ran.code == 2 && ran.err.contains("can be written under [policy] filesystem"), "{ran:?}");
    assert!(!folder.join("ran").exists());
}
