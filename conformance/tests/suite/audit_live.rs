//! The record under a policy that changes: the change itself is on it, what was decided by it
//! stands behind it, and no change takes the record away.

use crate::audit::{POLICY, call, denied, fill, on_small_disk, records, verify};
use crate::live::{change, eventually, metric};
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};
use std::process::Command;

fn folder(policy: &str) -> Folder {
    let folder = Folder::new(policy);
    folder.write("docs/a.md", "hello");
    folder
}

/// By another program than ours.
fn sha256(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    std::fs::write(&file, text).unwrap();
    let told = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(told.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Nothing may be written, by a rule a line further down.
fn narrowed() -> String {
    let deny = "deny = [\"files__Write\"], allow";
    POLICY.replace("tools = { allow", &format!("# narrower\ntools = {{ {deny}"))
}

fn write(file: &str) -> Value {
    json!({ "name": "files__Write", "arguments": { "file_path": file, "content": "x" } })
}

fn read() -> Value {
    json!({ "name": "files__Read", "arguments": { "file_path": "docs/a.md" } })
}

fn seq(record: &Value) -> u64 {
    record["seq"].as_u64().unwrap()
}

fn policies(all: &[Value]) -> Vec<&Value> {
    all.iter().filter(|r| r["what"] == "policy").collect()
}

#[tokio::test]
async fn a_changed_policy_is_on_record_and_what_every_door_decides_by_it() {
    let folder = folder(POLICY);
    folder.write(
        "replies.toml",
        "[[reply]]\ntext = \"w\"\n[[reply.tool]]\nname = \"files__Write\"\n\
         input = { file_path = \"out/rest\", content = \"x\" }\n[[reply.tool]]\nname = \"files__Read\"\n\
         input = { file_path = \"docs/a.md\" }\n[[reply]]\ntext = \"done\"\n",
    );
    let served = Served::start(&folder);
    let session = served.initialize("/mcp", &[]).await;
    for path in ["/mcp", "/mcp/agents/lead"] {
        assert!(!denied(&served.modern(path, "tools/call", write("out/before"), &[]).await.json()));
    }
    assert!(!denied(&served.legacy("/mcp", &session, "tools/call", write("out/before"), &[]).await.json()));
    change(&folder, &served, &narrowed()).await;
    for path in ["/mcp", "/mcp/agents/lead"] {
        assert!(denied(&served.modern(path, "tools/call", write("out/after"), &[]).await.json()));
        assert!(!denied(&served.modern(path, "tools/call", read(), &[]).await.json()));
    }
    assert!(denied(&served.legacy("/mcp", &session, "tools/call", write("out/after"), &[]).await.json()));
    let begun = served.post("/v1/runs", &[], json!({ "agent": "lead", "prompt": "go" }).to_string()).await;
    let run = begun.json()["run"].as_str().unwrap_or_else(|| panic!("{begun:?}")).to_owned();
    let path = format!("/v1/runs/{run}");
    while served.get(&path, &[]).await.json()["state"] != "completed" {
        tokio::task::yield_now().await;
    }
    let message = json!({ "messageId": "m1", "role": "ROLE_USER", "parts": [{ "text": "go" }] });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": { "message": message } });
    let task = served.post("/a2a/lead", &[("a2a-version", "1.0")], body.to_string()).await.json();
    assert_eq!(task["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
    served.end();
    assert!(!folder.join("out/after").exists() && !folder.join("out/rest").exists());
    let all = records(&folder, &[]);
    let [first, second] = policies(&all)[..] else { panic!("{:#?}", policies(&all)) };
    assert_eq!(first["sha256"], json!(sha256(POLICY)));
    assert_eq!((&second["before"], &second["sha256"]), (&first["sha256"], &json!(sha256(&narrowed()))));
    assert_eq!((&second["verdict"], &second["by"]), (&json!("allow"), &json!("the watch")));
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.join("pleach.toml")).unwrap());
    assert_eq!(second["owner"], json!(uid));
    assert!(second["changes"].to_string().contains("narrower: "), "{second}");
    let (before, after): (Vec<_>, Vec<_>) =
        all.iter().filter(|r| r["what"] == "call").partition(|r| seq(r) < seq(second));
    let with = |all: &[&Value], tool: &str, verdict: &str| {
        let doors = all.iter().filter(|r| r["tool"] == tool && r["verdict"] == verdict);
        doors.map(|r| r["door"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sorted = |mut doors: Vec<String>| {
        doors.sort();
        doors
    };
    assert_eq!(sorted(with(&before, "files__Write", "allow")), ["mcp", "mcp", "mcp/agents/lead"]);
    assert_eq!(sorted(with(&after, "files__Write", "deny")), ["a2a", "mcp", "mcp", "mcp/agents/lead", "rest"]);
    assert_eq!(sorted(with(&after, "files__Read", "allow")), ["a2a", "mcp", "mcp/agents/lead", "rest"]);
    assert!(with(&after, "files__Write", "allow").is_empty());
    let refused = after.iter().find(|r| r["door"] == "rest" && r["verdict"] == "deny").unwrap();
    assert_eq!((&refused["run"], &refused["place"]), (&json!(run), &json!("pleach.toml:12")), "{refused}");
    assert!(refused["rule"].as_str().unwrap().contains("tools.deny \"files__Write\""), "{refused}");
    assert_eq!(verify(&folder, &[]).code, 0);
}

#[tokio::test]
async fn a_policy_that_does_not_hold_is_on_record_and_no_word_of_it() {
    let folder = folder(POLICY);
    let served = Served::start(&folder);
    let broken = POLICY.replace("max_access = \"destructive\"", "max_access = \"CANARY-VALUE\"");
    let broken = broken.replace("prompt = \"Lead.\"", "prompt = \"CANARY-PROMPT\"\nCANARY_KEY = \"CANARY-TOO\"");
    folder.write("pleach.toml", &broken);
    let refused = "pleach_policy_refused_total";
    let waited = async {
        while metric(&served, refused).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waited).await.unwrap();
    // The one in force stands; the same file once more is no news.
    assert!(!denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    change(&folder, &served, &narrowed()).await;
    served.end();
    let all = records(&folder, &[]);
    let [first, second, third] = policies(&all)[..] else { panic!("{:#?}", policies(&all)) };
    assert_eq!((&second["verdict"], &second["before"]), (&json!("deny"), &first["sha256"]));
    assert_eq!(second["sha256"], json!(sha256(&broken)));
    assert!(second["place"].as_str().unwrap().starts_with("pleach.toml:"), "{second}");
    assert!(second["rule"].as_str().unwrap().contains("does not hold"), "{second}");
    assert_eq!((&third["verdict"], &third["before"]), (&json!("allow"), &first["sha256"]));
    assert!(all.iter().all(|r| !r.to_string().contains("CANARY")), "{all:#?}");
}

/// Wherever the next policy wants it, the record in use stays where it is and closed to agents.
#[tokio::test]
async fn no_change_opens_the_record() {
    let folder = folder(POLICY);
    let served = Served::start(&folder);
    assert!(!denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    let wide = POLICY.replace("read = [\"docs\"], read_write = [\"out\"]", "read_write = [\".\"]");
    change(&folder, &served, &format!("{wide}[audit]\nfolder = \"elsewhere\"\n")).await;
    let log = "pleach.audit.d/000001.ndjson";
    let twin = json!({ "file_path": "new.txt", "content": "x" });
    let open = call(&served, "files__Write", twin).await;
    assert!(!denied(&open), "{open}");
    assert!(denied(&call(&served, "files__Read", json!({ "file_path": log })).await));
    assert!(denied(&call(&served, "files__Write", json!({ "file_path": log, "content": "x" })).await));
    let shell = "cat pleach.audit.d/* new.txt; rm -rf pleach.audit.d; mv pleach.audit.d gone; echo x > pleach.audit.d/000002.ndjson";
    let told = call(&served, "files__Bash", json!({ "command": shell })).await.to_string();
    assert!(!told.contains("seq") && told.contains('x'), "{told}");
    served.end();
    assert!(!folder.join("pleach.audit.d/000002.ndjson").exists());
    let there = ["--folder", "pleach.audit.d"];
    assert_eq!(verify(&folder, &there).code, 0);
    let all = records(&folder, &there);
    let last = policies(&all).pop().unwrap().clone();
    assert_eq!(last["waits"], "[audit]", "{last}");
    let (files, said) = (["new.txt", log], last["rule"].as_str().unwrap());
    assert!(said.contains("widen") && files.iter().all(|f| all.iter().any(|r| r.to_string().contains(f))), "{said}");
}

/// A policy that narrows is in force at once, recorded or not; the record of it is owed.
#[tokio::test]
async fn a_change_that_cannot_be_put_on_record_is_owed() {
    let policy = format!("{POLICY}[audit]\nfolder = \"disk/audit\"\n");
    let folder = folder(&policy);
    let (served, disk) = on_small_disk(&folder);
    let arguments = |n: u32| json!({ "file_path": format!("out/{n}"), "content": "x" });
    assert!(!denied(&call(&served, "files__Write", arguments(0)).await));
    fill(&disk);
    let mut n = 1;
    while !denied(&call(&served, "files__Write", arguments(n)).await) {
        n += 1;
        assert!(n < 60);
    }
    let next = policy.replace("allow = [\"files__*\"]", "allow = [\"files__*\"], deny = [\"files__Write\"]");
    change(&folder, &served, &next).await;
    assert!(denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    std::fs::remove_file(disk.join("ballast")).unwrap();
    assert!(!denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    assert!(denied(&call(&served, "files__Write", arguments(99)).await));
    let there = ["--folder", disk.join("audit").to_str().unwrap()].map(str::to_owned);
    let there = there.each_ref().map(String::as_str);
    assert_eq!(verify(&folder, &there).code, 0);
    let all = records(&folder, &there);
    let at = |is: &dyn Fn(&Value) -> bool| seq(all.iter().find(|r| is(r)).unwrap_or_else(|| panic!("{all:#?}")));
    let gap = at(&|r| r["what"] == "gap");
    let changed = at(&|r| r["what"] == "policy" && r["sha256"] == json!(sha256(&next)));
    let ruled = at(&|r| r["rule"].as_str().is_some_and(|rule| rule.contains("tools.deny")));
    assert!(gap < changed && changed < ruled, "{gap} {changed} {ruled}");
    assert!(!folder.join("out/99").exists());
}

/// A call that is under way when it is forbidden: how it ended, and by which rule, is noted.
#[tokio::test]
async fn what_is_withdrawn_is_on_record() {
    let folder = folder(POLICY);
    let served = Served::start(&folder);
    let wait = json!({ "command": "touch out/at; sleep 60; touch out/late" });
    let calling = call(&served, "files__Bash", wait);
    let changing = async {
        eventually("the call", || folder.join("out/at").exists()).await;
        let next = POLICY.replace("allow = [\"files__*\"]", "allow = [\"files__*\"], deny = [\"files__Bash\"]");
        change(&folder, &served, &next).await;
    };
    let (answer, ()) = tokio::join!(calling, changing);
    assert!(denied(&answer), "{answer}");
    served.end();
    let all = records(&folder, &[]);
    let begun = all.iter().find(|r| r["tool"] == "files__Bash" && r["verdict"] == "allow").unwrap();
    let outcome = all.iter().find(|r| r["what"] == "outcome" && r["of"] == begun["seq"]).unwrap();
    assert_eq!((&outcome["outcome"], &outcome["verdict"]), (&json!("withdrawn"), &json!("deny")), "{outcome}");
    assert!(outcome["rule"].as_str().unwrap().contains("tools.deny \"files__Bash\""), "{outcome}");
    assert!(!folder.join("out/late").exists());
}
