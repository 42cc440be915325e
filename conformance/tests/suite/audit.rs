//! The record of decisions, looked at from outside: what is on it, what harms it, and that
//! nothing happens that cannot be put on it.

use conformance::ledger::Ledger;
use conformance::pleach::{Folder, Ran};
use conformance::served::Served;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "destructive"
filesystem = { read = ["docs"], read_write = ["out"] }
tools = { allow = ["files__*"] }
[agents.lead]
prompt = "Lead."
"#;

pub(crate) fn folder(more: &str) -> Folder {
    let folder = Folder::new(&format!("{POLICY}{more}"));
    folder.write("docs/a.md", "hello");
    folder
}

pub(crate) fn records(folder: &Folder, more: &[&str]) -> Vec<Value> {
    let ran = folder.run(&[&["audit", "show", "--json"], more].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

pub(crate) fn verify(folder: &Folder, more: &[&str]) -> Ran {
    folder.run(&[&["audit", "verify"], more].concat())
}

pub(crate) async fn call(served: &Served, tool: &str, arguments: Value) -> Value {
    let answer = served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": arguments }), &[]).await;
    answer.json()
}

pub(crate) fn denied(answer: &Value) -> bool {
    answer["result"]["isError"] == true || answer.get("error").is_some()
}

#[tokio::test]
async fn what_was_wanted_is_on_record_and_no_value_of_it() {
    let folder = folder("");
    let served = Served::start(&folder);
    assert!(!denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    let write = json!({ "file_path": "out/x.txt", "content": "CANARY-CONTENT" });
    assert!(!denied(&call(&served, "files__Write", write).await));
    assert!(denied(&call(&served, "files__Read", json!({ "file_path": "/etc/passwd" })).await));
    assert!(denied(&call(&served, "files__Nope", json!({})).await));
    assert!(denied(&call(&served, "files__Read", json!({ "file_path": 7, "x": "CANARY-WRONG" })).await));
    served.end();
    let all = records(&folder, &[]);
    let of = |tool: &str, verdict: &str| {
        let found = all.iter().find(|r| r["tool"] == tool && r["verdict"] == verdict && r["what"] == "call");
        found.unwrap_or_else(|| panic!("{tool} {verdict}: {all:#?}")).clone()
    };
    let written = of("files__Write", "allow");
    assert_eq!(written["door"], "mcp");
    assert_eq!(written["chain"], json!(["root policy"]));
    assert_eq!(written["touches"], json!([format!("write {}", folder.join("out/x.txt").display())]));
    assert_eq!(written["form"], json!({ "file_path": "string", "content": "string" }));
    assert_eq!(written["place"], "pleach.toml:11");
    let outcome = all.iter().find(|r| r["what"] == "outcome" && r["of"] == written["seq"]).unwrap();
    assert_eq!(outcome["outcome"], "ok");
    let refused = of("files__Read", "deny");
    assert!(refused["rule"].as_str().unwrap().contains("filesystem.read does not cover /etc/passwd"), "{refused}");
    of("files__Nope", "deny");
    assert!(all.iter().any(|r| r["what"] == "process" && r["server"] == "files"));
    assert!(all.iter().any(|r| r["what"] == "policy" && r["sha256"].as_str().unwrap().len() == 64));
    assert!(all.iter().all(|r| !r.to_string().contains("CANARY")), "{all:#?}");
    // Not a byte of it for the sandboxed.
    let peek = folder.run(&["exec", "--", "sh", "-c", "cat pleach.audit.d/*; echo x > pleach.audit.d/000009.ndjson"]);
    assert!(!peek.out.contains("seq") && !folder.join("pleach.audit.d/000009.ndjson").exists(), "{peek:?}");
}

#[tokio::test]
async fn harm_to_the_record_is_found() {
    let folder = folder("");
    let served = Served::start(&folder);
    for i in 0..5 {
        call(&served, "files__Write", json!({ "file_path": format!("out/{i}"), "content": "x" })).await;
    }
    let log = served.log.clone();
    served.end();
    let head = folder.run(&["audit", "head"]);
    let hash = head.out.split_whitespace().nth(1).unwrap().to_owned();
    // serve said the same as it ended; its log is read by another thread.
    let said = |log: &std::sync::Mutex<String>| log.lock().unwrap().contains(&hash);
    crate::sandbox_processes::wait_until("the head", || said(&log));
    assert_eq!(verify(&folder, &["--head", &hash]).code, 0);
    let file = folder.join("pleach.audit.d/000001.ndjson");
    let whole = std::fs::read_to_string(&file).unwrap();
    let harmed = |text: &str, args: &[&str], words: &str| {
        std::fs::write(&file, text).unwrap();
        let ran = verify(&folder, args);
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(ran.code, 1, "{words}: {ran:?}");
        assert!(ran.out.contains(words), "{words}: {ran:?}");
    };
    harmed(&whole.replacen("out/3", "out/9", 1), &[], "it was edited");
    let lines: Vec<&str> = whole.lines().collect();
    let without =
        |n: usize| lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| format!("{l}\n")).collect::<String>();
    harmed(&without(4), &[], "record 6: it follows record 4: 5 to 5 were deleted");
    let mut swapped = lines.clone();
    swapped.swap(5, 6);
    harmed(&(swapped.join("\n") + "\n"), &[], "were deleted");
    // A cut at the end is found by who noted the head.
    let cut = lines[..lines.len() - 2].join("\n") + "\n";
    std::fs::write(&file, &cut).unwrap();
    assert_eq!(verify(&folder, &[]).code, 0);
    harmed(&cut, &["--head", &hash], "the chain was cut before it");
    assert_eq!(verify(&folder, &["--head", &hash]).code, 0, "as it was");
}

/// Served with the record on a small disk of its own; reached through the process's root.
pub(crate) fn on_small_disk(folder: &Folder) -> (Served, std::path::PathBuf) {
    std::fs::create_dir_all(folder.join("disk")).unwrap();
    let inner = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=128k tmpfs \"$1\" && shift && exec \"$@\"";
    command
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(folder.join("disk"))
        .arg(inner.get_program())
        .args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(folder.path());
    let served = Served::of(command);
    let root = format!("/proc/{}/root{}", served.pid(), folder.join("disk").display());
    (served, root.into())
}

pub(crate) fn fill(disk: &Path) {
    let mut ballast = std::fs::File::create(disk.join("ballast")).unwrap();
    let block = [0u8; 4096];
    while std::io::Write::write_all(&mut ballast, &block).is_ok() {}
    // To the last byte of the last page.
    while std::io::Write::write(&mut ballast, &block[..1]).is_ok_and(|n| n > 0) {}
}

/// Scored by the file that is not written.
#[tokio::test]
async fn a_full_disk_lets_nothing_through_until_there_is_room() {
    let folder = folder("[audit]\nfolder = \"disk/audit\"\n");
    let (served, disk) = on_small_disk(&folder);
    let write = |n: u32| json!({ "file_path": format!("out/{n}"), "content": "x" });
    assert!(!denied(&call(&served, "files__Write", write(0)).await));
    fill(&disk);
    // What is left of the last page takes a few records.
    let mut passed = Vec::new();
    for n in 1..60 {
        let answer = call(&served, "files__Write", write(n)).await;
        if !denied(&answer) {
            passed.push(n);
        } else {
            let said = answer.to_string();
            assert!(said.contains("cannot be put on record (No space left on device"), "{answer}");
            assert!(said.contains("Fix: make room") && !said.contains("/disk"), "{answer}");
        }
    }
    let there = |n: u32| folder.join(&format!("out/{n}")).exists();
    assert!((1..60).all(|n| there(n) == passed.contains(&n)), "what was refused did not happen");
    assert!(passed.len() < 20, "{passed:?}");
    assert!(denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    assert!(served.get("/metrics", &[]).await.body.contains("pleach_audit_broken 1"));
    assert!(served.log.lock().unwrap().contains("make room; [audit] keep"), "{:?}", served.log);
    // By itself, as soon as there is room.
    std::fs::remove_file(disk.join("ballast")).unwrap();
    assert!(!denied(&call(&served, "files__Write", write(99)).await));
    assert!(there(99));
    let verified = folder.run(&["audit", "verify", "--folder", disk.join("audit").to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let shown = folder.run(&["audit", "show", "--json", "--folder", disk.join("audit").to_str().unwrap()]);
    let gap = shown.out.lines().find(|l| l.contains("\"what\":\"gap\"")).unwrap_or_else(|| panic!("{shown:?}"));
    let gap: Value = serde_json::from_str(gap).unwrap();
    assert!(gap["refused"].as_u64().unwrap() >= 39, "{gap}");
}

/// A folder that cannot be written: `exec` refuses, and its command does not run.
#[test]
fn what_cannot_be_put_on_record_is_not_started() {
    let folder = folder("[audit]\nfolder = \"taken\"\n");
    folder.write("taken", "a file, not a folder");
    let ran = folder.run(&["exec", "--", "touch", "out/x"]);
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.err.contains("cannot be put on record") && ran.err.contains("[audit] folder"), "{ran:?}");
    assert!(!folder.join("out/x").exists());
    std::fs::remove_file(folder.join("taken")).unwrap();
    let ran = folder.run(&["exec", "--", "touch", "out/x"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(folder.join("out/x").exists());
}

/// Killed at any moment: what happened is on record, and what the crash left is no tampering.
#[tokio::test]
async fn what_happened_before_a_kill_is_on_record() {
    let folder = folder("");
    for round in 0..4u32 {
        let served = Served::start(&folder);
        let calls = (0..40u32).map(|n| {
            let served = &served;
            async move {
                let arguments = json!({ "file_path": format!("out/{round}-{n}"), "content": "x" });
                let params = json!({ "name": "files__Write", "arguments": arguments });
                let asked = served.begin("/mcp", "tools/call", params, &[]);
                let _ = tokio::time::timeout(std::time::Duration::from_millis(30 + u64::from(n) * 5), asked).await;
            }
        });
        futures_join(calls).await;
        drop(served);
    }
    let ran = verify(&folder, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let on_record: Vec<String> = records(&folder, &[])
        .iter()
        .filter(|r| r["verdict"] == "allow")
        .map(|r| r["touches"][0].as_str().unwrap_or("").to_owned())
        .collect();
    let mut happened = 0;
    for entry in std::fs::read_dir(folder.join("out")).unwrap().flatten() {
        let name = entry.file_name().display().to_string();
        let words = format!("write {}", folder.join("out").join(crate::audit_kills::meant(&name)).display());
        assert!(on_record.contains(&words), "{words} happened and is not on record");
        happened += 1;
    }
    assert!(happened > 0);
}

async fn futures_join<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    for one in all {
        one.await;
    }
}

/// The way out: each connection of a sandboxed process is on record before it is opened.
#[test]
fn connections_are_on_record() {
    let ledger = Ledger::start();
    let folder = folder("");
    let policy =
        folder.read("pleach.toml").unwrap().replace("tools =", "networks = { allow = [\"127.0.0.1/32\"] }\ntools =");
    folder.write("pleach.toml", &policy);
    let url = format!("http://{}/x?secret=CANARY-QUERY", ledger.address);
    let ran = folder.run(&["exec", "--", "curl", "-sS", "-m", "10", &url]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "pong"), "{ran:?}");
    folder.run(&["exec", "--", "curl", "-sS", "-m", "10", "http://evil.example.com/"]);
    let all = records(&folder, &[]);
    let target = ledger.address.to_string();
    assert!(
        all.iter().any(|r| r["what"] == "connect" && r["target"] == *target && r["verdict"] == "allow"),
        "{all:#?}"
    );
    let refused = all.iter().find(|r| r["target"] == "evil.example.com:80").unwrap();
    assert_eq!(refused["verdict"], "deny");
    assert!(all.iter().all(|r| !r.to_string().contains("CANARY")));
    let shown = folder.run(&["audit", "show", "--denied"]);
    assert!(shown.out.lines().count() == 1 && shown.out.contains("domains.allow does not cover"), "{shown:?}");
}

/// A run's own doings: it begins, asks its model, asks a person, is answered, calls.
#[test]
fn what_runs_do_is_on_record() {
    let folder = folder("");
    let policy = folder.read("pleach.toml").unwrap().replace("allow = [\"files__*\"]", "ask = [\"files__Write\"]");
    folder.write("pleach.toml", &policy);
    folder.write(
        "replies.toml",
        "[[reply]]\ntext = \"w\"\n[[reply.tool]]\nname = \"files__Write\"\n\
         input = { file_path = \"out/x.txt\", content = \"CANARY\" }\n[[reply]]\ntext = \"done\"\n",
    );
    let waits = folder.run(&["run", "go"]);
    assert_eq!(waits.code, 5, "{waits:?}");
    let id = waits.err.split_whitespace().find(|w| w.starts_with("q-")).unwrap();
    let id = id.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let done = folder.run(&["answer", id, "allow"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(folder.read("out/x.txt").as_deref(), Some("CANARY"));
    let all = records(&folder, &[]);
    let find = |what: &str, verdict: &str| {
        let found = all.iter().find(|r| r["what"] == what && r["verdict"] == verdict);
        found.unwrap_or_else(|| panic!("{what} {verdict}: {all:#?}"))
    };
    assert_eq!(find("spawn", "allow")["agent"], "lead");
    assert_eq!(find("model", "allow")["model"], "default");
    assert_eq!(find("call", "ask")["door"], "cli");
    assert_eq!(
        (&find("answer", "allow")["answer"], &find("answer", "allow")["question"]),
        (&json!("allow"), &json!(id))
    );
    let call = find("call", "allow");
    assert!(call["rule"].as_str().unwrap().contains("approved by"), "{call}");
    assert_eq!(call["chain"], json!(["root policy", "agent lead"]));
    let order = |r: &Value| r["seq"].as_u64().unwrap();
    assert!(
        order(find("call", "ask")) < order(find("answer", "allow")) && order(find("answer", "allow")) < order(call)
    );
    assert!(all.iter().all(|r| !r.to_string().contains("CANARY")));
    let run = call["run"].as_str().unwrap();
    assert!(records(&folder, &["--run", run]).iter().any(|r| r["what"] == "model"));
    assert_eq!(verify(&folder, &[]).code, 0);
}

/// A provider is told a conversation when it only counts its tokens, so that is on record too.
#[test]
fn what_a_provider_is_told_is_on_record() {
    let ledger = Ledger::start();
    let folder = folder("");
    let policy = folder.read("pleach.toml").unwrap();
    let provider = format!(
        "provider = \"anthropic\"\nmodel = \"m\"\napi_key = \"CANARY-API-KEY\"\nbase_url = \"http://{}\"\n",
        ledger.address
    );
    let scripted = "provider = \"scripted\"\nscript = \"replies.toml\"\n";
    folder.write("pleach.toml", &policy.replace(scripted, &provider));
    let ran = folder.run(&["run", "CANARY-PROMPT"]);
    // It answers `pong`, which is no answer.
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = |path: &str| ledger.seen().iter().filter(|seen| seen.starts_with(&format!("POST {path} "))).count();
    assert!(told("/v1/messages/count_tokens") == 1 && told("/v1/messages") >= 1, "{:#?}", ledger.seen());
    let all = records(&folder, &[]);
    let asked: Vec<&Value> = all.iter().filter(|r| r["what"] == "model" && r["verdict"] == "allow").collect();
    assert!(asked.len() == 2 && asked[0]["for"] == "count" && asked[1]["for"].is_null(), "{asked:#?}");
    assert!(all.iter().all(|r| !r.to_string().contains("CANARY")), "{all:#?}");
}

/// Many processes of one policy file write one chain.
#[test]
fn many_processes_make_one_chain() {
    let folder = folder("");
    let mut children: Vec<_> = (0..4)
        .map(|n| {
            let mut command = folder.command(&["exec", "--", "touch", &format!("out/{n}")]);
            command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    assert_eq!(verify(&folder, &[]).code, 0);
    let all = records(&folder, &[]);
    assert_eq!(all.iter().filter(|r| r["what"] == "process").count(), 4);
}
