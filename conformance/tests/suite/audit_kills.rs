//! A process that dies at the worst moments: what happened is on record. Judged by the files that
//! are there and by the record, never by what the process said.

use crate::audit::{POLICY, records, verify};
use conformance::pleach::Folder;
use conformance::served::{Served, modern_body};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("docs/a.md", "hello");
    folder
}

/// Records that let a file be written, by its path.
fn allowed(folder: &Folder) -> Vec<String> {
    let all = records(folder, &[]);
    let allowed = all.iter().filter(|r| r["what"] == "call" && r["verdict"] == "allow");
    allowed.map(|r| r["touches"][0].as_str().unwrap_or("").to_owned()).collect()
}

fn on_record(folder: &Folder, file: &str) -> bool {
    allowed(folder).contains(&format!("write {}", folder.join(file).display()))
}

/// The points of one call, in their order: whether its record stands when the process dies there,
/// and whether the call may have happened.
const POINTS: [(&str, bool, bool); 6] = [
    ("audit.call.before/1", false, false),
    ("audit.call.written/1", true, false),
    ("audit.call.synced/1", true, false),
    ("tool.call.before/1", true, false),
    ("tool.call.sent/1", true, true),
    ("tool.call.after/1", true, true),
];

#[test]
fn a_run_that_dies_has_on_record_what_it_did() {
    for (point, recorded, may_be) in POINTS {
        let folder = folder();
        folder.write(
            "replies.toml",
            "[[reply]]\ntext = \"w\"\n[[reply.tool]]\nname = \"files__Write\"\n\
             input = { file_path = \"out/x\", content = \"x\" }\n[[reply]]\ntext = \"done\"\n",
        );
        let mut command = folder.command(&["run", "go"]);
        let died = command.env("PLEACH_CRASH_AT", point).stdin(Stdio::null()).output().unwrap();
        assert_eq!(died.status.code(), None, "{point}: {died:?}");
        judge(&folder, point, recorded, may_be);
    }
}

#[test]
fn a_door_that_dies_has_on_record_what_it_let_through() {
    for (point, recorded, may_be) in POINTS {
        let folder = folder();
        let mut command = folder.command(&["serve", "--stdio"]);
        command.env("PLEACH_CRASH_AT", point).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let call = json!({ "name": "files__Write", "arguments": { "file_path": "out/x", "content": "x" } });
        let mut inbound = child.stdin.take().unwrap();
        writeln!(inbound, "{}", modern_body("tools/call", call)).unwrap();
        let died = child.wait().unwrap();
        drop(inbound);
        assert_eq!(died.code(), None, "{point}");
        judge(&folder, point, recorded, may_be);
    }
}

fn judge(folder: &Folder, point: &str, recorded: bool, may_be: bool) {
    let there = folder.join("out/x").exists();
    assert_eq!(on_record(folder, "out/x"), recorded, "{point}: {:#?}", records(folder, &[]));
    assert!(may_be || !there, "{point}: it was written");
    assert!(point != "tool.call.after/1" || there, "{point}: it was not");
    assert_eq!(verify(folder, &[]).code, 0, "{point}");
    let outcomes = records(folder, &[]).iter().filter(|r| r["what"] == "outcome").count();
    assert_eq!(outcomes, 0, "{point}: nobody was left to note it");
    // The next process goes on with the same chain.
    assert_eq!(folder.run(&["exec", "--", "touch", "out/next"]).code, 0);
    let whole = verify(folder, &[]);
    assert!(whole.code == 0 && whole.out.contains("whole"), "{whole:?}");
}

/// The file that was being written: what is not finished stands beside it under a name of its own.
pub(crate) fn meant(name: &str) -> &str {
    name.strip_prefix('.').and_then(|n| n.rsplit_once(".pleach-")).map_or(name, |(name, _)| name)
}

/// Many calls at once, killed while they are under way.
#[tokio::test]
async fn a_gateway_that_is_killed_has_on_record_what_it_let_through() {
    let folder = folder();
    let written = |folder: &Folder| {
        let entries = std::fs::read_dir(folder.join("out")).unwrap().flatten();
        entries.map(|e| format!("out/{}", meant(&e.file_name().display().to_string()))).collect::<Vec<_>>()
    };
    for round in 1..=5u32 {
        let served = Served::start(&folder);
        let (url, client) = (format!("{}/mcp", served.base), Served::client());
        let mut calls = tokio::task::JoinSet::new();
        for caller in 0..12u32 {
            let (url, client) = (url.clone(), client.clone());
            calls.spawn(async move {
                for n in 0.. {
                    let arguments = json!({ "file_path": format!("out/{round}-{caller}-{n}"), "content": "x" });
                    let body = modern_body("tools/call", json!({ "name": "files__Write", "arguments": arguments }));
                    let request = client.post(&url).header("content-type", "application/json");
                    let request = request.header("accept", "application/json, text/event-stream");
                    let request = request.header("mcp-protocol-version", "2026-07-28");
                    let request = request.header("mcp-method", "tools/call").header("mcp-name", "files__Write");
                    let answer = request.body(body.to_string()).send().await;
                    if answer.is_err() {
                        return;
                    }
                }
            });
        }
        let goal = written(&folder).len() + 25 * round as usize;
        crate::live::eventually("calls under way", || written(&folder).len() >= goal).await;
        // Dropped, it is killed.
        drop(served);
        calls.join_all().await;
    }
    let ran = verify(&folder, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (allowed, happened) = (allowed(&folder), written(&folder));
    for file in &happened {
        let words = format!("write {}", folder.join(file).display());
        assert!(allowed.contains(&words), "{words} happened and is not on record");
    }
    assert!(happened.len() >= 100, "{}", happened.len());
}

/// What writes waits for the disk, in this order.
#[test]
fn what_writes_leaves_when_its_record_is_on_the_disk() {
    let folder = folder();
    folder.write(
        "replies.toml",
        "[[reply]]\ntext = \"w\"\n[[reply.tool]]\nname = \"files__Write\"\n\
         input = { file_path = \"out/x\", content = \"x\" }\n[[reply]]\ntext = \"done\"\n",
    );
    let log = folder.join("order");
    let ran = folder.command(&["run", "go"]).env("PLEACH_CRASH_LOG", &log).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let order = std::fs::read_to_string(log).unwrap();
    let at = |point: &str| order.lines().position(|line| line == point).unwrap_or_else(|| panic!("{point}: {order}"));
    let points = ["audit.call.before/1", "audit.call.written/1", "audit.call.synced/1", "tool.call.sent/1"];
    let places = points.map(at);
    assert!(places.is_sorted(), "{points:?} {places:?}");
}

/// What only reads does not wait for the disk, and is on record all the same.
#[test]
fn what_reads_leaves_when_its_record_is_written() {
    let folder = folder();
    let mut command = folder.command(&["serve", "--stdio"]);
    command.env("PLEACH_CRASH_AT", "tool.call.before/1").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let call: Value = json!({ "name": "files__Read", "arguments": { "file_path": "docs/a.md" } });
    let mut inbound = child.stdin.take().unwrap();
    writeln!(inbound, "{}", modern_body("tools/call", call)).unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    drop(inbound);
    let all = records(&folder, &[]);
    assert!(all.iter().any(|r| r["tool"] == "files__Read" && r["verdict"] == "allow"), "{all:#?}");
}
