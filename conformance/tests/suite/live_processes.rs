//! The policy changes: processes under a sandbox that became too wide are gone, with what they
//! had under way; those that still fit stay as they are.

use crate::live::{call, change, eventually};
use crate::rest::{ALICE, BOB};
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::json;
use std::collections::BTreeSet;

/// A process: its id and when it began, so that a number used again is another one.
type Process = (u32, u64);

fn processes() -> Vec<(Process, u32)> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let read = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            return None;
        }
        Some(((pid, fields.get(19)?.parse().ok()?), fields.get(1)?.parse().ok()?))
    };
    all.filter_map(read).collect()
}

/// Everything below a process.
fn below(root: u32) -> BTreeSet<Process> {
    let all = processes();
    let mut found = BTreeSet::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, p)| *p == parent) {
            if found.insert(*process) {
                parents.push(process.0);
            }
        }
    }
    found
}

fn policy(read: &str, more: &str) -> String {
    format!(
        "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n{more}\n[policy]\nmax_access = \"destructive\"\n\
         filesystem = {{ read = [{read}], read_write = [\"out\"] }}\ntools = {{ allow = [\"*\"] }}\n\
         [clients.alice]\ntoken = \"alice-alice-alice-alice\"\n\
         [clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n[clients.bob.policy]\n\
         filesystem = {{ read = [\"docs\"], read_write = [\"out\"] }}\n"
    )
}

fn folder() -> Folder {
    let folder = Folder::new(&policy("\"docs\", \"more\"", ""));
    folder.write("docs/a.md", "hello");
    folder.write("more/b.md", "secret");
    std::fs::create_dir_all(folder.join("out")).unwrap();
    folder
}

#[tokio::test]
async fn a_process_that_was_sandboxed_wider_is_dead() {
    let folder = folder();
    let served = Served::start(&folder);
    let cat = |file: &str| json!({ "command": format!("cat {}", folder.join(file).display()) });
    assert_eq!(call(&served, ALICE, "files__Bash", cat("more/b.md")).await.trim(), "secret");
    let alices = below(served.pid());
    assert!(!alices.is_empty());
    assert_eq!(call(&served, BOB, "files__Bash", cat("docs/a.md")).await.trim(), "hello");
    let bobs: BTreeSet<Process> = below(served.pid()).difference(&alices).copied().collect();
    assert!(!bobs.is_empty());

    let out = folder.join("out").display().to_string();
    let waits = |name: &str| {
        let command = format!("touch {out}/{name}.at; until [ -e {out}/go ]; do sleep 0.05; done; echo {name} done");
        json!({ "command": command })
    };
    let steps = async {
        for name in ["alice", "bob"] {
            eventually(name, || folder.join(&format!("out/{name}.at")).exists()).await;
        }
        let under_way = below(served.pid());
        assert!(under_way.len() > alices.len() + bobs.len(), "their commands run");
        change(&folder, &served, &policy("\"docs\"", "")).await;
        eventually("the wider process and all it started to be gone", || alices.is_disjoint(&below(served.pid())))
            .await;
        assert!(bobs.is_subset(&below(served.pid())), "what still fits stays");
        folder.write("out/go", "");
    };
    let (alice, bob, ()) = tokio::join!(
        call(&served, ALICE, "files__Bash", waits("alice")),
        call(&served, BOB, "files__Bash", waits("bob")),
        steps
    );
    assert!(alice.contains("the policy was changed"), "{alice}");
    assert_eq!(bob.trim(), "bob done", "its call goes on");

    // In the one that takes its place the folder is not there, and everything else is.
    let gone = call(&served, ALICE, "files__Bash", cat("more/b.md")).await;
    assert!(!gone.contains("secret"), "{gone}");
    assert_eq!(call(&served, ALICE, "files__Bash", cat("docs/a.md")).await.trim(), "hello");
    change(&folder, &served, &policy("\"docs\", \"more\"", "")).await;
    assert_eq!(call(&served, ALICE, "files__Bash", cat("more/b.md")).await.trim(), "secret");
    assert!(bobs.is_subset(&below(served.pid())));
}

/// A command that was detached from its call does not outlive the sandbox it was started in.
#[tokio::test]
async fn what_a_process_left_running_dies_with_it() {
    let folder = folder();
    let served = Served::start(&folder);
    let out = folder.join("out").display().to_string();
    let leaves = json!({ "command": format!("(setsid sh -c 'while :; do date +%N > {out}/beat; sleep 0.02; done' >/dev/null 2>&1 &)") });
    call(&served, ALICE, "files__Bash", leaves).await;
    eventually("its beat", || folder.join("out/beat").exists()).await;
    change(&folder, &served, &policy("\"docs\"", "")).await;
    eventually("everything to be gone", || below(served.pid()).is_empty()).await;
    let last = folder.read("out/beat");
    let read = call(&served, BOB, "files__Read", json!({ "file_path": folder.join("docs/a.md") })).await;
    assert!(read.contains("hello"), "{read}");
    assert_eq!(folder.read("out/beat"), last, "nobody writes any more");
}

#[tokio::test]
async fn servers_come_and_go_and_the_others_stay() {
    let folder = folder();
    let served = Served::start(&folder);
    let read = json!({ "file_path": folder.join("docs/a.md") });
    call(&served, ALICE, "files__Read", read.clone()).await;
    let files = below(served.pid());
    let both = "\"docs\", \"more\"";
    let second = "[servers.second]\nbuiltin = \"workspace\"\n";
    change(&folder, &served, &policy(both, second)).await;
    assert!(call(&served, ALICE, "second__Read", read.clone()).await.contains("hello"));
    assert!(files.is_subset(&below(served.pid())));
    let seconds: BTreeSet<Process> = below(served.pid()).difference(&files).copied().collect();
    assert!(!seconds.is_empty());
    // Another folder to work in: another process.
    let moved = format!("{second}cwd = \"docs\"\n");
    change(&folder, &served, &policy(both, &moved)).await;
    eventually("the process as it was", || seconds.is_disjoint(&below(served.pid()))).await;
    assert!(call(&served, ALICE, "second__Read", json!({ "file_path": "a.md" })).await.contains("hello"));
    change(&folder, &served, &policy(both, "")).await;
    eventually("the second to be gone", || below(served.pid()) == files).await;
    assert!(call(&served, ALICE, "second__Read", read.clone()).await.contains("Unknown tool"));
    assert!(call(&served, ALICE, "files__Read", read).await.contains("hello"));
}
